//! Following the pods, by what a real API server answered, and through all that can go wrong.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use peer_table::contract::AlarmKind;
use tokio::sync::watch::{Receiver, Sender};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use udht_sync::config::{Bounds, ServeArgs};
use udht_sync::http::HttpClient;
use udht_sync::kubernetes::client::ApiBounds;
use udht_sync::kubernetes::pods::{PodUid, Pods, Sight};
use udht_sync::kubernetes::watch::Follower;
use udht_sync::metrics::Metrics;
use udht_sync::ops::PeerReport;
use udht_sync::serve::{self, Bound};

use super::api::{Api, Part, Say};
use crate::alarms::alarm;
use crate::pod::soon;
use crate::stand_in::StandIn;

// Recorded from Kubernetes 1.36; the names of machines and of the namespace are others.
const LIST: &str = include_str!("recorded/list.json");
/// Its version, from which the watch goes on.
const LIST_VERSION: &str = "7477";
const LIST_LATER: &str = include_str!("recorded/list-later.json");
const PAGE_FIRST: &str = include_str!("recorded/page-first.json");
/// What happened from the first list to the later one: slices of IPv6 come, and a pod is replaced.
/// Then nothing, which the server says every minute.
const WATCH: &str = include_str!("recorded/watch.ndjson");
const LAST_VERSION: &str = "7756";
const GONE: &str = include_str!("recorded/gone.ndjson");
const UNAUTHORIZED: &str = include_str!("recorded/unauthorized.json");
const FORBIDDEN_LIST: &str = include_str!("recorded/forbidden-list.json");
const FORBIDDEN_WATCH: &str = include_str!("recorded/forbidden-watch.json");

/// The pod that is replaced.
const REPLACED: &str = "7928d443-3042-4b91-a155-192cdca3d547";
const OWN: &str = "7f617232-ff76-452b-b898-aad02d0d1646";
/// So short that it is over soon, and so long that loopback answers within it.
const SHORT: Duration = Duration::from_millis(300);

fn body(text: &str) -> Say {
    Say::Body(200, text.to_owned())
}

fn events() -> impl Iterator<Item = Part> {
    WATCH.lines().map(|line| Part::Event(line.to_owned()))
}

/// Bounds that make no test wait, but for those that are to be met.
fn bounds() -> ApiBounds {
    ApiBounds {
        pause: Duration::from_millis(10),
        pause_max: Duration::from_millis(50),
        ..ApiBounds::default()
    }
}

