//! Places for connections: a bounded number, of which the oldest make room where there are no more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::metrics::Metrics;

/// How many of the oldest are asked to end at once.
const ASKED_AT_ONCE: usize = 16;
/// How long they may take, as one that is idle takes no time, until the next ones are asked.
const ASKED_PAUSE: Duration = Duration::from_millis(100);

/// Places for connections.
pub(super) struct Places {
    free: Arc<Semaphore>,
    max: u32,
    open: Mutex<Open>,
    metrics: Arc<Metrics>,
}

/// The connections that have places.
#[derive(Default)]
struct Open {
    /// The way to ask each to end, but those that were asked; the oldest first.
    by_number: BTreeMap<u64, oneshot::Sender<()>>,
    last: u64,
}

/// The place of one connection, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    asked: oneshot::Receiver<()>,
    _free: OwnedSemaphorePermit,
}

impl Places {
    /// So many; `metrics` hear of it where they do not suffice.
    pub(super) fn new(max: u32, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(max as usize)),
            max,
            open: Mutex::default(),
            metrics,
        })
    }

    /// A place for one more. Where there is none, the oldest are asked to end: clients that keep many
    /// connections open and do nothing by them shut nobody out.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        let free = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(free) => free,
            Err(_) => self.make_room().await,
        };
        let (ask, asked) = oneshot::channel();
        let mut open = self.open();
        open.last += 1;
        let number = open.last;
        open.by_number.insert(number, ask);
        drop(open);
        Place {
            places: Arc::clone(self),
            number,
            asked,
            _free: free,
        }
    }

    async fn make_room(&self) -> OwnedSemaphorePermit {
        tracing::warn!(
            connections = self.max,
            "all connections are taken: the oldest make room"
        );
        loop {
            self.metrics.note_crowd();
            self.ask_oldest();
            let free = Arc::clone(&self.free).acquire_owned();
            // It is never closed.
            if let Ok(Ok(free)) = timeout(ASKED_PAUSE, free).await {
                return free;
            }
        }
    }

    /// Asks all to end, and waits until they have.
    pub(super) async fn end(&self) {
        for (_, ask) in std::mem::take(&mut self.open().by_number) {
            // Who is not there any more has ended.
            let _ = ask.send(());
        }
        // It is never closed, so this is about their ends only.
        drop(self.free.acquire_many(self.max).await);
    }

    fn ask_oldest(&self) {
        let mut open = self.open();
        for _ in 0..ASKED_AT_ONCE {
            let Some((_, ask)) = open.by_number.pop_first() else {
                return;
            };
            let _ = ask.send(());
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until its connection is asked to end.
    pub(super) async fn asked_to_end(&mut self) {
        // Its other half is there as long as this one is.
        let _ = (&mut self.asked).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().by_number.remove(&self.number);
    }
}
