//! Makes a history smaller that breaks a rule, for as long as it still does.

use crate::history::{History, Network};
use crate::run::run;

/// Runs that are tried at the most.
const TRIES_MAX: usize = 3_000;

/// The smallest history found that still breaks `rule`: first without the faults of its setting,
/// then without ever smaller parts of its steps.
pub fn shrink(history: &History, rule: &str) -> History {
    let mut tries = 0;
    let mut smallest = history.clone();
    let mut attempt = |candidate: History, smallest: &mut History| {
        tries += 1;
        let still = tries <= TRIES_MAX
            && run(&candidate, false)
                .violation
                .is_some_and(|violation| violation.rule == rule);
        if still {
            *smallest = candidate;
        }
        still
    };
    for change in SIMPLER {
        let mut candidate = smallest.clone();
        change(&mut candidate);
        attempt(candidate, &mut smallest);
    }
    let mut part = smallest.steps.len().div_ceil(2);
    while part > 0 {
        let mut from = 0;
        let mut any = false;
        while from < smallest.steps.len() {
            let mut candidate = smallest.clone();
            let end = (from + part).min(candidate.steps.len());
            candidate.steps.drain(from..end);
            if attempt(candidate, &mut smallest) {
                any = true;
            } else {
                from += part;
            }
        }
        if !any || part > 1 {
            part /= 2;
        }
    }
    smallest
}

/// Settings without one of their faults.
const SIMPLER: [fn(&mut History); 6] = [
    |history| history.setting.liar = None,
    |history| history.setting.newer = 0,
    |history| history.setting.strangers = 0,
    |history| history.setting.common = 0,
    |history| {
        history.setting.network = Network {
            delay_ms: history.setting.network.delay_ms,
            ..Network::default()
        };
    },
    |history| history.setting.network.delay_ms = 0,
];
