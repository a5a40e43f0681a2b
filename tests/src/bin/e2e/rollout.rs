//! Pods that are replaced one after the other, while clients write.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use udht_tests::cluster::release::Pod;
use udht_tests::cluster::trickle::Trickle;

use crate::install::wait_for_own_records;
use crate::world::{REPLICAS, World};

/// How long a rollout may take.
const ROLLOUT: Duration = Duration::from_mins(3);

/// Begins to write into each of these pods.
pub(crate) fn trickle(world: &World, pods: &[Pod], name: &str) -> Result<Trickle> {
    let names: Vec<_> = pods.iter().map(|pod| pod.name.clone()).collect();
    let trickle = Trickle::begin(&world.release.kubectl, &names, name);
    trickle.wait_for_more(30)?;
    Ok(trickle)
}

/// Ends it, sees that all that was answered is in all pods, and tells.
pub(crate) fn account_for(world: &mut World, trickle: Trickle) -> Result<()> {
    // All is up again, so all pods take writes once more.
    trickle.wait_for_more(60)?;
    let written = trickle.end()?;
    let pods = world.pods(REPLICAS)?;
    let mut reaches = world.release.reaches(&pods);
    let begun = Instant::now();
    written.wait_until_in_all(&mut reaches)?;
    wait_for_own_records(&pods, &mut reaches)?;
    world.saw(&format!(
        "{} writes were answered, and each is in each pod {:.1} s after the last; {} went unanswered",
        written.answered,
        begun.elapsed().as_secs_f64(),
        written.unknown
    ));
    written.delete(&mut reaches[0])?;
    world.release.wait_until_equal(&mut reaches)?;
    Ok(())
}

pub(crate) fn a_rolling_restart_loses_nothing(world: &mut World) -> Result<()> {
    let (pods, _) = world.at_rest()?;
    let before = uids(&pods);
    let trickle = trickle(world, &pods, "rolling")?;
    let begun = Instant::now();
    let set = format!("statefulset/{}", world.release.fullname());
    world
        .release
        .kubectl
        .say(&format!("rollout restart {set}"))?;
    wait_for_rollout(world)?;
    let after = uids(&world.release.wait_until_ready(REPLICAS)?);
    ensure!(
        before.is_disjoint(&after),
        "not all pods are new: {before:?}, {after:?}"
    );
    world.saw(&format!(
        "all three pods were replaced, with their volumes, in {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    account_for(world, trickle)
}

pub(crate) fn an_upgrade_and_its_rollback_lose_nothing(world: &mut World) -> Result<()> {
    let (pods, _) = world.at_rest()?;
    let authority = authority(world)?;
    let trickle = trickle(world, &pods, "upgrade")?;
    let begun = Instant::now();
    let values = world.values("podAnnotations: {e2e: upgraded}");
    world.release.helm.upgrade(&world.release.name, &values)?;
    wait_for_rollout(world)?;
    let upgraded = uids(&world.release.wait_until_ready(REPLICAS)?);
    ensure!(
        uids(&pods).is_disjoint(&upgraded),
        "the upgrade replaced no pod"
    );
    world.saw(&format!(
        "upgraded, with a change in each pod, in {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    let begun = Instant::now();
    world.release.helm.rollback(&world.release.name)?;
    wait_for_rollout(world)?;
    let back = uids(&world.release.wait_until_ready(REPLICAS)?);
    ensure!(upgraded.is_disjoint(&back), "the rollback replaced no pod");
    world.saw(&format!(
        "rolled back in {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    ensure!(
        self::authority(world)? == authority,
        "the authority is another one"
    );
    world.saw("the authority is the same one");
    account_for(world, trickle)
}

fn wait_for_rollout(world: &World) -> Result<()> {
    let set = format!("statefulset/{}", world.release.fullname());
    let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
    world
        .release
        .kubectl
        .run(["rollout", "status", &set, &timeout])
        .within(ROLLOUT + Duration::from_secs(10))
        .output()
        .context("the rollout")?;
    Ok(())
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.uid.clone()).collect()
}

/// All that the authority's Secret holds.
pub(crate) fn authority(world: &World) -> Result<serde_json::Value> {
    let name = format!("secret {}-authority", world.release.fullname());
    let mut secret = world.release.kubectl.get(&name)?;
    let data = secret["data"].take();
    ensure!(!data.is_null(), "{name} is empty");
    Ok(data)
}
