//! The whole exchange with the records, between two real pairs, plain and with TLS.
//!
//! Two managers as real processes with their stores in files, and beside one of them a sync as it
//! is. The other sync is the same code in this process, with one thread as the program has, so that
//! it begins an exchange when it is told to and the next one as soon as that is done. Plain and
//! mutual TLS 1.3 take turns, each time with the same records for both.
//!
//! How long an exchange takes is what the sync itself reports: from its first question to its own
//! manager until the records of both sides are on both disks. Bytes are those of the messages: what
//! HTTP and TLS put around them is not counted. The connection is there already, as between two
//! that exchanged within the last minute. The goal for TLS is held against exchanges of equal
//! tables, one after the other: an exchange carries nothing less, so what TLS costs for each message
//! weighs most there; but the questions of the two syncs to their own managers, which are never
//! encrypted, are part of it on both sides, as they are in every exchange there is.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use peer_exchange::{Address, Report as Exchanged};
use peer_table::Contact;
use tokio::runtime::Runtime;
use udht_sync::config::{Bounds, EndsArgs};
use udht_sync::node::Node;
use udht_sync::wall;
use udht_tests::pod::Part;

use crate::measure::{Samples, Times};
use crate::pairs::{self, CLUSTER, Pairs, Secured, cpu_of};
use crate::report::{Figure, Goal, Report, Row, Unit};

/// Records in both tables.
const RECORDS: usize = 100_000;
/// How many of them differ, and how many times such a difference is made.
const DIFFERENCES: [(usize, u32); 3] = [(15, 21), (1_500, 7), (15_000, 3)];
/// Turns of exchanges of equal tables, and exchanges in each.
const EQUAL: (u32, u32) = (41, 100);
/// Exchanges after which what the two have noted of each other is in both tables.
const SETTLED_WITHIN: usize = 10;
/// Records of which that may be.
const CONTACTS_MAX: u64 = 2;
/// What mutual TLS leaves of the rate.
const TLS: Goal = Goal::AtLeast(0.8);

/// Two pods of which one begins all exchanges.
struct Ends {
    pairs: Pairs,
    node: Node,
    other: Address,
    /// The next records that neither has.
    seed: usize,
    /// The step of contacts in which the last exchange was.
    step: Cell<Contact>,
}

/// What the flags of a sync say of its two ends.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    ends: EndsArgs,
}

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    if report.is_quick() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut plain = Ends::start(Secured::Plain)?;
    let mut tls = Ends::start(Secured::Tls)?;

    let (mut took, mut took_tls) = (Times::default(), Times::default());
    let bytes = plain.whole(&runtime, &mut took)?;
    tls.whole(&runtime, &mut took_tls)?;
    add(report, "whole", "all of", bytes, [took_tls, took]);

    for (by, times) in DIFFERENCES {
        let (mut took, mut took_tls) = (Times::default(), Times::default());
        let mut bytes = 0;
        for _ in 0..times {
            bytes = plain.differing(&runtime, by, &mut took)?;
            tls.differing(&runtime, by, &mut took_tls)?;
        }
        let words = format!("{by} differences in");
        add(report, &by.to_string(), &words, bytes, [took_tls, took]);
    }
    kept_alive(report, &runtime, [&plain, &tls])
}

/// The rows of an exchange that took so long under TLS and without.
fn add(report: &mut Report, name: &str, words: &str, bytes: u64, [tls, plain]: [Times; 2]) {
    let what = format!("{words} {RECORDS}, exchanged with the records");
    report.add(Row::new(
        format!("exchange/{RECORDS}/{name}/bytes"),
        format!("{what}: bytes"),
        Figure::bytes(bytes),
    ));
    report.add(
        Row::new(
            format!("exchange/{RECORDS}/{name}"),
            format!("{what}, under TLS"),
            tls.figure(),
        )
        .beside("plain", plain.figure()),
    );
}

