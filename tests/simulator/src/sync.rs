//! The sync of a pod: drives the shipped exchange, push and book over a network that fails.

use std::fmt;
use std::hash::Hasher;

use peer_exchange::exchange::{Options, exchange};
use peer_exchange::handshake::HandshakeRefused;
use peer_exchange::push::{Group, PassOn, Scope, plan, push};
use peer_exchange::respond::{RespondReport, Responded, respond};
use peer_exchange::{Address, ExchangeError, Own, Partner, PeerBook, Refusal, Remote, Report};
use peer_table::contract::{
    Advance, Batch, BatchBuilder, FingerprintPage, MESSAGE_BYTES_MAX, MergeAnswer, Records, State,
    StateRequest, WireHorizon,
};
use peer_table::feed::{Changed, Via};
use peer_table::floors::{Evidence, Replicas};
use peer_table::table::{Digest, SessionId};
use peer_table::{Contact, Fingerprint, Key, StoreId, TableName, WallTime, peers};
use siphasher::sip::SipHasher13;

use crate::history::{Program, Release, Setting};
use crate::liar;
use crate::owner::{self, command};
use crate::pod::{Command, Manager, Operation, Sync, Write};
use crate::random::Random;
use crate::world::{Answer, Life, Sim, World};

/// How long a call of the own manager may take, in milliseconds.
const OWN_MS_MAX: u64 = 5_000;
/// How long an answer of another pod is waited for, in milliseconds.
const PEER_MS_MAX: u64 = 10_000;
/// A message that is much too late comes within so many milliseconds.
const LATE_MS_MAX: u64 = 3 * 60 * 60 * 1_000;
/// How long it takes at the most until all pods know of one that came or went, in milliseconds.
const DISCOVERY_MS_MAX: u64 = 3_000;

/// The pauses before each time that a sync which has just started has the floors looked after.
const TENDED_AT_START_MS: [u64; 4] = [50, 500, 2_000, 10_000];

/// Starts the sync of a pod.
pub(crate) fn start(sim: &Sim, world: &mut World, pod: usize) {
    let it = &mut world.pods[pod];
    it.syncs += 1;
    it.sync_runs = true;
    it.sync = Some(Sync {
        book: PeerBook::new(),
        started_ms: world.now_ms,
        since: None,
        published: None,
        met: std::collections::BTreeSet::new(),
        joined: None,
    });
    world.say(|| format!("pod {pod}: sync starts"));
    discover(world, pod);
    if let Some(life) = life(world, pod) {
        let later = sim.clone();
        world.spawn(Some(life), async move {
            for ms in TENDED_AT_START_MS {
                later.sleep(ms).await;
                tend(&mut later.world(), pod);
            }
        });
    }
    // Not all that is missed is pushed again: an exchange finds it.
    round(sim, world, pod, &mut Random::new(0));
}

/// Kills both programs of a pod, which start again after a while as a build that speaks these versions
/// of the protocol.
pub(crate) fn change_release(
    sim: &Sim,
    world: &mut World,
    pod: usize,
    release: Release,
    after_ms: u64,
) {
    world.pods[pod].protocols = release.protocols();
    crash(sim, world, pod, Program::Both, after_ms);
}

/// Kills a program of a pod, which starts again after a while.
pub(crate) fn crash(sim: &Sim, world: &mut World, pod: usize, program: Program, after_ms: u64) {
    world.say(|| format!("pod {pod}: {program:?} is killed, for {after_ms} ms"));
    world.pods[pod].kill(program);
    let again = sim.clone();
    world.spawn(None, async move {
        again.sleep(after_ms).await;
        revive(&again, &mut again.world(), pod);
    });
}

/// Starts what of a pod does not run, unless it is gone or away.
pub(crate) fn revive(sim: &Sim, world: &mut World, pod: usize) {
    let it = &world.pods[pod];
    if it.is_gone || it.is_away {
        return;
    }
    let (manager_runs, sync_runs) = (it.manager_runs, it.sync_runs);
    if !manager_runs {
        owner::start(sim, world, pod);
    }
    if !sync_runs {
        start(sim, world, pod);
    }
}

