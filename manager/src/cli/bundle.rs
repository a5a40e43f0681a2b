//! The verb bundle: what a maintainer would ask for, in one archive.

mod archive;
mod parts;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use self::archive::Archive;
use self::parts::{Had, PARTS, Part, Side, fetch};
use super::args::{Format, InvalidArgument, Manager};
use super::client::Client;
use super::console::Console;
use super::failure::Failure;
use super::output::cell;
use super::target::Target;
use crate::identity::host_name;

/// After this no further part is asked for.
const TIME_MAX: Duration = Duration::from_mins(1);

/// Save what a maintainer would ask for, as one archive without secrets
///
/// It is a tar archive compressed with zstd: builds, flags, health, figures, logs, replicas, peers and
/// this pod's own record, of the manager and of the sync beside it. Its README.txt says what each file
/// is, and what was not to be had. Passwords and keys are not in it; names, addresses and labels of
/// pods are.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager bundle
  udht-manager bundle --records --out udht-bundle.tar.zst
  kubectl exec POD -c manager -- /udht-manager bundle > udht-bundle.tar.zst")]
pub(crate) struct BundleArgs {
    /// Where to; `-` is the standard output, which it is anyway where that is no terminal
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where the sync of this pod tells of itself
    #[arg(
        long,
        env = "UDHT_OPS",
        value_name = "URL",
        default_value = "http://127.0.0.1:3004"
    )]
    sync_ops: SyncOps,
    /// Put the first 1,000 records in too
    #[arg(long)]
    records: bool,
}

/// Where a sync tells of itself: `http://HOST:PORT`, or that without `http://`.
#[derive(Clone, Debug)]
pub(crate) struct SyncOps(Manager);

impl FromStr for SyncOps {
    type Err = InvalidArgument;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("://") {
            text.parse().map(Self)
        } else {
            format!("http://{text}").parse().map(Self)
        }
    }
}

impl BundleArgs {
    /// Asks for all of it, and writes what is had.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let to_console = match &self.out {
            Some(out) => out.as_os_str() == "-",
            None => !console.out_is_terminal,
        };
        if to_console {
            if console.out_is_terminal {
                return Err(Failure::Usage(
                    "a terminal cannot show what is compressed. Name a FILE with --out.".to_owned(),
                ));
            }
            let bundle = Bundle::new(self, client, console.now);
            let told = bundle.write(&mut *console.out, console.err, console.err_is_terminal);
            let told = told.map_err(Failure::Output)?;
            console.note(&told.note("bundled"));
            return told.result();
        }
        let named = self.out.clone();
        let name = named.unwrap_or_else(|| PathBuf::from(name(console.now)));
        let file = Target::open(&name)?;
        let bundle = Bundle::new(self, client, console.now);
        let told = bundle
            .write(
                BufWriter::new(&file.file),
                console.err,
                console.err_is_terminal,
            )
            .map_err(|error| file.failure(&error))?;
        file.keep()?;
        let shown = cell(&name.to_string_lossy());
        match format {
            Format::Json => {
                let (file, files, missing) = (name.to_string_lossy(), told.had, told.missing);
                let said = json!({ "file": file, "files": files, "missing": missing });
                console.say(&said.to_string())?;
            }
            Format::Table => console.say(&told.note(&format!("{shown}:")))?,
        }
        told.result()
    }
}

/// What a bundle is called that nobody gave a name.
fn name(now: SystemTime) -> String {
    let host: String = host_name()
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() {
                char
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    let now = humantime::format_rfc3339_seconds(now).to_string();
    let now = now.replace(':', "");
    format!("udht-bundle-{host}-{now}.tar.zst")
}

/// How much was had.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Told {
    had: usize,
    missing: usize,
}

impl Told {
    fn note(self, what: &str) -> String {
        let Self { had, missing } = self;
        match missing {
            0 => format!("{what} {had} files"),
            _ => format!(
                "{what} {had} files; {missing} more were not to be had: README.txt says why"
            ),
        }
    }

