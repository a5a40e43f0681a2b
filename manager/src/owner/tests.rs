//! The owner over a real server of Redis: what readers and writers see when that changes or fails.

use peer_table::Version;
use peer_table::floors::{Ages, Fence, Snapshot, Vector};
use peer_table::history::Way;
use peer_table::peers::Draft;
use tokio::task::JoinHandle;

use super::*;
use crate::store::draw;
use crate::store::redis::tests::proxy::Proxy;
use crate::store::redis::tests::server::Server;
use crate::store::redis::{RedisStore, RedisUrl};

struct Running {
    owner: Owner,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Running {
    async fn over(url: &str) -> Self {
        let cluster: ClusterId = "test".parse().unwrap();
        let url = RedisUrl::parse(url).unwrap();
        let draw = draw("own".parse().unwrap(), &cluster);
        let store = RedisStore::open(url, &cluster, "pod", draw).await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let config = OwnerConfig {
            cluster,
            limits: Limits::default(),
            drift_max: Duration::from_secs(10),
            pod: PodArgs::default(),
            ages: Ages::default(),
        };
        let (owner, task) = open(Arc::new(store), config, Arc::clone(&metrics))
            .await
            .unwrap();
        let task = tokio::spawn(task.run());
        Self {
            owner,
            metrics,
            task,
        }
    }

    async fn put(&self, key: &str) -> Result<Written, OwnerError> {
        let write = Write {
            key: key.parse().unwrap(),
            precondition: Precondition::default(),
            operation: Operation::Put(Draft {
                name: key.to_owned(),
                ip: "10.0.0.1".parse().unwrap(),
                ports: [].into(),
                labels: [].into(),
                contact: Contact::NEVER,
            }),
        };
        Ok(self.owner.write(write).await?.unwrap())
    }

    /// Has a peer bring a record, which is not at hand as one is that was written here.
    async fn take(&self, key: &str) -> Entry {
        let written = self.put(key).await.unwrap().entry;
        let mut version = written.version;
        version.origin = OriginId::from_bytes([9; 16]);
        version.reading = Reading::from_u64(version.reading.as_u64() + 1);
        let entry = Entry { version, ..written };
        self.brings(key, &entry).await;
        entry
    }

    /// Has a peer bring this record, which is news here.
    async fn brings(&self, key: &str, entry: &Entry) {
        let records = vec![(key.parse().unwrap(), entry.clone())];
        let merged = self.owner.merge(None, records, Via::Exchange, None);
        assert_eq!(merged.await.unwrap().outcomes, [Merged::Applied]);
    }

    /// Has this replica know that all is here that the writer of this record wrote up to it.
    async fn covers(&self, entry: &Entry) {
        let Version { origin, reading } = entry.version;
        let session = self.owner.shared.change().table.begin_session();
        let partner = Snapshot {
            origin,
            reading,
            vector: Vector::default(),
        };
        assert!(self.owner.advance(session, partner).await.unwrap());
        assert!(self.snapshot().await.covers(entry.version));
    }

    /// What it tells partners that it has.
    async fn snapshot(&self) -> Snapshot {
        self.owner.floors(FloorsCommand::Snapshot).await.unwrap()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, OwnerError> {
        self.owner.get(&key.parse().unwrap()).await
    }

    async fn explain(&self, key: &str) -> Explanation {
        self.owner.explain(&key.parse().unwrap()).await
    }

    /// Waits until a revision of another opening, or a later one, is told.
    async fn change_after(&self, since: Revision) {
        let mut revisions = self.owner.subscribe();
        revisions
            .wait_for(|revision| *revision != since)
            .await
            .unwrap();
    }

    fn figure(&self, line: &str) -> bool {
        self.metrics
            .render()
            .unwrap()
            .lines()
            .any(|found| found == line)
    }

    async fn end(self) {
        drop(self.owner);
        self.task.await.unwrap();
    }
}

fn hash(running: &Running) -> String {
    format!("udht:test:pod:{}:peers", running.owner.opening().store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_store_is_opened_anew_and_watchers_are_told_to_list_again() {
    let server = Server::start(&[]);
    let running = Running::over(&server.url()).await;
    let kept = running.put("a").await.unwrap().entry;
    let (opening, revision) = (running.owner.opening(), running.owner.revision());
    let last = kept.version.reading;
    server.tell("FLUSHALL").await;
    running.change_after(revision).await;
    let anew = running.owner.opening();
    assert_ne!(anew.store, opening.store);
    assert_ne!(anew.origin, opening.origin);
    assert_eq!(anew.retired, [opening.origin]);
    assert_eq!(running.owner.own_key(), opening.peer_id);
    assert_eq!(running.owner.changes_since(revision, 1), Err(Gone));
    assert_eq!(running.owner.counts(), (0, 0));
    assert_eq!(running.get("a").await.unwrap(), None);
    assert!(running.figure("udht_store_reopened_total{reason=\"wiped\"} 1"));
    // What a peer has comes back, and the clock did not go back.
    running.brings("a", &kept).await;
    assert_eq!(running.get("a").await.unwrap(), Some(kept));
    // It was written here once, and came back from a peer.
    let explained = running.explain("a").await;
    assert!(
        matches!(explained.since, Some(Since::Came(way, _)) if way.via == Via::Exchange),
        "{explained:?}"
    );
    let seen = &explained.origins[&opening.origin];
    assert_eq!((seen.is_own, seen.fence), (true, Some(Fence::Ended)));
    let written = running.put("b").await.unwrap().entry;
    assert!(written.version.reading > last);
    assert_eq!(written.version.origin, anew.origin);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_rolled_back_is_read_again() {
    let server = Server::start_with(&["--save", "", "--appendonly", "no"]);
    let running = Running::over(&server.url()).await;
    let old = running.put("a").await.unwrap().entry;
    server.tell("SAVE").await;
    let lost = running.put("a").await.unwrap().entry;
    running.put("b").await.unwrap();
    let revision = running.owner.revision();
    server.kill();
    server.start_again();
    running.change_after(revision).await;
    assert_eq!(running.get("a").await.unwrap(), Some(old));
    assert_eq!(running.get("b").await.unwrap(), None);
    assert_eq!(running.owner.counts(), (1, 0));
    let written = running.put("a").await.unwrap().entry;
    assert!(written.version > lost.version, "no version is used twice");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_takes_a_missing_record_for_a_deleted_one() {
    let server = Server::start(&[]);
    let running = Running::over(&server.url()).await;
    running.take("a").await;
    running.put("b").await.unwrap();
    server.tell(&format!("HDEL {} a", hash(&running))).await;
    let read = running.get("a").await.unwrap_err();
    assert!(
        matches!(&read, OwnerError::Store(error)
        if matches!(**error, StoreError::Changed { .. })),
        "{read}"
    );
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_breaks_while_it_is_held_is_counted_and_healed_by_a_peer() {
    let server = Server::start(&[]);
    let running = Running::over(&server.url()).await;
    let whole = running.take("a").await;
    running.covers(&whole).await;
    let (revision, opening) = (running.owner.revision(), running.owner.opening());
    let before = running.owner.state(0).unwrap().tables[0].digest;
    server
        .tell(&format!("HSET {} a broken", hash(&running)))
        .await;
    running.get("a").await.unwrap_err();
    // The next command comes after the index was corrected.
    running
        .owner
        .merge(None, Vec::new(), Via::Exchange, None)
        .await
        .unwrap();
    assert_eq!(running.owner.counts(), (0, 0));
    assert_ne!(
        running.owner.state(0).unwrap().tables[0].digest,
        before,
        "an exchange finds it"
    );
    assert!(running.figure("udht_corrupt_records_total 1"));
    assert_eq!(running.owner.opening().retired, [opening.origin]);
    let snapshot = running.snapshot().await;
    assert!(!snapshot.covers(whole.version), "nobody takes it for dead");
    running.brings("a", &whole).await;
    assert_eq!(running.get("a").await.unwrap(), Some(whole));
    assert_eq!(running.owner.state(0).unwrap().tables[0].digest, before);
    assert_eq!(running.owner.changes_since(revision, 9), Err(Gone));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_older_again_is_read_so_until_a_peer_has_the_newer() {
    let server = Server::start(&[]);
    let running = Running::over(&server.url()).await;
    let older = running.take("a").await;
    let newer = running.take("a").await;
    running.covers(&newer).await;
    let (hash, old) = (hash(&running), older.to_stored());
    server.say(&[b"HSET", hash.as_bytes(), b"a", &old]).await;
    running.get("a").await.unwrap_err();
    running.put("b").await.unwrap();
    assert_eq!(running.get("a").await.unwrap(), Some(older));
    running.brings("a", &newer).await;
    assert_eq!(running.get("a").await.unwrap(), Some(newer));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_unknown_outcome_is_announced_just_if_it_turns_out_to_be_stored() {
    let server = Server::start(&[]);
    let running = Running::over(&server.url()).await;
    for round in 0..3 {
        let sure = format!("sure-{round}");
        let name = format!("doubt-{round}");
        running.put(&sure).await.unwrap();
        let since = running.owner.revision();
        server.stop();
        let doubt = running.put(&name).await.unwrap_err();
        assert!(
            matches!(&doubt, OwnerError::Store(error)
            if matches!(**error, StoreError::OutcomeUnknown { .. })),
            "{doubt}"
        );
        assert_eq!(running.owner.revision(), since, "nothing is announced yet");
        let next = running.put("next").await.unwrap_err();
        assert!(
            matches!(&next, OwnerError::Store(error)
            if matches!(**error, StoreError::Unavailable(_))),
            "{next}"
        );
        server.go_on();
        let after = loop {
            match running.put("after").await {
                Ok(written) => break written,
                Err(error) => assert!(matches!(error, OwnerError::Store(_)), "{error}"),
            }
        };
        let found = running.get(&name).await.unwrap();
        let told = running.owner.changes_since(since, 9).unwrap();
        let told: Vec<_> = told.iter().map(|(_, change)| change.key.as_str()).collect();
        if let Some(found) = found {
            assert_eq!(told, [name.as_str(), "after"]);
            assert!(found.version < after.entry.version);
            let explained = running.explain(&name).await;
            assert!(
                matches!(explained.since, Some(Since::Came(Way::LOCAL, _))),
                "{explained:?}"
            );
            assert_eq!(explained.remembered.refused, []);
        } else {
            assert_eq!(told, ["after"]);
            let explained = running.explain(&name).await;
            let refused = explained.remembered.refused[0];
            assert_eq!(refused.refusal, Refusal::Store, "{explained:?}");
        }
        let next = running.explain("next").await.remembered.refused;
        assert_eq!((next.len(), next[0].refusal), (1, Refusal::Store));
        assert_eq!(next[0].times, round + 1);
        let count = running.owner.counts();
        drop(running.owner.live_keys(None, 100));
        assert_eq!(count.1, 0);
    }
    let (keys, _) = running.owner.live_keys(None, 100);
    let (records, _) = running.owner.page(None, 100).await.unwrap();
    assert_eq!(
        keys,
        records.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    );
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_only_what_is_at_hand_is_read_and_all_goes_on_when_it_is_back() {
    let server = Server::start(&[]);
    let running = Running::over(&server.url()).await;
    let kept = running.put("a").await.unwrap().entry;
    let taken = running.take("p").await;
    let revision = running.owner.revision();
    server.kill();
    running.put("b").await.unwrap_err();
    assert_eq!(running.get("a").await.unwrap(), Some(kept.clone()));
    running.get("p").await.unwrap_err();
    running.owner.page(None, 10).await.unwrap_err();
    running.owner.probe().await.unwrap_err();
    let mut of_peer = kept.clone();
    of_peer.version.origin = OriginId::from_bytes([9; 16]);
    let merge = vec![("c".parse().unwrap(), of_peer)];
    running
        .owner
        .merge(None, merge, Via::Exchange, None)
        .await
        .unwrap_err();
    server.start_again();
    while running.put("d").await.is_err() {}
    running.owner.probe().await.unwrap();
    assert_eq!(running.get("a").await.unwrap(), Some(kept));
    // From now on it is at hand too.
    assert_eq!(running.get("p").await.unwrap(), Some(taken.clone()));
    server.kill();
    assert_eq!(running.get("p").await.unwrap(), Some(taken));
    server.start_again();
    while running.owner.probe().await.is_err() {}
    assert_eq!(running.owner.counts(), (3, 0));
    assert_eq!(running.owner.changes_since(revision, 9).unwrap().len(), 1);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_over_a_shaky_connection_lose_and_invent_nothing() {
    const WRITERS: usize = 8;
    const WRITES: usize = 40;
    let server = Server::start(&[]);
    // Kept here too: with its last handle it would take no connection any more.
    let proxy = Arc::new(Proxy::to(server.address()).await);
    let running = Arc::new(Running::over(&proxy.url()).await);
    let shaking = tokio::spawn({
        let proxy = Arc::clone(&proxy);
        async move {
            loop {
                tokio::task::yield_now().await;
                proxy.pipe().cut();
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        }
    });
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let running = Arc::clone(&running);
        writers.push(tokio::spawn(async move {
            let mut stored = Vec::new();
            for write in 0..WRITES {
                let key = format!("w{writer}-{write}");
                if let Ok(written) = running.put(&key).await {
                    stored.push((key, written.entry));
                }
            }
            stored
        }));
    }
    let mut stored = Vec::new();
    for writer in writers {
        stored.extend(writer.await.unwrap());
    }
    shaking.abort();
    let recovered = async { while running.put("last").await.is_err() {} };
    let within = tokio::time::timeout(Duration::from_mins(1), recovered).await;
    within.expect("it recovers");
    for (key, entry) in &stored {
        assert_eq!(running.get(key).await.unwrap().as_ref(), Some(entry));
    }
    let told = running.owner.revision();
    let digest = running.owner.state(0).unwrap().tables[0].digest;
    let count = running.owner.counts().0;
    assert!(count > stored.len(), "{count} of {}", stored.len());
    Arc::into_inner(running).unwrap().end().await;
    // What is read at the next start is what was in the index.
    let again = Running::over(&server.url()).await;
    assert_eq!(again.owner.state(0).unwrap().tables[0].digest, digest);
    assert_eq!(again.owner.counts().0, count);
    assert_ne!(again.owner.revision(), told);
    again.end().await;
}
