//! Telling the manager how this pod is: alarms are looked after every second, and what there is to
//! tell is reported every few seconds, and at once when an alarm begins or ends. What happens is
//! reported each second while it moves something, so that who looks on sees it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peer_exchange::alarms::{Certificate, Signs, Watch, result_word};
use peer_exchange::book::Peer;
use peer_exchange::gone::Brake;
use peer_exchange::{Address, Uptime};
use peer_table::contract::{
    Alarm, AlarmKind, Event, EventKind, PeerStanding, REPORT_BYTES_MAX, REPORT_EVENTS_MAX,
    REPORT_PEERS_MAX, Report, lacking,
};
use peer_table::peers::rfc3339;
use tokio_util::sync::CancellationToken;
use udht_tell::chain;

use crate::authority::issue::CLOCK_SKEW;
use crate::kubernetes::pods::{Pods, Sight};
use crate::manager::ManagerError;
use crate::metrics::Port;
use crate::node::Node;
use crate::wall;

/// How often alarms are looked after.
const LOOK: Duration = Duration::from_secs(1);
/// How often the manager is told, though there is no news.
const TELL: Duration = Duration::from_secs(5);

/// What there is to tell.
#[derive(Debug, Default)]
pub struct Telling(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    watch: Watch,
    /// What the manager was alarmed about as it answered last; nothing if it did not.
    of_manager: Vec<Alarm>,
    /// Since the last report, the oldest first.
    events: VecDeque<Event>,
    /// Whether one of them is worth telling soon.
    is_lively: bool,
    /// Why the last report did not get there.
    away: Option<String>,
}

impl Telling {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an exchange or a push that has just ended. Of too many, the latest are kept.
    pub fn happened(&self, event: Event) {
        let mut state = self.state();
        // That all is equal, as it mostly is, is no news.
        state.is_lively |= event.sent + event.received > 0;
        if state.events.len() == REPORT_EVENTS_MAX {
            state.events.pop_front();
        }
        state.events.push_back(event);
    }

    /// What this sync and its manager are alarmed about, the worst first.
    pub fn alarms(&self) -> Vec<Alarm> {
        let state = self.state();
        let mut alarms = state.watch.alarms();
        let of_manager = state.of_manager.iter();
        // Both see by the same that the clock is wrong.
        let is_new =
            |it: &&Alarm| it.alarm != AlarmKind::ClockOutlier || !state.watch.stands(it.alarm);
        alarms.extend(of_manager.filter(is_new).cloned());
        alarms.sort_by_key(|alarm| alarm.alarm);
        alarms
    }
}

