//! What `serve` is told, as typed values that parse themselves; and the bounds that nobody is asked
//! about.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use peer_exchange::Protocols;
use peer_exchange::handshake::PROTOCOLS;
use peer_table::ClusterId;
use udht_tell::log::LogArgs;
use udht_tell::trace::TraceArgs;

use crate::discovery::Discovery;
use crate::http::{BaseUrl, ClientBounds, InvalidBaseUrl};
use crate::kubernetes::client::ApiBounds;
use crate::lifecycle::LifecycleBounds;
use crate::listen::ServerBounds;

/// The flags of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Where other pods exchange with this one; port 0 takes a free one, and the log says which
    #[arg(
        long,
        env = "UDHT_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:3003"
    )]
    pub listen: SocketAddr,
    /// Where health, metrics and what is known of the peers are served
    #[arg(
        long,
        env = "UDHT_OPS_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:3004"
    )]
    pub ops_listen: SocketAddr,
    /// What both `serve` and `exchange` are told
    #[command(flatten)]
    pub ends: EndsArgs,
    /// How the other pods are found: `kubernetes`, or `fixed:HOST:PORT,...`, a list that may name
    /// this pod too
    ///
    /// `kubernetes` follows the EndpointSlices of the headless service (--service, --namespace) and
    /// needs a service account that may list and watch them. The service should publish the
    /// addresses of pods that are not ready. Of a pod with addresses of both families, the one of
    /// the family of --listen is used.
    #[arg(
        long,
        env = "UDHT_DISCOVERY",
        value_name = "HOW",
        default_value = "kubernetes"
    )]
    pub discovery: Discovery,
    /// How often, on average, to exchange with a peer chosen at random
    #[arg(long, env = "UDHT_SYNC_INTERVAL", value_name = "TIME", default_value = "5s",
        value_parser = sync_interval)]
    pub sync_interval: Duration,
    /// How long, at the most, changes are gathered before they are pushed while others are on their
    /// way; when nothing is on its way they go at once
    #[arg(long, env = "UDHT_PUSH_DELAY", value_name = "TIME", default_value = "20ms",
        value_parser = push_delay)]
    pub push_delay: Duration,
    /// To how many peers a change is pushed; each of them passes it on to its part of the rest
    #[arg(long, env = "UDHT_PUSH_FANOUT", value_name = "N", default_value = "4",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub push_fanout: usize,
    /// For how long Kubernetes must not list a pod, without a break, before its record is removed;
    /// with a fixed list of peers none is
    #[arg(long, env = "UDHT_GONE_AFTER", value_name = "TIME", default_value = "5m",
        value_parser = gone_after)]
    pub gone_after: Duration,
    /// Once told to stop, this pod does not come back: what its end is where no Kubernetes says so
    ///
    /// Its manager takes no more writes; with --storage pod it deletes the pod's record, and deleted
    /// records wait for this replica no longer. With `--discovery kubernetes` and --pod-uid it is
    /// Kubernetes that says which pods are being deleted, and this changes nothing.
    #[arg(long, env = "UDHT_LEAVE_FOR_GOOD")]
    pub leave_for_good: bool,
    /// How far this machine's clock may be from those of most peers before the manager refuses writes:
    /// the same as the manager's
    #[arg(long, env = "UDHT_MAX_CLOCK_DRIFT", value_name = "TIME", default_value = "10s",
        value_parser = clock_drift)]
    pub max_clock_drift: Duration,
    /// How the log is written
    #[command(flatten)]
    pub log: LogArgs,

    /// Whether traces are sent
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// The flags of whatever talks to a peer on behalf of the own manager.
#[derive(Clone, Debug, Args)]
pub struct EndsArgs {
    /// The manager of this pod
    #[arg(long, env = "UDHT_MANAGER", value_name = "URL", default_value = "http://127.0.0.1:3002",
        value_parser = own_manager)]
    pub manager: BaseUrl,
    /// The cluster's id; the manager must have the same
    #[arg(
        long,
        env = "UDHT_CLUSTER",
        value_name = "NAME",
        default_value = "udht"
    )]
    pub cluster: ClusterId,
    /// What secures connections between pods: `auto`, `files:DIR` or `off`
    ///
    /// `auto` is mutual TLS 1.3 by an authority of the release's own, which the first sync makes and
    /// keeps in the Secret of --authority-secret. Each sync issues itself a certificate from it and
    /// renews that. The cluster is then known by the UUID of the authority too, and the manager's
    /// table is bound to it. See also `udht-sync authority`.
    ///
    /// `files:DIR` is mutual TLS 1.3 with the PEM files `ca.crt` (the authorities that are
    /// believed), `tls.crt` (the own certificate, and those between it and its authority behind
    /// it) and `tls.key` in this folder, named as in a Secret of cert-manager. They are read anew
    /// when they change. The certificate must be good for both ends of a connection, and bear one
    /// DNS name, the same in all pods: the cluster's id in lower case, each character but a-z and
    /// 0-9 as `-`, of this the first 63 characters, without `-` at its ends; and behind it
    /// `.udht.internal`. So `--cluster default/udht` takes `default-udht.udht.internal`.
    ///
    /// `off` neither encrypts nor asks who is at the other end. All pods need the same.
    #[arg(long, env = "UDHT_TLS", value_name = "HOW", default_value = "auto")]
    pub tls: Tls,
    /// The versions of the protocol to speak with other pods, as MIN-MAX, in place of those of this
    /// release
    ///
    /// To try the version that the next release is to speak, and to hold on to an older one.
    #[arg(long, env = "UDHT_PROTOCOLS", value_name = "MIN-MAX", default_value_t = PROTOCOLS,
        hide = true)]
    pub protocols: Protocols,
    /// How `--tls auto` goes about it
    #[command(flatten)]
    pub authority: AuthorityArgs,
    /// What is said to the Kubernetes API
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
}

