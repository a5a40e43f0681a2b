//! Runs a history: lets happen what it says, ends all faults, and looks whether the rules held.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use peer_exchange::exchange::Kind;
use peer_exchange::handshake::NEXT;
use peer_exchange::{Address, Report};
use peer_table::opening::Draw;
use peer_table::table::{Match, Precondition, Row};
use peer_table::{Body, Contact, Entry, Key, OriginId, Reading, StoreId, Version, WallTime};

use crate::history::{Event, History, Program, StoreFault};
use crate::oracle::{Known, Oracle, Writer};
use crate::owner::{command, draft};
use crate::pod::{Command, Manager, Operation, Pod, Write, key};
use crate::random::Random;
use crate::sync::{
    self, announce, begin_exchange, change_release, crash, discover, ends, revive, round,
    run_exchange, tend,
};
use crate::world::{Answer, START_MS, Sim, Tasks, Violation, World};

/// Pods that there may be at once, with those that went.
const PODS_MAX: usize = 24;
/// How often all pods exchange and look after their floors where time is let pass.
const SETTLE_ROUNDS: usize = 3;
/// The same at the end, at the most.
const REST_ROUNDS: usize = 12;
/// After so many of these somebody gives up the replicas that will not come back, each time anew.
const GIVEN_UP_AT: usize = 2;
/// What an exchange of two equal tables takes at the most: two of these are for news of replicas.
const MOST_TRIPS_AT_REST: u64 = 3;
/// How long all that is still on its way may take, in milliseconds.
const SETTLE_MS: u64 = 24 * 60 * 60 * 1_000;

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first rule that was broken, if any was.
    pub violation: Option<Violation>,
    /// Equal for two runs that went the same way.
    pub trace: u64,
    /// What happened, if that was asked for.
    pub story: Vec<String>,
}

/// Runs a history; `told` is whether its story is kept.
pub fn run(history: &History, told: bool) -> Outcome {
    let sim = Sim::new(history.setting.clone(), told);
    let ran = catch_unwind(AssertUnwindSafe(|| go(&sim, history)));
    if let Err(panic) = ran {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        sim.world()
            .broken("nothing panics", text.unwrap_or_default());
    }
    let violation = sim.world().violation.clone();
    Outcome {
        violation,
        trace: sim.trace(),
        story: sim.story(),
    }
}

fn go(sim: &Sim, history: &History) {
    let mut tasks = Tasks::default();
    set_up(sim, history);
    for step in &history.steps {
        tasks.run(sim, step.at_ms);
        let mut world = sim.world();
        if world.violation.is_some() {
            break;
        }
        world.note(step.salt);
        world.say(|| format!("-- {:?}", step.event));
        happen(sim, &mut world, &step.event, &mut Random::new(step.salt));
    }
    if sim.world().violation.is_none() {
        come_to_rest(sim, &mut tasks);
    }
    // The tasks hold the world, and the world holds tasks.
    sim.clear();
}

pub(crate) fn set_up(sim: &Sim, history: &History) {
    let setting = &history.setting;
    let mut world = sim.world();
    let world = &mut *world;
    for number in 0..setting.pods + setting.strangers {
        let cluster = usize::from(number >= setting.pods);
        add_pod(world, cluster, None);
        world.pods[number].is_liar = setting.liar == Some(number);
    }
    world.oracle.has_liar = setting.liar.is_some();
    preload(world);
    for pod in 0..world.pods.len() {
        revive(sim, world, pod);
    }
}

/// Gives all pods the records that they hold since long ago.
fn preload(world: &mut World) {
    let origin = OriginId::from_bytes(world.random.id());
    let opened = world.oracle.opened(origin, 0);
    world.hold(opened);
    for number in 0..world.setting.common {
        let entry = Entry {
            version: Version {
                reading: Reading::from_u64(((START_MS - 1_000_000) << 16) + number),
                origin,
            },
            contact: Contact::NEVER,
            body: Body::Live(draft(number).content(WallTime::default())),
        };
        let key = key(&format!("common-{number}"));
        for pod in 0..world.setting.pods {
            let writer = Writer {
                origin,
                cluster: 0,
                wall: WallTime::from_millis(START_MS),
                told: Reading::default(),
            };
            let noted = world.pods[pod]
                .store
                .preload(&mut world.oracle, writer, &key, &entry);
            world.hold(noted);
        }
    }
}

