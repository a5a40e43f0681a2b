//! The verb export: the whole table into a file that is whole, or is not there.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use ureq::http::Method;

use super::args::Format;
use super::client::{Answer, AnswerLines, Client, NDJSON, Patience};
use super::console::{Console, Progress};
use super::failure::Failure;
use super::output::cell;
use super::target::Target;

/// The level of compression: the default of zstd.
const ZSTD_LEVEL: i32 = 3;

/// Save the whole table, one JSON record a line
///
/// The last line says how many records there are. A file appears under its name only once it is
/// whole. `udht-manager import` reads it back.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager export peers.ndjson
  udht-manager export peers.ndjson.zst
  udht-manager export | head -n 3
  kubectl exec POD -c manager -- /udht-manager export --zstd > peers.ndjson.zst")]
pub(crate) struct ExportArgs {
    /// Where to; `-` or nothing is the standard output
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    file: PathBuf,
    /// Compress it with zstd; a FILE that ends in .zst is compressed anyway
    #[arg(long)]
    zstd: bool,
}

/// The last line of a table.
#[derive(Deserialize)]
pub(crate) struct EndLine {
    pub(crate) end: TableEnd,
}

/// What it says.
#[derive(Deserialize)]
pub(crate) struct TableEnd {
    pub(crate) records: u64,
    pub(crate) revision: Option<String>,
}

impl ExportArgs {
    /// Saves the table, and says how much it was.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let is_compressed = self.zstd || self.file.extension().is_some_and(|end| end == "zst");
        let to_console = self.file.as_os_str() == "-";
        if to_console && is_compressed && console.out_is_terminal {
            return Err(Failure::Usage(
                "a terminal cannot show what is compressed. Name a FILE, or leave out --zstd."
                    .to_owned(),
            ));
        }
        let request = client
            .request(Method::GET, "/v1/table", &[])
            .header("accept", NDJSON);
        let answer = client.send(request, (), Patience::Stream)?;
        if to_console {
            let sink = Sink::new(&mut *console.out, is_compressed).map_err(Failure::Output)?;
            let end = copy(answer, sink, console.err, console.err_is_terminal)?;
            console.note(&format!("exported {} records", end.records));
            return Ok(());
        }
        let file = Target::open(&self.file)?;
        let sink = Sink::new(BufWriter::new(&file.file), is_compressed)
            .map_err(|error| file.failure(&error))?;
        let end = copy(answer, sink, console.err, console.err_is_terminal)
            .map_err(|failure| file.name_it(failure))?;
        file.keep()?;
        match format {
            Format::Json => console
                .say(&json!({ "records": end.records, "revision": end.revision }).to_string()),
            Format::Table => {
                let file = cell(&self.file.to_string_lossy());
                console.say(&format!("exported {} records to {file}", end.records))
            }
        }
    }
}

/// Writes the lines of the answer as they come, and returns what its end line says.
fn copy<W: Write>(
    answer: Answer,
    mut sink: Sink<'_, W>,
    err: &mut dyn Write,
    is_shown: bool,
) -> Result<TableEnd, Failure> {
    let mut lines = answer.lines();
    let mut progress = Progress::new("exported", is_shown);
    let result = loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => {
                break Err(lines.cut_off("the line with the count is missing".to_owned()));
            }
            Err(failure) => break Err(failure),
        };
        if let Err(error) = sink.line(line) {
            break Err(Failure::Output(error));
        }
        if line.starts_with(b"{\"end\"") {
            match serde_json::from_slice::<EndLine>(line) {
                Ok(EndLine { end }) => break check_end(&mut lines, end, progress.records()),
                Err(error) => break Err(lines.strange("an end line", &error)),
            }
        }
        let bytes = line.len();
        if let Err(error) = serde_json::from_slice::<Object>(line) {
            break Err(lines.strange("a record", &error));
        }
        progress.count(err, bytes);
    };
    progress.clear(err);
    let finished = sink.finish().map_err(Failure::Output);
    let end = result?;
    finished.map(|()| end)
}

/// Any JSON object; what is in it is the manager's affair.
#[derive(Deserialize)]
struct Object {
    #[serde(rename = "peer_id")]
    _peer_id: IgnoredAny,
}

fn check_end(lines: &mut AnswerLines, end: TableEnd, records: u64) -> Result<TableEnd, Failure> {
    if end.records != records {
        return Err(lines.cut_off(format!("{records} of {} records came", end.records)));
    }
    match lines.next()? {
        None => Ok(end),
        Some(_) => Err(lines.cut_off("something came after its end line".to_owned())),
    }
}

