//! The release's authority, rotated by hand.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use udht_tests::cluster::reach::Reach;
use udht_tests::cluster::wait::until;

use crate::rollout::{account_for, authority, trickle};
use crate::world::{ROTATION_OVERLAP, World};

/// How long all leaves may take to be new, beside the overlap.
const ROTATION: Duration = Duration::from_mins(1);

/// How many refusals for a certificate or a name these pods counted.
fn refusals(reaches: &mut [Reach]) -> Result<f64> {
    let mut sum = 0.0;
    for reach in reaches {
        sum += reach
            .metrics()?
            .sum("udht_tls_refused_total", &[])
            .context("no udht_tls_refused_total")?;
    }
    Ok(sum)
}

pub(crate) fn it_is_rotated(world: &mut World) -> Result<()> {
    let (pods, mut reaches) = world.at_rest()?;
    let before = authority(world)?;
    let refused = refusals(&mut reaches)?;
    let trickle = trickle(world, &pods, "rotation")?;
    let begun = Instant::now();
    // As each sync issues itself a new certificate at once, nobody needs to wait for the old ones' ends.
    let command = [
        "/udht-sync",
        "authority",
        "rotate",
        "--leaf-lifetime=10s",
        "--rotation-overlap=15s",
    ];
    let said = world
        .release
        .kubectl
        .exec(&pods[0].name, "sync", command)
        .output()?;
    world.saw(&format!(
        "kubectl exec {} -c sync -- {}: {}",
        pods[0].name,
        command.join(" "),
        said.trim().lines().next().unwrap_or_default()
    ));
    let stage = |reaches: &mut [Reach], wanted: fn(f64) -> bool| {
        for reach in reaches {
            let stage = reach
                .metrics()?
                .sum("udht_authority_rotation_stage", &[])
                .context("no udht_authority_rotation_stage")?;
            ensure!(wanted(stage), "{} is at stage {stage}", reach.pod());
        }
        Ok(())
    };
    until("the rotation has begun in each pod", ROTATION, || {
        stage(&mut reaches, |stage| stage > 0.0)
    })?;
    world.saw("all pods trust the old and the new authority");
    until(
        "the rotation is over in each pod",
        ROTATION_OVERLAP + ROTATION,
        || stage(&mut reaches, |stage| stage < 1.0),
    )?;
    ensure!(
        authority(world)? != before,
        "the Secret holds the same authority"
    );
    world.saw(&format!(
        "only the new one is trusted, {:.1} s after the command",
        begun.elapsed().as_secs_f64()
    ));
    account_for(world, trickle)?;
    let now = refusals(&mut reaches)?;
    ensure!(
        now <= refused,
        "{} connections were refused meanwhile",
        now - refused
    );
    world.saw("no connection was refused meanwhile");
    Ok(())
}
