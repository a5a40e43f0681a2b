//! Mutual TLS: who is let in, who is not, and what is said and counted of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use peer_exchange::ExchangeError;
use peer_exchange::handshake::HandshakeRefused;
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use udht_sync::http::HttpError;
use udht_sync::tls::{By, Reason, Refused};
use udht_sync::transport::TransportError;
use udht_tell::chain;

use crate::authority::{Authority, Folder, Leaf, NAME, client, server};
use crate::pod::{NEVER, Pod, Spec, Sync, soon, start};

pub(crate) const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A pod with these files.
pub(crate) fn with(folder: &Folder) -> Spec {
    let mut spec = Spec {
        tls: folder.flag(),
        ..Spec::default()
    };
    spec.bounds.tls_look = Duration::from_millis(10);
    spec
}

/// Pods of one authority, and what they have.
async fn of_one<const N: usize>() -> (Authority, [Folder; N], [Pod; N]) {
    let authority = Authority::new("one");
    let folders = std::array::from_fn(|_| Folder::new(&[&authority], &authority.leaf()));
    let pods = start(std::array::from_fn(|pod| with(&folders[pod]))).await;
    (authority, folders, pods)
}

pub(crate) async fn refused(sync: &Sync, side: &str, reason: &str) -> u64 {
    let refused = format!("udht_tls_refused_total{{reason=\"{reason}\",side=\"{side}\"}}");
    sync.metric(&refused).await
}

/// Waits until so many were counted, and sees that it was no more: who is refused may hear of it before
/// it is counted.
pub(crate) async fn counts_just(sync: &Sync, side: &str, reason: &str, count: u64) {
    let name = format!("udht_tls_refused_total{{reason=\"{reason}\",side=\"{side}\"}}");
    sync.counts(&name, count).await;
    assert_eq!(sync.metric(&name).await, count, "{name}");
}

/// Waits until it was counted: one side may know before the other.
pub(crate) async fn counts_refused(sync: &Sync, side: &str, reason: &str) {
    let refused = format!("udht_tls_refused_total{{reason=\"{reason}\",side=\"{side}\"}}");
    sync.counts(&refused, 1).await;
}

/// Exchanges with what is at the address of `with`, and is refused.
pub(crate) async fn exchange_refused(pod: &Pod, with: &str) -> Refused {
    let error = pod.sync.node.exchange(&with.parse().unwrap()).await;
    let error = error.unwrap_err();
    let said = chain(&error);
    let ExchangeError::Remote(source) = error else {
        panic!("{said}");
    };
    match source.downcast_ref() {
        Some(TransportError::Http(HttpError::Refused { source, .. })) => source.clone(),
        _ => panic!("{said}"),
    }
}

