//! Histories in which floors matter.

use super::families::SETTLED_MS;
use super::{
    DAY_MS, Event, HOUR_MS, History, MINUTE_MS, Network, Program, SECOND_MS, Setting, Step,
    StoreFault, draw_share,
};
use crate::random::Random;

impl History {
    /// A history of a seed in which floors matter: few pods, few records, and all that makes
    /// tombstones leave and what may be left of their records come.
    pub fn draw_for_floors(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let quiet = Setting::quiet(random.pick(&[2, 3, 3, 3, 4]));
        let setting = Setting {
            salt: random.next(),
            keys: random.pick(&[1, 2, 2, 4]),
            symbols_first: random.pick(&[1, 115]),
            page: random.pick(&[1, 16_384]),
            sketch_symbols: random.pick(&[8, 256]),
            network: Network {
                loss: random.pick(&[0, 0, 30, 150]),
                twice: random.pick(&[0, 100]),
                cut: 0,
                late: random.pick(&[0, 40, 100]),
                delay_ms: random.pick(&[0, 5, 500]),
            },
            ..quiet
        };
        let mut steps = Vec::new();
        let mut at_ms = 1_000;
        for _ in 0..random.pick(&[15, 25, 40, 60]) {
            let event = draw_event_for_floors(&setting, &mut random);
            let is_settling = event == Event::Settle;
            steps.push(Step {
                at_ms,
                event,
                salt: random.next(),
            });
            at_ms += match random.below(100) {
                _ if is_settling => SETTLED_MS,
                0..60 => random.below(SECOND_MS),
                60..85 => random.below(MINUTE_MS),
                85..97 => random.below(4 * HOUR_MS),
                _ => random.below(10 * DAY_MS),
            };
        }
        Self { setting, steps }
    }
}

fn draw_event_for_floors(setting: &Setting, random: &mut Random) -> Event {
    let (pod, other) = (random.index(8), random.index(8));
    let key = random.below(setting.keys);
    let shares = [20, 16, 16, 14, 14, 5, 6, 6, 2, 3, 3, 3, 2, 3];
    match draw_share(&shares, random) {
        0 => Event::Put(pod, key),
        1 => Event::Delete(pod, key),
        2 => Event::Exchange(pod, other),
        3 => Event::Tend(pod),
        4 => Event::Settle,
        5 => Event::Part(random.next()),
        6 => Event::Heal,
        7 => {
            let program = random.pick(&[Program::Manager, Program::Both]);
            Event::Crash(pod, program, random.below(10), random.below(SECOND_MS))
        }
        8 => Event::Leave(pod),
        9 => Event::Join,
        10 => {
            let most = random.pick(&[HOUR_MS, 20 * DAY_MS]);
            Event::Away(pod, random.below(most))
        }
        11 => Event::Backup(pod),
        12 => {
            let fault = random.pick(&[StoreFault::Restored, StoreFault::LosesLast(2)]);
            Event::Store(pod, fault)
        }
        _ => {
            let off = i64::try_from(random.below(60 * SECOND_MS)).unwrap_or(0);
            Event::Clock(pod, off - 30_000)
        }
    }
}
