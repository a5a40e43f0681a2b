//! An API server that takes connections and answers nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use udht_tests::cluster::nodes::Nodes;
use udht_tests::cluster::reach::Metrics;
use udht_tests::cluster::release::Pod;
use udht_tests::cluster::wait::until;

use crate::world::{SOON, World, wait_for_status};

/// An API server that cannot be reached is known within this time.
const KNOWN: Duration = Duration::from_mins(2);

fn metrics(nodes: &Nodes, pod: &Pod) -> Result<Metrics> {
    let url = format!("http://{}:3004/metrics", pod.ip);
    let command = ["curl", "--silent", "--fail", "--max-time", "5", &url];
    Ok(Metrics::new(nodes.exec(&pod.node, command).output()?))
}

fn up(nodes: &Nodes, pods: &[Pod], wanted: f64) -> Result<()> {
    for pod in pods {
        let up = metrics(nodes, pod)?
            .sum("udht_kubernetes_up", &[])
            .context("no udht_kubernetes_up")?;
        ensure!((up - wanted).abs() < 0.5, "{} says {up}", pod.name);
    }
    Ok(())
}

pub(crate) fn it_hangs(world: &mut World) -> Result<()> {
    let (pods, _) = world.at_rest()?;
    let nodes = &world.nodes;
    until("udht_kubernetes_up is 1", SOON, || up(nodes, &pods, 1.0))?;
    let control_plane = nodes.control_plane();
    nodes.pause(&control_plane)?;
    let begun = Instant::now();

    // No kubectl now: what is asked of a pod is asked on its node.
    let manager = |pod: &Pod, words: &[&str]| -> Result<String> {
        let mut command = vec!["/udht-manager"];
        command.extend(words);
        nodes.exec_in_container(&pod.node, &pod.container("manager")?.id, &command)
    };
    manager(
        &pods[0],
        &["put", "meanwhile", "--name=meanwhile", "--ip=10.0.0.1"],
    )?;
    for pod in &pods[1..] {
        until("the others have what was written meanwhile", SOON, || {
            manager(pod, &["get", "meanwhile"])
        })?;
    }
    world.saw("the control plane was paused; a write in one pod arrives in the others");

    // Its sync would wait for its certificate, which is in the API server's keeping.
    let killed = &pods[2];
    let id = &killed.container("manager")?.id;
    nodes.kill_container(&killed.node, id)?;
    let dead = Instant::now();
    until("the killed manager is back", SOON, || {
        let new = nodes.container_id(&killed.node, &killed.uid, "manager", id)?;
        let get = ["/udht-manager", "get", "meanwhile"];
        nodes.exec_in_container(&killed.node, &new, &get)
    })?;
    world.saw(&format!(
        "manager of {} was killed, and answers again after {:.1} s",
        killed.name,
        dead.elapsed().as_secs_f64()
    ));
    until("each pod says that the API server is away", KNOWN, || {
        up(nodes, &pods, 0.0)
    })?;
    let known = begun.elapsed();
    ensure!(known <= KNOWN, "it took {} s", known.as_secs());
    world.saw(&format!(
        "udht_kubernetes_up was 0 in each pod {:.0} s after it was paused",
        known.as_secs_f64()
    ));
    manager(&pods[1], &["delete", "meanwhile"])?;

    nodes.unpause(&control_plane)?;
    let begun = Instant::now();
    until("udht_kubernetes_up is 1 again", KNOWN, || {
        up(nodes, &pods, 1.0)
    })?;
    world.saw(&format!(
        "{:.1} s after it goes on, each pod is up to date with it",
        begun.elapsed().as_secs_f64()
    ));
    until("the API server is ready", SOON, || {
        world.release.kubectl.say("get --raw /readyz")
    })?;
    let (_, mut reaches) = world.at_rest()?;
    wait_for_status(&mut reaches, "meanwhile", 404)?;
    Ok(())
}
