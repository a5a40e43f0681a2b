//! Servers that do not do what is asked, and say why.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_is_read_and_takes_writes_when_it_has_room_again() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server.tell("CONFIG SET maxmemory 1").await;
    let refused = store.commit(one(1, 2)).await.expect_err("it is full");
    assert!(refused.to_string().contains("out of memory"), "{refused}");
    assert_eq!(conformance::read(&store, 1).await, self::stored(1));
    // Also by a new connection, with which not even the lock can be written.
    let clients = server.tell("CLIENT KILL TYPE normal").await;
    assert!(matches!(clients, Value::Int(1..)));
    store.up().await;
    assert_eq!(conformance::read(&store, 1).await, self::stored(1));
    let refused = store.commit(one(1, 2)).await.expect_err("it is full");
    assert!(refused.to_string().contains("out of memory"), "{refused}");
    server.tell("CONFIG SET maxmemory 0").await;
    store.commit(one(1, 3)).await.expect("commits");
    assert_eq!(conformance::read(&store, 1).await, self::stored(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_write_its_disk_says_so_and_recovers() {
    let server = Server::start_with(&[
        "--save",
        "1 1000000",
        "--appendonly",
        "no",
        "--enable-protected-configs",
        "yes",
    ]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    // A directory that is gone takes no dump.
    let directory = server.path("gone");
    std::fs::create_dir(&directory).expect("makes");
    server.tell(&format!("CONFIG SET dir {directory}")).await;
    std::fs::remove_dir(&directory).expect("removes");
    server.tell("BGSAVE").await;
    let connection = server.connection().await;
    let status = [&b"INFO"[..], b"persistence"];
    loop {
        let Value::BulkString(said) = server::say(&connection, &status).await else {
            panic!("INFO is a text");
        };
        if String::from_utf8_lossy(&said).contains("rdb_last_bgsave_status:err") {
            break;
        }
        tokio::task::yield_now().await;
    }
    let refused = store.commit(one(1, 2)).await.expect_err("its disk is full");
    assert!(
        refused.to_string().contains("cannot write to its disk"),
        "{refused}"
    );
    assert_eq!(conformance::read(&store, 1).await, self::stored(1));
    server
        .tell("CONFIG SET stop-writes-on-bgsave-error no")
        .await;
    store.commit(one(1, 3)).await.expect("commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_no_writes_until_it_is_a_primary() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    let nobody = server::free_address();
    server
        .tell(&format!("REPLICAOF {} {}", nobody.ip(), nobody.port()))
        .await;
    let refused = store.commit(one(1, 2)).await.expect_err("it is a replica");
    assert!(
        refused.to_string().contains("read-only replica"),
        "{refused}"
    );
    store.says("read-only replica").await;
    server.tell("REPLICAOF NO ONE").await;
    store.up().await;
    assert_eq!(conformance::read(&store, 1).await, self::stored(1));
    store.commit(one(1, 3)).await.expect("commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_is_said_to_and_recovers() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    let hash = format!("{PREFIX}{}:peers", draw(1).store);
    server.tell(&format!("SET {hash} text")).await;
    let refused = store.commit(one(2, 2)).await.expect_err("it is damaged");
    assert!(refused.to_string().contains("of another type"), "{refused}");
    store.says("of another type").await;
    server.tell(&format!("UNLINK {hash}")).await;
    let changed = store.changed().await;
    assert!(matches!(
        changed,
        StoreError::Changed {
            change: crate::store::Change::Meddled,
            ..
        }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_loses_its_password_waits_for_it() {
    let server = Server::start(&[]);
    server.tell("ACL SETUSER udht on >one ~* +@all").await;
    let url = server.url().replace("redis://", "redis://udht:one@");
    let store = open(&url, 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server.tell("ACL SETUSER udht <one >two").await;
    server.tell("CLIENT KILL TYPE normal").await;
    store
        .says("does not know this user with this password")
        .await;
    server.tell("ACL SETUSER udht >one").await;
    store.up().await;
    store.commit(one(1, 2)).await.expect("commits");
}

#[test]
fn each_answer_that_says_no_is_put_in_words() {
    for (answer, mends_itself, part) in [
        ("NOAUTH Authentication required.", false, "needs a password"),
        (
            "WRONGPASS invalid username-password pair",
            false,
            "see to the ones in the URL",
        ),
        (
            "NOPERM this user has no permissions to run 'exec'",
            false,
            "'exec'",
        ),
        (
            "DENIED Redis is running in protected mode",
            false,
            "give it a password",
        ),
        (
            "LOADING Redis is loading the dataset in memory",
            true,
            "loading its data",
        ),
        (
            "READONLY You can't write against a read only replica.",
            true,
            "name the primary",
        ),
        (
            "MASTERDOWN Link with MASTER is down",
            true,
            "name the primary",
        ),
        (
            "OOM command not allowed when used memory > 'maxmemory'.",
            true,
            "raise its maxmemory",
        ),
        (
            "MISCONF Redis is configured to save RDB snapshots",
            true,
            "make room",
        ),
        (
            "NOREPLICAS Not enough good replicas to write.",
            true,
            "fewer replicas",
        ),
        ("BUSY Redis is busy running a script.", true, "script"),
        ("ERR max number of clients reached", true, "maxclients"),
        ("MOVED 1 127.0.0.1:1", false, "Redis Cluster"),
        (
            "CROSSSLOT Keys in request don't hash to the same slot",
            false,
            "Redis Cluster",
        ),
        ("ERR unknown command 'HELLO'", false, "too old"),
        ("ERR DB index is out of range", false, "database in the URL"),
        (
            "WRONGTYPE Operation against a key holding the wrong kind",
            false,
            "another type",
        ),
        ("NEW something", true, "(NEW something)"),
    ] {
        let reply = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).expect("a reply");
        let Value::ServerError(error) = reply else {
            panic!("{reply:?}");
        };
        let fault = Fault::from(&error);
        assert_eq!(fault.mends_itself(), mends_itself, "{answer}");
        let text = fault.at_opening("redis://cache:6379").to_string();
        assert!(text.contains(part), "{answer}: {text}");
        assert!(text.contains("redis://cache:6379"), "{answer}: {text}");
    }
}
