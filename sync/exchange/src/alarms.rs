//! What a sync is alarmed about: conditions, words and advice, as a function of what is to be seen.

use std::collections::BTreeMap;
use std::time::Duration;

use peer_table::WallTime;
use peer_table::clock::stamp_ahead_max;
use peer_table::contract::{ALARM_ABOUT_MAX, About, Alarm, AlarmKind, Alarms, Found};

use crate::book::{Address, Peer, PeerBook, SILENT_ROUNDS, Uptime};
use crate::gone::Brake;
use crate::handshake::HandshakeRefused;

/// What comes and goes by itself at a start, or as another program starts again, is an alarm once it
/// has lasted so long.
const LASTS: Duration = Duration::from_secs(10);
/// How long it counts that something was turned away, or left for later.
const OVERLOADED_FOR: Duration = Duration::from_secs(15);
/// A certificate is near its end once less than this is left, or a quarter of its life if that is
/// less. What renews one does so when a third is left, at the latest.
const CERTIFICATE_LEFT: Duration = Duration::from_hours(24);

/// What there is to be seen at one moment.
#[expect(
    missing_debug_implementations,
    reason = "a function has nothing to show"
)]
pub struct Signs<'a> {
    /// The peers.
    pub book: &'a PeerBook,
    /// The name of the pod at an address, where Kubernetes has told of it.
    pub pod_at: &'a dyn Fn(&Address) -> Option<String>,
    /// How often a round begins, on average.
    pub interval: Duration,
    /// A clock that is further off is wrong.
    pub drift_max: Duration,
    /// How connections are secured; `None` if they are not.
    pub certificate: Option<Certificate>,
    /// Whether the list of pods is followed; `None` where nobody follows one.
    pub is_following: Option<bool>,
    /// Why nobody is taken for gone, if so.
    pub brake: Option<Brake>,
    /// Records that were not passed on since the start, as too many waited.
    pub dropped: u64,
    /// Connections that were closed since the start, as there were too many.
    pub turned_away: u64,
    /// Why the manager does not answer, if it does not.
    pub manager_away: Option<&'a str>,
    /// What is wrong with the manager where it is of another cluster.
    pub manager_of_other: Option<&'a str>,
    /// How long this sync has run.
    pub now: Uptime,
    /// The time of day.
    pub wall: WallTime,
}

/// What secures connections.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Certificate {
    /// There is none yet.
    None,
    /// One that was good for `life` at its beginning, and still is for `left`.
    Good {
        /// All in all.
        life: Duration,
        /// From now on: nothing if it has ended.
        left: Duration,
    },
}

/// The alarms of a sync over time.
#[derive(Debug, Default)]
pub struct Watch {
    alarms: Alarms,
    /// Since when that is so of which an alarm comes later.
    lasting: BTreeMap<AlarmKind, Uptime>,
    /// What was dropped and turned away, and when that last rose.
    dropped: Rising,
    turned_away: Rising,
}

/// A count, and when it last rose.
#[derive(Copy, Clone, Debug, Default)]
struct Rising {
    count: u64,
    at: Option<Uptime>,
}

impl Rising {
    /// Whether it rose a moment ago.
    fn rises(&mut self, count: u64, now: Uptime) -> bool {
        if count > self.count {
            *self = Self {
                count,
                at: Some(now),
            };
        }
        self.at.is_some_and(|at| at.plus(OVERLOADED_FOR) > now)
    }
}

impl Watch {
    /// Looks at what is to be seen. Answers whether an alarm has begun or ended.
    pub fn look(&mut self, signs: &Signs<'_>) -> bool {
        let found = [
            isolated(signs),
            diverged(signs),
            clock_outlier(signs),
            self.brake_on(signs),
            self.store_copied(signs),
            self.queue_full(signs),
            self.certificate(signs),
            self.kubernetes_unreachable(signs),
            self.manager_down(signs),
        ];
        self.alarms
            .find(found.into_iter().flatten().collect(), signs.wall)
    }

