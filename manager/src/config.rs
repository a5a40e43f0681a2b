//! What `udht-manager serve` is told, as flags or in the environment.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, ValueEnum};
use peer_table::ClusterId;
use peer_table::peers::{LABEL_NODE, LABEL_POD, LABEL_POD_UID};
use udht_tell::log::LogArgs;
use udht_tell::trace::TraceArgs;

use crate::store::{InvalidStoreUrl, StoreUrl};

/// Flags of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Loopback address and port to listen on; port 0 takes any that is free, and the log says
    /// which
    #[arg(
        long,
        env = "UDHT_LISTEN",
        default_value = "127.0.0.1:3002",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: LoopbackAddress,

    /// Where the table is kept: embedded:PATH is a file, made if it is missing, of this process
    /// alone; redis://USER:PASSWORD@HOST:PORT is a Redis server (rediss:// with TLS), under keys
    /// that begin with udht:CLUSTER:HOSTNAME: or with what ?prefix= says
    #[arg(
        long,
        env = "UDHT_STORE",
        hide_env_values = true,
        value_parser = StoreParser,
        default_value = "embedded:udht.redb",
        value_name = "URL"
    )]
    pub store: StoreUrl,

    /// The cluster's id; tables of different clusters never merge
    #[arg(
        long,
        env = "UDHT_CLUSTER",
        default_value = "udht",
        value_name = "NAME"
    )]
    pub cluster: ClusterId,

    /// Records that the table takes at the most, deleted ones that are still remembered among them
    #[arg(long, env = "UDHT_MAX_RECORDS", default_value_t = 1_000_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub max_records: u32,

    /// Bytes that one record may have, as it is stored: 1 to 16384
    #[arg(long, env = "UDHT_MAX_RECORD_BYTES", default_value_t = 16 << 10, value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub max_record_bytes: u32,

    /// How far ahead of this machine's clock a record may be stamped that comes from a peer
    #[arg(
        long,
        env = "UDHT_MAX_CLOCK_DRIFT",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub max_clock_drift: Drift,

    /// How long a replica may be silent before it is given up, so that tombstones wait for it no
    /// longer; one that comes back later starts over from its peers
    #[arg(
        long,
        env = "UDHT_TOMBSTONE_MAX_AGE",
        default_value = "7d",
        value_name = "DURATION"
    )]
    pub tombstone_max_age: Age,

    /// How often this replica tells the others how far it has everything, at the most: tombstones
    /// leave some of these after all have them
    #[arg(
        long,
        env = "UDHT_FLOOR_INTERVAL",
        default_value = "1m",
        value_name = "DURATION"
    )]
    pub floor_interval: Age,

    /// What this pod's own record says
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// What is known of the pod
    #[command(flatten)]
    pub pod: PodArgs,

    /// How the log is written
    #[command(flatten)]
    pub log: LogArgs,

    /// Whether traces are sent
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Reads `--store`, and shows nothing of what it cannot read: a password may be in it.
#[derive(Copy, Clone, Debug)]
struct StoreParser;

impl TypedValueParser for StoreParser {
    type Value = StoreUrl;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<StoreUrl, clap::Error> {
        let invalid = |problem: &str| {
            let text = format!("what --store (UDHT_STORE) says {problem}\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        };
        let text = value.to_str().ok_or_else(|| invalid("is no UTF-8"))?;
        text.parse()
            .map_err(|error: InvalidStoreUrl| invalid(&error.to_string()))
    }
}

/// What is known of the pod, in Kubernetes by its Downward API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "The pod")]
pub struct PodArgs {
    /// How long the store lives: pod is deleted with the pod, and its own record with it; volume
    /// outlives the pod, and the next one goes on with it
    #[arg(
        long,
        env = "UDHT_STORAGE",
        default_value = "volume",
        value_name = "KIND"
    )]
    pub storage: Storage,

    /// Its name: the label udht/pod of its own record
    #[arg(long, env = "UDHT_POD_NAME", value_name = "NAME",
        value_parser = NonEmptyStringValueParser::new())]
    pub pod_name: Option<String>,

    /// Its UID: the label udht/pod-uid, by which its peers know whose record it is
    #[arg(long, env = "UDHT_POD_UID", value_name = "UID",
        value_parser = NonEmptyStringValueParser::new())]
    pub pod_uid: Option<String>,

    /// The node that it runs on: the label udht/node
    #[arg(long, env = "UDHT_NODE_NAME", value_name = "NAME",
        value_parser = NonEmptyStringValueParser::new())]
    pub node_name: Option<String>,
}

