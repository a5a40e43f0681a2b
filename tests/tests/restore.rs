//! What `docs/restore.md` says, done with real pods: each way to bring back what is gone, and what must
//! not be done.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use udht_tests::cluster::trickle::{Trickle, Way};
use udht_tests::cluster::wait::until;
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions, Direct, Pod};
use udht_tests::process::{PATIENCE, program};
use udht_tests::recipe::{WRITTEN_ADDRESS, blocks, output};

const RESTORE: &str = include_str!("../../docs/restore.md");

fn start(folder: &Path, count: usize) -> Cluster {
    let options = ClusterOptions {
        sync_interval: Some("200ms".to_owned()),
        manager_arguments: vec!["--floor-interval=1s".to_owned()],
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(folder, count, &options).unwrap();
    cluster.wait_until_joined(&agent()).unwrap();
    cluster
}

/// A recipe of the documentation, run as it stands in `folder`, at a pod; what it says.
fn follow(name: &str, folder: &Path, pod: &Pod) -> String {
    bash(&recipe(name), folder, pod)
}

fn recipe(name: &str) -> String {
    let mut blocks = blocks(RESTORE).into_iter();
    let block = blocks.find(|block| block.name == name);
    block
        .unwrap_or_else(|| panic!("there is no recipe {name}"))
        .text
}

fn bash(text: &str, folder: &Path, pod: &Pod) -> String {
    let text = text.replace(WRITTEN_ADDRESS, &pod.manager_url());
    let manager = program("udht-manager").unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", manager.parent().unwrap().display());
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &text]);
    bash.env("PATH", path)
        .env("UDHT_MANAGER", pod.manager_url());
    output(bash.current_dir(folder), "").unwrap()
}

fn ways(cluster: &Cluster) -> Vec<Direct> {
    cluster.pods.iter().map(Pod::way).collect()
}

fn put(pod: &Pod, key: &str, name: &str) {
    let body = json!({"name": name, "ip": "10.0.0.7"});
    let written = pod.way().put(&format!("/v1/peers/{key}"), &body);
    written.unwrap().ok().unwrap();
}

fn delete(pod: &Pod, key: &str) {
    let deleted = pod.way().delete(&format!("/v1/peers/{key}"));
    deleted.unwrap().ok().unwrap();
}

/// The name that a pod's record of this key says, if it has one.
fn name(pod: &Pod, key: &str) -> Result<Option<String>> {
    let answer = pod.way().get(&format!("/v1/peers/{key}"))?;
    Ok(answer.body["name"]
        .as_str()
        .map(str::to_owned)
        .filter(|_| answer.status == 200))
}

/// The `peer_id` of the pod's own record.
fn own(pod: &Pod) -> String {
    let own = pod.way().get("/v1/identity").unwrap().ok().unwrap();
    own["peer_id"].as_str().unwrap().to_owned()
}

fn keys(pod: &Pod) -> BTreeSet<String> {
    let records = pod.way().records("").unwrap();
    let key = |record: &Value| record["peer_id"].as_str().unwrap().to_owned();
    records.iter().map(key).collect()
}

/// Waits until each pod says this of a record: the name in it, or that there is none.
#[track_caller]
fn is_everywhere(cluster: &Cluster, key: &str, wanted: Option<&str>) {
    until(&format!("{key} is {wanted:?} everywhere"), PATIENCE, || {
        for pod in &cluster.pods {
            let said = name(pod, key)?;
            ensure!(said.as_deref() == wanted, "pod {}: {said:?}", pod.number);
        }
        Ok(())
    })
    .unwrap();
}