    /// All alarms as of the last look, the worst first.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.list()
    }

    /// Whether this one stands, as of the last look.
    pub fn stands(&self, alarm: AlarmKind) -> bool {
        self.alarms.stands(alarm)
    }

    /// Whether that of which this is the alarm has lasted.
    fn lasts(&mut self, alarm: AlarmKind, is_so: bool, now: Uptime) -> bool {
        if !is_so {
            self.lasting.remove(&alarm);
            return false;
        }
        self.lasting.entry(alarm).or_insert(now).plus(LASTS) <= now
    }

    fn brake_on(&mut self, signs: &Signs<'_>) -> Option<Found> {
        let is_on = self.lasts(AlarmKind::BrakeOn, signs.brake.is_some(), signs.now);
        let brake = signs.brake.filter(|_| is_on)?;
        let (text, advice) = match brake {
            Brake::Blind => (
                "Nobody is taken for gone: the list of pods is not followed, or does not name this pod."
                    .to_owned(),
                "It ends when the Kubernetes API is followed again. Until then records of pods that are \
                 really gone stay.",
            ),
            Brake::Many { gone, known } => (
                format!("{gone} of {known} pods are gone at once, and that is not believed."),
                "If they come back, it ends. If they are gone for good, say so: udht-sync gone --remove.",
            ),
        };
        Some(found(AlarmKind::BrakeOn, text, advice))
    }

    /// Two pods run on one store, of which one is a copy; they refuse each other, and so both know.
    fn store_copied(&mut self, signs: &Signs<'_>) -> Option<Found> {
        let copied = HandshakeRefused::Copied.word();
        let twins = signs.book.peers().filter(|(_, peer)| !peer.is_self);
        let twins: Vec<_> = twins
            .filter(|(_, peer)| peer.problem == Some(copied))
            .collect();
        if !self.lasts(AlarmKind::StoreCopied, !twins.is_empty(), signs.now) {
            return None;
        }
        let about = twins.iter().take(ALARM_ABOUT_MAX);
        let about = about.map(|(address, peer)| About {
            who: who(address, peer, signs),
            reason: result_word(copied),
        });
        let text = "Another pod has the same store as this one: one of them is a copy. They exchange \
                    nothing with each other, and both write the record of one peer.";
        Some(Found {
            about: about.collect(),
            ..found(
                AlarmKind::StoreCopied,
                text,
                unreachable_advice(&result_word(copied)),
            )
        })
    }

    fn queue_full(&mut self, signs: &Signs<'_>) -> Option<Found> {
        let dropped = self.dropped.rises(signs.dropped, signs.now);
        let turned_away = self.turned_away.rises(signs.turned_away, signs.now);
        let text = match (dropped, turned_away) {
            (false, false) => return None,
            (true, _) => {
                "Changes come in faster than they are passed on; exchanges carry the rest."
            }
            (false, true) => "More connections come in than are taken; the excess is turned away.",
        };
        let advice =
            "Nothing is lost. Give sync more CPU, or see who calls ports 3003 and 3004 so often.";
        Some(found(AlarmKind::QueueFull, text, advice))
    }

    fn certificate(&mut self, signs: &Signs<'_>) -> Option<Found> {
        let is_without = signs.certificate == Some(Certificate::None);
        let is_without = self.lasts(AlarmKind::Certificate, is_without, signs.now);
        let text = match signs.certificate? {
            Certificate::None if is_without => {
                "This sync has no certificate, so it talks to nobody.".to_owned()
            }
            Certificate::Good { life, left } if left < CERTIFICATE_LEFT.min(life / 4) => {
                if left.is_zero() {
                    "The certificate of this sync has ended: no peer lets it in.".to_owned()
                } else {
                    format!(
                        "The certificate of this sync ends in {}: from then on no peer lets it in.",
                        span(left)
                    )
                }
            }
            Certificate::None | Certificate::Good { .. } => return None,
        };
        let advice = "With --tls auto, see the log of sync, and udht-sync authority show; with files, have \
                      them issued anew: they are taken up by themselves.";
        Some(found(AlarmKind::Certificate, text, advice))
    }

    fn kubernetes_unreachable(&mut self, signs: &Signs<'_>) -> Option<Found> {
        let is_lost = signs.is_following == Some(false);
        let kind = AlarmKind::KubernetesUnreachable;
        self.lasts(kind, is_lost, signs.now).then(|| {
            found(
                kind,
                "The pods cannot be followed through the Kubernetes API; those last known stay in use.",
                "Look at the API server and at what the log of sync says: forbidden is the Role, \
                 timed_out the network.",
            )
        })
    }

    fn manager_down(&mut self, signs: &Signs<'_>) -> Option<Found> {
        let is_so = signs.manager_away.or(signs.manager_of_other).is_some();
        if !self.lasts(AlarmKind::ManagerDown, is_so, signs.now) {
            return None;
        }
        let Some(why) = signs.manager_away else {
            let text = format!(
                "Nothing goes to other pods or comes from them: {}",
                signs.manager_of_other?
            );
            let advice = "The directory of this pod is read and written all the same. Give both containers \
                          the same --cluster (UDHT_CLUSTER).";
            return Some(found(AlarmKind::ManagerDown, text, advice));
        };
        let advice = "The directory of this pod cannot be read or written. Look at the container manager: \
                      does it run, and what does its log say? A large table says how far it is loaded.";
        let text = format!("The manager of this pod does not answer: {why}");
        Some(found(AlarmKind::ManagerDown, text, advice))
    }
}

