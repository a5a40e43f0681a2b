//! News: the changes made in this pod, as its manager tells them, and what exchanges found that all
//! pushes had missed. Gathered for a moment where others are on their way already, and handed on to
//! be pushed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use peer_exchange::push::{PassOn, Scope};
use peer_table::TableName;
use peer_table::contract::{Batch, BatchBuilder, FeedPart, InvalidMessage};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use udht_tell::chain;
use udht_tell::trace::{self, Place};

use crate::manager::{FeedBroken, FeedStream};
use crate::node::Node;
use crate::push::Pusher;
use crate::wall;

/// Follows the manager's feed until `stop`, through whatever becomes of the manager; `found` is what
/// exchanges found.
pub async fn run(
    node: Arc<Node>,
    pusher: Arc<Pusher>,
    found: mpsc::Receiver<Batch>,
    delay: Duration,
    stop: CancellationToken,
) {
    let mut feed = Feed {
        node,
        pusher,
        found,
        delay,
        since: None,
        gathered: None,
        closed: VecDeque::new(),
    };
    stop.run_until_cancelled(feed.follow()).await;
    // What was made here last is on its way before this pod is gone.
    let drain = feed.node.bounds.drain;
    if tokio::time::timeout(drain, feed.flush()).await.is_err() {
        tracing::warn!("gave up on the last changes in order to stop; exchanges carry them");
    }
}

struct Feed {
    node: Arc<Node>,
    pusher: Arc<Pusher>,
    found: mpsc::Receiver<Batch>,
    delay: Duration,
    /// The revision after what was read last: where to go on.
    since: Option<String>,
    gathered: Option<Gathered>,
    /// What goes next, with its trace: it stays here until there is room for it.
    closed: VecDeque<(PassOn, Option<Place>)>,
}

/// Changes that wait for others.
struct Gathered {
    table: TableName,
    builder: BatchBuilder,
    /// When they go, whatever is still on its way.
    deadline: Pin<Box<Sleep>>,
    /// The first trace that one of them belongs to.
    place: Option<Place>,
}

impl Feed {
    async fn follow(&mut self) {
        loop {
            match self.node.manager.feed(self.since.as_deref()).await {
                Ok(stream) => {
                    tracing::debug!("following the manager's feed");
                    self.node.metrics.pushes.feed_connected.set(1);
                    let ended = self.read(stream).await;
                    self.node.metrics.pushes.feed_connected.set(0);
                    let error = ended.err().map(|error| chain(&error));
                    tracing::info!(error, "the manager's feed ended; connecting again");
                }
                Err(error) if error.is_status(StatusCode::GONE) && self.since.is_some() => {
                    // The manager started anew, or we were too slow for it.
                    self.since = None;
                    self.node.metrics.pushes.feed_gaps.inc();
                    self.node.missed.hurry.notify_one();
                    tracing::info!(
                        "changes were missed in the manager's feed: exchanges carry them"
                    );
                    continue;
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "no feed of changes to push");
                }
            }
            self.flush().await;
            tokio::time::sleep(self.node.bounds.feed_pause).await;
        }
    }

    /// Takes in a stream of changes up to its end.
    async fn read(&mut self, mut stream: FeedStream) -> Result<(), FeedBroken> {
        let silence = self.node.bounds.feed_silence;
        loop {
            let Self {
                found,
                gathered,
                pusher,
                ..
            } = &mut *self;
            tokio::select! {
                part = tokio::time::timeout(silence, stream.next()) => {
                    let part = part.map_err(|_| FeedBroken::Silent)??;
                    let Some(FeedPart { revision, batch, trace }) = part else {
                        return Ok(());
                    };
                    if let Some(batch) = batch {
                        self.gather(batch, trace.parse().ok()).await.map_err(FeedBroken::Part)?;
                    }
                    self.since = Some(revision);
                }
                Some(batch) = found.recv() => {
                    self.gather(batch, None).await.map_err(FeedBroken::Part)?;
                }
                () = due(gathered, pusher) => self.flush().await,
            }
            if self.pusher.is_idle() {
                self.flush().await;
            }
        }
    }

    /// Adds changes to those that wait; what would be too much for one push goes before.
    async fn gather(&mut self, batch: Batch, place: Option<Place>) -> Result<(), InvalidMessage> {
        let table: TableName = batch
            .table
            .parse()
            .map_err(|_| InvalidMessage::field("table", "is no table's name"))?;
        let records = batch.into_records()?;
        let fits = |gathered: &Gathered| {
            gathered.table == table && !gathered.builder.has_no_room_for(records.len())
        };
        if !self.gathered.as_ref().is_none_or(fits) {
            self.close();
        }
        let gathered = self.gathered.get_or_insert_with(|| Gathered {
            builder: BatchBuilder::new(&table),
            table,
            deadline: Box::pin(tokio::time::sleep(self.delay)),
            place: None,
        });
        gathered.place = gathered.place.or(place);
        for (key, entry) in &records {
            gathered.builder.add(key, entry);
        }
        self.send_closed().await;
        Ok(())
    }

    /// Sends what was gathered on its way. Of what is not on its way when this is given up, nothing is
    /// lost.
    async fn flush(&mut self) {
        self.close();
        self.send_closed().await;
    }

    /// Has nothing join any more what was gathered.
    fn close(&mut self) {
        if let Some(gathered) = self.gathered.take() {
            let own = self.node.book().own_position();
            let news = PassOn {
                table: gathered.table,
                batch: gathered.builder.finish(),
                replicas: None,
                scope: Scope::shared(wall::now(), own),
            };
            self.closed.push_back((news, gathered.place));
        }
    }

    async fn send_closed(&mut self) {
        while let Some((news, _)) = self.closed.front() {
            let room = self.pusher.room_for(news).await;
            if let Some((news, place)) = self.closed.pop_front() {
                let begin = async { self.pusher.begin_own(news, room) };
                trace::within(place, begin).await;
            }
        }
    }
}

/// Waits until what was gathered is to go: at its deadline, or when nothing is on its way any more.
async fn due(gathered: &mut Option<Gathered>, pusher: &Pusher) {
    match gathered {
        None => std::future::pending().await,
        Some(gathered) => tokio::select! {
            () = gathered.deadline.as_mut() => {}
            () = pusher.idle() => {}
        },
    }
}
