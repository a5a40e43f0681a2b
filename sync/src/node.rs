//! What all parts of one sync share: the two ends of an exchange, the peer book, the metrics.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peer_exchange::alarms::result_word;
use peer_exchange::exchange::{Options, exchange};
use peer_exchange::handshake::HandshakeRefused;
use peer_exchange::{Address, ExchangeError, Outcomes, Partner, PeerBook, Refusal, Report, Uptime};
use peer_table::contract::{Batch, EventKind};
use peer_table::{TableName, peers};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use udht_tell::chain;
use udht_tell::trace::{self, Kind, Span};

use crate::config::{self, Bounds, EndsArgs, KubernetesArgs};
use crate::contacts::Contacts;
use crate::kubernetes::client::{ClientError, client};
use crate::kubernetes::pods::{InUse, PodUid, Pods};
use crate::kubernetes::watch::Follower;
use crate::lifecycle::{Met, Place};
use crate::manager::Manager;
use crate::metrics::{Direction, Metrics};
use crate::missed::Missed;
use crate::report::{Telling, event};
use crate::tls::{Credentials, Door, Files, FilesError, Refusals, Tls};
use crate::transport::{Transport, TransportError, failure};
use crate::wall::{self, Stopwatch};

/// A clock that is further off than this is worth a line in the log: half of the drift that a
/// manager puts up with unless it is told otherwise.
const SKEW_NOTABLE_MS: u64 = 5_000;

/// What all parts share cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] FilesError),
    /// A metric cannot be had.
    #[error("a metric cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// One sync.
#[derive(Debug)]
pub struct Node {
    /// The manager of this pod.
    pub manager: Manager,
    /// The way to all others.
    pub transport: Transport,
    /// What is counted.
    pub metrics: Metrics,
    /// The table that travels.
    pub table: TableName,
    /// How exchanges and pushes are done.
    pub options: Options,
    /// How often a round is begun, on average.
    pub interval: Duration,
    /// What exchanges found that pushes had missed.
    pub missed: Arc<Missed>,
    /// Bounds of everything.
    pub bounds: Bounds,
    /// What there is to tell the manager of this pod.
    pub telling: Telling,
    book: Mutex<PeerBook>,
    contacts: Mutex<Contacts>,
    /// Whom the manager is to be told that we met.
    pub met_ids: Met,
    pods: Arc<watch::Sender<Arc<Pods>>>,
    own_pod: Option<PodUid>,
    tls: Option<Arc<Tls>>,
    files: Option<Files>,
    running: Stopwatch,
}

impl Node {
    /// A sync between this manager and no peer yet; and what its exchanges will find that is to be
    /// told everybody.
    pub fn new(
        ends: &EndsArgs,
        bounds: Bounds,
        interval: Duration,
    ) -> Result<(Self, mpsc::Receiver<Batch>), NodeError> {
        let EndsArgs {
            manager,
            cluster,
            tls: how,
            protocols,
            authority: _,
            kubernetes,
        } = ends;
        let metrics = Metrics::new()?;
        let tls = match how {
            config::Tls::Files(_) | config::Tls::Auto => {
                Some(Arc::new(Tls::new(metrics.tls.clone())))
            }
            config::Tls::Off => None,
        };
        let files = match (how, &tls) {
            (config::Tls::Files(folder), Some(tls)) => {
                let (folder, tls) = (folder.clone(), Arc::clone(tls));
                Some(Files::new(folder, cluster, tls, metrics.tls.clone())?)
            }
            _ => None,
        };
        let [sent, received] =
            [Direction::Sent, Direction::Received].map(|way| metrics.exchanges.bytes(way));
        let (missed, found) = Missed::new();
        let missed = Arc::new(missed);
        let node = Self {
            manager: Manager::new(
                manager.clone(),
                cluster.clone(),
                bounds.manager,
                bounds.scrape,
                Arc::clone(&missed),
            ),
            transport: Transport::new(bounds.peer, bounds.peer_age, tls.clone(), sent, received),
            metrics,
            table: peers::table_name(),
            options: Options {
                protocols: *protocols,
                ..Options::default()
            },
            interval,
            missed,
            bounds,
            telling: Telling::default(),
            book: Mutex::default(),
            contacts: Mutex::default(),
            met_ids: Met::default(),
            pods: Arc::default(),
            own_pod: kubernetes.pod_uid.clone().map(PodUid),
            tls,
            files,
            running: Stopwatch::start(),
        };
        if *how == config::Tls::Auto {
            node.manager.expect(cluster.clone(), None);
        }
        Ok((node, found))
    }

