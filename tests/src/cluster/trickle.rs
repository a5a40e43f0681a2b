//! A steady trickle of writes into a release, whatever is done to it meanwhile, and the account of
//! what was answered with success: that must be in every pod in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::kubectl::Kubectl;
use super::reach::Reach;
use super::wait::until;
use crate::ledger::{self, Ledger};

/// Between two writes of one writer.
const PACE: Duration = Duration::from_millis(25);
/// After one that was not answered with success: the pod may be away.
const REST: Duration = Duration::from_millis(250);
/// How long the pods may take until each holds what was answered.
const EVERYWHERE: Duration = Duration::from_mins(1);
/// Of the lost writes, those that an error names.
const NAMED_MAX: usize = 10;

/// The writers, one for each pod.
#[derive(Debug)]
pub struct Trickle {
    name: String,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Ledger>>,
}

/// What the writers wrote.
#[derive(Debug)]
pub struct Written {
    name: String,
    ledger: Ledger,
    /// How many writes were answered with success.
    pub answered: u64,
    /// Of how many keys the last write was not answered, so that it may be there or not.
    pub unknown: usize,
}

impl Trickle {
    /// Begins to write to these pods. `name` tells these records from those of other trickles.
    pub fn begin(kubectl: &Kubectl, pods: &[String], name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let writers = pods.iter().map(|pod| {
            let writer = Writer {
                reach: Reach::to(kubectl, pod),
                prefix: format!("{name}-{pod}"),
                name: name.to_owned(),
                ledger: Ledger::default(),
                written: 0,
            };
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || writer.write_until(&stop, &answered))
        });
        Self {
            name: name.to_owned(),
            writers: writers.collect(),
            stop,
            answered,
        }
    }

    /// How many writes were answered with success by now.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes were answered: all pods take writes then, or some do.
    pub fn wait_for_more(&self, more: u64) -> Result<()> {
        let from = self.answered();
        until("writes are answered", EVERYWHERE, || {
            let answered = self.answered() - from;
            ensure!(answered >= more, "{answered} of {more} only");
            Ok(())
        })
    }

    /// Ends the writing; the account of it.
    pub fn end(mut self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        for writer in std::mem::take(&mut self.writers) {
            let written = writer.join().map_err(|_| anyhow!("a writer panicked"))?;
            ledger.extend(written);
        }
        let answered = self.answered();
        ensure!(answered > 0, "no write was answered");
        Ok(Written {
            name: self.name.clone(),
            unknown: ledger.doubtful(),
            ledger,
            answered,
        })
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Written {
    /// Waits until each of these pods holds each write that was answered, and no record that was
    /// deleted.
    pub fn wait_until_in_all(&self, reaches: &mut [Reach]) -> Result<()> {
        until(
            "every pod holds what was answered with success",
            EVERYWHERE,
            || {
                reaches
                    .iter_mut()
                    .try_for_each(|reach| self.look_for_all(reach))
            },
        )
    }

    fn look_for_all(&self, reach: &mut Reach) -> Result<()> {
        let records = reach.records(&format!("label=trickle={}", self.name))?;
        let lost = self.ledger.wrong(&ledger::numbers(&records), "");
        let named = &lost[..lost.len().min(NAMED_MAX)];
        ensure!(
            lost.is_empty(),
            "pod {}: {} of {} records are not as was answered: {}",
            reach.pod(),
            lost.len(),
            self.ledger.keys().count(),
            named.join("; ")
        );
        Ok(())
    }

    /// Deletes what was written, so that the next steps have a small table.
    pub fn delete(&self, reach: &mut Reach) -> Result<()> {
        let path = format!("/v1/peers?label=trickle={}", self.name);
        reach.delete(&path)?.ok().context("delete the trickle")?;
        Ok(())
    }
}

struct Writer {
    reach: Reach,
    prefix: String,
    name: String,
    ledger: Ledger,
    written: u64,
}

impl Writer {
    fn write_until(mut self, stop: &AtomicBool, answered: &AtomicU64) -> Ledger {
        while !stop.load(Ordering::Relaxed) {
            let good = self.write();
            if good {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(if good { PACE } else { REST });
        }
        self.ledger
    }

    /// One write: mostly a new record, every fourth a change of an earlier one, every seventh the
    /// end of one. Whether it was answered with success.
    fn write(&mut self) -> bool {
        self.written += 1;
        let written = self.written;
        let (number, content) = match written {
            _ if written.is_multiple_of(7) => (written - 5, None),
            _ if written.is_multiple_of(4) => (written - 3, Some(written)),
            _ => (written, Some(written)),
        };
        let key = format!("{}-{number}", self.prefix);
        let path = format!("/v1/peers/{key}");
        let answer = match content {
            Some(content) => {
                let record = ledger::record(("trickle", &self.name), content);
                self.reach.put(&path, &record)
            }
            None => self.reach.delete(&path),
        };
        let status = answer.map_or(0, |answer| answer.status);
        let good = (200..300).contains(&status);
        if good {
            self.ledger.answered(&key, content);
        } else {
            self.ledger.unknown(&key, content);
            // A way that was cut in the middle is not to be trusted again.
            self.reach.forget();
        }
        good
    }
}
