//! Disks that are full, or may only be read.

use udht_tests::disk::Disk;
use udht_tests::pod::{Cluster, ClusterOptions, Part, StoreKind};
use udht_tests::process::{Process, program};

use super::*;

/// Room for a store with some records.
const DISK_BYTES: u64 = 12 << 20;
/// A store that takes none of so many writes takes none any more.
const REFUSED_ENOUGH: usize = 5;
/// So many records of this test do not fit on it.
const RECORDS_MAX: usize = 20_000;

/// Two pods, of which the first has its store on a disk of its own.
fn on(disk: &Disk, folder: &std::path::Path, options: &ClusterOptions) -> Cluster {
    let mut cluster = Cluster::start(folder, 2, options).unwrap();
    let pod = cluster.pod(1);
    pod.kill().unwrap();
    pod.become_of_cluster(&options.cluster, disk.path().join("store"));
    pod.start().unwrap();
    cluster
}

/// A record of some kilobytes.
fn large(number: usize) -> Value {
    let labels = (0..10).map(|label| (format!("l{label}"), "x".repeat(1_000).into()));
    let labels: serde_json::Map<_, _> = labels.collect();
    json!({"name": number.to_string(), "ip": "10.0.0.1", "labels": labels})
}

/// Fills the disk, and what the store still has of its own, until it takes no more; the keys that
/// were answered for.
fn fill(disk: &Disk, agent: &Agent, pod: &Pod, part: &str) -> Vec<String> {
    let mut answered = Vec::new();
    let mut refused = 0;
    for number in 0..RECORDS_MAX {
        let key = format!("large-{number}");
        let answer = put(agent, pod, &key, &large(number));
        if answer.status == 503 {
            is_refused(&answer, part);
            // A store may give room back after an error.
            disk.fill().unwrap();
            refused += 1;
            if refused == REFUSED_ENOUGH {
                return answered;
            }
        } else {
            written(answer);
            answered.push(key);
            refused = 0;
        }
    }
    panic!("{RECORDS_MAX} records fit on a full disk");
}

fn a_full_disk_refuses_writes_until_there_is_room(store: StoreKind, part: &str) {
    let Some(disk) = Disk::new(DISK_BYTES).unwrap() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let options = ClusterOptions {
        store,
        ..ClusterOptions::default()
    };
    let mut cluster = on(&disk, folder.path(), &options);
    let agent = agent();
    written(put(&agent, &cluster.pods[0], "held", &peer("held")));
    become_equal(&agent, &cluster.pods);
    for round in 0..3 {
        disk.fill().unwrap();
        let answered = fill(&disk, &agent, &cluster.pods[0], part);
        for _ in 0..3 {
            // Also what an earlier refusal has given back.
            disk.fill().unwrap();
            refuses_and_reads(&agent, &cluster.pods[0], &large(0), "held", part);
        }
        // What the others write has no room either, and comes when there is some.
        let missed = format!("missed-{round}");
        written(put(&agent, &cluster.pods[1], &missed, &peer("missed")));
        disk.make_room().unwrap();
        takes_writes_again(&agent, &cluster.pods[0], &format!("after-{round}"));
        become_equal(&agent, &cluster.pods);
        for key in answered.iter().chain([&missed]) {
            assert_eq!(status(&agent, &cluster.pods[0], key), 200, "{key}");
        }
        // With its own store only.
        let pod = cluster.pod(1);
        pod.kill().unwrap();
        for part in pod.parts().iter().filter(|part| **part != Part::Sync) {
            pod.begin(*part).unwrap();
            pod.ready(*part).unwrap();
        }
        for key in answered.iter().chain([&missed]) {
            assert_eq!(status(&agent, &cluster.pods[0], key), 200, "{key}");
        }
        cluster.pod(1).start_sync().unwrap();
        for pod in &cluster.pods {
            assert_eq!(reopened(&agent, pod, "rolled_back"), 0);
        }
    }
}

#[test]
fn a_full_disk_under_a_file_refuses_writes_with_what_to_do_until_there_is_room() {
    a_full_disk_refuses_writes_until_there_is_room(StoreKind::Embedded, "make room there");
}

#[test]
fn a_full_disk_under_redis_refuses_writes_with_what_to_do_until_there_is_room() {
    a_full_disk_refuses_writes_until_there_is_room(StoreKind::Redis, "make room there");
}

