mod changes;
mod doubts;
mod opening;
pub(crate) mod proxy;
mod refusals;
pub(crate) mod server;
mod start_over;

use super::super::conformance::{self, Ground, commit, draw, entry, key, peers, removal, scan};
use super::*;
use server::Server;

conformance::suite!(Server);

fn cluster() -> ClusterId {
    "test".parse().expect("a cluster id")
}

/// What each key begins with in these tests.
const PREFIX: &str = "udht:test:pod:";

async fn try_open(url: &str, number: u8) -> Result<RedisStore, StoreError> {
    let url = RedisUrl::parse(url).expect("a URL");
    RedisStore::open(url, &cluster(), "pod", draw(number)).await
}

async fn open(url: &str, number: u8) -> RedisStore {
    try_open(url, number).await.expect("opens")
}

/// The transaction that writes one record.
fn one(number: usize, reading: u64) -> Commit {
    commit([(key(number), entry(reading, b"content"))])
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what is read")]
fn stored(reading: u64) -> Option<Stored> {
    Some(Stored::Entry(entry(reading, b"content")))
}

impl RedisStore {
    /// Waits until the store can be read.
    async fn up(&self) {
        let mut link = self.link.clone();
        let up = link.wait_for(
            |link| matches!(link, Link::Up { connection, .. } if !connection.is_closed()),
        );
        up.await.expect("a keeper");
    }

    /// Waits until it is known that the store cannot be used; the answer says why.
    async fn down(&self) -> StoreError {
        let mut link = self.link.clone();
        let down = link
            .wait_for(|link| matches!(link, Link::Down { .. }))
            .await;
        match down.as_deref() {
            Ok(Link::Down { error, .. }) => error.clone(),
            _ => panic!("no keeper"),
        }
    }

    /// Waits until the way to the store is described with these words.
    async fn says(&self, part: &str) {
        let mut link = self.link.clone();
        let said = link.wait_for(|link| match link {
            Link::Down { error, .. } | Link::Changed { error } => error.to_string().contains(part),
            Link::Up { .. } => false,
        });
        said.await.expect("a keeper");
    }
}

#[async_trait]
impl Ground for Server {
    async fn new() -> Self {
        Self::start(&[])
    }

    async fn open(&self, draw: Draw) -> Result<Arc<dyn Store>, StoreError> {
        let url = RedisUrl::parse(&self.url()).expect("a URL");
        Ok(Arc::new(
            RedisStore::open(url, &cluster(), "pod", draw).await?,
        ))
    }

    /// A connection that is dropped says no more than one whose process was killed.
    async fn kill(&self, store: Arc<dyn Store>) {
        drop(store);
    }

    async fn put_raw(&self, table: &TableName, key: &[u8], value: &[u8]) {
        let hash = format!("{PREFIX}{}:{table}", draw(1).store);
        self.say(&[b"HSET", hash.as_bytes(), key, value]).await;
    }

    async fn put_format(&self, format: u32) {
        let meta = format!("{PREFIX}meta");
        let format = format.to_string();
        self.say(&[b"HSET", meta.as_bytes(), b"format", format.as_bytes()])
            .await;
    }
}