fn add_pod(world: &mut World, cluster: usize, address: Option<Address>) -> usize {
    let number = world.pods.len();
    let address = address.unwrap_or_else(|| {
        let text = format!("10.0.{cluster}.{}:3003", number + 1);
        text.parse().unwrap_or_else(|_| unreachable!("an address"))
    });
    let mut pod = Pod::new(number, cluster, address.clone());
    if (world.setting.newer >> (number % 64)) & 1 == 1 {
        pod.protocols = NEXT;
    }
    world.addresses.insert(address, number);
    world.pods.push(pod);
    number
}

/// The pod that a step means.
fn meant(world: &World, pod: usize) -> usize {
    pod % world.pods.len()
}

#[expect(
    clippy::too_many_lines,
    reason = "one arm for each kind of event, and nothing else"
)]
pub(crate) fn happen(sim: &Sim, world: &mut World, event: &Event, random: &mut Random) {
    match *event {
        Event::Put(pod, record) => write(world, pod, vec![put(record, random)]),
        Event::PutIf(pod, record) => {
            let pod = meant(world, pod);
            let key = shared_key(record);
            let manager = world.pods[pod].ready();
            let row = manager.and_then(|manager| manager.table.row(&key).copied());
            let precondition = match row.filter(Row::is_live) {
                Some(row) => Precondition {
                    if_match: Some(Match::Versions(vec![row.version])),
                    if_none_match: None,
                },
                None => Precondition::absent(),
            };
            let write_if = Write {
                precondition,
                ..put(record, random)
            };
            write(world, pod, vec![write_if]);
        }
        Event::Delete(pod, record) => {
            // Now and then another pod's own record.
            let key = if random.chance(100) {
                world.pods[random.index(world.pods.len())].own_key()
            } else {
                shared_key(record)
            };
            write(world, pod, vec![plain(key, Operation::Delete)]);
        }
        Event::Contact(pod, record) => {
            let wall = world.pods[meant(world, pod)].wall(world.now_ms).as_millis();
            let seen = wall.saturating_sub(random.pick(&[0, 0, 400_000, 4_000_000]));
            let contact = Contact::at(WallTime::from_millis(seen));
            let operation = Operation::Contact(contact);
            write(world, pod, vec![plain(shared_key(record), operation)]);
        }
        Event::Group(pod) => {
            let keys = world.setting.keys;
            let writes = (0..random.between(2, 6)).map(|_| {
                let record = random.below(keys);
                if random.chance(300) {
                    plain(shared_key(record), Operation::Delete)
                } else {
                    put(record, random)
                }
            });
            write(world, pod, writes.collect());
        }
        Event::Burst(record) => {
            for pod in 0..world.pods.len() {
                let write_one = if random.chance(300) {
                    plain(shared_key(record), Operation::Delete)
                } else {
                    put(record, random)
                };
                write(world, pod, vec![write_one]);
            }
        }
        Event::Round(pod) => round(sim, world, meant(world, pod), random),
        Event::Exchange(from, to) => {
            let (from, to) = (meant(world, from), meant(world, to));
            let address = world.pods[to].address.clone();
            begin_exchange(sim, world, from, address, random.fork());
        }
        Event::Rounds => {
            for pod in 0..world.pods.len() {
                round(sim, world, pod, random);
            }
        }
        Event::Crash(pod, program, steps, after_ms) => {
            let pod = meant(world, pod);
            if program == Program::Sync {
                crash(sim, world, pod, program, after_ms);
            } else {
                world.pods[pod].doom = Some((program, steps, after_ms));
            }
        }
        Event::Release(pod, release, after_ms) => {
            let pod = meant(world, pod);
            change_release(sim, world, pod, release, after_ms);
        }
        Event::Part(side) => world.parted = Some(side),
        Event::Heal => world.parted = None,
        Event::Slow(from, to, ms) => {
            let way = (meant(world, from), meant(world, to));
            world.slow.insert(way, ms);
        }
        Event::Store(pod, fault) => trouble(world, meant(world, pod), fault, random),
        Event::Backup(pod) => {
            let pod = meant(world, pod);
            world.pods[pod].store.back_up();
        }
        Event::Clock(pod, off_ms) => {
            let pod = meant(world, pod);
            world.pods[pod].off_ms = off_ms;
        }
        Event::Leave(pod) => leave(sim, world, meant(world, pod)),
        Event::Join => join(sim, world, random),
        Event::ScaleDown(bits) => {
            let keeps = meant(world, random.index(64));
            for pod in 0..world.pods.len() {
                if pod != keeps && (bits >> (pod % 64)) & 1 == 1 {
                    leave(sim, world, pod);
                }
            }
        }
        Event::Away(pod, ms) => {
            let pod = meant(world, pod);
            if !world.pods[pod].is_gone && !world.pods[pod].is_away {
                world.pods[pod].is_away = true;
                world.pods[pod].kill(Program::Both);
                let later = sim.clone();
                world.spawn(None, async move {
                    later.sleep(ms).await;
                    let mut world = later.world();
                    return_home(&later, &mut world, pod);
                });
            }
        }
        Event::Reuse(pod) => reuse(sim, world, meant(world, pod)),
        Event::Lie => {
            let liar = world.pods.iter().position(|pod| pod.is_liar);
            if let Some(liar) = liar {
                let to = world.pods[random.index(world.pods.len())].address.clone();
                begin_exchange(sim, world, liar, to, random.fork());
            }
        }
        Event::Discover(pod) => discover(world, meant(world, pod)),
        Event::Tend(pod) => tend(world, meant(world, pod)),
        Event::Settle => settle(sim, world, random),
        Event::GiveUp(pod, other) => {
            let (pod, other) = (meant(world, pod), meant(world, other));
            let given_up: Vec<_> = world.pods[other].store.origin().into_iter().collect();
            if pod != other && world.pods[pod].ready().is_some() {
                command(world, pod, Command::GiveUp(given_up));
            }
        }
    }
}

