//! Five pods of UDHT on this machine: what `make demo` runs.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use udht_tests::http;
use udht_tests::pod::{Cluster, ClusterOptions, MANAGER_PORT};
use udht_tests::process::{PATIENCE, program};
use udht_tests::watch::{Event, follow};
use ureq::Agent;

/// Five pods of UDHT on this machine: ten real processes, embedded stores, real exchanges.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Peers in the table that is imported.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    records: u32,
    /// Pods.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=50))]
    pods: u8,
    /// End after the last step instead of staying up: 0 if every step was seen to hold.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for the stores")?;
    let mut demo = Demo::start(folder.path(), usize::from(arguments.pods), out)?;
    demo.import(folder.path(), arguments.records, out)?;
    demo.change(out)?;
    demo.delete(out)?;
    demo.kill_and_return(out)?;
    demo.compare(out)?;
    if arguments.check {
        writeln!(out, "\nEvery step held.")?;
        return Ok(());
    }
    demo.stay(out)
}

/// The pods, and what is seen of them.
struct Demo {
    cluster: Cluster,
    agent: Agent,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl Demo {
    fn start(folder: &Path, pods: usize, out: &mut impl Write) -> Result<Self> {
        headline(
            out,
            &format!("{pods} pods, each a manager and a sync of its own"),
        )?;
        let options = ClusterOptions::default();
        let cluster = Cluster::start(folder, pods, &options)?;
        let (sender, events) = channel();
        let demo = Self {
            cluster,
            agent: http::agent(),
            sender,
            events,
        };
        for pod in &demo.cluster.pods {
            writeln!(
                out,
                "  pod {}  manager {:<26} sync {:<20} ops {}",
                pod.number,
                pod.manager_url(),
                pod.exchange_address(),
                pod.ops_url()
            )?;
            demo.watch(pod.number)?;
        }
        let started = Instant::now();
        // Each pod has written its own record, and learns of the others'.
        demo.wait_until_equal()?;
        // Until a pod has met one that belongs, it takes no pushes.
        demo.cluster.wait_until_joined(&demo.agent)?;
        writeln!(out, "  all know all after {}", shown(started.elapsed()))?;
        Ok(demo)
    }

    fn watch(&self, number: usize) -> Result<()> {
        let url = self.cluster.pods[number - 1].manager_url();
        follow(&self.agent, &url, number, self.sender.clone())
    }

    /// Imports a table in pod 1 with the command that a user has.
    fn import(&mut self, folder: &Path, records: u32, out: &mut impl Write) -> Result<()> {
        headline(out, &format!("{records} peers imported in pod 1"))?;
        let dump = folder.join("peers.ndjson");
        write_dump(&dump, records)?;
        let started = Instant::now();
        let url = self.cluster.pod(1).manager_url();
        let file = dump.display().to_string();
        let said = command("udht-manager", &["--manager", &url, "import", &file])?;
        let took = started.elapsed();
        said.lines()
            .try_for_each(|line| writeln!(out, "  {line}"))?;
        writeln!(out, "  written in {}", shown(took))?;
        let started = Instant::now();
        self.wait_until_equal()?;
        writeln!(out, "  all tables equal {} later", shown(started.elapsed()))?;
        let (_, held) = self.cluster.pod(1).digest(&self.agent)?;
        ensure!(
            held >= u64::from(records),
            "pod 1 holds {held} records only"
        );
        Ok(())
    }

    /// Changes records in one pod, and tells when each of the others had the change.
    fn change(&mut self, out: &mut impl Write) -> Result<()> {
        let numbers: Vec<_> = self.cluster.pods.iter().map(|pod| pod.number).collect();
        headline(
            out,
            "five changes in pod 2, and when each of the others had them",
        )?;
        write!(out, "  {:<12}", "change")?;
        for number in numbers.iter().filter(|number| **number != 2) {
            write!(out, "{:>10}", format!("pod {number}"))?;
        }
        writeln!(out)?;
        for change in 1..=5 {
            let key = format!("demo-{change:06}");
            let url = format!("{}/v1/peers/{key}", self.cluster.pod(2).manager_url());
            let body = peer(change, &json!({"changed": change.to_string()}));
            let started = Instant::now();
            let written = http::put(&self.agent, &url, &body)?.ok()?;
            let version = written["version"].clone();
            let seen = self.wait_for_all(|event| {
                event.kind() == "put" && event.said["peer"]["version"] == version
            })?;
            write!(out, "  {key:<12}")?;
            for number in numbers.iter().filter(|number| **number != 2) {
                write!(
                    out,
                    "{:>10}",
                    shown(seen[number].saturating_duration_since(started))
                )?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn delete(&mut self, out: &mut impl Write) -> Result<()> {
        let last = self.cluster.pods.len();
        headline(
            out,
            &format!("one peer deleted in pod {last}, and gone everywhere"),
        )?;
        let key = "demo-000001";
        let url = format!("{}/v1/peers/{key}", self.cluster.pod(last).manager_url());
        let started = Instant::now();
        http::delete(&self.agent, &url)?.ok()?;
        let seen =
            self.wait_for_all(|event| event.kind() == "delete" && event.peer_id() == Some(key))?;
        let slowest = seen
            .values()
            .max()
            .context("no pod")?
            .saturating_duration_since(started);
        for pod in &self.cluster.pods {
            let url = format!("{}/v1/peers/{key}", pod.manager_url());
            let status = http::get(&self.agent, &url)?.status;
            ensure!(
                status == 404,
                "pod {} still has {key}: status {status}",
                pod.number
            );
        }
        writeln!(out, "  {key}: 404 in every pod after {}", shown(slowest))?;
        Ok(())
    }

    /// Kills a pod, writes elsewhere meanwhile, and brings it back on its store.
    fn kill_and_return(&mut self, out: &mut impl Write) -> Result<()> {
        headline(
            out,
            "pod 3 is killed (kill -9), misses changes and comes back",
        )?;
        let own = format!(
            "{}/v1/peers/written-in-3",
            self.cluster.pod(3).manager_url()
        );
        http::put(&self.agent, &own, &peer(3, &json!({})))?.ok()?;
        self.cluster.pod(3).kill()?;
        writeln!(out, "  killed right after it had answered to a write")?;
        let missed = format!(
            "{}/v1/peers/written-meanwhile",
            self.cluster.pod(1).manager_url()
        );
        http::put(&self.agent, &missed, &peer(4, &json!({})))?.ok()?;
        let gone = format!("{}/v1/peers/demo-000002", self.cluster.pod(2).manager_url());
        http::delete(&self.agent, &gone)?.ok()?;
        let started = Instant::now();
        self.cluster.pod(3).start()?;
        self.watch(3)?;
        writeln!(
            out,
            "  back on its store after {}",
            shown(started.elapsed())
        )?;
        let status = http::get(&self.agent, &own)?.status;
        ensure!(
            status == 200,
            "the write that pod 3 had answered is lost: status {status}"
        );
        self.wait_until_equal()?;
        writeln!(
            out,
            "  equal to all others again after {}",
            shown(started.elapsed())
        )?;
        for pod in &self.cluster.pods {
            for (key, wanted) in [
                ("written-in-3", 200),
                ("written-meanwhile", 200),
                ("demo-000002", 404),
            ] {
                let url = format!("{}/v1/peers/{key}", pod.manager_url());
                let status = http::get(&self.agent, &url)?.status;
                ensure!(
                    status == wanted,
                    "{key} in pod {}: status {status}",
                    pod.number
                );
            }
        }
        writeln!(
            out,
            "  its own write survived, the missed write is there, the missed delete too"
        )?;
        Ok(())
    }

    fn compare(&mut self, out: &mut impl Write) -> Result<()> {
        headline(out, "the tables")?;
        let mut digests = BTreeMap::new();
        for pod in &self.cluster.pods {
            let (sum, records) = pod.digest(&self.agent)?;
            digests
                .entry((sum, records))
                .or_insert_with(Vec::new)
                .push(pod.number);
            let resident = |process: &Option<udht_tests::process::Process>| {
                process
                    .as_ref()
                    .and_then(|process| process.resident_bytes().ok())
                    .unwrap_or(0)
            };
            writeln!(
                out,
                "  pod {}  {records} records, digest {sum:016x}  manager {:>4} MiB, sync {:>3} MiB",
                pod.number,
                resident(&pod.manager) >> 20,
                resident(&pod.sync) >> 20,
            )?;
        }
        ensure!(digests.len() == 1, "the tables differ: {digests:?}");
        let partner = self.cluster.pod(1).exchange_address();
        let manager = self.cluster.pod(2).manager_url();
        let exchange = [
            "exchange",
            &partner,
            "--manager",
            &manager,
            "--cluster",
            "demo",
            "--tls",
            "off",
        ];
        writeln!(out, "\n  $ udht-sync {}", exchange.join(" "))?;
        let said = command("udht-sync", &exchange)?;
        said.lines()
            .try_for_each(|line| writeln!(out, "  {line}"))?;
        Ok(())
    }

    /// Stays up until the user ends it.
    fn stay(&mut self, out: &mut impl Write) -> Result<()> {
        headline(out, "still up: try it by hand, from another terminal")?;
        let one = self.cluster.pod(1).manager_url();
        let two = self.cluster.pod(2).manager_url();
        let ops = self.cluster.pod(1).ops_url();
        writeln!(out, "  a page to look at        {one}/")?;
        writeln!(
            out,
            "  read a peer              curl {one}/v1/peers/demo-000005"
        )?;
        writeln!(
            out,
            "  watch pod 2              curl -N '{two}/v1/peers?watch=true'"
        )?;
        writeln!(
            out,
            "  and change in pod 1      curl -X PUT {one}/v1/peers/mine -H 'content-type: application/json' \
             -d '{{\"name\":\"mine\",\"ip\":\"10.0.0.9\"}}'"
        )?;
        writeln!(
            out,
            "  the same by the CLI      {} --manager {one} list --limit 5",
            program("udht-manager")?.display()
        )?;
        writeln!(
            out,
            "  what pod 1 knows of all  {} peers --ops {ops}",
            program("udht-sync")?.display()
        )?;
        writeln!(out, "  figures for Prometheus   curl {ops}/metrics")?;
        writeln!(
            out,
            "  (each pod has an address of its own, all of them with manager on port {MANAGER_PORT})"
        )?;
        writeln!(out, "\nCtrl-C ends it.")?;
        out.flush()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        runtime.block_on(tokio::signal::ctrl_c())?;
        Ok(())
    }

    /// Waits until every pod that is watched told of a change that `is_it`; when each did.
    fn wait_for_all(&self, is_it: impl Fn(&Event) -> bool) -> Result<BTreeMap<usize, Instant>> {
        let mut seen = BTreeMap::new();
        let deadline = Instant::now() + PATIENCE;
        while seen.len() < self.cluster.pods.len() {
            let event = self.next_event(deadline)?;
            if is_it(&event) {
                seen.insert(event.pod, event.at);
            }
        }
        Ok(seen)
    }

    fn next_event(&self, deadline: Instant) -> Result<Event> {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = self
            .events
            .recv_timeout(left)
            .context("it did not happen in time")?;
        self.go_on_watching(&event)?;
        Ok(event)
    }

    /// A reader that was too slow for a large import watches anew.
    fn go_on_watching(&self, event: &Event) -> Result<()> {
        if event.kind() == "gone" {
            self.watch(event.pod)
        } else {
            Ok(())
        }
    }

    /// Waits until all tables are equal: looked at anew whenever any of them changed.
    fn wait_until_equal(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // What came before the look shows in it.
            while let Ok(event) = self.events.try_recv() {
                self.go_on_watching(&event)?;
            }
            let mut digests = Vec::new();
            for pod in &self.cluster.pods {
                digests.push(pod.digest(&self.agent)?);
            }
            if digests.windows(2).all(|pair| pair[0] == pair[1]) {
                return Ok(());
            }
            self.next_event(deadline)
                .with_context(|| format!("the tables differ: {digests:x?}"))?;
        }
    }
}

fn headline(out: &mut impl Write, text: &str) -> io::Result<()> {
    writeln!(out, "\n== {text}")?;
    out.flush()
}

fn shown(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    if ms < 1_000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

fn peer(number: u32, labels: &Value) -> Value {
    json!({
        "name": format!("files-{number}"),
        "ip": std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string(),
        "ports": {"userSync": 5001, "fileSync": 5002, "networkLayer": 5003, "consensusPort": 5004},
        "labels": labels,
    })
}

/// A table as `udht-manager export` writes it.
fn write_dump(path: &Path, records: u32) -> Result<()> {
    let file = std::fs::File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut file = BufWriter::new(file);
    for number in 1..=records {
        let mut line = peer(number, &json!({"zone": format!("zone-{}", number % 3)}));
        line["peer_id"] = format!("demo-{number:06}").into();
        writeln!(file, "{line}")?;
    }
    writeln!(file, "{}", json!({"end": {"records": records}}))?;
    file.flush()?;
    Ok(())
}

/// Runs a program of ours to its end; what it said.
fn command(name: &str, arguments: &[&str]) -> Result<String> {
    let mut child = Command::new(program(name)?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let stdout = child.stdout.take().context("the output of a child")?;
    let said = BufReader::new(stdout)
        .lines()
        .collect::<io::Result<Vec<_>>>()?
        .join("\n");
    let status = child.wait()?;
    ensure!(status.success(), "{name} {}: {status}", arguments.join(" "));
    Ok(said)
}
