//! The program as a process: what only that can show.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use serde_json::Value;

use crate::support::{PATIENCE, peer};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udht-manager"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("UDHT_")) {
        command.env_remove(name);
    }
    command.arg("serve").args(arguments).stdin(Stdio::null());
    command
}

/// A start that is to fail.
fn refused(arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = command(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// A running manager.
struct Program {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Program {
    /// Starts one on a free port, with its store in `folder`, and waits until it listens.
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let store = format!("--store=embedded:{}", folder.join("udht.redb").display());
        let mut all = vec!["--listen=127.0.0.1:0", &store, "--log-format=human"];
        all.extend(arguments);
        let mut child = command(&all).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended: {seen}");
            seen += &line;
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        Self {
            child,
            log,
            address,
        }
    }

    /// Sends these bytes, and reads until the other side closes.
    fn raw(&self, request: &str) -> String {
        let mut stream = self.connect(request);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// Status and JSON of a call.
    fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        ));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it ends by itself; its exit code and the rest of its log.
    fn wait(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_answered_write_survives_kill_9_and_the_pod_stays_who_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path(), &["--peer-name=a", "--peer-ip=10.0.0.1"]);
    let (status, put) = program.call("PUT", "/v1/peers/p1", &peer().to_string());
    assert_eq!(status, 201);
    let (_, own) = program.call("GET", "/v1/identity", "");
    drop(program);

    let program = Program::start(folder.path(), &["--peer-ip=10.0.0.2"]);
    assert_eq!(program.call("GET", "/v1/peers/p1", ""), (200, put));
    let (_, moved) = program.call("GET", "/v1/identity", "");
    assert_eq!(moved["peer_id"], own["peer_id"]);
    assert_eq!(moved["name"], "a");
    assert_eq!(
        (&own["ip"], &moved["ip"]),
        (&"10.0.0.1".into(), &"10.0.0.2".into())
    );
}

#[test]
fn a_foreign_host_is_refused_over_a_real_socket() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path(), &[]);
    for (head, status) in [
        ("GET /v1/peers HTTP/1.1\r\nhost: example.com\r\n", 421),
        ("GET /nowhere HTTP/1.1\r\nhost: example.com:3002\r\n", 421),
        (
            "GET http://example.com/livez HTTP/1.1\r\nhost: localhost\r\n",
            421,
        ),
        (
            "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n",
            421,
        ),
        ("GET /v1/peers HTTP/1.1\r\n", 400),
        ("GET /v1/peers HTTP/1.0\r\n", 400),
        (
            "GET /v1/peers HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n",
            400,
        ),
        ("GET /v1/peers HTTP/1.1\r\nhost: localhost\r\n", 200),
        (
            "GET http://localhost/livez HTTP/1.1\r\nhost: localhost\r\n",
            200,
        ),
        ("GET /livez HTTP/1.0\r\nhost: [::1]:1\r\n", 200),
    ] {
        let answer = program.raw(&format!("{head}connection: close\r\n\r\n"));
        let code = answer.split(' ').nth(1).unwrap();
        assert_eq!(code, status.to_string(), "{head}: {answer}");
        let is_problem = answer.contains("application/problem+json");
        assert_eq!(is_problem, status >= 400, "{head}: {answer}");
    }
}

#[test]
fn sigterm_ends_watches_and_the_process_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let program = Program::start(folder.path(), &[]);
        let request = "GET /v1/peers?watch=true HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let mut watch = BufReader::new(program.connect(request));
        let mut line = String::new();
        while !line.contains("\"start\"") {
            line.clear();
            assert_ne!(watch.read_line(&mut line).unwrap(), 0);
        }
        program.signal(signal);
        let mut rest = String::new();
        watch.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("{\"type\":\"end\",\"revision\":"), "{rest}");
        assert!(rest.ends_with("0\r\n\r\n"), "a whole answer: {rest}");
        let (code, log) = program.wait();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("stopped"), "{log}");
    }
}

#[test]
fn an_address_that_others_reach_is_refused() {
    for address in ["0.0.0.0:3002", "[::]:0", "10.0.0.1:3002"] {
        let (code, log) = refused(&["--listen", address]);
        assert_eq!(code, 2, "{log}");
        assert!(log.contains("is not a loopback address"), "{log}");
        assert!(log.contains("use 127.0.0.1:"), "{log}");
    }
}

#[test]
fn a_store_that_cannot_be_made_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let store = format!("--store=embedded:{}", file.join("udht.redb").display());
    let (code, log) = refused(&["--listen=127.0.0.1:0", &store, "--log-format=human"]);
    assert_eq!(code, 1, "{log}");
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains("cannot open embedded:"), "{log}");
}

#[test]
fn a_second_manager_on_one_store_or_one_port_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path(), &[]);
    let same = format!(
        "--store=embedded:{}",
        folder.path().join("udht.redb").display()
    );
    let (code, log) = refused(&["--listen=127.0.0.1:0", &same]);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("is open in another process"), "{log}");
    let own = format!(
        "--store=embedded:{}",
        folder.path().join("other.redb").display()
    );
    let (code, log) = refused(&["--listen", &program.address.to_string(), &own]);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("choose another --listen"), "{log}");
    assert_eq!(program.call("GET", "/livez", "").0, 200);
}

#[test]
fn flags_that_make_no_record_are_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!(
        "--store=embedded:{}",
        folder.path().join("udht.redb").display()
    );
    let name = format!("--peer-name={}", "x".repeat(300));
    let (code, log) = refused(&["--listen=127.0.0.1:0", &store, "--peer-ip=::1", &name]);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("cannot be made of --peer-name"), "{log}");
    assert!(log.contains("1 to 253 bytes"), "{log}");
}

#[test]
fn the_log_is_json_where_no_terminal_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("--store=embedded:{}", folder.path().display());
    let (code, log) = refused(&["--listen=127.0.0.1:0", &store]);
    assert_eq!(code, 1, "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string(), "{line}");
    }
}

#[test]
fn the_help_names_every_flag_with_its_variable() {
    let Output { stdout, .. } = command(&["--help"]).output().unwrap();
    let help = String::from_utf8(stdout).unwrap();
    for flag in [
        "listen",
        "store",
        "cluster",
        "max-records",
        "max-record-bytes",
        "max-clock-drift",
        "peer-name",
        "peer-ip",
        "peer-port",
        "peer-label",
        "log-format",
        "log",
    ] {
        let variable = format!("UDHT_{}", flag.to_uppercase().replace('-', "_"));
        assert!(help.contains(&format!("--{flag} ")), "{flag}: {help}");
        let said = ["=", "]"].map(|end| format!("[env: {variable}{end}"));
        assert!(said.iter().any(|it| help.contains(it)), "{flag}: {help}");
    }
}

#[test]
fn the_password_of_a_store_is_neither_in_the_help_nor_in_a_refusal() {
    for (store, argument) in [
        ("redis://user:pl4nted@cache", "--help"),
        ("redis://user:pl4nted@cache:port", "--max-records=1"),
        ("redis://user:pl4nted@cache", "--max-records=0"),
    ] {
        let Output { stdout, stderr, .. } = command(&[argument])
            .env("UDHT_STORE", store)
            .output()
            .unwrap();
        let said = [stdout, stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(said.len() > 40 && !said.contains("pl4nted"), "{said}");
    }
}
