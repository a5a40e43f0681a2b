//! The program over a server of Redis: what a client sees when that is away, changes hands or is not
//! to be had.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

/// How long anything that is awaited may take. It is no measure of speed: only a hang is that slow.
const PATIENCE: Duration = Duration::from_mins(1);

/// A process and its log, of which nothing is left when this handle is gone.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts: is it installed? `make setup` does it");
        let (sender, lines) = channel();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("its output"));
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("its log"));
        for log in [out, err] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(log).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines }
    }

    /// The next line of its log that has these words.
    fn says(&self, part: &str) -> String {
        let mut seen = String::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("{part:?} was not said:\n{seen}"));
            if line.contains(part) {
                return line;
            }
            seen += &line;
            seen += "\n";
        }
    }

    /// Waits until it ends by itself; its exit code and the rest of its log.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().expect("ends").code();
        (code, self.lines.iter().collect::<Vec<_>>().join("\n"))
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a server of Redis is, or will be, with a directory of its own.
struct Place {
    directory: TempDir,
    address: SocketAddr,
}

impl Place {
    /// An address that no other test has.
    fn new(fourth: u8) -> Self {
        let second = u8::try_from(std::process::id() % 250).expect("below 250") + 1;
        let listener =
            TcpListener::bind((Ipv4Addr::new(127, second, 254, fourth), 0)).expect("a free port");
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            address: listener.local_addr().expect("an address"),
        }
    }

    fn server(&self, arguments: &[&str]) -> Process {
        let server = Process::start(
            Command::new("redis-server")
                .args(["--bind", &self.address.ip().to_string()])
                .args(["--port", &self.address.port().to_string()])
                .args(["--appendonly", "yes", "--appendfsync", "no", "--save", ""])
                .arg("--dir")
                .arg(self.directory.path())
                .args(arguments),
        );
        server.says("Ready to accept connections");
        server
    }

    fn manager(&self, user: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_udht-manager"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("UDHT_")) {
            command.env_remove(name);
        }
        let store = format!("--store=redis://{user}{}?prefix=pod:", self.address);
        let flags = ["--listen=127.0.0.1:0", &store, "--log-format=human"];
        Process::start(command.arg("serve").args(flags))
    }

    /// A manager that listens, and where.
    fn listening(&self) -> (Process, SocketAddr) {
        let manager = self.manager("");
        let line = manager.says("listening on ");
        let (_, rest) = line.split_once("listening on ").expect("an address");
        let address = rest.split_whitespace().next().expect("an address");
        (manager, address.parse().expect("an address"))
    }
}

/// The whole answer to a call.
fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    answer
}

const PEER: &str = r#"{"name":"files-0","ip":"10.0.0.1"}"#;

#[track_caller]
fn expect(answer: &str, status: u16, parts: &[&str]) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
    for part in parts {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

#[test]
fn a_second_manager_is_told_of_the_first_and_takes_over_when_that_is_killed() {
    let place = Place::new(1);
    let _server = place.server(&[]);
    let (mut first, address) = place.listening();
    expect(&call(address, "PUT", "/v1/peers/a", PEER), 201, &[]);
    let (code, log) = place.manager("").end();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains(&format!("is open in process {} on ", first.child.id())),
        "{log}"
    );
    first.child.kill().expect("kills");
    let (_second, address) = place.listening();
    expect(&call(address, "GET", "/v1/peers/a", ""), 200, &["files-0"]);
}

#[test]
fn while_redis_is_away_all_but_what_is_at_hand_is_503_with_retry_after_and_goes_on_when_it_is_back()
{
    let place = Place::new(2);
    let server = place.server(&[]);
    let (manager, address) = place.listening();
    expect(&call(address, "PUT", "/v1/peers/a", PEER), 201, &[]);
    expect(&call(address, "GET", "/readyz", ""), 200, &[]);
    drop(server);
    expect(&call(address, "GET", "/v1/peers/a", ""), 200, &["files-0"]);
    for (method, path, body) in [
        ("GET", "/v1/peers", ""),
        ("PUT", "/v1/peers/b", PEER),
        ("DELETE", "/v1/peers/a", ""),
        ("GET", "/readyz", ""),
    ] {
        let answer = call(address, method, path, body);
        expect(
            &answer,
            503,
            &[
                "retry-after: 1",
                "urn:udht:problem:unavailable",
                "see that it runs",
            ],
        );
    }
    expect(&call(address, "GET", "/livez", ""), 200, &[]);
    let _server = place.server(&[]);
    manager.says("the store is there again");
    expect(&call(address, "GET", "/readyz", ""), 200, &[]);
    expect(&call(address, "GET", "/v1/peers/a", ""), 200, &["files-0"]);
    expect(&call(address, "GET", "/v1/peers/b", ""), 404, &[]);
    expect(&call(address, "PUT", "/v1/peers/b", PEER), 201, &[]);
}

#[test]
fn a_write_of_unknown_outcome_is_said_to_be_one() {
    let place = Place::new(3);
    let server = place.server(&[]);
    let (manager, address) = place.listening();
    expect(&call(address, "PUT", "/v1/peers/a", PEER), 201, &[]);
    server.signal("-STOP");
    let answer = call(address, "PUT", "/v1/peers/b", PEER);
    expect(
        &answer,
        503,
        &[
            "retry-after: 1",
            "urn:udht:problem:outcome-unknown",
            "read again",
        ],
    );
    server.signal("-CONT");
    manager.says("found out about a write of unknown outcome");
    manager.says("the store is there again");
    let read = call(address, "GET", "/v1/peers/b", "");
    let list = call(address, "GET", "/v1/peers", "");
    assert_eq!(
        read.starts_with("HTTP/1.1 200"),
        list.contains(r#""peer_id":"b""#),
        "{read} {list}"
    );
    expect(&list, 200, &[r#""peer_id":"a""#]);
}

#[test]
fn a_start_waits_for_a_server_and_ends_at_a_wrong_password() {
    let place = Place::new(4);
    let manager = place.manager("");
    let waiting = manager.says("waiting for the store");
    assert!(waiting.contains("see that it runs there"), "{waiting}");
    let server = place.server(&[]);
    manager.says("listening on ");
    drop((manager, server));
    let _server = place.server(&["--requirepass", "secret"]);
    let (code, log) = place.manager(":guess@").end();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("does not know this user with this password"),
        "{log}"
    );
    assert!(!log.contains("guess"), "{log}");
}
