//! What a seed stands for: how a cluster is set up, and a list of what happens to it.
//!
//! All of it is drawn before anything runs, so that a history can be made smaller by leaving out
//! steps and running the rest again. A step names pods by number, modulo how many there are when it
//! happens, and each draws its details from a seed of its own: what is left out changes nothing in
//! the others.
//!
//! Ordinary histories are drawn here; in `floors` those in which tombstones come and go all the time; in
//! `upgrades` those in which one release follows another; and in `families` those that are drawn towards one order of events each.

mod families;
mod floors;
mod upgrades;

use peer_exchange::handshake::{NEXT, PROTOCOLS, Protocols};

pub use self::families::Family;
use crate::random::Random;

/// One run of a cluster.
#[derive(Clone, Debug)]
pub struct History {
    /// How it is set up.
    pub setting: Setting,
    /// What happens, in the order of time.
    pub steps: Vec<Step>,
}

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Setting {
    /// For everything that is drawn while it runs and belongs to no step.
    pub salt: u64,
    /// Pods at the start.
    pub pods: usize,
    /// Pods of another cluster on the same network.
    pub strangers: usize,
    /// Keys that are written, beside each pod's own.
    pub keys: u64,
    /// Records that all pods of the start hold already.
    pub common: u64,
    /// The most records of a table.
    pub records_max: usize,
    /// Symbols of a sketch.
    pub sketch_symbols: usize,
    /// Symbols that an exchange asks for at first.
    pub symbols_first: usize,
    /// Fingerprints in one page of a listing.
    pub page: usize,
    /// Peers to which a change is pushed.
    pub fanout: usize,
    /// Pods, by bits, that speak a newer version of the protocol too.
    pub newer: u64,
    /// The pod that lies, if there is one.
    pub liar: Option<usize>,
    /// What the network does.
    pub network: Network,
}

/// What the network does to a message, in cases of a thousand.
#[derive(Copy, Clone, Debug, Default)]
pub struct Network {
    /// It is lost.
    pub loss: u64,
    /// It comes twice.
    pub twice: u64,
    /// It is cut off.
    pub cut: u64,
    /// It comes much later, up to hours.
    pub late: u64,
    /// It takes up to so long otherwise, in milliseconds.
    pub delay_ms: u64,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub struct Step {
    /// When, in milliseconds since the start.
    pub at_ms: u64,
    /// For its details.
    pub salt: u64,
    /// What.
    pub event: Event,
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A pod's application writes a record.
    Put(usize, u64),
    /// The same, if the record is still the one that it read.
    PutIf(usize, u64),
    /// It deletes one.
    Delete(usize, u64),
    /// It has seen a peer.
    Contact(usize, u64),
    /// It writes several at once, some of them to one record.
    Group(usize),
    /// All pods write one record at one moment.
    Burst(u64),
    /// A pod exchanges with a peer of its choice.
    Round(usize),
    /// One pod exchanges with another.
    Exchange(usize, usize),
    /// All pods exchange with a peer of their choice.
    Rounds,
    /// A program of a pod is killed, after so many steps of its store; and comes back after so many
    /// milliseconds.
    Crash(usize, Program, u64, u64),
    /// A pod is killed, and comes back after so many milliseconds as a build of this release.
    Release(usize, Release, u64),
    /// The pods are parted in two: those of the set bits, and the others.
    Part(u64),
    /// The network is whole again.
    Heal,
    /// What the first pod asks of the second is under way for so many milliseconds more from now on.
    Slow(usize, usize, u64),
    /// Something happens to a pod's store.
    Store(usize, StoreFault),
    /// A pod's store is copied away, to be restored later.
    Backup(usize),
    /// A pod's wall clock is off by so many milliseconds from now on.
    Clock(usize, i64),
    /// A pod goes for good, with its store.
    Leave(usize),
    /// A pod joins, at an address that was used before if there is one.
    Join,
    /// All but one pod of these bits go for good.
    ScaleDown(u64),
    /// A pod is away for so many milliseconds, and comes back as it was.
    Away(usize, u64),
    /// The address of a pod that is away or gone is given to one of another cluster.
    Reuse(usize),
    /// The liar says something nobody asked for.
    Lie,
    /// A pod's list of peers is what it should be.
    Discover(usize),
    /// A pod looks after its floors.
    Tend(usize),
    /// All pods exchange with each other, look after their floors, and exchange once more.
    Settle,
    /// Somebody tells the first pod that the store of the second will not come back.
    GiveUp(usize, usize),
}

/// What of a pod is killed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Program {
    /// The manager.
    Manager,
    /// The sync.
    Sync,
    /// Both.
    Both,
}