/// Waits until no pod remembers a deleted record any more: whatever turns up of it then is a ghost.
#[track_caller]
fn wait_until_tombstones_left(cluster: &Cluster) {
    until("no tombstone is left", PATIENCE, || {
        for pod in &cluster.pods {
            let replicas = pod.way().get("/v1/replicas")?.ok()?;
            let is_quiet = replicas["tombstones"] == 0 && replicas["floor"].is_string();
            ensure!(is_quiet, "pod {}: {replicas}", pod.number);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_empty_cluster_is_filled_from_a_dump_given_to_one_pod() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = start(folder.path(), 3);
    for number in 0..50 {
        put(&cluster.pods[number % 3], &format!("p{number}"), "kept");
    }
    put(&cluster.pods[0], "gone", "deleted before the dump");
    delete(&cluster.pods[0], "gone");
    cluster.wait_until_equal(&agent()).unwrap();
    let former: Vec<_> = cluster.pods.iter().map(own).collect();
    let said = follow("dump", folder.path(), &cluster.pods[0]);
    assert!(said.contains("exported 53 records"), "{said}");
    follow("records", folder.path(), &cluster.pods[0]);

    for pod in &mut cluster.pods {
        pod.kill().unwrap();
    }
    for pod in &mut cluster.pods {
        std::fs::remove_file(pod.store()).unwrap();
        pod.start().unwrap();
    }
    cluster.wait_until_joined(&agent()).unwrap();
    assert!(
        name(&cluster.pods[0], "p0").unwrap().is_none(),
        "it is empty"
    );
    let said = follow("fill", folder.path(), &cluster.pods[1]);
    assert!(said.contains("wrote 53 records, deleted 0"), "{said}");
    cluster.wait_until_equal(&agent()).unwrap();
    for key in (0..50).map(|number| format!("p{number}")) {
        is_everywhere(&cluster, &key, Some("kept"));
    }
    is_everywhere(&cluster, "gone", None);
    // Given to another pod too it comes to the same.
    let said = follow("fill-http", folder.path(), &cluster.pods[2]);
    assert_eq!(said, r#"{"written":53,"deleted":0}"#);
    cluster.wait_until_equal(&agent()).unwrap();
    // The pods have new stores, and with these new records; those of before are for a person to delete.
    for key in &former {
        assert!(name(&cluster.pods[2], key).unwrap().is_some());
        delete(&cluster.pods[2], key);
        is_everywhere(&cluster, key, None);
    }
    for key in cluster.pods.iter().map(own) {
        assert!(!former.contains(&key));
        assert!(name(&cluster.pods[0], &key).unwrap().is_some());
    }
}

#[test]
fn one_pod_starts_over_and_is_filled_by_its_peers() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = start(folder.path(), 3);
    for number in 0..50 {
        put(&cluster.pods[number % 3], &format!("p{number}"), "kept");
    }
    cluster.wait_until_equal(&agent()).unwrap();
    delete(&cluster.pods[0], "p7");
    is_everywhere(&cluster, "p7", None);
    let (own_before, store) = (own(&cluster.pods[2]), store_of(&cluster.pods[2]));
    let said = follow("start-over", folder.path(), &cluster.pods[2]);
    assert!(said.contains("started over"), "{said}");
    assert_ne!(store_of(&cluster.pods[2]), store, "it is another replica");
    cluster.wait_until_equal(&agent()).unwrap();
    assert_eq!(own(&cluster.pods[2]), own_before, "and the same pod");
    for number in 0..50 {
        let wanted = (number != 7).then_some("kept");
        is_everywhere(&cluster, &format!("p{number}"), wanted);
    }
    // Nobody waits for the store of before, though nobody gave it up.
    wait_until_tombstones_left(&cluster);
    is_everywhere(&cluster, "p7", None);
}

/// Its store's id, as others know it.
fn store_of(pod: &Pod) -> String {
    let replicas = pod.way().get("/v1/replicas").unwrap().ok().unwrap();
    replicas["store"].as_str().unwrap().to_owned()
}

/// Says in this pod that a store will not come back, by the recipe for that.
fn give_up(store: &str, folder: &Path, pod: &Pod) {
    let said = bash(&recipe("give-up").replace("STORE", store), folder, pod);
    assert!(said.contains("given up:"), "{said}");
}

#[test]
fn one_pod_without_its_store_is_filled_by_its_peers_under_a_new_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = start(folder.path(), 3);
    for number in 0..50 {
        put(&cluster.pods[number % 3], &format!("p{number}"), "kept");
    }
    cluster.wait_until_equal(&agent()).unwrap();
    let (former, lost) = (own(&cluster.pods[2]), store_of(&cluster.pods[2]));
    let pod = cluster.pod(3);
    pod.kill().unwrap();
    std::fs::remove_file(pod.store()).unwrap();
    pod.start().unwrap();
    cluster.wait_until_joined(&agent()).unwrap();
    cluster.wait_until_equal(&agent()).unwrap();
    for number in 0..50 {
        is_everywhere(&cluster, &format!("p{number}"), Some("kept"));
    }
    assert_ne!(own(&cluster.pods[2]), former);
    // Nothing of the store that is lost is waited for once somebody says that it is.
    give_up(&lost, folder.path(), &cluster.pods[0]);
    delete(&cluster.pods[0], "p7");
    wait_until_tombstones_left(&cluster);
    // Kubernetes would say that the pod of the former record is gone. Here a person does.
    delete(&cluster.pods[0], &former);
    is_everywhere(&cluster, &former, None);
}

#[test]
fn a_deleted_record_comes_back_on_purpose_and_not_by_an_old_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = start(folder.path(), 3);
    let keys = ["files-6", "files-7", "many-1", "many-2", "stays"];
    for key in keys {
        put(&cluster.pods[0], key, "first");
    }
    for key in keys {
        is_everywhere(&cluster, key, Some("first"));
    }
    follow("dump", folder.path(), &cluster.pods[1]);
    // A copy of a store, as a snapshot of its volume is one.
    let copy = folder.path().join("copy.redb");
    let pod = cluster.pod(3);
    pod.kill().unwrap();
    std::fs::copy(pod.store(), &copy).unwrap();
    pod.start().unwrap();

    // While the tombstone is there, a write wins over it.
    delete(&cluster.pods[1], "files-6");
    is_everywhere(&cluster, "files-6", None);
    follow("put", folder.path(), &cluster.pods[2]);
    is_everywhere(&cluster, "files-6", Some("files-6"));

    let deleted = ["files-7", "many-1", "many-2", "stays"];
    for key in deleted {
        delete(&cluster.pods[0], key);
        is_everywhere(&cluster, key, None);
    }
    wait_until_tombstones_left(&cluster);
    let pod = cluster.pod(3);
    pod.kill().unwrap();
    std::fs::copy(&copy, pod.store()).unwrap();
    pod.start().unwrap();
    let store = store_of(&cluster.pods[2]);
    // The store of before still has them, and is told that they are deleted.
    for key in deleted {
        is_everywhere(&cluster, key, None);
    }
    is_everywhere(&cluster, "files-6", Some("files-6"));
    // The opening that it lost with what came after the copy is not waited for.
    give_up(&store_of(&cluster.pods[2]), folder.path(), &cluster.pods[0]);
    wait_until_tombstones_left(&cluster);
    assert_eq!(store_of(&cluster.pods[2]), store, "it did not start over");

    // From the dump, of which each line is a new write: one, and then all that are wanted.
    follow("one", folder.path(), &cluster.pods[1]);
    is_everywhere(&cluster, "files-7", Some("first"));
    put(&cluster.pods[0], "files-7", "changed");
    is_everywhere(&cluster, "files-7", Some("changed"));
    bash(
        "grep -v '\"stays\"' peers.ndjson > wanted && mv wanted peers.ndjson",
        folder.path(),
        &cluster.pods[0],
    );
    follow("records", folder.path(), &cluster.pods[0]);
    let said = follow("missing", folder.path(), &cluster.pods[0]);
    assert!(said.contains("wrote 2 records"), "{said}");
    let all = [
        ("files-6", Some("files-6")),
        ("files-7", Some("changed")),
        ("many-1", Some("first")),
        ("many-2", Some("first")),
        ("stays", None),
    ];
    for number in 1..=3 {
        cluster.pod(number).kill().unwrap();
        cluster.pod(number).start().unwrap();
    }
    cluster.wait_until_equal(&agent()).unwrap();
    for (key, wanted) in all {
        is_everywhere(&cluster, key, wanted);
    }
}

/// It opens its store once more before it can hear that this was given up: nobody waits for that either.
#[test]
fn a_store_that_was_given_up_and_comes_back_holds_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = start(folder.path(), 3);
    put(&cluster.pods[0], "p1", "kept");
    cluster.wait_until_equal(&agent()).unwrap();
    let store = store_of(&cluster.pods[2]);
    cluster.pod(3).kill().unwrap();
    give_up(&store, folder.path(), &cluster.pods[0]);
    cluster.pod(3).start().unwrap();
    until("it has started over", PATIENCE, || {
        let replicas = cluster.pods[2].way().get("/v1/replicas")?.ok()?;
        ensure!(replicas["store"] != store.as_str() && replicas["belongs"] == true);
        Ok(())
    })
    .unwrap();
    delete(&cluster.pods[1], "p1");
    wait_until_tombstones_left(&cluster);
    is_everywhere(&cluster, "p1", None);
}

