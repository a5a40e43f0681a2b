//! How this pod is: what sync reports, and what one reads who looks at it. All of it is in memory
//! only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use peer_table::WallTime;
use peer_table::contract::{Alarm, AlarmKind, Event, PeerStanding, Report, ReportAnswer, lacking};
use peer_table::peers::{Peer, rfc3339};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use utoipa::ToSchema;

use super::App;
use super::body::Told;
use super::problem::{Fails, Problem};
use super::query::Query;
use crate::alarms::{Reported, Watch};
use crate::owner::wall_now;

/// The latest events that are kept.
const EVENTS_MAX: usize = 200;
/// How long whoever looks waits for the store, which may hang. Sync gives the whole answer 2 s.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// How often it is looked whether sync is silent, and at all else while it is.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// What is known of this pod beside its table.
#[derive(Debug)]
pub(super) struct Board {
    started_at: WallTime,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    reported: Option<Reported>,
    /// The newest first.
    events: VecDeque<Event>,
    watch: Watch,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            started_at: wall_now(),
            said: Mutex::default(),
        }
    }
}

impl Board {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn take(&mut self, mut report: Report, now: WallTime) {
        for event in std::mem::take(&mut report.events) {
            self.events.push_front(event);
        }
        self.events.truncate(EVENTS_MAX);
        self.reported = Some(Reported { at: now, report });
    }
}

/// How this pod is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    /// The release of manager.
    release: &'static str,
    /// The cluster's whole id.
    cluster: String,
    /// The `peer_id` of this pod's own record.
    #[serde(rename = "peer_id")]
    peer_id: String,
    /// The id of its store.
    store: String,
    /// The id of the current opening of that.
    origin: String,
    /// When this manager began to serve.
    #[schema(format = DateTime)]
    started_at: String,
    /// Whether the store answers.
    ready: bool,
    /// What the own record says; null if there is none, or if it cannot be read now.
    name: Option<String>,
    /// The same.
    ip: Option<String>,
    /// How many records there are.
    records: Records,
    /// What manager and sync are alarmed about, the worst first.
    alarms: Vec<Alarm>,
    /// What sync last said; null if it never did.
    sync: Option<OfSync>,
    /// Exchanges and pushes as they ended, the newest first: 200 at the most.
    events: Vec<Event>,
}

/// How many records there are.
#[derive(Debug, Serialize, ToSchema)]
struct Records {
    live: usize,
    /// Deleted ones that are still remembered.
    tombstones: usize,
    /// The most of both together.
    max: usize,
}

/// What sync last said.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OfSync {
    /// When.
    #[schema(format = DateTime)]
    reported_at: String,
    /// Its release.
    release: String,
    /// Peers known, without this pod.
    known: u64,
    /// Those of whom the last news is good.
    reachable: u64,
    /// Peers, those in trouble first: 256 at the most.
    peers: Vec<PeerStanding>,
}

impl App {
    /// Looks at all that there may be an alarm about, and shows it in the figures. The answer is what
    /// manager is alarmed about.
    pub(super) async fn look(&self) -> Vec<Alarm> {
        let store_fails = match timeout(STORE_WAIT, self.owner.probe()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", STORE_WAIT.as_secs())),
        };
        let up = i64::from(store_fails.is_none());
        self.metrics.store_up.set(up);
        if store_fails.is_none() {
            // Who waits for longer hears of it at the next look.
            drop(timeout(STORE_WAIT, self.owner.retry_commit()).await);
        }
        let mut signs = self.owner.signs();
        signs.store_fails = store_fails;
        let pods = self.board.said().watch.pods(&signs);
        if let Ok(names) = timeout(STORE_WAIT, self.owner.names(pods)).await {
            signs.names = names;
        }
        let mut said = self.board.said();
        let Said {
            watch, reported, ..
        } = &mut *said;
        let before = watch.alarms();
        let alarms = watch.look(&signs, reported.as_ref(), wall_now());
        self.metrics.show_alarms(|alarm| watch.stands(alarm));
        for it in lacking(&alarms, &before) {
            tracing::warn!(alarm = it.alarm.word(), text = it.text, "an alarm begins");
        }
        for it in lacking(&before, &alarms) {
            tracing::info!(alarm = it.alarm.word(), since = it.since, "an alarm ends");
        }
        alarms
    }