/// Which release a pod is of, by the versions of the protocol that it speaks.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Release {
    /// This one.
    This,
    /// The one after it, which has a version more.
    Next,
    /// The one after that, which has dropped the version that this one speaks.
    AfterNext,
}

impl Release {
    /// The versions of the protocol that it understands.
    pub fn protocols(self) -> Protocols {
        match self {
            Self::This => PROTOCOLS,
            Self::Next => NEXT,
            Self::AfterNext => Protocols {
                min: NEXT.max,
                ..NEXT
            },
        }
    }
}

/// What happens to a store.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum StoreFault {
    /// It loses so many of its last transactions.
    LosesLast(usize),
    /// It is as it was when it was copied away.
    Restored,
    /// It is empty.
    Wiped,
    /// It is that of another pod, as it was a while ago and under an id of its own.
    Swapped(usize),
    /// The one of its records that this number picks cannot be read any more.
    Damaged(usize),
    /// It refuses the next transactions.
    Refuses(u64),
    /// It does not say whether the next transaction is stored.
    Doubtful,
}

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The longest sketch, as it is shipped.
const SKETCH_FULL: usize = peer_table::sketch::Sketch::LEN;

impl History {
    /// The history of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let setting = Setting::draw(&mut random);
        let steps = draw_steps(&setting, &mut random);
        Self { setting, steps }
    }
}

impl Setting {
    /// A quiet cluster of so many pods.
    pub fn quiet(pods: usize) -> Self {
        Self {
            salt: 0,
            pods,
            strangers: 0,
            keys: 4,
            common: 0,
            records_max: 1_000,
            sketch_symbols: 256,
            symbols_first: 115,
            page: 16_384,
            fanout: 3,
            newer: 0,
            liar: None,
            network: Network {
                delay_ms: 5,
                ..Network::default()
            },
        }
    }

    fn draw(random: &mut Random) -> Self {
        let pods = random.pick(&[2, 3, 3, 3, 4, 4, 5, 6, 8]);
        let common = match random.below(100) {
            0..70 => 0,
            70..90 => random.between(5, 40),
            _ => random.between(40, 400),
        };
        // Where all is well, a mistake of the protocol cannot hide behind a lost message.
        let network = match random.below(10) {
            0..3 => Network::default(),
            3..7 => Network {
                loss: random.below(50),
                twice: random.below(50),
                cut: random.below(20),
                late: random.below(20),
                delay_ms: 0,
            },
            _ => Network {
                loss: random.below(400),
                twice: random.below(300),
                cut: random.below(100),
                late: random.below(100),
                delay_ms: 0,
            },
        };
        Self {
            salt: random.next(),
            pods,
            strangers: usize::from(random.chance(150)),
            keys: random.pick(&[1, 2, 3, 5, 12]),
            common,
            records_max: if random.chance(30) {
                random.index(12) + 2
            } else {
                10_000
            },
            sketch_symbols: match random.below(100) {
                0..40 => random.pick(&[8, 16, 40]),
                40..98 => random.pick(&[128, 256, 1_024]),
                _ => SKETCH_FULL,
            },
            symbols_first: random.pick(&[1, 2, 4, 8, 16, 32, 115]),
            page: random.pick(&[1, 2, 5, 50, 16_384]),
            fanout: random.pick(&[1, 2, 3, 4]),
            newer: if random.chance(200) { random.next() } else { 0 },
            liar: random.chance(120).then(|| random.index(pods)),
            network: Network {
                delay_ms: random.pick(&[0, 2, 10, 50, 500]),
                ..network
            },
        }
    }
}