#[test]
fn a_whole_table_is_replaced_while_all_pods_take_writes() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = start(folder.path(), 3);
    for number in 0..300 {
        put(&cluster.pods[0], &format!("old-{number}"), "old");
    }
    for number in 0..50 {
        put(&cluster.pods[0], &format!("both-{number}"), "old");
    }
    let mut dump = String::new();
    for (prefix, count) in [("new", 300), ("both", 50)] {
        for number in 0..count {
            let record =
                json!({"peer_id": format!("{prefix}-{number}"), "name": "new", "ip": "10.0.0.8"});
            dump.push_str(&record.to_string());
            dump.push('\n');
        }
    }
    std::fs::write(folder.path().join("records.ndjson"), dump).unwrap();
    let owns: Vec<_> = cluster.pods.iter().map(own).collect();
    cluster.wait_until_equal(&agent()).unwrap();

    let during = Trickle::through(ways(&cluster), "during");
    during.wait_for_more(60).unwrap();
    let said = follow("replace", folder.path(), &cluster.pods[0]);
    assert!(said.contains("wrote 350 records"), "{said}");
    during.wait_for_more(60).unwrap();
    let answered = during.end().unwrap().answered;
    assert!(answered >= 120);
    // What is written after the answer is after the replacement.
    let after = Trickle::through(ways(&cluster), "after");
    after.wait_for_more(60).unwrap();
    let after = after.end().unwrap();
    after.wait_until_in_all(&mut ways(&cluster)).unwrap();
    cluster.wait_until_equal(&agent()).unwrap();

    let held = keys(&cluster.pods[1]);
    let left: Vec<_> = held.iter().filter(|key| key.starts_with("old-")).collect();
    assert!(left.is_empty(), "{left:?}");
    for (prefix, count) in [("new", 300), ("both", 50)] {
        for number in 0..count {
            let key = format!("{prefix}-{number}");
            assert_eq!(
                name(&cluster.pods[2], &key).unwrap().as_deref(),
                Some("new"),
                "{key}"
            );
        }
    }
    // A dump that does not name the pods takes the record of none from it for longer than a moment.
    for own in &owns {
        until(
            "each pod has written its own record again",
            PATIENCE,
            || {
                for pod in &cluster.pods {
                    ensure!(name(pod, own)?.is_some(), "pod {} lacks {own}", pod.number);
                }
                Ok(())
            },
        )
        .unwrap();
    }
}

