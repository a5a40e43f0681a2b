//! Taking times, so that noise hits both sides alike.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::report::{Figure, Unit};

/// What this thread has used of a processor so far.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// Some figures of one kind.
#[derive(Clone, Default, Debug)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The median with its quartiles.
    pub(crate) fn figure(&self, unit: Unit) -> Figure {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            let place = sorted.len().saturating_sub(1) * quarter / 4;
            sorted.get(place).copied().unwrap_or(f64::NAN)
        };
        Figure {
            quartiles: (sorted.len() > 1).then(|| (at(1), at(3))),
            ..Figure::new(at(2), unit)
        }
    }
}

/// How long something took each time.
#[derive(Clone, Default, Debug)]
pub(crate) struct Times(Samples);

impl Times {
    /// One more.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.add(time.as_secs_f64());
    }

    /// Adds what `measured` takes of this thread's processor time.
    pub(crate) fn cpu_of<T>(&mut self, measured: impl FnOnce() -> T) -> T {
        let before = thread_cpu();
        let result = measured();
        self.add(thread_cpu().saturating_sub(before));
        result
    }

    /// The median with its quartiles.
    pub(crate) fn figure(&self) -> Figure {
        self.0.figure(Unit::Seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_the_median_between_its_quartiles() {
        let mut times = Times::default();
        for millis in [5, 1, 2, 3, 4] {
            times.add(Duration::from_millis(millis));
        }
        let figure = times.figure();
        assert!((figure.value - 0.003).abs() < 1e-12, "{figure}");
        assert_eq!(figure.to_string(), "3 ms (2 ms to 4 ms)");
    }
}
