//! The verb import: a table from a file, checked line by line before the manager sees it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use clap::{Args, ValueEnum};
use peer_table::peers::Body;
use serde::Deserialize;
use serde_json::json;
use ureq::SendBody;
use ureq::http::Method;

use super::args::Format;
use super::client::{Answer, Client, NDJSON, Patience};
use super::console::{Console, Progress};
use super::early::HungUp;
use super::export::EndLine;
use super::failure::Failure;
use super::lines::Lines;
use super::output::cell;

/// The first bytes of what zstd compressed (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Write each record of an exported table
///
/// Peers that are not in it stay, unless --mode replace is given. Each line is a new write: the
/// versions and times in the file do not matter. Nothing changes if any line is wrong, or if the
/// file is cut off. Compressed files are recognised.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager import peers.ndjson.zst
  udht-manager import peers.ndjson --mode replace
  udht-manager list --label zone=a -o json | udht-manager import - --without-end
  kubectl exec -i POD -c manager -- /udht-manager import - < peers.ndjson.zst")]
pub(crate) struct ImportArgs {
    /// Where from; `-` is the standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// What happens to peers that are not in it
    #[arg(long, value_enum, default_value_t = Mode::Merge)]
    mode: Mode,
    /// Do not ask for the line with the count that ends an exported table; a table that was cut
    /// off is then not noticed
    #[arg(long)]
    without_end: bool,
    /// Replace without being asked
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Mode {
    /// They stay
    Merge,
    /// They are deleted, except the manager's own record
    Replace,
}

#[derive(Deserialize)]
struct Written {
    written: u64,
    #[serde(default)]
    deleted: u64,
}

impl ImportArgs {
    /// Sends the table, and says what it changed.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let from_console = self.file == "-";
        let name = if from_console {
            "the standard input"
        } else {
            self.file.as_str()
        };
        if self.mode == Mode::Replace {
            let question = format!(
                "Every peer that is not in {} will be deleted at {}, in all pods.",
                cell(name),
                client.manager()
            );
            if from_console && !self.yes {
                return Err(Failure::Usage(format!(
                    "{question} Add --yes: the standard input cannot be asked."
                )));
            }
            console.confirm(&question, self.yes)?;
        }
        let Written { written, deleted } = self.upload(client, name, console)?.json()?;
        match format {
            Format::Json => {
                console.say(&json!({ "written": written, "deleted": deleted }).to_string())
            }
            Format::Table => console.say(&format!("wrote {written} records, deleted {deleted}")),
        }
    }

    /// Checks and sends line by line.
    fn upload(
        &self,
        client: &Client,
        name: &str,
        console: &mut Console<'_>,
    ) -> Result<Answer, Failure> {
        let cannot_read =
            |error: io::Error| Failure::Input(format!("cannot read {}: {error}.", cell(name)));
        let input: Box<dyn Read + '_> = if self.file == "-" {
            Box::new(&mut *console.input)
        } else {
            Box::new(File::open(&self.file).map_err(cannot_read)?)
        };
        let lines = Lines::new(decompressed(input).map_err(cannot_read)?);
        let mut upload = Upload {
            name,
            lines,
            needs_end: !self.without_end,
            ready: Vec::new(),
            taken: 0,
            is_at_end: false,
            failure: None,
            hung_up: client.hung_up(),
            progress: Progress::new("sent", console.err_is_terminal),
            err: console.err,
        };
        let answer = self.send(client, &mut upload);
        upload.progress.clear(upload.err);
        match (upload.failure.take(), answer) {
            // What is wrong with the file is the cause, and the broken upload its consequence.
            (Some(failure), _) => Err(failure),
            (None, Ok(answer)) if upload.hung_up.get() => {
                Err(answer.strange("it did not wait for the end of the table".to_owned()))
            }
            (None, answer) => answer,
        }
    }

    fn send(
        &self,
        client: &Client,
        upload: &mut Upload<'_, impl BufRead>,
    ) -> Result<Answer, Failure> {
        let mut query = Vec::new();
        if self.mode == Mode::Replace {
            query.push(("mode", "replace".to_owned()));
        }
        if self.without_end {
            query.push(("end", "optional".to_owned()));
        }
        let request = client
            .request(Method::POST, "/v1/table", &query)
            .header("content-type", NDJSON)
            // A refusal that needs no look at the table comes before the table is sent.
            .header("expect", "100-continue");
        client.send(request, SendBody::from_reader(upload), Patience::Work)
    }
}