/// Tells a pod which others there are.
pub(crate) fn discover(world: &mut World, pod: usize) {
    let cluster = world.pods[pod].cluster;
    let listed: Vec<Address> = world
        .pods
        .iter()
        .filter(|it| !it.is_gone && it.cluster == cluster)
        .map(|it| it.address.clone())
        .collect();
    if let Some(sync) = &mut world.pods[pod].sync {
        sync.book.replace(listed);
    }
}

/// Tells all pods, each a little later, which there are.
pub(crate) fn announce(sim: &Sim, world: &mut World) {
    for pod in 0..world.pods.len() {
        let ms = world.random.below(DISCOVERY_MS_MAX);
        let later = sim.clone();
        world.spawn(None, async move {
            later.sleep(ms).await;
            discover(&mut later.world(), pod);
        });
    }
}

/// Has a pod's manager look after its floors, as far as its sync knows of others.
pub(crate) fn tend(world: &mut World, pod: usize) {
    let cluster = world.pods[pod].cluster;
    // Kubernetes says which pods went with their stores, unless it cannot be reached.
    let gone = world
        .pods
        .iter()
        .filter(|it| it.is_gone && it.cluster == cluster);
    let gone: Vec<_> = gone.map(crate::pod::Pod::own_key).collect();
    let Some(sync) = &mut world.pods[pod].sync else {
        return;
    };
    let evidence = Evidence {
        has_strangers: sync.book.has_strangers(),
        is_braked: false,
        may_begin: sync.book.is_new_cluster(),
        joined: sync.joined,
        met: std::mem::take(&mut sync.met).into_iter().collect(),
        gone,
    };
    if world.pods[pod].ready().is_some() {
        command(world, pod, Command::Tend(evidence));
    }
}

/// How exchanges are done.
pub(crate) fn options(setting: &Setting, pod: &crate::pod::Pod, peer: &Address) -> Options {
    let sync = pod.sync.as_ref();
    Options {
        symbols_first: setting.symbols_first,
        symbols_max: setting.sketch_symbols,
        page: setting.page,
        round_trips_max: 1_000,
        protocols: pod.protocols,
        partner: sync.and_then(|sync| sync.book.protocols(peer)),
    }
}

/// Has a pod exchange with a peer of its choice.
pub(crate) fn round(sim: &Sim, world: &mut World, pod: usize, random: &mut Random) {
    let now = world.pods[pod].uptime(world.now_ms);
    let Some(sync) = &world.pods[pod].sync else {
        return;
    };
    if let Some(peer) = sync.book.choose(now, random.next()).cloned() {
        begin_exchange(sim, world, pod, peer, random.fork());
    }
}

/// Has a pod exchange with whoever is at an address.
pub(crate) fn begin_exchange(
    sim: &Sim,
    world: &mut World,
    pod: usize,
    peer: Address,
    random: Random,
) {
    let Some(alive) = world.pods[pod].life(Program::Sync) else {
        return;
    };
    let (own, line) = ends(sim, world, pod, &peer, random);
    world.spawn(Some(alive), async move {
        let result = run_exchange(&own, &line).await;
        let mut world = own.sim.world();
        world.say(|| match &result {
            Ok(report) => format!(
                "pod {pod}: exchange with {peer}: {} in version {}, {:?}",
                report.kind.word(),
                report.protocol,
                report.moved
            ),
            Err(error) => format!("pod {pod}: exchange with {peer}: {}", tell(error)),
        });
        match result {
            Ok(report) => {
                let now = world.pods[pod].uptime(world.now_ms);
                if let Some(sync) = &mut world.pods[pod].sync {
                    sync.book.own_digest(report.digest, now);
                    if report.partner.has_met {
                        sync.joined = Some(report.origin);
                    }
                }
                let digest = Some(report.partner_digest);
                met(
                    &mut world,
                    pod,
                    &peer,
                    &report.partner,
                    report.skew_ms,
                    digest,
                );
            }
            Err(error) => failed(&mut world, pod, &peer, &error),
        }
    });
}