/// Lets time pass in which all pods exchange with one of them, and look after their floors.
fn settle(sim: &Sim, world: &mut World, random: &mut Random) {
    let later = sim.clone();
    let mut random = random.fork();
    world.spawn(None, async move {
        for _ in 0..SETTLE_ROUNDS {
            let pods = later.world().pods.len();
            let hub = random.index(pods);
            for pod in (0..pods).filter(|pod| *pod != hub) {
                for (from, to) in [(hub, pod), (pod, hub)] {
                    let mut world = later.world();
                    let world = &mut *world;
                    if world.pods[from].cluster == world.pods[to].cluster {
                        let address = world.pods[to].address.clone();
                        begin_exchange(&later, world, from, address, random.fork());
                    }
                }
            }
            later.sleep(20_000).await;
            for pod in 0..pods {
                tend(&mut later.world(), pod);
            }
            later.sleep(45_000).await;
        }
    });
}

fn shared_key(record: u64) -> Key {
    key(&format!("k{record}"))
}

pub(crate) fn plain(key: Key, operation: Operation) -> Write {
    Write {
        key,
        precondition: Precondition::default(),
        operation,
    }
}

fn put(record: u64, random: &mut Random) -> Write {
    plain(shared_key(record), Operation::Put(random.next() >> 40))
}