/// Exchanges of equal tables, one after the other over connections that stay.
fn kept_alive(report: &mut Report, runtime: &Runtime, ends: [&Ends; 2]) -> Result<()> {
    let (turns, exchanges) = EQUAL;
    let mut took = [const { Samples::new() }; 2];
    let mut cpu = [Duration::ZERO; 2];
    for _ in 0..turns {
        for (place, ends) in ends.iter().enumerate() {
            let before = ends.cpu()?;
            let begun = Instant::now();
            for _ in 0..exchanges {
                ends.exchange(runtime)?;
            }
            took[place].add(f64::from(exchanges) / begun.elapsed().as_secs_f64());
            cpu[place] += ends.cpu()?.saturating_sub(before);
        }
    }
    let [plain, tls] = took.map(|rates| rates.figure(Unit::PerSecond));
    report.add(
        Row::new(
            "exchange/kept-alive",
            format!("equal tables of {RECORDS}: exchanges in turn, under TLS"),
            tls,
        )
        .beside("plain", plain)
        .goal(TLS),
    );
    let [plain, tls] = cpu.map(|cpu| {
        let each = cpu.as_secs_f64() / f64::from(turns * exchanges);
        Figure::new(each, Unit::Seconds)
    });
    report.add(
        Row::new(
            "exchange/kept-alive/cpu",
            format!("equal tables of {RECORDS}: CPU of both pairs, under TLS"),
            tls,
        )
        .beside("plain", plain),
    );
    Ok(())
}

impl Ends {
    /// Two pods that know nothing of each other any more once they have met, and have nothing.
    fn start(secured: Secured) -> Result<Self> {
        let mut pairs = Pairs::start(2, secured, Some("1h"))?;
        let [first, second] = &mut pairs.cluster.pods[..] else {
            anyhow::bail!("two pods were started");
        };
        // What is written must travel by nothing but the exchanges that are measured.
        first.kill_part(Part::Sync)?;
        second.kill_part(Part::Sync)?;
        second.find_others(format!("fixed:{}", second.exchange_address()));
        second.start_sync()?;
        let (manager, other) = (first.manager_url(), second.exchange_address());
        let flags = ["bench", "--manager", &manager, "--cluster", CLUSTER];
        let flags = flags.into_iter().chain(["--tls", &pairs.tls]);
        let Flags { ends } = Flags::try_parse_from(flags)?;
        let (node, _news) = Node::new(&ends, Bounds::default(), Duration::ZERO)?;
        Ok(Self {
            node,
            other: other.parse().context("the address of a sync")?,
            pairs,
            seed: RECORDS,
            step: Cell::new(Contact::NEVER),
        })
    }

    /// Exchanges; gives what it was and how long it took.
    ///
    /// The first in a step of contacts has each pod note that it has seen the other, in its own table and
    /// beside the exchange. So much may differ after that one, and is exchanged too before the next.
    fn exchange(&self, runtime: &Runtime) -> Result<(Exchanged, Duration)> {
        let exchange = || runtime.block_on(self.node.exchange(&self.other));
        let (exchanged, took) = exchange()?;
        let step = Contact::at(wall::now());
        let is_first = self.step.replace(step) != step;
        let mut is_equal = exchanged.is_equal();
        for _ in 0..SETTLED_WITHIN {
            if is_equal || !is_first {
                break;
            }
            is_equal = exchange()?.0.is_equal();
        }
        ensure!(is_equal, "the tables differ: {exchanged:?}");
        Ok((exchanged, took))
    }

    /// One has all, and the other nothing; gives the bytes.
    fn whole(&mut self, runtime: &Runtime, took: &mut Times) -> Result<u64> {
        self.exchange(runtime)?;
        self.pairs.import(0, RECORDS, RECORDS)?;
        let (exchanged, time) = self.exchange(runtime)?;
        took.add(time);
        Ok(exchanged.traffic().bytes())
    }

    /// Each has records that the other has not; gives the bytes.
    fn differing(&mut self, runtime: &Runtime, by: usize, took: &mut Times) -> Result<u64> {
        let ours = by.div_ceil(2);
        for (pod, records) in [(0, ours), (1, by - ours)] {
            self.seed += 1;
            pairs::import(
                &self.pairs.agent,
                &self.pairs.cluster.pods[pod],
                self.seed,
                records,
            )?;
        }
        let (exchanged, time) = self.exchange(runtime)?;
        let moved = exchanged.moved.sent + exchanged.moved.received;
        let expected = by as u64..=by as u64 + CONTACTS_MAX;
        ensure!(
            expected.contains(&moved),
            "not {by} records moved: {exchanged:?}"
        );
        took.add(time);
        Ok(exchanged.traffic().bytes())
    }

    /// What both managers and both syncs have used of the processors so far.
    fn cpu(&self) -> Result<Duration> {
        let pods = self.pairs.cluster.pods.iter();
        let theirs: Duration = pods.map(pairs::cpu_of_pair).sum::<Result<_>>()?;
        Ok(theirs + cpu_of(std::process::id())?)
    }
}
