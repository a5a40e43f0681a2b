//! A thread for what blocks.

use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

/// A thread that does one thing after the other for tasks that wait; it ends with this handle.
///
/// Not tokio's pool of blocking threads: that starts another one whenever the last is just done, and
/// each of them keeps memory of its own, which came to twice as much for a store of any size.
pub(super) struct Worker {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Worker {
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let work = move || queue.into_iter().for_each(|job| job());
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { jobs })
    }

    /// What `action` comes to, after all that was asked for before; `None` if it broke off. It is
    /// done also if nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        action: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, waiting) = oneshot::channel();
        let job = move || {
            // Who stopped waiting does not need it.
            let _ = answer.send(action());
        };
        self.jobs.send(Box::new(job)).ok()?;
        waiting.await.ok()
    }
}
