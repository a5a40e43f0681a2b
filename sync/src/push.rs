//! Pushes: fresh changes, sent to a few peers at once, who pass them on.
//!
//! To one peer and for one part of the ring one push is on its way at a time; what comes meanwhile
//! waits and goes together. Where nothing is on its way, nothing waits.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peer_exchange::push::{Group, PassOn, Position, PushReport, Scope, plan, push};
use peer_exchange::{Address, ExchangeError, Own};
use peer_table::contract::{EventKind, State, StateRequest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;
use udht_tell::chain;
use udht_tell::trace::{self, Kind, Place, Span};

use crate::metrics::Pushed;
use crate::node::Node;
use crate::report::event;
use crate::transport::Transport;
use crate::wall::Stopwatch;

/// Sends fresh changes on.
#[derive(Debug)]
pub struct Pusher {
    node: Arc<Node>,
    transport: Transport,
    fanout: usize,
    /// Room for records that are being pushed or wait for it, in KiB.
    room: Arc<Semaphore>,
    /// Pushes to one peer each that may be on their way at once.
    turns: Semaphore,
    tasks: TaskTracker,
    /// How many groups of own changes are on their way.
    own: watch::Sender<usize>,
    /// The ways that something goes at the moment, with what waits for it to be over.
    ways: Mutex<HashMap<Way, VecDeque<Parcel>>>,
}

/// To whom, and for which part of the ring: see [`Scope`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Way {
    head: Address,
    after: Position,
    up_to: Position,
}

/// News for one group.
#[derive(Debug)]
struct Parcel {
    news: PassOn,
    group: Group<Address>,
    /// What our manager said of us.
    state: State,
    /// The first trace that a part of it belongs to.
    place: Option<Place>,
    /// Of all that is in it.
    held: Vec<Arc<Held>>,
}

/// Room for changes that go on their way.
#[derive(Debug)]
pub struct Room(OwnedSemaphorePermit);

/// What news hold until they were sent to all groups.
#[derive(Debug)]
struct Held {
    _room: OwnedSemaphorePermit,
    _under_way: Option<UnderWay>,
}

/// A task on a way. Where it breaks off, what waits for the way is lost, and not all that comes later.
struct Going {
    pusher: Arc<Pusher>,
    way: Way,
}

impl Drop for Going {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.pusher.ways().remove(&self.way);
        }
    }
}

impl Pusher {
    /// One that sends each change to `fanout` peers.
    pub fn new(node: Arc<Node>, fanout: usize) -> Self {
        let bounds = &node.bounds;
        let room = usize::try_from(bounds.push_queue_kib_max).unwrap_or(usize::MAX);
        Self {
            transport: node.transport.answering_within(bounds.push),
            fanout,
            room: Arc::new(Semaphore::new(room)),
            turns: Semaphore::new(bounds.pushes_max),
            tasks: TaskTracker::new(),
            own: watch::Sender::new(0),
            ways: Mutex::default(),
            node,
        }
    }

    /// Passes on what a peer pushed here, unless too much waits already. `state` is what our manager
    /// said of us when it came, if it did.
    pub fn pass_on(self: &Arc<Self>, news: PassOn, state: Option<State>) {
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(self.kib(&news)) {
            self.begin(news, state, room, None);
        } else {
            let metrics = &self.node.metrics;
            metrics.pushes.ended(Pushed::Dropped);
            metrics
                .pushes
                .dropped
                .inc_by(news.batch.records.len() as u64);
        }
    }

    /// Sends changes that were made here on their way; waits while too much is on its way already.
    pub async fn send_own(self: &Arc<Self>, news: PassOn) {
        let room = self.room_for(&news).await;
        self.begin_own(news, room);
    }

    /// Waits until these changes may go on their way. Who gives up waiting has lost nothing.
    pub async fn room_for(&self, news: &PassOn) -> Room {
        let room = Arc::clone(&self.room).acquire_many_owned(self.kib(news));
        Room(room.await.expect("a semaphore that is never closed"))
    }

    /// Sends changes that were made here on their way, for which there is this room.
    pub fn begin_own(self: &Arc<Self>, news: PassOn, Room(room): Room) {
        let under_way = UnderWay::new(self.own.clone());
        self.begin(news, None, room, Some(under_way));
    }

    /// Whether nothing that was made here is on its way.
    pub fn is_idle(&self) -> bool {
        *self.own.borrow() == 0
    }

    /// Waits until nothing that was made here is on its way.
    pub async fn idle(&self) {
        // It fails only when the sender is gone, which is ours.
        let _ = self.own.subscribe().wait_for(|groups| *groups == 0).await;
    }

    /// Waits until everything is sent, for the time that a stop may take.
    pub async fn drain(&self, time: Duration) {
        self.tasks.close();
        if tokio::time::timeout(time, self.tasks.wait()).await.is_err() {
            tracing::warn!("gave up on pushes in order to stop; exchanges carry what they had");
        }
    }

    /// The room that news take: at the most all there is, so that the largest goes through too.
    fn kib(&self, news: &PassOn) -> u32 {
        u32::try_from(news.bytes().div_ceil(1 << 10))
            .unwrap_or(u32::MAX)
            .clamp(1, self.node.bounds.push_queue_kib_max)
    }