/// The whole chain of an error.
pub(crate) fn tell(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The two ends that a pod's sync talks to.
pub(crate) fn ends(
    sim: &Sim,
    world: &World,
    pod: usize,
    peer: &Address,
    random: Random,
) -> (Hand, Line) {
    let own = Hand {
        sim: sim.clone(),
        pod,
    };
    let line = Line {
        sim: sim.clone(),
        from: pod,
        to: peer.clone(),
        is_liar: world.pods[pod].is_liar && !world.quiet,
        random: std::sync::Mutex::new(random),
    };
    (own, line)
}

/// One exchange, as the shipped code does it.
pub(crate) async fn run_exchange(own: &Hand, line: &Line) -> Result<Report, ExchangeError> {
    let options = {
        let world = own.sim.world();
        options(&world.setting, &world.pods[own.pod], &line.to)
    };
    exchange(own, line, &peers::table_name(), &options).await
}

pub(crate) fn met(
    world: &mut World,
    pod: usize,
    address: &Address,
    partner: &Partner,
    skew_ms: i64,
    digest: Option<Digest>,
) {
    let now = world.pods[pod].uptime(world.now_ms);
    if let Some(sync) = &mut world.pods[pod].sync {
        sync.book.succeeded(address, partner, skew_ms, digest, now);
        sync.met.insert(partner.origin);
    }
    touch(world, pod, partner);
}

pub(crate) fn failed(world: &mut World, pod: usize, address: &Address, error: &ExchangeError) {
    let now = world.pods[pod].uptime(world.now_ms);
    let random = world.random.next();
    let Some(sync) = &mut world.pods[pod].sync else {
        return;
    };
    match error {
        ExchangeError::Own(_) => {}
        ExchangeError::Refused(Refusal {
            reason: HandshakeRefused::Myself,
            ..
        }) => sync.book.mark_self(address, now),
        _ => sync.book.failed(address, error.word(), now, random),
    }
}

/// Moves the contact of a peer that was just met.
fn touch(world: &mut World, pod: usize, partner: &Partner) {
    let (Some(peer), false) = (partner.peer_id.clone(), world.quiet) else {
        return;
    };
    let contact = Contact::at(world.pods[pod].wall(world.now_ms));
    let is_news = world.pods[pod].ready().is_some_and(|manager| {
        let row = manager.table.row(&peer);
        row.is_some_and(|row| row.is_live() && row.contact < contact)
    });
    if is_news {
        let write = Write {
            key: peer,
            precondition: peer_table::table::Precondition::default(),
            operation: Operation::Contact(contact),
        };
        command(world, pod, Command::Write(vec![write], Answer::new()));
    }
}

/// Pushes what was written in this pod and not pushed yet.
pub(crate) fn push_news(sim: &Sim, pod: usize) {
    let mut world = sim.world();
    let world = &mut *world;
    let scope_start = world.random.next();
    let it = &mut world.pods[pod];
    let (Some(manager), Some(sync)) = (&it.manager, &mut it.sync) else {
        return;
    };
    let feed = manager.table.feed();
    // From where it stood when sync first looked; what is missed is left to exchanges.
    let since = sync.since.replace(feed.revision());
    let published = sync.published.take();
    let changes = since.and_then(|since| feed.since(since, usize::MAX).ok());
    let changes = changes.unwrap_or_default();
    let fresh: std::collections::BTreeMap<_, _> = changes
        .into_iter()
        .filter(|(_, change)| change.via == Via::Local && change.what == Changed::Body)
        .map(|(_, change)| (change.key.clone(), change.entry.clone()))
        .collect();
    if !fresh.is_empty() || published.is_some() {
        let table = peers::table_name();
        let news = PassOn {
            batch: Batch::new(&table, fresh),
            table,
            replicas: published.as_ref().map(Replicas::of_one),
            scope: Scope::whole(scope_start, sync.book.own_position()),
        };
        spread(sim, world, pod, &news, None);
    }
}

/// Sends news to the heads of all groups that the scope is split into. `state` is what the own manager
/// said when they came, if they came from elsewhere.
fn spread(sim: &Sim, world: &mut World, pod: usize, news: &PassOn, state: Option<&State>) {
    let now = world.pods[pod].uptime(world.now_ms);
    let it = &world.pods[pod];
    let (Some(sync), Some(alive)) = (&it.sync, it.life(Program::Sync)) else {
        return;
    };
    let ring: Vec<_> = sync.book.ring(now).collect();
    for group in plan(ring, news.scope, world.setting.fanout) {
        let (sim, news, random) = (sim.clone(), news.clone(), world.random.fork());
        let state = state.cloned();
        world.spawn(Some(alive), async move {
            reach(&sim, pod, &group, &news, state, random).await;
        });
    }
}

/// Sends news to the first of a group that takes them.
async fn reach(
    sim: &Sim,
    pod: usize,
    group: &Group<Address>,
    news: &PassOn,
    state: Option<State>,
    mut random: Random,
) {
    for (address, scope) in group.heads() {
        let (own, line, options) = {
            let world = sim.world();
            let (own, line) = ends(sim, &world, pod, address, random.fork());
            let options = options(&world.setting, &world.pods[pod], address);
            (own, line, options)
        };
        let state = match &state {
            Some(state) => Ok(state.clone()),
            None => own.state(&StateRequest::default()).await,
        };
        let Ok(state) = state else {
            return;
        };
        let result = push(&own, &state, &line, news, scope, &options).await;
        let mut world = sim.world();
        match result {
            Ok(report) => {
                world.say(|| format!("pod {pod}: pushed to {address}"));
                return met(
                    &mut world,
                    pod,
                    address,
                    &report.partner,
                    report.skew_ms,
                    None,
                );
            }
            Err(error) => {
                world.say(|| format!("pod {pod}: push to {address}: {}", tell(&error)));
                failed(&mut world, pod, address, &error);
            }
        }
    }
}

/// The manager of a pod, as its sync sees it.
pub(crate) struct Hand {
    /// The world.
    pub(crate) sim: Sim,
    /// Which pod.
    pub(crate) pod: usize,
}

/// The manager did not answer.
#[derive(Debug)]
pub(crate) struct Down;

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the manager is down")
    }
}

