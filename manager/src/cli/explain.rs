//! The verb explain: why a record is as it is, and where a write went.

use std::fmt::Write as _;
use std::time::SystemTime;

use clap::Args;
use peer_table::key::Key;
use serde::Deserialize;
use ureq::http::Method;

use super::args::Format;
use super::client::{Client, Patience};
use super::console::Console;
use super::failure::Failure;
use super::output::{ago, cell, printable};

/// The longest explanation of a reason that is shown, in characters.
const TEXT_CHARS_MAX: usize = 1_000;

/// Show why a peer's record is as it is, and where a write of it went
///
/// Who wrote what is held, when and through whom it came to this pod, which versions lost to it and
/// why, and what was refused. Also of a deleted peer, and of one that is unknown here if something of it
/// was refused. Ask the pod that does not have what it should have.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager explain peer-1
  udht-manager explain peer-1 -o json | jq -r '.refused[].text'
  kubectl exec POD -c manager -- /udht-manager explain peer-1")]
pub(crate) struct ExplainArgs {
    /// Which peer
    #[arg(value_name = "ID")]
    id: Key,
}

/// What a manager tells of one peer.
#[derive(Deserialize)]
struct Explained {
    peer_id: String,
    state: String,
    version: Option<String>,
    #[serde(rename = "writtenAt")]
    written_at: Option<String>,
    #[serde(rename = "lastConnectionOn")]
    last_connection_on: Option<String>,
    origin: Option<Origin>,
    arrival: Option<Arrival>,
    lost: Vec<Loser>,
    refused: Vec<Refusal>,
    remembers: Remembers,
}

#[derive(Deserialize)]
struct Origin {
    id: String,
    store: Option<String>,
    peer_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    own: bool,
    fenced: Option<String>,
}

#[derive(Deserialize)]
struct Sender {
    store: String,
    peer_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Arrival {
    at: String,
    #[serde(flatten)]
    way: Way,
}

#[derive(Deserialize)]
struct Way {
    via: String,
    from: Option<Sender>,
}

#[derive(Deserialize)]
struct Loser {
    version: String,
    #[serde(rename = "writtenAt")]
    written_at: String,
    origin: Origin,
    #[serde(default)]
    deletion: bool,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Deserialize)]
struct Refusal {
    version: Option<String>,
    #[serde(default)]
    origin: Option<Origin>,
    #[serde(flatten)]
    outcome: Outcome,
}

/// What became of it, and why.
#[derive(Deserialize)]
struct Outcome {
    at: String,
    #[serde(flatten)]
    way: Way,
    reason: String,
    text: String,
    #[serde(default)]
    times: u32,
}

#[derive(Deserialize)]
struct Remembers {
    since: String,
    keys: u64,
}

impl ExplainArgs {
    /// Prints what is known.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let path = format!("/v1/peers/{}/explain", self.id);
        let request = client.request(Method::GET, &path, &[]);
        let (json, explained) = client
            .send(request, (), Patience::Record)?
            .json_as_sent::<Explained>()?;
        match format {
            Format::Json => console.say(&json),
            Format::Table => {
                let text = explained.to_text(console.now);
                let written = console.out.write_all(text.as_bytes());
                written.map_err(Failure::Output)
            }
        }
    }
}

impl Explained {
    fn to_text(&self, now: SystemTime) -> String {
        let mut text = String::new();
        let mut line = |title: &str, value: &str| {
            let _ = writeln!(text, "{title:<11}{value}");
        };
        line("Peer ID", &cell(&self.peer_id));
        let state = match self.state.as_str() {
            "unknown" => "unknown: nothing of it is held here",
            "deleted" => "deleted, which is still remembered",
            other => other,
        };
        line("State", &cell(state));
        if let Some(version) = &self.version {
            let written = self.written_at.as_deref().unwrap_or_default();
            line("Version", &whole(version));
            line("Written", &time(written, now));
            let by = self.origin.as_ref().map(Origin::to_text);
            line("By", &by.unwrap_or_else(|| "-".to_owned()));
            let came = match &self.arrival {
                None => format!(
                    "not remembered any more, beyond {} peers",
                    self.remembers.keys
                ),
                Some(Arrival { at, way }) if way.via == "store" => {
                    format!("in the store when this manager read it, {}", time(at, now))
                }
                Some(Arrival { at, way }) => format!("{}, {}", way.to_text(), time(at, now)),
            };
            line("Came", &came);
            let seen = self.last_connection_on.as_deref();
            line(
                "Last seen",
                &seen.map_or_else(|| "never".to_owned(), |it| time(it, now)),
            );
        }
        if !self.lost.is_empty() {
            text.push_str("\nLost to it, or to one before it, the latest first:\n");
        }
        for Loser {
            version,
            written_at,
            origin,
            deletion,
            outcome,
        } in &self.lost
        {
            let what = if *deletion { "a deletion" } else { "a record" };
            outcome.write(&mut text, what, now);
            let _ = writeln!(text, "    version {}", whole(version));
            let written = time(written_at, now);
            let _ = writeln!(text, "    written {written}, by {}", origin.to_text());
            let _ = writeln!(text, "    had come: {}", outcome.way.to_text());
        }
        if !self.refused.is_empty() {
            text.push_str("\nRefused here, the latest first:\n");
        }
        for Refusal {
            version,
            origin,
            outcome,
        } in &self.refused
        {
            outcome.write(&mut text, &outcome.way.to_text(), now);
            if let Some(version) = version {
                let _ = writeln!(text, "    version {}", whole(version));
            }
            if let Some(origin) = origin {
                let _ = writeln!(text, "    written by {}", origin.to_text());
            }
        }
        let Remembers { since, keys } = &self.remembers;
        let _ = writeln!(
            text,
            "\nWhat came is remembered since {}, for the {keys} peers of which something came last.",
            time(since, now)
        );
        text
    }
}

