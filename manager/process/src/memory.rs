//! Memory that was freed, given back to the system.
//!
//! The allocator of glibc keeps what is freed for what is asked for next, and gives back by itself
//! only what lies above everything that is still held. What came and went while a pod was filled or
//! met its peers (buffers of a hundred connections, batches of a million records) is freed between
//! what stays, and would be held for good: nearly half of what sync has of its own in a cluster of 50
//! pods, and a quarter of what manager has after it took in a million records.

use std::time::Duration;

use tokio::time::sleep;

/// How often it is done.
const PAUSE: Duration = Duration::from_mins(1);

/// Gives back what was freed, once a minute. It never ends.
pub async fn keep_giving_back() {
    loop {
        sleep(PAUSE).await;
        give_back();
    }
}

/// Gives back at once what was freed, wherever it lies.
///
/// Whoever asks the same allocator for something waits meanwhile: less than a millisecond as long as
/// little was freed since the last time, some ten after a million records were taken in.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    #[expect(unsafe_code, reason = "no crate has a safe way to it")]
    // SAFETY: malloc_trim(3) takes any number, may be called from any thread at any time (it is
    // MT-Safe), and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators see to it by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