    /// The peer book.
    pub fn book(&self) -> MutexGuard<'_, PeerBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods of the release, as the Kubernetes API lists them; none where they come from a fixed
    /// list.
    pub fn pods(&self) -> watch::Receiver<Arc<Pods>> {
        self.pods.subscribe()
    }

    /// This pod among them, if it knows which one it is.
    pub fn place(&self) -> Option<Place> {
        let own = self.own_pod.clone()?;
        let pods = self.pods();
        Some(Place { own, pods })
    }

    /// Somebody who will find them.
    pub async fn follower(&self, args: &KubernetesArgs) -> Result<Follower, ClientError> {
        let bounds = self.bounds.kubernetes;
        let metrics = self.metrics.kubernetes.clone();
        let client = client(args, &bounds, &metrics).await?;
        let pods = Arc::clone(&self.pods);
        Ok(Follower::new(client, args, bounds, metrics, pods))
    }

    /// Takes these pods for the peers, and of them the own one for ourselves.
    pub fn take_pods(&self, in_use: &InUse) {
        let own = self.own_pod.as_ref().and_then(|own| in_use.address(own));
        let mut book = self.book();
        book.replace(in_use.addresses().cloned());
        if let Some(own) = own {
            book.know_self(own);
        }
    }

    /// How peers are let in.
    pub fn door(&self) -> Door {
        match &self.tls {
            Some(tls) => Door::Tls(Arc::clone(tls)),
            None => Door::Plain(Arc::new(Refusals::new(self.metrics.tls.clone()))),
        }
    }

    /// Takes the TLS files anew when they change, until `stop`.
    pub async fn follow_tls(&self, stop: CancellationToken) {
        if let Some(files) = &self.files {
            files.follow(self.bounds.tls_look, stop).await;
        }
    }

    /// From here on new connections are made with these credentials. Who has the first ones wants
    /// the table now.
    pub fn take_credentials(&self, credentials: Credentials) {
        if let Some(tls) = &self.tls {
            let was_without = self.is_without_credentials();
            tls.take(credentials);
            if was_without {
                self.missed.hurry.notify_one();
            }
        }
    }

    /// What connections are secured with, if they are to be and there is something to do so.
    pub fn credentials(&self) -> Option<Option<Arc<Credentials>>> {
        self.tls.as_ref().map(|tls| tls.current())
    }

