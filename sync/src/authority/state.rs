//! What is in the Secret of a release's authority, and how it may change. Pure: time is handed in,
//! and so is every key.

use std::fmt;
use std::time::Duration;

use peer_table::contract::ADOPTS_MAX;
use peer_table::{AuthorityId, Binding, FingerprintKey, WallTime};
use serde::{Deserialize, Serialize};

/// The one key in the Secret.
pub const SECRET_KEY: &str = "authority.json";
/// The largest content: far above what the largest authority takes.
const BYTES_MAX: usize = 64 << 10;
/// The form of the content that this release reads and writes.
const FORMAT: u32 = 1;
/// The longest name of a signer, in bytes: that of a common name in a certificate.
const NAME_BYTES_MAX: usize = 64;

/// A certificate that signs others, with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// What it is called as the issuer of certificates: its common name.
    pub name: String,
    /// The certificate, as PEM.
    pub certificate: String,
    /// Its key, as PEM.
    pub key: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's business.
        let mut signer = f.debug_struct("Signer");
        signer.field("name", &self.name).finish_non_exhaustive()
    }
}

/// A signer takes over from another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// Who signs next. It is believed from the moment it is there.
    pub next: Signer,
    /// From when on it signs.
    pub signs_from: WallTime,
    /// From when on the one before is believed no more.
    pub ends: WallTime,
}

/// How far a rotation is. The numbers are those of the metric.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// There is one signer, and it alone is believed.
    Single = 0,
    /// Both are believed, and the old one signs.
    Announced = 1,
    /// Both are believed, and the new one signs.
    Signing = 2,
}

impl Stage {
    /// What it means, for people.
    pub const fn said(self) -> &'static str {
        match self {
            Self::Single => "no rotation is under way",
            Self::Announced => "both authorities are believed, the old one signs",
            Self::Signing => "both authorities are believed, the new one signs",
        }
    }
}

/// How long the parts of a rotation take.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Overlap {
    /// For how long everybody has the time to hear of the new signer before it signs.
    pub notice: Duration,
    /// The longest life of a certificate that the old one has signed.
    pub leaf_lifetime: Duration,
}

/// The authority of a release.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authority {
    /// Which it is, and the key of the cluster's fingerprints.
    pub binding: Binding,
    /// The authorities whose stores belong to this one now.
    pub adopted: Vec<AuthorityId>,
    /// Who signs, and during a rotation who did.
    pub signer: Signer,
    /// The rotation that is under way.
    pub rotation: Option<Rotation>,
}

/// The content of the Secret is no authority.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidAuthority {
    /// It is too large.
    #[error("it has {bytes} bytes, more than the {BYTES_MAX} of any authority")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// It is not the JSON that is written there. What stands there is not repeated: it may be a key.
    #[error("it cannot be read ({problem} in line {line}, column {column})")]
    Json {
        /// What kind of trouble it is.
        problem: &'static str,
        /// Where.
        line: usize,
        /// And where in the line.
        column: usize,
    },
    /// It was written by another release.
    #[error("it has the format {found}, and this release knows {FORMAT}: use the newer release")]
    Format {
        /// Which it says.
        found: u32,
    },
    /// A part of it cannot be.
    #[error("the field {field} {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A change that cannot be made now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unchanged {
    /// A rotation is under way.
    #[error(
        "a rotation is under way until {until}: wait for its end, or end it at once with \
         `udht-sync authority rotate --finish`"
    )]
    UnderWay {
        /// When it ends.
        until: String,
    },
    /// None is under way.
    #[error("no rotation is under way: there is nothing to finish")]
    NoRotation,
    /// The authority is told to adopt itself.
    #[error("{id} is the authority itself: its stores belong to it already")]
    Itself {
        /// Which.
        id: AuthorityId,
    },
    /// It has adopted too many.
    #[error("the authority has adopted {ADOPTS_MAX} others already, and takes no more")]
    TooMany,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    format: u32,
    uuid: String,
    fingerprint_key: String,
    #[serde(default)]
    adopted: Vec<String>,
    signer: Signer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<WrittenRotation>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenRotation {
    next: Signer,
    signs_from: String,
    ends: String,
}

/// Read first, so that what a newer release wrote is known for that.
#[derive(Deserialize)]
struct OfFormat {
    format: u32,
}