fn found(alarm: AlarmKind, text: impl Into<String>, advice: &str) -> Found {
    Found {
        alarm,
        text: text.into(),
        advice: advice.to_owned(),
        about: Vec::new(),
    }
}

/// A time in words, of which the first two say enough.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Whom a peer is, for people.
fn who(address: &Address, peer: &Peer, signs: &Signs<'_>) -> String {
    let pod = (signs.pod_at)(address);
    let name = pod.or_else(|| peer.peer_id.as_ref().map(ToString::to_string));
    name.map_or_else(|| address.to_string(), |name| format!("{address} ({name})"))
}

/// The word in metrics for a problem that the book has: there, a refusal has its reason only.
pub fn result_word(problem: &str) -> String {
    let refusals = HandshakeRefused::ALL.map(HandshakeRefused::word);
    if refusals.contains(&problem) {
        format!("refused_{problem}")
    } else {
        format!("failed_{problem}")
    }
}

/// What to do where none can be reached for this reason.
fn unreachable_advice(word: &str) -> &'static str {
    match word {
        "refused_cluster" | "refused_key" => {
            "These addresses belong to another cluster: give all pods of the release the same --cluster. \
             udht-sync exchange HOST:PORT and the log of sync say which is which."
        }
        "refused_protocol" | "refused_ask" | "refused_table" => {
            "The releases are too far apart to talk: bring all pods to neighbouring ones."
        }
        "refused_copied" => {
            "Stop the pod that has the copy, remove its store, and start it with none: its peers fill it."
        }
        "refused_busy" | "refused_unavailable" | "failed_status" => {
            "The others run and have no time, or their managers do not answer: look at those pods."
        }
        "failed_no_credentials" => {
            "This sync has no certificate yet, so it talks to nobody: its log says what keeps it from one."
        }
        "failed_tls" => {
            "Certificates do not fit: see udht-sync authority show, or, with files, who signed them, for \
             which name, and until when. The log of sync has the reason."
        }
        "failed_timed_out" => {
            "Nothing comes back: look at the network, at a NetworkPolicy for port 3003, and at the node."
        }
        _ => {
            "Nobody listens there, or the way is closed: do the other pods run, and does a NetworkPolicy \
             let port 3003 through? udht-sync exchange HOST:PORT tries one now."
        }
    }
}

