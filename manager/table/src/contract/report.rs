//! How a pod is: what sync tells its manager of itself, and what either of them is alarmed about. As
//! JSON, since all of it is for people in the end.

use serde::{Deserialize, Serialize};

use super::InvalidMessage;

/// The largest body of a [`Report`], in bytes.
pub const REPORT_BYTES_MAX: usize = 256 << 10;
/// Peers in one report at the most: those in trouble come first.
pub const REPORT_PEERS_MAX: usize = 256;
/// Events in one report at the most: the latest.
pub const REPORT_EVENTS_MAX: usize = 64;
/// Peers or replicas that one alarm names at the most.
pub const ALARM_ABOUT_MAX: usize = 16;

/// A name, an address, a word or a time in a report has so many bytes at the most.
pub const REPORT_TEXT_BYTES_MAX: usize = 512;
/// A sentence of an alarm has so many bytes at the most.
pub const ALARM_TEXT_BYTES_MAX: usize = 1_024;

/// Something that a person should look at. Each clears by itself once what it is about is over.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AlarmKind {
    /// There are peers, and none of them can be reached.
    Isolated,
    /// The table stays different from that of a peer, though the two talk to each other.
    Diverged,
    /// This machine's clock is the one that most others contradict.
    ClockOutlier,
    /// Deleted records cannot leave, as the floor of a replica does not rise.
    FloorHeld,
    /// More pods are gone at once, or silent, than is believed.
    BrakeOn,
    /// This replica and another have given each other up.
    Mutual,
    /// Another pod runs with a copy of this one's store.
    StoreCopied,
    /// The store does not do what it is asked.
    StoreFailing,
    /// The table is full: new records are refused.
    TableFull,
    /// More comes in than is dealt with, and something was turned away or left for later.
    QueueFull,
    /// A certificate is near its end, or there is none.
    Certificate,
    /// The Kubernetes API does not answer.
    KubernetesUnreachable,
    /// The manager does not answer its sync.
    ManagerDown,
    /// Sync has not told its manager anything for a while.
    SyncSilent,
}

impl AlarmKind {
    /// Each.
    pub const ALL: [Self; 14] = [
        Self::Isolated,
        Self::Diverged,
        Self::ClockOutlier,
        Self::FloorHeld,
        Self::BrakeOn,
        Self::Mutual,
        Self::StoreCopied,
        Self::StoreFailing,
        Self::TableFull,
        Self::QueueFull,
        Self::Certificate,
        Self::KubernetesUnreachable,
        Self::ManagerDown,
        Self::SyncSilent,
    ];

    /// Its word, as in JSON, in metrics and in logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Diverged => "diverged",
            Self::ClockOutlier => "clock_outlier",
            Self::FloorHeld => "floor_held",
            Self::BrakeOn => "brake_on",
            Self::Mutual => "mutual",
            Self::StoreCopied => "store_copied",
            Self::StoreFailing => "store_failing",
            Self::TableFull => "table_full",
            Self::QueueFull => "queue_full",
            Self::Certificate => "certificate",
            Self::KubernetesUnreachable => "kubernetes_unreachable",
            Self::ManagerDown => "manager_down",
            Self::SyncSilent => "sync_silent",
        }
    }
}

/// One alarm, as it is now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Alarm {
    /// Which.
    pub alarm: AlarmKind,
    /// Since when, in RFC 3339.
    pub since: String,
    /// What is the matter, in a sentence, with its figures.
    pub text: String,
    /// What to do, in a sentence or two.
    pub advice: String,
    /// Whom it is about, and why each: [`ALARM_ABOUT_MAX`] at the most.
    #[serde(default)]
    pub about: Vec<About>,
}

/// One that an alarm is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct About {
    /// A peer's address and pod, or a replica's store.
    pub who: String,
    /// Why, by its word where there is one: `refused_cluster`, `failed_timeout`, ...
    pub reason: String,
}

/// What sync tells its manager every few seconds, and at once when an alarm begins or ends.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// The release of sync.
    pub release: String,
    /// What sync is alarmed about.
    pub alarms: Vec<Alarm>,
    /// Peers known, without this pod.
    pub known: u64,
    /// Those of whom the last news is good.
    pub reachable: u64,
    /// Peers: [`REPORT_PEERS_MAX`] at the most.
    pub peers: Vec<PeerStanding>,
    /// What happened since the last report: [`REPORT_EVENTS_MAX`] at the most, the oldest first.
    pub events: Vec<Event>,
}

impl Report {
    /// Whether it is within its bounds; if not, what is not.
    pub fn check(&self) -> Result<(), InvalidMessage> {
        let Self {
            release,
            alarms,
            known: _,
            reachable: _,
            peers,
            events,
        } = self;
        short("release", release)?;
        few("alarms", alarms.len(), AlarmKind::ALL.len())?;
        few("peers", peers.len(), REPORT_PEERS_MAX)?;
        few("events", events.len(), REPORT_EVENTS_MAX)?;
        alarms.iter().try_for_each(Alarm::check)?;
        for event in events {
            let texts = [&event.at, &event.peer, &event.result];
            texts
                .into_iter()
                .try_for_each(|text| short("events", text))?;
        }
        let texts = peers.iter().flat_map(PeerStanding::texts);
        texts.into_iter().try_for_each(|text| short("peers", text))
    }
}