/// Has a pod's application write, unless the pod lies: its writes would be nobody's loss.
fn write(world: &mut World, pod: usize, writes: Vec<Write>) {
    let pod = meant(world, pod);
    if world.pods[pod].manager.is_some() && !world.pods[pod].is_liar {
        command(world, pod, Command::Write(writes, Answer::new()));
    }
}

fn trouble(world: &mut World, pod: usize, fault: StoreFault, random: &mut Random) {
    let draw = Draw {
        store: StoreId::from_bytes(random.id()),
        origin: OriginId::from_bytes(random.id()),
        peer_id: world.pods[pod].own_key(),
        cluster: None,
        binding: None,
    };
    match fault {
        StoreFault::LosesLast(transactions) => {
            world.pods[pod].store.lose_last(transactions);
        }
        StoreFault::Restored => {
            world.pods[pod].store.restore();
        }
        StoreFault::Damaged(record) => world.pods[pod].store.damage(record),
        StoreFault::Wiped => world.pods[pod].store.swap(None),
        StoreFault::Swapped(other) => {
            let other = meant(world, other);
            if world.pods[other].cluster == world.pods[pod].cluster {
                let opened = world.oracle.opened(draw.origin, world.pods[pod].cluster);
                world.hold(opened);
                let data = world.pods[other].store.data().clone();
                world.pods[pod].store.swap(Some((data, draw)));
            }
        }
        StoreFault::Refuses(transactions) => world.pods[pod].store.refuse(transactions),
        StoreFault::Doubtful => world.pods[pod].store.doubt(),
    }
}

fn leave(sim: &Sim, world: &mut World, pod: usize) {
    let others = world.pods.iter().filter(|other| {
        other.number != pod
            && other.cluster == world.pods[pod].cluster
            && !other.is_gone
            && !other.is_liar
    });
    // Somebody stays.
    if others.count() == 0 {
        return;
    }
    world.pods[pod].is_gone = true;
    world.pods[pod].kill(Program::Both);
    announce(sim, world);
}

fn join(sim: &Sim, world: &mut World, random: &mut Random) {
    if world.pods.len() >= PODS_MAX {
        return;
    }
    let free = |pod: &&Pod| pod.is_gone && pod.cluster == 0;
    let address = world.pods.iter().find(free).map(|pod| pod.address.clone());
    let address = address.filter(|address| {
        let holder = world.addresses.get(address);
        random.chance(700) && holder.is_some_and(|holder| world.pods[*holder].is_gone)
    });
    let pod = add_pod(world, 0, address);
    revive(sim, world, pod);
    announce(sim, world);
}

/// Brings back a pod that was away, at another address if its own was given away.
fn return_home(sim: &Sim, world: &mut World, pod: usize) {
    world.pods[pod].is_away = false;
    let address = world.pods[pod].address.clone();
    if world.addresses.get(&address) != Some(&pod) && !world.pods[pod].is_gone {
        let text = format!("10.9.{}.{}:3003", pod + 1, world.addresses.len());
        let address: Address = text.parse().unwrap_or_else(|_| unreachable!("an address"));
        world.addresses.insert(address.clone(), pod);
        world.pods[pod].address = address;
        announce(sim, world);
    }
    revive(sim, world, pod);
}

/// Gives the address of a pod that is not there to a stranger.
fn reuse(sim: &Sim, world: &mut World, pod: usize) {
    let stranger = world.pods.iter().position(|it| it.cluster == 1);
    let (Some(stranger), true) = (stranger, world.pods[pod].is_gone || world.pods[pod].is_away)
    else {
        return;
    };
    let address = world.pods[pod].address.clone();
    if world.pods[pod].cluster == 0 && world.addresses.get(&address) == Some(&pod) {
        world.addresses.insert(address.clone(), stranger);
        world.pods[stranger].address = address;
        announce(sim, world);
    }
}