impl PodArgs {
    /// The labels of the own record that say this: they are on it whoever writes it.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = [
            (LABEL_POD, &self.pod_name),
            (LABEL_POD_UID, &self.pod_uid),
            (LABEL_NODE, &self.node_name),
        ];
        let given = labels.into_iter().filter_map(|(key, value)| {
            let value = value.as_ref()?;
            Some((key.to_owned(), value.clone()))
        });
        given.collect()
    }
}

/// How long a store lives.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Storage {
    /// As long as its pod.
    Pod,
    /// Longer than its pod.
    #[default]
    Volume,
}

/// What this pod's own record says. What is given here wins at each start; what is not stays as it
/// was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "This pod's own record")]
pub struct IdentityArgs {
    /// Its name; the machine's host name if the record is made and none is given
    #[arg(long, env = "UDHT_PEER_NAME", value_name = "NAME")]
    pub peer_name: Option<String>,

    /// Its address; without it no record is made until PUT /v1/identity
    #[arg(long, env = "UDHT_PEER_IP", value_name = "ADDRESS")]
    pub peer_ip: Option<IpAddr>,

    /// A port of it, such as userSync=5001; several with commas or by giving it again
    #[arg(
        long,
        env = "UDHT_PEER_PORT",
        value_name = "PURPOSE=PORT",
        value_delimiter = ','
    )]
    pub peer_port: Vec<PortArg>,

    /// A label of it, such as zone=a; several with commas or by giving it again (a value with a
    /// comma in it goes through PUT /v1/identity)
    #[arg(
        long,
        env = "UDHT_PEER_LABEL",
        value_name = "KEY=VALUE",
        value_delimiter = ','
    )]
    pub peer_label: Vec<LabelArg>,
}

/// An address of this machine that nobody else reaches, and a port.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct LoopbackAddress(SocketAddr);

impl LoopbackAddress {
    /// The address.
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for LoopbackAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = text.strip_prefix("localhost:");
        let local = port.map(|port| format!("{}:{port}", Ipv4Addr::LOCALHOST));
        let address: SocketAddr = local
            .as_deref()
            .unwrap_or(text)
            .parse()
            .map_err(|_| "must be ADDRESS:PORT, such as 127.0.0.1:3002".to_owned())?;
        if address.ip().is_loopback() {
            return Ok(Self(address));
        }
        Err(format!(
            "{} is not a loopback address: the manager speaks to its own pod only, without any \
             password; use 127.0.0.1:{}",
            address.ip(),
            address.port()
        ))
    }
}

impl From<Storage> for peer_table::floors::Storage {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::Pod => Self::Pod,
            Storage::Volume => Self::Volume,
        }
    }
}

impl fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a clock may be ahead: 100 milliseconds to an hour.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Drift(pub Duration);

impl FromStr for Drift {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let drift = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        let bounds = Duration::from_millis(100)..=Duration::from_hours(1);
        if bounds.contains(&drift) {
            Ok(Self(drift))
        } else {
            Err("must be from 100ms to 1h".to_owned())
        }
    }
}

/// A time of a second to ten years.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Age(pub Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let age = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        let bounds = Duration::from_secs(1)..=Duration::from_hours(10 * 366 * 24);
        if bounds.contains(&age) {
            Ok(Self(age))
        } else {
            Err("must be from 1s to 10years".to_owned())
        }
    }
}

/// A port of this pod and what it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortArg {
    /// What it is for.
    pub purpose: String,
    /// The port.
    pub port: u16,
}

impl FromStr for PortArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "must be PURPOSE=PORT, such as userSync=5001, with a port from 1 to 65535";
        let (purpose, port) = text.split_once('=').ok_or(FORM)?;
        let port: u16 = port.parse().map_err(|_| FORM)?;
        if purpose.is_empty() || port == 0 {
            return Err(FORM);
        }
        Ok(Self {
            purpose: purpose.to_owned(),
            port,
        })
    }
}

