//! What manager is alarmed about: conditions, words and advice, as a function of what is to be seen.

use std::collections::BTreeMap;
use std::time::Duration;

use peer_table::contract::{ALARM_ABOUT_MAX, About, Alarm, AlarmKind, Alarms, Found, Report};
use peer_table::peers::rfc3339;
use peer_table::{Key, OriginId, StoreId, WallTime};

/// After so long without a report, sync is silent: it sends one every five seconds.
pub const SILENT_AFTER: Duration = Duration::from_secs(20);
/// How long it counts that somebody had to wait, or was turned away.
const CROWDED_FOR: Duration = Duration::from_secs(15);
/// A replica that cannot be reached, or is not known at all, holds tombstones back once this has
/// lasted so long. A pod that starts is known sooner.
const HELD_AFTER: Duration = Duration::from_secs(10);
/// Whoever it is that holds it back: a tombstone that has waited for so long, and for
/// [`HELD_PAUSES`] pauses between publications, is held. Where all is well it waits for about two of
/// these pauses.
const HELD_LONG: Duration = Duration::from_mins(5);
const HELD_PAUSES: u32 = 10;

/// What there is to be seen at one moment.
#[derive(Clone, Debug, Default)]
pub struct Signs {
    /// What the store says, where it does not answer.
    pub store_fails: Option<String>,
    /// What the store said when the last commit failed, if none was done since.
    pub commit_failed: Option<String>,
    /// When somebody last had to wait for the owner, or was turned away.
    pub crowded: Option<WallTime>,
    /// Records in the table, those deleted included.
    pub rows: usize,
    /// The most that it takes.
    pub rows_max: usize,
    /// How far this machine's clock is off, where writes are refused for it.
    pub clock_off: Option<Duration>,
    /// With whom this replica has given each other up.
    pub mutual: Vec<Replica>,
    /// Whether nobody is given up, as more than half of the others are silent.
    pub is_mass_silence: bool,
    /// Whether no tombstone leaves, as discovery cannot be relied on: that is said by sync.
    pub is_braked: bool,
    /// Tombstones that are held.
    pub tombstones: usize,
    /// When the first of them was made.
    pub first_tombstone: Option<WallTime>,
    /// Who keeps that one.
    pub holders: Vec<Holder>,
    /// Between two publications of a replica at the least.
    pub publish_pause: Duration,
    /// What the records of pods are called, of those that [`Watch::pods`] asks for.
    pub names: BTreeMap<Key, String>,
}

/// Somebody who keeps a tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The word for how.
    pub reason: &'static str,
    /// Who; none if it is a stranger.
    pub replica: Option<Replica>,
}

/// A replica, as far as it is known whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replica {
    /// The opening of its store.
    pub id: OriginId,
    /// Its store; none while only writes of it are known.
    pub store: Option<StoreId>,
    /// The record of its pod, if that is known.
    pub pod: Option<Key>,
}

impl Holder {
    fn id(&self) -> Option<OriginId> {
        self.replica.as_ref().map(|it| it.id)
    }
}

impl Replica {
    /// Who it is for people: by the name of its pod, if `names` has that.
    fn who(&self, names: &BTreeMap<Key, String>) -> String {
        let Self { id, store, pod } = self;
        let Some(store) = store else {
            return format!("the replica {id}");
        };
        match pod.as_ref().map(|pod| (pod, names.get(pod))) {
            Some((pod, Some(name))) => format!("{name} (peer {pod}, store {store})"),
            Some((pod, None)) => format!("{pod} (store {store})"),
            None => format!("an unnamed pod (store {store})"),
        }
    }
}

/// What sync last reported, and when.
#[derive(Clone, Debug)]
pub struct Reported {
    /// When it came.
    pub at: WallTime,
    /// What it said.
    pub report: Report,
}

impl Reported {
    /// Whether it is so old that it tells nothing of now.
    pub fn is_stale(&self, now: WallTime) -> bool {
        is_past(self.at, SILENT_AFTER, now)
    }
}

/// The alarms of a manager over time.
#[derive(Debug, Default)]
pub struct Watch {
    alarms: Alarms,
    /// Since when it is known of each, or of a stranger, that it is not there to let tombstones go.
    holding: BTreeMap<Option<OriginId>, WallTime>,
}

