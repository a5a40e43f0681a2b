//! A steady trickle of writes into pods, whatever is done to them meanwhile, and the account of what was
//! answered with success: that must be in every pod in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::kubectl::Kubectl;
use super::reach::Reach;
use super::wait::until;
use crate::http::Answer;
use crate::ledger::{self, Ledger};

/// Between two writes of one writer.
const PACE: Duration = Duration::from_millis(25);
/// After one that was not answered with success: the pod may be away.
const REST: Duration = Duration::from_millis(250);
/// How long the pods may take until each holds what was answered.
const EVERYWHERE: Duration = Duration::from_mins(1);
/// Of the lost writes, those that an error names.
const NAMED_MAX: usize = 10;

/// The way to the manager of one pod, which may be away for a while.
pub trait Way: Send + 'static {
    /// The name of the pod.
    fn pod(&self) -> &str;

    /// PUT to a path of the manager.
    fn put(&mut self, path: &str, body: &Value) -> Result<Answer>;

    /// DELETE of a path of the manager.
    fn delete(&mut self, path: &str) -> Result<Answer>;

    /// All records of the manager that pass this filter (`label=K=V`).
    fn records(&mut self, filter: &str) -> Result<Vec<Value>>;

    /// A request was not answered with success: what there is of a way is not to be trusted again.
    fn forget(&mut self);
}

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
        let ways = pods.iter().map(|pod| Reach::to(kubectl, pod));
        Self::through(ways, name)
    }

    /// Begins to write by these ways, each to a pod of its own.
    pub fn through<W: Way>(ways: impl IntoIterator<Item = W>, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let writers = ways.into_iter().map(|way| {
            let writer = Writer {
                prefix: format!("{name}-{}", way.pod()),
                way,
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
    pub fn wait_until_in_all<W: Way>(&self, ways: &mut [W]) -> Result<()> {
        until(
            "every pod holds what was answered with success",
            EVERYWHERE,
            || ways.iter_mut().try_for_each(|way| self.look_for_all(way)),
        )
    }

    fn look_for_all(&self, way: &mut impl Way) -> Result<()> {
        let records = way.records(&format!("label=trickle={}", self.name))?;
        let lost = self.ledger.wrong(&ledger::numbers(&records), "");
        let named = &lost[..lost.len().min(NAMED_MAX)];
        ensure!(
            lost.is_empty(),
            "pod {}: {} of {} records are not as was answered: {}",
            way.pod(),
            lost.len(),
            self.ledger.keys().count(),
            named.join("; ")
        );
        Ok(())
    }

    /// Deletes what was written, so that the next steps have a small table.
    pub fn delete(&self, way: &mut impl Way) -> Result<()> {
        let path = format!("/v1/peers?label=trickle={}", self.name);
        way.delete(&path)?.ok().context("delete the trickle")?;
        Ok(())
    }
}

struct Writer<W> {
    way: W,
    prefix: String,
    name: String,
    ledger: Ledger,
    written: u64,
}

impl<W: Way> Writer<W> {
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
                self.way.put(&path, &record)
            }
            None => self.way.delete(&path),
        };
        let status = answer.map_or(0, |answer| answer.status);
        let good = (200..300).contains(&status);
        if good {
            self.ledger.answered(&key, content);
        } else {
            self.ledger.unknown(&key, content);
            // A way that was cut in the middle is not to be trusted again.
            self.way.forget();
        }
        good
    }
}