/// A label of this pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelArg {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl FromStr for LabelArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("must be KEY=VALUE, such as zone=a"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn parse(flags: &[&str]) -> Result<ServeArgs, String> {
        let all = ["serve"].into_iter().chain(flags.iter().copied());
        Cli::try_parse_from(all)
            .map(|cli| cli.serve)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_can_be_read() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:3002");
        assert_eq!(args.max_clock_drift, Drift(Duration::from_secs(10)));
        assert_eq!(args.max_records, 1_000_000);
        assert_eq!(args.max_record_bytes, 16_384);
        assert_eq!(args.identity, IdentityArgs::default());
        assert_eq!(args.pod, PodArgs::default());
    }

    #[test]
    fn nothing_shows_the_password_of_a_store() {
        let secret = "pl4nted";
        let args = parse(&["--store=redis://user:pl4nted@cache:6379/1"]).unwrap();
        for shown in [
            format!("{args:?}"),
            format!("{:?}", args.store),
            args.store.to_string(),
        ] {
            assert!(!shown.contains(secret), "{shown}");
        }
        // Nor does a refusal, wherever it is in what could not be read.
        for url in [
            "redis://user:pl4nted@",
            "redis://user:pl4nted@cache:port",
            "redis://user:pl4nted@cache/database",
            "redis://user:pl4nted@cache#x",
            "redis://user:pl4nted@cache?more=1",
            "redis://user:pl4nted@cache?ca=x",
            "redis://user:pl4nted@cache?prefix=",
            "redis://user:1?pl4nted@cache",
            "redis://user:1?x=1&pl4nted=@cache",
            "redis://user:1/pl4nted@cache",
            "redis://user:1#pl4nted@cache",
            "redis://user:a b pl4nted@ca che",
            "redis://user:%ffpl4nted@cache",
            "rediss:/user:pl4nted@cache",
            "mysql://user:pl4nted@cache",
        ] {
            let refused = parse(&[&format!("--store={url}")]).expect_err(url);
            assert!(!refused.contains(secret), "{refused}");
            assert!(refused.contains("--store"), "{refused}");
        }
    }

    #[test]
    fn what_is_known_of_the_pod_is_labels_and_no_more_than_that() {
        let args = parse(&["--pod-name=files-0", "--pod-uid=u-1", "--storage=pod"]).unwrap();
        let labels = [("udht/pod", "files-0"), ("udht/pod-uid", "u-1")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(args.pod.labels(), labels.into());
        assert_eq!(args.pod.storage, Storage::Pod);
        assert!(PodArgs::default().labels().is_empty());
    }

    #[test]
    fn only_loopback_is_listened_on() {
        for good in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:3002", "localhost:3002"] {
            assert!(good.parse::<LoopbackAddress>().is_ok(), "{good}");
        }
        for bad in [
            "0.0.0.0:3002",
            "[::]:3002",
            "10.0.0.1:3002",
            "127.0.0.1",
            "x:1",
            "",
        ] {
            assert!(bad.parse::<LoopbackAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_and_labels_are_given_again_or_with_commas() {
        let args = parse(&[
            "--peer-port=userSync=1,fileSync=65535",
            "--peer-port=x=2",
            "--peer-label=zone=a,empty=,expr=a=b",
        ])
        .unwrap();
        let ports: Vec<_> = args.identity.peer_port.iter().map(|it| it.port).collect();
        assert_eq!(ports, [1, 65535, 2]);
        let values: Vec<_> = args
            .identity
            .peer_label
            .iter()
            .map(|it| it.value.as_str())
            .collect();
        assert_eq!(values, ["a", "", "a=b"]);
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_what_would_do() {
        for (flag, part) in [
            ("--listen=0.0.0.0:3002", "use 127.0.0.1:3002"),
            ("--peer-port=userSync=0", "1 to 65535"),
            ("--peer-port=userSync=65536", "1 to 65535"),
            ("--peer-port=5001", "PURPOSE=PORT"),
            ("--peer-label==a", "KEY=VALUE"),
            ("--peer-ip=10.0.0", "--peer-ip"),
            ("--max-record-bytes=0", "1..=16384"),
            ("--max-record-bytes=16385", "1..=16384"),
            ("--max-records=0", "1.."),
            ("--max-clock-drift=0s", "100ms"),
            ("--max-clock-drift=10", "time unit"),
            ("--store=udht.redb", "embedded:PATH"),
            ("--cluster=two words", "printable ASCII"),
            ("--log=udht=loud", "is no level"),
            ("--storage=disk", "pod, volume"),
            ("--pod-uid=", "--pod-uid"),
        ] {
            let refused = parse(&[flag]).expect_err(flag);
            assert!(refused.contains(part), "{flag}: {refused}");
        }
    }
}