/// There are peers, and for a while none was heard of.
fn isolated(signs: &Signs<'_>) -> Option<Found> {
    let Signs { book, now, .. } = *signs;
    let is_shut_out = signs.certificate == Some(Certificate::None) && book.known() > 0;
    // Pods that start together take their time.
    let has_begun = now.0 >= signs.interval * SILENT_ROUNDS;
    let is_isolated = has_begun && (is_shut_out || book.isolated(now, signs.interval));
    if !is_isolated {
        return None;
    }
    let others = || book.peers().filter(|(_, peer)| !peer.is_self);
    let word = |peer: &Peer| match peer.problem {
        _ if is_shut_out => "failed_no_credentials".to_owned(),
        Some(problem) => result_word(problem),
        None => "not_heard_of".to_owned(),
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, peer) in others() {
        *counts.entry(word(peer)).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count);
    let advice = unreachable_advice(most.map_or("", |(word, _)| word));
    let counts = counts.iter().map(|(word, count)| format!("{count} {word}"));
    let counts: Vec<_> = counts.collect();
    let text = format!(
        "{} ({}): what is written here stays here for now.",
        match book.known() {
            1 => "The one other pod cannot be reached".to_owned(),
            known => format!("None of the {known} other pods can be reached"),
        },
        counts.join(", ")
    );
    let about = others().take(ALARM_ABOUT_MAX).map(|(address, peer)| About {
        who: who(address, peer, signs),
        reason: word(peer),
    });
    Some(Found {
        about: about.collect(),
        ..found(AlarmKind::Isolated, text, advice)
    })
}

/// Exchanges with a peer leave the two tables different.
fn diverged(signs: &Signs<'_>) -> Option<Found> {
    let Signs { book, now, .. } = *signs;
    let others = book.peers().filter(|(_, peer)| !peer.is_self);
    let diverged = others.filter_map(|(address, peer)| Some((address, peer, peer.diverged(now)?)));
    let mut diverged: Vec<_> = diverged.collect();
    diverged.sort_by_key(|(_, _, difference)| difference.since);
    let (_, _, first) = diverged.first()?;
    let lasts = |since: Uptime| span(now.0.saturating_sub(since.0));
    let most = diverged.iter().filter_map(|(_, _, it)| it.records).max();
    let records = most.map_or_else(String::new, |most| format!(", by up to {most} records"));
    let text = format!(
        "This table stays different from {} other{}, for {} now{records}.",
        diverged.len(),
        if diverged.len() == 1 { "" } else { "s" },
        lasts(first.since),
    );
    let about = diverged.iter().take(ALARM_ABOUT_MAX);
    let about = about.map(|(address, peer, difference)| {
        let records = difference.records;
        let records = records.map_or_else(String::new, |records| format!(", {records} records"));
        About {
            who: who(address, peer, signs),
            reason: format!(
                "{}{records}, for {}",
                difference.why.word(),
                lasts(difference.since)
            ),
        }
    });
    let advice = "refused_full: raise --max-records in that pod. refused_version_ahead: a clock is wrong. \
                  refused_content: a newer release wrote it. failed_...: udht-sync exchange HOST:PORT says \
                  more.";
    Some(Found {
        about: about.collect(),
        ..found(AlarmKind::Diverged, text, advice)
    })
}

fn clock_outlier(signs: &Signs<'_>) -> Option<Found> {
    let limit = stamp_ahead_max(signs.drift_max);
    let off_ms = signs.book.own_clock_off(limit, signs.now)?;
    let off = Duration::from_millis(off_ms.unsigned_abs()).as_secs_f64();
    let way = if off_ms > 0 { "ahead of" } else { "behind" };
    let text = format!(
        "This machine's clock is {off:.1} s {way} those of most other pods; writes are refused here."
    );
    let advice = "Set the clock of this pod's node right (NTP), and writes are taken again by themselves. \
                  If they are not: udht-manager heal-clock.";
    Some(found(AlarmKind::ClockOutlier, text, advice))
}

#[cfg(test)]
mod tests;