    /// Looks by itself while sync is silent, whose reports it otherwise looks at. It never ends.
    pub async fn keep_looking(self) {
        loop {
            sleep(LOOK_PAUSE).await;
            let is_silent = {
                let said = self.board.said();
                let reported = said.reported.as_ref();
                reported.is_some_and(|it| it.is_stale(wall_now()))
            };
            if is_silent {
                self.look().await;
            }
        }
    }

    /// Name and address in the own record, as far as it can be read now.
    async fn own_peer(&self) -> Option<Peer> {
        let key = self.owner.own_key();
        let entry = timeout(STORE_WAIT, self.owner.get(&key)).await;
        let entry = entry.ok()?.ok()??;
        Peer::from_entry(&key, &entry).ok()?
    }
}

/// Take in what sync tells of itself. The answer is what manager is alarmed about.
#[utoipa::path(
    post, path = "/v1/sync/report", tag = "sync", operation_id = "syncReport", request_body = Report,
    responses(
        (status = 200, description = "It is noted.", body = ReportAnswer),
        Fails<400>, Fails<408>, Fails<413>, Fails<415>, Fails<422>,
    ),
)]
pub(super) async fn report(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    Told(report): Told,
) -> Json<ReportAnswer> {
    app.board.said().take(report, wall_now());
    let alarms = app.look().await;
    Json(ReportAnswer { alarms })
}

/// Read how this pod is: itself, its alarms, its peers, and what happened lately.
#[utoipa::path(
    get, path = "/v1/status", tag = "operations", operation_id = "getStatus",
    responses(
        (status = 200, description = "What is known.", body = Status),
        Fails<400>,
    ),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
) -> Result<Json<Status>, Problem> {
    let (mut alarms, own) = tokio::join!(app.look(), app.own_peer());
    let opening = app.owner.opening();
    let (live, tombstones) = app.owner.counts();
    let said = app.board.said();
    let reported = said.reported.as_ref();
    // What sync was alarmed about long ago may be over.
    let fresh = reported.filter(|it| !it.is_stale(wall_now()));
    let of_sync = fresh.map_or(&[][..], |it| &it.report.alarms);
    // Both see by the same that the clock is wrong; sync says it sooner.
    let is_told = |alarm: &Alarm| {
        let both = alarm.alarm == AlarmKind::ClockOutlier;
        both && of_sync.iter().any(|it| it.alarm == alarm.alarm)
    };
    alarms.retain(|alarm| !is_told(alarm));
    alarms.extend_from_slice(of_sync);
    alarms.sort_by_key(|alarm| alarm.alarm);
    let (name, ip) = own.map(|own| (own.name, own.ip)).unzip();
    Ok(Json(Status {
        release: env!("CARGO_PKG_VERSION"),
        cluster: app.owner.cluster().to_string(),
        peer_id: opening.peer_id.to_string(),
        store: opening.store.to_string(),
        origin: opening.origin.to_string(),
        started_at: rfc3339(app.board.started_at),
        ready: app.metrics.store_up.get() == 1,
        name,
        ip: ip.map(|ip| ip.to_string()),
        records: Records {
            live,
            tombstones,
            max: app.owner.records_max(),
        },
        alarms,
        sync: reported.map(|Reported { at, report }| OfSync {
            reported_at: rfc3339(*at),
            release: report.release.clone(),
            known: report.known,
            reachable: report.reachable,
            peers: report.peers.clone(),
        }),
        events: said.events.iter().cloned().collect(),
    }))
}
