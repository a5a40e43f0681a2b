//! Whole replicas without a process: a real table, with a map for its store and a hand-set clock, and
//! a wire between two of them that counts. For tests of the exchange, and for its benchmarks.
#![expect(
    clippy::unwrap_used,
    reason = "whoever drives a replica wrongly is a test with a mistake in it"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use peer_exchange::Own;
use peer_exchange::Remote;
use peer_exchange::handshake::{PROTOCOLS, Protocols};
use peer_exchange::message::{Request, Response};
use peer_exchange::respond::{RespondReport, respond};
use peer_table::contract::{
    Advance, Batch, BatchBuilder, FINGERPRINTS_MAX, FingerprintPage, MergeAnswer, Records, State,
    StateRequest, TableState, fingerprints_to_bytes, merged_code,
};
use peer_table::entry::{Body, Content, Entry};
use peer_table::feed::{FeedLimits, Via};
use peer_table::floors::{Ages, Floors, Joined, Replicas};
use peer_table::sketch::Sketch;
use peer_table::table::{Digest, Limits, NewContent, Precondition, SessionId, Table, TableSpec};
use peer_table::{
    Clock, ClusterId, Contact, Fingerprint, FingerprintKey, Key, OriginId, Reading, StoreId,
    TableName, Version, WallTime,
};

/// The cluster of all replicas that name no other.
pub const CLUSTER: &str = "default/udht/0b9a1f6e-4a53-4c52-9d0e-5d6a0c1f7a11";
/// Late enough for any small contact, and any version in these tests.
pub const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

/// The table that they hold.
pub fn peers() -> TableName {
    "peers".parse().unwrap()
}

/// The key of this name.
pub fn key(name: &str) -> Key {
    name.parse().unwrap()
}

/// What makes a replica.
#[derive(Clone)]
pub struct Setup {
    /// Each byte of its store's id.
    pub store: u8,
    /// The id of its cluster.
    pub cluster: &'static str,
    /// Else that of the cluster.
    pub fingerprint_key: Option<[u8; 16]>,
    /// How many symbols its sketch has.
    pub sketch_symbols: usize,
    /// How many records its table takes.
    pub records_max: usize,
}

impl Setup {
    /// What is usual, for a store of this id.
    pub fn of(store: u8) -> Self {
        Self {
            store,
            cluster: CLUSTER,
            fingerprint_key: None,
            sketch_symbols: Sketch::LEN,
            records_max: 1_000_000,
        }
    }

    /// A replica that holds nothing yet.
    pub fn replica(self) -> Replica {
        let cluster: ClusterId = self.cluster.parse().unwrap();
        let fingerprint_key = match self.fingerprint_key {
            Some(bytes) => FingerprintKey::from_bytes(bytes),
            None => FingerprintKey::of_cluster(&cluster),
        };
        let origin = OriginId::from_bytes([self.store.wrapping_add(100); 16]);
        let table = Table::new(TableSpec {
            name: peers(),
            fingerprint_key: fingerprint_key.clone(),
            check_content: |_, _| Ok(()),
            limits: Limits {
                records_max: self.records_max,
                ..Limits::default()
            },
            sketch_symbols: self.sketch_symbols,
            epoch: 1,
            feed: FeedLimits::default(),
            floors: {
                // Of replicas that know each other, and all who ever wrote.
                let mut floors = Floors::new(origin);
                (0..=u8::MAX).for_each(|n| floors.learn(OriginId::from_bytes([n; 16]), NOW));
                floors.meet();
                floors
            },
        });
        let state = State {
            cluster: cluster.to_string(),
            key_check: fingerprint_key.check(),
            store: vec![self.store; 16],
            origin: origin.as_bytes().to_vec(),
            // A UUID, which is what a pod's own record has for its id.
            peer_id: StoreId::from_bytes([self.store; 16]).to_string(),
            ..State::default()
        };
        let clock = Clock::new(origin, Reading::default(), Duration::from_secs(10));
        let held = Held {
            table,
            clock,
            entries: BTreeMap::new(),
            now: NOW,
            state,
            down: false,
            before_listing: None,
        };
        Replica(Mutex::new(held))
    }
}

