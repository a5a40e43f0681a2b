//! The manager of a pod: opens its store, reads the table from it, and writes what it is asked to,
//! in the order that `udht-manager` keeps: decide, store, apply, answer. It may die between any two.

use std::collections::BTreeMap;
use std::time::Duration;

use peer_table::contract::{Batch, MergeAnswer, merged_code};
use peer_table::feed::FeedLimits;
use peer_table::floors::{Ages, Evidence, Fence, Floors, Joined, Me, Replicas, Snapshot};
use peer_table::opening::Draw;
use peer_table::peers::{self, Draft};
use peer_table::table::{
    Changes, Horizon, Limits, Loading, Merged, NewContent, Plan, Precondition, SessionId,
    TableSpec, WriteRefused,
};
use peer_table::{Entry, Key, Opening, OriginId, Reading, StoreId, Table, WallTime, mutants};

use crate::history::Program;
use crate::oracle::{Collection, Told, Writer};
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
/// An hour, in milliseconds.
const HOUR_MS: u64 = 60 * 60 * 1_000;

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
        let (group, alone) = {
            let mut world = sim.world();
            let commands = &mut world.pods[pod].commands;
            let is_record =
                |command: &&Command| matches!(command, Command::Write(..) | Command::Merge(..));
            let len = commands
                .iter()
                .take(GROUP_MAX)
                .take_while(is_record)
                .count();
            let group: Vec<Command> = commands.drain(..len).collect();
            let alone = if len == 0 { commands.pop_front() } else { None };
            (group, alone)
        };
        let served = match alone {
            Some(command) => floors(sim, pod, command).await,
            None => serve(sim, pod, group).await,
        };
        if let Err(Refused::Changed) = served {
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
            cluster: None,
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
    let now = it.wall(world.now_ms);
    let mut opening = opening;
    let stored = std::mem::take(&mut opening.floors);
    let Ok(floors) = Floors::opened(&stored, &opening, now) else {
        return world.broken(
            "a store holds what was stored",
            format!("pod {pod}: floors"),
        );
    };
    let spec = spec(it, limits, setting.sketch_symbols, &opening, floors);
    let mut loading = Loading::new(spec, 0);
    let mut highest = Reading::default();
    let mut invalid = 0;
    if it.store.is_damaged() {
        loading.lose();
    }
    for (key, entry) in it.store.scan() {
        match loading.record(&key, &entry, now) {
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
        table: loading.finish(),
        clock,
        told: Reading::default(),
        is_over: false,
    });
    if let Some(sync) = &mut it.sync {
        sync.since = None;
    }
    if invalid > 0 {
        world.broken("a store holds contents only", format!("{invalid} are none"));
    }
}

fn spec(
    pod: &Pod,
    limits: Limits,
    sketch_symbols: usize,
    opening: &Opening,
    floors: Floors,
) -> TableSpec {
    let (epoch, _) = opening.origin.as_bytes().split_at(8);
    TableSpec {
        name: peers::table_name(),
        fingerprint_key: fingerprint_key(pod.cluster),
        check_content: peers::check_content,
        limits,
        sketch_symbols,
        epoch: u64::from_be_bytes(epoch.try_into().unwrap_or_default()),
        feed: FeedLimits::default(),
        floors,
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
        let Some(manager) = &mut it.manager else {
            return Ok(());
        };
        let writer = writer(manager, cluster, now);
        let Manager { table, clock, .. } = manager;
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
        apply(sim, pod, changes.clone(), None);
    }
    commit(sim, pod, changes, None, writer).await?;
    step(sim, pod).await;
    answer(sim, pod, &decided);
    Ok(())
}

/// Checks what local writes were stamped with.
fn note_stamps(world: &mut World, pod: usize, writer: Writer, decided: &[Decided]) {
    let mut checked = Ok(());
    let store = &world.pods[pod].store;
    if store.is_changed() {
        // What is there now is another's: nothing that was decided is stored.
        return;
    }
    let known = &store.data().known;
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
        Command::Merge(records, ..) => {
            let needed = records
                .iter()
                .filter(|(key, entry)| table.needs_content(key, entry));
            needed.map(|(key, _)| key).collect::<Vec<_>>()
        }
        // They stand alone.
        _ => Vec::new(),
    });
    let held = keys.filter_map(|key| Some((key.clone(), it.store.get(key)?)));
    Ok(held.collect())
}