/// Lines, compressed or not.
enum Sink<'a, W: Write> {
    Plain(W),
    Zstd(zstd::Encoder<'a, W>),
}

impl<W: Write> Sink<'_, W> {
    fn new(to: W, is_compressed: bool) -> io::Result<Self> {
        if is_compressed {
            zstd::Encoder::new(to, ZSTD_LEVEL).map(Self::Zstd)
        } else {
            Ok(Self::Plain(to))
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let to: &mut dyn Write = match self {
            Self::Plain(to) => to,
            Self::Zstd(encoder) => encoder,
        };
        to.write_all(line)?;
        to.write_all(b"\n")
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut to) => to.flush(),
            Self::Zstd(encoder) => encoder.finish()?.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::testing::{Canned, PEER, chunked, problem};

    const END: &str = r#"{"end":{"records":2,"revision":"7.1"}}"#;

    fn table() -> String {
        format!("{PEER}\n{PEER}\n{END}\n")
    }

    fn whole() -> Vec<u8> {
        chunked(&[&table()], true)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_table_goes_to_the_standard_output_and_the_count_beside_it() {
        let canned = Canned::new([whole(), whole()]);
        for line in [&["export"][..], &["export", "-"]] {
            let ran = canned.run(line);
            assert_eq!(
                (ran.code(), ran.out, ran.err.as_str()),
                (0, table(), "exported 2 records\n")
            );
        }
        assert!(canned.requests()[0].starts_with("GET /v1/table "));
    }

    #[test]
    fn a_file_is_replaced_by_one_that_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.ndjson");
        fs::write(&path, "before").unwrap();
        let canned = Canned::new([whole(), whole()]);
        let ran = canned.run(&["export", path.to_str().unwrap()]);
        assert!(ran.out.starts_with("exported 2 records to "), "{ran:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), table());
        let ran = canned.run(&["export", path.to_str().unwrap(), "-o", "json"]);
        assert_eq!(ran.out, "{\"records\":2,\"revision\":\"7.1\"}\n");
        assert_eq!(names(directory.path()), ["peers.ndjson"]);
    }

    #[test]
    fn a_suffix_or_a_flag_compresses() {
        let directory = tempfile::tempdir().unwrap();
        let canned = Canned::new([whole(), whole()]);
        for (name, flags) in [("a.zst", &[][..]), ("b", &["--zstd"])] {
            let path = directory.path().join(name);
            let line = [&["export", path.to_str().unwrap()], flags].concat();
            assert_eq!(canned.run(&line).code(), 0);
            let bytes = fs::read(&path).unwrap();
            assert_eq!(zstd::decode_all(&bytes[..]).unwrap(), table().as_bytes());
        }
    }

    #[test]
    fn a_table_that_is_not_whole_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.ndjson.zst");
        fs::write(&path, "before").unwrap();
        let few = format!("{PEER}\n{END}\n");
        let no_end = format!("{PEER}\n{PEER}\n");
        let more = format!("{}{PEER}\n", table());
        let cases = [
            (chunked(&[&table()], false), 5, "broke the connection"),
            (chunked(&[&few], true), 5, "1 of 2 records came"),
            (
                chunked(&[&no_end], true),
                5,
                "the line with the count is missing",
            ),
            (
                chunked(&[&more], true),
                5,
                "something came after its end line",
            ),
            (
                chunked(&["<html>\n"], true),
                1,
                "line 1 of its answer is not a record",
            ),
            (
                chunked(&["[]\n"], true),
                1,
                "line 1 of its answer is not a record",
            ),
            (
                chunked(&["{\"end\":7}\n"], true),
                1,
                "line 1 of its answer is not an end line",
            ),
            (problem(503, "loading", ""), 5, "loading"),
        ];
        for (answer, code, part) in cases {
            let ran = Canned::new([answer]).run(&["export", path.to_str().unwrap()]);
            assert_eq!(ran.code(), code, "{ran:?}");
            assert!(ran.failure().contains(part), "{part}: {}", ran.failure());
            assert_eq!(fs::read_to_string(&path).unwrap(), "before");
            assert_eq!(names(directory.path()), ["peers.ndjson.zst"]);
        }
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let ran = Canned::new([whole()]).run(&["export", "/dev/null"]);
        assert_eq!(ran.out, "exported 2 records to /dev/null\n");
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let ran = Canned::new([whole()]).run(&["export", "/nowhere/peers.ndjson"]);
        assert_eq!(ran.code(), 1);
        assert!(
            ran.failure().contains("cannot write /nowhere/peers.ndjson"),
            "{}",
            ran.failure()
        );
    }
}
