//! How soon a change is visible in every pod: 10, 30 and 50 pairs on this machine, real processes.
//!
//! A change is a PUT of a new record to the manager of a pod drawn at random. Its time begins when
//! the request is sent, so that stamping it and having it on the writer's disk is part of it, and
//! ends in a pod when the watch of an application there tells of it, which is after it is on the
//! disk of that pod. The pod that wrote it is left out of the percentiles, as it has it at once.
//! Beside them stands the time until the last pod had it.
//!
//! - one at a time: a pause of 100 ms lies between the last pod's having a change and the next one;
//! - 100 a second: sent when their time has come, whatever became of those before;
//! - at once: ten in each of ten pods, all sent together, several times; the worst counts.
//!
//! With one pod in ten killed (kill -9) the others still have them in their lists and find out by
//! themselves. On loopback a dead pod refuses a connection at once; a node that is gone would say
//! nothing, and the first push to it would end by its time limit. When the killed come back, each
//! one's time is from the start of its processes until it has all that it missed.
//!
//! Where the CPU that a change takes in all pods together (a row of its own), times the changes of a
//! second, is more than the machine has, the rate cannot be kept here, and the rows of it tell what
//! becomes of pods that are asked for too much.
//!
//! It does not flatter us: all pairs, the watches of all of them and who measures share the
//! processors of one machine, and one disk to which each pod syncs each change before it tells of
//! it. The syncs speak mutual TLS, as the chart has them do. Other directories measured so (50
//! nodes on one machine, their defaults, plaintext, and no disk in Serf's case) needed 570 to
//! 600 ms (Serf) and 740 ms (Corrosion) in the 99th percentile; neither runs here.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;
use hdrhistogram::Histogram;

use crate::measure::Times;
use crate::pairs::{BYTES_SENT, MESSAGES, Pairs, Secured, cpu_of_pair};
use crate::report::{Figure, Goal, Report, Row, Unit};
use crate::watchers::{Change, Watchers, block_on};

/// Between two changes that are made one at a time.
const PAUSE: Duration = Duration::from_millis(100);
/// After so long a change is lost: a round of exchanges would have carried it twice.
const PATIENCE: Duration = Duration::from_secs(20);
/// Changes a second.
const RATE: u32 = 100;
/// How long that rate is held.
const RATE_SECONDS: u32 = 5;
/// How many times many changes are made at once.
const BURSTS: usize = 10;
/// In how many pods, and how many in each.
const BURST: usize = 10;
/// Pods of which one is killed.
const KILLED_ONE_IN: usize = 10;
/// Rounds of changes whose messages are counted, and changes in each.
const COUNTED: (usize, usize) = (5, 8);
/// What a change visible in all pods may take, in the 99th percentile and for all in the median.
const VISIBLE: Goal = Goal::AtMost(0.06);

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    counts(report)?;
    if report.is_quick() {
        return Ok(());
    }
    for (pods, changes) in [(50, 200), (30, 100), (10, 100)] {
        of_size(report, pods, changes)?;
    }
    Ok(())
}

/// What one change costs in messages, which is the same on every machine: rounds of exchanges rest
/// meanwhile, and what replicas tell of themselves falls into some of the rounds only.
fn counts(report: &mut Report) -> Result<()> {
    const PODS: usize = 10;
    let pairs = Pairs::start(PODS, Secured::Plain, Some("1h"))?;
    let alive: Vec<_> = (0..PODS).collect();
    let (rounds, changes) = COUNTED;
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    block_on(async {
        let watchers = Watchers::new(&pairs.cluster.pods).await?;
        for _ in 0..rounds {
            let before = pairs.counted()?;
            let from = watchers.count();
            for pod in 0..changes {
                change(&watchers, pod, &alive).await?;
            }
            let after = pairs.counted()?;
            ensure!(
                watchers.count() == from + changes,
                "a change was not counted"
            );
            let each = |name| after.since(&before, name) / number(changes);
            messages.push(each(MESSAGES));
            bytes.push(each(BYTES_SENT));
        }
        Ok(())
    })?;
    let least = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, f64::min);
    report.add(
        Row::new(
            format!("spread/{PODS}/messages"),
            format!("a change in {PODS} pods: messages between them"),
            Figure::new(least(messages), Unit::Number),
        )
        .count(),
    );
    report.add(
        Row::new(
            format!("spread/{PODS}/bytes"),
            format!("a change in {PODS} pods: bytes between them, with the answers"),
            Figure::new(least(bytes), Unit::Bytes),
        )
        .count(),
    );
    Ok(())
}