impl Authority {
    /// A new one.
    pub const fn new(binding: Binding, signer: Signer) -> Self {
        Self {
            binding,
            adopted: Vec::new(),
            signer,
            rotation: None,
        }
    }

    /// Its UUID.
    pub const fn id(&self) -> AuthorityId {
        self.binding.authority
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidAuthority> {
        if bytes.len() > BYTES_MAX {
            let bytes = bytes.len();
            return Err(InvalidAuthority::TooLarge { bytes });
        }
        let OfFormat { format } = json(bytes)?;
        if format != FORMAT {
            return Err(InvalidAuthority::Format { found: format });
        }
        let written: Written = json(bytes)?;
        let rotation = written.rotation.map(|rotation| {
            let WrittenRotation {
                next,
                signs_from,
                ends,
            } = rotation;
            let rotation = Rotation {
                next: checked(next)?,
                signs_from: time("signsFrom", &signs_from)?,
                ends: time("ends", &ends)?,
            };
            if rotation.ends < rotation.signs_from {
                return Err(field("ends", "is before signsFrom"));
            }
            if rotation.next.name == written.signer.name {
                return Err(field("next", "has the name of the signer before it"));
            }
            Ok(rotation)
        });
        if written.adopted.len() > ADOPTS_MAX {
            return Err(field("adopted", "has too many entries"));
        }
        let adopted = written.adopted.iter().map(|id| uuid("adopted", id));
        Ok(Self {
            binding: Binding {
                authority: uuid("uuid", &written.uuid)?,
                fingerprint_key: FingerprintKey::from_bytes(from_hex(&written.fingerprint_key)?),
            },
            adopted: adopted.collect::<Result<_, _>>()?,
            signer: checked(written.signer)?,
            rotation: rotation.transpose()?,
        })
    }

    /// As it is written into the Secret: JSON, of which it is the whole content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let rotation = self.rotation.as_ref().map(|rotation| WrittenRotation {
            next: rotation.next.clone(),
            signs_from: written_time(rotation.signs_from),
            ends: written_time(rotation.ends),
        });
        let written = Written {
            format: FORMAT,
            uuid: self.id().to_string(),
            fingerprint_key: to_hex(self.binding.fingerprint_key.as_bytes()),
            adopted: self.adopted.iter().map(ToString::to_string).collect(),
            signer: self.signer.clone(),
            rotation,
        };
        serde_json::to_vec_pretty(&written).expect("texts and numbers are always JSON")
    }

    /// How far a rotation is at `now`. Everybody concludes it from the clock alone: nothing needs to
    /// be written, nor heard, for it to go on.
    pub fn stage(&self, now: WallTime) -> Stage {
        match &self.rotation {
            None => Stage::Single,
            Some(rotation) if now >= rotation.ends => Stage::Single,
            Some(rotation) if now >= rotation.signs_from => Stage::Signing,
            Some(_) => Stage::Announced,
        }
    }

    /// When the stage changes next.
    pub fn stage_ends(&self, now: WallTime) -> Option<WallTime> {
        let rotation = self.rotation.as_ref()?;
        [rotation.signs_from, rotation.ends]
            .into_iter()
            .find(|time| *time > now)
    }

    /// Who signs at `now`.
    pub fn signs(&self, now: WallTime) -> &Signer {
        match &self.rotation {
            Some(rotation) if now >= rotation.signs_from => &rotation.next,
            _ => &self.signer,
        }
    }

    /// Whose certificates are believed at `now`.
    pub fn believed(&self, now: WallTime) -> impl Iterator<Item = &Signer> {
        let rotation = self.rotation.as_ref();
        let old = rotation.is_none_or(|rotation| now < rotation.ends);
        let next = rotation.map(|rotation| &rotation.next);
        old.then_some(&self.signer).into_iter().chain(next)
    }

    /// The latest end of a certificate that is signed at `now`, beyond which its signer is believed
    /// no more; none if that is as long as the signer lasts.
    pub fn signs_until(&self, now: WallTime) -> Option<WallTime> {
        let rotation = self.rotation.as_ref()?;
        (now < rotation.signs_from).then_some(rotation.ends)
    }

    /// Begins a rotation at `now`.
    pub fn rotated(
        &self,
        next: Signer,
        now: WallTime,
        overlap: Overlap,
    ) -> Result<Self, Unchanged> {
        let before = self.settled(now);
        if let Some(rotation) = &before.rotation {
            let until = written_time(rotation.ends);
            return Err(Unchanged::UnderWay { until });
        }
        let Overlap {
            notice,
            leaf_lifetime,
        } = overlap;
        let signs_from = later(now, notice);
        // Clocks differ, and who was late to hear of it may be as late to renew.
        let ends = later(signs_from, leaf_lifetime.saturating_add(notice));
        Ok(Self {
            rotation: Some(Rotation {
                next,
                signs_from,
                ends,
            }),
            ..before
        })
    }

    /// Ends the rotation that is under way, whoever may still have a certificate of the old signer.
    pub fn finished(&self) -> Result<Self, Unchanged> {
        let rotation = self.rotation.as_ref().ok_or(Unchanged::NoRotation)?;
        Ok(Self {
            signer: rotation.next.clone(),
            rotation: None,
            ..self.clone()
        })
    }

    /// The same without a rotation that is over: so the old key is kept nowhere any more.
    #[must_use]
    pub fn settled(&self, now: WallTime) -> Self {
        match &self.rotation {
            Some(rotation) if now >= rotation.ends => {
                self.finished().unwrap_or_else(|_| self.clone())
            }
            _ => self.clone(),
        }
    }

    /// Takes in the stores of another authority.
    pub fn adopting(&self, id: AuthorityId) -> Result<Self, Unchanged> {
        if id == self.id() {
            return Err(Unchanged::Itself { id });
        }
        let mut other = self.clone();
        if !other.adopted.contains(&id) {
            if other.adopted.len() >= ADOPTS_MAX {
                return Err(Unchanged::TooMany);
            }
            other.adopted.push(id);
        }
        Ok(other)
    }
}