/// A manager, as far as its sync can tell.
pub struct Replica(Mutex<Held>);

struct Held {
    table: Table,
    clock: Clock,
    entries: BTreeMap<Key, Entry>,
    now: WallTime,
    state: State,
    down: bool,
    /// A record that is put before the fingerprints are listed next.
    before_listing: Option<String>,
}

/// The manager does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the manager is down")]
pub struct Down;

impl Replica {
    /// A usual replica that holds nothing yet.
    pub fn new(store: u8) -> Self {
        Setup::of(store).replica()
    }

    /// A replica with these records, as if it had held them since its start.
    pub fn with<'a>(store: u8, records: impl IntoIterator<Item = &'a (Key, Entry)>) -> Self {
        let replica = Self::new(store);
        replica.load(records);
        replica
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap()
    }

    /// Gives it these records, as if it had held them since its start.
    pub fn load<'a>(&self, records: impl IntoIterator<Item = &'a (Key, Entry)>) {
        let mut held = self.held();
        for (key, entry) in records {
            held.table.load(key, entry, NOW).unwrap();
            held.entries.insert(key.clone(), entry.clone());
        }
    }

    /// Writes a record.
    pub fn put(&self, name: &str, content: &str) {
        let content = Content::from(content.as_bytes());
        let new = NewContent {
            content,
            contact: Contact::NEVER,
        };
        self.held().write(|plan| {
            plan.put(&key(name), &Precondition::default(), new).unwrap();
        });
    }

    /// Deletes a record.
    pub fn delete(&self, name: &str) {
        self.held().write(|plan| {
            plan.delete(&key(name), &Precondition::default()).unwrap();
        });
    }

    /// Says when a peer was last seen.
    pub fn contact(&self, name: &str, steps: u32) {
        self.held().write(|plan| {
            plan.contact(&key(name), Contact::from_steps(steps))
                .unwrap();
        });
    }

    /// All that it holds.
    pub fn entries(&self) -> BTreeMap<Key, Entry> {
        self.held().entries.clone()
    }

    /// The content of a record, if it is there and not deleted.
    pub fn content(&self, name: &str) -> Option<String> {
        let entries = self.entries();
        let content = entries.get(&key(name))?.content()?.as_bytes().to_vec();
        Some(String::from_utf8(content).unwrap())
    }

    /// The digest of its table.
    pub fn digest(&self) -> Digest {
        self.held().table.digest()
    }

    /// The id of its store.
    pub fn store(&self) -> StoreId {
        StoreId::from_slice(&self.held().state.store).unwrap()
    }

    /// Sets the wall clock.
    pub fn set_now(&self, now: WallTime) {
        self.held().now = now;
    }

    /// Lets it fail every call from now on, or answer again.
    pub fn set_down(&self, down: bool) {
        self.held().down = down;
    }

    /// Puts a record between what it says of itself next and the fingerprints that it lists then.
    pub fn put_before_listing(&self, name: &str) {
        self.held().before_listing = Some(name.to_owned());
    }

    /// Lets it say other things of itself.
    pub fn change_state(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.held().state);
    }

    fn answer<T>(&self, answer: impl FnOnce(&mut Held) -> T) -> Result<T, Down> {
        let mut held = self.held();
        if held.down {
            Err(Down)
        } else {
            Ok(answer(&mut held))
        }
    }
}

impl Held {
    fn write(&mut self, write: impl FnOnce(&mut peer_table::table::Plan<'_>)) {
        let mut plan = self.table.plan(&mut self.clock, self.now, &self.entries);
        write(&mut plan);
        let changes = plan.finish();
        self.entries.extend((*changes.entries).clone());
        self.table.apply(changes);
    }
}

impl Own for Replica {
    type Error = Down;

