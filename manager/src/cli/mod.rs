//! The program's verbs: it runs the manager, and is also the client of one, as a scratch image
//! has neither shell nor curl.
//!
//! A verb is an `Args` struct, which says what it takes, and its `run`. It sees the manager
//! through `client::Client` and the terminal through `console::Console`; what goes wrong is a
//! `failure::Failure`, which knows its exit code.

mod args;
mod bundle;
mod client;
mod clock;
mod console;
mod early;
mod explain;
mod export;
mod failure;
mod health;
mod import;
mod interrupt;
mod lines;
mod list;
mod log;
mod manual;
mod output;
mod record;
mod replicas;
mod target;
#[cfg(test)]
mod testing;
mod watch;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use udht_tell::about;

use self::args::{Format, Manager};
use self::client::Client;
use self::console::Console;
use self::failure::Failure;
#[doc(hidden)]
pub use self::import::sent_by_import;
use crate::config::ServeArgs;

/// What the end of the help of the program says.
const HELP: &str = "Examples:
  udht-manager serve --store embedded:udht.redb --cluster demo
  udht-manager put peer-1 --name files-0 --ip 10.0.0.7 --port userSync=5001
  udht-manager list --label zone=a
  kubectl port-forward POD 3002 & udht-manager list

Exit codes:
  0  done, or healthy
  1  something went wrong, or unhealthy
  2  the command line is wrong
  3  there is no such peer
  4  conflict: it exists already, it has another version, or changes were missed
  5  the manager cannot be reached or is unavailable: the same may work later";

/// Keeps a directory of peers, and is the client of its own directory.
#[derive(Parser, Debug)]
#[command(name = "udht-manager", version, about, after_help = HELP)]
pub struct Cli {
    /// Which manager to speak to
    #[arg(
        long,
        global = true,
        env = "UDHT_MANAGER",
        value_name = "URL",
        default_value = "http://127.0.0.1:3002",
        help_heading = "Client options"
    )]
    manager: Manager,
    /// How to print: for people, or one JSON object a line
    #[arg(
        long,
        short,
        global = true,
        value_enum,
        default_value_t = Format::Table,
        help_heading = "Client options"
    )]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the manager
    Serve(Box<ServeArgs>),
    #[command(flatten)]
    Manual(manual::Manual),
    #[command(flatten)]
    Client(Verb),
}

/// What the client does.
#[derive(Subcommand, Debug)]
enum Verb {
    Get(record::GetArgs),
    Put(Box<record::PutArgs>),
    Patch(record::PatchArgs),
    Delete(record::DeleteArgs),
    Contact(record::ContactArgs),
    Explain(explain::ExplainArgs),
    List(list::ListArgs),
    Watch(watch::WatchArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Identity(record::IdentityArgs),
    Replicas(replicas::ReplicasArgs),
    HealClock(clock::HealClockArgs),
    LogFilter(log::LogFilterArgs),
    Bundle(bundle::BundleArgs),
    Healthcheck(health::HealthcheckArgs),
}

/// Reads the command line, and notes how the program was started.
pub fn parse() -> Cli {
    let command = Cli::command();
    let matches = command.clone().get_matches();
    let (program, release) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    about::begin(program, release, &command, "serve", &matches);
    // Both are made of the same struct.
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Runs the verb that the command line names; `serve` runs the manager.
pub fn run(cli: Cli, serve: impl FnOnce(ServeArgs) -> ExitCode) -> ExitCode {
    let Cli {
        manager,
        output,
        command,
    } = cli;
    let verb = match command {
        Command::Serve(args) => return serve(*args),
        Command::Manual(manual) => {
            let written = manual.write(Cli::command(), &mut io::stdout());
            return ended(written.map_err(Failure::Output), &mut io::stderr());
        }
        Command::Client(verb) => verb,
    };
    match &verb {
        Verb::Watch(_) => interrupt::exit_with(0),
        // As a shell says that a program ended by this signal.
        Verb::Export(_) | Verb::Bundle(_) => interrupt::exit_with(128 + 2),
        _ => {}
    }
    let stdout = io::stdout();
    let out_is_terminal = stdout.is_terminal();
    let mut console = Console {
        out: &mut BufWriter::new(stdout.lock()),
        err: &mut io::stderr(),
        input: &mut io::stdin(),
        out_is_terminal,
        err_is_terminal: io::stderr().is_terminal(),
        input_is_terminal: io::stdin().is_terminal(),
        now: SystemTime::now(),
        pause: &mut std::thread::sleep,
    };
    let result = execute(&Client::new(manager), output, &verb, &mut console);
    ended(result, console.err)
}

/// How the program ends, which is told if it is a failure.
fn ended(result: Result<(), Failure>, err: &mut dyn Write) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    if !failure.is_broken_pipe() {
        // Nobody may be reading, and then there is nobody to tell.
        let _ = writeln!(err, "error: {failure}");
    }
    ExitCode::from(failure.exit_code())
}

/// Runs a verb of the client; what it printed is handed on even if it failed.
fn execute(
    client: &Client,
    output: Format,
    verb: &Verb,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let result = match verb {
        Verb::Get(args) => args.run(client, output, console),
        Verb::Put(args) => args.run(client, output, console),
        Verb::Patch(args) => args.run(client, output, console),
        Verb::Delete(args) => args.run(client, output, console),
        Verb::Contact(args) => args.run(client, output, console),
        Verb::Explain(args) => args.run(client, output, console),
        Verb::List(args) => args.run(client, output, console),
        Verb::Watch(args) => args.run(client, output, console),
        Verb::Export(args) => args.run(client, output, console),
        Verb::Import(args) => args.run(client, output, console),
        Verb::Identity(args) => args.run(client, output, console),
        Verb::Replicas(args) => args.run(client, output, console),
        Verb::HealClock(args) => args.run(client, output, console),
        Verb::LogFilter(args) => args.run(client, output, console),
        Verb::Bundle(args) => args.run(client, output, console),
        Verb::Healthcheck(args) => args.run(client, output, console),
    };
    let flushed = console.flush();
    result.and(flushed)
}

#[cfg(test)]
mod tests {
    use super::testing::{Canned, PEER, chunked};
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_is_taught_by_examples() {
        for verb in Cli::command()
            .get_subcommands()
            .filter(|verb| verb.get_name() != "serve")
        {
            let help = verb
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let examples = help
                .matches(&format!("udht-manager {}", verb.get_name()))
                .count();
            assert!(examples >= 2, "{}: {help}", verb.get_name());
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
        }
    }

