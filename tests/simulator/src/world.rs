//! The world: virtual time, what is to happen when, and everything that the pods share.
//!
//! One thread runs all of a history. Each program of a pod, each message on its way and each
//! exchange is a future; who waits says until when, and the one that is due first is polled next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::future::Future;
use std::hash::Hasher;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use peer_exchange::Address;
use siphasher::sip::SipHasher13;

use crate::history::{Program, Setting};
use crate::oracle::Oracle;
use crate::pod::Pod;
use crate::random::Random;

/// When all histories begin, in milliseconds since 1970.
pub(crate) const START_MS: u64 = 1_800_000_000_000;
/// Turns after which a history is said not to come to rest.
const TURNS_MAX: u64 = 1_500_000;

/// A rule that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    /// How.
    pub detail: String,
}

/// A task that waits.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TaskId(u64);

/// What a task dies with: a life of a program of a pod.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Life {
    /// Of which pod.
    pub(crate) pod: usize,
    /// Of which program: manager or sync.
    pub(crate) program: Program,
    /// Which one.
    pub(crate) number: u64,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Everything that is shared.
pub(crate) struct World {
    /// Milliseconds since the start.
    pub(crate) now_ms: u64,
    /// How the cluster is set up.
    pub(crate) setting: Setting,
    /// All pods that ever were.
    pub(crate) pods: Vec<Pod>,
    /// Who listens where.
    pub(crate) addresses: BTreeMap<Address, usize>,
    /// Pods that are parted from the others.
    pub(crate) parted: Option<u64>,
    /// For how many milliseconds what one pod asks of another is under way before all else.
    pub(crate) slow: BTreeMap<(usize, usize), u64>,
    /// Whether faults have ended.
    pub(crate) quiet: bool,
    /// What is known of all writes.
    pub(crate) oracle: Oracle,
    /// For what belongs to no step.
    pub(crate) random: Random,
    /// What is due when.
    due: BinaryHeap<Reverse<(u64, u64, TaskId)>>,
    turn: u64,
    next_task: u64,
    current: TaskId,
    spawned: Vec<(TaskId, Option<Life>, Work)>,
    trace: SipHasher13,
    /// The story, if somebody listens.
    story: Option<Vec<String>>,
    /// The first rule that was broken.
    pub(crate) violation: Option<Violation>,
}

/// A handle to the world.
#[derive(Clone)]
pub(crate) struct Sim(Arc<Mutex<World>>);

impl World {
    /// Adds a line to the story, and its gist to the hash by which two runs are compared.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let now_ms = self.now_ms;
            story.push(format!(
                "{:>10}.{:03} {}",
                now_ms / 1_000,
                now_ms % 1_000,
                line()
            ));
        }
    }

    /// Whether the story has this in it so far.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        let mut story = self.story.iter().flatten();
        story.any(|line| line.contains(text))
    }

    /// Adds a number to the hash by which two runs are compared.
    pub(crate) fn note(&mut self, number: u64) {
        self.trace.write_u64(number);
    }

    /// Notes that a rule was broken; the first one counts.
    pub(crate) fn broken(&mut self, rule: &'static str, detail: impl fmt::Display) {
        let detail = detail.to_string();
        self.say(|| format!("BROKEN: {rule}: {detail}"));
        if self.violation.is_none() {
            self.violation = Some(Violation { rule, detail });
        }
    }

    /// Takes what a check found.
    pub(crate) fn hold(&mut self, checked: Result<(), Violation>) {
        if let Err(Violation { rule, detail }) = checked {
            self.broken(rule, detail);
        }
    }

    fn schedule(&mut self, at_ms: u64, task: TaskId) {
        self.turn += 1;
        self.due.push(Reverse((at_ms, self.turn, task)));
    }

    /// Has a task polled again now.
    fn wake(&mut self, task: TaskId) {
        self.schedule(self.now_ms, task);
    }

    /// Begins a task that dies with `life`.
    pub(crate) fn spawn(
        &mut self,
        life: Option<Life>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.next_task += 1;
        let task = TaskId(self.next_task);
        self.spawned.push((task, life, Box::pin(work)));
        self.wake(task);
    }

    /// Whether that life goes on.
    pub(crate) fn is_alive(&self, life: Life) -> bool {
        self.pods[life.pod].life(life.program) == Some(life)
    }

    /// Whether a message can go from one pod to another now.
    pub(crate) fn is_connected(&self, from: usize, to: usize) -> bool {
        self.parted
            .is_none_or(|side| (side >> (from % 64)) & 1 == (side >> (to % 64)) & 1)
    }
}

impl Sim {
    /// An empty world; `told` is whether the story is kept.
    pub(crate) fn new(setting: Setting, told: bool) -> Self {
        Self(Arc::new(Mutex::new(World {
            now_ms: 0,
            random: Random::new(setting.salt),
            setting,
            pods: Vec::new(),
            addresses: BTreeMap::new(),
            parted: None,
            slow: BTreeMap::new(),
            quiet: false,
            oracle: Oracle::default(),
            due: BinaryHeap::new(),
            turn: 0,
            next_task: 0,
            current: TaskId(0),
            spawned: Vec::new(),
            trace: SipHasher13::new(),
            story: told.then(Vec::new),
            violation: None,
        })))
    }

