//! `make kill`: rounds of kill -9 under load. What was answered is there afterwards, in every pod.

mod round;
mod writers;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::ParseIntError;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use fastrand::Rng;
use udht_tests::pod::{Cluster, ClusterOptions, Pod, StoreKind};
use udht_tests::process::Process;

use round::{Arena, Plan, Victim};
use writers::{Counts, Writers};

/// Pods of real processes on loopback, of which one is killed in each round while all are written to:
/// its manager, its sync, its Redis, or all of it, at a moment by seed.
#[derive(Parser)]
#[command(name = "kill")]
struct Arguments {
    /// What keeps the tables; both, one after the other, if it is not said.
    #[arg(long, value_enum)]
    store: Option<Kept>,
    /// Rounds with each store.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// What the choices of all rounds are drawn from; drawn anew if it is not said.
    #[arg(long, value_parser = seed)]
    seed: Option<u64>,
    /// Pods.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=20))]
    pods: u8,
}

#[derive(Copy, Clone, ValueEnum)]
enum Kept {
    Embedded,
    Redis,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "\nkill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let drawn = u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20);
    let seed = arguments.seed.unwrap_or(drawn);
    let both = [StoreKind::Embedded, StoreKind::Redis];
    let stores = match arguments.store {
        None => &both[..],
        Some(Kept::Embedded) => &both[..1],
        Some(Kept::Redis) => &both[1..],
    };
    for store in stores {
        let name = word(*store);
        writeln!(
            out,
            "{} rounds with {name}, seed {seed:#x}",
            arguments.rounds
        )?;
        let mut summary = Summary::default();
        rounds(arguments, *store, seed, &mut summary, out)
            .with_context(|| format!("seed {seed:#x} with {name}"))?;
        summary.tell(name, out)?;
    }
    Ok(())
}

fn rounds(
    arguments: &Arguments,
    store: StoreKind,
    seed: u64,
    summary: &mut Summary,
    out: &mut impl Write,
) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for the stores")?;
    let options = ClusterOptions {
        store,
        ..ClusterOptions::default()
    };
    let mut random = Rng::with_seed(seed);
    let mut cluster = Cluster::start(folder.path(), usize::from(arguments.pods), &options)?;
    let pods = cluster.pods.iter();
    let pods: Vec<_> = pods.map(|pod| (pod.number, pod.manager_url())).collect();
    let writers = Writers::begin(&pods, &mut random.fork());
    for number in 1..=arguments.rounds {
        let plan = Plan::draw(&mut random.fork(), pods.len(), store);
        write!(out, "{number:>5}  {plan}")?;
        out.flush()?;
        let mut arena = Arena {
            cluster: &mut cluster,
            writers: &writers,
        };
        let equal_after = match arena.play(&plan) {
            Ok(equal_after) => equal_after,
            Err(error) => {
                writeln!(out)?;
                let mut logs = cluster.pods.iter().flat_map(logs);
                logs.try_for_each(|log| out.write_all(log.as_bytes()))?;
                return Err(error.context(format!("round {number}")));
            }
        };
        writeln!(out, "; equal after {}", shown(equal_after))?;
        *summary.kills.entry(plan.victim).or_default() += 1;
        summary.equal_after.push(equal_after);
    }
    (summary.counts, summary.compared) = writers.counts();
    Ok(())
}

/// What a run came to.
#[derive(Default)]
struct Summary {
    kills: BTreeMap<Victim, u32>,
    counts: Counts,
    /// Keys of the account that were looked for in a pod.
    compared: u64,
    equal_after: Vec<Duration>,
}

impl Summary {
    fn tell(&mut self, store: &str, out: &mut impl Write) -> io::Result<()> {
        self.equal_after.sort_unstable();
        let median = self.equal_after.get(self.equal_after.len() / 2);
        let worst = self.equal_after.last();
        let kills = self
            .kills
            .iter()
            .map(|(victim, count)| format!("{victim} {count}"));
        let Counts {
            answered,
            refused,
            unknown,
        } = self.counts;
        writeln!(
            out,
            "{store}: {} rounds; killed: {}; writes: {answered} answered, {refused} refused, \
             {unknown} of unknown outcome; {} records compared, 0 lost, 0 invented; equal again after \
             {} in the median, {} at worst",
            self.equal_after.len(),
            kills.collect::<Vec<_>>().join(", "),
            self.compared,
            shown(median.copied().unwrap_or_default()),
            shown(worst.copied().unwrap_or_default()),
        )
    }
}

fn logs(pod: &Pod) -> [String; 3] {
    let log = |(part, process): (&str, &Option<Process>)| match process {
        Some(process) => format!("-- {part} of pod {}:\n{}\n", pod.number, process.log()),
        None => String::new(),
    };
    [
        ("redis", &pod.redis),
        ("manager", &pod.manager),
        ("sync", &pod.sync),
    ]
    .map(log)
}

const fn word(store: StoreKind) -> &'static str {
    match store {
        StoreKind::Embedded => "embedded",
        StoreKind::Redis => "redis",
    }
}

fn shown(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

/// A seed as it is printed, or in decimal.
fn seed(text: &str) -> Result<u64, ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}