/// Connects by TLS; with TLS 1.3 that says nothing yet of what the other side thinks.
pub(crate) async fn connect(
    pod: &Pod,
    name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(pod.sync.address.as_str()).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

/// Connects, asks and is refused.
pub(crate) async fn knock(pod: &Pod, name: &str, config: Arc<ClientConfig>) -> String {
    let knocked = async {
        let mut stream = connect(pod, name, config).await?;
        stream.write_all(ASK).await?;
        stream.read_u8().await
    };
    let error = soon("an answer comes", knocked).await.unwrap_err();
    error.to_string()
}

#[tokio::test]
async fn syncs_with_certificates_of_one_authority_exchange_and_push() {
    let (_, _folders, [a, b]) = of_one().await;
    a.manager.put("pushed", "1");
    b.manager.says("pushed", "1").await;
    a.sync.node.book().replace([]);
    b.sync.node.book().replace([]);
    a.manager.put("left", "2");
    let (report, _) = a.sync.node.exchange(&b.sync.address).await.unwrap();
    assert!(report.is_equal());
    assert_eq!(b.manager.get("left").as_deref(), Some("2"));
    for pod in [&a, &b] {
        for side in ["server", "client"] {
            for reason in Reason::ALL {
                assert_eq!(refused(&pod.sync, side, reason.word()).await, 0);
            }
        }
    }
}

#[tokio::test]
async fn one_handshake_serves_many_exchanges() {
    let (_, _folders, [a, b]) = of_one().await;
    for number in 0..50 {
        b.manager.put(&format!("key-{number}"), "value");
        a.sync.node.book().replace([]);
        b.sync.node.book().replace([]);
        a.sync.node.exchange(&b.sync.address).await.unwrap();
    }
    let handshakes = "udht_tls_handshakes_total{side=\"client\"}";
    assert_eq!(a.sync.metric(handshakes).await, 1);
    let handshakes = "udht_tls_handshakes_total{side=\"server\"}";
    assert_eq!(b.sync.metric(handshakes).await, 1);
}

#[tokio::test]
async fn the_exact_cluster_id_is_still_compared_where_two_ids_have_one_name() {
    let authority = Authority::new("one");
    let folder = Folder::new(&[&authority], &authority.leaf());
    let other = Spec {
        cluster: "test.udht",
        manager_cluster: "test.udht",
        ..with(&folder)
    };
    let [a, b] = start([with(&folder), other]).await;
    let error = a.sync.node.exchange(&b.sync.address).await.unwrap_err();
    let ExchangeError::Refused(refusal) = error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.reason, HandshakeRefused::Cluster);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_and_counted() {
    let (authority, _folders, [a]) = of_one().await;
    let said = knock(&a, NAME, client(&authority, None, &TLS13)).await;
    assert!(said.contains("CertificateRequired"), "{said}");
    counts_just(&a.sync, "server", "no_certificate", 1).await;
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_and_counted_at_both_ends() {
    let [one, two] = ["one", "two"].map(Authority::new);
    let strict = Folder::new(&[&one], &one.leaf());
    let lenient = Folder::new(&[&one, &two], &two.leaf());
    let [a, b] = start([with(&lenient), with(&strict)]).await;
    let refusal = exchange_refused(&a, b.sync.address.as_str()).await;
    assert_eq!(refusal.reason, Reason::UnknownAuthority);
    assert_eq!(refusal.by, By::Peer);
    counts_refused(&a.sync, "client", "unknown_authority").await;
    counts_refused(&b.sync, "server", "unknown_authority").await;
    let failed = "udht_exchanges_total{result=\"failed_tls\",role=\"initiator\"}";
    assert_eq!(a.sync.metric(failed).await, 1);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_and_counted_at_both_ends() {
    // Also if the two are called the same.
    for names in [["one", "two"], ["one", "one"]] {
        let folders = names
            .map(Authority::new)
            .map(|authority| Folder::new(&[&authority], &authority.leaf()));
        let [a, b] = start(folders.each_ref().map(with)).await;
        let refusal = exchange_refused(&a, b.sync.address.as_str()).await;
        assert_eq!(refusal.reason, Reason::UnknownAuthority);
        assert_eq!(refusal.by, By::Us);
        counts_refused(&a.sync, "client", "unknown_authority").await;
        counts_refused(&b.sync, "server", "unknown_authority").await;
    }
}

#[tokio::test]
async fn a_server_of_another_cluster_is_refused_by_its_name() {
    let authority = Authority::new("one");
    let own = Folder::new(&[&authority], &authority.leaf());
    let leaf = authority.leaf_with("other-udht.udht.internal", |_| ());
    let others = Folder::new(&[&authority], &leaf);
    let other = Spec {
        cluster: "other/udht",
        manager_cluster: "other/udht",
        ..with(&others)
    };
    let [a, b] = start([with(&own), other]).await;
    let refusal = exchange_refused(&a, b.sync.address.as_str()).await;
    assert_eq!((refusal.reason, refusal.by), (Reason::Name, By::Us));
    assert!(
        refusal.detail.contains("other-udht.udht.internal"),
        "{refusal}"
    );
    counts_refused(&a.sync, "client", "name").await;
    counts_refused(&b.sync, "server", "name").await;
}

#[tokio::test]
async fn a_client_of_another_cluster_is_refused_by_its_name() {
    let (authority, _folders, [a]) = of_one().await;
    let other = authority.leaf_with("other-udht.udht.internal", |_| ());
    let said = knock(&a, NAME, client(&authority, Some(&other), &TLS13)).await;
    assert!(said.contains("BadCertificate"), "{said}");
    counts_just(&a.sync, "server", "name", 1).await;
}

#[tokio::test]
async fn who_has_expired_is_refused_on_either_side() {
    let (authority, _folders, [a]) = of_one().await;
    let expired = authority.expired_leaf();
    let said = knock(&a, NAME, client(&authority, Some(&expired), &TLS13)).await;
    assert!(said.contains("CertificateExpired"), "{said}");
    counts_just(&a.sync, "server", "expired", 1).await;

    let (address, heard) = serve_once(&expired).await;
    let refusal = exchange_refused(&a, &address).await;
    assert_eq!((refusal.reason, refusal.by), (Reason::Expired, By::Us));
    counts_just(&a.sync, "client", "expired", 1).await;
    let heard = heard.await.unwrap();
    assert!(heard.contains("CertificateExpired"), "{heard}");
}

/// A server that is no sync; and what it heard in its first handshake.
async fn serve_once(leaf: &Leaf) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(server(leaf));
    let heard = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.unwrap_err().to_string()
    });
    (address, heard)
}

