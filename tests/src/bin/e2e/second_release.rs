//! Two releases in one namespace.

use anyhow::{Result, ensure};
use udht_tests::cluster::wait::until;

use crate::install::wait_for_own_records;
use crate::world::{SOON, World, record, wait_for_status};

pub(crate) fn they_never_meet(world: &mut World) -> Result<()> {
    let (pods, mut reaches) = world.at_rest()?;
    let other = world.beside("beside");
    let values = world.values("replicas: 2\nstore: embedded");
    other.helm.install(&other.name, &values)?;
    let other_pods = other.wait_until_ready(2)?;
    let mut other_reaches = other.reaches(&other_pods);
    world.saw(&format!(
        "a second release, {}, of two pods with an embedded store, installed by helm {}",
        other.fullname(),
        other.helm.version()?
    ));
    reaches[0]
        .put("/v1/peers/of-first", &record("of-first"))?
        .ok()?;
    other_reaches[0]
        .put("/v1/peers/of-second", &record("of-second"))?
        .ok()?;
    wait_for_status(&mut reaches, "of-first", 200)?;
    wait_for_status(&mut other_reaches, "of-second", 200)?;
    wait_for_own_records(&pods, &mut reaches)?;
    wait_for_own_records(&other_pods, &mut other_reaches)?;
    wait_for_status(&mut reaches, "of-second", 404)?;
    wait_for_status(&mut other_reaches, "of-first", 404)?;
    world.saw("each has its own pods and writes, and nothing of the other");

    // Where no policy stands between them, the certificates do.
    let kubectl = &world.release.kubectl;
    let target = format!("{}:3003", pods[0].ip);
    let refused = world.without_policies(|| {
        until("the first refuses the second", SOON, || {
            let said = kubectl
                .exec(
                    &other_pods[0].name,
                    "sync",
                    ["/udht-sync", "exchange", &target],
                )
                .outcome()?;
            ensure!(!said.status.success(), "it exchanged: {}", said.said());
            ensure!(!said.said().contains("unreachable"), "{}", said.said());
            Ok(said.said())
        })
    })?;
    world.saw(&format!(
        "without NetworkPolicies, an exchange of the second with {} by hand: {}",
        pods[0].name,
        refused
            .lines()
            .find(|line| line.starts_with("udht-sync:") || line.starts_with("result"))
            .unwrap_or_default()
    ));
    wait_for_status(&mut reaches, "of-second", 404)?;
    other.helm.uninstall(&other.name)?;
    reaches[0].delete("/v1/peers/of-first")?.ok()?;
    Ok(())
}