    async fn state(&self, request: &StateRequest) -> Result<State, Down> {
        self.answer(|held| {
            let without = request.without.as_ref().map(|left| left.read().unwrap());
            let symbols = usize::try_from(request.symbols).unwrap();
            let Held { table, clock, .. } = held;
            let gives = request.give_snapshot && (table.tombstones() > 0 || without.is_some());
            let snapshot = gives.then(|| (&table.snapshot(clock, held.now)).into());
            let session = request.begin_session.then(|| table.begin_session());
            let floors = table.floors();
            let state = State {
                tables: vec![TableState::of(table, symbols, without.as_ref())],
                replicas_digest: floors.digest(),
                has_met: floors.has_met(),
                has_tombstones: table.tombstones() > 0,
                horizon: floors.horizon().as_u64(),
                snapshot,
                ..held.state.clone()
            };
            match session {
                Some(session) => state.begun(session, floors),
                None => state,
            }
        })
    }

    async fn replicas(&self, theirs: &Replicas) -> Result<Replicas, Down> {
        self.answer(|held| {
            let mut floors = held.table.floors().clone();
            let joined = floors.take(theirs, &[], Ages::default(), &mut held.clock, held.now);
            assert!(matches!(joined, Ok(Joined::Known | Joined::News)));
            held.table.set_floors(floors);
            Replicas::of(held.table.floors(), true)
        })
    }

    async fn advance(&self, advance: &Advance) -> Result<bool, Down> {
        self.answer(|held| {
            let partner = advance.snapshot.read().unwrap();
            held.clock.observe(partner.reading, held.now).unwrap();
            let floors = held.table.advanced(SessionId(advance.session), &partner);
            let is_advanced = floors.is_some();
            if let Some(floors) = floors {
                held.table.set_floors(floors);
            }
            is_advanced
        })
    }

    async fn fingerprints(
        &self,
        table: &TableName,
        from: Fingerprint,
        limit: usize,
    ) -> Result<FingerprintPage, Down> {
        assert_eq!(*table, peers());
        assert!(
            (1..=FINGERPRINTS_MAX).contains(&limit),
            "{limit} fingerprints were asked for"
        );
        let meanwhile = self.held().before_listing.take();
        if let Some(name) = meanwhile {
            self.put(&name, "meanwhile");
        }
        self.answer(|held| {
            let mut page: Vec<_> = held.table.fingerprints_from(from, limit + 1).collect();
            let complete = page.len() <= limit;
            page.truncate(limit);
            FingerprintPage {
                fingerprints: fingerprints_to_bytes(page),
                complete,
                digest: Some(held.table.digest().into()),
            }
        })
    }

    async fn records(
        &self,
        table: &TableName,
        fingerprints: &[Fingerprint],
    ) -> Result<Records, Down> {
        assert!((1..=FINGERPRINTS_MAX).contains(&fingerprints.len()));
        self.answer(|held| {
            let mut batch = BatchBuilder::new(table);
            let mut dealt_with = 0;
            for fingerprint in fingerprints {
                if batch.has_no_room_for(1) {
                    break;
                }
                if let Some(key) = held.table.key_of(*fingerprint) {
                    batch.add(key, &held.entries[key]);
                }
                dealt_with += 1;
            }
            Records {
                batch: batch.finish(),
                dealt_with,
            }
        })
    }

    async fn merge(
        &self,
        batch: Batch,
        via: Via,
        _from: StoreId,
        session: Option<u64>,
    ) -> Result<MergeAnswer, Down> {
        self.answer(|held| {
            let mut outcomes = Vec::new();
            let mut answers = Vec::new();
            let records = batch.into_records().unwrap();
            let session = session.map(SessionId);
            held.write(|plan| {
                for (key, entry) in records {
                    outcomes.push(merged_code(plan.merge(&key, entry, via, session)));
                }
                answers = plan.take_answers();
            });
            MergeAnswer {
                outcomes,
                answers: Some(Batch::new(&peers(), answers)),
            }
        })
    }