#[tokio::test]
async fn an_older_version_of_tls_is_refused() {
    let (authority, _folders, [a]) = of_one().await;
    let leaf = authority.leaf();
    let said = knock(&a, NAME, client(&authority, Some(&leaf), &TLS12)).await;
    assert!(said.contains("ProtocolVersion"), "{said}");
    counts_just(&a.sync, "server", "protocol", 1).await;
    // It is for its version alone.
    let config = client(&authority, Some(&leaf), &TLS13);
    let mut stream = connect(&a, NAME, config).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'H');
}

#[tokio::test]
async fn no_session_is_ever_resumed() {
    let (authority, _folders, [a]) = of_one().await;
    let config = client(&authority, Some(&authority.leaf()), &TLS13);
    for _ in 0..3 {
        let mut stream = connect(&a, NAME, Arc::clone(&config)).await.unwrap();
        stream.write_all(ASK).await.unwrap();
        stream.read_u8().await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn who_speaks_tls_and_who_does_not_tell_each_other() {
    let authority = Authority::new("one");
    let folder = Folder::new(&[&authority], &authority.leaf());
    let [secure, plain] = start([with(&folder), Spec::default()]).await;

    let error = plain.sync.node.exchange(&secure.sync.address).await;
    let said = chain(&error.unwrap_err());
    assert!(said.contains("--tls files:DIR"), "{said}");
    counts_just(&secure.sync, "server", "protocol", 1).await;

    let refusal = exchange_refused(&secure, plain.sync.address.as_str()).await;
    assert_eq!(refusal.reason, Reason::Protocol);
    assert!(refusal.to_string().contains("--tls"), "{refusal}");
    counts_just(&secure.sync, "client", "protocol", 1).await;
    counts_just(&plain.sync, "server", "protocol", 1).await;
}

#[tokio::test]
async fn who_begins_a_handshake_and_is_silent_holds_up_nobody_and_is_closed() {
    let authority = Authority::new("one");
    let folder = Folder::new(&[&authority], &authority.leaf());
    let mut hasty = with(&folder);
    hasty.bounds.server.handshake = Duration::from_millis(300);
    let [a, b] = start([hasty, with(&folder)]).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(a.sync.address.as_str()).await.unwrap();
        stream.write_all(&[22]).await.unwrap();
        silent.push(stream);
    }
    b.sync.node.exchange(&a.sync.address).await.unwrap();
    for mut stream in silent {
        let mut heard = Vec::new();
        let _ = soon("it is closed", stream.read_to_end(&mut heard)).await;
    }
    counts_just(&a.sync, "server", "too_slow", 20).await;
}

#[tokio::test]
async fn who_was_not_let_in_yet_gives_way_to_who_calls_later() {
    let authority = Authority::new("one");
    let folder = Folder::new(&[&authority], &authority.leaf());
    let mut small = with(&folder);
    small.bounds.server.connections_max = 2;
    small.bounds.server.handshake = NEVER;
    let [a, b] = start([small, with(&folder)]).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(a.sync.address.as_str()).await.unwrap());
    }
    b.sync.node.exchange(&a.sync.address).await.unwrap();
    let turned_away = "udht_connections_turned_away_total{port=\"exchange\"}";
    assert_eq!(a.sync.metric(turned_away).await, 4);
    for stream in &mut silent[..4] {
        let heard = soon("it is closed", stream.read(&mut [0])).await;
        assert!(matches!(heard, Ok(0) | Err(_)));
    }
    // The peer keeps its connection, and who calls now takes the place of the last of them.
    let last = connect(
        &a,
        NAME,
        client(&authority, Some(&authority.leaf()), &TLS13),
    )
    .await;
    last.unwrap().write_all(ASK).await.unwrap();
    b.sync.node.exchange(&a.sync.address).await.unwrap();
    assert_eq!(a.sync.metric(turned_away).await, 5);
}

#[tokio::test]
async fn who_is_silent_is_counted_once_it_is_closed() {
    let authority = Authority::new("one");
    let folder = Folder::new(&[&authority], &authority.leaf());
    let mut hasty = with(&folder);
    hasty.bounds.server.handshake = Duration::from_millis(50);
    let [a] = start([hasty]).await;
    let mut stream = TcpStream::connect(a.sync.address.as_str()).await.unwrap();
    let heard = soon("it is closed", stream.read(&mut [0])).await;
    assert_eq!(heard.unwrap(), 0);
    counts_refused(&a.sync, "server", "too_slow").await;
}

#[tokio::test]
async fn who_only_looks_whether_somebody_listens_is_not_counted() {
    let (_, _folders, [a]) = of_one().await;
    let mut stream = TcpStream::connect(a.sync.address.as_str()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert!(heard.is_empty());
    for reason in Reason::ALL {
        assert_eq!(refused(&a.sync, "server", reason.word()).await, 0);
    }
}
