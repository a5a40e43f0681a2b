//! The release's own authority: made once, followed, rotated, adopted, and never mixed with another.
//! The Kubernetes API is a stand-in; everything else is as it runs.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use peer_exchange::Address;
use peer_table::{AuthorityId, Binding};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use udht_sync::authority::state::{Authority, Overlap, SECRET_KEY, Signer};
use udht_sync::authority::{SIGNER_LEFT, SIGNER_LIFETIME, issue};
use udht_sync::tls::{ClusterName, Reason};
use udht_sync::wall;
use udht_tell::chain;

use crate::api::Api;
use crate::cli::{is_refused, said, udht_sync};
use crate::pod::{CLUSTER, Pod, Spec, Sync, soon, start};
use crate::stand_in::StandIn;
use crate::tls::{ASK, connect, counts_just, counts_refused, exchange_refused, knock, refused};
use crate::tls_files::exchange_on;

const HOUR: Duration = Duration::from_hours(1);

/// A pod under the authority in the Secret of this API.
fn under(api: &Api) -> Spec {
    let mut spec = Spec {
        tls: "auto".to_owned(),
        flags: vec![api.flag()],
        ..Spec::default()
    };
    spec.bounds.kubernetes.pause = Duration::from_millis(10);
    spec.bounds.kubernetes.pause_max = Duration::from_millis(50);
    spec
}

/// Waits until it has a certificate.
async fn has_certificate(sync: &Sync) {
    sync.counts("udht_tls_certificate_expiry_timestamp_seconds", 1)
        .await;
}

/// Pods under one authority, each with its certificate.
async fn of_one<const N: usize>(api: &Api) -> [Pod; N] {
    let pods = start(std::array::from_fn(|_| under(api))).await;
    for pod in &pods {
        has_certificate(&pod.sync).await;
    }
    pods
}

async fn fails(sync: &Sync, reason: &str) {
    let failures = format!("udht_authority_failures_total{{reason=\"{reason}\"}}");
    sync.counts(&failures, 1).await;
}

async fn exchange(from: &Pod, to: &Pod) {
    let done = from.sync.node.exchange(&to.sync.address).await;
    done.unwrap_or_else(|error| panic!("{}", chain(&error)));
}

fn new_authority() -> Authority {
    issue::authority(SIGNER_LIFETIME).unwrap()
}

fn new_signer(authority: &Authority) -> Signer {
    issue::signer(authority.id(), wall::now(), SIGNER_LIFETIME).unwrap()
}

#[tokio::test]
async fn ten_syncs_that_start_at_once_make_one_authority_and_talk_under_it() {
    let api = Api::start().await;
    let pods: [Pod; 10] = Box::pin(of_one(&api)).await;
    let authority = api.authority().unwrap();
    assert_eq!(api.answered("update", 200), 1, "it is written once");
    assert!(api.answered("update", 409) < 10);
    for pod in &pods {
        assert_eq!(
            pod.manager.cluster(),
            format!("{CLUSTER}#{}", authority.id())
        );
    }
    for pair in pods.windows(2) {
        exchange(&pair[0], &pair[1]).await;
        exchange(&pair[1], &pods[0]).await;
    }
    pods[3].manager.put("key", "value");
    for pod in &pods {
        pod.manager.says("key", "value").await;
    }
    let stage = "udht_authority_rotation_stage";
    assert_eq!(pods[0].sync.metric(stage).await, 0);
    let ends = "udht_authority_expiry_timestamp_seconds";
    assert!(pods[0].sync.metric(ends).await > wall::now().as_millis() / 1_000);
    for reason in Reason::ALL.map(Reason::word) {
        if reason != "no_credentials" {
            assert_eq!(
                refused(&pods[0].sync, "server", reason).await,
                0,
                "{reason}"
            );
        }
    }
}

#[tokio::test]
async fn a_pod_that_comes_later_takes_what_is_there() {
    let api = Api::start().await;
    let there = new_authority();
    api.put(&there);
    let [a, b] = of_one(&api).await;
    exchange(&a, &b).await;
    assert_eq!(api.authority(), Some(there));
    assert_eq!(api.answered("update", 200), 0);
}

