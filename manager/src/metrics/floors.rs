//! Figures of the floors: which tombstones wait for whom, and who is known.

use std::time::Duration;

use peer_table::floors::{Fence, HeldBack};
use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// What there is to know of floors.
#[derive(Debug)]
pub struct FloorsMetrics {
    /// Tombstones that left.
    pub collected: IntCounter,
    /// Ids fenced by this replica, by why.
    pub fences: IntCounterVec,
    /// How often this replica started over.
    pub started_over: IntCounter,
    /// Whether this replica and another have given each other up.
    pub mutual: IntGauge,
    /// Whether this machine's clock is not that of most others.
    pub clock_outlier: IntGauge,
    replicas: IntGaugeVec,
    age_seconds: Gauge,
    held_back: IntGaugeVec,
    braked: IntGaugeVec,
}

/// What is shown of the floors.
#[derive(Debug, Default)]
pub struct FloorsFigures {
    /// Replicas that may still write, this one included.
    pub live: usize,
    /// Ids that write no more and are still remembered.
    pub fenced: usize,
    /// How old the floor is while tombstones wait for it.
    pub age: Option<Duration>,
    /// What keeps the first of these, and the id of the replica where it is one.
    pub held_back: Option<(HeldBack, String)>,
    /// Whether discovery cannot be relied on.
    pub is_braked: bool,
    /// Whether more than half of the others are silent.
    pub is_mass_silence: bool,
}

impl FloorsMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let register = |metric: Box<dyn Collector>| registry.register(metric);
        macro_rules! registered {
            ($metric:expr) => {{
                let metric = $metric?;
                register(Box::new(metric.clone()))?;
                metric
            }};
        }
        let metrics = Self {
            collected: registered!(IntCounter::new(
                "udht_tombstones_collected_total",
                "Tombstones that left, as every replica had them.",
            )),
            fences: registered!(IntCounterVec::new(
                Opts::new(
                    "udht_fences_total",
                    "Openings of stores that this replica took for ended, by why.",
                ),
                &["reason"],
            )),
            started_over: registered!(IntCounter::new(
                "udht_started_over_total",
                "How often this replica began anew with an empty table.",
            )),
            mutual: registered!(IntGauge::new(
                "udht_given_up_mutually",
                "1 while this replica and another have given each other up.",
            )),
            clock_outlier: registered!(IntGauge::new(
                "udht_clock_outlier",
                "1 while this machine's clock is not that of most others, and writes are refused.",
            )),
            replicas: registered!(IntGaugeVec::new(
                Opts::new(
                    "udht_replicas",
                    "Openings of stores that are known: those that may write, and those fenced.",
                ),
                &["state"],
            )),
            age_seconds: registered!(Gauge::new(
                "udht_floor_age_seconds",
                "How old the floor is that tombstones wait for, but no older than the first of them; 0 while none waits.",
            )),
            held_back: registered!(IntGaugeVec::new(
                Opts::new(
                    "udht_floor_held_back",
                    "1 for what keeps the first of the tombstones, and by which replica.",
                ),
                &["reason", "replica"],
            )),
            braked: registered!(IntGaugeVec::new(
                Opts::new(
                    "udht_floor_braked",
                    "1 while no replica is taken for gone: discovery is blind, or most are silent.",
                ),
                &["reason"],
            )),
        };
        for fence in Fence::ALL {
            metrics.fences.with_label_values(&[fence.word()]);
        }
        metrics.show(&FloorsFigures::default());
        Ok(metrics)
    }

    /// Shows the floors as they are now.
    pub fn show(&self, figures: &FloorsFigures) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.replicas
            .with_label_values(&["live"])
            .set(gauge(figures.live));
        self.replicas
            .with_label_values(&["fenced"])
            .set(gauge(figures.fenced));
        let age = figures.age.unwrap_or_default();
        self.age_seconds.set(age.as_secs_f64());
        self.braked
            .with_label_values(&["discovery"])
            .set(i64::from(figures.is_braked));
        self.braked
            .with_label_values(&["silence"])
            .set(i64::from(figures.is_mass_silence));
        // One at a time, so that there are never more than that.
        self.held_back.reset();
        if let Some((held_back, replica)) = &figures.held_back {
            self.held_back
                .with_label_values(&[held_back.word(), replica])
                .set(1);
        }
    }
}