/// What not to do: two pods with the store of one refuse each other by name, and neither harms the
/// others. An empty store in its place is the way out.
#[test]
fn a_pod_with_a_copy_of_another_s_store_is_refused_by_word_until_it_has_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = start(folder.path(), 3);
    put(&cluster.pods[0], "kept", "kept");
    is_everywhere(&cluster, "kept", Some("kept"));
    cluster.pod(1).kill().unwrap();
    cluster.pod(3).kill().unwrap();
    let (from, to) = (
        cluster.pods[0].store().to_owned(),
        cluster.pods[2].store().to_owned(),
    );
    std::fs::copy(&from, &to).unwrap();
    cluster.pod(1).start().unwrap();
    cluster.pod(3).start().unwrap();
    for (of, peer) in [(0, 2), (2, 0)] {
        until("it is alarmed about the other", PATIENCE, || {
            let status = format!("{}/v1/status", cluster.pods[of].manager_url());
            let status = http::get(&agent(), &status)?.ok()?;
            let mut alarms = status["alarms"].as_array().into_iter().flatten();
            let alarm = alarms.find(|it| it["alarm"] == "store_copied");
            let about = alarm.map(|it| &it["about"][0]).unwrap_or_default();
            let address = cluster.pods[peer].exchange_address();
            ensure!(about["who"] == address.as_str(), "{status:#}");
            ensure!(about["reason"] == "refused_copied", "{about}");
            Ok(())
        })
        .unwrap();
    }
    put(&cluster.pods[1], "meanwhile", "kept");
    let pod = cluster.pod(3);
    pod.kill().unwrap();
    std::fs::remove_file(pod.store()).unwrap();
    pod.start().unwrap();
    cluster.wait_until_joined(&agent()).unwrap();
    is_everywhere(&cluster, "kept", Some("kept"));
    is_everywhere(&cluster, "meanwhile", Some("kept"));
    cluster.wait_until_equal(&agent()).unwrap();
    let owns: BTreeSet<_> = cluster.pods.iter().map(own).collect();
    assert_eq!(owns.len(), 3, "each has a record of its own");
}
