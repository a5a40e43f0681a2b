//! Writers that go on whatever is killed, and the account of what was answered to them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use fastrand::Rng;
use serde_json::Value;
use udht_tests::http::{self, Answer};
use udht_tests::ledger::{self, Ledger};
use udht_tests::process::PATIENCE;
use ureq::Agent;

/// Writers of each pod: more than one, so that the manager has groups of writes to do at once.
const WRITERS: usize = 3;
/// Keys of each writer.
const KEYS: u64 = 80;
/// Between two writes of one writer.
const PACE: Duration = Duration::from_millis(2);
/// After one that was not answered with success: the pod may be away.
const REST: Duration = Duration::from_millis(10);
/// Of the wrong records, those that an error names.
const NAMED_MAX: usize = 10;
/// The label of all that is written here.
pub(crate) const LABEL: (&str, &str) = ("written", "kill");

/// How many writes came to what.
#[derive(Copy, Clone, Default, Debug)]
pub(crate) struct Counts {
    /// Answered with success.
    pub(crate) answered: u64,
    /// Refused, or never sent: nothing was changed.
    pub(crate) refused: u64,
    /// Broken off, or answered with `outcome-unknown`.
    pub(crate) unknown: u64,
}

/// The writers of all pods.
pub(crate) struct Writers {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

/// Where the writers give account, and are told to rest.
#[derive(Default)]
struct Desk {
    account: Mutex<Account>,
    news: Condvar,
}

#[derive(Default)]
struct Account {
    ledger: Ledger,
    /// By the number of the pod.
    counts: BTreeMap<usize, Counts>,
    /// Keys that were looked for in a pod.
    compared: u64,
    is_paused: bool,
    is_over: bool,
    resting: usize,
    /// What cannot be, if it was.
    broken: Option<String>,
}

impl Writers {
    /// Begins to write to these pods: their numbers and where their managers answer.
    pub(crate) fn begin(pods: &[(usize, String)], random: &mut Rng) -> Self {
        let desk = Arc::new(Desk::default());
        let writers = pods
            .iter()
            .flat_map(|pod| (0..WRITERS).map(move |number| (pod, number)));
        let threads = writers.map(|((pod, url), number)| {
            let writer = Writer {
                desk: Arc::clone(&desk),
                agent: http::agent(),
                url: url.clone(),
                pod: *pod,
                prefix: format!("{}{number}", prefix(*pod)),
                random: random.fork(),
                written: 0,
            };
            std::thread::spawn(move || writer.run())
        });
        let threads = threads.collect();
        Self { desk, threads }
    }

    /// Waits until so many more writes to these pods were answered with success.
    pub(crate) fn wait_for_more(&self, more: u64, pods: &[usize]) -> Result<()> {
        let answered = |account: &Account| {
            let of_pods = pods.iter().filter_map(|pod| account.counts.get(pod));
            of_pods.map(|counts| counts.answered).sum::<u64>()
        };
        let wanted = answered(&self.desk.account()) + more;
        let what = format!("{more} more writes answered by {pods:?}");
        self.desk.wait(&what, |account| answered(account) >= wanted)
    }

    /// Has every writer rest: no write is under way then.
    pub(crate) fn pause(&self) -> Result<()> {
        self.desk.account().is_paused = true;
        let all = self.threads.len();
        self.desk
            .wait("the writers rest", |account| account.resting == all)
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        self.desk.account().is_paused = false;
        self.desk.news.notify_all();
    }

    /// Compares what pod `number` holds with what was answered by pod `of`, or by all.
    pub(crate) fn compare(
        &self,
        held: &BTreeMap<String, u64>,
        number: usize,
        of: Option<usize>,
    ) -> Result<()> {
        let prefix = of.map(prefix).unwrap_or_default();
        let mut account = self.desk.account();
        let keys = account.ledger.keys();
        account.compared += keys.filter(|key| key.starts_with(&prefix)).count() as u64;
        let wrong = account.ledger.wrong(held, &prefix);
        ensure!(
            wrong.is_empty(),
            "pod {number}: {} records are not as was answered: {}",
            wrong.len(),
            wrong[..wrong.len().min(NAMED_MAX)].join("; ")
        );
        Ok(())
    }

    /// All pods hold this now, and nothing is in doubt any more.
    pub(crate) fn found(&self, held: &BTreeMap<String, u64>) {
        self.desk.account().ledger.found(held);
    }