struct Following {
    metrics: Metrics,
    pods: Receiver<Arc<Pods>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Following {
    async fn begin(api: &Api, bounds: ApiBounds) -> Self {
        let metrics = Metrics::new().unwrap();
        let client = api.client(&bounds, &metrics).await;
        let pods: Arc<Sender<Arc<Pods>>> = Arc::default();
        let found = pods.subscribe();
        let counted = metrics.kubernetes.clone();
        let follower = Follower::new(client, &api.args(), bounds, counted, pods);
        let stop = CancellationToken::new();
        Self {
            metrics,
            pods: found,
            task: tokio::spawn(follower.run(stop.clone())),
            stop,
        }
    }

    /// One that has listed, and watches.
    async fn live(api: &Api, bounds: ApiBounds) -> Self {
        api.says("list", body(LIST));
        api.says("watch", Say::Events);
        let mut following = Self::begin(api, bounds).await;
        following.is(Sight::Live).await;
        assert_eq!(names(&following.now()), ["udht-0", "udht-1", "udht-2"]);
        following
    }

    fn now(&self) -> Arc<Pods> {
        self.pods.borrow().clone()
    }

    async fn becomes(&mut self, what: &str, wanted: impl FnMut(&Arc<Pods>) -> bool) {
        soon(what, self.pods.wait_for(wanted)).await.unwrap();
    }

    async fn is(&mut self, sight: Sight) {
        let what = format!("the sight becomes {sight:?}");
        self.becomes(&what, |pods| pods.sight == sight).await;
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        value.trim().parse().unwrap()
    }

    fn requests(&self, verb: &str, result: &str) -> u64 {
        self.metric(&format!(
            "udht_kubernetes_requests_total{{resource=\"endpointslices\",result=\"{result}\",verb=\"{verb}\"}}"
        ))
    }

    fn ended(&self, reason: &str) -> u64 {
        self.metric(&format!(
            "udht_kubernetes_watches_ended_total{{reason=\"{reason}\"}}"
        ))
    }

    async fn end(self) {
        self.stop.cancel();
        soon("it ends", self.task).await.unwrap();
    }
}

fn names(pods: &Pods) -> Vec<&str> {
    let mut names: Vec<_> = pods.by_uid.values().map(|pod| pod.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn what_a_watch_tells_makes_of_one_list_the_other() {
    let api = Api::start().await;
    let mut watching = Following::live(&api, bounds()).await;
    let mut events = events();
    api.send(events.next().unwrap());
    let both = |pods: &Arc<Pods>| pods.by_uid.values().all(|pod| pod.addresses.len() == 2);
    watching.becomes("both families are known", both).await;
    assert_eq!(watching.metric("udht_kubernetes_slices"), 2);
    api.send(events.next().unwrap());
    let replaced = PodUid(REPLACED.to_owned());
    let ends = |pods: &Arc<Pods>| pods.by_uid[&replaced].is_terminating;
    watching.becomes("one is told to end", ends).await;
    let ending = "udht_kubernetes_pods{state=\"terminating\"}";
    assert_eq!(watching.metric(ending), 1);
    for event in events {
        api.send(event);
    }

    let later = Api::start().await;
    later.says("list", body(LIST_LATER));
    later.says("watch", Say::Events);
    let mut listing = Following::begin(&later, bounds()).await;
    listing.is(Sight::Live).await;
    let listed = listing.now();
    watching
        .becomes("both know the same", |pods| *pods == listed)
        .await;
    assert_eq!(watching.requests("list", "ok"), 1);
    assert_eq!(watching.metric("udht_kubernetes_up"), 1);
    watching.end().await;
    listing.end().await;
}

#[tokio::test]
async fn what_is_asked_is_bounded_by_the_service_and_in_time() {
    let api = Api::start().await;
    let following = Following::live(&api, bounds()).await;
    let asked = api.asked_times("watch", 1).await;
    let path = "/apis/discovery.k8s.io/v1/namespaces/files/endpointslices";
    assert_eq!(asked[0].path, path);
    let query = &asked[0].query;
    assert_eq!(
        query["labelSelector"],
        "kubernetes.io%2Fservice-name%3Dudht"
    );
    assert_eq!(query["resourceVersion"], LIST_VERSION);
    assert_eq!(query["allowWatchBookmarks"], "true");
    let seconds: u64 = query["timeoutSeconds"].parse().unwrap();
    assert!((90..=290).contains(&seconds), "{seconds}");
    following.end().await;
}

#[tokio::test]
async fn a_list_in_parts_is_taken_once_it_is_complete() {
    let api = Api::start().await;
    api.says_in_turn("list", [body(PAGE_FIRST), Say::Nothing, body(LIST_LATER)]);
    api.says("watch", Say::Events);
    let short = ApiBounds {
        answer: SHORT,
        ..bounds()
    };
    let mut following = Following::begin(&api, short).await;
    let asked = api.asked_times("list", 2).await;
    assert!(asked[1].query.contains_key("continue"));
    assert_eq!(*following.now(), Pods::default());
    following.is(Sight::Live).await;
    assert_eq!(names(&following.now()).len(), 4);
    assert_eq!(following.requests("list", "timed_out"), 1);
    following.end().await;
}

#[tokio::test]
async fn a_watch_that_ends_is_followed_by_one_from_where_it_was() {
    let api = Api::start().await;
    let following = Following::live(&api, bounds()).await;
    for event in events() {
        api.send(event);
    }
    api.send(Part::End);
    let asked = api.asked_times("watch", 2).await;
    assert_eq!(asked[1].query["resourceVersion"], LAST_VERSION);
    api.send(Part::Break);
    let asked = api.asked_times("watch", 3).await;
    assert_eq!(asked[2].query["resourceVersion"], LAST_VERSION);
    assert_eq!(following.requests("list", "ok"), 1);
    // That an answer was cut off is an end as good as any.
    assert_eq!(following.ended("ended"), 2);
    assert_eq!(following.now().sight, Sight::Live);
    following.end().await;
}

#[tokio::test]
async fn a_server_that_hangs_is_known_and_the_last_pods_stay_until_it_goes_on() {
    let api = Api::start().await;
    let short = ApiBounds {
        answer: SHORT,
        silence: SHORT,
        ..bounds()
    };
    let mut following = Following::live(&api, short).await;
    api.says("watch", Say::Nothing);
    following.is(Sight::Lost).await;
    assert!(following.ended("silent") >= 1);
    assert_eq!(names(&following.now()).len(), 3);
    assert_eq!(following.metric("udht_kubernetes_up"), 0);
    api.asked_times("watch", 4).await;
    assert!(following.requests("watch", "timed_out") >= 1);
    api.says("watch", Say::Events);
    following.is(Sight::Live).await;
    assert_eq!(following.metric("udht_kubernetes_up"), 1);
    assert_eq!(following.requests("list", "ok"), 1);
    following.end().await;
}

#[tokio::test]
async fn a_list_that_hangs_is_asked_again() {
    let api = Api::start().await;
    api.says_in_turn(
        "list",
        [Say::Nothing, Say::Beginning("{".to_owned()), body(LIST)],
    );
    api.says("watch", Say::Events);
    let short = ApiBounds {
        answer: SHORT,
        whole: SHORT,
        ..bounds()
    };
    let mut following = Following::begin(&api, short).await;
    api.asked_times("list", 2).await;
    assert_eq!(following.now().sight, Sight::None);
    following.is(Sight::Live).await;
    following.end().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_found_again() {
    let api = Api::start().await;
    let mut following = Following::live(&api, bounds()).await;
    let place = api.end().await;
    following.is(Sight::Lost).await;
    assert_eq!(names(&following.now()).len(), 3);
    let api = Api::again(place).await;
    api.says("watch", Say::Body(200, GONE.to_owned()));
    api.says("list", body(LIST_LATER));
    api.asked_times("list", 1).await;
    api.says("watch", Say::Events);
    let known = |pods: &Arc<Pods>| pods.sight == Sight::Live && pods.by_uid.len() == 4;
    following.becomes("what was missed is known", known).await;
    assert!(following.requests("watch", "unreachable") >= 1);
    following.end().await;
}

#[tokio::test]
async fn a_place_that_the_server_forgot_is_listed_anew() {
    let api = Api::start().await;
    let mut following = Following::live(&api, bounds()).await;
    api.says("list", body(LIST_LATER));
    api.send(events().last().unwrap());
    api.send(Part::Event(GONE.trim().to_owned()));
    let known = |pods: &Arc<Pods>| pods.by_uid.len() == 4;
    following.becomes("the list is taken", known).await;
    assert_eq!(following.now().sight, Sight::Live);
    assert_eq!(
        (following.ended("gone"), following.requests("list", "ok")),
        (1, 2)
    );
    following.end().await;
}

#[tokio::test]
async fn a_role_that_was_taken_away_is_known_with_the_next_watch_and_so_is_its_return() {
    let api = Api::start().await;
    let mut following = Following::live(&api, bounds()).await;
    api.says("watch", Say::Body(403, FORBIDDEN_WATCH.to_owned()));
    api.send(Part::End);
    following.is(Sight::Lost).await;
    assert!(following.requests("watch", "forbidden") >= 1);
    assert_eq!(names(&following.now()).len(), 3);
    api.says("watch", Say::Events);
    following.is(Sight::Live).await;
    following.end().await;
}

#[tokio::test]
async fn who_may_not_list_knows_nobody_yet() {
    let api = Api::start().await;
    api.says("list", Say::Body(403, FORBIDDEN_LIST.to_owned()));
    let mut following = Following::begin(&api, bounds()).await;
    api.asked_times("list", 3).await;
    assert!(following.requests("list", "forbidden") >= 2);
    assert_eq!(*following.now(), Pods::default());
    api.says("watch", Say::Events);
    api.says("list", body(LIST));
    following.is(Sight::Live).await;
    following.end().await;
}

#[tokio::test]
async fn a_token_that_expired_is_replaced_by_the_one_in_its_file() {
    let api = Api::start().await;
    let mut following = Following::live(&api, bounds()).await;
    api.says("watch", Say::Body(401, UNAUTHORIZED.to_owned()));
    api.send(Part::End);
    following.is(Sight::Lost).await;
    api.token("second");
    api.asked(|asked| {
        asked
            .last()
            .is_some_and(|asked| asked.token == "Bearer second")
    })
    .await;
    api.says("watch", Say::Events);
    following.is(Sight::Live).await;
    assert!(following.requests("watch", "unauthorized") >= 1);
    assert_eq!(following.metric("udht_kubernetes_token_changes_total"), 1);
    following.end().await;
}

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    serve: ServeArgs,
}

/// A sync that finds its peers by this API.
async fn bind(api: &Api, manager: &StandIn) -> Bound {
    let args = Args::parse_from([
        "udht-sync",
        "--listen=127.0.0.1:0",
        "--ops-listen=127.0.0.1:0",
        "--tls=off",
        "--cluster=test/udht",
        "--discovery=kubernetes",
        "--namespace=files",
        &format!("--manager={}", manager.url()),
        &format!("--kubeconfig={}", api.kubeconfig()),
        &format!("--pod-uid={OWN}"),
    ]);
    let bounds = Bounds {
        kubernetes: bounds(),
        ..Bounds::default()
    };
    serve::bind(args.serve, bounds).await.unwrap()
}

#[tokio::test]
async fn an_api_that_cannot_be_reached_is_an_alarm_until_it_answers() {
    let api = Api::start().await;
    api.says("list", Say::Body(401, UNAUTHORIZED.to_owned()));
    let manager = StandIn::start("test/udht").await;
    let bound = bind(&api, &manager).await;
    let node = Arc::clone(bound.node());
    let stop = CancellationToken::new();
    let task = tokio::spawn(bound.run(stop.clone()));
    let kinds = [AlarmKind::KubernetesUnreachable, AlarmKind::BrakeOn];
    for kind in kinds {
        alarm(&node, kind, true).await;
    }
    api.says("list", body(LIST));
    api.says("watch", Say::Events);
    for kind in kinds {
        alarm(&node, kind, false).await;
    }
    stop.cancel();
    soon("the sync ends", task).await.unwrap();
}

#[tokio::test]
async fn a_sync_has_the_other_pods_for_peers_and_itself_for_none() {
    let api = Api::start().await;
    api.says("list", body(LIST));
    api.says("watch", Say::Events);
    let manager = StandIn::start("test/udht").await;
    let bound = bind(&api, &manager).await;
    let ops = format!("http://{}", bound.ops_listen);
    let ops: udht_sync::http::BaseUrl = ops.parse().unwrap();
    let node = Arc::clone(bound.node());
    let stop = CancellationToken::new();
    let task = tokio::spawn(bound.run(stop.clone()));
    let mut pods = node.pods();
    let live = pods.wait_for(|pods| pods.sight == Sight::Live);
    soon("the pods are found", live).await.unwrap();
    let http = HttpClient::new(Bounds::default().peer);
    let found = async {
        loop {
            let request = ops.request(hyper::Method::GET, "/v1/peers", Vec::new());
            let (_, body) = http.send(request.unwrap(), 1 << 20).await.unwrap();
            let report: PeerReport = serde_json::from_slice(&body).unwrap();
            if report.peers.len() == 3 {
                return report;
            }
        }
    };
    let report = soon("they are peers", found).await;
    let peers: Vec<_> = report
        .peers
        .iter()
        .map(|peer| {
            (
                peer.pod.as_deref().unwrap(),
                peer.address.as_str(),
                peer.is_self,
            )
        })
        .collect();
    assert_eq!(
        peers,
        [
            ("udht-2", "10.244.1.7:3003", false),
            ("udht-0", "10.244.2.6:3003", true),
            ("udht-1", "10.244.2.7:3003", false),
        ]
    );
    stop.cancel();
    soon("the sync ends", task).await.unwrap();
}
