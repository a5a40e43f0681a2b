use std::time::Duration;

use peer_exchange::ExchangeError;
use peer_exchange::exchange::Kind;
use peer_exchange::handshake::{HandshakeRefused, Identity, Protocols};
use peer_exchange::message::{Answer, Ask, Open, Request, Response};
use peer_exchange::{Address, Own, Remote};
use peer_table::contract::StateRequest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use udht_sync::missed::TOLD_RECORDS_MAX;
use udht_sync::wall;

use crate::pod::{NEVER, Pod, Spec, soon, start, start_default};

#[tokio::test]
async fn a_round_makes_two_tables_equal() {
    let [a, b] = start_default().await;
    let address = &b.sync.address;
    let (first, _) = a.sync.node.exchange(address).await.unwrap();
    assert_eq!(first.kind, Kind::Equal);
    assert_eq!(first.traffic().round_trips, 1);

    // Left to the exchange: nobody pushes to whom the book does not name.
    a.sync.node.book().replace([]);
    b.sync.node.book().replace([]);
    for number in 0..300 {
        a.manager.put(&format!("a-{number}"), "from a");
    }
    a.manager.put("both", "older");
    a.sync.node.exchange(address).await.unwrap();
    a.manager.delete("a-7");
    b.manager.put("b-1", "from b");
    b.manager.put("both", "newer");
    let (report, _) = a.sync.node.exchange(address).await.unwrap();
    assert!(report.is_equal(), "{report:?}");
    assert_eq!(report.kind, Kind::Reconciled);
    assert_eq!(a.manager.digest(), b.manager.digest());
    assert_eq!(b.manager.get("a-1").as_deref(), Some("from a"));
    assert_eq!(a.manager.get("b-1").as_deref(), Some("from b"));
    assert_eq!(b.manager.get("a-7"), None);
    assert_eq!(a.manager.get("both").as_deref(), Some("newer"));

    let began = "udht_exchanges_total{result=\"reconciled\",role=\"initiator\"}";
    assert!(a.sync.metric(began).await >= 1);
    let answered = "udht_exchanges_total{result=\"differed\",role=\"responder\"}";
    assert_eq!(b.sync.metric(answered).await, 2);
    let records = "udht_exchange_records_total{direction=\"received\"}";
    // The record that a deleted is among them: that b holds an older one, only a can tell.
    assert_eq!(a.sync.metric(records).await, 3);
    // Each counts what the other does, the other way round.
    for (one, other) in [("sent", "received"), ("received", "sent")] {
        let bytes = |direction| format!("udht_exchange_bytes_total{{direction=\"{direction}\"}}");
        let counted = a.sync.metric(&bytes(one)).await;
        assert!(counted > 0);
        assert_eq!(counted, b.sync.metric(&bytes(other)).await);
    }
}

#[tokio::test]
async fn what_pushes_missed_and_an_exchange_finds_is_told_to_all() {
    let [a, b, c] = start_default().await;
    a.sync.node.book().replace([]);
    a.manager.put_long_ago("key", "value");
    a.sync.node.exchange(&b.sync.address).await.unwrap();
    c.manager.says("key", "value").await;
}

/// Records that were not pushed in their time go from one pod to the next, each of which knows
/// nobody but the one behind it, though all their rounds are an hour apart.
#[tokio::test]
async fn what_is_too_much_to_tell_is_spread_by_rounds_that_hurry() {
    let mut brisk = Spec::default();
    brisk.bounds.brisk_interval = Duration::from_millis(20);
    let pods: [Pod; 4] = start(std::array::from_fn(|_| brisk.clone())).await;
    let [a, b, c, d] = &pods;
    // All have met somebody, and are equal: this is when they begin to take their time.
    let equal = "udht_exchanges_total{result=\"equal\",role=\"initiator\"}";
    for pod in &pods {
        pod.sync.counts(equal, 1).await;
    }
    for (one, next) in [(b, c), (c, d)] {
        one.sync.node.book().replace([next.sync.address.clone()]);
    }
    for end in [a, d] {
        end.sync.node.book().replace([]);
    }
    for record in 0..=TOLD_RECORDS_MAX {
        a.manager.put_long_ago(&format!("key-{record}"), "value");
    }
    a.sync.node.exchange(&b.sync.address).await.unwrap();
    for pod in [b, c, d] {
        pod.manager.becomes(a.manager.digest()).await;
        assert_eq!(pod.sync.metric("udht_push_seconds_count").await, 0);
    }
}

#[tokio::test]
async fn a_stop_waits_for_the_exchange_that_is_under_way() {
    let mut eager = Spec::default();
    eager.bounds.brisk_interval = Duration::from_millis(20);
    eager.bounds.drain = NEVER;
    let [a, b] = start([eager, Spec::default()]).await;
    let (slow, asked, release) = slow_way_to(&b).await;
    b.manager.put("key", "value");
    a.sync.node.book().replace([slow]);
    soon("a round begins", asked).await.unwrap();
    let Pod { manager, sync } = a;
    let end = sync.end();
    tokio::pin!(end);
    // It is told to stop, and has not.
    assert!(futures_util::poll!(end.as_mut()).is_pending());
    release.send(()).unwrap();
    end.await;
    assert_eq!(manager.digest(), b.manager.digest());
}

