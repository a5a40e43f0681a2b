//! A redis-server of a test's own.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use redis::Value;
use tempfile::TempDir;

use super::super::RedisUrl;
use super::super::connection::{Connection, pipeline};

/// How long anything that is awaited may take. It is no measure of speed: only a hang is that slow.
const PATIENCE: Duration = Duration::from_mins(1);
const STARTS_MAX: usize = 20;

/// A server on a loopback address and port of its own, with a directory of its own; it ends with this
/// handle.
pub(crate) struct Server {
    directory: TempDir,
    address: SocketAddr,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
}

/// An address that no other test has: each process has a network of its own, as far as that goes.
pub(crate) fn free_address() -> SocketAddr {
    static LAST: AtomicU16 = AtomicU16::new(0);
    let [third, fourth] = LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let second = u8::try_from(std::process::id() % 250).expect("below 250") + 1;
    let ip = IpAddr::V4(Ipv4Addr::new(127, second, third, fourth.clamp(1, 254)));
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

impl Server {
    /// Starts one that keeps what it has in a log, written before it answers.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let kept = ["--appendonly", "yes", "--appendfsync", "no", "--save", ""];
        let all: Vec<_> = kept.iter().chain(arguments).copied().collect();
        Self::start_with(&all)
    }

    /// Starts one that keeps what it has only if it is told to.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().copied().map(str::to_owned);
        let mut server = Self {
            directory: tempfile::tempdir().expect("a directory"),
            address: free_address(),
            arguments: arguments.collect(),
            child: Mutex::new(None),
        };
        for _ in 0..STARTS_MAX {
            if server.try_start() {
                return server;
            }
            server.address = free_address();
        }
        panic!("redis-server does not start: is it installed? `make setup` does it");
    }

    /// Starts it again with these arguments too.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.kill();
        self.arguments
            .extend(arguments.iter().copied().map(str::to_owned));
        self.start_again();
        self
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Starts it again, with what it kept.
    pub(crate) fn start_again(&self) {
        assert!(self.try_start(), "it started before");
    }

    fn try_start(&self) -> bool {
        let tls = self
            .arguments
            .iter()
            .any(|argument| argument == "--tls-cert-file");
        let (plain, other) = if tls {
            ("--tls-port", "--port")
        } else {
            ("--port", "--tls-port")
        };
        let mut child = Command::new("redis-server")
            .args(["--bind", &self.address.ip().to_string()])
            .args([plain, &self.address.port().to_string(), other, "0"])
            .arg("--dir")
            .arg(self.directory.path())
            .args(["--enable-debug-command", "yes"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server: is it installed? `make setup` does it");
        let log = child.stdout.take().expect("its log");
        let (ready, waiting) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains("Ready to accept connections") {
                    // Who stopped waiting does not need it.
                    let _ = ready.send(());
                }
            }
        });
        // The log ends with a process that could not start.
        let started = waiting.recv_timeout(PATIENCE).is_ok();
        if started {
            *self.child() = Some(child);
        } else {
            let _ = child.kill();
            let _ = child.wait();
        }
        started
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it as kill -9 does.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            child.kill().expect("kills");
            child.wait().expect("ends");
        }
    }

    /// Has it do nothing until [`Server::go_on`].
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child().as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    /// A connection of the test's own.
    pub(in crate::store::redis) async fn connection(&self) -> Connection {
        let url = RedisUrl::parse(&self.url()).expect("a URL");
        Connection::open(&url, "test").await.expect("connects")
    }

    /// The answer to a command, by a connection of its own.
    pub(crate) async fn say(&self, words: &[&[u8]]) -> Value {
        say(&self.connection().await, words).await
    }

    /// The same, of words.
    pub(crate) async fn tell(&self, command: &str) -> Value {
        let words: Vec<_> = command.split(' ').map(str::as_bytes).collect();
        self.say(&words).await
    }
}

/// The answer to a command.
pub(super) async fn say(connection: &Connection, words: &[&[u8]]) -> Value {
    let mut commands = pipeline();
    let (name, arguments) = words.split_first().expect("a command");
    commands
        .cmd(str::from_utf8(name).expect("a word"))
        .arg(arguments);
    let mut replies = connection.ask(&commands, PATIENCE).await.expect("answers");
    replies.next().expect("no error")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
