//! Alone in its process, whose memory it looks at.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::fs;

use udht_process::memory;

const PIECES: usize = 64 << 10;
const PIECE_BYTES: usize = 1 << 10;

/// What the process holds that is of no file.
fn own_kibibytes() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.strip_suffix("kB")?.trim().parse().ok()
}

#[test]
fn what_was_freed_below_what_is_held_goes_back_to_the_system() {
    let mut pieces: Vec<_> = (0..PIECES).map(|_| vec![1_u8; PIECE_BYTES]).collect();
    let last = pieces.pop();
    drop(pieces);
    let freed = own_kibibytes().unwrap();
    memory::give_back();
    let given_back = freed.saturating_sub(own_kibibytes().unwrap());
    assert!(
        given_back > PIECES * PIECE_BYTES / 1024 / 2,
        "{given_back} kB"
    );
    drop(last);
}
