//! The verbs of one record: get, put, patch, delete, contact, identity.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use clap::{Args, Subcommand};
use peer_table::key::Key;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::{Method, request};

use super::args::{FilterArgs, Format, LabelFilter, MatchArgs, RecordArgs, VersionTag};
use super::client::{Client, Listed, Patience};
use super::console::Console;
use super::failure::Failure;
use super::output;

/// The longest record or patch that is read, in bytes; a manager takes 64 KiB.
const INPUT_BYTES_MAX: u64 = 1 << 20;
/// The longest wait for a peer.
const WAIT_MAX: Duration = Duration::from_hours(1);
/// Between two looks for a peer that is waited for.
const WAIT_PAUSE: Duration = Duration::from_millis(200);

/// Print one peer
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager get peer-1
  udht-manager get peer-1 -o json
  udht-manager get peer-1 -o json | jq -r .version
  udht-manager get peer-1 --wait 30s")]
pub(crate) struct GetArgs {
    /// Which peer
    #[arg(value_name = "ID")]
    id: Key,
    /// If there is no such peer, wait for it, so long at the most: up to 1h
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    wait: Option<Duration>,
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if wait <= WAIT_MAX {
        Ok(wait)
    } else {
        Err("must be up to 1h".to_owned())
    }
}

impl GetArgs {
    /// Prints the record.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let mut left = self.wait.unwrap_or_default();
        loop {
            let request = client.request(Method::GET, &path(&self.id), &[]);
            match client.send(request, (), Patience::Record) {
                Ok(answer) => return output::record(console, format, &answer.peer()?),
                Err(Failure::Refused(refusal)) if refusal.status == 404 && !left.is_zero() => {}
                Err(failure) => return Err(failure),
            }
            (console.pause)(left.min(WAIT_PAUSE));
            left = left.saturating_sub(WAIT_PAUSE);
        }
    }
}

/// Create a peer, or replace all that its record says
///
/// Prints the record. Without an ID, and without a `peer_id` in the JSON, the manager makes one up.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager put peer-1 --name files-0 --ip 10.0.0.7 --port userSync=5001 --label zone=a
  udht-manager put -f peer.json
  udht-manager get peer-1 -o json | sed s/10.0.0.7/10.0.0.8/ | udht-manager put -f -
  udht-manager put peer-1 --create-only --name files-0 --ip 10.0.0.7")]
pub(crate) struct PutArgs {
    /// Which peer
    #[arg(value_name = "ID")]
    id: Option<Key>,
    #[command(flatten)]
    record: RecordArgs,
    #[command(flatten)]
    precondition: MatchArgs,
    /// Only if there is no such peer yet
    #[arg(long, conflicts_with = "if_match")]
    create_only: bool,
}

impl PutArgs {
    /// Writes the record and prints it as it stands then.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let record = read_record(&self.record, console)?;
        let id = match (&self.id, record.get("peer_id")) {
            (Some(id), _) => Some(id.clone()),
            (None, None | Some(Value::Null)) => None,
            (None, Some(said)) => {
                Some(said.as_str().and_then(|said| said.parse().ok()).ok_or_else(|| {
                    Failure::Input(format!(
                        "the peer_id {} is none: it has 1 to 128 characters of A-Z a-z 0-9 . _ : -",
                        output::cell(&said.to_string())
                    ))
                })?)
            }
        };
        let if_match = self.precondition.if_match.as_ref();
        let request = match &id {
            Some(id) => client.request(Method::PUT, &path(id), &[]),
            None if if_match.is_some() => {
                return Err(Failure::Usage(
                    "--if-match needs the ID of the peer whose version is meant.".to_owned(),
                ));
            }
            None => client.request(Method::POST, "/v1/peers", &[]),
        };
        let request = if self.create_only && id.is_some() {
            request.header("if-none-match", "*")
        } else {
            matching(request, if_match)
        };
        let request = request.header("content-type", "application/json");
        let answer = client.send(request, record.to_string().into_bytes(), Patience::Record)?;
        output::record(console, format, &answer.peer()?)
    }
}

