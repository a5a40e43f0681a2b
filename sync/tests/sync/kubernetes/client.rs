use std::time::Duration;

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api as Objects, Client};
use udht_sync::config::Bounds;
use udht_sync::kubernetes::client::{ApiBounds, ApiError, ClientError, client, within};
use udht_sync::metrics::Metrics;

use super::api::{Api, Part, Say};
use crate::pod::soon;

const SECRET: &str = r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"udht-authority","namespace":"files","resourceVersion":"7"}}"#;
const NAME: &str = "udht-authority";
/// So short that it is over soon, and so long that loopback answers within it.
const SHORT: Duration = Duration::from_millis(200);

fn secrets(client: Client) -> Objects<Secret> {
    Objects::default_namespaced(client)
}

fn count(metrics: &Metrics, verb: &str, result: &str) -> u64 {
    let text = metrics.render().unwrap();
    let name = "udht_kubernetes_requests_total";
    let line = format!("{name}{{resource=\"secrets\",result=\"{result}\",verb=\"{verb}\"}} ");
    let value = text.lines().find_map(|text| text.strip_prefix(&line));
    value
        .unwrap_or_else(|| panic!("no {line}"))
        .parse()
        .unwrap()
}

fn word<T: std::fmt::Debug>(result: Result<T, ApiError>) -> &'static str {
    result.unwrap_err().word()
}