    /// What the writes came to by now, and how many keys were looked for in a pod.
    pub(crate) fn counts(&self) -> (Counts, u64) {
        let account = self.desk.account();
        let counts = account.counts.values();
        let counts = counts.fold(Counts::default(), |sum, pod| Counts {
            answered: sum.answered + pod.answered,
            refused: sum.refused + pod.refused,
            unknown: sum.unknown + pod.unknown,
        });
        (counts, account.compared)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.desk.account().is_over = true;
        self.desk.news.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn prefix(pod: usize) -> String {
    format!("pod-{pod}-")
}

impl Desk {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Account) -> bool) -> Result<()> {
        let (account, waited) = self
            .news
            .wait_timeout_while(self.account(), PATIENCE, |account| {
                account.broken.is_none() && !is_so(account)
            })
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(broken) = &account.broken {
            bail!("{broken}");
        }
        ensure!(!waited.timed_out(), "it did not happen in time: {what}");
        Ok(())
    }

    /// Rests while it is told to. Whether to go on.
    fn may_go_on(&self) -> bool {
        let mut account = self.account();
        account.resting += 1;
        self.news.notify_all();
        let mut account = self
            .news
            .wait_while(account, |account| account.is_paused && !account.is_over)
            .unwrap_or_else(PoisonError::into_inner);
        account.resting -= 1;
        !account.is_over && account.broken.is_none()
    }
}

struct Writer {
    desk: Arc<Desk>,
    agent: Agent,
    url: String,
    pod: usize,
    prefix: String,
    random: Rng,
    written: u64,
}

/// What a write came to.
enum Outcome {
    Answered,
    /// There was nothing to delete.
    Absent,
    Refused,
    Unknown,
    /// It says of the record what cannot be.
    Wrong(String),
}

impl Writer {
    fn run(mut self) {
        while self.desk.may_go_on() {
            let is_answered = self.write();
            std::thread::sleep(if is_answered { PACE } else { REST });
        }
    }

    /// One write: of three, one deletes. Whether it was answered with success.
    fn write(&mut self) -> bool {
        self.written += 1;
        let key = format!("{}-{}", self.prefix, self.random.u64(..KEYS));
        let content = (self.random.u64(..3) > 0).then_some(self.written);
        let url = format!("{}/v1/peers/{key}", self.url);
        let answer = match content {
            Some(number) => http::put(&self.agent, &url, &ledger::record(LABEL, number)),
            None => http::delete(&self.agent, &url),
        };
        let outcome = outcome(&answer, self.desk.account().ledger.may_be(&key));
        let mut account = self.desk.account();
        let counts = account.counts.entry(self.pod).or_default();
        match &outcome {
            Outcome::Answered => counts.answered += 1,
            Outcome::Refused => counts.refused += 1,
            Outcome::Unknown => counts.unknown += 1,
            Outcome::Absent | Outcome::Wrong(_) => {}
        }
        let is_answered = matches!(outcome, Outcome::Answered | Outcome::Absent);
        match outcome {
            Outcome::Answered | Outcome::Absent => account.ledger.answered(&key, content),
            Outcome::Unknown => account.ledger.unknown(&key, content),
            Outcome::Refused => {}
            Outcome::Wrong(said) => {
                let may_be = account.ledger.may_be(&key);
                let broken = format!("pod {}: {key} was to be of {may_be:?}: {said}", self.pod);
                account.broken.get_or_insert(broken);
            }
        }
        self.desk.news.notify_all();
        is_answered
    }
}

fn outcome(answer: &Result<Answer>, may_be: &[Option<u64>]) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if is_never_sent(error) => return Outcome::Refused,
        Err(_) => return Outcome::Unknown,
    };
    let wrong = || Outcome::Wrong(format!("status {}: {}", answer.status, answer.body));
    match answer.status {
        // The writer is the only one of its keys, and so knows whether there is something.
        201 | 404 if !may_be.contains(&None) => wrong(),
        200 | 204 if may_be.iter().all(Option::is_none) => wrong(),
        404 => Outcome::Absent,
        200 | 201 | 204 => Outcome::Answered,
        503 => match answer.body["type"]
            .as_str()
            .and_then(|kind| kind.rsplit(':').next())
        {
            Some("outcome-unknown") => Outcome::Unknown,
            Some("unavailable" | "loading" | "stopping") => Outcome::Refused,
            _ => wrong(),
        },
        _ => wrong(),
    }
}

/// Whether nobody was there to take a request.
fn is_never_sent(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(ureq::Error::Io(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Some(ureq::Error::ConnectionFailed) => true,
        _ => false,
    }
}

/// The records of a manager that were written here, by key.
pub(crate) fn held(agent: &Agent, url: &str) -> Result<BTreeMap<String, u64>> {
    let (label, value) = LABEL;
    let list = http::get(agent, &format!("{url}/v1/peers?label={label}={value}"))?;
    let records = match list.ok()?["peers"].take() {
        Value::Array(records) => records,
        other => bail!("a list of peers that is {other}"),
    };
    Ok(ledger::numbers(&records))
}