impl Alarm {
    fn check(&self) -> Result<(), InvalidMessage> {
        short("alarms", &self.since)?;
        for sentence in [&self.text, &self.advice] {
            within("alarms", sentence, ALARM_TEXT_BYTES_MAX)?;
        }
        few("alarms", self.about.len(), ALARM_ABOUT_MAX)?;
        let texts = self.about.iter().flat_map(|it| [&it.who, &it.reason]);
        texts.into_iter().try_for_each(|text| short("alarms", text))
    }
}

fn few(field: &'static str, count: usize, max: usize) -> Result<(), InvalidMessage> {
    if count > max {
        let problem = format!("has {count} elements where {max} are the most");
        return Err(InvalidMessage::field(field, problem));
    }
    Ok(())
}

fn short(field: &'static str, text: &str) -> Result<(), InvalidMessage> {
    within(field, text, REPORT_TEXT_BYTES_MAX)
}

fn within(field: &'static str, text: &str, bytes_max: usize) -> Result<(), InvalidMessage> {
    if text.len() > bytes_max {
        let problem = format!("has a text of more than {bytes_max} bytes");
        return Err(InvalidMessage::field(field, problem));
    }
    Ok(())
}

/// How this pod and one peer stand to each other. Times are in RFC 3339.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerStanding {
    /// Where it was found.
    pub address: String,
    /// Whether that is this pod's own address.
    pub own: bool,
    /// Whether the last news of it is good.
    pub reachable: bool,
    /// The `peer_id` of its pod's own record.
    #[serde(rename = "peer_id")]
    pub peer_id: Option<String>,
    /// The name of its pod, where Kubernetes told of it.
    pub pod: Option<String>,
    /// Its store's id.
    pub store: Option<String>,
    /// When it was last talked to with success.
    pub ok_at: Option<String>,
    /// When it last talked to this pod.
    pub heard_at: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure, by its word in `udht_exchanges_total`.
    pub last_error: Option<String>,
    /// Whether its table, when it last told, was the one that this pod holds now.
    pub equal: Option<bool>,
    /// How far its clock is ahead of this machine's, in milliseconds.
    pub skew_ms: Option<i64>,
}

impl PeerStanding {
    fn texts(&self) -> impl Iterator<Item = &String> {
        let optional = [
            &self.peer_id,
            &self.pod,
            &self.store,
            &self.ok_at,
            &self.heard_at,
            &self.last_error,
        ];
        let optional = optional.into_iter().filter_map(Option::as_ref);
        std::iter::once(&self.address).chain(optional)
    }
}

/// An exchange or a push, as it ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// When, in RFC 3339.
    pub at: String,
    /// What.
    pub kind: EventKind,
    /// With whom: an address, or who the other side said it is.
    pub peer: String,
    /// How it ended, by its word in `udht_exchanges_total` or `udht_pushes_total`.
    pub result: String,
    /// Records sent.
    pub sent: u64,
    /// Records received.
    pub received: u64,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// What an [`Event`] is.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventKind {
    /// An exchange that this pod began.
    Exchange,
    /// An exchange or a part of one that a peer began.
    Answered,
    /// A push of this pod.
    Push,
    /// A push that came in.
    Pushed,
}

/// What manager answers to a [`Report`]: what it is alarmed about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportAnswer {
    /// Its alarms.
    pub alarms: Vec<Alarm>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_has_one_word_everywhere() {
        for alarm in AlarmKind::ALL {
            let json = serde_json::to_string(&alarm).unwrap();
            assert_eq!(json, format!("\"{}\"", alarm.word()));
        }
    }

    #[test]
    fn a_report_is_bounded_in_each_of_its_parts() {
        let alarm = Alarm {
            alarm: AlarmKind::Isolated,
            since: "2026-01-01T00:00:00Z".to_owned(),
            text: "t".repeat(ALARM_TEXT_BYTES_MAX),
            advice: String::new(),
            about: vec![
                About {
                    who: "w".repeat(REPORT_TEXT_BYTES_MAX),
                    reason: String::new(),
                };
                ALARM_ABOUT_MAX
            ],
        };
        let event = Event {
            at: String::new(),
            kind: EventKind::Push,
            peer: "p".repeat(REPORT_TEXT_BYTES_MAX),
            result: String::new(),
            sent: 0,
            received: 0,
            ms: 0,
        };
        let whole = Report {
            alarms: vec![alarm; AlarmKind::ALL.len()],
            peers: vec![PeerStanding::default(); REPORT_PEERS_MAX],
            events: vec![event; REPORT_EVENTS_MAX],
            ..Report::default()
        };
        whole.check().unwrap();
        let breaks: [fn(&mut Report); 8] = [
            |report| report.release = "r".repeat(REPORT_TEXT_BYTES_MAX + 1),
            |report| report.alarms.push(report.alarms[0].clone()),
            |report| report.alarms[0].advice = "a".repeat(ALARM_TEXT_BYTES_MAX + 1),
            |report| {
                let about = report.alarms[0].about[0].clone();
                report.alarms[0].about.push(about);
            },
            |report| report.alarms[1].about[2].who.push('w'),
            |report| report.peers.push(PeerStanding::default()),
            |report| report.peers[7].pod = Some("p".repeat(REPORT_TEXT_BYTES_MAX + 1)),
            |report| report.events[7].peer.push('p'),
        ];
        for (number, break_it) in breaks.into_iter().enumerate() {
            let mut report = whole.clone();
            break_it(&mut report);
            assert!(report.check().is_err(), "{number}");
        }
    }
}