/// All of it with so many pods.
fn of_size(report: &mut Report, count: usize, changes: usize) -> Result<()> {
    let mut pairs = Pairs::start(count, Secured::Tls, None)?;
    block_on(async {
        let mut watchers = Watchers::new(&pairs.cluster.pods).await?;
        let mut random = Rng::with_seed(count as u64);
        let all: Vec<_> = (0..count).collect();

        let cpu = cpu_of_all(&pairs)?;
        let made = one_at_a_time(&watchers, &mut random, &all, changes).await?;
        let cpu = cpu_of_all(&pairs)?.saturating_sub(cpu);
        let id = format!("spread/{count}/one");
        let what = format!("{count} pods, one change at a time");
        seen(
            report,
            &id,
            &what,
            &made,
            &all,
            (count == 50).then_some(VISIBLE),
        )?;
        let cpu = Figure::new(cpu.as_secs_f64() / number(changes), Unit::Seconds);
        report.add(Row::new(
            format!("{id}/cpu"),
            format!("{what}: CPU of all pods for each"),
            cpu,
        ));

        let made = at_a_rate(report, &pairs, &watchers, &mut random, &all).await?;
        let id = format!("spread/{count}/rate");
        let what = format!("{count} pods, {RATE} changes a second");
        seen(report, &id, &what, &made, &all, None)?;
        // What was too much must not be in the way of what comes now.
        watchers.all_have(0, &all, 6 * PATIENCE).await;

        if count == 50 {
            at_once(report, &watchers, &all).await?;
        }
        with_some_killed(report, &mut pairs, &mut watchers, &mut random, changes / 2).await
    })
}

/// One change after the other, each in a pod drawn at random.
async fn one_at_a_time(
    watchers: &Watchers,
    random: &mut Rng,
    alive: &[usize],
    changes: usize,
) -> Result<Vec<Change>> {
    let from = watchers.count();
    for _ in 0..changes {
        tokio::time::sleep(PAUSE).await;
        change(watchers, alive[random.usize(..alive.len())], alive).await?;
    }
    Ok(watchers.changes(from))
}

/// A change in a pod; waits until all of `alive` have it.
async fn change(watchers: &Watchers, pod: usize, alive: &[usize]) -> Result<()> {
    let from = watchers.count();
    watchers.write(pod)?.await??;
    watchers.all_have(from, alive, PATIENCE).await;
    Ok(())
}

/// Changes that are sent when their time has come.
async fn at_a_rate(
    report: &mut Report,
    pairs: &Pairs,
    watchers: &Watchers,
    random: &mut Rng,
    alive: &[usize],
) -> Result<Vec<Change>> {
    let from = watchers.count();
    let before = pairs.counted()?;
    let cpu = cpu_of_all(pairs)?;
    let begun = tokio::time::Instant::now();
    let mut writes = Vec::new();
    for change in 0..RATE * RATE_SECONDS {
        tokio::time::sleep_until(begun + Duration::from_secs(1) * change / RATE).await;
        writes.push(watchers.write(alive[random.usize(..alive.len())])?);
    }
    for write in writes {
        write.await??;
    }
    watchers.all_have(from, alive, PATIENCE).await;
    let took = begun.elapsed().as_secs_f64();
    let cpu = cpu_of_all(pairs)?.saturating_sub(cpu).as_secs_f64();
    let after = pairs.counted()?;
    let count = alive.len();
    let cpu = Figure::new(cpu / f64::from(RATE * RATE_SECONDS), Unit::Seconds);
    report.add(Row::new(
        format!("spread/{count}/rate/cpu"),
        format!("{count} pods, {RATE} changes a second: CPU of all pods for each"),
        cpu,
    ));
    for (name, words, unit) in [
        (MESSAGES, "messages", Unit::PerSecond),
        (BYTES_SENT, "bytes", Unit::Bytes),
    ] {
        let each = after.since(&before, name) / number(count) / took;
        report.add(Row::new(
            format!("spread/{count}/rate/{words}"),
            format!("{count} pods, {RATE} changes a second: {words} sent by each in a second"),
            Figure::new(each, unit),
        ));
    }
    Ok(watchers.changes(from))
}

/// Many changes in some pods at the same time.
async fn at_once(report: &mut Report, watchers: &Watchers, all: &[usize]) -> Result<()> {
    let (mut took, mut worst, mut late) = (Times::default(), 0.0_f64, 0);
    for burst in 0..BURSTS {
        tokio::time::sleep(10 * PAUSE).await;
        let from = watchers.count();
        let begun = Instant::now();
        let mut writes = Vec::new();
        for place in 0..BURST * BURST {
            let pod = (burst + place % BURST * (all.len() / BURST)) % all.len();
            writes.push(watchers.write(all[pod])?);
        }
        for write in writes {
            write.await??;
        }
        watchers.all_have(from, all, PATIENCE).await;
        let changes = watchers.changes(from);
        let seen = changes.iter().map(|change| change.everywhere(all));
        late += seen.filter(Option::is_none).count();
        let last = changes
            .iter()
            .flat_map(|change| change.seen.iter().flatten());
        let last = last.max().map_or(PATIENCE, |last| *last - begun);
        worst = worst.max(last.as_secs_f64());
        took.add(last);
    }
    let what = format!(
        "{} changes at once in {BURST} of {} pods",
        BURST * BURST,
        all.len()
    );
    report.add(
        Row::new(
            "spread/50/at-once/lost",
            format!("{what}: not everywhere within {} s", PATIENCE.as_secs()),
            Figure::new(number(late), Unit::Number),
        )
        .goal(Goal::AtMost(0.0)),
    );
    report.add(Row::new(
        "spread/50/at-once",
        format!("{what}: until all have all"),
        took.figure(),
    ));
    report.add(
        Row::new(
            "spread/50/at-once/worst",
            format!("{what}: until all have all, the worst of {BURSTS} times"),
            Figure::new(worst, Unit::Seconds),
        )
        .goal(Goal::AtMost(0.5)),
    );
    Ok(())
}

