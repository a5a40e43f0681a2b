//! Stores that fail, under whole pods: what a client and the other pods see of it, and that it goes
//! away by itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod file;
mod redis;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use udht_tests::cluster::wait::until;
use udht_tests::http::{self, Answer, agent};
use udht_tests::pod::Pod;
use udht_tests::process::PATIENCE;
use ureq::Agent;

fn peer(name: &str) -> Value {
    json!({"name": name, "ip": "10.0.0.1", "ports": {"userSync": 5001}})
}

fn put(agent: &Agent, pod: &Pod, key: &str, body: &Value) -> Answer {
    http::put(agent, &url(pod, key), body).unwrap()
}

/// The version of a write that is answered with success.
#[track_caller]
fn written(answer: Answer) -> String {
    let body = answer.ok().unwrap();
    body["version"].as_str().unwrap().to_owned()
}

fn url(pod: &Pod, key: &str) -> String {
    format!("{}/v1/peers/{key}", pod.manager_url())
}

fn status(agent: &Agent, pod: &Pod, key: &str) -> u16 {
    http::get(agent, &url(pod, key)).unwrap().status
}

/// The pod does not take this write, as `part` says, and changes nothing; what it has can be read.
#[track_caller]
fn refuses_and_reads(agent: &Agent, pod: &Pod, body: &Value, held: &str, part: &str) {
    is_refused(&put(agent, pod, "refused", body), part);
    assert_eq!(status(agent, pod, held), 200);
    assert_eq!(status(agent, pod, "refused"), 404);
    let list = http::get(agent, &format!("{}/v1/peers", pod.manager_url()));
    assert_eq!(list.unwrap().status, 200);
    // What can be read is ready: a sidecar's readiness is the whole pod's.
    let ready = http::text(agent, &format!("{}/readyz", pod.manager_url())).unwrap();
    assert_eq!(ready, "ok");
}

#[track_caller]
fn is_refused(answer: &Answer, part: &str) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.body["type"], "urn:udht:problem:unavailable");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains(part), "{detail}");
    assert!(detail.contains("nothing was changed"), "{detail}");
}

/// Waits until the pod takes a write again; that write's version.
fn takes_writes_again(agent: &Agent, pod: &Pod, key: &str) -> String {
    let written = until("it takes writes again", PATIENCE, || {
        http::put(agent, &url(pod, key), &peer(key))?.ok()
    });
    written.unwrap()["version"].as_str().unwrap().to_owned()
}

/// Waits until these pods hold the same.
fn become_equal(agent: &Agent, pods: &[Pod]) {
    let equal = || -> Result<()> {
        let digests: Result<Vec<_>> = pods.iter().map(|pod| pod.digest(agent)).collect();
        let digests = digests?;
        let equal = digests.windows(2).all(|pair| pair[0] == pair[1]);
        ensure!(equal, "{digests:x?}");
        Ok(())
    };
    until("all hold the same", PATIENCE, equal).unwrap();
}

/// How often its manager took the store for another than it was, for this reason.
fn reopened(agent: &Agent, pod: &Pod, reason: &str) -> u64 {
    let metrics = http::text(agent, &format!("{}/metrics", pod.manager_url())).unwrap();
    let name = format!("udht_store_reopened_total{{reason=\"{reason}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
    count.unwrap().parse().unwrap()
}