#[tokio::test]
async fn a_secret_is_read_and_written_and_each_request_is_counted() {
    let api = Api::start().await;
    let metrics = Metrics::new().unwrap();
    let bounds = ApiBounds::default();
    let secrets = secrets(api.client(&bounds, &metrics).await);
    api.says("get", Say::Body(200, SECRET.to_owned()));
    api.says(
        "update",
        Say::Body(409, r#"{"code":409,"message":"newer"}"#.to_owned()),
    );
    let secret = within(bounds.whole, secrets.get(NAME)).await.unwrap();
    let params = PostParams::default();
    let written = within(bounds.whole, secrets.replace(NAME, &params, &secret)).await;
    let refused = written.unwrap_err();
    assert_eq!(refused.to_string(), "the Kubernetes API answers 409: newer");
    assert_eq!(refused.word(), "conflict");
    assert_eq!(count(&metrics, "get", "ok"), 1);
    assert_eq!(count(&metrics, "update", "conflict"), 1);
    let asked = api.asked_times("get", 1).await;
    assert_eq!(
        asked[0].path,
        "/api/v1/namespaces/files/secrets/udht-authority"
    );
}

#[tokio::test]
async fn a_token_that_was_renewed_is_used_at_once() {
    let api = Api::start().await;
    let metrics = Metrics::new().unwrap();
    let secrets = secrets(api.client(&ApiBounds::default(), &metrics).await);
    api.says("get", Say::Body(200, SECRET.to_owned()));
    secrets.get(NAME).await.unwrap();
    api.token("second");
    secrets.get(NAME).await.unwrap();
    // A file that is just being replaced is no reason to say nothing.
    std::fs::remove_file(api.folder.path().join("token")).unwrap();
    secrets.get(NAME).await.unwrap();
    let asked = api.asked_times("get", 3).await;
    let tokens: Vec<_> = asked.iter().map(|asked| asked.token.as_str()).collect();
    assert_eq!(tokens, ["Bearer first", "Bearer second", "Bearer second"]);
    assert_eq!(metrics.kubernetes.token_changes.get(), 1);
}

#[tokio::test]
async fn without_a_token_nothing_is_asked_and_the_reason_is_said() {
    let api = Api::start().await;
    let metrics = Metrics::new().unwrap();
    let bounds = ApiBounds::default();
    let secrets = secrets(api.client(&bounds, &metrics).await);
    std::fs::remove_file(api.folder.path().join("token")).unwrap();
    let error = within(bounds.whole, secrets.get(NAME)).await.unwrap_err();
    assert_eq!(error.word(), "no_token");
    let text = udht_tell::chain(&error);
    assert!(text.contains("no token can be read from "), "{text}");
    assert_eq!(count(&metrics, "get", "no_token"), 1);
}

#[tokio::test]
async fn an_answer_that_does_not_begin_or_not_go_on_is_given_up() {
    let api = Api::start().await;
    let metrics = Metrics::new().unwrap();
    let bounds = ApiBounds {
        answer: SHORT,
        silence: SHORT,
        ..ApiBounds::default()
    };
    let secrets = secrets(api.client(&bounds, &metrics).await);
    let get = || soon("the request ends", within(bounds.whole, secrets.get(NAME)));
    api.says("get", Say::Nothing);
    assert_eq!(word(get().await), "timed_out");
    assert_eq!(count(&metrics, "get", "timed_out"), 1);
    api.says("get", Say::Beginning(r#"{"kind":"#.to_owned()));
    assert_eq!(word(get().await), "timed_out");
    assert_eq!(count(&metrics, "get", "ok"), 1, "it began");
    let params = WatchParams::default();
    api.says("watch", Say::Nothing);
    let watch = within(bounds.whole, secrets.watch(&params, "1"));
    let watched = soon("the watch ends", watch).await.map(drop);
    assert_eq!(word(watched), "timed_out");
}

#[tokio::test]
async fn a_list_as_a_whole_has_its_time() {
    let api = Api::start().await;
    let metrics = Metrics::new().unwrap();
    let secrets = secrets(api.client(&ApiBounds::default(), &metrics).await);
    api.says("list", Say::Beginning(r#"{"items":"#.to_owned()));
    let params = ListParams::default();
    let listed = soon("the list ends", within(SHORT, secrets.list(&params))).await;
    assert_eq!(word(listed), "timed_out");
}

#[tokio::test]
async fn an_answer_beyond_all_measure_is_not_read() {
    let api = Api::start().await;
    let metrics = Metrics::new().unwrap();
    let bounds = ApiBounds {
        bytes_max: 1_000,
        ..ApiBounds::default()
    };
    let secrets = secrets(api.client(&bounds, &metrics).await);
    api.says("get", Say::Body(200, "x".repeat(100_000)));
    let error = within(bounds.whole, secrets.get(NAME)).await.unwrap_err();
    let text = udht_tell::chain(&error);
    assert!(text.contains("more than 1000 bytes"), "{text}");
}

#[tokio::test]
async fn nobody_there_is_known_and_soon_forgotten() {
    let api = Api::start().await;
    let metrics = Metrics::new().unwrap();
    let bounds = ApiBounds::default();
    let secrets = secrets(api.client(&bounds, &metrics).await);
    let place = api.end().await;
    assert_eq!(
        word(within(bounds.whole, secrets.get(NAME)).await),
        "unreachable"
    );
    let api = Api::again(place).await;
    api.says("get", Say::Body(200, SECRET.to_owned()));
    within(bounds.whole, secrets.get(NAME)).await.unwrap();
    assert_eq!(count(&metrics, "get", "unreachable"), 1);
}

#[tokio::test]
async fn whoever_is_no_pod_is_told_what_to_say() {
    let api = Api::start().await;
    let metrics = Metrics::new().unwrap();
    let bounds = Bounds::default().kubernetes;
    let mut args = api.args();
    let path = api.folder.path().join("none");
    args.kubeconfig = Some(path.clone());
    let missing = client(&args, &bounds, &metrics.kubernetes).await;
    let text = missing.err().unwrap().to_string();
    assert!(text.starts_with(path.to_str().unwrap()), "{text}");
    args.kubeconfig = None;
    let nowhere = client(&args, &bounds, &metrics.kubernetes).await;
    let nowhere = nowhere.err().unwrap();
    assert!(matches!(nowhere, ClientError::NotInCluster(_)), "{nowhere}");
    assert!(nowhere.to_string().contains("--kubeconfig"), "{nowhere}");
}

#[tokio::test]
async fn a_watch_tells_event_by_event_and_ends() {
    let api = Api::start().await;
    let metrics = Metrics::new().unwrap();
    let secrets = secrets(api.client(&ApiBounds::default(), &metrics).await);
    api.says("watch", Say::Events);
    let params = WatchParams::default();
    let events = secrets.watch(&params, "7").await.unwrap();
    let mut events = std::pin::pin!(events);
    api.send(Part::Event(format!(
        "{{\"type\":\"MODIFIED\",\"object\":{SECRET}}}"
    )));
    let event = soon("the event arrives", events.try_next()).await.unwrap();
    assert!(matches!(event, Some(WatchEvent::Modified(_))));
    api.send(Part::End);
    assert!(
        soon("the watch ends", events.try_next())
            .await
            .unwrap()
            .is_none()
    );
    api.says("watch", Say::End);
    let events = secrets.watch(&params, "7").await.unwrap();
    let mut events = std::pin::pin!(events);
    assert!(
        soon("the watch ends", events.try_next())
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(count(&metrics, "watch", "ok"), 2);
}