/// What an import sends of a file with this content, or what it says is wrong with it. For the fuzz
/// targets, which send it to nobody.
#[doc(hidden)]
pub fn sent_by_import(content: &[u8], needs_end: bool) -> Result<Vec<u8>, String> {
    let lines = decompressed(Box::new(content)).map_err(|error| format!("a file: {error}"))?;
    let mut upload = Upload {
        name: "a file",
        lines: Lines::new(lines),
        needs_end,
        ready: Vec::new(),
        taken: 0,
        is_at_end: false,
        failure: None,
        hung_up: HungUp::default(),
        progress: Progress::new("sent", false),
        err: &mut io::sink(),
    };
    let mut sent = Vec::new();
    let read = upload.read_to_end(&mut sent);
    match (upload.failure, read) {
        (Some(failure), _) => Err(failure.to_string()),
        (None, read) => read.map(|_| sent).map_err(|error| error.to_string()),
    }
}

fn decompressed<'a>(input: Box<dyn Read + 'a>) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut head = Vec::new();
    let mut input = input;
    input
        .by_ref()
        .take(ZSTD_MAGIC.len() as u64)
        .read_to_end(&mut head)?;
    let is_compressed = head == ZSTD_MAGIC;
    let input = BufReader::with_capacity(64 * 1024, io::Cursor::new(head).chain(input));
    if is_compressed {
        Ok(Box::new(BufReader::new(zstd::Decoder::with_buffer(input)?)))
    } else {
        Ok(Box::new(input))
    }
}

/// The lines of a table as a body: an error in one of them ends the upload without its end, so
/// that the manager changes nothing.
struct Upload<'a, R> {
    name: &'a str,
    lines: Lines<R>,
    needs_end: bool,
    /// The line that is being sent, of which `taken` bytes are gone.
    ready: Vec<u8>,
    taken: usize,
    is_at_end: bool,
    failure: Option<Failure>,
    hung_up: HungUp,
    progress: Progress,
    err: &'a mut dyn Write,
}

impl<R: BufRead> Upload<'_, R> {
    /// Makes the next line ready; none are left when it is empty then.
    fn advance(&mut self) -> Result<(), Failure> {
        self.ready.clear();
        self.taken = 0;
        let name = cell(self.name);
        let input = |why: String| Failure::Input(format!("{why} Nothing was changed."));
        let line = self
            .lines
            .next()
            .map_err(|error| input(format!("cannot read {name}: {error}.")))?;
        let Some(line) = line else {
            if self.needs_end && !self.is_at_end {
                return Err(input(format!(
                    "{name} is cut off: the line with the count that ends an exported table is \
                     missing. Export it again, or add --without-end if it was written by hand."
                )));
            }
            return Ok(());
        };
        self.ready.extend_from_slice(line);
        self.ready.push(b'\n');
        let place = format_args!("{name}, line {}", self.lines.number());
        if self.is_at_end {
            return Err(input(format!(
                "{place}: nothing may follow the line with the count."
            )));
        }
        let body = match Body::from_json(&self.ready) {
            Ok(body) => body,
            Err(error) => {
                let Ok(EndLine { end }) = serde_json::from_slice(&self.ready) else {
                    return Err(input(format!("{place}: {}.", cell(&error.to_string()))));
                };
                if end.records != self.progress.records() {
                    let (found, said) = (self.progress.records(), end.records);
                    return Err(input(format!(
                        "{place}: it has {found} records and not {said}, as it says at its end."
                    )));
                }
                self.is_at_end = true;
                return Ok(());
            }
        };
        if body.peer_id.is_none() {
            return Err(input(format!("{place}: peer_id is missing.")));
        }
        self.progress.count(self.err, self.ready.len());
        Ok(())
    }
}

