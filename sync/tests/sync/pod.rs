//! A pod of the tests: a sync with everything in it, and a stand-in for its manager.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use peer_exchange::Address;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use udht_sync::config::{Bounds, ServeArgs};
use udht_sync::http::{BaseUrl, HttpClient};
use udht_sync::lifecycle::Place;
use udht_sync::node::Node;
use udht_sync::serve::{self, Bound};

use crate::stand_in::StandIn;

/// The cluster of all pods that say no other.
pub(crate) const CLUSTER: &str = "test/udht";
/// Longer than any of it takes on the slowest machine: when it is over, something hangs.
const HANGS: Duration = Duration::from_secs(30);
/// As good as never.
pub(crate) const NEVER: Duration = Duration::from_hours(24);

/// Waits for what is about to happen.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    let value = tokio::time::timeout(HANGS, event).await;
    value.unwrap_or_else(|_| panic!("it hangs: {what}"))
}

/// How a pod is to be.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) cluster: &'static str,
    pub(crate) manager_cluster: &'static str,
    pub(crate) fanout: usize,
    pub(crate) tls: String,
    /// Further flags.
    pub(crate) flags: Vec<String>,
    /// How long its certificates last, where a flag would not allow it.
    pub(crate) leaf_lifetime: Option<Duration>,
    pub(crate) bounds: Bounds,
    /// Where Kubernetes lists it, if it does.
    pub(crate) place: Option<Place>,
    pub(crate) gone_after: Duration,
}

impl Default for Spec {
    /// One whose sync begins no round by itself.
    fn default() -> Self {
        let bounds = Bounds {
            brisk_interval: NEVER,
            feed_pause: Duration::from_millis(10),
            drain: Duration::from_secs(1),
            ..Bounds::default()
        };
        Self {
            cluster: CLUSTER,
            manager_cluster: CLUSTER,
            fanout: 4,
            tls: "off".to_owned(),
            flags: Vec::new(),
            leaf_lifetime: None,
            bounds,
            place: None,
            gone_after: NEVER,
        }
    }
}

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    serve: ServeArgs,
}

/// The arguments of a sync beside the manager at `manager`.
pub(crate) fn serve_args(manager: &str, more: &[String]) -> ServeArgs {
    let fixed = [
        "--listen=127.0.0.1:0",
        "--ops-listen=127.0.0.1:0",
        "--discovery=fixed:",
        "--sync-interval=1h",
    ];
    let manager = format!("--manager={manager}");
    let arguments = ["udht-sync"]
        .into_iter()
        .chain(fixed)
        .chain([manager.as_str()])
        .chain(more.iter().map(String::as_str));
    Args::parse_from(arguments).serve
}

/// A sync and a stand-in for its manager.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) manager: StandIn,
    pub(crate) sync: Sync,
}

/// A sync that runs.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(crate) node: Arc<Node>,
    pub(crate) address: Address,
    pub(crate) ops: BaseUrl,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Sync {
    fn run(bound: Bound) -> Self {
        let stop = CancellationToken::new();
        Self {
            node: Arc::clone(bound.node()),
            address: bound.listen.to_string().parse().unwrap(),
            ops: format!("http://{}", bound.ops_listen).parse().unwrap(),
            task: tokio::spawn(bound.run(stop.clone())),
            stop,
        }
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        soon("the sync ends", self.task).await.unwrap();
    }

    /// Asks its port for health and metrics.
    pub(crate) async fn ask(&self, path: &str) -> (u16, String) {
        let request = self.ops.request(hyper::Method::GET, path, Vec::new());
        let http = HttpClient::new(Bounds::default().peer);
        let (status, body) = http.send(request.unwrap(), 1 << 20).await.unwrap();
        (status.as_u16(), String::from_utf8(body.into()).unwrap())
    }

    /// Waits until a metric has at least this value.
    pub(crate) async fn counts(&self, name: &str, value: u64) {
        let counted = async { while self.metric(name).await < value {} };
        soon(name, counted).await;
    }

    /// The value of a metric, with its labels as they are written.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.ask("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        value.trim().parse().unwrap()
    }
}

impl Pod {
    /// Starts one whose manager is there already.
    pub(crate) async fn beside(manager: StandIn, spec: &Spec, peers: &[&Address]) -> Self {
        let bound = bind(&manager.url(), spec).await;
        let peers = peers.iter().copied().cloned();
        bound.node().book().replace(peers);
        let sync = Sync::run(bound);
        manager.followed().await;
        Self { manager, sync }
    }
}

async fn bind(manager: &str, spec: &Spec) -> Bound {
    let mut more = vec![
        format!("--cluster={}", spec.cluster),
        format!("--push-fanout={}", spec.fanout),
        format!("--tls={}", spec.tls),
    ];
    more.extend(spec.flags.iter().cloned());
    let mut args = serve_args(manager, &more);
    if let Some(lifetime) = spec.leaf_lifetime {
        args.ends.authority.leaf_lifetime = lifetime;
    }
    args.gone_after = spec.gone_after;
    let bound = serve::bind(args, spec.bounds).await.unwrap();
    match &spec.place {
        Some(place) => bound.placed(place.clone()),
        None => bound,
    }
}

/// Starts pods that know one another, themselves included, as those of a fixed list do.
pub(crate) async fn start<const N: usize>(specs: [Spec; N]) -> [Pod; N] {
    let mut bound = Vec::new();
    for spec in &specs {
        let manager = StandIn::start(spec.manager_cluster).await;
        let sync = bind(&manager.url(), spec).await;
        bound.push((manager, sync));
    }
    let addresses: Vec<Address> = bound
        .iter()
        .map(|(_, sync)| sync.listen.to_string().parse().unwrap())
        .collect();
    let pods: Vec<Pod> = bound
        .into_iter()
        .map(|(manager, sync)| {
            sync.node().book().replace(addresses.clone());
            let sync = Sync::run(sync);
            Pod { manager, sync }
        })
        .collect();
    for pod in &pods {
        pod.manager.followed().await;
    }
    pods.try_into().unwrap()
}

/// Starts pods that are as they are by default.
pub(crate) async fn start_default<const N: usize>() -> [Pod; N] {
    start(std::array::from_fn(|_| Spec::default())).await
}
