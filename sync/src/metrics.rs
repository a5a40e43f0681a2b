//! What sync tells Prometheus of itself.

mod authority;
mod exchanges;
mod kubernetes;
mod lifecycle;
mod pushes;
mod register;
mod tls;

use peer_table::contract::AlarmKind;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};
use udht_process::ProcessMetrics;

pub use self::authority::AuthorityMetrics;
pub use self::exchanges::{Direction, ExchangeMetrics};
pub use self::kubernetes::{KubernetesMetrics, PodCounts, Request, WatchEnd};
pub use self::lifecycle::{HandedOver, LifecycleMetrics};
pub use self::pushes::{PushMetrics, Pushed};
use self::register::Register;
pub use self::tls::TlsMetrics;

const SECONDS: [f64; 12] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// All metrics of one sync.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Of exchanges.
    pub exchanges: ExchangeMetrics,
    /// Of pushes.
    pub pushes: PushMetrics,
    /// Of pods that go.
    pub lifecycle: LifecycleMetrics,
    /// Of mutual TLS.
    pub tls: TlsMetrics,
    /// Of the authority of `--tls auto`.
    pub authority: AuthorityMetrics,
    /// Of the Kubernetes API.
    pub kubernetes: KubernetesMetrics,
    /// Figures of the peer book.
    pub peers: PeerGauges,
    /// 1 if the manager answered at the last scrape.
    pub manager_up: IntGauge,
    turned_away: IntCounterVec,
    alarms: IntGaugeVec,
    process: ProcessMetrics,
}

/// What the peer book says at a scrape.
#[derive(Debug)]
pub struct PeerGauges {
    /// Peers, without this pod.
    pub known: IntGauge,
    /// Those of them of whom the last news is good.
    pub reachable: IntGauge,
    /// 1 if there are peers and none is reachable.
    pub isolated: IntGauge,
    /// How many different tables this pod and the reachable peers hold.
    pub distinct_digests: IntGauge,
    /// The largest difference to the clock of a peer.
    pub clock_skew: Gauge,
    /// How far this machine's clock is ahead of most of the peers' ones.
    pub clock_offset: Gauge,
}

/// A port that this program listens on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Port {
    /// For peers.
    Exchange,
    /// For health and metrics.
    Ops,
}

impl Port {
    const ALL: [Self; 2] = [Self::Exchange, Self::Ops];

    const fn word(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Ops => "ops",
        }
    }
}

impl Metrics {
    /// Metrics at zero, each label with all its values already there.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let register = Register(&registry);
        let build = register.gauges(
            "udht_sync_build_info",
            "Always 1; the version of this sync.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let turned_away = register.counters(
            "udht_connections_turned_away_total",
            "Connections closed as there were too many: the oldest that was not let in yet, or the new \
                 one if all were.",
            &["port"],
        )?;
        for port in Port::ALL {
            turned_away.with_label_values(&[port.word()]);
        }
        let metrics = Self {
            exchanges: ExchangeMetrics::new(&register)?,
            pushes: PushMetrics::new(&register)?,
            lifecycle: LifecycleMetrics::new(&register)?,
            tls: TlsMetrics::new(&register)?,
            authority: AuthorityMetrics::new(&register)?,
            kubernetes: KubernetesMetrics::new(&register)?,
            peers: PeerGauges::new(&register)?,
            manager_up: register.gauge(
                "udht_manager_up",
                "1 if the manager answered this scrape; its metrics follow only then.",
            )?,
            turned_away,
            alarms: register.gauges(
                "udht_sync_alarm",
                "1 while sync is alarmed about this: see `udht-sync peers`.",
                &["alarm"],
            )?,
            process: ProcessMetrics {
                cpu_seconds: register.fractional_counter(
                    "udht_sync_cpu_seconds_total",
                    "CPU time that sync has used, in user and system mode.",
                )?,
                resident_bytes: register
                    .gauge("udht_sync_resident_memory_bytes", "Memory that sync holds.")?,
            },
            registry,
        };
        metrics.show_alarms(|_| false);
        Ok(metrics)
    }

    /// Shows of each alarm whether it stands.
    pub fn show_alarms(&self, stands: impl Fn(AlarmKind) -> bool) {
        for alarm in AlarmKind::ALL {
            let gauge = self.alarms.with_label_values(&[alarm.word()]);
            gauge.set(i64::from(stands(alarm)));
        }
    }

    /// The counter of connections that were turned away.
    pub fn turned_away(&self, port: Port) -> IntCounter {
        self.turned_away.with_label_values(&[port.word()])
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

impl PeerGauges {
    fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            known: register.gauge(
                "udht_peers_known",
                "Peers known from discovery, without this pod.",
            )?,
            reachable: register.gauge(
                "udht_peers_reachable",
                "Known peers that answered or spoke to this pod since they last failed.",
            )?,
            isolated: register.gauge(
                "udht_isolated",
                "1 if there are peers and none of them could be reached.",
            )?,
            distinct_digests: register.gauge(
                "udht_distinct_digests",
                "Different tables among this pod's and those of the reachable peers, as last seen.",
            )?,
            clock_skew: register.fractional_gauge(
                "udht_clock_skew_seconds",
                "The largest difference between this machine's clock and a peer's, as last seen.",
            )?,
            clock_offset: register.fractional_gauge(
                "udht_clock_offset_seconds",
                "How far this machine's clock is ahead of the median of the peers' clocks: far from \
                 0 where it is this one that is wrong.",
            )?,
        })
    }
}