    #[test]
    fn the_examples_of_the_help_are_command_lines_that_parse() {
        let mut program = Cli::command();
        let mut helps = vec![HELP.to_owned()];
        program.build();
        for verb in program.get_subcommands() {
            helps.extend(verb.get_after_help().map(ToString::to_string));
        }
        let mut parsed = 0;
        for line in helps.iter().flat_map(|help| help.lines()) {
            for part in line.split(['|', '<', '>', '&']).map(str::trim) {
                let words: Vec<_> = part
                    .split_whitespace()
                    .map(|word| word.trim_matches('\''))
                    .collect();
                let Some(start) = words
                    .iter()
                    .position(|word| word.trim_start_matches('/') == "udht-manager")
                else {
                    continue;
                };
                if part.contains("serve") || part.contains('`') {
                    continue;
                }
                Cli::try_parse_from(&words[start..]).unwrap_or_else(|e| panic!("{part}: {e}"));
                parsed += 1;
            }
        }
        assert!(parsed > 30, "{parsed}");
    }

    #[test]
    fn what_does_not_parse_exits_with_2_and_says_why() {
        let cases: [(&[&str], &str); 12] = [
            (&["get"], "<ID>"),
            (&["get", "a/b"], "A-Z a-z 0-9"),
            (&["put", "p1"], "--name"),
            (
                &["put", "p1", "--name", "a", "--ip", "10.0.0"],
                "invalid IP address",
            ),
            (
                &["put", "p1", "--name", "a", "--ip", "::1", "--port", "80"],
                "userSync=5001",
            ),
            (&["put", "-f", "x", "--name", "a"], "cannot be used with"),
            (
                &["put", "-f", "x", "--create-only", "--if-match", "v"],
                "cannot be used with",
            ),
            (&["delete"], "<ID>"),
            (&["delete", "p1", "--label", "a=b"], "cannot be used with"),
            (&["list", "--limit", "0"], "1..=10000"),
            (&["list", "-o", "yaml"], "table, json"),
            (&["--manager", "https://x", "list"], "plain http"),
        ];
        for (line, part) in cases {
            let error = Cli::try_parse_from([&["udht-manager"], line].concat()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
            assert!(error.to_string().contains(part), "{line:?}: {error}");
        }
    }

    const END: &str = r#"{"end":{"records":1,"revision":"7.1"}}"#;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_verb_without_words() {
        let lines: [&[&str]; 5] = [
            &["get", "p1"],
            &["list"],
            &["list", "-o", "json"],
            &["export"],
            &["export", "--zstd"],
        ];
        for line in lines {
            let canned = Canned::new([match line[0] {
                "get" => testing::json(PEER),
                _ => chunked(&[PEER, "\n", END, "\n"], true),
            }]);
            let cli = Cli::try_parse_from([&["udht-manager"], line].concat()).unwrap();
            let Command::Client(verb) = cli.command else {
                panic!("{line:?}")
            };
            let mut console = Console {
                out: &mut Closed,
                err: &mut Closed,
                input: &mut io::empty(),
                out_is_terminal: false,
                err_is_terminal: true,
                input_is_terminal: false,
                now: SystemTime::UNIX_EPOCH,
                pause: &mut |_| {},
            };
            let failure = execute(&canned.client(), cli.output, &verb, &mut console).unwrap_err();
            assert!(failure.is_broken_pipe(), "{line:?}: {failure:?}");
        }
    }
}