/// How `--tls auto` goes about it.
#[derive(Copy, Clone, Debug, Args)]
#[command(next_help_heading = "Own authority (--tls auto)")]
pub struct AuthorityArgs {
    /// How long a certificate of a sync lasts; it is renewed at two thirds of that
    #[arg(long, env = "UDHT_LEAF_LIFETIME", value_name = "TIME", default_value = "6h",
        value_parser = leaf_lifetime)]
    pub leaf_lifetime: Duration,
    /// For how long a new authority is believed before it signs: the time that everybody has to
    /// hear of it
    #[arg(long, env = "UDHT_ROTATION_OVERLAP", value_name = "TIME", default_value = "10m",
        value_parser = rotation_overlap)]
    pub rotation_overlap: Duration,
}

/// Who this pod is to Kubernetes, and what of the release is there.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct KubernetesArgs {
    /// The namespace of the release
    #[arg(
        long,
        env = "UDHT_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "default"
    )]
    pub namespace: String,
    /// The headless service whose endpoints are the pods of the release
    #[arg(
        long,
        env = "UDHT_SERVICE",
        value_name = "NAME",
        default_value = "udht"
    )]
    pub service: String,
    /// The UID of this pod
    #[arg(long, env = "UDHT_POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
    /// The Secret of the release's authority, for `--tls auto`; it must be there, and may be empty
    #[arg(
        long,
        env = "UDHT_AUTHORITY_SECRET",
        value_name = "NAME",
        default_value = "udht-authority"
    )]
    pub authority_secret: String,
    /// A kubeconfig, for outside of a cluster; in a pod its service account is enough
    #[arg(long, env = "UDHT_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// How connections between pods are secured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tls {
    /// Mutual TLS by an authority that the syncs make themselves.
    Auto,
    /// Mutual TLS with the keys and certificates in this folder.
    Files(PathBuf),
    /// Not at all.
    Off,
}

impl FromStr for Tls {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => match text.strip_prefix("files:") {
                Some(folder) if !folder.is_empty() => Ok(Self::Files(folder.into())),
                _ => Err("must be `auto`, `files:DIR` or `off`"),
            },
        }
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Files(folder) => write!(f, "files:{}", folder.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

fn own_manager(text: &str) -> Result<BaseUrl, String> {
    let url: BaseUrl = text
        .parse()
        .map_err(|error: InvalidBaseUrl| error.to_string())?;
    if url.is_loopback() {
        Ok(url)
    } else {
        Err("the manager is in this pod: its host must be a loopback address".to_owned())
    }
}

fn leaf_lifetime(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_secs(10), Duration::from_hours(7 * 24))
}

fn rotation_overlap(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_secs(1), Duration::from_hours(7 * 24))
}

fn sync_interval(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(50), Duration::from_hours(1))
}

fn push_delay(text: &str) -> Result<Duration, String> {
    between(text, Duration::ZERO, Duration::from_secs(1))
}

fn gone_after(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_secs(10), Duration::from_hours(7 * 24))
}

fn clock_drift(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(100), Duration::from_hours(1))
}

fn between(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (min..=max).contains(&time) {
        Ok(time)
    } else {
        let [min, max] = [min, max].map(humantime::format_duration);
        Err(format!("must be {min} to {max}"))
    }
}