fn is_past(at: WallTime, age: Duration, now: WallTime) -> bool {
    at.plus(age) <= now
}

impl Watch {
    /// Looks at what is to be seen at `now`. The answer is all alarms, the worst first.
    pub fn look(
        &mut self,
        signs: &Signs,
        reported: Option<&Reported>,
        now: WallTime,
    ) -> Vec<Alarm> {
        let fresh = reported.filter(|it| !it.is_stale(now));
        let found = [
            clock_outlier(signs),
            self.floor_held(signs, fresh.map(|it| &it.report), now),
            signs.is_mass_silence.then(mass_silence),
            mutual(signs),
            store_failing(signs),
            table_full(signs),
            queue_full(signs, now),
            reported.filter(|it| it.is_stale(now)).map(sync_silent),
        ];
        self.alarms.find(found.into_iter().flatten().collect(), now);
        self.alarms()
    }

    /// All alarms as of the last look, the worst first.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.list()
    }

    /// The records of those pods of which the next look may tell: whose names it needs.
    pub fn pods(&self, signs: &Signs) -> Vec<Key> {
        let holders = signs.holders.iter();
        let absent = holders.filter(|it| self.holding.contains_key(&it.id()));
        let absent = absent.filter_map(|it| it.replica.as_ref());
        let replicas = signs.mutual.iter().chain(absent);
        let pods = replicas.filter_map(|it| it.pod.clone());
        pods.take(ALARM_ABOUT_MAX).collect()
    }

    /// Whether this one stands, as of the last look.
    pub fn stands(&self, alarm: AlarmKind) -> bool {
        self.alarms.stands(alarm)
    }

    /// At once, nearly, where it is known who is not there to let a tombstone go; else where one has
    /// waited longer than it ever does while all is well.
    fn floor_held(
        &mut self,
        signs: &Signs,
        report: Option<&Report>,
        now: WallTime,
    ) -> Option<Found> {
        let first = signs.first_tombstone;
        let causes = signs.holders.iter().filter(|_| first.is_some());
        let causes = causes.filter_map(|it| Some((it, absence(it, report)?)));
        let causes: Vec<_> = causes.collect();
        let before = std::mem::take(&mut self.holding);
        let since = |id| (id, before.get(&id).copied().unwrap_or(now));
        self.holding = causes.iter().map(|(it, _)| since(it.id())).collect();
        let first = first?;
        let lasts = |it: &Holder| {
            let since = self.holding.get(&it.id()).copied().unwrap_or(now);
            is_past(since.max(first), HELD_AFTER, now)
        };
        let about = |it: &Holder, absence: Option<&str>| About {
            who: match &it.replica {
                Some(replica) => replica.who(&signs.names),
                None => "a pod that was never met".to_owned(),
            },
            reason: absence.map_or_else(
                || it.reason.to_owned(),
                |absence| format!("{}: {absence}", it.reason),
            ),
        };
        let absent = causes.iter().filter(|(it, _)| lasts(it));
        let mut abouts: Vec<_> = absent.map(|(it, why)| about(it, Some(why))).collect();
        let long = HELD_LONG.max(signs.publish_pause.saturating_mul(HELD_PAUSES));
        if abouts.is_empty() && !signs.is_braked && is_past(first, long, now) {
            abouts = signs.holders.iter().map(|it| about(it, None)).collect();
        }
        let count = abouts.len();
        (count > 0).then(|| Found {
            alarm: AlarmKind::FloorHeld,
            text: format!(
                "Deleted records cannot leave ({} are kept, the first since {}): {count} {} not \
                 said that all has arrived there.",
                signs.tombstones,
                rfc3339(first),
                if count == 1 { "replica has" } else { "replicas have" },
            ),
            advice: "Nothing is lost; they take room. Bring the pod back that is named here. If its \
                     volume will never be used again, give it up: udht-manager replicas give-up STORE, or the \
                     id that is named where no store is."
                .to_owned(),
            about: abouts,
        })
    }
}

