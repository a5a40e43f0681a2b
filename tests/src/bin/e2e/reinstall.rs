//! What an uninstall leaves behind, and what comes back upon it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use udht_tests::cluster::kubectl::Kubectl;
use udht_tests::cluster::release::Release;
use udht_tests::cluster::wait::until;

use crate::partition::wait_for_isolation;
use crate::world::{SOON, World, record, wait_for_status};

/// All objects of the namespace that belong to this release.
fn objects(kubectl: &Kubectl, release: &str) -> Result<Vec<String>> {
    let kinds = kubectl.say("api-resources --namespaced --verbs=list,delete --output=name")?;
    let kinds: Vec<_> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events"))
        .collect();
    let list = kubectl.get(&format!("{} --ignore-not-found", kinds.join(",")))?;
    let label = "app.kubernetes.io/instance";
    let mine = |object: &&Value| {
        let metadata = &object["metadata"];
        metadata["labels"][label] == release || metadata["labels"]["name"] == release
    };
    let items = list["items"].as_array().context("no list")?;
    Ok(items
        .iter()
        .filter(mine)
        .map(|object| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
            format!(
                "{}/{}",
                text(&object["kind"]),
                text(&object["metadata"]["name"])
            )
        })
        .collect())
}

/// A volume that is a directory of a node has no fsGroup: where it is root's alone, it is opened.
fn open_volumes(world: &World, release: &Release) -> Result<()> {
    let kubectl = &release.kubectl;
    let fullname = release.fullname();
    for number in 0..2 {
        let claim = format!("persistentvolumeclaim data-{fullname}-{number}");
        let volume = until("the claim is bound", SOON, || {
            let claim = kubectl.get(&claim)?;
            let volume = claim["spec"]["volumeName"].as_str().map(str::to_owned);
            volume.context("it is not")
        })?;
        let volume = kubectl.get(&format!("persistentvolume {volume}"))?;
        let Some(path) = volume["spec"]["hostPath"]["path"].as_str() else {
            continue;
        };
        let open = format!("mkdir -p '{path}' && chmod 0777 '{path}'");
        until("the directory is open", SOON, || {
            let node = release.pod(number)?.node;
            world.nodes.exec(&node, ["sh", "-c", &open]).output()
        })?;
    }
    Ok(())
}

pub(crate) fn nothing_is_left_but_what_was_promised(world: &mut World) -> Result<()> {
    let kubectl = world.release.kubectl.clone();
    let fleeting = world.beside("fleeting");
    let lasting = world.beside("lasting");
    let embedded = "replicas: 2\nstore: embedded";
    fleeting
        .helm
        .install(&fleeting.name, &world.values(embedded))?;
    let had = objects(&kubectl, &fleeting.name)?;
    fleeting.helm.uninstall(&fleeting.name)?;
    until("nothing is left of it", SOON, || {
        let left = objects(&kubectl, &fleeting.name)?;
        ensure!(left.is_empty(), "{}", left.join(", "));
        Ok(())
    })?;
    world.saw(&format!(
        "a release with ephemeral volumes was {} objects, and is none after its uninstall",
        had.len()
    ));

    let values = world.values(&format!(
        "{embedded}\npersistence: {{enabled: true, size: 64Mi}}"
    ));
    lasting.helm.begin_install(&lasting.name, &values)?;
    open_volumes(world, &lasting)?;
    let mut reaches = lasting.reaches(&lasting.wait_until_ready(2)?);
    reaches[0].put("/v1/peers/kept", &record("kept"))?.ok()?;
    wait_for_status(&mut reaches, "kept", 200)?;
    lasting.helm.uninstall(&lasting.name)?;
    let fullname = lasting.fullname();
    let promised = [
        format!("persistentvolumeclaim/data-{fullname}-0"),
        format!("persistentvolumeclaim/data-{fullname}-1"),
        format!("secret/{fullname}-authority"),
    ];
    until("only claims and authority are left", SOON, || {
        let mut left = objects(&kubectl, &lasting.name)?;
        left.sort();
        ensure!(left == promised, "{}", left.join(", "));
        Ok(())
    })?;
    world.saw("a release with claims leaves them, and the authority that fits them, as promised");
    lasting.helm.install(&lasting.name, &values)?;
    let mut reaches = lasting.reaches(&lasting.wait_until_ready(2)?);
    wait_for_status(&mut reaches, "kept", 200)?;
    world.saw("installed again upon both, it has its records");

    upon_volumes_alone_nothing_is_mixed(world, &lasting, &values)?;
    lasting.helm.uninstall(&lasting.name)?;
    kubectl.say(&format!("delete {} --wait=false", promised.join(" ")))?;
    Ok(())
}

/// The pods of the release, whose volumes outlive their authority: each serves its own application
/// and meets nobody, until the new authority adopts the old one.
fn upon_volumes_alone_nothing_is_mixed(
    world: &World,
    lasting: &Release,
    values: &str,
) -> Result<()> {
    let kubectl = &lasting.kubectl;
    lasting.helm.uninstall(&lasting.name)?;
    until("its pods are gone", SOON, || {
        let left = lasting.pods()?.len();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })?;
    let secret = format!("secret {}-authority", lasting.fullname());
    let old = kubectl.get(&secret)?;
    ensure!(!old["data"].is_null(), "the authority's Secret was empty");
    kubectl.say(&format!("delete {secret}"))?;
    lasting.helm.begin_install(&lasting.name, values)?;
    let pods = lasting.wait_until_ready(2)?;
    let mut reaches = lasting.reaches(&pods);
    wait_for_status(&mut reaches, "kept", 200)?;
    wait_for_isolation(&mut reaches, 1.0)?;
    let keys = ["alone-in-one", "alone-in-two"];
    for (reach, key) in reaches.iter_mut().zip(keys) {
        reach.put(&format!("/v1/peers/{key}"), &record(key))?.ok()?;
    }
    for reach in &mut reaches {
        until(
            "it says that its store is of another authority",
            SOON,
            || {
                let failures = "udht_authority_failures_total";
                let count = reach.metrics()?.sum(failures, &["reason=\"bound\""]);
                ensure!(
                    count > Some(0.0),
                    "{}: {failures} is {count:?}",
                    reach.pod()
                );
                Ok(())
            },
        )?;
    }
    for (reach, key) in reaches.iter_mut().zip(keys.into_iter().rev()) {
        let status = reach.get(&format!("/v1/peers/{key}"))?.status;
        ensure!(status == 404, "{} has {key}: {status}", reach.pod());
    }
    let pod = &pods[0].name;
    let log = kubectl.say(&format!("logs {pod} -c sync"))?;
    let uuid = log
        .split("authority adopt ")
        .nth(1)
        .map(|rest| {
            rest.chars()
                .take_while(|it| it.is_ascii_hexdigit() || *it == '-')
        })
        .with_context(|| format!("no command in the log: {}", log.trim()))?
        .collect::<String>();
    world.saw(
        "upon the volumes alone, with a new authority, each pod takes writes, meets nobody, says so, \
         and its log has the command",
    );

    let command = ["/udht-sync", "authority", "adopt", "--yes", &uuid];
    kubectl.exec(pod, "sync", command).output()?;
    for key in keys {
        wait_for_status(&mut reaches, key, 200)?;
    }
    lasting.wait_until_equal(&mut reaches)?;
    wait_for_isolation(&mut reaches, 0.0)?;
    world.saw(&format!(
        "kubectl exec {pod} -c sync -- {}: each has what both took",
        command.join(" ")
    ));
    Ok(())
}
