//! The Role: each of its verbs, and what breaks without it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use udht_tests::cluster::release::Release;
use udht_tests::cluster::wait::until;

use crate::world::World;

/// A watch is begun anew within this time, with the rights that there are.
const REFUSED: Duration = Duration::from_secs(90);

/// The release that the verbs are taken from, so that the other one stays whole.
const NAME: &str = "roles";

pub(crate) fn each_verb_is_needed(world: &mut World) -> Result<()> {
    let release = world.beside(NAME);
    let values = world.values("replicas: 1\nstore: embedded");
    release.helm.install(&release.name, &values)?;
    let name = format!("role {}", release.fullname());
    let whole = release.kubectl.get(&name)?;
    let rules = whole["rules"].as_array().context("a Role without rules")?;
    let mut tried = 0;
    for (rule, verbs) in rules.iter().enumerate() {
        let resource = verbs["resources"][0].as_str().context("no resource")?;
        for verb in verbs["verbs"].as_array().context("no verbs")? {
            let verb = verb.as_str().context("no verb")?;
            let without: Vec<_> = verbs["verbs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|it| *it != verb)
                .collect();
            let path = format!("/rules/{rule}/verbs");
            patch(&release, &path, &json!(without))?;
            let broken = what_breaks(&release, resource, verb)
                .with_context(|| format!("without {verb} of {resource}"))?;
            world.saw(&format!("without {verb} of {resource}: {broken}"));
            patch(&release, &path, &verbs["verbs"])?;
            tried += 1;
        }
    }
    ensure!(tried == 5, "the Role has {tried} verbs");
    release.wait_until_ready(1)?;
    release.helm.uninstall(&release.name)?;
    Ok(())
}

fn patch(release: &Release, path: &str, verbs: &Value) -> Result<()> {
    let change = json!([{"op": "replace", "path": path, "value": verbs}]).to_string();
    let role = release.fullname();
    let words = ["patch", "role", &role, "--type=json", "--patch", &change];
    release.kubectl.run(words).output()?;
    Ok(())
}

/// Has the pod start anew; what its sync says of it.
fn what_breaks(release: &Release, resource: &str, verb: &str) -> Result<String> {
    if verb == "update" {
        // Only an authority that is made, or rotated, is written.
        let secret = format!("{}-authority", release.fullname());
        let empty = json!({"data": null}).to_string();
        let words = ["patch", "secret", &secret, "--patch", &empty];
        release.kubectl.run(words).output()?;
    }
    let pod = release.pod_name(0);
    release.kubectl.say(&format!("delete pod {pod}"))?;
    let refused = format!("cannot {verb} resource \"{resource}\"");
    until("its sync is refused and says so", REFUSED, || {
        let log = release.kubectl.say(&format!("logs {pod} -c sync"))?;
        // As JSON it is, the quotes behind a backslash.
        let line = log
            .lines()
            .find(|line| line.replace('\\', "").contains(&refused));
        Ok(line.with_context(|| log.trim().to_owned())?.to_owned())
    })?;
    Ok(format!("sync says that it {refused}"))
}