    /// The world, for a moment.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long.
    pub(crate) async fn sleep(&self, ms: u64) {
        let until = self.world().now_ms + ms;
        Waiting {
            sim: self,
            until: Some(until),
            is_due: || false,
        }
        .await;
    }

    /// Lets go of what would keep the world alive.
    pub(crate) fn clear(&self) {
        let left = {
            let mut world = self.world();
            (
                std::mem::take(&mut world.spawned),
                std::mem::take(&mut world.pods),
            )
        };
        drop(left);
    }

    /// The hash by which two runs are compared.
    pub(crate) fn trace(&self) -> u64 {
        self.world().trace.finish()
    }

    /// The story, if it was kept.
    pub(crate) fn story(&self) -> Vec<String> {
        self.world().story.take().unwrap_or_default()
    }
}

/// Waits until a time, or until something is the case.
struct Waiting<'a, F> {
    sim: &'a Sim,
    until: Option<u64>,
    is_due: F,
}

impl<F: FnMut() -> bool + Unpin> Future for Waiting<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if (self.is_due)() {
            return Poll::Ready(());
        }
        let mut world = self.sim.world();
        let until = self.until.unwrap_or(u64::MAX);
        if until <= world.now_ms {
            return Poll::Ready(());
        }
        // Polled again for no reason, it is due once more often; that does no harm.
        if until < u64::MAX {
            let task = world.current;
            world.schedule(until, task);
        }
        Poll::Pending
    }
}

/// Where one task leaves an answer for another.
pub(crate) struct Answer<T>(Arc<Mutex<Left<T>>>);

struct Left<T> {
    value: Option<T>,
    waiter: Option<TaskId>,
}

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Answer<T> {
    /// One that nobody gave yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Left {
            value: None,
            waiter: None,
        })))
    }

    fn left(&self) -> MutexGuard<'_, Left<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the answer. The first one counts.
    pub(crate) fn give(&self, world: &mut World, value: T) {
        let mut left = self.left();
        if left.value.is_none() {
            left.value = Some(value);
        }
        if let Some(task) = left.waiter {
            world.wake(task);
        }
    }

    /// The answer, if it was given.
    pub(crate) fn take(&self) -> Option<T> {
        self.left().value.take()
    }

    /// Waits for the answer, but no longer than so many milliseconds.
    pub(crate) async fn wait(&self, sim: &Sim, ms: u64) -> Option<T> {
        let until = {
            let world = sim.world();
            self.left().waiter = Some(world.current);
            world.now_ms + ms
        };
        Waiting {
            sim,
            until: Some(until),
            is_due: || self.left().value.is_some(),
        }
        .await;
        self.left().value.take()
    }

    /// Waits for as long as it takes.
    pub(crate) async fn wait_for_ever(&self, sim: &Sim) -> Option<T> {
        self.left().waiter = Some(sim.world().current);
        Waiting {
            sim,
            until: None,
            is_due: || self.left().value.is_some(),
        }
        .await;
        self.left().value.take()
    }
}

/// The tasks, outside of the world that they lock.
#[derive(Default)]
pub(crate) struct Tasks(BTreeMap<TaskId, (Option<Life>, Work)>);

impl Tasks {
    /// Runs until nothing is due up to and with `until_ms`, or a rule is broken. What is due later
    /// stays.
    pub(crate) fn run(&mut self, sim: &Sim, until_ms: u64) {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let task = {
                let mut world = sim.world();
                self.0.extend(
                    std::mem::take(&mut world.spawned)
                        .into_iter()
                        .map(|(task, life, work)| (task, (life, work))),
                );
                if world.violation.is_some() {
                    return;
                }
                match world.due.peek() {
                    Some(Reverse((at_ms, _, _))) if *at_ms <= until_ms => {}
                    _ => {
                        world.now_ms = world.now_ms.max(until_ms);
                        return;
                    }
                }
                let Some(Reverse((at_ms, turn, task))) = world.due.pop() else {
                    return;
                };
                world.now_ms = world.now_ms.max(at_ms);
                if turn > TURNS_MAX {
                    world.broken("comes to rest", "there is no end of messages");
                    return;
                }
                world.current = task;
                world.note(at_ms ^ (task.0 << 40));
                task
            };
            let Some((life, work)) = self.0.get_mut(&task) else {
                continue;
            };
            let is_alive = |life: Option<Life>| life.is_none_or(|life| sim.world().is_alive(life));
            let is_over =
                !is_alive(*life) || work.as_mut().poll(&mut context).is_ready() || !is_alive(*life);
            if is_over {
                self.0.remove(&task);
            }
        }
    }

    /// When the next thing is due, if anything is.
    pub(crate) fn next_due(sim: &Sim) -> Option<u64> {
        let world = sim.world();
        world.due.peek().map(|Reverse((at_ms, _, _))| *at_ms)
    }
}