/// Change some fields of a peer by a JSON merge patch (RFC 7396)
///
/// What the patch does not name stays; what it sets to null is removed. Prints the record.
#[derive(Args, Debug)]
#[command(after_help = r#"Examples:
  udht-manager patch peer-1 '{"ip":"10.0.0.8"}'
  udht-manager patch peer-1 '{"labels":{"zone":"b","old":null}}'
  udht-manager patch peer-1 -f patch.json --if-match VERSION"#)]
pub(crate) struct PatchArgs {
    /// Which peer
    #[arg(value_name = "ID")]
    id: Key,
    /// The patch, a JSON object
    #[arg(
        value_name = "JSON",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    patch: Option<String>,
    /// Read the patch from this file instead; `-` is the standard input
    #[arg(long, short)]
    file: Option<String>,
    #[command(flatten)]
    precondition: MatchArgs,
}

impl PatchArgs {
    /// Patches the record and prints it as it stands then.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let patch = match (&self.patch, &self.file) {
            (Some(patch), _) => object("the patch", patch.as_bytes())?,
            (None, Some(file)) => read_object(file, console)?,
            (None, None) => return Err(Failure::Usage("give a patch, or a file.".to_owned())),
        };
        let request = client
            .request(Method::PATCH, &path(&self.id), &[])
            .header("content-type", "application/merge-patch+json");
        let request = matching(request, self.precondition.if_match.as_ref());
        let answer = client.send(request, patch.to_string().into_bytes(), Patience::Record)?;
        output::record(console, format, &answer.peer()?)
    }
}

/// Delete a peer, or all peers with certain labels
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager delete peer-1
  udht-manager delete peer-1 --if-match VERSION
  udht-manager delete --label zone=a --label tier=test --yes")]
pub(crate) struct DeleteArgs {
    /// Which peer
    #[arg(
        value_name = "ID",
        required_unless_present = "labels",
        conflicts_with = "labels"
    )]
    id: Option<Key>,
    /// All peers with this label, whatever its value if none is given; repeat it for more that must
    /// match too
    #[arg(
        long = "label",
        value_name = "KEY[=VALUE]",
        conflicts_with = "if_match"
    )]
    labels: Vec<LabelFilter>,
    #[command(flatten)]
    precondition: MatchArgs,
    /// Delete many without being asked
    #[arg(long)]
    yes: bool,
}

#[derive(Deserialize)]
struct Deleted {
    deleted: u64,
}

impl DeleteArgs {
    /// Deletes, and prints how many.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let Some(id) = &self.id else {
            return self.run_many(client, format, console);
        };
        let request = client.request(Method::DELETE, &path(id), &[]);
        let request = matching(request, self.precondition.if_match.as_ref());
        client.send(request, (), Patience::Record)?;
        match format {
            Format::Json => console.say(&json!({ "deleted": 1 }).to_string()),
            Format::Table => console.say(&format!("deleted {id}")),
        }
    }

    fn run_many(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let filter = FilterArgs::of_labels(&self.labels);
        if !self.yes {
            let labels: Vec<_> = self.labels.iter().map(LabelFilter::to_string).collect();
            let labels = output::cell(&labels.join(" and "));
            let question = if console.input_is_terminal {
                format!(
                    "{} with {labels} will be deleted.",
                    peers(count(client, &filter)?)
                )
            } else {
                format!("All peers with {labels} would be deleted.")
            };
            console.confirm(&question, false)?;
        }
        let request = client.request(Method::DELETE, "/v1/peers", &filter.to_query());
        let Deleted { deleted } = client.send(request, (), Patience::Work)?.json()?;
        match format {
            Format::Json => console.say(&json!({ "deleted": deleted }).to_string()),
            Format::Table => console.say(&format!("deleted {}", peers(deleted))),
        }
    }
}

fn peers(count: u64) -> String {
    format!("{count} {}", if count == 1 { "peer" } else { "peers" })
}

fn count(client: &Client, filter: &FilterArgs) -> Result<u64, Failure> {
    let mut lines = client.list(filter, &[])?.lines();
    let mut count = 0;
    while let Some(listed) = lines.next_listed()? {
        count += u64::from(matches!(listed, Listed::Peer(_)));
    }
    Ok(count)
}