    /// Whether connections are to be secured and there is nothing to do so.
    pub fn is_without_credentials(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.current().is_none())
    }

    /// How long this sync has run.
    pub fn uptime(&self) -> Uptime {
        Uptime(self.running.elapsed())
    }

    /// How to talk to the peer at `address`: in a version of the protocol that it understood when it
    /// was last met.
    pub fn options_for(&self, address: &Address) -> Options {
        Options {
            partner: self.book().protocols(address),
            ..self.options
        }
    }

    /// Makes the tables of this pod and of the peer at `address` equal, and notes what came of it.
    /// The answer is what it found, and how long it took.
    pub async fn exchange(&self, address: &Address) -> Result<(Report, Duration), ExchangeError> {
        let watch = Stopwatch::start();
        let line = self.transport.to(address);
        let mut span = Span::new("exchange", Kind::Client);
        span.set("peer", address);
        let options = self.options_for(address);
        let exchange = exchange(&self.manager, &line, &self.table, &options);
        let exchange = trace::within(span.place(), exchange);
        let after = self.bounds.exchange;
        let result = tokio::time::timeout(after, exchange)
            .await
            .unwrap_or_else(|_| {
                let too_long = TransportError::TooLong { after };
                Err(ExchangeError::Remote(too_long.into()))
            });
        let took = watch.elapsed();
        self.metrics.exchanges.began(&result, took);
        self.tell_exchange(address, &result, took);
        match &result {
            Ok(report) => {
                span.set("result", report.kind.word());
                let now = self.uptime();
                if report.partner.has_met {
                    self.met_ids.join_as(report.origin);
                }
                self.book().own_digest(report.digest, now);
                let digest = Some(report.partner_digest);
                self.met(address, &report.partner, report.skew_ms, digest)
                    .await;
                self.book().exchanged(address, report, now);
                Self::tell_refused(address, report);
                tracing::debug!(
                    peer = %address,
                    result = report.kind.word(),
                    protocol = report.protocol,
                    sent = report.moved.sent,
                    received = report.moved.received,
                    "exchanged"
                );
            }
            Err(error) => {
                span.fail(chain(error));
                self.failed(address, error, "an exchange failed");
                if let Some(word) = broke(error) {
                    let now = self.uptime();
                    self.book().exchange_broke(address, word, now);
                }
            }
        }
        result.map(|report| (report, took))
    }

    /// Notes for who looks on how an exchange ended.
    fn tell_exchange(
        &self,
        address: &Address,
        result: &Result<Report, ExchangeError>,
        took: Duration,
    ) {
        let (word, moved) = match result {
            Ok(report) => {
                let moved = [report.moved.sent, report.moved.received];
                (report.kind.word().to_owned(), moved)
            }
            // That an address is our own is no event.
            Err(ExchangeError::Refused(Refusal {
                reason: HandshakeRefused::Myself,
                ..
            })) => return,
            Err(error) => {
                let word = failure(error).unwrap_or_else(|| error.word());
                (result_word(word), [0, 0])
            }
        };
        let peer = address.to_string();
        let event = event(EventKind::Exchange, peer, word, moved, took);
        self.telling.happened(event);
    }

    /// Says that an exchange does not make two tables equal, as one side does not take records.
    fn tell_refused(address: &Address, report: &Report) {
        let moved = &report.moved;
        let [here, there] = [&moved.merged_here, &moved.merged_there].map(Outcomes::refused);
        if here + there > 0 {
            let reasons = moved.merged_here.iter().chain(moved.merged_there.iter());
            let reasons = reasons.filter(|(word, _)| word.starts_with("refused"));
            let reasons: BTreeSet<_> = reasons.map(|(word, _)| word).collect();
            let reasons = Vec::from_iter(reasons).join(", ");
            tracing::warn!(
                peer = %address,
                refused_here = here,
                refused_there = there,
                reasons,
                "records are refused, so the tables stay different; exchanges become rarer"
            );
        }
    }

    /// Notes that the peer at `address` was talked to with success.
    pub async fn met(
        &self,
        address: &Address,
        partner: &Partner,
        skew_ms: i64,
        digest: Option<peer_table::table::Digest>,
    ) {
        let now = self.uptime();
        self.book()
            .succeeded(address, partner, skew_ms, digest, now);
        if skew_ms.unsigned_abs() > SKEW_NOTABLE_MS {
            tracing::warn!(
                peer = %address,
                skew_ms,
                "the clocks of this machine and of a peer's differ: records stamped too far ahead \
                 are refused"
            );
        }
        self.touch(partner).await;
    }

    /// Notes that talking to the peer at `address` failed, unless it is not to blame.
    pub fn failed(&self, address: &Address, error: &ExchangeError, what: &'static str) {
        let now = self.uptime();
        let word = failure(error).unwrap_or_else(|| error.word());
        let result = result_word(word);
        match error {
            ExchangeError::Own(_) => {
                tracing::warn!(error = chain(error), "{what}");
            }
            _ if word == "no_credentials" => {
                // It is not the peer's fault, and what keeps us from them is said elsewhere.
                tracing::debug!(peer = %address, error = chain(error), "{what}");
            }
            ExchangeError::Refused(Refusal {
                reason: HandshakeRefused::Myself,
                ..
            }) => {
                tracing::debug!(peer = %address, "this address is this pod's own");
                self.book().mark_self(address, now);
            }
            _ if self.is_left_alone(address, now) => {
                tracing::debug!(peer = %address, result, error = chain(error), "{what}");
            }
            _ => {
                tracing::warn!(peer = %address, result, error = chain(error), "{what}");
                self.book().failed(address, word, now, wall::random());
            }
        }
    }

    /// Whether a peer has failed a moment ago: many pushes may be on their way to it, and together
    /// they are one failure.
    fn is_left_alone(&self, address: &Address, now: Uptime) -> bool {
        let book = self.book();
        let mut peers = book.peers();
        peers.any(|(known, peer)| known == address && peer.back_off_until > now)
    }

    /// Moves the contact of a peer that was just met, unless that was done in this step already.
    pub async fn touch(&self, partner: &Partner) {
        self.met_ids.note(partner.origin);
        let Some(peer) = &partner.peer_id else {
            return;
        };
        if !self.contacts().take(peer, wall::now()) {
            return;
        }
        let moved = self.manager.contact(peer).await;
        if !matches!(moved, Ok(true)) {
            self.contacts().forget(peer);
        }
        if let Err(error) = moved {
            tracing::debug!(peer_id = %peer, error = chain(&error), "a contact was not moved");
        }
    }

    fn contacts(&self) -> MutexGuard<'_, Contacts> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The word for an exchange that broke off after it had begun; `None` where it never did.
fn broke(error: &ExchangeError) -> Option<&'static str> {
    let word = failure(error)?;
    let never_began = ["unreachable", "tls", "no_credentials", "manager"];
    (!never_began.contains(&word)).then_some(word)
}
