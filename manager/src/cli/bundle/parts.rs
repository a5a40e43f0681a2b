//! The parts of a bundle, and how each is asked for.

use std::io::Read;
use std::time::Duration;

use ureq::Agent;

use super::super::args::Manager;
use super::super::client::NDJSON;

/// The longest answer that is put in, in bytes; of a longer one, its beginning.
const BYTES_MAX: usize = 4 << 20;
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How much of an error is told, in characters.
const WHY_CHARS_MAX: usize = 300;

/// Who is asked.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Manager,
    Sync,
}

/// One file of the bundle, and where it comes from.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: &'static str,
    pub(super) side: Side,
    pub(super) path: &'static str,
    /// What it is.
    pub(super) what: &'static str,
    /// Whether the answer is to be had also where it is an error: then that is what it tells.
    takes_errors: bool,
    /// Whether it is of all peers, and so asked for only where that is wanted.
    pub(super) is_of_records: bool,
}

const fn part(file: &'static str, side: Side, path: &'static str, what: &'static str) -> Part {
    Part {
        file,
        side,
        path,
        what,
        takes_errors: false,
        is_of_records: false,
    }
}

/// All parts, those first that tell the most where time is short.
pub(super) const PARTS: [Part; 16] = [
    part(
        "manager/logs.ndjson",
        Side::Manager,
        "/v1/logs",
        "the last lines of the manager's log",
    ),
    part(
        "sync/logs.ndjson",
        Side::Sync,
        "/v1/logs",
        "the last lines of the sync's log",
    ),
    part(
        "manager/about.json",
        Side::Manager,
        "/v1/about",
        "the manager's build, flags in effect, store, and the digest of its table",
    ),
    part(
        "sync/about.json",
        Side::Sync,
        "/v1/about",
        "the sync's build and flags in effect",
    ),
    part(
        "manager/status.json",
        Side::Manager,
        "/v1/status",
        "health, alarms, records and the latest events",
    ),
    Part {
        takes_errors: true,
        ..part(
            "manager/ready.txt",
            Side::Manager,
            "/readyz",
            "whether the manager is ready",
        )
    },
    Part {
        takes_errors: true,
        ..part(
            "sync/ready.txt",
            Side::Sync,
            "/readyz",
            "whether the sync finds its pod ready",
        )
    },
    part(
        "sync/peers.json",
        Side::Sync,
        "/v1/peers",
        "what the sync knows of each peer",
    ),
    part(
        "manager/replicas.json",
        Side::Manager,
        "/v1/replicas",
        "which replicas are known, and what tombstones wait for",
    ),
    part(
        "manager/identity.json",
        Side::Manager,
        "/v1/identity",
        "this pod's own record",
    ),
    part(
        "sync/gone.json",
        Side::Sync,
        "/v1/gone",
        "whose pods are gone, where Kubernetes lists the pods",
    ),
    part(
        "manager/metrics.txt",
        Side::Manager,
        "/metrics",
        "the manager's figures",
    ),
    part(
        "sync/metrics.txt",
        Side::Sync,
        "/metrics",
        "the sync's figures, and behind them the manager's",
    ),
    part(
        "manager/log-filter.json",
        Side::Manager,
        "/v1/log-filter",
        "what the manager logs",
    ),
    part(
        "sync/log-filter.json",
        Side::Sync,
        "/v1/log-filter",
        "what the sync logs",
    ),
    Part {
        is_of_records: true,
        ..part(
            "manager/records.ndjson",
            Side::Manager,
            "/v1/peers?limit=1000",
            "the first 1,000 records",
        )
    },
];

/// What was had of a part.
#[derive(Debug)]
pub(super) enum Had {
    /// This, and what is to be said of it.
    This(Vec<u8>, Option<String>),
    /// Nothing, as is told.
    Not(String),
}

impl Had {
    pub(super) fn body(&self) -> Option<&[u8]> {
        match self {
            Self::This(body, _) => Some(body),
            Self::Not(_) => None,
        }
    }

    pub(super) fn note(&self) -> Option<String> {
        match self {
            Self::This(_, note) => note.clone(),
            Self::Not(why) => Some(why.clone()),
        }
    }
}

/// Asks for a part, for so long at the most.
pub(super) fn fetch(base: &Manager, part: &Part, left: Duration) -> Had {
    let agent = Agent::new_with_config(
        Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .proxy(None)
            .timeout_connect(Some(Duration::from_secs(2)))
            .timeout_global(Some(ANSWER_MAX.min(left)))
            .build(),
    );
    let accept = if part.is_of_records { NDJSON } else { "*/*" };
    let url = format!("{base}{}", part.path);
    let response = match agent.get(&url).header("accept", accept).call() {
        Ok(response) => response,
        Err(error) => return Had::Not(why(&error.to_string())),
    };
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let bytes_max = BYTES_MAX as u64 + 1;
    let read = response
        .into_body()
        .into_reader()
        .take(bytes_max)
        .read_to_end(&mut body);
    if !(200..300).contains(&status) && !part.takes_errors {
        let said = String::from_utf8_lossy(&body);
        return Had::Not(why(&format!("status {status}: {said}")));
    }
    let mut note = (status != 200).then(|| format!("status {status}"));
    if let Err(error) = read {
        if body.is_empty() {
            return Had::Not(why(&error.to_string()));
        }
        note = Some(why(&format!("it broke off: {error}")));
    }
    if body.len() > BYTES_MAX {
        body.truncate(BYTES_MAX);
        note = Some(format!("its first {BYTES_MAX} bytes"));
    }
    Had::This(body, note)
}

/// The beginning of a reason, in one line.
fn why(text: &str) -> String {
    let text = text.chars().take(WHY_CHARS_MAX);
    text.map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}