/// Say that a peer was seen now: moves its lastConnectionOn
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager contact peer-1
  udht-manager contact peer-1 -o json | jq -r .lastConnectionOn")]
pub(crate) struct ContactArgs {
    /// Which peer
    #[arg(value_name = "ID")]
    id: Key,
}

impl ContactArgs {
    /// Moves the time and prints the record.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let request = client.request(Method::POST, &format!("{}/contact", path(&self.id)), &[]);
        let received = client.send(request, "", Patience::Record)?.peer()?;
        output::record(console, format, &received)
    }
}

/// Print or set the record of the pod that the manager belongs to
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager identity
  udht-manager identity -o json | jq -r .peer_id
  udht-manager identity set --name files-0 --ip 10.0.0.7 --port userSync=5001")]
pub(crate) struct IdentityArgs {
    #[command(subcommand)]
    verb: Option<IdentityVerb>,
}

#[derive(Subcommand, Debug)]
enum IdentityVerb {
    /// Write the own record and print it
    #[command(after_help = "Examples:
  udht-manager identity set --name files-0 --ip 10.0.0.7 --port userSync=5001
  udht-manager identity -o json | sed s/10.0.0.7/10.0.0.8/ | udht-manager identity set -f -")]
    Set {
        #[command(flatten)]
        record: Box<RecordArgs>,
        #[command(flatten)]
        precondition: MatchArgs,
    },
}

impl IdentityArgs {
    /// Prints the own record, after it was written if that is asked.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        const PATH: &str = "/v1/identity";
        let answer = match &self.verb {
            None => client.send(client.request(Method::GET, PATH, &[]), (), Patience::Record)?,
            Some(IdentityVerb::Set {
                record,
                precondition,
            }) => {
                let record = read_record(record, console)?;
                let request = matching(
                    client.request(Method::PUT, PATH, &[]),
                    precondition.if_match.as_ref(),
                )
                .header("content-type", "application/json");
                client.send(request, record.to_string().into_bytes(), Patience::Record)?
            }
        };
        output::record(console, format, &answer.peer()?)
    }
}

fn path(id: &Key) -> String {
    // No character of a key has a meaning in a path.
    format!("/v1/peers/{id}")
}

fn matching(request: request::Builder, version: Option<&VersionTag>) -> request::Builder {
    match version {
        Some(version) => request.header("if-match", version.to_header()),
        None => request,
    }
}

fn read_record(args: &RecordArgs, console: &mut Console<'_>) -> Result<Value, Failure> {
    match &args.file {
        Some(file) => read_object(file, console),
        None => args.to_json(),
    }
}

fn read_object(file: &str, console: &mut Console<'_>) -> Result<Value, Failure> {
    let mut bytes = Vec::new();
    let (name, read) = if file == "-" {
        (
            "the standard input",
            Read::take(&mut *console.input, INPUT_BYTES_MAX + 1).read_to_end(&mut bytes),
        )
    } else {
        let read = File::open(file)
            .and_then(|opened| opened.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes));
        (file, read)
    };
    read.map_err(|error| Failure::Input(format!("cannot read {name}: {error}.")))?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::Input(format!(
            "{name} has more than {INPUT_BYTES_MAX} bytes, which is no record. \
             `udht-manager import` takes a whole table."
        )));
    }
    object(name, &bytes)
}

