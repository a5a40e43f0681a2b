//! What the README tells a newcomer to run first.

use std::process::{Command, Stdio};

#[test]
fn the_demo_checks_each_of_its_steps() {
    let demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--check", "--records", "300"])
        .stdin(Stdio::null())
        .output()
        .expect("the demo starts");
    let said = String::from_utf8_lossy(&demo.stdout);
    assert!(
        demo.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&demo.stderr)
    );
    assert!(said.contains("Every step held."), "{said}");
}