    fn now(&self) -> WallTime {
        self.held().now
    }
}

/// One request and its response, as the wire saw them.
pub struct Trip {
    /// What was asked.
    pub ask: &'static str,
    /// How long the request was.
    pub request_bytes: usize,
    /// How long the response was.
    pub response_bytes: usize,
    /// What the replica that answered made of it.
    pub report: RespondReport,
}

type Before<'a> = Box<dyn Fn(usize) + Send + Sync + 'a>;
type Tamper<'a> = Box<dyn Fn(usize, Request, Response) -> Vec<u8> + Send + Sync + 'a>;

/// The way to a replica, on which every message is encoded and decoded, and can be meddled with.
pub struct Wire<'a> {
    to: &'a Replica,
    understood: Protocols,
    before: Before<'a>,
    tamper: Option<Tamper<'a>>,
    trips: Mutex<Vec<Trip>>,
}

impl<'a> Wire<'a> {
    /// A wire to this replica that changes nothing.
    pub fn to(to: &'a Replica) -> Self {
        Self {
            to,
            understood: PROTOCOLS,
            before: Box::new(|_| {}),
            tamper: None,
            trips: Mutex::default(),
        }
    }

    /// Does something before each request arrives; it is told how many came before it.
    #[must_use]
    pub fn before(self, before: impl Fn(usize) + Send + Sync + 'a) -> Self {
        Self {
            before: Box::new(before),
            ..self
        }
    }

    /// Changes each response, given how many there were before, and its request.
    #[must_use]
    pub fn tamper(
        self,
        tamper: impl Fn(usize, Request, Response) -> Vec<u8> + Send + Sync + 'a,
    ) -> Self {
        Self {
            tamper: Some(Box::new(tamper)),
            ..self
        }
    }

    /// Lets the replica at the other end understand other versions of the protocol.
    #[must_use]
    pub fn understood(self, understood: Protocols) -> Self {
        Self { understood, ..self }
    }

    /// What went over it so far.
    pub fn trips(&self) -> MutexGuard<'_, Vec<Trip>> {
        self.trips.lock().unwrap()
    }

    /// What was asked over it so far.
    pub fn asks(&self) -> Vec<&'static str> {
        self.trips().iter().map(|trip| trip.ask).collect()
    }
}

impl Remote for Wire<'_> {
    type Error = Infallible;

    async fn ask(&self, request: Vec<u8>) -> Result<Vec<u8>, Infallible> {
        let nth = self.trips().len();
        (self.before)(nth);
        let responded = respond(self.to, &request, self.understood).await;
        let response = match &self.tamper {
            Some(tamper) => tamper(
                nth,
                Request::from_bytes(&request).unwrap(),
                Response::from_bytes(&responded.response).unwrap(),
            ),
            None => responded.response,
        };
        self.trips().push(Trip {
            ask: responded.report.ask,
            request_bytes: request.len(),
            response_bytes: response.len(),
            report: responded.report,
        });
        Ok(response)
    }
}

/// The result of a future that never has to wait.
pub fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("nothing here waits"),
    }
}

/// A live record as it was written by some replica long ago.
pub fn record(name: &str, reading: u64, origin: u8) -> (Key, Entry) {
    let content = format!("{name} as of {reading} by {origin}{:100}", "");
    (
        key(name),
        Entry {
            version: Version {
                reading: Reading::from_u64(reading),
                origin: OriginId::from_bytes([origin; 16]),
            },
            contact: Contact::NEVER,
            body: Body::Live(Content::from(content.into_bytes())),
        },
    )
}

/// That many records, named by their numbers.
pub fn records(numbers: std::ops::Range<u64>) -> Vec<(Key, Entry)> {
    numbers
        .map(|n| record(&format!("peer-{n}"), 1 + n, 1))
        .collect()
}
