//! The manager of a pod: opens its store, reads the table from it, and writes what it is asked to,
//! in the order that `udht-manager` keeps: decide, store, apply, answer. It may die between any two.

use std::collections::BTreeMap;
use std::time::Duration;

use peer_table::contract::merged_code;
use peer_table::feed::FeedLimits;
use peer_table::opening::Draw;
use peer_table::peers::{self, Draft};
use peer_table::table::{
    Changes, Limits, Merged, NewContent, Plan, Precondition, TableSpec, WriteRefused,
};
use peer_table::{Entry, Key, Opening, OriginId, Reading, StoreId, Table, WallTime};

use crate::history::Program;
use crate::mutants;
use crate::oracle::Writer;
use crate::pod::{Command, Manager, Operation, Pod, Write, cluster_id, fingerprint_key};
use crate::store::Refused;
use crate::sync;
use crate::world::{Answer, Life, Sim, World};

/// How far ahead of the wall clock a record may be stamped.
pub(crate) const DRIFT: Duration = Duration::from_secs(10);
/// The same in milliseconds.
pub(crate) const DRIFT_MS: u64 = 10_000;
/// Commands of one transaction at the most.
const GROUP_MAX: usize = 8;

/// Starts the manager of a pod.
pub(crate) fn start(sim: &Sim, world: &mut World, pod: usize) {
    let it = &mut world.pods[pod];
    it.managers += 1;
    it.manager_runs = true;
    let life = Life {
        pod,
        program: Program::Manager,
        number: it.managers,
    };
    let sim = sim.clone();
    world.say(|| format!("pod {pod}: manager starts"));
    world.spawn(Some(life), async move { run(&sim, pod).await });
}

/// One step of a store: it takes a moment, and the pod may die in it.
async fn step(sim: &Sim, pod: usize) {
    let ms = {
        let mut world = sim.world();
        let ms = world.random.below(4).saturating_sub(1);
        let it = &mut world.pods[pod];
        match &mut it.doom {
            Some((_, 0, _)) => {
                let doom = it.doom.take();
                if let Some((program, _, after_ms)) = doom {
                    sync::crash(sim, &mut world, pod, program, after_ms);
                }
                None
            }
            Some((_, left, _)) => {
                *left -= 1;
                Some(ms)
            }
            None => Some(ms),
        }
    };
    // Who was killed is not polled again.
    match ms {
        Some(ms) => sim.sleep(ms).await,
        None => std::future::pending().await,
    }
}

async fn run(sim: &Sim, pod: usize) {
    open(sim, pod).await;
    own_record(sim, pod);
    loop {
        let bell = {
            let mut world = sim.world();
            let it = &mut world.pods[pod];
            if it.commands.is_empty() {
                it.bell = Answer::new();
                Some(it.bell.clone())
            } else {
                None
            }
        };
        if let Some(bell) = bell {
            bell.wait_for_ever(sim).await;
        }
        let group: Vec<Command> = {
            let mut world = sim.world();
            let commands = &mut world.pods[pod].commands;
            let len = commands.len().min(GROUP_MAX);
            commands.drain(..len).collect()
        };
        if let Err(Refused::Changed) = serve(sim, pod, group).await {
            sim.world()
                .say(|| format!("pod {pod}: the store changed; it is opened anew"));
            if let Some(manager) = &mut sim.world().pods[pod].manager {
                manager.is_over = true;
            }
            open(sim, pod).await;
        }
    }
}

/// Opens the store and reads the table from it.
async fn open(sim: &Sim, pod: usize) {
    step(sim, pod).await;
    let opening = {
        let mut world = sim.world();
        let world = &mut *world;
        let draw = Draw {
            store: StoreId::from_bytes(world.random.id()),
            origin: OriginId::from_bytes(world.random.id()),
            peer_id: world.pods[pod].own_key(),
            binding: None,
        };
        let it = &mut world.pods[pod];
        let known = it.manager.as_ref().map(|manager| &manager.opening);
        let Some(opening) = it.store.open(draw, known) else {
            return world.broken("each opening has an id of its own", "drawn twice");
        };
        let opened = world.oracle.opened(opening.origin, it.cluster);
        if !mutants::is("origin-kept-over-openings") {
            world.hold(opened);
        }
        world.say(|| format!("pod {pod}: opened as {}", opening.origin));
        opening
    };
    step(sim, pod).await;
    let mut world = sim.world();
    let world = &mut *world;
    let setting = &world.setting;
    let limits = Limits {
        records_max: setting.records_max,
        ..Limits::default()
    };
    let it = &mut world.pods[pod];
    let mut table = Table::new(spec(it, limits, setting.sketch_symbols, &opening));
    let mut highest = Reading::default();
    let mut invalid = 0;
    for (key, entry) in it.store.scan() {
        match table.load(key, &entry) {
            Ok(()) => highest = highest.max(entry.version.reading),
            Err(_) => invalid += 1,
        }
    }
    // A clock that was running is never set back.
    let ran = it.manager.as_ref().map(|manager| manager.clock.last());
    let mut clock = opening.clock(ran.unwrap_or_default().max(highest), DRIFT);
    if mutants::is("clock-floor-forgotten") {
        clock = peer_table::Clock::new(opening.origin, Reading::default(), DRIFT);
    }
    it.manager = Some(Manager {
        opening,
        table,
        clock,
        is_over: false,
    });
    if let Some(sync) = &mut it.sync {
        sync.since = None;
    }
    if invalid > 0 {
        world.broken("a store holds contents only", format!("{invalid} are none"));
    }
}

