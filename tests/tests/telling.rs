//! What real programs tell of themselves: no flood under faults, no secret at any level, and a
//! bundle with what a maintainer would ask for.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions};
use udht_tests::process::{PATIENCE, program};
use udht_tests::recipe::is_installed;

const PASSWORD: &str = "planted-Pa55word-of-redis";
const USER: &str = "planted-user";
const CLUSTER: &str = "demo";

/// A program whose whole log is kept.
struct Running {
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
}

impl Running {
    fn start(program: &Path, arguments: &[String]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let log = Vec::new();
        Self { child, lines, log }
    }

    /// The next line in which `part` is.
    fn says(&mut self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no {part:?} in {:#?}", self.log));
            self.log.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// The address behind these words in the message of its next line with them.
    fn listens(&mut self, words: &str) -> String {
        let line = self.says(words);
        let (_, rest) = line.split_once(words).unwrap();
        let end = rest.find([' ', '"']).unwrap();
        rest[..end].to_owned()
    }

    /// Ends it as SIGTERM does; its whole log.
    fn stop(mut self) -> Vec<String> {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        // The channel ends with the program.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.log.push(line);
        }
        self.child.wait().unwrap();
        std::mem::take(&mut self.log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn manager(store: &str, more: &[&str]) -> (Running, String) {
    let arguments = ["serve", "--listen=127.0.0.1:0", "--peer-ip=10.0.0.7"];
    let store = format!("--store={store}");
    let cluster = format!("--cluster={CLUSTER}");
    let arguments = arguments.iter().chain(more).map(|it| (*it).to_owned());
    let arguments: Vec<_> = arguments.chain([store, cluster]).collect();
    let mut running = Running::start(&program("udht-manager").unwrap(), &arguments);
    let address = running.listens("listening on ");
    (running, format!("http://{address}"))
}

/// A sync, with its exchange address and where it tells of itself.
fn sync(manager: &str, more: &[String]) -> (Running, String, String) {
    let arguments = [
        "serve".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--ops-listen=127.0.0.1:0".to_owned(),
        format!("--manager={manager}"),
        format!("--cluster={CLUSTER}"),
    ];
    let arguments: Vec<_> = arguments.into_iter().chain(more.iter().cloned()).collect();
    let mut running = Running::start(&program("udht-sync").unwrap(), &arguments);
    let line = running.says("listening on ");
    let (_, rest) = line.split_once("listening on ").unwrap();
    let exchange = rest.split(' ').next().unwrap().to_owned();
    let (_, rest) = rest.split_once(" and on ").unwrap();
    let ops = rest.split(' ').next().unwrap();
    (running, exchange, format!("http://{ops}"))
}

/// What `--tls files:FOLDER` needs; its key, in PEM.
fn credentials(folder: &Path) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new([format!("{CLUSTER}.udht.internal")]).unwrap();
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &authority).unwrap();
    let files = [
        ("ca.crt", authority.pem()),
        ("tls.crt", leaf.pem()),
        ("tls.key", key.serialize_pem()),
    ];
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    key.serialize_pem()
}

/// The files of a bundle, read by the rules of tar.
fn files(bundle: &[u8]) -> BTreeMap<String, String> {
    let tar = zstd::decode_all(bundle).unwrap();
    let (mut tar, mut files) = (&tar[..], BTreeMap::new());
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.trim_end_matches('\0').to_owned()
    };
    while tar.len() > 1_024 {
        let (header, rest) = tar.split_at(512);
        let size = usize::from_str_radix(&text(&header[124..136]), 8).unwrap();
        let name = text(&header[..100]).replace("udht-bundle/", "");
        files.insert(name, text(&rest[..size]));
        tar = &rest[size.next_multiple_of(512)..];
    }
    files
}

fn bundle(manager: &str, ops: &str) -> BTreeMap<String, String> {
    let output = Command::new(program("udht-manager").unwrap())
        .args([
            "--manager",
            manager,
            "bundle",
            "--records",
            "--sync-ops",
            ops,
        ])
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    files(&output.stdout)
}

/// A Redis that wants a password; `None` where there is no server.
fn redis(folder: &Path) -> Option<(Running, String)> {
    if !is_installed("redis-server").unwrap() {
        println!("skipped: redis-server is needed");
        return None;
    }
    let port = free_port();
    let (password, number) = (format!(">{PASSWORD}"), port.to_string());
    let arguments = [
        &["--port", &number, "--bind", "127.0.0.1"][..],
        &["--save", "", "--dir", folder.to_str().unwrap()],
        &["--user", USER, "on", &password, "~*", "&*", "+@all"],
        &["--logfile", "/dev/stderr"],
    ];
    let arguments: Vec<_> = arguments.concat().into_iter().map(str::to_owned).collect();
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|it| it.join("redis-server"));
    let program: PathBuf = found.into_iter().find(|it| it.is_file()).unwrap();
    let mut server = Running::start(&program, &arguments);
    server.says("Ready to accept connections");
    Some((
        server,
        format!("redis://{USER}:{PASSWORD}@127.0.0.1:{port}/0"),
    ))
}

