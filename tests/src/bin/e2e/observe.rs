//! A real Prometheus.

use std::time::Duration;

use anyhow::{Context, Result};
use udht_tests::cluster::command::Run;

use crate::rollout::{account_for, trickle};
use crate::world::World;

/// How long Prometheus may take until it has scraped all that is asked of it.
const SCRAPED: Duration = Duration::from_mins(2);

/// A Prometheus, and the alerts that it has.
const MANIFESTS: [&str; 2] = ["k8s/prometheus-rules.yaml", "k8s/prometheus.yaml"];
/// The image and the Service in them.
const IMAGE: &str = "prom/prometheus:v3.7.3";
const SERVICE: &str = "_tcp.udht]";
const PORT: u16 = 9090;
const TOOL: &str = "tests/observe.py";

pub(crate) fn prometheus_has_every_figure(world: &mut World) -> Result<()> {
    let (pods, _) = world.at_rest()?;
    // Of what never happens there is no rate.
    let trickle = trickle(world, &pods, "figures")?;
    let kubectl = world.release.kubectl.clone();
    let image = &world.arguments.prometheus_image;
    let service = format!("_tcp.{}]", world.release.name);
    for file in MANIFESTS {
        let manifest = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
        kubectl.apply(&manifest.replace(IMAGE, image).replace(SERVICE, &service))?;
    }
    let limit = format!("--timeout={}s", SCRAPED.as_secs());
    kubectl
        .run(["rollout", "status", "deployment/prometheus", &limit])
        .within(SCRAPED + Duration::from_secs(10))
        .output()?;
    let forward = kubectl.forward("deployment/prometheus", &[PORT])?;
    let url = forward.url(PORT, "");
    world.saw(&format!("Prometheus runs, at {url} for this step"));
    let wait = format!("--wait={}", SCRAPED.as_secs());
    let said = Run::program("python3")
        .args([TOOL, "--prometheus", &url, &wait])
        .within(SCRAPED + Duration::from_secs(30))
        .output()?;
    for line in said.trim_end().lines() {
        world.saw(line);
    }
    for file in MANIFESTS {
        kubectl
            .run(["delete", "--filename", file, "--wait=false"])
            .output()?;
    }
    account_for(world, trickle)
}