/// Every bound that is no flag; see each one for its reason. Tests hand in small ones.
#[derive(Copy, Clone, Debug)]
pub struct Bounds {
    /// Of questions to the own manager: it may be writing a batch of another peer to its disk.
    pub manager: ClientBounds,
    /// How long the metrics of the own manager are waited for, within a scrape.
    pub scrape: Duration,
    /// Of questions to peers.
    pub peer: ClientBounds,
    /// For how long a connection to a peer is used, at the most.
    pub peer_age: Duration,
    /// How often the TLS files are looked at.
    pub tls_look: Duration,
    /// Of questions to the Kubernetes API.
    pub kubernetes: ApiBounds,
    /// Of one exchange, however many messages it takes.
    pub exchange: Duration,
    /// Of a push to one peer: whoever is slower is passed over.
    pub push: Duration,
    /// Of the exchange port.
    pub server: ServerBounds,
    /// Of the port for health and metrics.
    pub ops: ServerBounds,
    /// Messages of peers that are dealt with at once. Many, as the manager writes what comes at the
    /// same time as one.
    pub messages_max: usize,
    /// Kilobytes of the bodies of these messages.
    pub messages_kib_max: u32,
    /// How long a message waits for its turn before it is refused as `busy`.
    pub turn: Duration,
    /// Pushes on their way to peers at once; more wait in their queue.
    pub pushes_max: usize,
    /// Kilobytes of records that are being pushed or wait for it; what peers push beyond is not
    /// passed on and left to the exchanges, and the own changes wait in the manager's feed.
    pub push_queue_kib_max: u32,
    /// The interval of rounds, at the most, while there is something to find: at the start, and
    /// after an exchange that brought somebody something.
    pub brisk_interval: Duration,
    /// After so long a silence the manager's feed is connected anew: it speaks every 15 seconds.
    pub feed_silence: Duration,
    /// Between two attempts to follow the manager's feed.
    pub feed_pause: Duration,
    /// How long a stop waits for the exchange that is under way.
    pub drain: Duration,
    /// How long all of a stop may take, once this pod has handed over.
    pub stop: Duration,
    /// Of what is done when pods go.
    pub lifecycle: LifecycleBounds,
}

impl Default for Bounds {
    fn default() -> Self {
        let messages_max = 64;
        // A connection costs each end some 30 kB of memory (1 MB of a pod among 50, if it were a minute),
        // and a round, with a peer drawn by lot, seldom meets one. Pushes keep to theirs for ten seconds.
        let idle = Duration::from_secs(30);
        let server = ServerBounds {
            connections_max: 512,
            handshake: Duration::from_secs(5),
            // Longer than `idle`, so that it is the client that ends an idle connection: else a
            // request could meet one that is just being closed.
            head: Duration::from_secs(75),
            body: Duration::from_secs(10),
            age: Duration::from_mins(10),
            drain: Duration::from_secs(10),
        };
        Self {
            manager: ClientBounds {
                connect: Duration::from_secs(2),
                answer: Duration::from_secs(10),
                idle,
                idle_max: messages_max,
            },
            scrape: Duration::from_secs(2),
            peer: ClientBounds {
                connect: Duration::from_secs(2),
                // The peer may have to wait for its turn, and for its manager.
                answer: Duration::from_secs(15),
                idle,
                idle_max: 2,
            },
            // Shorter than `age`, for the reason that `idle` is.
            peer_age: Duration::from_mins(5),
            tls_look: Duration::from_secs(1),
            kubernetes: ApiBounds::default(),
            exchange: Duration::from_mins(10),
            push: Duration::from_secs(3),
            server,
            ops: ServerBounds {
                connections_max: 256,
                // Probes and scrapes speak at once: who is silent must not keep them out.
                head: Duration::from_secs(10),
                ..server
            },
            messages_max,
            messages_kib_max: 64 << 10,
            turn: Duration::from_secs(2),
            pushes_max: 64,
            push_queue_kib_max: 16 << 10,
            brisk_interval: Duration::from_millis(500),
            feed_silence: Duration::from_mins(1),
            feed_pause: Duration::from_millis(500),
            drain: Duration::from_secs(10),
            stop: Duration::from_secs(12),
            lifecycle: LifecycleBounds::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_says_what_it_may_be() {
        assert_eq!("auto".parse(), Ok(Tls::Auto));
        assert_eq!("files:/etc/tls".parse(), Ok(Tls::Files("/etc/tls".into())));
        for bad in ["", "on", "files:", "OFF"] {
            assert!(bad.parse::<Tls>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_beyond_its_bounds_names_them() {
        assert_eq!(sync_interval("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(sync_interval("1ms"), Err("must be 50ms to 1h".to_owned()));
        assert_eq!(push_delay("0s"), Ok(Duration::ZERO));
        assert!(push_delay("soon").is_err());
        assert_eq!(gone_after("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(gone_after("1s"), Err("must be 10s to 7days".to_owned()));
    }

    #[test]
    fn a_manager_is_only_looked_for_on_loopback() {
        assert!(own_manager("http://127.0.0.1:3002").is_ok());
        assert!(own_manager("http://10.0.0.1:3002").is_err());
        assert!(own_manager("127.0.0.1").is_err());
    }

    #[test]
    fn a_pod_that_hands_over_twice_and_stops_is_done_before_it_is_killed() {
        /// What Kubernetes gives a pod unless it is told otherwise.
        const GRACE: Duration = Duration::from_secs(30);
        let bounds = Bounds::default();
        let lifecycle = bounds.lifecycle;
        assert!(lifecycle.handover + lifecycle.handover_again + bounds.stop < GRACE);
        assert!(lifecycle.terminating < lifecycle.handover_again);
    }

    #[test]
    fn a_client_lets_go_of_an_idle_connection_before_its_server_does() {
        let bounds = Bounds::default();
        assert!(bounds.peer.idle < bounds.server.head);
        assert!(bounds.peer_age < bounds.server.age);
    }
}