/// A time as it is shown and written: RFC 3339 in UTC.
pub fn written_time(time: WallTime) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(time.as_millis()));
    let time = time.unwrap_or(std::time::UNIX_EPOCH).min(time_max());
    humantime::format_rfc3339_millis(time).to_string()
}

/// The last time that RFC 3339 can say.
fn time_max() -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_secs(253_402_300_799)
}

/// The time `after` from `time` on.
pub fn later(time: WallTime, after: Duration) -> WallTime {
    let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    WallTime::from_millis(time.as_millis().saturating_add(after))
}

/// The time `before` before `time`.
pub fn earlier(time: WallTime, before: Duration) -> WallTime {
    let before = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
    WallTime::from_millis(time.as_millis().saturating_sub(before))
}

/// How long it is from `now` to `time`; nothing if that is over.
pub fn until(time: WallTime, now: WallTime) -> Duration {
    Duration::from_millis(time.as_millis().saturating_sub(now.as_millis()))
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, InvalidAuthority> {
    use serde_json::error::Category;
    serde_json::from_slice(bytes).map_err(|error| InvalidAuthority::Json {
        problem: match error.classify() {
            Category::Io | Category::Eof => "it is cut off",
            Category::Syntax => "it is not JSON",
            Category::Data => "a field is missing, unknown or of another kind",
        },
        line: error.line(),
        column: error.column(),
    })
}

const fn field(field: &'static str, problem: &'static str) -> InvalidAuthority {
    InvalidAuthority::Field { field, problem }
}

fn checked(signer: Signer) -> Result<Signer, InvalidAuthority> {
    if (1..=NAME_BYTES_MAX).contains(&signer.name.len()) {
        Ok(signer)
    } else {
        Err(field("name", "is empty or too long"))
    }
}

fn uuid(name: &'static str, text: &str) -> Result<AuthorityId, InvalidAuthority> {
    text.parse().map_err(|_| field(name, "is no UUID"))
}

fn time(name: &'static str, text: &str) -> Result<WallTime, InvalidAuthority> {
    let wrong = field(name, "is no RFC 3339 time from 1970 on");
    let time = humantime::parse_rfc3339(text).map_err(|_| wrong.clone())?;
    let since = time
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|_| wrong.clone())?;
    let millis = u64::try_from(since.as_millis()).map_err(|_| wrong)?;
    Ok(WallTime::from_millis(millis))
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
    let pair = |byte: &u8| [digit(byte >> 4), digit(byte & 0xf)];
    bytes.iter().flat_map(pair).collect()
}