fn draw_steps(setting: &Setting, random: &mut Random) -> Vec<Step> {
    let count = random.pick(&[10, 20, 30, 40, 60, 80, 120]);
    let pace = random.pick(&[1, 5, 20, 200, 2_000]);
    // Each history dwells on a few kinds of trouble: all at once hide one another.
    let troubles: [u64; 6] = std::array::from_fn(|_| random.pick(&[0, 0, 1, 4]));
    let mut steps = Vec::new();
    let mut at_ms = 0;
    for _ in 0..count {
        at_ms += match random.below(1_000) {
            0..900 => random.below(2 * pace + 1),
            900..950 => random.below(10 * SECOND_MS),
            950..985 => random.below(20 * MINUTE_MS),
            985..996 => random.below(2 * DAY_MS),
            _ => random.below(30 * DAY_MS),
        };
        steps.push(Step {
            at_ms,
            event: draw_event(setting, troubles, random),
            salt: random.next(),
        });
    }
    steps
}

fn draw_event(setting: &Setting, troubles: [u64; 6], random: &mut Random) -> Event {
    let [crashes, stores, parts, clocks, comings, lies] = troubles;
    let pod = random.index(64);
    let key = random.below(setting.keys);
    let shares = [
        40,
        30,
        4 * crashes,
        4 * stores,
        4 * parts,
        4 * clocks,
        4 * comings,
        if setting.liar.is_some() { 6 * lies } else { 0 },
    ];
    match draw_share(&shares, random) {
        0 => match random.below(100) {
            0..40 => Event::Put(pod, key),
            40..50 => Event::PutIf(pod, key),
            50..75 => Event::Delete(pod, key),
            75..85 => Event::Contact(pod, key),
            85..93 => Event::Group(pod),
            _ => Event::Burst(key),
        },
        1 => match random.below(100) {
            0..25 => Event::Round(pod),
            25..50 => Event::Tend(pod),
            50..90 => Event::Exchange(pod, random.index(64)),
            90..92 => Event::Discover(pod),
            92..95 => Event::Rounds,
            _ => Event::Settle,
        },
        2 => {
            let program = random.pick(&[Program::Manager, Program::Sync, Program::Both]);
            Event::Crash(pod, program, random.below(10), random.below(SECOND_MS))
        }
        3 => draw_store_event(pod, random),
        4 => {
            if random.chance(600) {
                Event::Part(random.next())
            } else {
                Event::Heal
            }
        }
        5 => {
            let most = random.pick(&[10, 2 * SECOND_MS, 8 * SECOND_MS, MINUTE_MS, 2 * HOUR_MS]);
            let off = i64::try_from(random.below(2 * most + 1)).unwrap_or(0);
            Event::Clock(pod, off - i64::try_from(most).unwrap_or(0))
        }
        6 => match random.below(100) {
            0..25 => Event::Leave(pod),
            25..60 => Event::Join,
            60..65 => Event::ScaleDown(random.next()),
            65..85 => {
                let most = random.pick(&[SECOND_MS, HOUR_MS, 40 * DAY_MS]);
                Event::Away(pod, random.below(most))
            }
            _ => Event::Reuse(pod),
        },
        _ => Event::Lie,
    }
}

fn draw_store_event(pod: usize, random: &mut Random) -> Event {
    Event::Store(
        pod,
        match random.below(100) {
            0..30 => return Event::Backup(pod),
            30..45 => StoreFault::LosesLast(random.index(5) + 1),
            45..60 => StoreFault::Restored,
            60..66 => StoreFault::Wiped,
            66..70 => StoreFault::Damaged(random.index(64)),
            70..75 => StoreFault::Swapped(random.index(64)),
            75..88 => StoreFault::Refuses(random.between(1, 3)),
            _ => StoreFault::Doubtful,
        },
    )
}

/// Which of the shares a random number falls into.
fn draw_share(shares: &[u64], random: &mut Random) -> usize {
    let mut left = random.below(shares.iter().sum());
    for (index, share) in shares.iter().enumerate() {
        if left < *share {
            return index;
        }
        left -= share;
    }
    0
}