fn secrets_of(key: &str) -> Vec<String> {
    let lines = key.lines().filter(|line| !line.starts_with('-'));
    let lines = lines.map(str::to_owned);
    lines.chain([PASSWORD, USER].map(str::to_owned)).collect()
}

#[test]
fn a_bundle_has_what_a_maintainer_asks_for_and_no_secret_is_in_it_nor_in_any_log() {
    let folder = tempfile::tempdir().unwrap();
    let Some((server, store)) = redis(folder.path()) else {
        return;
    };
    let key = credentials(folder.path());
    let secrets = secrets_of(&key);
    assert!(secrets.len() > 3, "{}", secrets.len());
    let (mut manager, url) = manager(&store, &["--log=trace", "--peer-label=zone=a"]);
    let nobody = format!("--discovery=fixed:127.0.0.1:{}", free_port());
    let tls = format!("--tls=files:{}", folder.path().display());
    let more = [
        nobody,
        tls,
        "--log=trace".to_owned(),
        "--sync-interval=50ms".to_owned(),
    ];
    let (mut sync, exchange, ops) = sync(&url, &more);
    sync.says("an exchange failed");
    // Somebody who speaks no TLS.
    let mut stranger = TcpStream::connect(&exchange).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    sync.says("no connection from a peer");

    let found = bundle(&url, &ops);
    let json = |name: &str| -> Value {
        let text = found
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {found:#?}"));
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
    };
    let about = json("manager/about.json");
    let flags = about["flags"].as_array().unwrap();
    let shown = flags.iter().find(|flag| flag["name"] == "--store").unwrap();
    assert!(
        shown["value"]
            .as_str()
            .unwrap()
            .starts_with("redis://***@127.0.0.1:")
    );
    assert_eq!(shown["from"], "flag");
    assert_eq!(about["release"], env!("CARGO_PKG_VERSION"));
    assert_eq!(about["table"]["records"], 1);
    assert_eq!(json("sync/about.json")["program"], "udht-sync");
    assert_eq!(json("manager/identity.json")["labels"]["zone"], "a");
    assert_eq!(json("manager/replicas.json")["store"], about["store"]);
    assert_eq!(json("sync/peers.json")["peers"][0]["reachable"], false);
    assert_eq!(json("sync/log-filter.json")["filter"], "trace");
    assert_eq!(found["manager/ready.txt"], "ok");
    assert!(found["manager/metrics.txt"].contains("udht_records"));
    assert!(found["sync/metrics.txt"].contains("udht_peers_known"));
    assert!(found["manager/records.ndjson"].contains("10.0.0.7"));
    for (log, line) in [
        ("manager/logs.ndjson", "listening on"),
        ("sync/logs.ndjson", "no connection from a peer"),
    ] {
        assert!(found[log].contains(line), "{log}");
        for line in found[log].lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(
                line["level"].is_string() && line["message"].is_string(),
                "{line}"
            );
        }
    }
    let readme = &found["README.txt"];
    // With a fixed list of peers nobody knows whose pods are gone.
    assert!(
        readme.contains("sync/gone.json") && readme.contains("status 409"),
        "{readme}"
    );

    // Errors of the store name it.
    drop(server);
    manager.says("lost the store");
    let peer = json!({"name": "a", "ip": "10.0.0.8", "ports": {}, "labels": {}});
    let answer = http::put(&agent(), &format!("{url}/v1/peers/a"), &peer).unwrap();
    assert_eq!(answer.status, 503);
    let after = bundle(&url, &ops);
    assert!(after["manager/logs.ndjson"].contains("lost the store"));
    // Whoever has lost the store is not ready, and says why in words.
    assert!(after["manager/ready.txt"].contains("redis://127.0.0.1"));
    let told = [answer.body.to_string()];
    let bundles = found.values().chain(after.values()).chain(&told);
    let logs = [sync.stop(), manager.stop()].concat();
    for text in bundles.chain(&logs) {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{secret} is in {text}");
        }
    }
}

