//! A few of the rounds of `make kill`, with each store and of a fresh seed.

use std::process::{Command, Stdio};

#[track_caller]
fn ten_rounds_with(store: &str) {
    let kill = Command::new(env!("CARGO_BIN_EXE_kill"))
        .args(["--rounds", "10", "--store", store])
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&kill.stdout);
    assert!(
        kill.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&kill.stderr)
    );
    assert!(
        said.contains(&format!("\n{store}: 10 rounds")) && said.contains(" 0 lost"),
        "{said}"
    );
}

#[test]
fn every_answered_write_is_in_every_file_after_kills_of_manager_sync_and_pod() {
    ten_rounds_with("embedded");
}

#[test]
fn every_answered_write_is_in_every_redis_after_kills_of_manager_sync_redis_and_pod() {
    ten_rounds_with("redis");
}