#[tokio::test]
async fn a_secret_with_something_else_in_it_is_refused_and_left_as_it_is() {
    let api = Api::start().await;
    for (data, reason) in [
        (("password", &b"dear"[..]), "foreign"),
        ((SECRET_KEY, &b"{\"format\": 1}"[..]), "invalid"),
        ((SECRET_KEY, &b"{\"format\": 2}"[..]), "invalid"),
    ] {
        api.put_data([data]);
        let [pod] = start([under(&api)]).await;
        fails(&pod.sync, reason).await;
        assert_eq!(api.data()[data.0].0, data.1);
        assert_eq!(api.answered("update", 200), 0);
        assert_eq!(pod.sync.ask("/readyz").await.0, 200);
        // It is watched all the same.
        api.put(&new_authority());
        has_certificate(&pod.sync).await;
    }
}

#[tokio::test]
async fn without_the_api_a_pod_is_ready_and_lets_nobody_in_until_the_api_is_back() {
    let api = Api::start().await;
    api.refuse(Some(StatusCode::INTERNAL_SERVER_ERROR));
    let [a, b] = start([under(&api), under(&api)]).await;
    fails(&a.sync, "api").await;
    assert_eq!(a.sync.ask("/readyz").await.0, 200);
    assert_eq!(a.sync.ask("/livez").await.0, 200);
    let error = a.sync.node.exchange(&b.sync.address).await.unwrap_err();
    assert!(chain(&error).contains("no certificate yet"), "{error}");
    let failed = "udht_exchanges_total{result=\"failed_no_credentials\",role=\"initiator\"}";
    assert_eq!(a.sync.metric(failed).await, 1);
    assert_eq!(a.sync.metric("udht_isolated").await, 1);
    let failures = |node: &udht_sync::node::Node| {
        let book = node.book();
        book.peers().map(|(_, peer)| peer.failures).sum::<u32>()
    };
    assert_eq!(failures(&a.sync.node), 0, "the peer is not to blame");

    api.refuse(Some(StatusCode::FORBIDDEN));
    fails(&a.sync, "forbidden").await;
    api.refuse(None);
    has_certificate(&a.sync).await;
    has_certificate(&b.sync).await;
    exchange(&a, &b).await;
    assert_eq!(a.sync.metric("udht_isolated").await, 0);
}

#[tokio::test]
async fn who_is_called_without_a_certificate_says_so() {
    let [lacking, api] = [Api::start().await, Api::start().await];
    lacking.delete();
    let [a] = of_one(&api).await;
    let [b] = start([under(&lacking)]).await;
    fails(&b.sync, "missing").await;
    let refusal = exchange_refused(&a, b.sync.address.as_str()).await;
    assert_eq!(refusal.reason, Reason::NoCredentials);
    counts_refused(&a.sync, "client", "no_credentials").await;
    counts_refused(&b.sync, "server", "no_credentials").await;
    // Then the chart makes the Secret.
    lacking.put_data([]);
    has_certificate(&b.sync).await;
}

