//! A cluster that a test leads by the hand: it says what happens, and asks what the pods see then.
//!
//! The rules that hold for every history hold here too: each step fails when one is broken.

use std::collections::BTreeMap;
use std::time::Duration;

use peer_exchange::book::Uptime;
use peer_exchange::gone::{Gone, Held};
use peer_exchange::{PodUid, Report};
use peer_table::floors::{Evidence, Fence, IdSet};
use peer_table::{Body, Contact, Entry, OriginId, Reading, Version, WallTime};

use crate::history::{Event, History, Program, Setting};
use crate::oracle::Writer;
use crate::owner::{command, draft};
use crate::pod::{Command, Manager, Operation, key};
use crate::random::Random;
use crate::run::{come_to_rest, exchange_now, happen, plain, set_up};
use crate::sync::{begin_exchange, crash, tend};
use crate::world::{Answer, Sim, Tasks};

/// How long each step takes, in milliseconds: what it pushes has arrived by then.
const STEP_MS: u64 = 1_000;
/// How long pods that go on rest until they meet again, in milliseconds: not as long as one that was
/// away.
const BUSY_MS: u64 = 4 * 60 * 1_000;
/// How often all pods meet where they settle.
const SETTLE_ROUNDS: usize = 4;
/// For how long a pod is missing until it is gone.
const GONE_AFTER: Duration = Duration::from_mins(5);

/// A cluster in which happens what a test says, and nothing else.
pub struct Directed {
    sim: Sim,
    tasks: Tasks,
    gone: BTreeMap<usize, Gone>,
    steps: u64,
}

impl Directed {
    /// A cluster that was just started.
    pub fn new(setting: Setting) -> Self {
        let mut cluster = Self::unstarted(setting);
        cluster.passes(STEP_MS);
        cluster
    }

    /// A cluster of which each store already holds a record that was stamped at `wall_ms` since 1970.
    pub fn with_record(setting: Setting, pods: &[usize], record: &str, wall_ms: u64) -> Self {
        let mut cluster = Self::unstarted(setting);
        {
            let mut world = cluster.sim.world();
            let world = &mut *world;
            let origin = OriginId::from_bytes(world.random.id());
            let opened = world.oracle.opened(origin, 0);
            world.hold(opened);
            let entry = Entry {
                version: Version {
                    reading: Reading::from_u64((wall_ms << 16) + 1),
                    origin,
                },
                contact: Contact::NEVER,
                body: Body::Live(draft(0).content(WallTime::default())),
            };
            let writer = Writer {
                origin,
                cluster: 0,
                wall: WallTime::from_millis(wall_ms),
                told: Reading::default(),
            };
            for pod in pods {
                let store = &mut world.pods[*pod].store;
                let noted = store.preload(&mut world.oracle, writer, &key(record), &entry);
                world.hold(noted);
            }
        }
        cluster.passes(STEP_MS);
        cluster
    }

    fn unstarted(setting: Setting) -> Self {
        let sim = Sim::new(setting.clone(), true);
        let steps = Vec::new();
        set_up(&sim, &History { setting, steps });
        Self {
            sim,
            tasks: Tasks::default(),
            gone: BTreeMap::new(),
            steps: 0,
        }
    }

    /// Lets time pass.
    pub fn passes(&mut self, ms: u64) {
        let until_ms = self.sim.world().now_ms + ms;
        self.tasks.run(&self.sim, until_ms);
        self.holds();
    }

    /// No rule is broken so far.
    fn holds(&self) {
        let violation = self.sim.world().violation.clone();
        if violation.is_some() {
            let story = self.sim.story().join("\n");
            panic!("{violation:?}\n{story}");
        }
    }

    /// Lets something happen.
    pub fn happens(&mut self, event: &Event) {
        self.steps += 1;
        {
            let mut random = Random::new(self.steps);
            let mut world = self.sim.world();
            world.say(|| format!("-- {event:?}"));
            happen(&self.sim, &mut world, event, &mut random);
        }
        self.passes(STEP_MS);
    }

    /// Has the application of a pod write a record. Whether that was answered with success.
    pub fn put(&mut self, pod: usize, record: &str) -> bool {
        self.steps += 1;
        self.write(pod, record, Operation::Put(self.steps))
    }

    /// Has the application of a pod delete a record. Whether that was answered with success.
    pub fn delete(&mut self, pod: usize, record: &str) -> bool {
        self.write(pod, record, Operation::Delete)
    }

    fn write(&mut self, pod: usize, record: &str, operation: Operation) -> bool {
        let answer = Answer::<Vec<Option<Entry>>>::new();
        {
            let mut world = self.sim.world();
            world.say(|| format!("-- pod {pod}: {operation:?} of {record}"));
            let writes = vec![plain(key(record), operation)];
            command(&mut world, pod, Command::Write(writes, answer.clone()));
        }
        self.passes(STEP_MS);
        let written = answer.take().unwrap_or_default();
        written.first().is_some_and(Option::is_some)
    }

    /// Has a pod exchange with another. Whether that was done.
    pub fn exchange(&mut self, from: usize, to: usize) -> bool {
        self.exchanged(from, to).is_some()
    }

    fn exchanged(&mut self, from: usize, to: usize) -> Option<Report> {
        let report = exchange_now(&self.sim, &mut self.tasks, from, to);
        self.holds();
        report
    }

