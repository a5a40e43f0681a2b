//! Who reaches a pod, and who does not.

use std::time::Duration;

use anyhow::{Result, ensure};
use udht_tests::cluster::kubectl::Kubectl;
use udht_tests::cluster::wait::until;

use crate::world::{SOON, World};

/// A pod of our own programs that belongs to no release. What it is to reach is asked of its sync,
/// by exec, so that it need not hold a shell.
fn stranger(name: &str, labels: &str, tag: &str) -> String {
    let security = "{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, runAsNonRoot: true, runAsUser: 65532, \
                    capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";
    format!(
        r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {labels}}}
spec:
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  containers:
    - name: sync
      image: udht-sync:{tag}
      args: [serve, --tls=off, "--discovery=fixed:127.0.0.1:3003"]
      securityContext: {security}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec:
  podSelector: {{matchLabels: {labels}}}
  policyTypes: [Egress]
  egress: [{{}}]
"#
    )
}

/// Has the sync of `from` ask the pod at `ip` for something on this port; what came of it.
fn ask(kubectl: &Kubectl, from: &str, ip: &str, port: u16) -> Result<Reached> {
    let target = format!("http://{ip}:{port}");
    let command = ["/udht-sync", "peers", "--ops", &target];
    let outcome = kubectl
        .exec(from, "sync", command)
        .within(Duration::from_secs(20))
        .outcome()?;
    let said = outcome.said();
    Ok(if outcome.status.success() {
        Reached::Answered
    } else if said.contains("connect error: deadline has elapsed") {
        Reached::Dropped
    } else {
        Reached::Else(said)
    })
}

#[derive(PartialEq, Eq, Debug)]
enum Reached {
    Answered,
    /// Not even a refusal came back.
    Dropped,
    Else(String),
}

/// A new pod is open until the network knows it, and a policy is news for a moment: it is awaited.
fn wait_for(kubectl: &Kubectl, from: &str, ip: &str, port: u16, wanted: &Reached) -> Result<()> {
    until(
        &format!("what {from} asks of port {port} is {wanted:?}"),
        SOON,
        || {
            let reached = ask(kubectl, from, ip, port)?;
            ensure!(reached == *wanted, "{reached:?}");
            Ok(())
        },
    )
}

pub(crate) fn a_stranger_is_dropped(world: &mut World) -> Result<()> {
    let (pods, _) = world.at_rest()?;
    let kubectl = world.release.kubectl.clone();
    let tag = world.arguments.image_tag.clone();
    let names = ["stranger", "scraper"];
    let manifests: String = names
        .iter()
        .map(|name| stranger(name, &format!("{{role: {name}}}"), &tag))
        .collect();
    kubectl.apply(&manifests)?;
    until("both pods run", SOON, || {
        for name in names {
            let pod = kubectl.get(&format!("pod {name}"))?;
            ensure!(
                pod["status"]["phase"] == "Running",
                "{name}: {}",
                pod["status"]["phase"]
            );
        }
        Ok(())
    })?;
    let ip = &pods[0].ip;
    wait_for(&kubectl, "scraper", ip, 3004, &Reached::Answered)?;
    world.saw("a pod with the label that may scrape reaches port 3004");
    wait_for(&kubectl, "stranger", ip, 3004, &Reached::Dropped)?;
    world.saw("what a stranger in the same namespace sends there is dropped");
    for name in names {
        wait_for(&kubectl, name, ip, 3003, &Reached::Dropped)?;
    }
    world.saw("and what either of them sends to port 3003");
    kubectl.say("delete pod,networkpolicy stranger scraper --wait=false")?;
    Ok(())
}
