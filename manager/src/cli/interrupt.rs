//! Ends the program at Ctrl-C or SIGTERM as the running verb wants it, instead of abruptly.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

/// A file that is not whole yet, and must not stay if the program is interrupted.
static PARTIAL: Mutex<Option<PathBuf>> = Mutex::new(None);

/// From now on an interruption removes what is not whole and exits with `code`.
///
/// Where no thread can be started the signals do what they always do.
pub(crate) fn exit_with(code: i32) {
    let _ = std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            if wait().is_ok() {
                if let Some(path) = PARTIAL
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take()
                {
                    let _ = std::fs::remove_file(path);
                }
                std::process::exit(code);
            }
        });
}

/// Remembers a file that is not whole, or that there is none any more.
pub(crate) fn set_partial(path: Option<&Path>) {
    *PARTIAL.lock().unwrap_or_else(PoisonError::into_inner) = path.map(Path::to_path_buf);
}

fn wait() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    })
}
