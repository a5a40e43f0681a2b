//! Ctrl-C: whatever waits gives up, so that what was begun is cleaned up on the usual way out.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on, SIGINT and SIGTERM end no more than what is waited for.
pub fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate) = runtime
        .block_on(async {
            anyhow::Ok((
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            ))
        })
        .context("listen for signals")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        now();
    });
    Ok(())
}

/// An error once the user has had enough.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Has whatever waits give up.
pub fn now() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// What waits from now on is the cleaning up, which is not interrupted.
pub fn forget() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}