/// An exchange or a push as it ended now.
pub fn event(
    kind: EventKind,
    peer: String,
    result: String,
    [sent, received]: [u64; 2],
    took: Duration,
) -> Event {
    Event {
        at: rfc3339(wall::now()),
        kind,
        peer,
        result,
        sent,
        received,
        ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Looks after alarms and reports, until `stop`. `is_listed` is whether Kubernetes lists the pods,
/// and `brake` why nobody is taken for gone.
pub async fn run(
    node: Arc<Node>,
    is_listed: bool,
    drift_max: Duration,
    brake: impl Fn() -> Option<Brake>,
    stop: CancellationToken,
) {
    let work = async {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            look.tick().await;
            let has_changed = look_after(&node, is_listed, drift_max, brake());
            let now = node.uptime();
            let is_due = told.is_none_or(|told: Uptime| told.plus(TELL) <= now);
            if has_changed || is_due || node.telling.state().is_lively {
                tell(&node).await;
                told = Some(now);
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// The names of pods by their addresses.
pub fn names(pods: &Pods) -> BTreeMap<&Address, &str> {
    let pods = pods.by_uid.values();
    let names = pods.flat_map(|pod| pod.addresses.iter().map(|address| (address, &*pod.name)));
    names.collect()
}

/// Looks at all that there may be an alarm about. Answers whether one has begun or ended.
fn look_after(node: &Node, is_listed: bool, drift_max: Duration, brake: Option<Brake>) -> bool {
    let pods = node.pods().borrow().clone();
    let pod_at = |address: &Address| {
        let mut pods = pods.by_uid.values();
        let pod = pods.find(|pod| pod.addresses.contains(address));
        pod.map(|pod| pod.name.clone())
    };
    let book = node.book();
    let of_other = node.manager.of_other_cluster();
    let mut state = node.telling.state();
    let State { watch, away, .. } = &mut *state;
    let before = watch.alarms();
    let has_changed = watch.look(&Signs {
        book: &book,
        pod_at: &pod_at,
        interval: node.interval,
        drift_max,
        certificate: certificate(node),
        is_following: is_listed.then_some(pods.sight == Sight::Live),
        brake,
        dropped: node.metrics.pushes.dropped.get(),
        turned_away: [Port::Exchange, Port::Ops]
            .map(|port| node.metrics.turned_away(port).get())
            .iter()
            .sum(),
        manager_away: away.as_deref(),
        manager_of_other: of_other.as_deref(),
        now: node.uptime(),
        wall: wall::now(),
    });
    drop(book);
    if has_changed {
        node.metrics.show_alarms(|alarm| watch.stands(alarm));
        log(&before, &watch.alarms());
    }
    has_changed
}

fn log(before: &[Alarm], now: &[Alarm]) {
    for it in lacking(now, before) {
        tracing::warn!(alarm = it.alarm.word(), text = it.text, "an alarm begins");
    }
    for it in lacking(before, now) {
        tracing::info!(alarm = it.alarm.word(), since = it.since, "an alarm ends");
    }
}

fn certificate(node: &Node) -> Option<Certificate> {
    let Some(credentials) = node.credentials()? else {
        return Some(Certificate::None);
    };
    let seconds = |count: i64| Duration::from_secs(u64::try_from(count).unwrap_or(0));
    let now = Duration::from_millis(wall::now().as_millis());
    let (begins, ends) = (credentials.begins(), credentials.expires());
    Some(Certificate::Good {
        // It begins a little before it is issued, as clocks differ.
        life: seconds(ends - begins).saturating_sub(CLOCK_SKEW),
        left: seconds(ends).saturating_sub(now),
    })
}

/// Tells the manager, and hears what it is alarmed about.
async fn tell(node: &Node) {
    let (alarms, events) = {
        let mut state = node.telling.state();
        state.is_lively = false;
        (state.watch.alarms(), std::mem::take(&mut state.events))
    };
    let report = bounded(report(node, alarms, events.into()));
    let answer = node.manager.report(report).await;
    let mut state = node.telling.state();
    match answer {
        Ok(answer) => {
            state.of_manager = answer.alarms;
            state.away = None;
        }
        // A manager of an earlier release answers, and knows no reports.
        Err(error @ ManagerError::Refused { status, .. }) if status.is_client_error() => {
            tracing::debug!(error = chain(&error), "the manager took no report");
            state.away = None;
        }
        Err(error) => {
            state.of_manager.clear();
            state.away = Some(chain(&error));
        }
    }
}

fn report(node: &Node, alarms: Vec<Alarm>, events: Vec<Event>) -> Report {
    let (now, wall_now) = (node.uptime(), wall::now());
    let time = |at: Uptime| {
        let ago = now.0.saturating_sub(at.0);
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        let at = wall_now.as_millis().saturating_sub(ago);
        rfc3339(peer_table::WallTime::from_millis(at))
    };
    let pods = node.pods().borrow().clone();
    let names = names(&pods);
    let book = node.book();
    let own = book.last_digest();
    let standing = |address: &Address, peer: &Peer| PeerStanding {
        address: address.to_string(),
        own: peer.is_self,
        reachable: peer.is_reachable(),
        peer_id: peer.peer_id.as_ref().map(ToString::to_string),
        pod: names.get(address).map(ToString::to_string),
        store: peer.store.as_ref().map(ToString::to_string),
        ok_at: peer.succeeded.map(time),
        heard_at: peer.heard.map(time),
        failures: peer.failures,
        last_error: peer.problem.map(result_word),
        equal: own.and_then(|own| peer.digest.map(|(theirs, _)| own == theirs)),
        skew_ms: peer.skew_ms,
    };
    let mut peers: Vec<_> = book.peers().collect();
    if peers.len() > REPORT_PEERS_MAX {
        peers.sort_by_key(|(_, peer)| Reverse(trouble(peer, now)));
    }
    let peers = peers.into_iter().take(REPORT_PEERS_MAX);
    Report {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        alarms,
        known: book.known() as u64,
        reachable: book.reachable() as u64,
        peers: peers
            .map(|(address, peer)| standing(address, peer))
            .collect(),
        events,
    }
}

/// How much trouble a peer is in: those with more come first where there is no room for all.
fn trouble(peer: &Peer, now: Uptime) -> u8 {
    match peer {
        peer if peer.is_self => 0,
        peer if peer.failures > 0 => 3,
        peer if peer.diverged(now).is_some() => 2,
        peer if !peer.is_reachable() => 1,
        _ => 0,
    }
}

/// The report as JSON, with as many peers as there is room for.
fn bounded(mut report: Report) -> Vec<u8> {
    loop {
        let body = serde_json::to_vec(&report).expect("a report has strings for keys");
        if body.len() <= REPORT_BYTES_MAX || report.peers.is_empty() {
            return body;
        }
        report.peers.truncate(report.peers.len() / 2);
    }
}

/// The kind of an event of a peer that asked.
pub const fn asked_kind(ask: &str) -> Option<EventKind> {
    match ask.as_bytes() {
        b"open" | b"swap" => Some(EventKind::Answered),
        b"push" => Some(EventKind::Pushed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(number: u64, sent: u64) -> Event {
        let took = Duration::from_millis(number);
        event(
            EventKind::Push,
            "p".to_owned(),
            "ok".to_owned(),
            [sent, 0],
            took,
        )
    }

    #[test]
    fn of_too_many_events_the_latest_are_kept() {
        let telling = Telling::default();
        for number in 0..100 {
            telling.happened(ended(number, 0));
        }
        let state = telling.state();
        let kept: Vec<_> = state.events.iter().map(|event| event.ms).collect();
        assert_eq!(
            kept,
            (100 - REPORT_EVENTS_MAX as u64..100).collect::<Vec<_>>()
        );
        assert!(!state.is_lively);
    }

    #[test]
    fn an_event_that_moved_something_is_told_soon() {
        let telling = Telling::default();
        telling.happened(ended(0, 1));
        assert!(telling.state().is_lively);
    }

    #[test]
    fn a_report_of_peers_with_the_longest_names_fits() {
        let long = || Some("\u{1}".repeat(250));
        let peer = PeerStanding {
            address: "a".repeat(259),
            peer_id: long(),
            pod: long(),
            store: long(),
            last_error: long(),
            ..PeerStanding::default()
        };
        let report = Report {
            peers: vec![peer; REPORT_PEERS_MAX],
            ..Report::default()
        };
        let body = bounded(report);
        assert!(body.len() <= REPORT_BYTES_MAX);
        let read: Report = serde_json::from_slice(&body).unwrap();
        assert!(read.peers.len() > 16);
    }
}
