//! Histories in which pods become those of another release, one by one, and back again.

use super::{
    Event, History, MINUTE_MS, Network, Program, Release, SECOND_MS, Setting, Step, draw_share,
};
use crate::random::Random;

/// From which release to which all pods go. A pod is never of a release but the two, so that each
/// understands each other one; the first of them is that of the start.
const WAYS: &[&[Release]] = &[
    &[Release::This, Release::Next],
    &[Release::This, Release::Next, Release::This],
    &[Release::This, Release::Next, Release::AfterNext],
    &[
        Release::This,
        Release::Next,
        Release::AfterNext,
        Release::Next,
        Release::This,
    ],
];

impl History {
    /// A history of a seed in which pods are upgraded and rolled back, while they write, delete,
    /// exchange, look after their floors, are parted and crash.
    pub fn draw_for_upgrades(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let pods = random.pick(&[2, 3, 3, 4, 5]);
        let setting = Setting {
            salt: random.next(),
            keys: random.pick(&[1, 3, 12]),
            common: random.pick(&[0, 0, 60]),
            symbols_first: random.pick(&[1, 16, 115]),
            page: random.pick(&[1, 50, 16_384]),
            fanout: random.pick(&[1, 3]),
            network: Network {
                loss: random.pick(&[0, 0, 30]),
                twice: random.pick(&[0, 100]),
                cut: 0,
                late: random.pick(&[0, 30]),
                delay_ms: random.pick(&[0, 5, 500]),
            },
            ..Setting::quiet(pods)
        };
        let mut history = Self {
            setting,
            steps: Vec::new(),
        };
        let way = random.pick(WAYS);
        for (from, to) in way.iter().zip(&way[1..]) {
            let mut order: Vec<_> = (0..pods).collect();
            for place in (1..pods).rev() {
                order.swap(place, random.index(place + 1));
            }
            // Now and then all go back halfway, and try again.
            let given_up_at = random.chance(250).then(|| random.index(pods));
            for (place, pod) in order.iter().enumerate() {
                history.goes_on(&mut random);
                history.becomes(*pod, *to, &mut random);
                if given_up_at == Some(place) {
                    history.goes_on(&mut random);
                    for pod in &order[..=place] {
                        history.becomes(*pod, *from, &mut random);
                    }
                    for pod in &order[..=place] {
                        history.goes_on(&mut random);
                        history.becomes(*pod, *to, &mut random);
                    }
                }
            }
        }
        history.goes_on(&mut random);
        history
    }

    /// A pod comes back as one of another release.
    fn becomes(&mut self, pod: usize, release: Release, random: &mut Random) {
        let away_ms = random.below(2 * SECOND_MS);
        self.follows(Event::Release(pod, release, away_ms), random);
    }

    /// A few things happen.
    fn goes_on(&mut self, random: &mut Random) {
        for _ in 0..random.between(2, 6) {
            let event = draw_event(&self.setting, random);
            self.follows(event, random);
        }
    }

    fn follows(&mut self, event: Event, random: &mut Random) {
        let last_ms = self.steps.last().map_or(0, |step| step.at_ms);
        let pause_ms = match random.below(100) {
            0..75 => random.below(SECOND_MS),
            75..95 => random.below(10 * SECOND_MS),
            _ => random.below(10 * MINUTE_MS),
        };
        self.steps.push(Step {
            at_ms: last_ms + 1 + pause_ms,
            salt: random.next(),
            event,
        });
    }
}

fn draw_event(setting: &Setting, random: &mut Random) -> Event {
    let (pod, other) = (random.index(8), random.index(8));
    let key = random.below(setting.keys);
    match draw_share(&[30, 12, 6, 6, 20, 8, 4, 4, 4, 4], random) {
        0 => Event::Put(pod, key),
        1 => Event::Delete(pod, key),
        2 => Event::Group(pod),
        3 => Event::Contact(pod, key),
        4 => Event::Exchange(pod, other),
        5 => Event::Tend(pod),
        6 => Event::Settle,
        7 => Event::Part(random.next()),
        8 => Event::Heal,
        _ => Event::Crash(
            pod,
            Program::Both,
            random.below(10),
            random.below(SECOND_MS),
        ),
    }
}
