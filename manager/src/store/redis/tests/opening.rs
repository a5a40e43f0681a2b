//! Openings: by whom, at which servers, and what is said of those that will not do.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

async fn refusal(url: &str) -> String {
    match try_open(url, 8).await {
        Ok(_) => panic!("{url} was opened"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_manager_is_refused_and_told_of_the_first() {
    let server = Server::start(&[]);
    let first = open(&server.url(), 1).await;
    let refused = refusal(&server.url()).await;
    let process = format!("process {} on pod", std::process::id());
    assert!(refused.contains(&process), "{refused}");
    assert!(refused.contains("(connected from 127."), "{refused}");
    first.commit(one(1, 1)).await.expect("commits");
    let (address, other) = (
        server.url(),
        open(&format!("{}?prefix=other:", server.url()), 2).await,
    );
    assert!(
        scan(&other, &peers()).await.is_empty(),
        "another prefix is another store"
    );
    drop(first);
    open(&address, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_of_before_the_servers_restart_is_no_lock() {
    let server = Server::start(&[]);
    let first = open(&server.url(), 1).await;
    first.commit(one(1, 1)).await.expect("commits");
    server.kill();
    drop(first);
    server.start_again();
    // Clients are numbered anew, so one with the number in the lock lives.
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(server.connection().await);
    }
    let second = open(&server.url(), 2).await;
    assert_eq!(conformance::read(&second, 1).await, self::stored(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let server = Server::start(&[]);
    server.kill();
    let url = server.url();
    let opened = tokio::spawn(async move { open(&url, 1).await });
    server.start_again();
    opened.await.expect("opens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_needed_where_there_is_one() {
    let server = Server::start(&[]);
    let url = |user: &str| {
        server
            .url()
            .replace("redis://", &format!("redis://{user}@"))
    };
    server
        .tell("ACL SETUSER reader on >word ~udht:* +@read +@connection +@transaction")
        .await;
    let rights = "+hello +select +watch +multi +exec +get +set +hset +hmget +hdel +hlen +hscan \
                  +unlink +client|list";
    server
        .tell(&format!("ACL SETUSER udht on >word ~udht:* {rights}"))
        .await;
    server.tell("CONFIG SET requirepass secret").await;
    assert!(refusal(&server.url()).await.contains("needs a password"));
    for user in [":wrong", "udht:wrong", "nobody:word"] {
        let refused = refusal(&url(user)).await;
        assert!(
            refused.contains("does not know this user with this password"),
            "{refused}"
        );
        assert!(!refused.contains("wrong"), "{refused}");
    }
    let refused = refusal(&url("reader:word")).await;
    assert!(refused.contains("give it that in its ACL"), "{refused}");
    let store = open(&url(":secret"), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    drop(store);
    let store = open(&url("udht:word"), 2).await;
    store.commit(one(1, 2)).await.expect("commits");
    assert_eq!(scan(&store, &peers()).await.len(), 1);
    store.commit(removal([1])).await.expect("commits");
    store
        .start_over(draw(3), Vec::new())
        .await
        .expect("starts over");
    store.check().await.expect("as it was left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_apart() {
    let server = Server::start(&[]);
    let store = open(&format!("{}/3", server.url()), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    assert_eq!(server.tell("DBSIZE").await, Value::Int(0));
    let refused = refusal(&format!("{}/99", server.url())).await;
    assert!(refused.contains("does not have the database"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_and_the_servers_name_checked() {
    let server = Server::start(&[]);
    let ip = server.address().ip().to_string();
    let home = tempfile::tempdir().expect("a directory");
    let path = |name: &str| home.path().join(name).display().to_string();
    let mut params = CertificateParams::new(Vec::new()).expect("a certificate");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    let authority = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, authority).expect("signs");
    std::fs::write(path("ca.pem"), authority.pem()).expect("writes");
    for (name, subject) in [("server", ip.as_str()), ("client", "udht")] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([subject.to_owned()]).expect("a certificate");
        params.distinguished_name.push(DnType::CommonName, name);
        let signed = params.signed_by(&key, &authority).expect("signs");
        std::fs::write(path(&format!("{name}.pem")), signed.pem()).expect("writes");
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).expect("writes");
    }
    let server = server.with(&[
        "--tls-cert-file",
        &path("server.pem"),
        "--tls-key-file",
        &path("server.key"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
    ]);
    let secure = server.url().replace("redis://", "rediss://");
    let whole = format!(
        "{secure}?ca={}&cert={}&key={}",
        path("ca.pem"),
        path("client.pem"),
        path("client.key")
    );
    let store = open(&whole, 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    assert_eq!(conformance::read(&store, 1).await, self::stored(1));
    drop(store);
    for (url, part) in [
        (secure.clone(), "?ca=FILE"),
        (
            format!("{secure}?ca={}", path("ca.pem")),
            "?cert=FILE&key=FILE",
        ),
        (format!("{secure}?ca={}", path("missing")), "missing"),
        (
            format!("{secure}?ca={}", path("client.key")),
            "no certificate in it",
        ),
    ] {
        let refused = refusal(&url).await;
        assert!(refused.contains(part), "{url}: {refused}");
    }
    // Each of the two, met with the other's URL, may still be on its way to what it should be.
    let plain = Server::start(&[]);
    let mixed = plain.url().replace("redis://", "rediss://");
    for (url, part) in [
        (server.url(), "whether it wants TLS"),
        (
            format!("{mixed}?ca={}", path("ca.pem")),
            "speaks TLS at that port",
        ),
    ] {
        let url = RedisUrl::parse(&url).expect("a URL");
        let fault = Connection::open(&url, "test")
            .await
            .err()
            .expect("a refusal");
        let said = fault.in_use("it").to_string();
        assert!(said.contains(part), "{said}");
    }
}

/// A server that answers everything with `answer`.
async fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind(server::free_address())
        .await
        .expect("binds");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut asked = [0; 512];
            let _ = client.read(&mut asked).await;
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    format!("redis://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_server_that_will_do_is_refused_with_what_would() {
    for (answer, part) in [
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "something else than the protocol of Redis",
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n",
            "something else than the protocol of Redis",
        ),
        ("+OK\r\n", "that Redis would not give"),
        (
            "-ERR unknown command 'HELLO'\r\n",
            "Redis 6.2 or later is needed",
        ),
        (
            "-DENIED Redis is running in protected mode\r\n",
            "give it a password",
        ),
        (
            "*8\r\n$7\r\nversion\r\n$5\r\n6.0.9\r\n$2\r\nid\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n\
             $4\r\nrole\r\n$6\r\nmaster\r\n",
            "and it is 6.0.9",
        ),
        (
            "*4\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$4\r\nmode\r\n$7\r\ncluster\r\n",
            "Redis Cluster",
        ),
        (
            "*4\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$4\r\nmode\r\n$8\r\nsentinel\r\n",
            "is a sentinel",
        ),
    ] {
        let refused = refusal(&answering(answer).await).await;
        assert!(refused.contains(part), "{answer}: {refused}");
        assert!(refused.starts_with("cannot open redis://127."), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_store_says_of_itself_is_checked() {
    let state = format!("{PREFIX}{}:_state", draw(1).store);
    let meta = format!("{PREFIX}meta");
    for tampering in [
        format!("HSET {meta} format 0"),
        format!("HSET {meta} format one"),
        format!("HDEL {meta} format"),
        format!("HDEL {meta} store"),
        format!("HSET {meta} store none"),
        format!("HSET {meta} peer_id no/key"),
        format!("SET {meta} text"),
        format!("HDEL {state} origin"),
        format!("HSET {state} retired x"),
        format!("HSET {state} last_reading x"),
        format!("HSET {state} commits -1"),
        format!("SET {state} text"),
        format!("SET {PREFIX}lock text"),
    ] {
        let server = Server::start(&[]);
        drop(open(&server.url(), 1).await);
        server.tell(&tampering).await;
        let error = try_open(&server.url(), 2).await.err().expect("a refusal");
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{tampering}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_an_earlier_build_opens_and_keeps_floors_from_then_on() {
    let server = Server::start(&[]);
    let state = format!("{PREFIX}{}:_state", draw(1).store);
    drop(open(&server.url(), 1).await);
    let kept = server.tell(&format!("HEXISTS {state} floors")).await;
    assert_eq!(kept, Value::Int(0));
    for field in [&b"vector"[..], b"known", b"fenced"] {
        let made = server.say(&[b"HSET", state.as_bytes(), field, b""]).await;
        assert_eq!(made, Value::Int(1));
    }
    let store = open(&server.url(), 2).await;
    assert!(store.opening().floors.is_empty());
    let floors = Commit {
        floors: Some(b"kept".to_vec()),
        ..Commit::default()
    };
    store.commit(floors).await.expect("commits");
    drop(store);
    assert_eq!(open(&server.url(), 3).await.opening().floors, b"kept");
}