fn from_hex(text: &str) -> Result<[u8; 16], InvalidAuthority> {
    let wrong = || field("fingerprintKey", "is not 32 hexadecimal digits");
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAP: Overlap = Overlap {
        notice: Duration::from_secs(10),
        leaf_lifetime: Duration::from_secs(100),
    };

    fn signer(name: &str) -> Signer {
        Signer {
            name: name.to_owned(),
            certificate: format!("certificate of {name}"),
            key: format!("key of {name}"),
        }
    }

    fn id(byte: u8) -> AuthorityId {
        AuthorityId::from_bytes([byte; 16])
    }

    fn authority() -> Authority {
        let binding = Binding {
            authority: id(1),
            fingerprint_key: FingerprintKey::from_bytes([0xab; 16]),
        };
        Authority::new(binding, signer("old"))
    }

    fn at(seconds: u64) -> WallTime {
        WallTime::from_millis(seconds * 1_000)
    }

    fn rotating() -> Authority {
        authority()
            .rotated(signer("new"), at(1_000), OVERLAP)
            .unwrap()
    }

    fn names(authority: &Authority, now: WallTime) -> (String, Vec<String>) {
        let signs = authority.signs(now).name.clone();
        let believed = authority.believed(now).map(|signer| signer.name.clone());
        (signs, believed.collect())
    }

    #[test]
    fn what_is_written_reads_back() {
        for authority in [
            authority(),
            rotating(),
            rotating().adopting(id(2)).unwrap().adopting(id(3)).unwrap(),
        ] {
            let bytes = authority.to_bytes();
            assert_eq!(Authority::from_bytes(&bytes), Ok(authority));
        }
    }

    #[test]
    fn nothing_that_is_shown_has_a_key_in_it() {
        let shown = format!("{:?} {:#?}", authority(), rotating());
        assert!(shown.contains("old") && shown.contains("new"), "{shown}");
        // The keys of the signers, and that of the fingerprints in each form that it may have.
        for secret in ["key of", "171", "abab", "ABAB"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }

    #[test]
    fn the_form_of_the_content_is_this() {
        let text = String::from_utf8(rotating().adopting(id(2)).unwrap().to_bytes()).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn each_part_that_cannot_be_is_named() {
        let text = String::from_utf8(rotating().adopting(id(2)).unwrap().to_bytes()).unwrap();
        let said = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            let bent = text.replace(from, to);
            Authority::from_bytes(bent.as_bytes())
                .unwrap_err()
                .to_string()
        };
        for (from, to, part) in [
            ("\"format\": 1", "\"format\": 2", "use the newer release"),
            ("\"format\": 1", "\"form\": 1", "a field is missing"),
            (
                "\"uuid\": \"01",
                "\"uuid\": \"x1",
                "the field uuid is no UUID",
            ),
            ("\"02020202-", "\"", "the field adopted is no UUID"),
            ("abababab", "abab", "fingerprintKey is not 32"),
            ("abababab", "abägab", "fingerprintKey is not 32"),
            (
                "1970-01-01T00:16:50",
                "1870-01-01T00:16:50",
                "signsFrom is no",
            ),
            (
                "1970-01-01T00:18:40",
                "1970-01-01T00:16:00",
                "ends is before",
            ),
            ("\"new\"", "\"\"", "name is empty"),
            ("\"new\"", "\"old\"", "has the name of"),
            ("\"signsFrom\"", "\"signsfrom\"", "unknown"),
        ] {
            let said = said(from, to);
            assert!(said.contains(part), "{from} -> {to}: {said}");
        }
        let large = vec![b' '; BYTES_MAX + 1];
        let said = Authority::from_bytes(&large).unwrap_err().to_string();
        assert!(said.contains("more than the"), "{said}");
    }

    #[test]
    fn what_cannot_be_read_is_never_repeated() {
        let secret = "-----BEGIN PRIVATE KEY-----";
        for text in [
            format!("{{\"format\": \"{secret}\"}}"),
            format!("{{\"format\": 1, \"uuid\": \"{secret}\", \"signer\": \"{secret}\"}}"),
            format!("{{\"format\": 1, \"{secret}\": 1}}"),
        ] {
            let error = Authority::from_bytes(text.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("PRIVATE"), "{error}");
        }
        let debug = format!("{:?}", rotating());
        assert!(
            !debug.contains("key of") && !debug.contains("171"),
            "{debug}"
        );
    }

    #[test]
    fn whatever_is_cut_off_is_no_panic() {
        let bytes = rotating().to_bytes();
        for length in 0..bytes.len() {
            assert!(Authority::from_bytes(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn in_a_rotation_the_new_one_is_believed_before_it_signs_and_the_old_one_after_it_did() {
        let rotating = rotating();
        for (second, stage, signs, believed) in [
            (1_000, Stage::Announced, "old", &["old", "new"][..]),
            (1_009, Stage::Announced, "old", &["old", "new"]),
            (1_010, Stage::Signing, "new", &["old", "new"]),
            (1_119, Stage::Signing, "new", &["old", "new"]),
            (1_120, Stage::Single, "new", &["new"]),
        ] {
            let now = at(second);
            assert_eq!(rotating.stage(now), stage, "{second}");
            let (signing, believing) = names(&rotating, now);
            assert_eq!(
                (signing.as_str(), believing),
                (signs, believed.iter().map(|it| (*it).to_owned()).collect())
            );
            assert!(rotating.settled(now).stage(now) == stage);
        }
        assert_eq!(rotating.stage_ends(at(1_000)), Some(at(1_010)));
        assert_eq!(rotating.stage_ends(at(1_010)), Some(at(1_120)));
        assert_eq!(rotating.stage_ends(at(1_120)), None);
    }

    #[test]
    fn no_certificate_outlives_the_belief_in_who_signed_it() {
        let rotating = rotating();
        assert_eq!(rotating.signs_until(at(1_009)), Some(at(1_120)));
        assert_eq!(rotating.signs_until(at(1_010)), None);
        assert_eq!(authority().signs_until(at(1_000)), None);
    }

    #[test]
    fn a_second_rotation_waits_for_the_end_of_the_first_and_the_old_key_is_forgotten() {
        let first = rotating();
        let again = |now| first.rotated(signer("newer"), at(now), OVERLAP);
        for now in [1_001, 1_050, 1_119] {
            assert!(matches!(again(now), Err(Unchanged::UnderWay { .. })));
        }
        let second = again(1_120).unwrap();
        assert_eq!(names(&second, at(1_120)).1, ["new", "newer"]);
        let settled = first.settled(at(1_120));
        assert_eq!(settled.rotation, None);
        let text = String::from_utf8(settled.to_bytes()).unwrap();
        assert!(!text.contains("key of old"), "{text}");
        assert_eq!(first.settled(at(1_119)), first);
    }

    #[test]
    fn a_rotation_can_be_ended_at_once() {
        let finished = rotating().finished().unwrap();
        assert_eq!(
            names(&finished, at(1_001)),
            ("new".to_owned(), vec!["new".to_owned()])
        );
        assert_eq!(finished.finished(), Err(Unchanged::NoRotation));
    }

    #[test]
    fn others_are_adopted_once_and_up_to_a_bound() {
        let once = authority().adopting(id(2)).unwrap();
        assert_eq!(once.adopting(id(2)), Ok(once.clone()));
        let itself = Unchanged::Itself { id: id(1) };
        assert_eq!(once.adopting(id(1)), Err(itself));
        let mut full = authority();
        for byte in 0..ADOPTS_MAX {
            full = full
                .adopting(id(100 + u8::try_from(byte).unwrap()))
                .unwrap();
        }
        assert_eq!(full.adopting(id(9)), Err(Unchanged::TooMany));
        assert!(full.adopting(id(100)).is_ok(), "it is there already");
        assert_eq!(Authority::from_bytes(&full.to_bytes()), Ok(full));
    }

    #[test]
    fn times_beyond_the_calendar_are_no_panic() {
        let end = later(WallTime::from_millis(u64::MAX), Duration::MAX);
        assert_eq!(written_time(end), "9999-12-31T23:59:59.000Z");
    }
}
