//! Two pods that cannot reach each other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use udht_tests::cluster::reach::Reach;
use udht_tests::cluster::wait::until;

use crate::world::{SOON, World, record, wait_for_status};

/// Who looks sees within this time that a pod is cut off.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// Waits until each of these pods says that it is isolated (1), or not (0).
pub(crate) fn wait_for_isolation(reaches: &mut [Reach], isolated: f64) -> Result<()> {
    until(
        &format!("udht_isolated is {isolated} in each pod"),
        SOON,
        || {
            for reach in &mut *reaches {
                let says = reach.metrics()?.sum("udht_isolated", &[]);
                let says = says.context("no udht_isolated")?;
                ensure!((says - isolated).abs() < 0.5, "{} says {says}", reach.pod());
            }
            Ok(())
        },
    )
}

/// Waits until each of these pods' managers, which the page asks too, has this alarm or has it no
/// more. What it says in the first of them, if it has it.
fn wait_for_alarm(reaches: &mut [Reach], alarm: &str, stands: bool) -> Result<Value> {
    until(&format!("{alarm} stands: {stands}"), SOON, || {
        let mut said = Value::Null;
        for reach in reaches.iter_mut().rev() {
            let status = reach.get("/v1/status")?.ok()?;
            let mut alarms = status["alarms"].as_array().context("alarms")?.iter();
            let found = alarms.find(|it| it["alarm"] == alarm);
            ensure!(found.is_some() == stands, "{} says {status}", reach.pod());
            said = found.cloned().unwrap_or_default();
        }
        Ok(said)
    })
}

pub(crate) fn two_pods_are_parted_and_meet_again(world: &mut World) -> Result<()> {
    let pods = world.pods(2)?;
    let mut reaches = world.release.reaches(&pods);
    world.release.wait_until_equal(&mut reaches)?;
    wait_for_isolation(&mut reaches, 0.0)?;

    let begun = Instant::now();
    world.nodes.part(&pods[0].ip, &pods[1].ip)?;
    for (reach, key) in reaches.iter_mut().zip(["in-one", "in-two"]) {
        reach.put(&format!("/v1/peers/{key}"), &record(key))?.ok()?;
    }
    wait_for_isolation(&mut reaches, 1.0)?;
    world.saw(&format!(
        "nothing passes between {} and {}: both say that they are isolated after {:.1} s, and took a write",
        pods[0].name,
        pods[1].name,
        begun.elapsed().as_secs_f64()
    ));
    let alarm = wait_for_alarm(&mut reaches, "isolated", true)?;
    let seen = begun.elapsed();
    ensure!(
        seen <= SEEN_WITHIN,
        "the alarm came after {} s",
        seen.as_secs()
    );
    world.saw(&format!(
        "the alarm was to be seen in both after {:.1} s: {} {}",
        seen.as_secs_f64(),
        alarm["text"],
        alarm["about"]
    ));
    for (reach, key) in reaches.iter_mut().zip(["in-two", "in-one"]) {
        let status = reach.get(&format!("/v1/peers/{key}"))?.status;
        ensure!(
            status == 404,
            "{} has {key} across the partition: {status}",
            reach.pod()
        );
    }
    world.saw("neither has what the other took");

    world.nodes.join()?;
    let begun = Instant::now();
    wait_for_status(&mut reaches, "in-one", 200)?;
    wait_for_status(&mut reaches, "in-two", 200)?;
    world.release.wait_until_equal(&mut reaches)?;
    wait_for_isolation(&mut reaches, 0.0)?;
    wait_for_alarm(&mut reaches, "isolated", false)?;
    world.saw(&format!(
        "healed: both have both, and are equal, after {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    for key in ["in-one", "in-two"] {
        reaches[0].delete(&format!("/v1/peers/{key}"))?.ok()?;
    }
    Ok(())
}
