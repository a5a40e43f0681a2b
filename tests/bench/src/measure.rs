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

/// How long something took each time, in seconds.
#[derive(Clone, Default, Debug)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    /// One more.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    /// Adds what `measured` takes of this thread's processor time.
    pub(crate) fn cpu_of<T>(&mut self, measured: impl FnOnce() -> T) -> T {
        let before = thread_cpu();
        let result = measured();
        self.add(thread_cpu().saturating_sub(before));
        result
    }

    /// The median with its quartiles; each time was for `many`.
    pub(crate) fn each(&self, many: u32) -> Figure {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let many = f64::from(many);
        let at = |quarter: usize| {
            let place = sorted.len().saturating_sub(1) * quarter / 4;
            sorted.get(place).copied().unwrap_or(f64::NAN) / many
        };
        Figure {
            quartiles: (sorted.len() > 1).then(|| (at(1), at(3))),
            ..Figure::new(at(2), Unit::Seconds)
        }
    }

    /// The median with its quartiles.
    pub(crate) fn figure(&self) -> Figure {
        self.each(1)
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
        let figure = times.each(10);
        assert!((figure.value - 0.000_3).abs() < 1e-12, "{figure}");
        assert_eq!(figure.to_string(), "300 us (200 us to 400 us)");
    }
}