    /// Has a pod look after its floors.
    pub fn tend(&mut self, pod: usize) {
        tend(&mut self.sim.world(), pod);
        self.passes(61_000);
    }

    /// Has these pods exchange with each other and look after their floors, until tombstones may have
    /// left.
    pub fn settle(&mut self, pods: &[usize]) {
        for _ in 0..SETTLE_ROUNDS {
            self.meet(pods);
            for pod in pods {
                tend(&mut self.sim.world(), *pod);
            }
            self.passes(61_000);
        }
    }

    /// Has each of these pods exchange with each other.
    pub fn meet(&mut self, pods: &[usize]) {
        for from in pods {
            for to in pods.iter().filter(|to| *to != from) {
                self.exchange(*from, *to);
            }
        }
    }

    /// Lets time pass in which these pods go on as always, whatever the others do.
    pub fn goes_on(&mut self, pods: &[usize], ms: u64) {
        let until_ms = self.sim.world().now_ms + ms;
        while self.sim.world().now_ms < until_ms {
            for from in pods {
                for to in pods.iter().filter(|to| *to != from) {
                    self.steps += 1;
                    let random = Random::new(self.steps);
                    {
                        let mut world = self.sim.world();
                        let address = world.pods[*to].address.clone();
                        begin_exchange(&self.sim, &mut world, *from, address, random);
                    }
                    self.passes(STEP_MS);
                }
            }
            for pod in pods {
                tend(&mut self.sim.world(), *pod);
            }
            self.passes(BUSY_MS);
        }
    }

    /// Kills both programs of a pod, which start again.
    pub fn restart(&mut self, pod: usize) {
        crash(&self.sim, &mut self.sim.world(), pod, Program::Both, 10);
        self.passes(STEP_MS);
    }

    /// Has a pod look which pods are gone for long enough, and remove the records of those that it is
    /// to remove.
    pub fn looks_for_the_gone(&mut self, pod: usize) {
        let uid = |number: usize| PodUid(format!("uid-{number}"));
        let due = {
            let world = self.sim.world();
            let now = Uptime(Duration::from_millis(world.now_ms));
            let pods = || world.pods.iter().filter(|it| it.cluster == 0);
            let listed = pods().filter(|it| !it.is_gone);
            let held =
                pods().filter(|it| is_live_in(world.pods[pod].ready(), it.own_key().as_str()));
            let gone = self.gone.entry(pod);
            let gone = gone.or_insert_with(|| Gone::new(uid(pod), GONE_AFTER));
            gone.sees(true, listed.map(|it| (uid(it.number), false)), now);
            let held = held.map(|it| Held {
                key: it.own_key(),
                pod: uid(it.number),
            });
            gone.scanned(held, Some(world.pods[pod].own_key()), now);
            gone.due(now)
        };
        for held in due {
            let evidence = Evidence {
                gone: vec![held.key.clone()],
                ..Evidence::default()
            };
            command(&mut self.sim.world(), pod, Command::Tend(evidence));
            self.delete(pod, held.key.as_str());
        }
        self.passes(STEP_MS);
    }

    /// Ends all faults, and holds what must be so then: nothing is lost, nothing came back, all tables
    /// are equal, and no tombstone is left.
    pub fn ends(mut self) {
        come_to_rest(&self.sim, &mut self.tasks);
        self.holds();
        self.sim.clear();
    }

    /// Whether a record is live as a pod sees it.
    pub fn is_live(&self, pod: usize, record: &str) -> bool {
        is_live_in(self.sim.world().pods[pod].ready(), record)
    }

    /// The records that are live as a pod sees it.
    pub fn records(&self, pod: usize) -> Vec<String> {
        let world = self.sim.world();
        let rows = world.pods[pod].ready().into_iter();
        let rows = rows.flat_map(|manager| manager.table.rows_after(None, usize::MAX));
        rows.filter(|(_, row)| row.is_live())
            .map(|(key, _)| key.to_string())
            .collect()
    }

    /// How many tombstones a pod keeps.
    pub fn tombstones(&self, pod: usize) -> usize {
        let world = self.sim.world();
        let manager = world.pods[pod].ready();
        manager.map_or(0, |manager| manager.table.tombstones())
    }

    /// How many replicas there are that may write, as far as a pod knows.
    pub fn replicas(&self, pod: usize) -> usize {
        let world = self.sim.world();
        let manager = world.pods[pod].ready();
        manager.map_or(0, |it| it.table.floors().ids().unfenced().count())
    }

    /// How many replicas are given up, as far as a pod knows.
    pub fn given_up(&self, pod: usize) -> usize {
        let world = self.sim.world();
        let ids = world.pods[pod].ready().map(|it| it.table.floors().ids());
        let fences = ids.into_iter().flat_map(IdSet::fenced);
        fences.filter(|(_, fence)| *fence == Fence::GivenUp).count()
    }

    /// Whether anything that happened so far says this of itself.
    pub fn has_said(&self, text: &str) -> bool {
        self.sim.world().has_said(text)
    }
}

fn is_live_in(manager: Option<&Manager>, record: &str) -> bool {
    let row = manager.and_then(|manager| manager.table.row(&key(record)));
    row.is_some_and(peer_table::table::Row::is_live)
}
