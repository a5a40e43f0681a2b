//! Closed loops: programs in C that send the next request of a connection when the last is answered.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use udht_tests::pod::REDIS_PORT;

use crate::alone::Alone;

/// How long `redis-benchmark` is to run; it is told so by a number of requests.
const RUN: Duration = Duration::from_secs(2);
/// How many requests are sent first, to know how fast such are answered; of large ones, fewer.
pub(crate) const FIRST_REQUESTS: u32 = 10_000;
pub(crate) const FIRST_LARGE_REQUESTS: u32 = 20;
/// What `redis-benchmark` draws a number of twelve digits for.
pub(crate) const DRAWN: &str = "__rand_int__";
/// What `wrk` sends.
const SCRIPT: &str = include_str!("wrk.lua");

/// Makes sure that a program is there.
pub(crate) fn demand(program: &str, package: &str) -> Result<()> {
    if Command::new(program).arg("--version").output().is_ok() {
        return Ok(());
    }
    bail!("{program} is missing: install {package} (Debian's name) and run this again")
}

/// The requests that `redis-benchmark` has answered in a second, by so many connections, where each
/// [`DRAWN`] in `command` is one of `records` numbers; `first` requests tell how many are needed.
pub(crate) fn redis_benchmark(
    alone: &Alone,
    connections: u32,
    records: usize,
    first: u32,
    command: &[&str],
) -> Result<f64> {
    let run = |requests: u32| {
        let mut program = Command::new("redis-benchmark");
        program.args(["-h", &alone.address().to_string()]);
        program.args(["-p", &REDIS_PORT.to_string(), "--csv"]);
        program.args(["-c", &connections.to_string()]);
        program.args(["-n", &requests.to_string()]);
        program.args(["-r", &records.to_string()]);
        let output = succeeded(program.args(command).output(), "redis-benchmark")?;
        // "the command","requests a second","its latencies",...
        let last = output.lines().last().unwrap_or_default().to_owned();
        let rate = last.split("\",\"").nth(1).and_then(|it| it.parse().ok());
        rate.with_context(|| format!("redis-benchmark said {output:?}"))
    };
    let first_rate: f64 = run(first)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of requests, and saturating"
    )]
    run((first_rate * RUN.as_secs_f64()) as u32)
}

/// The requests that the server at `url` has answered to `wrk` in a second, by so many connections:
/// `method` on the lines of the file `requests`, each of which is a path, a space, and a body.
pub(crate) fn wrk(url: &str, connections: u32, method: &str, requests: &Path) -> Result<f64> {
    let Answered { requests, seconds } = wrk_answered(url, connections, method, requests)?;
    Ok(requests / seconds)
}

/// What was answered to `wrk`.
pub(crate) struct Answered {
    pub(crate) requests: f64,
    pub(crate) seconds: f64,
}

/// The same, as the two numbers that it is made of.
pub(crate) fn wrk_answered(
    url: &str,
    connections: u32,
    method: &str,
    requests: &Path,
) -> Result<Answered> {
    let script = requests.with_extension("lua");
    std::fs::write(&script, SCRIPT)?;
    let mut program = Command::new("wrk");
    program.args(["--threads", "1", "--connections", &connections.to_string()]);
    program.args(["--duration", &format!("{}s", RUN.as_secs())]);
    program.arg("--script").arg(&script).arg(url);
    program.args(["--", method]).arg(requests);
    let output = succeeded(program.output(), "wrk")?;
    let line = output.lines().find_map(|line| line.strip_prefix("done "));
    let line = line.with_context(|| format!("wrk said {output:?}"))?;
    let numbers = line.split(' ').map(str::parse::<f64>);
    let numbers: Vec<_> = numbers.collect::<Result<_, _>>()?;
    let &[answered, micros, failed] = &numbers[..] else {
        bail!("wrk said {line:?}");
    };
    ensure!(failed == 0.0, "{failed} of {answered} requests failed");
    Ok(Answered {
        requests: answered,
        seconds: micros / 1e6,
    })
}

/// A file for [`wrk`] with these paths and bodies.
pub(crate) fn write_requests(
    file: &Path,
    requests: impl Iterator<Item = (String, String)>,
) -> Result<()> {
    let mut lines = String::new();
    for (path, body) in requests {
        writeln!(lines, "{path} {body}")?;
    }
    std::fs::write(file, lines).with_context(|| file.display().to_string())
}

fn succeeded(output: std::io::Result<Output>, program: &str) -> Result<String> {
    let output = output.with_context(|| format!("run {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}
