//! The program itself, as a user calls it.

use std::process::Output;

use crate::pod::{CLUSTER, Pod, start_default};

pub(crate) async fn udht_sync(arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_udht-sync"));
    command.args(arguments).env_clear();
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.unwrap().unwrap()
}

pub(crate) fn said(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

pub(crate) async fn is_refused(arguments: &[&str], exit: i32, part: &str) {
    let output = udht_sync(arguments).await;
    let said = said(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{said}");
    assert!(said.contains(part), "{said}");
}

#[tokio::test]
async fn who_is_not_in_a_cluster_is_told_how_to_ask_for_its_pods() {
    let kubernetes = ["serve", "--tls=off", "--discovery=kubernetes"];
    is_refused(&kubernetes, 1, "--kubeconfig FILE").await;
}

#[tokio::test]
async fn an_own_authority_without_kubernetes_says_what_to_do() {
    let fixed = "--discovery=fixed:127.0.0.1:1";
    let ports = ["--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"];
    for part in ["--tls off", "--tls files:DIR", "--kubeconfig"] {
        is_refused(&["serve", fixed, ports[0], ports[1]], 1, part).await;
        is_refused(&["exchange", "127.0.0.1:1"], 1, part).await;
    }
    is_refused(&["authority", "show"], 1, "--kubeconfig").await;
    is_refused(&["authority", "adopt", "no-uuid"], 2, "UUID").await;
    let short = ["serve", fixed, "--leaf-lifetime=1s"];
    is_refused(&short, 2, "must be 10s to 7days").await;
}

#[tokio::test]
async fn a_wrong_flag_is_a_usage_error_that_names_it() {
    is_refused(&["serve", "--push-fanout=0"], 2, "--push-fanout").await;
    is_refused(&["serve", "--discovery=fixed:a"], 2, "HOST:PORT").await;
    is_refused(&["serve", "--manager=http://10.0.0.1:1"], 2, "loopback").await;
}

#[tokio::test]
async fn an_exchange_is_shown_with_what_it_found_and_cost() {
    let [a, b] = start_default().await;
    a.sync.node.book().replace([]);
    a.manager.put("key", "value");
    let Pod { manager, sync } = &b;
    let [url, peer] = [manager.url(), a.sync.address.to_string()];
    let ends = ["--tls=off", "--manager", &url, "--cluster", CLUSTER];
    let json = [&["exchange", &peer, "-o", "json"], &ends[..]].concat();
    let output = udht_sync(&json).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(view["result"], "reconciled");
    assert_eq!(view["equal"], true);
    assert_eq!(view["records_received"], 1);
    assert_eq!(view["merged_here"]["applied"], 1);
    assert_eq!(manager.get("key").as_deref(), Some("value"));

    let table = [&["exchange", &peer], &ends[..]].concat();
    let output = udht_sync(&table).await;
    let table = said(&output.stdout);
    assert!(
        table.contains("equal: both tables are equal, 1 record here, deleted ones included"),
        "{table}"
    );

    let ops = sync.ops.to_string();
    let output = udht_sync(&["peers", "--ops", &ops]).await;
    let table = said(&output.stdout);
    assert!(
        table.contains(&peer) && table.contains("1 record here, deleted ones included"),
        "{table}"
    );
    let output = udht_sync(&["healthcheck", "--ops", &ops]).await;
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn each_way_to_fail_has_its_exit_code() {
    let [a, b] = start_default().await;
    let url = a.manager.url();
    let ends = ["--tls=off", "--manager", &url, "--cluster", CLUSTER];
    let nobody = [&["exchange", "127.0.0.1:1"], &ends[..]].concat();
    is_refused(&nobody, 5, "is its sync running").await;
    let own = a.sync.address.to_string();
    let myself = [&["exchange", &own], &ends[..]].concat();
    is_refused(&myself, 3, "refused (self)").await;
    let away = [
        "exchange",
        &own,
        "--tls=off",
        "--manager=http://127.0.0.1:1",
    ];
    is_refused(&away, 5, "--manager").await;
    let wrong = [
        "exchange",
        &own,
        "--tls=off",
        "--manager",
        &url,
        "--cluster=wrong",
    ];
    is_refused(&wrong, 1, "same --cluster").await;

    is_refused(&["peers", "--ops=http://127.0.0.1:1"], 5, "--ops").await;
    let Pod { manager, sync } = b;
    manager.end().await;
    let ops = sync.ops.to_string();
    is_refused(
        &["healthcheck", "--ops", &ops],
        1,
        "the manager does not answer",
    )
    .await;
    let output = udht_sync(&["healthcheck", "--live", "--ops", &ops]).await;
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_with_the_flag_to_change() {
    let [a] = start_default().await;
    let taken = format!("--listen={}", a.sync.address);
    let arguments = ["serve", "--tls=off", "--discovery=fixed:", &taken];
    is_refused(&arguments, 1, "--listen").await;
}
