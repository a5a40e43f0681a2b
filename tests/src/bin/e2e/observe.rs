//! A real Prometheus.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use udht_tests::cluster::command::Run;
use udht_tests::cluster::wait::until;

use crate::world::World;

/// How long Prometheus may take until it has scraped all that is asked of it.
const SCRAPED: Duration = Duration::from_mins(2);

const MANIFEST: &str = "k8s/prometheus.yaml";
const PORT: u16 = 9090;
const TOOL: &str = "tests/observe.py";

pub(crate) fn prometheus_has_every_figure(world: &mut World) -> Result<()> {
    for file in [MANIFEST, TOOL] {
        ensure!(Path::new(file).is_file(), "there is no {file}");
    }
    world.at_rest()?;
    let monitoring = world.release.kubectl.in_namespace("monitoring");
    world.monitoring = Some(monitoring.clone());
    monitoring.run(["apply", "--filename", MANIFEST]).output()?;
    let limit = format!("--timeout={}s", SCRAPED.as_secs());
    monitoring
        .run(["rollout", "status", "deployment/prometheus", &limit])
        .within(SCRAPED + Duration::from_secs(10))
        .output()?;
    let forward = monitoring.forward("deployment/prometheus", &[PORT])?;
    let url = forward.url(PORT, "");
    world.saw(&format!("Prometheus runs, at {url} for this step"));
    let said = until("it has every figure", SCRAPED, || {
        Run::program("python3")
            .args([TOOL, "--prometheus", &url, "--chart", "charts/udht"])
            .within(SCRAPED)
            .output()
    })?;
    for line in said.trim_end().lines() {
        world.saw(line);
    }
    Ok(())
}