/// Ends all faults, lets every pod exchange with the others, and checks what must hold then.
pub(crate) fn come_to_rest(sim: &Sim, tasks: &mut Tasks) {
    {
        let mut world = sim.world();
        world.say(|| "-- all faults end".to_owned());
        world.quiet = true;
        world.parted = None;
        world.slow.clear();
        for pod in 0..world.pods.len() {
            let it = &mut world.pods[pod];
            it.off_ms = 0;
            it.doom = None;
            it.store.calm();
            if it.is_liar {
                it.is_gone = true;
                it.kill(Program::Both);
            } else if it.is_away {
                return_home(sim, &mut world, pod);
            } else {
                revive(sim, &mut world, pod);
            }
        }
    }
    let settled = sim.world().now_ms + SETTLE_MS;
    tasks.run(sim, settled);
    // Until what a wrong clock stamped is no longer ahead.
    let caught_up = sim
        .world()
        .oracle
        .latest
        .as_millis()
        .saturating_sub(START_MS)
        + 1;
    tasks.run(sim, caught_up.max(settled));
    // A store that changed while nobody wrote is noticed at the next look.
    reopen_changed(sim, tasks);
    if Tasks::next_due(sim).is_some_and(|at_ms| at_ms < u64::MAX) {
        // Pods that come back after longer are back now; their late wakings do nothing.
        let later = sim.world().now_ms + 100 * SETTLE_MS;
        tasks.run(sim, later);
    }
    for cluster in 0..2 {
        if sim.world().violation.is_none() {
            reconcile(sim, tasks, cluster);
        }
    }
}

fn reopen_changed(sim: &Sim, tasks: &mut Tasks) {
    let now_ms = {
        let mut world = sim.world();
        for pod in 0..world.pods.len() {
            discover(&mut world, pod);
            if world.pods[pod].store.is_changed() && world.pods[pod].manager.is_some() {
                let look = plain(shared_key(0), Operation::Contact(Contact::NEVER));
                command(&mut world, pod, Command::Write(vec![look], Answer::new()));
            }
        }
        world.now_ms
    };
    tasks.run(sim, now_ms + 60_000);
}

/// Exchanges among the pods of a cluster, one after the other, until all must be equal and no
/// tombstone be left.
fn reconcile(sim: &Sim, tasks: &mut Tasks, cluster: usize) {
    let pods = {
        let mut world = sim.world();
        let it = world.pods.iter();
        let pods = it.filter(|pod| pod.cluster == cluster && !pod.is_gone);
        let pods: Vec<usize> = pods.map(|pod| pod.number).collect();
        let down = pods.iter().find(|pod| world.pods[**pod].ready().is_none());
        if let Some(pod) = down {
            let detail = format!("the manager of pod {pod} is not up");
            return world.broken("comes to rest", detail);
        }
        pods
    };
    // Everybody with everybody, so that all know who there is; then by way of one of them.
    let all = pods.iter().flat_map(|a| pods.iter().map(move |b| (*a, *b)));
    let all: Vec<_> = all.collect();
    for (a, b) in &all {
        // Who was given up meanwhile is told so, and has to be asked again; and whoever finds itself
        // knows its own address from then on.
        if exchange_now(sim, tasks, *a, *b).is_none() && a != b {
            exchange_now(sim, tasks, *a, *b);
        }
    }
    let expected = {
        let world = sim.world();
        let mut expected = Known::default();
        for pod in &pods {
            expected.join(&world.pods[*pod].store.data().known);
        }
        expected
    };
    let hub = {
        let mut world = sim.world();
        let hub = world.random.index(pods.len());
        pods.get(hub).copied()
    };
    let Some(hub) = hub else {
        return;
    };
    // Tables that are full take no new key, so they need not become equal.
    let is_tight = sim.world().setting.records_max < 100;
    if !is_tight {
        demand_that_nothing_moves_twice(sim, tasks, hub, &pods);
    }
    settle_all(sim, tasks, hub, &pods, is_tight);
    if sim.world().violation.is_none() && !is_tight {
        demand_rest(sim, tasks, hub, &pods);
    }
    let mut world = sim.world();
    for pod in pods {
        let checked = check_rest(&world.pods[pod], &expected, &world.oracle, is_tight);
        if let Err(Violation { rule, detail }) = checked {
            return world.broken(rule, detail);
        }
    }
}