impl Outcome {
    /// The reason, to what it happened and when, and what it means.
    fn write(&self, text: &mut String, what: &str, now: SystemTime) {
        let Self {
            at,
            reason,
            times,
            text: meaning,
            ..
        } = self;
        let head = format!("{what}, {}{}", time(at, now), often(*times));
        let meaning: String = meaning.chars().take(TEXT_CHARS_MAX).collect();
        let _ = writeln!(text, "  {}: {head}", cell(reason));
        let _ = writeln!(text, "    {}", printable(&meaning).replace('\n', " "));
    }
}

fn often(times: u32) -> String {
    match times {
        0 | 1 => String::new(),
        times => format!(", {times} times"),
    }
}

/// A version, which is longer than a cell may be.
fn whole(version: &str) -> String {
    let version: String = version.chars().take(64).collect();
    printable(&version).replace('\n', "\\n")
}

fn time(time: &str, now: SystemTime) -> String {
    match ago(time, now) {
        Some(ago) => format!("{} ({ago})", cell(time)),
        None => cell(time),
    }
}

/// A pod as people know it, and as the table does.
fn pod(name: Option<&String>, peer_id: Option<&String>) -> Option<String> {
    match (name, peer_id) {
        (Some(name), Some(peer_id)) if name != peer_id => {
            Some(format!("{} ({})", cell(name), cell(peer_id)))
        }
        (name, peer_id) => name.or(peer_id).map(|it| cell(it)),
    }
}

impl Origin {
    fn to_text(&self) -> String {
        let pod = pod(self.name.as_ref(), self.peer_id.as_ref());
        let mut text = match (self.own, pod) {
            (true, Some(pod)) => format!("this pod, {pod}"),
            (true, None) => "this pod".to_owned(),
            (false, Some(pod)) => format!("the pod {pod}"),
            (false, None) => match &self.store {
                Some(store) => format!("the replica of the store {}", cell(store)),
                None => format!(
                    "a replica that never published here, opening {}",
                    cell(&self.id)
                ),
            },
        };
        match self.fenced.as_deref() {
            Some("ended") => text.push_str(", before its store was opened anew or went with it"),
            Some("given_up") => text.push_str(", which was given up since"),
            Some(later) => text.extend([", ", &cell(later)]),
            None => {}
        }
        text
    }
}