#[tokio::test]
async fn a_restart_without_the_api_waits_for_it_and_is_ready() {
    let api = Api::start().await;
    let [a] = of_one(&api).await;
    let Pod { manager, sync } = a;
    sync.end().await;
    api.refuse(Some(StatusCode::SERVICE_UNAVAILABLE));
    // Its manager is still bound.
    let a = Pod::beside(manager, &under(&api), &[]).await;
    fails(&a.sync, "api").await;
    assert_eq!(a.sync.ask("/readyz").await.0, 200);
    api.refuse(None);
    has_certificate(&a.sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_while_exchanges_go_on_and_none_is_dropped() {
    let api = Api::start().await;
    let short = Spec {
        leaf_lifetime: Some(Duration::from_secs(2)),
        ..under(&api)
    };
    let [a, b] = start([short.clone(), short]).await;
    has_certificate(&a.sync).await;
    has_certificate(&b.sync).await;
    let stop = Arc::default();
    let loops = [(&a, &b), (&b, &a)]
        .map(|(one, other)| exchange_on(&one.sync.node, &other.sync.address, &stop));
    for pod in [&a, &b] {
        pod.sync
            .counts("udht_tls_reloads_total{result=\"ok\"}", 2)
            .await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for (_, task) in loops {
        task.await.unwrap();
    }
    assert_eq!(api.answered("update", 200), 1, "nothing of it is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_is_rotated_while_exchanges_go_on_and_the_old_one_is_refused_then() {
    let [api, stale_api] = [Api::start().await, Api::start().await];
    let old = new_authority();
    api.put(&old);
    stale_api.put(&old);
    let mut often = under(&api);
    // It is read anew so often, and so tidied up.
    often.bounds.kubernetes.watch = Duration::from_secs(1);
    let [a, b] = start([often.clone(), often]).await;
    // One that hears of nothing.
    let [stale] = of_one(&stale_api).await;
    has_certificate(&a.sync).await;
    has_certificate(&b.sync).await;
    exchange(&stale, &a).await;

    let stop = Arc::default();
    let mut loops = [(&a, &b), (&b, &a)]
        .map(|(one, other)| exchange_on(&one.sync.node, &other.sync.address, &stop));
    let second = Duration::from_secs(1);
    let overlap = Overlap {
        notice: second,
        leaf_lifetime: second,
    };
    let rotated = old.rotated(new_signer(&old), wall::now(), overlap);
    api.put(&rotated.unwrap());
    let progress = "udht_authority_rotation_stage";
    for pod in [&a, &b] {
        pod.sync.counts(progress, 1).await;
    }
    for pod in [&a, &b] {
        pod.sync.counts(progress, 2).await;
    }
    // Until the end the old one is believed, by whoever signs with the new one.
    let settled = api
        .has("the old key is forgotten", |now| now.rotation.is_none())
        .await;
    assert_ne!(settled.signer, old.signer);
    assert_eq!(settled.binding, old.binding);
    for pod in [&a, &b] {
        // The third certificate, of the new one alone.
        pod.sync
            .counts("udht_tls_reloads_total{result=\"ok\"}", 3)
            .await;
        assert_eq!(pod.sync.metric(progress).await, 0);
    }
    for (counted, _) in &mut loops {
        let target = *counted.borrow() + 20;
        let more = counted.wait_for(|count| *count >= target);
        soon("exchanges go on", more).await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for (_, task) in loops {
        task.await.unwrap();
    }
    let refusal = exchange_refused(&stale, a.sync.address.as_str()).await;
    assert_eq!(refusal.reason, Reason::UnknownAuthority);
    let refusal = exchange_refused(&a, stale.sync.address.as_str()).await;
    assert_eq!(refusal.reason, Reason::UnknownAuthority);
    assert_eq!(
        a.manager.cluster(),
        stale.manager.cluster(),
        "the table stays"
    );
}

#[tokio::test]
async fn an_authority_that_comes_to_its_end_is_rotated_by_itself_once() {
    let api = Api::start().await;
    let mut near = new_authority();
    let lifetime = SIGNER_LEFT.saturating_sub(HOUR);
    near.signer = issue::signer(near.id(), wall::now(), lifetime).unwrap();
    api.put(&near);
    let [a, b] = of_one(&api).await;
    let rotating = api
        .has("a rotation begins", |now| now.rotation.is_some())
        .await;
    assert_eq!(rotating.signer, near.signer);
    for pod in [&a, &b] {
        pod.sync.counts("udht_authority_rotation_stage", 1).await;
    }
    exchange(&a, &b).await;
    assert_eq!(api.answered("update", 200), 1);
}

#[tokio::test]
async fn a_secret_that_was_emptied_is_filled_with_what_was_there() {
    let api = Api::start().await;
    let [a, b] = of_one(&api).await;
    let authority = api.authority();
    api.put_data([]);
    let back = api.has("it is brought back", |_| true).await;
    assert_eq!(Some(back), authority);
    // Deleted, it is missed, and the authority is kept.
    api.delete();
    fails(&a.sync, "missing").await;
    fails(&b.sync, "missing").await;
    exchange(&a, &b).await;
    api.put_data([]);
    let back = api.has("it is brought back", |_| true).await;
    assert_eq!(Some(back), authority);
}

#[tokio::test]
async fn an_authority_that_is_replaced_is_refused_until_it_adopts_the_one_before() {
    let api = Api::start().await;
    let [a, b] = of_one(&api).await;
    let held = api.authority().unwrap();
    let other = new_authority();
    api.put(&other);
    fails(&a.sync, "replaced").await;
    fails(&b.sync, "replaced").await;
    exchange(&a, &b).await;
    assert!(a.manager.cluster().ends_with(&held.id().to_string()));
    assert_eq!(api.authority(), Some(other.clone()), "it is left as it is");

    let flag = api.flag();
    let adopt = ["authority", "adopt", "--yes", &held.id().to_string(), &flag];
    let output = udht_sync(&adopt).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let cluster = format!("{CLUSTER}#{}", other.id());
    for pod in [&a, &b] {
        pod.sync
            .counts("udht_tls_reloads_total{result=\"ok\"}", 1)
            .await;
        assert_eq!(pod.manager.cluster(), cluster);
    }
    exchange(&a, &b).await;
}

#[tokio::test]
async fn a_volume_that_outlived_its_secret_is_not_mixed_until_it_is_adopted() {
    let (api, before) = (Api::start().await, new_authority());
    let [a] = of_one(&api).await;
    let manager = StandIn::start(CLUSTER).await;
    manager.bind_to(before.binding.clone());
    manager.put("old", "1");
    let b = Pod::beside(manager, &under(&api), &[&a.sync.address]).await;
    fails(&b.sync, "bound").await;
    let refusal = exchange_refused(&a, b.sync.address.as_str()).await;
    assert_eq!(refusal.reason, Reason::NoCredentials);
    assert_eq!(b.sync.metric("udht_isolated").await, 1);
    assert_eq!(a.manager.get("old"), None);
    // Its application goes on, and whoever has it adopted does so from within the pod.
    assert_eq!(b.sync.ask("/readyz").await.0, 200);

    let flag = api.flag();
    let adopt = [
        "authority",
        "adopt",
        "--yes",
        &before.id().to_string(),
        &flag,
    ];
    let output = udht_sync(&adopt).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    has_certificate(&b.sync).await;
    exchange(&a, &b).await;
    assert_eq!(a.manager.get("old").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_manager_that_lost_its_store_is_bound_anew() {
    let api = Api::start().await;
    let [a, b] = of_one(&api).await;
    a.manager.unbind();
    let error = a.sync.node.exchange(&b.sync.address).await.unwrap_err();
    assert_eq!(error.word(), "own", "{error}");
    let cluster = b.manager.cluster();
    soon("it is bound", async {
        while a.manager.cluster() != cluster {
            tokio::task::yield_now().await;
        }
    })
    .await;
    exchange(&a, &b).await;
}

#[tokio::test]
async fn a_store_of_another_authority_in_place_of_the_own_one_is_ready_and_not_mixed() {
    let api = Api::start().await;
    let [a, b] = of_one(&api).await;
    a.manager.bind_to(new_authority().binding);
    a.manager.put("other", "1");
    let error = a.sync.node.exchange(&b.sync.address).await.unwrap_err();
    assert_eq!(error.word(), "own", "{error}");
    fails(&a.sync, "bound").await;
    assert_eq!(a.sync.ask("/readyz").await.0, 200);
    let error = b.sync.node.exchange(&a.sync.address).await.unwrap_err();
    assert_eq!(error.word(), "unavailable", "{error}");
    assert_eq!(b.manager.get("other"), None);
}

#[tokio::test]
async fn a_manager_of_another_name_is_not_ready() {
    let api = Api::start().await;
    let manager = StandIn::start("test/other").await;
    let a = Pod::beside(manager, &under(&api), &[]).await;
    fails(&a.sync, "cluster").await;
    let (status, body) = a.sync.ask("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("the same --cluster"), "{body}");
}

#[tokio::test]
async fn pods_of_two_authorities_refuse_each_other() {
    let [one, other] = [Api::start().await, Api::start().await];
    let [[a], [b]] = [of_one(&one).await, of_one(&other).await];
    for (from, to) in [(&a, &b), (&b, &a)] {
        let refusal = exchange_refused(from, to.sync.address.as_str()).await;
        assert_eq!(refusal.reason, Reason::UnknownAuthority);
    }
}

#[tokio::test]
async fn who_bears_another_uuid_is_refused_by_its_name_at_both_ends() {
    let [one, other] = [Api::start().await, Api::start().await];
    let authority = new_authority();
    one.put(&authority);
    // Of the same signer, which is as near as one can come.
    let mut near = authority.clone();
    near.binding = Binding {
        authority: AuthorityId::from_bytes([7; 16]),
        ..authority.binding
    };
    other.put(&near);
    let [[a], [b]] = [of_one(&one).await, of_one(&other).await];
    for (from, to) in [(&a, &b), (&b, &a)] {
        let refusal = exchange_refused(from, to.sync.address.as_str()).await;
        assert_eq!(refusal.reason, Reason::Name);
    }
    counts_refused(&a.sync, "client", "name").await;
    counts_refused(&a.sync, "server", "name").await;
}

/// A client that is no sync, and shows nothing.
fn stranger(
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = authority.signer.certificate.as_bytes();
    roots
        .add(CertificateDer::from_pem_slice(certificate).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
}

#[tokio::test]
async fn no_client_without_a_certificate_and_no_older_tls() {
    let api = Api::start().await;
    let [a] = of_one(&api).await;
    let authority = api.authority().unwrap();
    let name = authority_name(&authority);
    let said = knock(&a, &name, stranger(&authority, &TLS13)).await;
    assert!(said.contains("CertificateRequired"), "{said}");
    counts_just(&a.sync, "server", "no_certificate", 1).await;
    let said = knock(&a, &name, stranger(&authority, &TLS12)).await;
    assert!(said.contains("ProtocolVersion"), "{said}");
    counts_just(&a.sync, "server", "protocol", 1).await;
}

#[tokio::test]
async fn a_connection_lives_through_a_renewal_and_is_told_that_it_is_the_last_answer() {
    let api = Api::start().await;
    let short = Spec {
        leaf_lifetime: Some(Duration::from_secs(3)),
        ..under(&api)
    };
    let [a] = start([short]).await;
    has_certificate(&a.sync).await;
    let authority = api.authority().unwrap();
    let leaf = issue::leaf(&authority, wall::now(), HOUR).unwrap();
    let name = authority_name(&authority);
    let mut stream = connect(&a, &name, leaf.credentials.client()).await.unwrap();
    let renewed = "udht_tls_reloads_total{result=\"ok\"}";
    a.sync.counts(renewed, 1).await;
    stream.write_all(ASK).await.unwrap();
    let mut answer = Vec::new();
    soon("it is closed after it", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.contains("connection: close"), "{answer}");
}

fn authority_name(authority: &Authority) -> String {
    ClusterName::of_authority(authority.id()).to_string()
}

#[tokio::test]
async fn an_exchange_by_hand_takes_the_authority_too_and_writes_nothing() {
    let api = Api::start().await;
    let flag = api.flag();
    let manager = StandIn::start(CLUSTER).await;
    let url = manager.url();
    let by_hand = async |peer: &Address| {
        let peer = peer.to_string();
        let arguments = [
            "exchange",
            &peer,
            "--manager",
            &url,
            "--cluster",
            CLUSTER,
            &flag,
        ];
        udht_sync(&arguments).await
    };
    let nobody: Address = "127.0.0.1:1".parse().unwrap();
    let output = by_hand(&nobody).await;
    assert!(said(&output.stderr).contains("is empty"), "{output:?}");
    assert_eq!(api.answered("update", 200), 0);

    let [a] = of_one(&api).await;
    let output = by_hand(&a.sync.address).await;
    assert_eq!(
        output.status.code(),
        Some(1),
        "its manager is not bound: {output:?}"
    );
    manager.bind_to(api.authority().unwrap().binding);
    let output = by_hand(&a.sync.address).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
}

#[tokio::test]
async fn the_authority_is_shown_without_a_key_and_rotated_one_time_after_the_other() {
    let api = Api::start().await;
    let flag = api.flag();
    is_refused(&["authority", "show", &flag], 1, "is empty").await;
    is_refused(&["authority", "rotate", &flag], 1, "is empty").await;
    let authority = new_authority();
    api.put(&authority);
    let output = udht_sync(&["authority", "rotate", &flag, "--rotation-overlap=1h"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let rotating = api.authority().unwrap();
    assert!(rotating.rotation.is_some());
    is_refused(&["authority", "rotate", &flag], 1, "--finish").await;
    for more in [&[][..], &["--json"]] {
        let output = udht_sync(&[&["authority", "show", &flag], more].concat()).await;
        let shown = said(&output.stdout);
        assert!(shown.contains(&authority.id().to_string()), "{shown}");
        assert!(shown.contains(&authority.signer.name), "{shown}");
        assert!(
            shown.contains(&rotating.rotation.as_ref().unwrap().next.name),
            "{shown}"
        );
        assert!(
            !shown.contains("PRIVATE") && !shown.contains("key"),
            "{shown}"
        );
        assert!(
            shown.contains(&issue::sha256(&authority.signer).unwrap()),
            "{shown}"
        );
    }
    let own = authority.id().to_string();
    for unasked in [
        &["authority", "rotate", "--finish", &flag][..],
        &["authority", "adopt", &own, &flag],
    ] {
        is_refused(unasked, 2, "Add --yes").await;
    }
    let output = udht_sync(&["authority", "rotate", "--finish", "--yes", &flag]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let finished = api.authority().unwrap();
    assert_eq!(finished.signer, rotating.rotation.unwrap().next);
    is_refused(
        &["authority", "rotate", "--finish", "--yes", &flag],
        1,
        "nothing to finish",
    )
    .await;
    is_refused(
        &["authority", "adopt", "--yes", &own, &flag],
        1,
        "the authority itself",
    )
    .await;
    api.refuse(Some(StatusCode::FORBIDDEN));
    for said in ["its role must allow", "there is no authority"] {
        is_refused(&["authority", "show", &flag], 3, said).await;
    }
}