/// Demands that a second round of exchanges moves no record, though tombstones wait and others have left:
/// those that the other side may have let go are left out of it.
fn demand_that_nothing_moves_twice(sim: &Sim, tasks: &mut Tasks, hub: usize, pods: &[usize]) {
    let exchanges = exchanges_until_equal(sim);
    let others = || pods.iter().copied().filter(|pod| *pod != hub);
    for _ in 0..=exchanges {
        for pod in others() {
            for (from, to) in [(hub, pod), (pod, hub)] {
                exchange_now(sim, tasks, from, to);
            }
        }
    }
    for (from, to) in others().flat_map(|pod| [(hub, pod), (pod, hub)]) {
        if sim.world().violation.is_some() {
            return;
        }
        let allowed = may_move(&sim.world(), from, to);
        let report = exchange_now(sim, tasks, from, to);
        let moved = report.map(|it| it.moved).unwrap_or_default();
        if moved.sent + moved.received > allowed {
            let detail = format!("{from} and {to}: {moved:?}");
            return sim.world().broken("nothing moves twice", detail);
        }
    }
}

/// How many tombstones may move between two pods although all is exchanged: what one holds and the other
/// has dealt with. None, but where that was early, before either could let go of it: because what the
/// other was sent was a ghost, or because it was opened anew since and has no horizon yet. Such a
/// tombstone is not left out, and is dropped each time it comes, until one of the two has looked after
/// its floors; and if tables differ by one, a listing of all brings the others along.
fn may_move(world: &World, a: usize, b: usize) -> u64 {
    let (Some(a), Some(b)) = (world.pods[a].ready(), world.pods[b].ready()) else {
        return 0;
    };
    let horizon = a.table.floors().horizon().max(b.table.floors().horizon());
    let covers = |it: &Manager, version| it.table.floors().covers_held(version);
    let (mut dealt_with, mut is_early) = (0, false);
    for (one, other) in [(a, b), (b, a)] {
        for (key, row) in one.table.rows_after(None, usize::MAX) {
            let is_covered = covers(one, row.version) && covers(other, row.version);
            if !row.is_live() && is_covered && other.table.row(key).is_none() {
                dealt_with += 1;
                is_early |= row.version.reading > horizon;
            }
        }
    }
    if is_early { dealt_with } else { 0 }
}

/// A record that is merged within one page of a listing may move to another that is done already: the
/// next exchange finds it. So many make two tables equal.
fn exchanges_until_equal(sim: &Sim) -> usize {
    if sim.world().setting.page < 1_000 {
        6
    } else {
        1
    }
}

/// Has all pods exchange and look after their floors, until no tombstone is left.
fn settle_all(sim: &Sim, tasks: &mut Tasks, hub: usize, pods: &[usize], is_tight: bool) {
    let others = pods.iter().copied().filter(|pod| *pod != hub);
    let by_hub: Vec<_> = others.flat_map(|pod| [(hub, pod), (pod, hub)]).collect();
    let all = pods.iter().flat_map(|a| pods.iter().map(move |b| (*a, *b)));
    let all: Vec<_> = all.filter(|(a, b)| a != b).collect();
    for round in 0..REST_ROUNDS {
        // By way of one of them first; what still waits then waits for some two to meet.
        let pairs = if round <= GIVEN_UP_AT { &by_hub } else { &all };
        for (from, to) in pairs.iter().copied() {
            // Who is told that it was given up starts over, and has to be asked again.
            let report = exchange_now(sim, tasks, from, to);
            let report = report.or_else(|| exchange_now(sim, tasks, from, to));
            let mut world = sim.world();
            if world.violation.is_some() {
                return;
            }
            if report.is_none() {
                let detail = format!("{from} and {to} do not exchange");
                return world.broken("comes to rest", detail);
            }
        }
        if round >= GIVEN_UP_AT {
            give_up_the_dead(sim, hub, pods);
        }
        tend_all(sim, tasks, pods);
        let is_done = pods.iter().all(|pod| tombstones(sim, *pod) == 0);
        // Where a table is full, what it refuses holds all floors back.
        if round > GIVEN_UP_AT && (is_done || is_tight) {
            break;
        }
    }
}

