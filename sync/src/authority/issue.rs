//! Signers and the certificates that they sign, with keys that are drawn here and kept nowhere else.

use std::time::Duration;

use peer_table::{AuthorityId, Binding, FingerprintKey, WallTime};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use ring::digest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::state::{Authority, Signer, earlier, later};
use crate::tls::{ClusterName, Credentials, InvalidCredentials, Pem, not_after};
use crate::wall;

/// How far back the validity of a certificate begins: clocks differ, and manager refuses who is
/// further off than this anyway.
pub const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// No certificate could be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A key cannot be read, or a certificate not be made.
    #[error("the key or certificate of the authority cannot be used")]
    Certificate(#[from] rcgen::Error),
    /// The signer has come to its end.
    #[error(
        "the authority's certificate has expired, or the clock of this machine is wrong: \
         `udht-sync authority rotate` makes a new one"
    )]
    Expired,
    /// What was issued would not be believed.
    #[error("what the authority has signed would not be believed")]
    Unfit(#[from] InvalidCredentials),
}

/// A new authority: its UUID, its key of fingerprints, its first signer.
pub fn authority(lifetime: Duration) -> Result<Authority, rcgen::Error> {
    let mut id = random_bytes();
    // A UUID of version 4, by RFC 9562.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let binding = Binding {
        authority: AuthorityId::from_bytes(id),
        fingerprint_key: FingerprintKey::from_bytes(random_bytes()),
    };
    let signer = signer(binding.authority, wall::now(), lifetime)?;
    Ok(Authority::new(binding, signer))
}

fn random_bytes() -> [u8; 16] {
    let halves = [wall::random().to_le_bytes(), wall::random().to_le_bytes()];
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&halves[0]);
    bytes[8..].copy_from_slice(&halves[1]);
    bytes
}

/// A new signer of the authority with this UUID. Each has a name of its own, so that nobody tries
/// the wrong one of two.
pub fn signer(id: AuthorityId, now: WallTime, lifetime: Duration) -> Result<Signer, rcgen::Error> {
    let name = format!("udht {id} {:016x}", wall::random());
    let key = KeyPair::generate()?;
    let mut params = signer_params(&name);
    set_validity(&mut params, now, later(now, lifetime));
    Ok(Signer {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
        name,
    })
}

/// All that the issuer of certificates is known by, beside its key.
fn signer_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A certificate that was just issued, and until when it is good.
#[derive(Debug)]
pub struct Leaf {
    /// What connections are made with.
    pub credentials: Credentials,
    /// From when on it is valid.
    pub from: WallTime,
    /// When it ends.
    pub ends: WallTime,
}

/// Issues a certificate to this sync, for the given time or as long as its signer is believed.
pub fn leaf(authority: &Authority, now: WallTime, lifetime: Duration) -> Result<Leaf, IssueError> {
    let signer = authority.signs(now);
    let signer_ends = expires(signer).unwrap_or(WallTime::from_millis(0));
    let ends = later(now, lifetime).min(signer_ends);
    let ends = authority
        .signs_until(now)
        .map_or(ends, |until| until.min(ends));
    if ends <= now {
        return Err(IssueError::Expired);
    }
    let name = ClusterName::of_authority(authority.id());
    let mut params = CertificateParams::new([name.to_string()])?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, name.to_string());
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    set_validity(&mut params, now, ends);
    let key = KeyPair::generate()?;
    let issuer = Issuer::new(signer_params(&signer.name), KeyPair::from_pem(&signer.key)?);
    let pem = Pem {
        authorities: authority
            .believed(now)
            .flat_map(|signer| signer.certificate.bytes().chain(*b"\n"))
            .collect(),
        chain: params.signed_by(&key, &issuer)?.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    };
    Ok(Leaf {
        credentials: Credentials::new(pem, &name, now)?,
        from: earlier(now, CLOCK_SKEW),
        ends,
    })
}

/// When a signer's certificate ends; none if it is no certificate.
pub fn expires(signer: &Signer) -> Option<WallTime> {
    let certificate = CertificateDer::from_pem_slice(signer.certificate.as_bytes()).ok()?;
    let seconds = u64::try_from(not_after(&certificate)?).ok()?;
    Some(WallTime::from_millis(seconds.saturating_mul(1_000)))
}

/// The SHA-256 of a signer's certificate, as other programs show it; none if it is no certificate.
pub fn sha256(signer: &Signer) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(signer.certificate.as_bytes()).ok()?;
    let digest = digest::digest(&digest::SHA256, &certificate);
    let pairs: Vec<_> = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    Some(pairs.join(":"))
}

