//! What the release costs while nothing happens.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use udht_tests::cluster::interrupt;
use udht_tests::cluster::nodes::Nodes;
use udht_tests::cluster::release::Pod;

use crate::world::World;

/// Records in the table.
const RECORDS: u32 = 1_000;
/// How long it is looked at.
const WINDOW: Duration = Duration::from_secs(20);

/// What a process has used.
#[derive(Clone, Copy, Debug)]
struct Used {
    cpu: Duration,
    resident_bytes: u64,
}

/// What each container's own process has used. What a probe runs in a container is not counted.
fn used(nodes: &Nodes, pod: &Pod) -> Result<BTreeMap<String, Used>> {
    let tasks = nodes
        .exec(&pod.node, ["ctr", "--namespace", "k8s.io", "task", "ls"])
        .output()?;
    let mut all = BTreeMap::new();
    for (name, container) in &pod.containers {
        let process = tasks
            .lines()
            .find(|line| line.starts_with(&container.id))
            .and_then(|line| line.split_whitespace().nth(1))
            .with_context(|| format!("{name} of {} is no task", pod.name))?;
        // The first figure of a thread is the time that it ran, in nanoseconds.
        let command = format!("cd /proc/{process} && cat task/*/schedstat && grep VmRSS: status");
        let said = nodes.exec(&pod.node, ["sh", "-c", &command]).output()?;
        let mut nanoseconds = 0;
        let mut resident_bytes = 0;
        for line in said.lines() {
            match line.strip_prefix("VmRSS:") {
                Some(kib) => {
                    let kib = kib.trim().trim_end_matches(" kB");
                    resident_bytes = kib.parse::<u64>()? * 1024;
                }
                None => nanoseconds += line.split(' ').next().unwrap_or("0").parse::<u64>()?,
            }
        }
        let cpu = Duration::from_nanos(nanoseconds);
        all.insert(
            name.clone(),
            Used {
                cpu,
                resident_bytes,
            },
        );
    }
    Ok(all)
}

pub(crate) fn it_costs_little(world: &mut World) -> Result<()> {
    let (pods, mut reaches) = world.at_rest()?;
    let mut dump = String::new();
    for number in 0..RECORDS {
        writeln!(
            dump,
            r#"{{"peer_id":"rest-{number}","name":"files-{number}","ip":"10.0.0.7","ports":{{"userSync":5001,"fileSync":5002,"networkLayer":5003,"consensusPort":5004}},"labels":{{"rest":"yes"}}}}"#
        )?;
    }
    writeln!(dump, r#"{{"end":{{"records":{RECORDS}}}}}"#)?;
    let command = ["/udht-manager", "import", "-"];
    let pod = &pods[0].name;
    world
        .release
        .kubectl
        .run(["exec", pod, "--stdin", "--container=manager", "--"])
        .args(command)
        .input(dump)
        .output()?;
    let records = world.release.wait_until_equal(&mut reaches)?;
    ensure!(records >= u64::from(RECORDS), "only {records} records");
    // The ways to the pods are work of their own.
    reaches
        .iter_mut()
        .for_each(udht_tests::cluster::reach::Reach::forget);

    let before = used(&world.nodes, &pods[0])?;
    let begun = Instant::now();
    while begun.elapsed() < WINDOW {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(250));
    }
    let after = used(&world.nodes, &pods[0])?;
    let seconds = begun.elapsed().as_secs_f64();
    let (mut percent_of_pair, mut mib_of_pair) = (0.0, 0.0);
    for (name, now) in &after {
        let spent = now.cpu.saturating_sub(before[name].cpu).as_secs_f64();
        let percent = 100.0 * spent / seconds;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let mib = now.resident_bytes as f64 / f64::from(1 << 20);
        if name != "redis" {
            percent_of_pair += percent;
            mib_of_pair += mib;
        }
        world.saw(&format!(
            "{name}: {percent:.3} % of a core, {mib:.1} MiB resident"
        ));
    }
    world.saw(&format!(
        "manager and sync together at rest, {records} records, {} pods: {percent_of_pair:.3} % of a core, {mib_of_pair:.1} MiB",
        pods.len()
    ));
    reaches[0].delete("/v1/peers?label=rest=yes")?.ok()?;
    world.release.wait_until_equal(&mut reaches)?;
    Ok(())
}