/// Stores what was decided, and then brings the table up to date.
async fn commit(
    sim: &Sim,
    pod: usize,
    changes: Changes,
    floors: Option<Floors>,
    writer: Writer,
) -> Result<(), Refused> {
    if changes.is_empty() && floors.is_none() {
        // What was heard of other replicas is known from now on all the same.
        apply(sim, pod, changes, None);
        return Ok(());
    }
    let stored = floors.as_ref().map(Floors::to_stored);
    step(sim, pod).await;
    let done = {
        let mut world = sim.world();
        let world = &mut *world;
        let (done, checked) =
            world.pods[pod]
                .store
                .commit(&changes, stored.clone(), writer, &mut world.oracle);
        world.hold(checked);
        for (key, entry) in &*changes.entries {
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
        Ok(()) => apply(sim, pod, changes, floors),
        Err(Refused::Doubtful) if mutants::is("doubt-taken-for-no") => {}
        Err(Refused::Doubtful) => {
            // Nothing else is done until it is known.
            sim.sleep(50).await;
            step(sim, pod).await;
            let (is_stored, is_changed) = {
                let store = &sim.world().pods[pod].store;
                (store.holds(&changes, stored.as_ref()), store.is_changed())
            };
            if is_stored && !is_changed {
                apply(sim, pod, changes, floors);
            }
        }
        Err(_) => {}
    }
    done
}

/// Has the table do what the store has done, and what is news pushed.
fn apply(sim: &Sim, pod: usize, changes: Changes, floors: Option<Floors>) {
    {
        let mut world = sim.world();
        let world = &mut *world;
        let it = &mut world.pods[pod];
        let Some(Manager { table, .. }) = &mut it.manager else {
            return;
        };
        if let Some(floors) = floors {
            table.set_floors(floors);
        }
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
    Merge(MergeAnswer, Vec<(Key, Entry)>, Answer<MergeAnswer>),
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
                // What lost or was dealt with before need not be here.
                let is_held = |code: u8| (1..=3).contains(&code);
                let of = records.iter().zip(&results.outcomes);
                let taken = of.filter(|(_, code)| is_held(**code));
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
        Command::Merge(records, via, session, answer) => {
            let merge = |(key, entry): &(Key, Entry)| -> Merged {
                plan.merge(key, entry.clone(), via, session)
            };
            let outcomes = records.iter().map(merge).map(merged_code).collect();
            let answers = Batch::new(&peers::table_name(), plan.take_answers());
            let results = MergeAnswer {
                outcomes,
                answers: Some(answers),
            };
            Decided::Merge(results, records, answer)
        }
        // They stand alone, and never come here.
        _ => Decided::Write(Vec::new(), Vec::new(), Answer::new()),
    }
}

/// How long things last: silence for as long as a history may leave a pod away, and no more.
pub(crate) const AGES: Ages = Ages::new(Duration::from_hours(7 * 24), Duration::from_mins(1));

/// Does what concerns floors: it stands alone.
async fn floors(sim: &Sim, pod: usize, command: Command) -> Result<(), Refused> {
    step(sim, pod).await;
    match command {
        Command::Snapshot(answer) => {
            let mut world = sim.world();
            let world = &mut *world;
            let it = &mut world.pods[pod];
            let now = it.wall(world.now_ms);
            let Some(Manager { table, clock, .. }) = &mut it.manager else {
                return Ok(());
            };
            let snapshot = table.snapshot(clock, now);
            if !it.store.is_changed() {
                let told = Told::new(&it.store.data().known, table);
                world.oracle.tells(&snapshot, told);
            }
            answer.give(world, snapshot);
            Ok(())
        }
        Command::Join(theirs, answer) => join(sim, pod, &theirs, answer).await,
        Command::Advance(session, partner, answer) => {
            advance(sim, pod, session, &partner, answer).await
        }
        Command::Tend(evidence) => tend(sim, pod, &evidence).await,
        Command::GiveUp(ids) => {
            let Some((mut floors, writer)) = own_floors(sim, pod) else {
                return Ok(());
            };
            for id in ids {
                floors.fence(id, Fence::GivenUp, writer.wall);
            }
            {
                let mut world = sim.world();
                if let Some(manager) = &mut world.pods[pod].manager {
                    floors.stamp_set(&mut manager.clock, writer.wall);
                }
            }
            commit(sim, pod, Changes::default(), Some(floors), writer).await
        }
        Command::Write(..) | Command::Merge(..) => Ok(()),
    }
}

/// The floors of a pod, and who writes.
fn own_floors(sim: &Sim, pod: usize) -> Option<(Floors, Writer)> {
    let world = sim.world();
    let it = &world.pods[pod];
    let manager = it.manager.as_ref()?;
    let writer = writer(manager, it.cluster, it.wall(world.now_ms));
    Some((manager.table.floors().clone(), writer))
}

const fn writer(manager: &Manager, cluster: usize, wall: WallTime) -> Writer {
    Writer {
        origin: manager.clock.origin(),
        cluster,
        wall,
        told: manager.told,
    }
}

async fn join(
    sim: &Sim,
    pod: usize,
    theirs: &Replicas,
    answer: Answer<Replicas>,
) -> Result<(), Refused> {
    let Some((mut floors, writer)) = own_floors(sim, pod) else {
        return Ok(());
    };
    let joined = {
        let mut world = sim.world();
        let Some(manager) = &mut world.pods[pod].manager else {
            return Ok(());
        };
        let earlier = &manager.opening.retired;
        floors.take(theirs, earlier, AGES, &mut manager.clock, writer.wall)
    };
    match joined {
        Ok(Joined::Known) => {}
        Ok(Joined::News) => {
            commit(sim, pod, Changes::default(), Some(floors), writer).await?;
        }
        Ok(Joined::GivenUp) => return start_over(sim, pod).await,
        // Both refuse, and somebody has to choose.
        Ok(Joined::Mutual) | Err(_) => return Ok(()),
    }
    let mut world = sim.world();
    let Some(manager) = &world.pods[pod].manager else {
        return Ok(());
    };
    let ours = Replicas::of(manager.table.floors(), true);
    answer.give(&mut world, ours);
    Ok(())
}

async fn advance(
    sim: &Sim,
    pod: usize,
    session: SessionId,
    partner: &Snapshot,
    answer: Answer<bool>,
) -> Result<(), Refused> {
    let Some((_, writer)) = own_floors(sim, pod) else {
        return Ok(());
    };
    let advanced = {
        let mut world = sim.world();
        let Some(manager) = &mut world.pods[pod].manager else {
            return Ok(());
        };
        let mut observed = Ok(());
        if !mutants::is("readings-not-observed") {
            observed = manager.clock.observe(partner.reading, writer.wall);
        }
        observed
            .ok()
            .and_then(|()| manager.table.advanced(session, partner))
    };
    if advanced.is_some() {
        note_advanced(sim, pod, partner);
    }
    let is_advanced = advanced.is_some();
    if let Some(floors) = advanced {
        commit(sim, pod, Changes::default(), Some(floors), writer).await?;
    }
    answer.give(&mut sim.world(), is_advanced);
    Ok(())
}

/// Checks that all is here that a partner had, and notes that this pod knows what it knew.
fn note_advanced(sim: &Sim, pod: usize, partner: &Snapshot) {
    let mut world = sim.world();
    let world = &mut *world;
    let it = &mut world.pods[pod];
    let (Some(manager), false) = (&mut it.manager, it.store.is_changed()) else {
        return;
    };
    let held: Vec<_> = it.store.scan().collect();
    let covered = |version| manager.table.floors().covers(version, &manager.clock);
    let known = it.store.known_mut();
    let (told, checked) = world
        .oracle
        .advances(known, held.into_iter(), covered, partner);
    manager.told = manager.told.max(told);
    world.hold(checked);
}

async fn tend(sim: &Sim, pod: usize, evidence: &Evidence) -> Result<(), Refused> {
    let Some((mut floors, writer)) = own_floors(sim, pod) else {
        return Ok(());
    };
    let tended = {
        let mut world = sim.world();
        let it = &mut world.pods[pod];
        let storage = it.storage;
        let Some(Manager {
            opening,
            table,
            clock,
            ..
        }) = &mut it.manager
        else {
            return Ok(());
        };
        let me = Me {
            store: opening.store,
            peer_id: opening.peer_id.clone(),
            storage,
        };
        let table_says = (
            |above, up_to| table.has_tombstone_within(above, up_to),
            // Of its own earlier ids nobody else may ever have heard that they ended.
            |id| table.holds_of(id) || opening.retired.contains(&id),
        );
        let before = floors.ids().clone();
        let tended = floors.tend(evidence, &me, AGES, table_says, clock, writer.wall);
        let forgotten = before.iter().filter(|(id, _)| !floors.ids().knows(*id));
        for (id, _) in forgotten {
            world.oracle.forgets(id);
        }
        tended
    };
    sim.world().say(|| {
        let published = tended.publication.as_ref().map(|it| (it.floor, it.since));
        let settled = floors.settled(evidence.has_strangers);
        format!(
            "pod {pod}: tended: {settled:?}, published {published:?}, {:?}",
            tended.fenced
        )
    });
    let mut reading = tended.collectable;
    if mutants::is("collect-by-age") {
        reading = Reading::from_u64(writer.wall.as_millis().saturating_sub(HOUR_MS) << 16);
    }
    // What is told and what leaves comes after what is stored.
    let mut unstored = Some(floors);
    if !mutants::is("tombstones-leave-before-floors") {
        commit(sim, pod, Changes::default(), unstored.take(), writer).await?;
    }
    loop {
        step(sim, pod).await;
        let due = {
            let world = sim.world();
            let Some(manager) = &world.pods[pod].manager else {
                return Ok(());
            };
            manager.table.collectable(reading, GROUP_MAX)
        };
        if due.is_empty() {
            break;
        }
        note_collected(sim, pod, &due);
        commit(sim, pod, Changes::removal(due), None, writer).await?;
    }
    if unstored.is_some() {
        commit(sim, pod, Changes::default(), unstored, writer).await?;
    }
    if let Some(publication) = tended.publication {
        if let Some(sync) = &mut sim.world().pods[pod].sync {
            sync.published = Some(publication);
        }
        sync::push_news(sim, pod);
    }
    Ok(())
}

/// Notes which tombstones leave, and of whom is known by then.
fn note_collected(sim: &Sim, pod: usize, due: &[Key]) {
    let mut world = sim.world();
    let world = &mut *world;
    world.say(|| format!("pod {pod}: tombstones leave: {due:?}"));
    let it = &world.pods[pod];
    let Some(manager) = &it.manager else {
        return;
    };
    let ids = manager.table.floors().ids();
    let mut known = world.oracle.heard(&it.store.data().known);
    known.extend(ids.iter().map(|(id, _)| id));
    let cluster = it.cluster;
    let opened = |it: &&Pod| {
        let origin = it.store.origin();
        it.cluster == cluster && origin.is_some_and(|origin| !known.contains(&origin))
    };
    let strangers: Vec<_> = world.pods.iter().filter(opened).collect();
    for key in due {
        let Some(row) = manager.table.row(key) else {
            continue;
        };
        let held = strangers.iter().filter_map(|it| it.store.get(key));
        let collection = Collection {
            version: row.version,
            is_deletion: false,
            known: known.clone(),
            strange: held.map(|entry| entry.version).collect(),
        };
        world.oracle.collects(key, collection);
    }
}

/// Begins the store anew, with an empty table that the peers fill.
async fn start_over(sim: &Sim, pod: usize) -> Result<(), Refused> {
    step(sim, pod).await;
    {
        let mut world = sim.world();
        let world = &mut *world;
        world.say(|| format!("pod {pod}: starts over"));
        let draw = Draw {
            store: StoreId::from_bytes(world.random.id()),
            origin: OriginId::from_bytes(world.random.id()),
            peer_id: world.pods[pod].own_key(),
            cluster: None,
            binding: None,
        };
        let setting = &world.setting;
        let limits = Limits {
            records_max: setting.records_max,
            ..Limits::default()
        };
        let symbols = setting.sketch_symbols;
        let it = &mut world.pods[pod];
        if it.store.is_changed() {
            return Err(Refused::Changed);
        }
        let Some(manager) = &it.manager else {
            return Ok(());
        };
        let before = manager.table.floors();
        let floors =
            before.started_over(draw.origin, &manager.opening.retired, it.wall(world.now_ms));
        let Some(opening) = it.store.start_over(draw, floors.to_stored()) else {
            return Ok(());
        };
        let opened = world.oracle.opened(opening.origin, it.cluster);
        let table = Table::new(spec(it, limits, symbols, &opening, floors));
        let ran = it.manager.as_ref().map(|manager| manager.clock.last());
        let clock = opening.clock(ran.unwrap_or_default(), DRIFT);
        it.manager = Some(Manager {
            opening,
            table,
            clock,
            told: Reading::default(),
            is_over: false,
        });
        if let Some(sync) = &mut it.sync {
            sync.since = None;
        }
        world.hold(opened);
    }
    step(sim, pod).await;
    own_record(sim, pod);
    Ok(())
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
pub(crate) fn state(
    pod: &Pod,
    manager: &Manager,
    symbols: usize,
    without: Option<&Horizon>,
) -> peer_table::contract::State {
    let (opening, table) = (&manager.opening, &manager.table);
    peer_table::contract::State::of(&cluster_id(pod.cluster), opening, table, symbols, without)
}