fn spec(pod: &Pod, limits: Limits, sketch_symbols: usize, opening: &Opening) -> TableSpec {
    let (epoch, _) = opening.origin.as_bytes().split_at(8);
    TableSpec {
        name: peers::table_name(),
        fingerprint_key: fingerprint_key(pod.cluster),
        check_content: peers::check_content,
        limits,
        sketch_symbols,
        epoch: u64::from_be_bytes(epoch.try_into().unwrap_or_default()),
        feed: FeedLimits::default(),
    }
}

/// Has the own record written, if there is none.
fn own_record(sim: &Sim, pod: usize) {
    let mut world = sim.world();
    let it = &mut world.pods[pod];
    let write = Write {
        key: it.own_key(),
        precondition: Precondition::absent(),
        operation: Operation::Put(0),
    };
    command(&mut world, pod, Command::Write(vec![write], Answer::new()));
}

/// Puts a command into a manager's queue.
pub(crate) fn command(world: &mut World, pod: usize, command: Command) {
    world.pods[pod].commands.push_back(command);
    let bell = world.pods[pod].bell.clone();
    bell.give(world, ());
}

async fn serve(sim: &Sim, pod: usize, group: Vec<Command>) -> Result<(), Refused> {
    step(sim, pod).await;
    let held = held(sim, pod, &group)?;
    step(sim, pod).await;
    let (changes, writer, decided) = {
        let mut world = sim.world();
        let world = &mut *world;
        let it = &mut world.pods[pod];
        let now = it.wall(world.now_ms);
        let cluster = it.cluster;
        let Some(Manager { table, clock, .. }) = &mut it.manager else {
            return Ok(());
        };
        let writer = Writer {
            origin: clock.origin(),
            cluster,
            wall: now,
        };
        let mut plan = table.plan(clock, now, &held);
        let decided: Vec<_> = group
            .into_iter()
            .map(|command| decide(&mut plan, command, now))
            .collect();
        let changes = plan.finish();
        note_stamps(world, pod, writer, &decided);
        (changes, writer, decided)
    };
    if mutants::is("answer-before-commit") {
        answer(sim, pod, &decided);
    }
    if mutants::is("apply-before-commit") {
        apply(sim, pod, changes.clone());
    }
    commit(sim, pod, changes, writer).await?;
    step(sim, pod).await;
    answer(sim, pod, &decided);
    Ok(())
}

/// Checks what local writes were stamped with.
fn note_stamps(world: &mut World, pod: usize, writer: Writer, decided: &[Decided]) {
    let mut checked = Ok(());
    let known = &world.pods[pod].store.data().known;
    for decided in decided {
        if let Decided::Write(results, keys, _) = decided {
            for (key, entry) in keys.iter().zip(results) {
                if let Some(entry) = entry {
                    checked = checked.and(world.oracle.stamped(writer, known, key, entry));
                }
            }
        }
    }
    world.hold(checked);
}

/// The held records that deciding needs.
fn held(sim: &Sim, pod: usize, group: &[Command]) -> Result<BTreeMap<Key, Entry>, Refused> {
    let world = sim.world();
    let it = &world.pods[pod];
    if it.store.is_changed() && !mutants::is("changed-store-written") {
        return Err(Refused::Changed);
    }
    let Some(Manager { table, .. }) = &it.manager else {
        return Ok(BTreeMap::new());
    };
    let keys = group.iter().flat_map(|command| match command {
        Command::Write(writes, _) => writes.iter().map(|write| &write.key).collect(),
        Command::Merge(records, _, _) => {
            let needed = records
                .iter()
                .filter(|(key, entry)| table.needs_content(key, entry));
            needed.map(|(key, _)| key).collect::<Vec<_>>()
        }
    });
    let held = keys.filter_map(|key| Some((key.clone(), it.store.get(key)?)));
    Ok(held.collect())
}