/// An address behind which is this pod: the first connection there is told, and goes on once it
/// may.
async fn slow_way_to(pod: &Pod) -> (Address, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (asks, asked) = oneshot::channel();
    let (release, released) = oneshot::channel();
    let pod = pod.sync.address.to_string();
    tokio::spawn(async move {
        let (mut from, _) = listener.accept().await.unwrap();
        asks.send(()).unwrap();
        released.await.unwrap();
        let mut to = TcpStream::connect(pod).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    });
    (address, asked, release)
}

#[tokio::test]
async fn another_cluster_is_refused_and_counted_and_nothing_is_merged() {
    let other = Spec {
        cluster: "other/udht",
        manager_cluster: "other/udht",
        ..Spec::default()
    };
    let [a, b] = start([Spec::default(), other]).await;
    a.manager.put("a", "1");
    b.manager.put("b", "2");
    let before = (a.manager.digest(), b.manager.digest());
    let error = a.sync.node.exchange(&b.sync.address).await.unwrap_err();
    let ExchangeError::Refused(refusal) = error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.reason, HandshakeRefused::Cluster);
    assert_eq!((a.manager.digest(), b.manager.digest()), before);
    let refused = "udht_exchanges_total{result=\"refused_cluster\",role=";
    let began = format!("{refused}\"initiator\"}}");
    assert_eq!(a.sync.metric(&began).await, 1);
    let told = a.sync.ask("/v1/peers").await.1;
    assert!(told.contains("\"refused_cluster\""), "{told}");
    let answered = format!("{refused}\"responder\"}}");
    assert!(b.sync.metric(&answered).await >= 1);
}

#[tokio::test]
async fn a_manager_of_another_cluster_is_said_and_nothing_is_exchanged() {
    let mistaken = Spec {
        manager_cluster: "other/udht",
        ..Spec::default()
    };
    let [a, b] = start([mistaken, Spec::default()]).await;
    let error = a.sync.node.exchange(&b.sync.address).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Own(_)), "{error:?}");
    let (status, body) = a.sync.ask("/readyz").await;
    assert_eq!(status, 503);
    assert!(
        body.contains("other/udht") && body.contains("--cluster"),
        "{body}"
    );
    // Nor is anybody answered.
    let error = b.sync.node.exchange(&a.sync.address).await.unwrap_err();
    assert_eq!(error.word(), "unavailable");
}

#[tokio::test]
async fn a_newer_protocol_is_refused_with_the_versions_that_are_understood() {
    let [a, b] = start_default().await;
    let state = a
        .sync
        .node
        .manager
        .state(&StateRequest::default())
        .await
        .unwrap();
    let newer = Protocols { min: 98, max: 99 };
    let hello = Identity::from_state(&state).unwrap();
    let request = Request {
        hello: hello.hello(99, newer, wall::now()),
        table: "peers".to_owned(),
        ask: Some(Ask::Open(Open::default())),
    };
    let line = a.sync.node.transport.to(&b.sync.address);
    let response = line.ask(request.to_bytes()).await.unwrap();
    let response = Response::from_bytes(&response).unwrap();
    assert!(matches!(response.answer, Some(Answer::Refused(_))));
    let understood = Protocols::of(&response.hello.unwrap());
    assert_eq!(understood, b.sync.node.options.protocols);
    let refused = "udht_exchanges_total{result=\"refused_protocol\",role=\"responder\"}";
    assert_eq!(b.sync.metric(refused).await, 1);
}

#[tokio::test]
async fn the_own_address_in_the_list_is_recognised_and_left_alone() {
    let [a, _b] = start_default().await;
    let node = &a.sync.node;
    let error = node.exchange(&a.sync.address).await.unwrap_err();
    assert_eq!(error.word(), "self");
    assert_eq!(node.book().known(), 1);
    for random in 0..10 {
        let chosen = node.book().choose(node.uptime(), random).cloned();
        assert_ne!(chosen, Some(a.sync.address.clone()));
    }
}

#[tokio::test]
async fn whoever_was_met_has_its_contact_moved_on_both_sides() {
    let [a, b] = start_default().await;
    let [a_id, b_id] = [&a, &b].map(|pod| pod.manager.peer_id().to_string());
    a.sync.node.exchange(&b.sync.address).await.unwrap();
    a.manager.contacted(&b_id).await;
    b.manager.contacted(&a_id).await;
    // The table of a has no such peer yet: the next meeting tries again.
    a.sync.node.exchange(&b.sync.address).await.unwrap();
    assert_eq!(a.manager.contacts(), [b_id.as_str(), b_id.as_str()]);
}
