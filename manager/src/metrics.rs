//! What manager tells Prometheus. Sync passes it on, as nobody outside the pod reaches manager.

mod floors;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peer_table::WallTime;
use peer_table::contract::{AlarmKind, merged_all, merged_word, via_word};
use peer_table::feed::Via;
use peer_table::table::Merged;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::time::Instant;
use udht_process::ProcessMetrics;

pub use self::floors::{FloorsFigures, FloorsMetrics};
use crate::owner::wall_now;
use crate::store::{Change, StoreError};

/// All metrics of one manager.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Live records by table.
    pub records: IntGaugeVec,
    /// Tombstones by table.
    pub tombstones: IntGaugeVec,
    /// Stored records that could not be read.
    pub corrupt: IntCounter,
    merges: IntCounterVec,
    /// Local writes by result.
    pub writes: IntCounterVec,
    /// Transactions by number of commands in them.
    pub group: Histogram,
    store_errors: IntCounterVec,
    store_seconds: HistogramVec,
    store_reopened: IntCounterVec,
    /// From the stamp of a change to its being visible here.
    pub replication_delay: Histogram,
    /// Whether the store is bound to an authority.
    pub bound: IntGauge,
    /// Whether the pod is going.
    pub leaving: IntGauge,
    /// How far the clock stands ahead of the wall clock, in seconds.
    pub clock_ahead: Gauge,
    /// 1 if the store answered the last scrape.
    pub store_up: IntGauge,
    /// Watchers now.
    pub watchers: IntGauge,
    /// Requests by method, route and status.
    pub requests: IntCounterVec,
    /// Of floors and replicas.
    pub floors: FloorsMetrics,
    alarms: IntGaugeVec,
    /// What the store said when a commit failed last, and when that was.
    commit_failed: Mutex<Option<(String, Instant)>>,
    /// When somebody last had to wait for a place or was turned away, in milliseconds of the wall
    /// clock; 0 if nobody was.
    crowded_ms: AtomicU64,
    process: ProcessMetrics,
}

/// The results of a local write, as its metric's label.
pub const WRITE_RESULTS: [&str; 8] = [
    "written",
    "precondition",
    "absent",
    "full",
    "too_large",
    "invalid",
    "clock",
    "unavailable",
];
const COMMIT: &str = "commit";
/// How long after a commit that failed it counts as failing, though others are done.
pub const FAILS_FOR: Duration = Duration::from_secs(10);
const STORE_OPERATIONS: [&str; 3] = ["scan", "read", COMMIT];
const SECONDS: [f64; 12] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0,
];
const DELAY_SECONDS: [f64; 14] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 600.0,
];