    fn begin(
        self: &Arc<Self>,
        news: PassOn,
        state: Option<State>,
        room: OwnedSemaphorePermit,
        under_way: Option<UnderWay>,
    ) {
        let pusher = Arc::clone(self);
        let place = trace::current();
        let held = Held {
            _room: room,
            _under_way: under_way,
        };
        self.tasks.spawn(async move {
            trace::within(place, pusher.spread(&news, state, held)).await;
        });
    }

    /// Sends news on their ways to the groups that the scope is split into.
    async fn spread(self: &Arc<Self>, news: &PassOn, state: Option<State>, held: Held) {
        let node = &self.node;
        let peers: Vec<_> = node.book().ring(node.uptime()).collect();
        let groups = plan(peers, news.scope, self.fanout);
        if groups.is_empty() {
            return;
        }
        let state = match state {
            Some(state) => state,
            // Who we are, asked once for all of them.
            None => match node.manager.state(&StateRequest::default()).await {
                Ok(state) => state,
                Err(error) => {
                    node.metrics.pushes.ended(Pushed::Failed);
                    tracing::warn!(error = chain(&error), "a change was not pushed");
                    return;
                }
            },
        };
        let held = Arc::new(held);
        for group in groups {
            let Some((first, scope)) = group.heads().next() else {
                continue;
            };
            let way = Way {
                head: first.clone(),
                after: scope.after,
                up_to: scope.up_to,
            };
            let news = PassOn {
                scope,
                ..news.clone()
            };
            let parcel = Parcel {
                news,
                group,
                state: state.clone(),
                place: trace::current(),
                held: vec![Arc::clone(&held)],
            };
            self.send(way, parcel);
        }
    }

    /// Sends news to a group, or has them wait for what is on the same way already.
    fn send(self: &Arc<Self>, way: Way, parcel: Parcel) {
        match self.ways().entry(way.clone()) {
            Entry::Occupied(mut waiting) => {
                let waiting = waiting.get_mut();
                return match waiting.back_mut() {
                    Some(last) if last.news.has_room_for(&parcel.news) => last.add(parcel),
                    _ => waiting.push_back(parcel),
                };
            }
            Entry::Vacant(free) => free.insert(VecDeque::new()),
        };
        let going = Going {
            pusher: Arc::clone(self),
            way,
        };
        self.tasks.spawn(async move {
            let Going { pusher, way } = &going;
            let mut next = Some(parcel);
            while let Some(parcel) = next {
                Box::pin(trace::within(parcel.place, pusher.reach(&parcel))).await;
                drop(parcel);
                next = pusher.next(way);
            }
        });
    }

    /// What waits for this way, which is free again where nothing does.
    fn next(&self, way: &Way) -> Option<Parcel> {
        let mut ways = self.ways();
        let next = ways.get_mut(way).and_then(VecDeque::pop_front);
        if next.is_none() {
            ways.remove(way);
        }
        next
    }

    fn ways(&self) -> MutexGuard<'_, HashMap<Way, VecDeque<Parcel>>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends news to the first of a group that takes them.
    async fn reach(&self, parcel: &Parcel) {
        let Parcel {
            news, group, state, ..
        } = parcel;
        let node = &self.node;
        for (address, scope) in group.heads() {
            let scope = Scope {
                origin: news.scope.origin,
                ..scope
            };
            let Ok(_turn) = self.turns.acquire().await else {
                return;
            };
            let watch = Stopwatch::start();
            let line = self.transport.to(address);
            let options = node.options_for(address);
            let mut span = Span::new("push", Kind::Client);
            span.set("peer", address);
            let push = push(&node.manager, state, &line, news, scope, &options);
            let result = trace::within(span.place(), push).await;
            if let Err(error) = &result {
                span.fail(chain(error));
            }
            drop(span);
            let took = watch.elapsed();
            node.metrics.pushes.seconds.observe(took.as_secs_f64());
            let tell = |result: String, sent: usize| {
                let (peer, moved) = (address.to_string(), [sent as u64, 0]);
                let event = event(EventKind::Push, peer, result, moved, took);
                node.telling.happened(event);
            };
            match result {
                Ok(PushReport {
                    partner, skew_ms, ..
                }) => {
                    node.metrics.pushes.ended(Pushed::Ok);
                    tell(Pushed::Ok.word().to_owned(), news.batch.records.len());
                    node.metrics
                        .pushes
                        .records
                        .inc_by(news.batch.records.len() as u64);
                    node.met(address, &partner, skew_ms, None).await;
                    return;
                }
                Err(error) => {
                    let pushed = match error {
                        ExchangeError::Refused(_) => Pushed::Refused,
                        _ => Pushed::Failed,
                    };
                    node.metrics.pushes.ended(pushed);
                    tell(pushed.word().to_owned(), 0);
                    node.failed(address, &error, "a push failed");
                }
            }
        }
    }
}

impl Parcel {
    /// Takes in other news for the same way, for which there has to be room.
    fn add(&mut self, other: Self) {
        self.news.add(other.news);
        self.state = other.state;
        self.group = other.group;
        self.place = self.place.or(other.place);
        self.held.extend(other.held);
    }
}

/// Counts a group of own changes for as long as it is on its way.
#[derive(Debug)]
struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    fn new(groups: watch::Sender<usize>) -> Self {
        groups.send_modify(|groups| *groups += 1);
        Self(groups)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|groups| *groups -= 1);
    }
}
