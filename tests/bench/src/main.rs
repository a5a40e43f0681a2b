//! Measures every number that UDHT is to reach, beside something real, on the machine it runs on.
//!
//! Both sides of a row run in one go, so that only their ratio is to be trusted. What does not depend
//! on the machine (bytes, round trips, messages) is also kept in `tests/bench/counts.json`, and a run
//! in which it has grown fails.

mod alone;
mod bare;
mod counts;
mod exchange;
mod fan_out;
mod finding;
mod load;
mod measure;
mod merging;
mod open_loop;
mod page;
mod pairs;
mod records;
mod report;
mod requests;
mod rest;
mod scale;
mod shipping;
mod spread;
mod start;
mod watchers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use udht_tests::process::programs_in;

use crate::counts::Counts;
use crate::report::Report;

/// Measure every number that UDHT is to reach beside something real, and print the table.
///
/// Only ratios are worth a comparison with another machine: both sides of a row run in one go.
/// Bytes, round trips and messages are the same everywhere; a run in which one of them has grown
/// fails, and names it.
#[derive(Parser, Debug)]
#[command(name = "bench", version)]
struct Arguments {
    /// Only counts, which do not depend on the machine, and the smaller sizes: within two minutes.
    #[arg(long)]
    quick: bool,
    /// Only these groups; see --list.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    only: Vec<String>,
    /// Say which groups there are, and end.
    #[arg(long)]
    list: bool,
    /// Write the table to this file too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the page about many pods to this file: the group `scale` as curves.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Measure udht-manager and udht-sync of this folder, rather than those beside this program.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Where the counts are kept that must not grow.
    #[arg(long, value_name = "FILE", default_value = "tests/bench/counts.json")]
    counts: PathBuf,
    /// Keep the counts of this run from now on, rather than compare with them.
    #[arg(long)]
    keep_counts: bool,
}

/// Some rows of the table that are measured together.
struct Group {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Report) -> Result<()>,
}

/// All of them, in the order of the table.
const GROUPS: &[Group] = &[
    Group {
        name: "finding",
        about: "finding differences: bytes, round trips and CPU, beside the negentropy crate and full dumps",
        run: finding::run,
    },
    Group {
        name: "shipping",
        about: "the records that differ: bytes and CPU, beside JSON",
        run: shipping::run,
    },
    Group {
        name: "spread",
        about: "real pairs: when a change is visible in all pods, and what that takes",
        run: spread::run,
    },
    Group {
        name: "rest",
        about: "real pairs at rest: memory, CPU and bytes sent",
        run: rest::run,
    },
    Group {
        name: "exchange",
        about: "whole exchanges between two real pairs, plain and with TLS",
        run: exchange::run,
    },
    Group {
        name: "scale",
        about: "messages, bytes and hops in clusters of up to 10,000 pods, counted",
        run: scale::run,
    },
    Group {
        name: "requests",
        about: "reads and writes through manager, beside the same of its Redis",
        run: requests::run,
    },
    Group {
        name: "merging",
        about: "merging what comes from a peer, beside writing it without comparing anything",
        run: merging::run,
    },
    Group {
        name: "start",
        about: "ready after a start, beside HGETALL, and what a neighbour on that Redis feels of it",
        run: start::run,
    },
    Group {
        name: "page",
        about: "the page with 100,000 peers in a headless Chromium; nothing where there is none",
        run: page::run,
    },
];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("bench: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Whether nothing has grown.
fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for group in GROUPS {
            println!("{:<12} {}", group.name, group.about);
        }
        return Ok(true);
    }
    for name in &arguments.only {
        ensure!(
            GROUPS.iter().any(|group| group.name == name),
            "there is no group {name:?}: --list names those there are"
        );
    }
    // Before anything is measured: what is wrong with them should not be said minutes later.
    let mut counts = if arguments.keep_counts && !arguments.counts.exists() {
        Counts::default()
    } else {
        Counts::read(&arguments.counts)?
    };
    if let Some(folder) = &arguments.programs {
        programs_in(folder.clone());
    }
    let mut report = Report::new(arguments.quick);
    for group in GROUPS {
        if arguments.only.is_empty() || arguments.only.iter().any(|name| name == group.name) {
            say(&format!("bench: {}: {}", group.name, group.about));
            (group.run)(&mut report).with_context(|| format!("group {}", group.name))?;
        }
    }
    print!("{report}");
    if let Some(file) = &arguments.json {
        report.write_json(file)?;
    }
    if let Some(file) = &arguments.page {
        std::fs::write(file, scale::page(&report))
            .with_context(|| format!("write {}", file.display()))?;
    }
    if arguments.keep_counts {
        counts.keep(&report);
        counts.write(&arguments.counts)?;
        return Ok(true);
    }
    let grown = counts.grown(&report);
    for growth in &grown {
        say(&format!("bench: FAILED: {growth}"));
    }
    if !grown.is_empty() {
        say(
            "bench: if that is meant to be so: make bench BENCH_ARGS=--keep-counts, and say why in the commit",
        );
    }
    Ok(grown.is_empty())
}

/// A line for who waits: the table alone goes to standard output.
#[expect(clippy::print_stderr, reason = "a program's own word to its user")]
fn say(line: &str) {
    eprintln!("{line}");
}
