//! A manager that says what it was told to say, and a console that remembers what was printed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;

use super::client::Client;
use super::console::Console;
use super::failure::Failure;
use super::{Cli, Command, execute};

/// A peer as a manager sends it.
pub(super) const PEER: &str = r#"{"peer_id":"p1","name":"files-0","ip":"10.0.0.7","ports":{"userSync":5001},"labels":{"zone":"a"},"createdAt":"2026-01-31T08:00:00.000Z","updatedAt":"2026-01-31T08:00:01.000Z","lastConnectionOn":"2026-01-31T08:00:00.000Z","version":"v1"}"#;

/// Answers each connection with the next canned answer and closes it.
pub(super) struct Canned {
    address: String,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Canned {
    pub(super) fn new<A: Into<Vec<u8>>>(answers: impl IntoIterator<Item = A>) -> Self {
        let answers: Vec<Vec<u8>> = answers.into_iter().map(Into::into).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            answers
                .into_iter()
                .map(|answer| {
                    let (stream, _) = listener.accept().unwrap();
                    let request = read_request(&stream);
                    // A client that has seen enough hangs up.
                    let _ = (&stream).write_all(&answer);
                    request
                })
                .collect()
        });
        Self {
            address,
            thread: Some(thread),
        }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.address.parse().unwrap())
    }

    /// Runs a command line against this manager.
    pub(super) fn run(&self, line: &[&str]) -> Ran {
        run(&[&["--manager", &self.address], line].concat(), "", false)
    }

    /// As [`Canned::run`], with a standard input, which may be a terminal.
    pub(super) fn run_with_input(&self, line: &[&str], input: &str, terminal: bool) -> Ran {
        run(
            &[&["--manager", &self.address], line].concat(),
            input,
            terminal,
        )
    }

    /// The requests, once each answer was given.
    pub(super) fn requests(mut self) -> Vec<String> {
        self.thread.take().unwrap().join().unwrap()
    }
}

/// When the tests happen: 2026-01-31T10:30:00Z.
pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_mins(29_497_590)
}

/// Head and body as they came; the head in lower case.
fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length, mut is_chunked) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            break;
        }
        let is_first = request.is_empty();
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        is_chunked |= lower.starts_with("transfer-encoding: chunked");
        if lower.starts_with("expect:") {
            (&mut &*stream)
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .unwrap();
        }
        request.push_str(if is_first { &line } else { &lower });
    }
    request.push_str("\r\n");
    while is_chunked {
        let mut line = String::new();
        // Cut off: the client gave up.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            request.push_str("<cut off>");
            return request;
        }
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).unwrap();
        request.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        is_chunked = size > 0;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request.push_str(std::str::from_utf8(&body).unwrap());
    request
}

/// A success with this body.
pub(super) fn json(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A stream of these chunks with a revision, which ends as it should, or is cut off.
pub(super) fn chunked(chunks: &[&str], whole: bool) -> Vec<u8> {
    let mut answer =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nudht-revision: 7.1\r\n\r\n".to_owned();
    for chunk in chunks {
        answer.extend([format!("{:x}\r\n", chunk.len()).as_str(), chunk, "\r\n"]);
    }
    if whole {
        answer.push_str("0\r\n\r\n");
    }
    answer.into_bytes()
}

/// A problem document.
pub(super) fn problem(status: u16, detail: &str, field: &str) -> Vec<u8> {
    let body = serde_json::json!({
        "type": "urn:udht:problem:x", "title": "x", "status": status,
        "detail": detail, "field": field,
    })
    .to_string();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What a command line did.
#[derive(Debug)]
pub(super) struct Ran {
    /// How it ended.
    pub(super) result: Result<(), Failure>,
    /// The standard output.
    pub(super) out: String,
    /// The standard error, without the failure itself.
    pub(super) err: String,
    /// The pauses it made.
    pub(super) pauses: Vec<Duration>,
}

impl Ran {
    pub(super) fn code(&self) -> u8 {
        self.result.as_ref().err().map_or(0, Failure::exit_code)
    }

    pub(super) fn failure(&self) -> String {
        self.result.as_ref().unwrap_err().to_string()
    }
}

/// Runs a command line with a standard input, which may be a terminal.
pub(super) fn run(line: &[&str], input: &str, terminal: bool) -> Ran {
    let cli = Cli::try_parse_from([&["udht-manager"], line].concat()).unwrap();
    let (mut out, mut err, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
    let mut input = input.as_bytes();
    let mut pause = |time| pauses.push(time);
    let mut console = Console {
        out: &mut out,
        err: &mut err,
        input: &mut input,
        out_is_terminal: false,
        err_is_terminal: false,
        input_is_terminal: terminal,
        now: now(),
        pause: &mut pause,
    };
    let Command::Client(verb) = cli.command else {
        panic!("no verb of the client: {line:?}")
    };
    let result = execute(&Client::new(cli.manager), cli.output, &verb, &mut console);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        result,
        out: text(out),
        err: text(err),
        pauses,
    }
}