/// Demands that no tombstone is left, that all tables are equal, and that nothing moves any more.
fn demand_rest(sim: &Sim, tasks: &mut Tasks, hub: usize, pods: &[usize]) {
    for pod in pods {
        let left = tombstones(sim, *pod);
        if left > 0 {
            let mut world = sim.world();
            let manager = world.pods[*pod].ready();
            let kept = manager.and_then(|manager| manager.table.held_back(false));
            let detail = format!("pod {pod} has {left}: {kept:?}");
            return world.broken("tombstones are gone in the end", detail);
        }
    }
    let exchanges = exchanges_until_equal(sim);
    for pod in pods.iter().copied().filter(|pod| *pod != hub) {
        for _ in 0..exchanges {
            exchange_now(sim, tasks, hub, pod);
        }
        let difference = {
            let world = sim.world();
            difference(&world.pods[hub], &world.pods[pod])
        };
        if let Some(difference) = difference {
            let detail = format!("{hub} and {pod}: {difference}");
            let mut world = sim.world();
            return world.broken("an exchange makes two tables equal", detail);
        }
        let report = exchange_now(sim, tasks, hub, pod);
        let moves = |report: &Report| {
            report.kind != Kind::Equal || report.traffic().round_trips > MOST_TRIPS_AT_REST
        };
        if report.as_ref().is_none_or(moves) {
            let detail = format!("{hub} and {pod}: {report:?}");
            return sim.world().broken("equal tables move nothing", detail);
        }
    }
}

fn tombstones(sim: &Sim, pod: usize) -> usize {
    let world = sim.world();
    let manager = world.pods[pod].ready();
    manager.map_or(0, |manager| manager.table.tombstones())
}

/// Has all pods look after their floors, a while after the last time.
fn tend_all(sim: &Sim, tasks: &mut Tasks, pods: &[usize]) {
    for pod in pods {
        tend(&mut sim.world(), *pod);
    }
    let now_ms = sim.world().now_ms;
    tasks.run(sim, now_ms + 61_000);
}

/// Somebody says which replicas will not come back, as Kubernetes does not know of their volumes and
/// silence of most is taken for a trouble of one's own.
fn give_up_the_dead(sim: &Sim, hub: usize, pods: &[usize]) {
    let mut world = sim.world();
    let managers = pods.iter().filter_map(|pod| world.pods[*pod].ready());
    let living: Vec<_> = managers
        .flat_map(|it| it.opening.retired.iter().chain([&it.opening.origin]))
        .copied()
        .collect();
    let Some(manager) = world.pods[hub].ready() else {
        return;
    };
    let unfenced = manager.table.floors().ids().unfenced();
    let dead: Vec<_> = unfenced.filter(|id| !living.contains(id)).collect();
    if dead.is_empty() {
        return;
    }
    world.say(|| format!("somebody gives up {dead:?}"));
    command(&mut world, hub, Command::GiveUp(dead));
}