impl<R: BufRead> Read for Upload<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.hung_up.get() {
            return Ok(0);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            if self.taken == self.ready.len() {
                if let Err(failure) = self.advance() {
                    self.failure = Some(failure);
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if self.ready.is_empty() {
                    break;
                }
            }
            let rest = &self.ready[self.taken..];
            let count = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
            self.taken += count;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::super::testing::{Canned, PEER, json, problem, run};

    const END: &str = r#"{"end":{"records":1,"revision":"7.1"}}"#;

    fn table() -> String {
        format!("{PEER}\n{END}\n")
    }

    fn written() -> Vec<u8> {
        json(r#"{"written":1,"deleted":0}"#)
    }

    #[test]
    fn a_table_is_sent_as_it_is_and_the_counts_are_printed() {
        let canned = Canned::new([written(), written()]);
        let ran = canned.run_with_input(&["import", "-"], &table(), false);
        assert_eq!(ran.out, "wrote 1 records, deleted 0\n", "{ran:?}");
        let ran = canned.run_with_input(&["import", "-", "-o", "json"], &table(), false);
        assert_eq!(ran.out, "{\"deleted\":0,\"written\":1}\n");
        let requests = canned.requests();
        assert!(
            requests[0].starts_with("POST /v1/table "),
            "{}",
            requests[0]
        );
        assert!(
            requests[0].contains("content-type: application/x-ndjson"),
            "{}",
            requests[0]
        );
        assert!(
            requests[0].ends_with(&format!("\r\n\r\n{}", table())),
            "{}",
            requests[0]
        );
    }

    #[test]
    fn a_compressed_file_is_recognised_by_its_first_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let compressed = zstd::encode_all(table().as_bytes(), 1).unwrap();
        std::fs::write(file.path(), compressed).unwrap();
        let canned = Canned::new([written()]);
        let ran = canned.run(&["import", file.path().to_str().unwrap()]);
        assert_eq!(ran.code(), 0, "{ran:?}");
        assert!(canned.requests()[0].ends_with(&table()));
    }

    #[test]
    fn a_file_that_is_wrong_anywhere_is_never_sent_to_its_end() {
        let ports = PEER.replace("5001", "0");
        let no_id = PEER.replace("\"peer_id\":\"p1\",", "");
        let cases = [
            (
                format!("{PEER}\n{ports}\n{END}\n"),
                "line 2: ports.userSync: must be a whole number",
            ),
            (format!("{no_id}\n{END}\n"), "line 1: peer_id is missing"),
            (
                format!("{PEER}\n{PEER}\n{END}\n"),
                "it has 2 records and not 1",
            ),
            (format!("{PEER}\n{END}\n{PEER}\n"), "nothing may follow"),
            (format!("{PEER}\n"), "--without-end"),
            (String::new(), "--without-end"),
            (format!("{PEER}\n{}", &PEER[..50]), "line 2: is not JSON"),
            ("x".repeat(2 << 20), "line 1 is longer than 1048576 bytes"),
        ];
        for (text, part) in cases {
            let canned = Canned::new([written()]);
            let ran = canned.run_with_input(&["import", "-"], &text, false);
            assert_eq!(ran.code(), 1, "{ran:?}");
            let failure = ran.failure();
            assert!(failure.contains(part), "{part}: {failure}");
            assert!(failure.contains("Nothing was changed."), "{failure}");
            assert!(canned.requests()[0].ends_with("<cut off>"));
        }
    }

    #[test]
    fn a_compressed_file_that_is_cut_off_is_refused() {
        let compressed = zstd::encode_all(table().as_bytes(), 1).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &compressed[..compressed.len() - 9]).unwrap();
        let canned = Canned::new([written()]);
        let ran = canned.run(&["import", file.path().to_str().unwrap()]);
        assert_eq!(ran.code(), 1);
        assert!(ran.failure().contains("cannot read"), "{}", ran.failure());
    }

    #[test]
    fn a_hand_written_table_needs_no_end_line_if_that_is_said() {
        let canned = Canned::new([written()]);
        let line = ["import", "-", "--without-end"];
        assert_eq!(canned.run_with_input(&line, PEER, false).code(), 0);
        assert!(canned.requests()[0].starts_with("POST /v1/table?end=optional "));
    }

    #[test]
    fn replacing_asks_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), table()).unwrap();
        let line = ["import", file.path().to_str().unwrap(), "--mode", "replace"];
        let canned = Canned::new([written(), written()]);

        let ran = canned.run_with_input(&line, "yes\n", true);
        assert_eq!(ran.code(), 0, "{ran:?}");
        assert!(ran.err.ends_with("Go on? [y/N] "), "{}", ran.err);
        assert_eq!(canned.run(&[&line[..], &["--yes"]].concat()).code(), 0);

        assert_eq!(canned.run_with_input(&line, "", true).code(), 1);
        assert_eq!(canned.run_with_input(&line, "", false).code(), 2);
        let from_input = ["import", "-", "--mode", "replace"];
        assert_eq!(canned.run_with_input(&from_input, &table(), true).code(), 2);
        let requests = canned.requests();
        assert!(
            requests[0].starts_with("POST /v1/table?mode=replace "),
            "{}",
            requests[0]
        );
    }

    #[test]
    fn a_refusal_in_the_midst_of_the_upload_is_shown() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            (&stream)
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .unwrap();
            while lines.next().is_some_and(|line| line.unwrap() != PEER) {}
            (&stream)
                .write_all(&problem(507, "the table is full", ""))
                .unwrap();
        });
        let many = format!("{PEER}\n").repeat(100_000);
        let ran = run(
            &["--manager", &address, "import", "-", "--without-end"],
            &many,
            false,
        );
        assert_eq!(
            (ran.code(), ran.failure().as_str()),
            (1, "the table is full (status 507)")
        );
        server.join().unwrap();
    }

    #[test]
    fn a_refusal_of_the_manager_is_shown() {
        let canned = Canned::new([problem(507, "the table is full", "")]);
        let ran = canned.run_with_input(&["import", "-"], &table(), false);
        assert_eq!(ran.failure(), "the table is full (status 507)");
        let ran = canned.run(&["import", "/nowhere/x"]);
        assert!(
            ran.failure().contains("cannot read /nowhere/x"),
            "{}",
            ran.failure()
        );
    }
}