/// One pod in ten is killed, the others go on, and it comes back.
async fn with_some_killed(
    report: &mut Report,
    pairs: &mut Pairs,
    watchers: &mut Watchers,
    random: &mut Rng,
    changes: usize,
) -> Result<()> {
    let count = pairs.cluster.pods.len();
    // From its middle, so that they are not all at one end of any order.
    let (killed, alive): (Vec<_>, Vec<_>) =
        (0..count).partition(|pod| pod % KILLED_ONE_IN == KILLED_ONE_IN / 2);
    for pod in &killed {
        watchers.unwatch(*pod);
        pairs.cluster.pods[*pod].kill()?;
    }
    let from = watchers.count();
    let made = one_at_a_time(watchers, random, &alive, changes).await?;
    let id = format!("spread/{count}/killed");
    let what = format!("{count} pods of which {} are killed", killed.len());
    seen(report, &id, &what, &made, &alive, None)?;

    let (mut back, mut behind) = (Times::default(), 0);
    for pod in killed {
        let begun = Instant::now();
        pairs.cluster.pods[pod].start_manager()?;
        watchers.watch(pod).await?;
        pairs.cluster.pods[pod].start_sync()?;
        watchers.all_have(from, &[pod], PATIENCE).await;
        let made = watchers.changes(from);
        let has = made.iter().map(|change| change.seen[pod]);
        let last = has
            .collect::<Option<Vec<_>>>()
            .and_then(|seen| seen.into_iter().max());
        match last {
            Some(last) => back.add(last - begun),
            None => behind += 1,
        }
    }
    report.add(
        Row::new(
            format!("{id}/back/lost"),
            format!(
                "{what}: those that came back and lack something after {} s",
                PATIENCE.as_secs()
            ),
            Figure::new(f64::from(behind), Unit::Number),
        )
        .goal(Goal::AtMost(0.0)),
    );
    report.add(Row::new(
        format!("{id}/back"),
        format!("{what}: until one that is back has all it missed"),
        back.figure(),
    ));
    Ok(())
}

/// The rows of when changes were seen.
fn seen(
    report: &mut Report,
    id: &str,
    what: &str,
    changes: &[Change],
    pods: &[usize],
    goal: Option<Goal>,
) -> Result<()> {
    // Microseconds.
    let mut delays = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let (mut everywhere, mut lost) = (Times::default(), 0);
    for change in changes {
        for delay in change.delays(pods) {
            delays.record(u64::try_from(delay.as_micros())?)?;
        }
        match change.everywhere(pods) {
            Some(time) => everywhere.add(time),
            None => lost += 1,
        }
    }
    let figure = |micros: u64| {
        let time = Duration::from_micros(micros);
        Figure::new(time.as_secs_f64(), Unit::Seconds)
    };
    let row = |name: &str, words: &str, figure| {
        Row::new(format!("{id}/{name}"), format!("{what}: {words}"), figure)
    };
    let held = |row: Row| match goal {
        Some(goal) => row.goal(goal),
        None => row,
    };
    let at = |quantile| figure(delays.value_at_quantile(quantile));
    report.add(row("p50", "in a pod, p50", at(0.5)));
    report.add(held(row("p99", "in a pod, p99", at(0.99))));
    report.add(row("worst", "in a pod, worst", figure(delays.max())));
    report.add(held(row("all", "in all of them", everywhere.figure())));
    if lost > 0 {
        let lost = Figure::new(number(lost), Unit::Number);
        let lost = row("lost", "not everywhere in time", lost);
        report.add(lost.goal(Goal::AtMost(0.0)));
    }
    Ok(())
}

/// What all pairs that run have used of the processors so far.
fn cpu_of_all(pairs: &Pairs) -> Result<Duration> {
    pairs.cluster.pods.iter().map(cpu_of_pair).sum()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no number here comes near to 2^52"
)]
const fn number(count: usize) -> f64 {
    count as f64
}
