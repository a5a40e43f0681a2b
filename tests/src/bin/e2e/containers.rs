//! Containers that are killed.

use std::time::Instant;

use anyhow::{Result, ensure};
use udht_tests::cluster::wait::until;

use crate::rollout::{account_for, trickle};
use crate::world::{SOON, World};

pub(crate) fn each_is_killed_in_turn(world: &mut World) -> Result<()> {
    let (pods, _) = world.at_rest()?;
    let trickle = trickle(world, &pods, "kill")?;
    // A pod each, so that no container waits for its next start because it was started just before.
    for (number, container) in ["redis", "manager", "sync"].into_iter().enumerate() {
        let pod = world.release.pod(number)?;
        let killed = pod.container(container)?;
        let begun = Instant::now();
        world.nodes.kill_container(&pod.node, &killed.id)?;
        until(
            &format!("{container} of {} is back", pod.name),
            SOON,
            || {
                let now = world.release.pod(number)?;
                let container = now.container(container)?;
                ensure!(
                    container.restarts > killed.restarts && container.ready && now.ready,
                    "{container:?}, the pod is {}ready",
                    if now.ready { "" } else { "not " }
                );
                Ok(())
            },
        )?;
        let answered = trickle.answered();
        world.saw(&format!(
            "{container} of {} was killed and the pod ready again after {:.1} s; {answered} writes answered by then",
            pod.name,
            begun.elapsed().as_secs_f64()
        ));
    }
    account_for(world, trickle)
}