fn object(name: &str, bytes: &[u8]) -> Result<Value, Failure> {
    match serde_json::from_slice(bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Failure::Input(format!(
            "{name} must be one JSON object in braces."
        ))),
        Err(error) => Err(Failure::Input(format!("{name} is not JSON: {error}."))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Canned, PEER, chunked, json, problem};
    use super::*;

    fn no_content() -> Vec<u8> {
        b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
    }

    #[test]
    fn get_prints_the_record_described_or_as_it_came() {
        let canned = Canned::new([json(PEER), json(PEER)]);
        let described = canned.run(&["get", "p1"]);
        assert!(
            described.out.starts_with("Peer ID    p1\n"),
            "{described:?}"
        );
        assert_eq!(
            canned.run(&["get", "p1", "-o", "json"]).out,
            format!("{PEER}\n")
        );
        assert!(canned.requests()[0].starts_with("GET /v1/peers/p1 HTTP/1.1\r\n"));
    }

    #[test]
    fn a_peer_that_is_not_there_exits_with_3() {
        let canned = Canned::new([problem(404, "no peer p1; list them", "")]);
        let ran = canned.run(&["get", "p1"]);
        assert_eq!((ran.code(), ran.out.as_str()), (3, ""));
        assert_eq!(ran.failure(), "no peer p1; list them (status 404)");
    }

    #[test]
    fn a_peer_that_is_waited_for_is_printed_when_it_is_there() {
        let missing = || problem(404, "no peer p1", "");
        let canned = Canned::new([missing(), missing(), json(PEER)]);
        let ran = canned.run(&["get", "p1", "-o", "json", "--wait", "1s"]);
        assert_eq!((ran.code(), ran.out), (0, format!("{PEER}\n")));

        let canned = Canned::new([missing(), missing(), missing()]);
        let ran = canned.run(&["get", "p1", "--wait", "300ms"]);
        assert_eq!((ran.code(), ran.out.as_str()), (3, ""));
        assert_eq!(canned.requests().len(), 3);

        let canned = Canned::new([problem(503, "loading", "")]);
        assert_eq!(canned.run(&["get", "p1", "--wait", "1s"]).code(), 5);
    }

    #[test]
    fn put_sends_the_flags_as_a_record_with_its_precondition() {
        let canned = Canned::new([json(PEER), json(PEER)]);
        let flags = [
            "--name",
            "files-0",
            "--ip",
            "::1",
            "--port",
            "userSync=1",
            "--label",
            "a=b",
        ];
        let ran = canned.run(&[&["put", "p1", "--if-match", "v0"], &flags[..]].concat());
        assert_eq!(ran.code(), 0, "{ran:?}");
        canned.run(&[&["put", "p1", "--create-only"], &flags[..]].concat());
        let requests = canned.requests();
        let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("PUT /v1/peers/p1 HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("if-match: \"v0\"") && head.contains("content-type: application/json")
        );
        assert_eq!(
            serde_json::from_str::<Value>(body).unwrap(),
            json!({"name": "files-0", "ip": "::1", "ports": {"userSync": 1}, "labels": {"a": "b"}})
        );
        assert!(requests[1].contains("if-none-match: *"), "{}", requests[1]);
    }

    #[test]
    fn put_without_an_id_takes_that_of_the_json_or_lets_the_manager_make_one() {
        let canned = Canned::new([json(PEER), json(PEER)]);
        assert_eq!(
            canned
                .run_with_input(&["put", "-f", "-"], PEER, false)
                .code(),
            0
        );
        let flags = ["put", "--create-only", "--name", "a", "--ip", "::1"];
        assert_eq!(canned.run(&flags).code(), 0);
        let requests = canned.requests();
        assert!(
            requests[0].starts_with("PUT /v1/peers/p1 "),
            "{}",
            requests[0]
        );
        assert!(
            requests[1].starts_with("POST /v1/peers "),
            "{}",
            requests[1]
        );
        assert!(!requests[1].contains("if-none-match"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
        let canned = Canned::new(Vec::<Vec<u8>>::new());
        let flags = ["--name", "a", "--ip", "::1"];
        let cases = [
            (vec!["put", "--if-match", "v0"], "", 2, "needs the ID"),
            (
                vec!["put", "p1", "--port", "a=1", "--port", "a=2"],
                "",
                2,
                "--port a is given twice",
            ),
            (
                vec!["put", "-f", "-"],
                "{",
                1,
                "the standard input is not JSON",
            ),
            (vec!["put", "-f", "-"], "[]", 1, "one JSON object"),
            (
                vec!["put", "-f", "-"],
                r#"{"peer_id":"a/b"}"#,
                1,
                "A-Z a-z 0-9",
            ),
            (vec!["put", "-f", "-"], r#"{"peer_id":7}"#, 1, "A-Z a-z 0-9"),
            (
                vec!["put", "-f", "/nowhere/x.json"],
                "",
                1,
                "cannot read /nowhere/x.json",
            ),
            (vec!["patch", "p1", "x"], "", 1, "the patch is not JSON"),
            (vec!["delete", "--label", "a=b"], "", 2, "--yes"),
        ];
        for (mut line, input, code, part) in cases {
            if line[0] == "put" && line[1] != "-f" {
                line.extend(flags);
            }
            let ran = canned.run_with_input(&line, input, false);
            assert_eq!(ran.code(), code, "{line:?}: {ran:?}");
            assert!(ran.failure().contains(part), "{line:?}: {}", ran.failure());
        }
        let long = " ".repeat(2 << 20);
        let ran = canned.run_with_input(&["put", "-f", "-"], &long, false);
        assert!(
            ran.failure().contains("udht-manager import"),
            "{}",
            ran.failure()
        );
    }

    #[test]
    fn patch_sends_a_merge_patch_and_contact_sends_nothing() {
        let canned = Canned::new([json(PEER), json(PEER)]);
        assert_eq!(
            canned
                .run(&["patch", "p1", r#"{"ip":"::1"}"#, "--if-match", "v1"])
                .code(),
            0
        );
        assert_eq!(canned.run(&["contact", "p1"]).code(), 0);
        let requests = canned.requests();
        assert!(
            requests[0].starts_with("PATCH /v1/peers/p1 "),
            "{}",
            requests[0]
        );
        assert!(requests[0].contains("content-type: application/merge-patch+json"));
        assert!(requests[0].contains("if-match: \"v1\""));
        assert!(
            requests[0].ends_with("\r\n\r\n{\"ip\":\"::1\"}"),
            "{}",
            requests[0]
        );
        assert!(
            requests[1].starts_with("POST /v1/peers/p1/contact "),
            "{}",
            requests[1]
        );
        assert!(requests[1].contains("content-length: 0"), "{}", requests[1]);
    }

    #[test]
    fn delete_says_what_it_deleted() {
        let canned = Canned::new([no_content(), no_content(), problem(412, "it changed", "")]);
        assert_eq!(canned.run(&["delete", "p1"]).out, "deleted p1\n");
        assert_eq!(
            canned.run(&["delete", "p1", "-o", "json"]).out,
            "{\"deleted\":1}\n"
        );
        assert_eq!(canned.run(&["delete", "p1", "--if-match", "v0"]).code(), 4);
        let requests = canned.requests();
        assert!(requests[0].starts_with("DELETE /v1/peers/p1 "));
        assert!(requests[2].contains("if-match: \"v0\""));
    }

    #[test]
    fn deleting_many_says_how_many_and_asks_on_a_terminal() {
        let list = chunked(&[PEER, "\n", PEER, "\n"], true);
        let canned = Canned::new([list.clone(), json("{\"deleted\":2}"), list]);
        let line = ["delete", "--label", "zone=a", "--label", "tier"];
        let ran = canned.run_with_input(&line, "y\n", true);
        assert_eq!(ran.out, "deleted 2 peers\n", "{ran:?}");
        assert_eq!(
            ran.err,
            "2 peers with zone=a and tier will be deleted. Go on? [y/N] "
        );
        let ran = canned.run_with_input(&line, "\n", true);
        assert_eq!((ran.code(), ran.out.as_str()), (1, ""));
        assert!(ran.failure().contains("nothing was changed"));
        let requests = canned.requests();
        assert!(requests[1].starts_with("DELETE /v1/peers?label=zone%3Da&label=tier "));
    }

    #[test]
    fn the_own_record_is_printed_and_set() {
        let canned = Canned::new([json(PEER), json(PEER)]);
        assert_eq!(
            canned.run(&["identity", "-o", "json"]).out,
            format!("{PEER}\n")
        );
        let set = [
            "identity", "set", "--name", "a", "--ip", "10.0.0.1", "-o", "json",
        ];
        assert_eq!(canned.run(&set).code(), 0);
        let requests = canned.requests();
        assert!(
            requests[0].starts_with("GET /v1/identity "),
            "{}",
            requests[0]
        );
        assert!(
            requests[1].starts_with("PUT /v1/identity "),
            "{}",
            requests[1]
        );
    }
}