/// One exchange while nothing else happens.
pub(crate) fn exchange_now(sim: &Sim, tasks: &mut Tasks, from: usize, to: usize) -> Option<Report> {
    let done = Arc::new(Mutex::new(None));
    let now_ms = {
        let mut world = sim.world();
        let world = &mut *world;
        let random = world.random.fork();
        let (own, line) = ends(sim, world, from, &world.pods[to].address.clone(), random);
        let left = Arc::clone(&done);
        world.spawn(sync::life(world, from), async move {
            let result = run_exchange(&own, &line).await;
            let mut world = own.sim.world();
            let address = world.pods[to].address.clone();
            match &result {
                Ok(report) => {
                    let (partner, skew_ms) = (&report.partner, report.skew_ms);
                    sync::met(&mut world, from, &address, partner, skew_ms, None);
                    if let (Some(sync), true) = (&mut world.pods[from].sync, partner.has_met) {
                        sync.joined = Some(report.origin);
                    }
                }
                Err(error) => sync::failed(&mut world, from, &address, error),
            }
            world.say(|| match &result {
                Ok(report) => format!(
                    "{from} and {to}: {} in version {}, {:?}",
                    report.kind.word(),
                    report.protocol,
                    report.moved
                ),
                Err(error) => format!("{from} and {to}: {}", sync::tell(error)),
            });
            if let Ok(mut left) = left.lock() {
                *left = result.ok();
            }
        });
        world.now_ms
    };
    tasks.run(sim, now_ms + 60_000);
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    done.take()
}

/// How the tables of two pods differ, if they do.
fn difference(a: &Pod, b: &Pod) -> Option<String> {
    let (Some(left), Some(right)) = (&a.manager, &b.manager) else {
        return Some("one of them is down".to_owned());
    };
    let rows = |pod: &Pod| pod.store.scan().collect::<Vec<_>>();
    let (ours, theirs) = (rows(a), rows(b));
    if left.table.digest() != right.table.digest() || ours != theirs {
        let only = |a: &[(Key, Entry)], b: &[(Key, Entry)]| {
            let only: Vec<_> = a
                .iter()
                .filter(|it| !b.contains(it))
                .take(3)
                .cloned()
                .collect();
            format!("{only:?}")
        };
        return Some(format!(
            "{} against {}",
            only(&ours, &theirs),
            only(&theirs, &ours)
        ));
    }
    None
}

/// What must hold of a pod at rest: its index is that of its store, and it has the newest that any
/// surviving store held of each key.
fn check_rest(
    pod: &Pod,
    expected: &Known,
    oracle: &Oracle,
    is_tight: bool,
) -> Result<(), Violation> {
    let broken = |rule, detail: String| {
        let detail = format!("pod {}: {detail}", pod.number);
        Err(Violation { rule, detail })
    };
    let Some(manager) = &pod.manager else {
        return broken("comes to rest", "its manager is down".to_owned());
    };
    let stored: Vec<(Key, Entry)> = pod.store.scan().collect();
    let indexed = manager.table.rows_after(None, usize::MAX);
    let indexed: Vec<_> = indexed
        .map(|(key, row)| (key.clone(), row.version, row.contact, row.is_live()))
        .collect();
    let of_store: Vec<_> = stored
        .iter()
        .map(|(key, entry)| (key.clone(), entry.version, entry.contact, entry.is_live()))
        .collect();
    if indexed != of_store {
        return broken(
            "an index is that of its store",
            format!("{indexed:?} against {of_store:?}"),
        );
    }
    if is_tight {
        return Ok(());
    }
    for (key, newest) in &expected.newest {
        let held = stored.iter().find(|(held, _)| held == key);
        let Some((_, entry)) = held else {
            let version = newest.rank.version();
            if !newest.live || oracle.was_deleted_after(key, version) {
                // Its tombstone has left.
                continue;
            }
            return broken(
                "nothing that was written is lost",
                format!("{key}: {newest:?}"),
            );
        };
        if entry.is_live() && oracle.is_excused(key, entry.version) {
            continue;
        }
        if entry.rank() < newest.rank {
            let rule = if !newest.live && entry.is_live() {
                "nothing that was deleted comes back"
            } else {
                "nothing that was written is lost"
            };
            return broken(rule, format!("{key}: {entry:?} in place of {newest:?}"));
        }
        if entry.contact < newest.contact {
            return broken(
                "no contact is lost",
                format!("{key}: {entry:?}, {newest:?}"),
            );
        }
    }
    Ok(())
}