#[test]
fn a_dead_sync_and_a_manager_that_still_loads_keep_nothing_else_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("embedded:{}", folder.path().join("udht.redb").display());
    let (manager, url) = manager(&store, &[]);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let found = bundle(&url, &nobody);
    assert!(found["manager/logs.ndjson"].contains("listening on"));
    assert!(!found.contains_key("sync/logs.ndjson"));
    assert!(found["README.txt"].contains("Connection refused"));
    drop(manager);

    // It waits for a Redis that is not there.
    let listen = format!("127.0.0.1:{}", free_port());
    let away = format!("--store=redis://127.0.0.1:{}", free_port());
    let listening = format!("--listen={listen}");
    let arguments = ["serve", &listening, &away].map(str::to_owned);
    let mut loading = Running::start(&program("udht-manager").unwrap(), &arguments);
    loading.says("waiting for the store");
    let found = bundle(&format!("http://{listen}"), &nobody);
    assert!(found["manager/logs.ndjson"].contains("waiting for the store"));
    assert!(found["manager/ready.txt"].contains("loading"));
}

/// The lines of a log that tell of trouble, and how much was left out of it in all.
fn troubles(log: &[String]) -> (usize, u64) {
    let lines: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let troubles = lines.iter().filter(|line| line["level"] != "INFO");
    let left_out = lines.iter().filter_map(|line| line["times"].as_u64()).sum();
    (troubles.count(), left_out)
}

#[test]
fn a_storm_of_strangers_and_of_dead_peers_is_a_few_lines_and_a_count() {
    const STRANGERS: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    credentials(folder.path());
    let store = format!("embedded:{}", folder.path().join("udht.redb").display());
    let (_manager, url) = manager(&store, &[]);
    let port = free_port();
    let dead: Vec<_> = (2..42)
        .map(|last| format!("127.0.9.{last}:{port}"))
        .collect();
    let more = [
        format!("--discovery=fixed:{}", dead.join(",")),
        format!("--tls=files:{}", folder.path().display()),
        "--sync-interval=50ms".to_owned(),
    ];
    let (sync, exchange, ops) = sync(&url, &more);
    for _ in 0..STRANGERS {
        let mut stranger = TcpStream::connect(&exchange).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // It is turned away, with or without a word.
        let _ = stranger.read_to_end(&mut Vec::new());
    }
    // Until each of the peers was tried.
    let failed = "udht_exchanges_total{result=\"failed_unreachable\",role=\"initiator\"}";
    let tries = loop {
        let metrics = http::text(&agent(), &format!("{ops}/metrics")).unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(failed));
        let tries: u64 = line.unwrap().trim().parse().unwrap();
        if tries >= 40 {
            break tries;
        }
    };
    let log = sync.stop();
    let (lines, left_out) = troubles(&log);
    // Five for each of the two places, and a summary for each.
    assert!(lines <= 16, "{log:#?}");
    // One of the strangers' kind and five of the peers' were said; all else was counted.
    assert!(
        left_out >= STRANGERS - 5 + tries.min(40) - 5,
        "{left_out}: {log:#?}"
    );
    let counted = log
        .iter()
        .find(|line| line.contains("more times in the last minute: no connection"));
    assert!(counted.is_some(), "{log:#?}");
}

#[test]
fn a_store_that_is_gone_is_a_few_lines_however_many_writes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some((server, store)) = redis(folder.path()) else {
        return;
    };
    let (mut manager, url) = manager(&store, &[]);
    drop(server);
    manager.says("lost the store");
    let agent = agent();
    let peer = json!({"name": "a", "ip": "10.0.0.8", "ports": {}, "labels": {}});
    for number in 0..500 {
        let url = format!("{url}/v1/peers/p{number}");
        assert_eq!(http::put(&agent, &url, &peer).unwrap().status, 503);
    }
    let log = manager.stop();
    let (lines, left_out) = troubles(&log);
    assert!(lines <= 16, "{log:#?}");
    assert!(left_out >= 490, "{left_out}: {log:#?}");
}

/// A collector of traces that keeps the spans, each with the program and the pod that it is of.
fn collector() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, spans) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&stream);
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).unwrap() > 2 {
                let lower = line.to_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            (&stream).write_all(answer.as_bytes()).unwrap();
            let told: Value = serde_json::from_slice(&body).unwrap();
            let of = &told["resourceSpans"][0];
            for span in of["scopeSpans"][0]["spans"].as_array().unwrap() {
                let mut span = span.clone();
                for attribute in of["resource"]["attributes"].as_array().unwrap() {
                    let key = attribute["key"].as_str().unwrap();
                    span[key] = attribute["value"]["stringValue"].clone();
                }
                if sender.send(span).is_err() {
                    return;
                }
            }
        }
    });
    (url, spans)
}

