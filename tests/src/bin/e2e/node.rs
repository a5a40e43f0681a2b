//! A node that loses its power.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use udht_tests::cluster::helm::ROLLOUT;
use udht_tests::cluster::release::Pod;
use udht_tests::cluster::wait::until;

use crate::install::wait_for_own_records;
use crate::world::{GONE_AFTER, REPLICAS, SOON, World, record, wait_for_status};

pub(crate) fn it_dies_and_returns(world: &mut World) -> Result<()> {
    let (pods, _) = world.at_rest()?;
    let node = crowded(&pods)?.to_owned();
    let (there, elsewhere): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| pod.node == node);
    let [stays, .., goes] = &there[..] else {
        anyhow::bail!("no node has two pods");
    };
    let mut others = world.release.reaches(&elsewhere);
    world.nodes.kill(&node)?;
    world.saw(&format!(
        "{node} is dead, with {} and {}",
        stays.name, goes.name
    ));
    others[0]
        .put("/v1/peers/meanwhile", &record("meanwhile"))?
        .ok()?;
    let kubectl = &world.release.kubectl;
    let forced = ["delete", "pod", &goes.name, "--force", "--grace-period=0"];
    kubectl.run(forced).output()?;
    let begun = Instant::now();
    until(
        "the record of the pod that is gone is gone",
        GONE_AFTER + SOON,
        || {
            for reach in &mut others {
                let left = reach.records(&format!("label=udht/pod-uid={}", goes.uid))?;
                ensure!(left.is_empty(), "{} still has it", reach.pod());
            }
            Ok(())
        },
    )?;
    let took = begun.elapsed();
    ensure!(
        took >= GONE_AFTER,
        "already after {:.1} s",
        took.as_secs_f64()
    );
    world.saw(&format!(
        "{} was removed from the API for good; the pod that is left removed its record after {:.1} s (--gone-after {} s)",
        goes.name,
        took.as_secs_f64(),
        GONE_AFTER.as_secs()
    ));
    let left = others[0].records(&format!("label=udht/pod-uid={}", stays.uid))?;
    ensure!(
        left.len() == 1,
        "the record of {}, whose pod is there, is gone too",
        stays.name
    );
    world.saw(&format!(
        "{} is there still, and so is its record",
        stays.name
    ));
    world.nodes.start(&node)?;
    let begun = Instant::now();
    until("the node is ready", SOON, || {
        let seen = kubectl.get(&format!("node {node}"))?;
        let conditions = seen["status"]["conditions"].as_array();
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|it| it["type"] == "Ready" && it["status"] == "True");
        ensure!(ready, "it is not");
        Ok(())
    })?;
    // Until then the API tells of the pod as it was, ready and at its old address.
    until("the pod that stayed is started anew", ROLLOUT, || {
        let pods = world.release.pods()?;
        let returned = pods.iter().find(|pod| pod.uid == stays.uid);
        let returned = returned.with_context(|| format!("{} is another pod", stays.name))?;
        ensure!(restarts(returned) > restarts(stays), "{returned:?}");
        Ok(())
    })?;
    let pods = world.release.wait_until_ready(REPLICAS)?;
    let mut reaches = world.release.reaches(&pods);
    wait_for_status(&mut reaches, "meanwhile", 200)?;
    wait_for_own_records(&pods, &mut reaches)?;
    world.release.wait_until_equal(&mut reaches)?;
    let returned = pods
        .iter()
        .find(|pod| pod.uid == stays.uid)
        .with_context(|| format!("{} is another pod", stays.name))?;
    world.saw(&format!(
        "{node} is back; {} went on there, at {}, and has what it missed {:.1} s after",
        returned.name,
        returned.ip,
        begun.elapsed().as_secs_f64()
    ));
    reaches[0].delete("/v1/peers/meanwhile")?.ok()?;
    Ok(())
}

/// How often its containers were started anew.
fn restarts(pod: &Pod) -> u64 {
    let containers = pod.containers.values();
    containers.map(|container| container.restarts).sum()
}

/// The node with the most of these pods.
fn crowded(pods: &[Pod]) -> Result<&str> {
    let count = |node: &str| pods.iter().filter(|pod| pod.node == node).count();
    let nodes = pods.iter().map(|pod| pod.node.as_str());
    nodes.max_by_key(|node| count(node)).context("no pod")
}