    /// An archive without anything in it is none.
    fn result(self) -> Result<(), Failure> {
        if self.had > 0 {
            return Ok(());
        }
        Err(Failure::Input(
            "nothing was to be had of a manager or a sync. Run it in their pod, or forward both ports \
             with `kubectl port-forward POD 3002 3004`; --manager and --sync-ops name other addresses."
                .to_owned(),
        ))
    }
}

struct Bundle<'a> {
    manager: &'a Manager,
    sync: &'a Manager,
    with_records: bool,
    now: SystemTime,
}

impl<'a> Bundle<'a> {
    fn new(args: &'a BundleArgs, client: &'a Client, now: SystemTime) -> Self {
        Self {
            manager: client.manager(),
            sync: &args.sync_ops.0,
            with_records: args.records,
            now,
        }
    }

    /// Writes all parts as they come, and at the end what they are.
    fn write(&self, to: impl Write, err: &mut dyn Write, is_shown: bool) -> io::Result<Told> {
        let begun = Instant::now();
        let since_epoch = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut archive = Archive::new(to, since_epoch.as_secs())?;
        let mut all = Vec::new();
        let wanted = PARTS
            .iter()
            .filter(|part| self.with_records || !part.is_of_records);
        for part in wanted {
            if is_shown {
                let _ = write!(err, "\r{:60}\rasking for {}", "", part.file);
                let _ = err.flush();
            }
            let base = match part.side {
                Side::Manager => self.manager,
                Side::Sync => self.sync,
            };
            let asked = Instant::now();
            let had = match TIME_MAX.checked_sub(begun.elapsed()) {
                Some(left) => fetch(base, part, left),
                None => Had::Not(format!(
                    "there was no time left of {} s",
                    TIME_MAX.as_secs()
                )),
            };
            if let Some(body) = had.body() {
                archive.file(part.file, body)?;
            }
            all.push(Asked {
                part,
                ms: u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX),
                note: had.note(),
                is_had: had.body().is_some(),
            });
        }
        if is_shown {
            let _ = write!(err, "\r{:60}\r", "");
            let _ = err.flush();
        }
        archive.file("README.txt", self.readme(&all).as_bytes())?;
        archive.finish()?;
        let had = all.iter().filter(|asked| asked.is_had).count();
        let missing = all.len() - had;
        Ok(Told { had, missing })
    }

    fn readme(&self, all: &[Asked<'_>]) -> String {
        use std::fmt::Write as _;
        let now = humantime::format_rfc3339_seconds(self.now);
        let (host, release) = (host_name(), env!("CARGO_PKG_VERSION"));
        let mut text = format!(
            "A support bundle of UDHT, made at {now} on {host} by udht-manager {release}.\n\
             Manager: {}   Sync: {}\n\n\
             There are no passwords, keys or tokens in it. There are names, addresses and labels of pods.\n\
             Records are in it only with --records: {}.\n\n\
             What each file is, and how long its answer took:\n\n",
            self.manager,
            self.sync,
            if self.with_records {
                "so it was made"
            } else {
                "it was made without"
            },
        );
        for asked in all.iter().filter(|asked| asked.is_had) {
            let Asked { part, ms, note, .. } = asked;
            let note = note
                .as_ref()
                .map_or(String::new(), |note| format!(" ({note})"));
            let _ = writeln!(text, "  {:26} {}; {ms} ms{note}", part.file, part.what);
        }
        text.push_str("\nWhat was not to be had, and why:\n\n");
        let mut missing = all.iter().filter(|asked| !asked.is_had).peekable();
        if missing.peek().is_none() {
            text.push_str("  nothing\n");
        }
        for asked in missing {
            let why = asked.note.as_deref().unwrap_or("it is not known why");
            let _ = writeln!(text, "  {:26} {}: {why}", asked.part.file, asked.part.what);
        }
        text.push_str(
            "\nThe lines of the logs are explained in docs/logs.md, the alarms and what to do in docs/alerts.md, of the sources.\n",
        );
        text
    }
}

/// A part that was asked for.
struct Asked<'a> {
    part: &'a Part,
    ms: u64,
    is_had: bool,
    note: Option<String>,
}

#[cfg(test)]
mod tests;