/// Why a replica is known not to say what a tombstone waits for; `None` if it may say so any moment.
fn absence(holder: &Holder, report: Option<&Report>) -> Option<String> {
    let report = report?;
    let others = || report.peers.iter().filter(|peer| !peer.own);
    let Some(store) = holder.replica.as_ref().and_then(|it| it.store) else {
        let stranger = holder.reason == "stranger";
        let unknown = others().find(|peer| peer.store.is_none() && !peer.reachable)?;
        let why = unknown.last_error.as_deref().unwrap_or("not met yet");
        return stranger.then(|| format!("{} {why}", unknown.address));
    };
    let store = store.to_string();
    let is_complete = others().count() as u64 >= report.known;
    match others().find(|peer| peer.store.as_deref() == Some(&*store)) {
        Some(peer) if peer.reachable => None,
        Some(peer) => Some(
            peer.last_error
                .clone()
                .unwrap_or_else(|| "not reached".to_owned()),
        ),
        // Who was not met since sync started may be any of those without a store, or be back with
        // another store where one cannot be reached.
        None if is_complete && others().all(|peer| peer.store.is_some() && peer.reachable) => {
            Some("its pod is not there".to_owned())
        }
        None => None,
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

fn clock_outlier(signs: &Signs) -> Option<Found> {
    let off = signs.clock_off?;
    let text = format!(
        "This machine's clock is {:.1} s off those of most other replicas; writes are refused.",
        off.as_secs_f64()
    );
    let advice = "Set the clock of this pod's node right (NTP), and writes are taken again by \
                  themselves. If they are not: udht-manager heal-clock.";
    Some(found(AlarmKind::ClockOutlier, text, advice))
}

fn mass_silence() -> Found {
    found(
        AlarmKind::BrakeOn,
        "More than half of the other replicas are silent: none of them is given up.",
        "See whether this pod is cut off. If those pods are gone for good, give them up by hand: \
         udht-manager replicas, then udht-manager replicas give-up STORE.",
    )
}

fn mutual(signs: &Signs) -> Option<Found> {
    let about = signs.mutual.iter().map(|it| About {
        who: it.who(&signs.names),
        reason: "given_up".to_owned(),
    });
    let text = match signs.mutual.len() {
        0 => return None,
        1 => "This replica and another have given each other up, and exchange nothing.".to_owned(),
        count => format!(
            "This replica and {count} others have given each other up, and exchange nothing."
        ),
    };
    Some(Found {
        about: about.collect(),
        ..found(
            AlarmKind::Mutual,
            text,
            "On the one whose own records may be lost, run: udht-manager replicas start-over. The \
             others fill it again.",
        )
    })
}

fn store_failing(signs: &Signs) -> Option<Found> {
    let commit = signs.commit_failed.as_ref();
    let commit = commit.map(|problem| ("take what is written", problem));
    let fails = signs.store_fails.as_ref();
    let fails = fails.map(|problem| ("answer", problem));
    let (what, problem) = fails.or(commit)?;
    let text = format!("The store does not {what}: {problem}");
    let advice = "Requests are answered with 503 until it does. With Redis, look at the container redis and \
                  at what it logs; with a file, at the volume's free space, and where the file was moved \
                  or removed, start the manager again.";
    Some(found(AlarmKind::StoreFailing, text, advice))
}

fn table_full(signs: &Signs) -> Option<Found> {
    let Signs { rows, rows_max, .. } = signs;
    (rows >= rows_max).then(|| {
        let text = format!(
            "The table holds {rows} records of {rows_max} ({} of them deleted): new ones are refused.",
            signs.tombstones
        );
        let advice = "Delete records that are of no use, or raise --max-records (manager.maxRecords) \
                      in all pods alike.";
        found(AlarmKind::TableFull, text, advice)
    })
}

fn queue_full(signs: &Signs, now: WallTime) -> Option<Found> {
    let at = signs.crowded?;
    (!is_past(at, CROWDED_FOR, now)).then(|| {
        found(
            AlarmKind::QueueFull,
            "More is asked of manager than it does: requests wait for others, or are turned away.",
            "Nothing is lost. Ask less at once, or give manager and its store more CPU.",
        )
    })
}

fn sync_silent(reported: &Reported) -> Found {
    let text = format!("Sync has told nothing since {}.", rfc3339(reported.at));
    let advice = "What is written here may reach no other pod. Look at the container sync: does it \
                  run, and what does its log say?";
    found(AlarmKind::SyncSilent, text, advice)
}

#[cfg(test)]
mod tests;
