//! Figures of the process itself, as Linux tells them.

use std::fs;

use prometheus::{Counter, IntGauge};

/// Ticks of a second in what `/proc` tells of CPU time: fixed for programs, whatever the kernel
/// was built with.
const TICKS_A_SECOND: f64 = 100.0;

/// What this process costs.
#[derive(Debug)]
pub struct ProcessMetrics {
    /// User and system time, in seconds.
    pub cpu_seconds: Counter,
    /// What is held of the memory of the machine, in bytes: the pages of the program with it.
    pub resident_bytes: IntGauge,
}

impl ProcessMetrics {
    /// Reads the figures anew. Where there is no `/proc` they stay as they are.
    pub fn observe(&self) {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        if let Some(total) = stat.as_deref().and_then(cpu_seconds) {
            // Two scrapes at once may come here in the wrong order, and a counter never falls.
            let gained = total - self.cpu_seconds.get();
            if gained > 0.0 {
                self.cpu_seconds.inc_by(gained);
            }
        }
        let status = fs::read_to_string("/proc/self/status").ok();
        if let Some(bytes) = status.as_deref().and_then(resident_bytes) {
            self.resident_bytes.set(bytes);
        }
    }
}

/// User and system time in a `/proc/PID/stat`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the program is in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_A_SECOND)
}

/// The memory that is really held, in a `/proc/PID/status`.
fn resident_bytes(status: &str) -> Option<i64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 900 0 3 0 150 25 0 0 20 0 4 0 99 1 2";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(cpu_seconds("7 (a"), None);
        assert_eq!(cpu_seconds("7 (a) S 1 7"), None);
    }

    #[test]
    fn the_resident_memory_is_in_bytes() {
        let status = "VmPeak:\t   9 kB\nVmRSS:\t    2048 kB\nThreads:\t4\n";
        assert_eq!(resident_bytes(status), Some(2 * 1024 * 1024));
        assert_eq!(resident_bytes("VmRSS:\t x kB"), None);
        assert_eq!(resident_bytes(""), None);
    }
}