/// Stores what was decided, and then brings the table up to date.
async fn commit(sim: &Sim, pod: usize, changes: Changes, writer: Writer) -> Result<(), Refused> {
    if changes.is_empty() {
        return Ok(());
    }
    step(sim, pod).await;
    let done = {
        let mut world = sim.world();
        let world = &mut *world;
        let (done, checked) = world.pods[pod]
            .store
            .commit(&changes, writer, &mut world.oracle);
        world.hold(checked);
        for (key, entry) in &changes.entries {
            world.note(entry.version.reading.as_u64());
            world.say(|| {
                let what = if entry.is_live() { "live" } else { "deleted" };
                let Entry {
                    version, contact, ..
                } = entry;
                format!(
                    "pod {pod}: {done:?}: {key} {what} {version} {}",
                    contact.steps()
                )
            });
        }
        done
    };
    step(sim, pod).await;
    match done {
        Ok(()) => apply(sim, pod, changes),
        Err(Refused::Doubtful) if mutants::is("doubt-taken-for-no") => {}
        Err(Refused::Doubtful) => {
            // Nothing else is done until it is known.
            sim.sleep(50).await;
            step(sim, pod).await;
            let (is_stored, is_changed) = {
                let store = &sim.world().pods[pod].store;
                (store.holds(&changes), store.is_changed())
            };
            if is_stored && !is_changed {
                apply(sim, pod, changes);
            }
        }
        Err(_) => {}
    }
    done
}

/// Has the table do what the store has done, and what is news pushed.
fn apply(sim: &Sim, pod: usize, changes: Changes) {
    {
        let mut world = sim.world();
        let world = &mut *world;
        let it = &mut world.pods[pod];
        let Some(Manager { table, .. }) = &mut it.manager else {
            return;
        };
        table.apply(changes);
        let (rows, bound) = (
            table.live() + table.tombstones(),
            table.limits().records_max,
        );
        if rows > bound.max(usize::try_from(world.setting.common).unwrap_or(0)) {
            world.broken("memory is bounded", format!("pod {pod} has {rows} records"));
        }
    }
    sync::push_news(sim, pod);
}

/// What was decided, and where the answer goes.
enum Decided {
    Write(Vec<Option<Entry>>, Vec<Key>, Answer<Vec<Option<Entry>>>),
    Merge(Vec<u8>, Vec<(Key, Entry)>, Answer<Vec<u8>>),
}

/// Answers, and checks that what is answered for is stored.
fn answer(sim: &Sim, pod: usize, decided: &[Decided]) {
    let mut world = sim.world();
    for decided in decided {
        let store = &world.pods[pod].store;
        // What a store lost or was swapped for after it said yes is its own fault.
        let is_excused = store.is_changed();
        let covers = |key: &Key, entry: &Entry| store.data().known.covers(key, entry);
        match decided {
            Decided::Write(results, keys, answer) => {
                let of = keys.iter().zip(results);
                let written = of.filter_map(|(key, entry)| Some((key, entry.as_ref()?)));
                let lost = written.into_iter().find(|(key, entry)| !covers(key, entry));
                if let (Some((key, _)), false) = (lost, is_excused) {
                    let detail = format!("pod {pod}: {key}");
                    world.broken("what is answered for is stored", detail);
                }
                answer.give(&mut world, results.clone());
            }
            Decided::Merge(results, records, answer) => {
                let taken = records.iter().zip(results).filter(|(_, code)| **code < 16);
                let lost = taken
                    .map(|(record, _)| record)
                    .find(|(key, entry)| !covers(key, entry));
                if let (Some((key, _)), false) = (lost, is_excused) {
                    let detail = format!("pod {pod}: {key} of a peer");
                    world.broken("what is answered for is stored", detail);
                }
                answer.give(&mut world, results.clone());
            }
        }
    }
}

fn decide(plan: &mut Plan<'_>, command: Command, now: WallTime) -> Decided {
    match command {
        Command::Write(writes, answer) => {
            let results = writes
                .iter()
                .map(|write| decide_write(plan, write, now).ok())
                .collect();
            let keys = writes.into_iter().map(|write| write.key).collect();
            Decided::Write(results, keys, answer)
        }
        Command::Merge(records, via, answer) => {
            let merge =
                |(key, entry): &(Key, Entry)| -> Merged { plan.merge(key, entry.clone(), via) };
            let results = records.iter().map(merge).map(merged_code).collect();
            Decided::Merge(results, records, answer)
        }
    }
}

fn decide_write(plan: &mut Plan<'_>, write: &Write, now: WallTime) -> Result<Entry, WriteRefused> {
    let Write {
        key,
        precondition,
        operation,
    } = write;
    match operation {
        Operation::Put(number) => {
            let new = NewContent {
                content: draft(*number).content(now),
                contact: peer_table::Contact::NEVER,
            };
            plan.put(key, precondition, new)
        }
        Operation::Delete => plan.delete(key, precondition),
        Operation::Contact(contact) => plan.contact(key, *contact),
    }
}

/// What a record says, told apart by a number.
pub(crate) fn draft(number: u64) -> Draft {
    Draft {
        name: format!("p{number:x}"),
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        ports: BTreeMap::new(),
        labels: BTreeMap::new(),
        contact: peer_table::Contact::NEVER,
    }
}

/// Says who a pod is and how its table stands.
pub(crate) fn state(pod: &Pod, manager: &Manager, symbols: usize) -> peer_table::contract::State {
    let (opening, table) = (&manager.opening, &manager.table);
    peer_table::contract::State::of(&cluster_id(pod.cluster), opening, table, symbols)
}