#[test]
fn a_redis_that_is_killed_on_a_full_disk_and_the_others_lack_nothing_that_was_answered() {
    let Some(disk) = Disk::new(DISK_BYTES).unwrap() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let options = ClusterOptions {
        store: StoreKind::Redis,
        ..ClusterOptions::default()
    };
    let mut cluster = on(&disk, folder.path(), &options);
    let agent = agent();
    become_equal(&agent, &cluster.pods);
    disk.fill().unwrap();
    let answered = fill(&disk, &agent, &cluster.pods[0], "make room there");
    // Its last write before it noticed is answered, and in its memory and in the others only.
    for key in &answered {
        let pushed = || {
            let status = status(&agent, &cluster.pods[1], key);
            ensure!(status == 200, "{key}: status {status}");
            Ok(())
        };
        until("the other pod has it", PATIENCE, pushed).unwrap();
    }
    cluster.pod(1).kill_part(Part::Redis).unwrap();
    disk.make_room().unwrap();
    cluster.pod(1).begin(Part::Redis).unwrap();
    takes_writes_again(&agent, &cluster.pods[0], "after");
    become_equal(&agent, &cluster.pods);
    for key in &answered {
        assert_eq!(status(&agent, &cluster.pods[0], key), 200, "{key}");
    }
}

#[test]
fn a_redis_that_ends_at_a_full_disk_has_all_that_was_answered_when_it_is_back() {
    let Some(disk) = Disk::new(DISK_BYTES).unwrap() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let options = ClusterOptions {
        store: StoreKind::Redis,
        redis_arguments: ["--appendfsync", "always"].map(str::to_owned).to_vec(),
        ..ClusterOptions::default()
    };
    let mut cluster = on(&disk, folder.path(), &options);
    let agent = agent();
    disk.fill().unwrap();
    let answered = (0..RECORDS_MAX).map_while(|number| {
        let key = format!("large-{number}");
        let answer = put(&agent, &cluster.pods[0], &key, &large(number));
        (answer.status == 201).then_some(key)
    });
    let answered: Vec<_> = answered.collect();
    let pod = cluster.pod(1);
    // Started anew, it ends at a write again.
    for _ in 0..3 {
        let status = pod.redis.as_mut().unwrap().wait().unwrap();
        assert_eq!(status.code(), Some(1));
        let refused = put(&agent, pod, "refused", &large(0));
        is_refused(&refused, "see that");
        let ready = http::get(&agent, &format!("{}/readyz", pod.manager_url())).unwrap();
        is_refused(&ready, "see that it runs");
        pod.begin(Part::Redis).unwrap();
        pod.ready(Part::Redis).unwrap();
        until("it ends again", PATIENCE, || {
            put(&agent, pod, "refused", &large(0));
            ensure!(pod.redis.as_mut().unwrap().has_ended()?, "it runs");
            Ok(())
        })
        .unwrap();
    }
    disk.make_room().unwrap();
    pod.begin(Part::Redis).unwrap();
    takes_writes_again(&agent, pod, "after");
    for key in &answered {
        assert_eq!(status(&agent, &cluster.pods[0], key), 200, "{key}");
    }
    assert_eq!(reopened(&agent, &cluster.pods[0], "rolled_back"), 0);
    become_equal(&agent, &cluster.pods);
}

#[test]
fn a_file_that_there_is_no_room_to_make_is_made_once_there_is() {
    let Some(disk) = Disk::new(DISK_BYTES).unwrap() else {
        return;
    };
    disk.fill().unwrap();
    let store = format!("--store=embedded:{}", disk.path().join("store").display());
    let arguments = ["serve", "--listen=127.0.0.1:0", &store].map(str::to_owned);
    let start = || Process::start("manager", &program("udht-manager").unwrap(), &arguments);
    for _ in 0..2 {
        let mut manager = start().unwrap();
        let said = manager.wait_for_log("cannot open embedded:").unwrap();
        assert!(said.contains("make room there"), "{said}");
        assert_eq!(manager.wait().unwrap().code(), Some(1));
    }
    disk.make_room().unwrap();
    start().unwrap().wait_for_log("listening on").unwrap();
}

#[test]
fn a_disk_that_may_only_be_read_is_one_clear_error_and_left_as_it_is() {
    let Some(mut disk) = Disk::new(DISK_BYTES).unwrap() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = on(&disk, folder.path(), &ClusterOptions::default());
    let agent = agent();
    written(put(&agent, &cluster.pods[0], "held", &peer("held")));
    cluster.pod(1).kill().unwrap();
    let before = std::fs::read(cluster.pods[0].store()).unwrap();
    disk.writable(false).unwrap();
    let store = cluster.pods[0].store().display().to_string();
    let arguments = [
        "serve",
        "--listen=127.0.0.1:0",
        &format!("--store=embedded:{store}"),
    ];
    let arguments = arguments.map(str::to_owned);
    let mut manager = Process::start("manager", &program("udht-manager").unwrap(), &arguments);
    let manager = manager.as_mut().unwrap();
    manager
        .wait_for_log("name a path on a volume that can be written")
        .unwrap();
    assert_eq!(manager.wait().unwrap().code(), Some(1));
    assert_eq!(std::fs::read(cluster.pods[0].store()).unwrap(), before);
    disk.writable(true).unwrap();
    cluster.pod(1).start().unwrap();
    assert_eq!(status(&agent, &cluster.pods[0], "held"), 200);
}