impl std::error::Error for Down {}

impl Hand {
    async fn call<T>(
        &self,
        answer: impl FnOnce(&mut World, usize) -> Option<T>,
    ) -> Result<T, Down> {
        let ms = {
            let mut world = self.sim.world();
            world.random.below(3).saturating_sub(1)
        };
        if ms > 0 {
            self.sim.sleep(ms).await;
        }
        answer(&mut self.sim.world(), self.pod).ok_or(Down)
    }
}

impl Own for Hand {
    type Error = Down;

    async fn state(&self, request: &StateRequest) -> Result<State, Down> {
        let without = request.without.as_ref().map(WireHorizon::read);
        let without = without.transpose().map_err(|_| Down)?;
        let symbols = usize::try_from(request.symbols).map_err(|_| Down)?;
        let gives = {
            let world = self.sim.world();
            let manager = world.pods[self.pod].ready().ok_or(Down)?;
            request.give_snapshot && (manager.table.tombstones() > 0 || without.is_some())
        };
        let snapshot = if gives {
            let answer = Answer::new();
            let ours = answer.clone();
            self.call(|world, pod| {
                world.pods[pod].ready()?;
                command(world, pod, Command::Snapshot(ours));
                Some(())
            })
            .await?;
            Some(answer.wait(&self.sim, OWN_MS_MAX).await.ok_or(Down)?)
        } else {
            None
        };
        self.call(|world, pod| {
            let it = &mut world.pods[pod];
            it.ready()?;
            let session = match &mut it.manager {
                Some(manager) if request.begin_session => Some(manager.table.begin_session()),
                _ => None,
            };
            let it = &world.pods[pod];
            let manager = it.ready()?;
            let state = owner::state(it, manager, symbols, without.as_ref());
            let state = State {
                snapshot: snapshot.as_ref().map(Into::into),
                ..state
            };
            let state = match session {
                Some(session) => state.begun(session, manager.table.floors()),
                None => state,
            };
            let unstored = unstored(it, manager);
            if let Some(key) = unstored {
                let detail = format!("pod {pod}: {key}");
                world.broken("no reader sees what the store may still lose", detail);
            }
            Some(state)
        })
        .await
    }

    async fn replicas(&self, theirs: &Replicas) -> Result<Replicas, Down> {
        if *theirs == Replicas::default() {
            let told = |world: &mut World, pod: usize| {
                let manager = world.pods[pod].ready()?;
                Some(Replicas::of(manager.table.floors(), true))
            };
            return self.call(told).await;
        }
        let answer = Answer::new();
        let (ours, theirs) = (answer.clone(), theirs.clone());
        self.call(|world, pod| {
            world.pods[pod].ready()?;
            command(world, pod, Command::Join(theirs, ours));
            Some(())
        })
        .await?;
        answer.wait(&self.sim, OWN_MS_MAX).await.ok_or(Down)
    }