/// From [`CLOCK_SKEW`] before `now` until `ends`, in whole seconds.
fn set_validity(params: &mut CertificateParams, now: WallTime, ends: WallTime) {
    /// The end of 9999, the last that a certificate can say.
    const SECONDS_MAX: u64 = 253_402_300_799;
    let since = |time: WallTime| Duration::from_secs((time.as_millis() / 1_000).min(SECONDS_MAX));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since(now).saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + since(ends);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::state::Overlap;

    const HOUR: Duration = Duration::from_hours(1);
    const OVERLAP: Overlap = Overlap {
        notice: Duration::from_mins(1),
        leaf_lifetime: HOUR,
    };

    fn now() -> WallTime {
        WallTime::from_millis(wall::now().as_millis() / 1_000 * 1_000)
    }

    #[test]
    fn a_certificate_is_good_for_both_ends_and_ends_when_it_should() {
        let authority = authority(HOUR * 100).unwrap();
        let leaf = leaf(&authority, now(), HOUR).unwrap();
        let seconds = later(now(), HOUR).as_millis() / 1_000;
        assert!(leaf.credentials.expires().unsigned_abs().abs_diff(seconds) <= 1);
    }

    #[test]
    fn a_certificate_does_not_outlive_its_signer() {
        let now = now();
        let mut authority = authority(HOUR / 2).unwrap();
        let ends = leaf(&authority, now, HOUR).unwrap().ends;
        assert!(ends <= later(now, HOUR / 2 + Duration::from_secs(1)));
        let late = later(now, HOUR);
        assert!(matches!(
            leaf(&authority, late, HOUR),
            Err(IssueError::Expired)
        ));

        authority.signer = signer(authority.id(), now, HOUR * 100).unwrap();
        let next = signer(authority.id(), now, HOUR * 100).unwrap();
        let rotating = authority.rotated(next, now, OVERLAP).unwrap();
        let ends = rotating.rotation.as_ref().unwrap().ends;
        assert_eq!(leaf(&rotating, now, HOUR * 10).unwrap().ends, ends);
    }

    #[test]
    fn in_each_stage_whoever_is_in_the_stage_beside_it_is_believed() {
        let now = now();
        let old = authority(HOUR * 100).unwrap();
        let next = signer(old.id(), now, HOUR * 100).unwrap();
        let rotating = old.rotated(next, now, OVERLAP).unwrap();
        let stages = [
            (&old, now),
            (&rotating, now),
            (&rotating, later(now, OVERLAP.notice)),
            (&rotating, rotating.rotation.as_ref().unwrap().ends),
        ];
        let leaves = stages.map(|(authority, now)| leaf(authority, now, HOUR).unwrap().credentials);
        let admits = |one: usize, other: usize, at: usize| {
            let chain = leaves[other].chain();
            leaves[one].admit(chain, stages[at].1).is_ok()
        };
        for (one, other) in [(0, 1), (1, 2), (0, 0), (1, 1), (2, 2), (3, 3)] {
            assert!(
                admits(one, other, other) && admits(other, one, other),
                "{one} {other}"
            );
        }
        // Who has a certificate of the old one is still believed when the new one signs.
        assert!(admits(2, 0, 2) && admits(2, 1, 2));
        // And no more when that is over; nor does who never heard of it believe the new one.
        assert!(!admits(3, 0, 2) && !admits(0, 2, 2));
    }

    #[test]
    fn two_authorities_do_not_believe_each_other() {
        let [one, other] = [(); 2].map(|()| {
            let authority = authority(HOUR).unwrap();
            leaf(&authority, now(), HOUR).unwrap().credentials
        });
        assert!(one.admit(other.chain(), now()).is_err());
        assert!(one.admit(one.chain(), now()).is_ok());
    }

    #[test]
    fn a_signer_whose_parts_do_not_fit_issues_nothing() {
        let good = authority(HOUR).unwrap();
        let other = signer(good.id(), now(), HOUR).unwrap();
        let bent = |change: fn(&mut Signer, Signer)| {
            let mut bent = good.clone();
            change(&mut bent.signer, other.clone());
            leaf(&bent, now(), HOUR).is_err()
        };
        assert!(bent(|signer, other| signer.key = other.key));
        assert!(bent(|signer, other| signer.name = other.name));
        assert!(bent(|signer, other| signer.certificate = other.certificate));
        assert!(bent(|signer, _| signer.certificate.clear()));
        assert!(bent(|signer, _| signer.key = signer.certificate.clone()));
        assert!(leaf(&good, now(), HOUR).is_ok());
    }
}
