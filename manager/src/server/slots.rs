//! Bounds on how many of a kind of request are under way.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Kind, Problem};
use crate::owner::Owner;

/// So many requests of one kind at once, and no more.
#[derive(Clone)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    max: usize,
    what: &'static str,
    taken: Option<IntGauge>,
    owner: Owner,
}

/// The place of one request; it is free again once this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    taken: Option<IntGauge>,
}

impl Slots {
    /// `max` places for `what`; `taken` counts those that are in use, and `owner` notes that somebody
    /// is turned away.
    pub(super) fn new(
        max: usize,
        what: &'static str,
        taken: Option<IntGauge>,
        owner: Owner,
    ) -> Self {
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
            what,
            taken,
            owner,
        }
    }

    /// Takes a place, or says that there is none.
    pub(super) fn take(&self) -> Result<Slot, Problem> {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            self.owner.note_crowd();
            let detail = format!(
                "{} {} are the most at once; end one, or try again later",
                self.max, self.what
            );
            return Err(Problem::new(Kind::BUSY, detail)
                .limit(self.max)
                .retry_after(5));
        };
        if let Some(taken) = &self.taken {
            taken.inc();
        }
        Ok(Slot {
            _permit: permit,
            taken: self.taken.clone(),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            taken.dec();
        }
    }
}
