//! The release as it is installed: pods, writes, its own test, the pods' own records.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use udht_tests::cluster::reach::Reach;
use udht_tests::cluster::release::Pod;
use udht_tests::cluster::wait::until;

use crate::world::{REPLICAS, SOON, World, nodes_of, record, wait_for_status};

/// How long a deleted record may take to leave, which usually is two minutes.
const LEFT_WITHIN: Duration = Duration::from_mins(4);

/// The record of each of these pods is in each of them, with its address, and there is no other that
/// a pod wrote of itself. Waits for it.
pub(crate) fn wait_for_own_records(pods: &[Pod], reaches: &mut [Reach]) -> Result<()> {
    until("each pod has the record of each", SOON, || {
        for reach in &mut *reaches {
            let records = reach.records("label=udht/pod-uid")?;
            for pod in pods {
                let own = records
                    .iter()
                    .find(|record| record["labels"]["udht/pod-uid"] == pod.uid.as_str());
                let own =
                    own.with_context(|| format!("{} has none of {}", reach.pod(), pod.name))?;
                ensure!(
                    own["ip"] == pod.ip.as_str() && own["name"] == pod.name.as_str(),
                    "{}: {} is at {}, and its record says {own}",
                    reach.pod(),
                    pod.name,
                    pod.ip
                );
            }
            ensure!(
                records.len() == pods.len(),
                "{} has {} records of pods: {:?}",
                reach.pod(),
                records.len(),
                records
                    .iter()
                    .map(|record| (&record["name"], &record["ip"]))
                    .collect::<Vec<_>>()
            );
        }
        Ok(())
    })
}

pub(crate) fn three_pods_know_each_other(world: &mut World) -> Result<()> {
    let version = world.release.helm.version()?;
    let took = world.install()?;
    world.saw(&format!(
        "helm {version} installed; all ready after {:.1} s",
        took.as_secs_f64()
    ));
    let pods = world.pods(REPLICAS)?;
    let on = nodes_of(&pods);
    ensure!(on.len() >= 2, "all pods are on {on:?}");
    for pod in &pods {
        let containers: Vec<_> = pod.containers.keys().map(String::as_str).collect();
        let restarts: u64 = pod.containers.values().map(|it| it.restarts).sum();
        world.saw(&format!(
            "{} on {} at {}: {}, {restarts} restarts",
            pod.name,
            pod.node,
            pod.ip,
            containers.join(", ")
        ));
    }
    let mut reaches = world.release.reaches(&pods);
    wait_for_own_records(&pods, &mut reaches)?;
    let records = world.release.wait_until_equal(&mut reaches)?;
    world.saw(&format!(
        "each pod has the records of all; {records} in each table, all equal"
    ));
    Ok(())
}

pub(crate) fn a_write_in_one_pod_is_read_in_the_others(world: &mut World) -> Result<()> {
    let (_, mut reaches) = world.at_rest()?;
    let begun = Instant::now();
    reaches[0]
        .put("/v1/peers/written", &record("written"))?
        .ok()?;
    wait_for_status(&mut reaches, "written", 200)?;
    world.saw(&format!(
        "written in {}, read in all {:.2} s later, through three forwarded ports",
        reaches[0].pod(),
        begun.elapsed().as_secs_f64()
    ));
    let last = reaches.len() - 1;
    reaches[last].delete("/v1/peers/written")?.ok()?;
    wait_for_status(&mut reaches, "written", 404)?;
    world.saw(&format!("deleted in {}, gone in all", reaches[last].pod()));
    Ok(())
}

pub(crate) fn helm_test_passes(world: &mut World) -> Result<()> {
    let (_, mut reaches) = world.at_rest()?;
    let said = world.release.helm.test(&world.release.name)?;
    let phase = said.lines().find(|line| line.starts_with("Phase:"));
    world.saw(&format!(
        "helm test: {}",
        phase.unwrap_or("passed").replace("  ", " ")
    ));
    // The test's own replicas are gone with its pod, and nobody may wait for them.
    let begun = Instant::now();
    until("what is deleted leaves", LEFT_WITHIN, || {
        for reach in &mut reaches {
            let left = reach.metrics()?.sum("udht_tombstones", &[]);
            ensure!(left == Some(0.0), "{} has {left:?}", reach.pod());
        }
        Ok(())
    })?;
    until("no alarm stands", SOON, || {
        for reach in &mut reaches {
            let alarms = &reach.get("/v1/status")?.ok()?["alarms"];
            let none = alarms.as_array().is_some_and(Vec::is_empty);
            ensure!(none, "{} says {alarms}", reach.pod());
        }
        Ok(())
    })?;
    world.saw(&format!(
        "what was deleted has left all pods {:.0} s later, and no alarm stands",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

pub(crate) fn a_new_pod_has_its_own_record(world: &mut World) -> Result<()> {
    let (pods, mut reaches) = world.at_rest()?;
    wait_for_own_records(&pods, &mut reaches)?;
    let before = &pods[1];
    let own = reaches[1].get("/v1/identity")?.ok()?;
    ensure!(
        own["ports"]["userSync"] == 5001 && own["labels"]["zone"] == "a",
        "the values' ports and labels are not in it: {own}"
    );
    world
        .release
        .kubectl
        .say(&format!("delete pod {}", before.name))?;
    world.saw(&format!("{} at {} was deleted", before.name, before.ip));
    reaches.remove(1);
    until("its record is gone in the others", SOON, || {
        for reach in &mut reaches {
            let left = reach.records(&format!("label=udht/pod-uid={}", before.uid))?;
            ensure!(left.is_empty(), "{} still has it", reach.pod());
        }
        Ok(())
    })?;
    world.saw("its record went with it");
    let (pods, mut reaches) = world.at_rest()?;
    let begun = Instant::now();
    wait_for_own_records(&pods, &mut reaches)?;
    world.saw(&format!(
        "{} is back at {}: its new record was in all pods {:.2} s after it was ready",
        pods[1].name,
        pods[1].ip,
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}