impl Metrics {
    /// Metrics at zero, each label with a known set of values already there.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let register = |metric: Box<dyn prometheus::core::Collector>| registry.register(metric);
        macro_rules! registered {
            ($metric:expr) => {{
                let metric = $metric?;
                register(Box::new(metric.clone()))?;
                metric
            }};
        }
        register(Box::new(build_info()?))?;
        let metrics = Self {
            records: registered!(IntGaugeVec::new(
                Opts::new("udht_records", "Live records held."),
                &["table"],
            )),
            tombstones: registered!(IntGaugeVec::new(
                Opts::new("udht_tombstones", "Deleted records still remembered."),
                &["table"],
            )),
            corrupt: registered!(IntCounter::new(
                "udht_corrupt_records_total",
                "Stored records that could not be read; a peer's copy replaces them.",
            )),
            merges: registered!(IntCounterVec::new(
                Opts::new(
                    "udht_merges_total",
                    "Records that came from peers, by way and by what became of them.",
                ),
                &["via", "result"],
            )),
            writes: registered!(IntCounterVec::new(
                Opts::new("udht_writes_total", "Writes of the application, by result."),
                &["result"],
            )),
            group: registered!(Histogram::with_opts(
                HistogramOpts::new(
                    "udht_commit_records",
                    "Records written in one transaction of the store.",
                )
                .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0, 4096.0]),
            )),
            store_errors: registered!(IntCounterVec::new(
                Opts::new("udht_store_errors_total", "Calls of the store that failed."),
                &["operation"],
            )),
            store_seconds: registered!(HistogramVec::new(
                HistogramOpts::new("udht_store_seconds", "How long calls of the store took.")
                    .buckets(SECONDS.to_vec()),
                &["operation"],
            )),
            store_reopened: registered!(IntCounterVec::new(
                Opts::new(
                    "udht_store_reopened_total",
                    "How often the store was not what it was, and was opened anew.",
                ),
                &["reason"],
            )),
            replication_delay: registered!(replication_delay()),
            store_up: registered!(IntGauge::new(
                "udht_store_up",
                "1 if the store answered this scrape.",
            )),
            clock_ahead: registered!(Gauge::new(
                "udht_clock_ahead_seconds",
                "How far the clock that stamps writes stands ahead of this machine's.",
            )),
            bound: registered!(IntGauge::new(
                "udht_manager_bound",
                "1 while the store is bound to the authority of its cluster.",
            )),
            leaving: registered!(IntGauge::new(
                "udht_manager_leaving",
                "1 once the pod is going and no write of the application is taken.",
            )),
            watchers: registered!(IntGauge::new("udht_watchers", "Watches that are open.")),
            requests: registered!(IntCounterVec::new(
                Opts::new("udht_manager_requests_total", "HTTP requests answered."),
                &["method", "route", "status"],
            )),
            floors: FloorsMetrics::new(&registry)?,
            alarms: registered!(alarms()),
            commit_failed: Mutex::default(),
            crowded_ms: AtomicU64::new(0),
            process: ProcessMetrics {
                cpu_seconds: registered!(Counter::new(
                    "udht_manager_cpu_seconds_total",
                    "CPU time that manager has used, in user and system mode.",
                )),
                resident_bytes: registered!(IntGauge::new(
                    "udht_manager_resident_memory_bytes",
                    "Memory that manager holds.",
                )),
            },
            registry: registry.clone(),
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// Makes each label whose values are known, so that a rate is not missing before the first event.
    fn begin_at_zero(&self) {
        for result in WRITE_RESULTS {
            self.writes.with_label_values(&[result]);
        }
        for operation in STORE_OPERATIONS {
            self.store_errors.with_label_values(&[operation]);
            self.store_seconds.with_label_values(&[operation]);
        }
        for change in Change::ALL {
            self.store_reopened.with_label_values(&[change.word()]);
        }
        self.show_alarms(|_| false);
        for via in [Via::Push, Via::Exchange] {
            for merged in merged_all() {
                self.merges
                    .with_label_values(&[via_word(via), merged_word(merged)]);
            }
        }
    }

    /// Counts a record from a peer.
    pub fn merged(&self, via: Via, merged: Merged) {
        self.merges
            .with_label_values(&[via_word(via), merged_word(merged)])
            .inc();
    }

    /// Counts that the store was opened anew.
    pub fn reopened(&self, change: Change) {
        self.store_reopened
            .with_label_values(&[change.word()])
            .inc();
    }

    /// Times a call of the store, and counts it if it failed.
    pub async fn store<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let result = call.await;
        let seconds = start.elapsed().as_secs_f64();
        self.store_seconds
            .with_label_values(&[operation])
            .observe(seconds);
        if result.is_err() {
            self.store_errors.with_label_values(&[operation]).inc();
        }
        if operation == COMMIT {
            let mut failed = self.last_failure();
            match &result {
                Err(error) => *failed = Some((error.to_string(), Instant::now())),
                // Where room runs out, what is small still passes now and then.
                Ok(_)
                    if failed
                        .as_ref()
                        .is_some_and(|(_, at)| at.elapsed() < FAILS_FOR) => {}
                Ok(_) => *failed = None,
            }
        }
        result
    }

    fn last_failure(&self) -> MutexGuard<'_, Option<(String, Instant)>> {
        let last = self.commit_failed.lock();
        last.unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store said when a commit failed, until one is done [`FAILS_FOR`] later.
    pub fn commit_failed(&self) -> Option<String> {
        let failed = self.last_failure();
        failed.as_ref().map(|(problem, _)| problem.clone())
    }

    /// Notes that somebody has to wait, or is turned away.
    pub fn note_crowd(&self) {
        let now = wall_now().as_millis();
        self.crowded_ms.store(now, Ordering::Relaxed);
    }

    /// When that last was, if it ever was.
    pub fn crowded(&self) -> Option<WallTime> {
        let at_ms = self.crowded_ms.load(Ordering::Relaxed);
        (at_ms > 0).then(|| WallTime::from_millis(at_ms))
    }

    /// Shows of each alarm whether it stands.
    pub fn show_alarms(&self, stands: impl Fn(AlarmKind) -> bool) {
        for alarm in AlarmKind::ALL {
            let gauge = self.alarms.with_label_values(&[alarm.word()]);
            gauge.set(i64::from(stands(alarm)));
        }
    }

    /// Brings up to date what the system knows of this process.
    pub fn observe_process(&self) {
        self.process.observe();
    }

    /// All of it in the text format of Prometheus.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn replication_delay() -> prometheus::Result<Histogram> {
    let help = "From the stamp of a change at its writer to its being visible here.";
    let opts = HistogramOpts::new("udht_replication_delay_seconds", help);
    Histogram::with_opts(opts.buckets(DELAY_SECONDS.to_vec()))
}

/// Which alarms stand.
fn alarms() -> prometheus::Result<IntGaugeVec> {
    let help = "1 while manager is alarmed about this: see GET /v1/status.";
    IntGaugeVec::new(Opts::new("udht_manager_alarm", help), &["alarm"])
}

/// Which version this is.
fn build_info() -> prometheus::Result<IntGaugeVec> {
    let help = "Always 1; the version of this manager.";
    let build = IntGaugeVec::new(Opts::new("udht_manager_build_info", help), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(build)
}