/// The next span of this name that belongs to this trace.
fn span(seen: &mut Vec<Value>, spans: &Receiver<Value>, is: impl Fn(&Value) -> bool) -> Value {
    loop {
        if let Some(span) = seen.iter().find(|span| is(span)) {
            return span.clone();
        }
        let next = spans.recv_timeout(PATIENCE);
        seen.push(next.unwrap_or_else(|_| panic!("not among {seen:#?}")));
    }
}

#[test]
fn a_trace_follows_a_write_into_the_manager_of_another_pod_and_an_exchange_to_its_peer() {
    let folder = tempfile::tempdir().unwrap();
    let (url, spans) = collector();
    let otlp = format!("--otlp={url}");
    let options = ClusterOptions {
        manager_arguments: vec![otlp.clone()],
        sync_arguments: vec![otlp],
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(folder.path(), 2, &options).unwrap();
    cluster.wait_until_joined(&agent()).unwrap();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let peer = json!({"name": "a", "ip": "10.0.0.8", "ports": {}, "labels": {}});
    let answer = agent()
        .put(format!("{}/v1/peers/traced", cluster.pod(1).manager_url()))
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .send_json(&peer)
        .unwrap();
    assert_eq!(answer.status().as_u16(), 201);
    let mut seen = Vec::new();
    let mut next = |program: &str, name: &str, parent: &Value| {
        span(&mut seen, &spans, |span| {
            span["service.name"] == program
                && span["name"] == name
                && span["traceId"] == trace
                && span["parentSpanId"] == *parent
        })
    };
    let write = next("udht-manager", "write", &json!("b7ad6b7169203331"));
    let push = next("udht-sync", "push", &write["spanId"]);
    let answer = next("udht-sync", "answer", &push["spanId"]);
    let merge = next("udht-manager", "merge", &answer["spanId"]);
    assert_ne!(push["service.instance.id"], answer["service.instance.id"]);
    assert_ne!(write["service.instance.id"], merge["service.instance.id"]);
    assert!(merge["endTimeUnixNano"].as_str() >= merge["startTimeUnixNano"].as_str());

    let exchange = span(&mut seen, &spans, |span| span["name"] == "exchange");
    let answered = span(&mut seen, &spans, |span| {
        span["name"] == "answer" && span["traceId"] == exchange["traceId"]
    });
    assert_ne!(
        exchange["service.instance.id"],
        answered["service.instance.id"]
    );
}

#[test]
fn the_level_of_both_is_changed_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("embedded:{}", folder.path().join("udht.redb").display());
    let (manager, url) = manager(&store, &[]);
    let nobody = format!("--discovery=fixed:127.0.0.1:{}", free_port());
    let more = [
        nobody,
        "--tls=off".to_owned(),
        "--log=warn,udht_sync::serve=info".to_owned(),
    ];
    let (mut sync, _, ops) = sync(&url, &more);
    let said = |name: &str, arguments: &[&str]| {
        let output = Command::new(program(name).unwrap())
            .args(arguments)
            .env_clear()
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    };
    let of_sync = |more: &[&str]| {
        said(
            "udht-sync",
            &[&["log-filter", "--ops", &ops], more].concat(),
        )
    };
    let of_manager = |more: &[&str]| {
        said(
            "udht-manager",
            &[&["--manager", &url, "log-filter"], more].concat(),
        )
    };
    assert_eq!(of_sync(&[]).1, "warn,udht_sync::serve=info\n");
    let (code, text) = of_sync(&["debug", "--for", "10m"]);
    assert!(code == 0 && text.starts_with("debug (until 2"), "{text}");
    sync.says("another filter of the log is in use");
    sync.says("\"level\":\"DEBUG\"");
    let (code, text) = of_sync(&["loud"]);
    assert!(
        code == 2 && text.contains("off, error, warn"),
        "{code} {text}"
    );
    assert_eq!(of_manager(&[]).1, "info\n");
    assert_eq!(of_manager(&["trace"]).1, "trace (begun with info)\n");
    let log = manager.stop();
    assert!(
        log.iter().any(|line| line.contains("another filter")),
        "{log:#?}"
    );
}