impl Way {
    fn to_text(&self) -> String {
        let from = self.from.as_ref().map(|sender| {
            let pod = pod(sender.name.as_ref(), sender.peer_id.as_ref());
            pod.unwrap_or_else(|| format!("the store {}", cell(&sender.store)))
        });
        match (self.via.as_str(), from) {
            ("write", _) => "written in this pod".to_owned(),
            ("push", Some(from)) => format!("pushed by {from}"),
            ("exchange", Some(from)) => format!("by an exchange with {from}"),
            ("store", _) => "in the store, or no longer remembered".to_owned(),
            (via, Some(from)) => format!("{} from {from}", cell(via)),
            (via, None) => cell(via),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Canned, json, problem};

    const LIVE: &str = r#"{"peer_id":"p1","state":"live","version":"019c13f7b2000000-5d1f0c7a9e4b4a52b7f0a1c2d3e4f506","writtenAt":"2026-01-31T08:00:00.000Z","lastConnectionOn":null,"origin":{"id":"5d1f0c7a-9e4b-4a52-b7f0-a1c2d3e4f506","store":"0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11","peer_id":"b2","name":"files-1","own":false,"fenced":"ended"},"arrival":{"at":"2026-01-31T08:00:00.004Z","via":"push","from":{"store":"0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f12","peer_id":"c3","name":null}},"lost":[{"version":"019c13f7b1000000-11111111111111111111111111111111","writtenAt":"2026-01-31T07:30:00.000Z","origin":{"id":"11111111-1111-1111-1111-111111111111","store":"07070707-0707-0707-0707-070707070707","peer_id":"a1","name":"files-0","own":true,"fenced":null},"deletion":false,"at":"2026-01-31T08:00:00.004Z","via":"write","from":null,"reason":"overwritten","text":"It was held. Write it again.","times":1}],"refused":[{"version":"019c1900b1000000-22222222222222222222222222222222","origin":{"id":"22222222-2222-2222-2222-222222222222","store":null,"peer_id":null,"name":null,"own":false,"fenced":null},"at":"2026-01-31T09:00:00.000Z","via":"exchange","from":{"store":"0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f12","peer_id":null,"name":null},"reason":"version_ahead","text":"It is stamped 1day ahead. Set the clock.","times":12},{"version":null,"origin":null,"at":"2026-01-31T07:00:00.000Z","via":"write","from":null,"reason":"precondition","text":"If-Match did not hold. Read it.","times":1}],"remembers":{"since":"2026-01-30T08:00:00.000Z","keys":4096}}"#;

    #[test]
    fn a_record_is_explained_from_who_wrote_it_to_what_was_refused() {
        let expected = "\
Peer ID    p1
State      live
Version    019c13f7b2000000-5d1f0c7a9e4b4a52b7f0a1c2d3e4f506
Written    2026-01-31T08:00:00.000Z (2h ago)
By         the pod files-1 (b2), before its store was opened anew or went with it
Came       pushed by c3, 2026-01-31T08:00:00.004Z (2h ago)
Last seen  never

Lost to it, or to one before it, the latest first:
  overwritten: a record, 2026-01-31T08:00:00.004Z (2h ago)
    It was held. Write it again.
    version 019c13f7b1000000-11111111111111111111111111111111
    written 2026-01-31T07:30:00.000Z (3h ago), by this pod, files-0 (a1)
    had come: written in this pod

Refused here, the latest first:
  version_ahead: by an exchange with the store 0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f12, 2026-01-31T09:00:00.000Z (1h ago), 12 times
    It is stamped 1day ahead. Set the clock.
    version 019c1900b1000000-22222222222222222222222222222222
    written by a replica that never published here, opening 22222222-2222-2222-2222-222222222222
  precondition: written in this pod, 2026-01-31T07:00:00.000Z (3h ago)
    If-Match did not hold. Read it.

What came is remembered since 2026-01-30T08:00:00.000Z (1d ago), for the 4096 peers of which something came last.
";
        let canned = Canned::new([json(LIVE)]);
        assert_eq!(canned.run(&["explain", "p1"]).out, expected);
        let requests = canned.requests();
        let wanted = "GET /v1/peers/p1/explain ";
        assert!(requests[0].starts_with(wanted), "{}", requests[0]);
    }

    #[test]
    fn what_is_deleted_or_unknown_or_from_the_store_is_said_so() {
        let mut deleted: serde_json::Value = serde_json::from_str(LIVE).unwrap();
        deleted["state"] = "deleted".into();
        deleted["arrival"]["via"] = "store".into();
        let mut forgotten = deleted.clone();
        forgotten["arrival"] = serde_json::Value::Null;
        let mut unknown = forgotten.clone();
        unknown["state"] = "unknown".into();
        for null in ["version", "writtenAt", "origin"] {
            unknown[null] = serde_json::Value::Null;
        }
        let answers = [&deleted, &forgotten, &unknown].map(|it| json(&it.to_string()));
        let canned = Canned::new(answers);
        let [deleted, forgotten, unknown] = [(); 3].map(|()| canned.run(&["explain", "p1"]).out);
        assert!(deleted.contains("State      deleted, which is still remembered\n"));
        assert!(deleted.contains("Came       in the store when this manager read it, 2026"));
        assert!(forgotten.contains("Came       not remembered any more"));
        assert!(unknown.contains("State      unknown: nothing of it is held here\n"));
        assert!(!unknown.contains("Version  ") && unknown.contains("version_ahead: "));
    }

    #[test]
    fn the_json_is_what_the_manager_sent_and_nothing_in_it_harms_a_terminal() {
        let with_more = LIVE.replacen('{', r#"{"later":{"b":1,"a":2},"#, 1);
        let harmful = LIVE.replace("It was held.", "\\u001b[2JIt was held.\\n");
        let canned = Canned::new([json(&with_more), json(&harmful)]);
        let ran = canned.run(&["explain", "p1", "-o", "json"]);
        assert_eq!(ran.out, format!("{with_more}\n"));
        let out = canned.run(&["explain", "p1"]).out;
        assert!(
            !out.contains('\u{1b}') && out.contains("    \\u{1b}[2JIt was held.  Write"),
            "{out}"
        );
    }

    #[test]
    fn a_peer_of_which_nothing_is_known_has_its_exit_code() {
        let canned = Canned::new([problem(404, "nothing of a peer p1 is held", "")]);
        let ran = canned.run(&["explain", "p1"]);
        assert_eq!(ran.code(), 3, "{ran:?}");
        let garbage = Canned::new([json("{}")]).run(&["explain", "p1"]);
        assert!(garbage.failure().contains("is not what was asked"));
    }
}