    async fn advance(&self, advance: &Advance) -> Result<bool, Down> {
        let partner = advance.snapshot.read().map_err(|_| Down)?;
        let session = SessionId(advance.session);
        let answer = Answer::new();
        let ours = answer.clone();
        self.call(|world, pod| {
            world.pods[pod].ready()?;
            command(world, pod, Command::Advance(session, partner, ours));
            Some(())
        })
        .await?;
        answer.wait(&self.sim, OWN_MS_MAX).await.ok_or(Down)
    }

    async fn fingerprints(
        &self,
        _: &TableName,
        from: Fingerprint,
        limit: usize,
    ) -> Result<FingerprintPage, Down> {
        self.call(|world, pod| {
            let manager = world.pods[pod].ready()?;
            Some(FingerprintPage::of(&manager.table, from, limit))
        })
        .await
    }

    async fn records(
        &self,
        table: &TableName,
        fingerprints: &[Fingerprint],
    ) -> Result<Records, Down> {
        // Which there are says the index, and a moment later what they say the store.
        let rows = self
            .call(|world, pod| {
                let index = &world.pods[pod].ready()?.table;
                let keys = fingerprints.iter().map(|it| index.key_of(*it));
                let rows = keys.map(|key| Some((key?.clone(), index.row(key?)?.version)));
                Some(rows.collect::<Vec<_>>())
            })
            .await?;
        self.call(|world, pod| {
            let it = &world.pods[pod];
            it.ready()?;
            let mut batch = BatchBuilder::new(table);
            let mut dealt_with = 0;
            for row in rows {
                if batch.has_no_room_for(1) {
                    break;
                }
                dealt_with += 1;
                let Some((key, version)) = row else {
                    continue;
                };
                if let Some(entry) = it.store.get(&key).filter(|it| it.version >= version) {
                    batch.add(&key, &entry);
                }
            }
            Some(Records {
                batch: batch.finish(),
                dealt_with,
            })
        })
        .await
    }

    async fn merge(
        &self,
        batch: Batch,
        via: Via,
        _: StoreId,
        session: Option<u64>,
    ) -> Result<MergeAnswer, Down> {
        let records = batch.into_records().map_err(|_| Down)?;
        let answer = Answer::new();
        let ours = answer.clone();
        self.call(|world, pod| {
            world.pods[pod].ready()?;
            let session = session.map(SessionId);
            command(world, pod, Command::Merge(records, via, session, ours));
            Some(())
        })
        .await?;
        answer.wait(&self.sim, OWN_MS_MAX).await.ok_or(Down)
    }

    fn now(&self) -> WallTime {
        let world = self.sim.world();
        world.pods[self.pod].wall(world.now_ms)
    }
}

/// A key that the index has otherwise than the store, which may be ahead of it but never behind.
pub(crate) fn unstored(pod: &crate::pod::Pod, manager: &Manager) -> Option<Key> {
    if pod.store.is_changed() {
        return None;
    }
    let known = &pod.store.data().known.newest;
    manager
        .table
        .rows_after(None, usize::MAX)
        .find(|(key, row)| {
            let newest = known.get(*key).map(|newest| newest.rank.version());
            newest.is_none_or(|newest| newest < row.version)
        })
        .map(|(key, _)| key.clone())
}

/// The way to whoever listens at an address.
pub(crate) struct Line {
    sim: Sim,
    from: usize,
    to: Address,
    is_liar: bool,
    random: std::sync::Mutex<Random>,
}

/// A message or its answer did not get through.
#[derive(Debug)]
pub(crate) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer came")
    }
}

impl std::error::Error for Cut {}

impl Remote for Line {
    type Error = Cut;

    async fn ask(&self, request: Vec<u8>) -> Result<Vec<u8>, Cut> {
        let mut random = {
            let mut random = self.random.lock().map_err(|_| Cut)?;
            random.fork()
        };
        let request = if self.is_liar {
            liar::request(request, &mut random)
        } else {
            request
        };
        send(&self.sim, self.from, &self.to, &request, random)
            .wait(&self.sim, PEER_MS_MAX)
            .await
            .ok_or(Cut)
    }
}

/// Puts a message on its way; the answer comes or not.
pub(crate) fn send(
    sim: &Sim,
    from: usize,
    to: &Address,
    request: &[u8],
    mut random: Random,
) -> Answer<Vec<u8>> {
    let answer = Answer::new();
    let mut world = sim.world();
    let network = world.setting.network;
    let way = world.addresses.get(to).map(|to| (from, *to));
    let slow_ms = way.and_then(|way| world.slow.get(&way).copied());
    let copies = if world.quiet {
        1
    } else if random.chance(network.loss) {
        0
    } else if random.chance(network.twice) {
        2
    } else {
        1
    };
    for _ in 0..copies {
        let (sim, to, request) = (sim.clone(), to.clone(), request.to_vec());
        let (answer, mut random) = (answer.clone(), random.fork());
        world.spawn(None, async move {
            if let Some(ms) = slow_ms {
                sim.sleep(ms).await;
            }
            let Some(request) = hop(&sim, request, &mut random).await else {
                return;
            };
            arrive(&sim, from, &to, request, answer, random);
        });
    }
    answer
}

/// A message on its way; `None` if it does not come through.
async fn hop(sim: &Sim, mut message: Vec<u8>, random: &mut Random) -> Option<Vec<u8>> {
    let (is_quiet, network) = {
        let mut world = sim.world();
        let mut hash = SipHasher13::new();
        hash.write(&message);
        world.note(hash.finish());
        if message.len() > MESSAGE_BYTES_MAX {
            world.broken(
                "memory is bounded",
                format!("a message of {} bytes", message.len()),
            );
        }
        (world.quiet, world.setting.network)
    };
    if is_quiet {
        return Some(message);
    }
    if random.chance(network.cut) {
        message.truncate(random.index(message.len() + 1));
    }
    let most = if random.chance(network.late) {
        random.pick(&[60_000, LATE_MS_MAX])
    } else {
        network.delay_ms
    };
    sim.sleep(random.below(most + 1)).await;
    Some(message)
}

/// A message reaches an address: whoever listens there now answers it.
fn arrive(
    sim: &Sim,
    from: usize,
    to: &Address,
    request: Vec<u8>,
    answer: Answer<Vec<u8>>,
    mut random: Random,
) {
    let mut world = sim.world();
    let Some(pod) = world.addresses.get(to).copied() else {
        return;
    };
    let Some(life) = world.pods[pod].life(Program::Sync) else {
        return;
    };
    if !world.is_connected(from, pod) {
        return;
    }
    let answering = sim.clone();
    world.spawn(Some(life), async move {
        let own = Hand {
            sim: answering.clone(),
            pod,
        };
        let understood = answering.world().pods[pod].protocols;
        let Responded { response, report } = respond(&own, &request, understood).await;
        let response = {
            let mut world = answering.world();
            let is_liar = world.pods[pod].is_liar && !world.quiet;
            answered(&answering, &mut world, pod, report);
            if is_liar {
                liar::response(&request, response, &mut random)
            } else {
                response
            }
        };
        // The answer goes its own way, whatever becomes of who gave it.
        let back = answering.clone();
        answering.world().spawn(None, async move {
            let network = back.world().setting.network;
            let is_lost = !back.world().quiet && random.chance(network.loss);
            let Some(response) = hop(&back, response, &mut random).await else {
                return;
            };
            let mut world = back.world();
            if !is_lost && world.is_connected(pod, from) {
                answer.give(&mut world, response);
            }
        });
    });
}

/// Notes who asked, and passes on what was pushed.
fn answered(sim: &Sim, world: &mut World, pod: usize, report: RespondReport) {
    if let Some(refusal) = &report.refused {
        world.say(|| format!("pod {pod}: {refusal}"));
    }
    if let Some(partner) = report.partner {
        let moves = report.refused.is_none() && report.ask == "swap";
        if moves && !world.oracle.has_liar {
            // Two between whom records move know of each other.
            world.pods[pod].store.known_mut().hears(partner.origin);
        }
        let now = world.pods[pod].uptime(world.now_ms);
        if let Some(sync) = &mut world.pods[pod].sync {
            sync.book.heard(&partner, report.partner_digest, now);
        }
        touch(world, pod, &partner);
    }
    if let Some(news) = report.pass_on {
        spread(sim, world, pod, &news, report.state.as_ref());
    }
}

/// The life of a pod's sync, for what is begun from outside.
pub(crate) fn life(world: &World, pod: usize) -> Option<Life> {
    world.pods[pod].life(Program::Sync)
}
