//! The verb watch: changes as they happen, across broken connections and lost histories.

use std::time::Duration;

use clap::Args;
use peer_table::peers::Peer;
use serde::Deserialize;
use serde_json::json;
use ureq::http::Method;

use super::args::{FilterArgs, Format};
use super::client::{Client, Listed, NDJSON, Patience};
use super::console::Console;
use super::failure::Failure;
use super::output::{cell, pairs};

/// The pause before the first attempt to connect again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Print changes as they happen, one line each, until Ctrl-C
///
/// Goes on where it was when the connection breaks. When changes were missed (the manager forgot
/// them, or this program was too slow) it says so, lists all peers again and goes on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager watch
  udht-manager watch --all --label zone=a
  udht-manager watch -o json | jq -r 'select(.type == \"delete\") | .peer_id'
  udht-manager watch -o json --since TOKEN --exit-on-gone

With -o json each line is an event of the manager: {\"type\":..,\"revision\":TOKEN,..} of the type
start, put, contact, delete or unmatched (it no longer matches the filters); the latest revision
is the TOKEN to go on with. A list (of --all, or after missed changes) is {\"type\":\"relist\",..}:
forget all, then a \"put\" for each peer there is, then {\"type\":\"listed\",..}.")]
pub(crate) struct WatchArgs {
    /// Begin after this revision instead of now; every event says one
    #[arg(long, value_name = "TOKEN")]
    since: Option<String>,
    /// First print every peer that there is now
    #[arg(long, conflicts_with = "since")]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Exit with code 4 when changes were missed, instead of listing again
    #[arg(long)]
    exit_on_gone: bool,
}

/// What a line of a watch says.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    revision: Option<String>,
    peer: Option<Peer>,
    peer_id: Option<String>,
    reason: Option<String>,
}

/// How a connection ended that did not fail.
enum End {
    /// It just ended, or the manager is shutting down.
    Closed,
    /// Changes were missed, and why.
    Missed(&'static str),
}

impl WatchArgs {
    /// Prints changes; returns only when it cannot go on.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let mut watch = Watch {
            args: self,
            client,
            format,
            token: self.since.clone(),
            must_list: self.all,
            has_connected: false,
            pause: PAUSE_MIN,
            is_noted: false,
        };
        loop {
            let missed = match watch.go_on(console) {
                Ok(End::Closed) => None,
                Ok(End::Missed(why)) => Some(why.to_owned()),
                Err(Failure::Refused(refusal)) if refusal.status == 410 => {
                    Some(refusal.detail().to_owned())
                }
                Err(failure) if watch.has_connected && failure.may_pass() => {
                    watch.note_outage(console, &failure);
                    None
                }
                Err(failure) => return Err(failure),
            };
            console.flush()?;
            if let Some(why) = missed {
                if self.exit_on_gone {
                    return Err(Failure::Missed(why));
                }
                console.note(&format!(
                    "Changes were missed ({why}). Listing all peers again."
                ));
                watch.has_connected = true;
                watch.must_list = true;
            }
            (console.pause)(watch.pause);
            watch.pause = (watch.pause * 2).min(PAUSE_MAX);
        }
    }
}

struct Watch<'a> {
    args: &'a WatchArgs,
    client: &'a Client,
    format: Format,
    /// After which revision to go on; none before the first event.
    token: Option<String>,
    /// Whether changes were missed, so that all must be listed before going on.
    must_list: bool,
    /// Whether it ever worked: before that a failure is the user's to see at once.
    has_connected: bool,
    pause: Duration,
    is_noted: bool,
}

impl Watch<'_> {
    /// One connection, from the list that it may need to its end.
    fn go_on(&mut self, console: &mut Console<'_>) -> Result<End, Failure> {
        if self.must_list {
            self.list(console)?;
            self.must_list = false;
        }
        let mut query = self.args.filter.to_query();
        query.push(("watch", "true".to_owned()));
        query.extend(self.token.iter().map(|token| ("since", token.clone())));
        let request = self
            .client
            .request(Method::GET, "/v1/peers", &query)
            .header("accept", NDJSON);
        let mut lines = self.client.send(request, (), Patience::Stream)?.lines();
        self.has_connected = true;
        loop {
            if !lines.has_next_at_hand() {
                console.flush()?;
            }
            let Some(line) = lines.next()? else {
                return Ok(End::Closed);
            };
            let event: Event = match serde_json::from_slice(line) {
                Ok(event) => event,
                Err(error) => return Err(lines.strange("an event", &error)),
            };
            self.pause = PAUSE_MIN;
            if self.is_noted {
                self.is_noted = false;
                console.note("Connected again.");
            }
            match event.kind.as_str() {
                "gone" => {
                    return Ok(End::Missed(match event.reason.as_deref() {
                        Some("reopened") => "the manager's store was opened anew, or started over",
                        // An earlier manager does not say.
                        _ => "this program was too slow to take them",
                    }));
                }
                "end" => {
                    self.token = event.revision.or(self.token.take());
                    return Ok(End::Closed);
                }
                "heartbeat" => {}
                _ => match self.format {
                    Format::Json => {
                        console.out.write_all(line).map_err(Failure::Output)?;
                        console.say("")?;
                    }
                    Format::Table => {
                        if let Some(text) = describe(&event) {
                            console.say(&text)?;
                        }
                    }
                },
            }
            self.token = event.revision.or(self.token.take());
        }
    }

    /// Prints all that there is, and takes the token of the list.
    fn list(&mut self, console: &mut Console<'_>) -> Result<(), Failure> {
        let answer = self.client.list(&self.args.filter, &[])?;
        let revision = answer
            .header("udht-revision")
            .map(str::to_owned)
            .ok_or_else(|| answer.strange("its list has no Udht-Revision".to_owned()))?;
        let mark = |kind: &str| json!({ "type": kind, "revision": revision }).to_string();
        let in_json = self.format == Format::Json;
        if in_json {
            console.say(&mark("relist"))?;
        }
        let token = json!(revision);
        let mut lines = answer.lines();
        while let Some(listed) = lines.next_listed()? {
            let Listed::Peer(received) = listed else {
                continue;
            };
            let line = if in_json {
                format!(
                    r#"{{"type":"put","revision":{token},"peer":{}}}"#,
                    received.json
                )
            } else {
                line_of("present", &received.peer)
            };
            console.say(&line)?;
        }
        if in_json {
            console.say(&mark("listed"))?;
        }
        console.flush()?;
        self.token = Some(revision);
        Ok(())
    }

    /// Says once for each outage that it is one.
    fn note_outage(&mut self, console: &mut Console<'_>, failure: &Failure) {
        if !self.is_noted {
            self.is_noted = true;
            console.note(&format!("Trying to connect again: {failure}"));
        }
    }
}

fn describe(event: &Event) -> Option<String> {
    match (&event.peer, &event.peer_id) {
        (Some(peer), _) if event.kind == "contact" => {
            let seen = peer.last_connection_on.as_deref().unwrap_or("never");
            Some(format!(
                "{:<10} {}  seen {}",
                "contact",
                cell_of_id(&peer.peer_id),
                cell(seen)
            ))
        }
        (Some(peer), _) => Some(line_of(&event.kind, peer)),
        (None, Some(id)) => Some(format!("{:<10} {}", cell(&event.kind), cell_of_id(id))),
        (None, None) => None,
    }
}

fn line_of(kind: &str, peer: &Peer) -> String {
    let (id, name, ip) = (cell_of_id(&peer.peer_id), cell(&peer.name), peer.ip);
    let (ports, labels) = (
        cell(&pairs(&peer.ports, ",")),
        cell(&pairs(&peer.labels, ",")),
    );
    format!("{:<10} {id}  {name}  {ip}  {ports}  {labels}", cell(kind))
}

fn cell_of_id(id: &str) -> String {
    super::output::printable(id).replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Canned, PEER, chunked, problem};
    use super::*;

    fn event(kind: &str, revision: &str) -> String {
        format!("{{\"type\":\"{kind}\",\"revision\":\"{revision}\"}}\n")
    }

    fn put(revision: &str) -> String {
        format!("{{\"type\":\"put\",\"revision\":\"{revision}\",\"peer\":{PEER}}}\n")
    }

    fn stream(events: &[String], whole: bool) -> Vec<u8> {
        chunked(
            &events.iter().map(String::as_str).collect::<Vec<_>>(),
            whole,
        )
    }

    /// What no watch survives, to end the test.
    fn fatal() -> Vec<u8> {
        problem(400, "over", "")
    }

    #[test]
    fn changes_are_printed_one_line_each() {
        let delete =
            "{\"type\":\"delete\",\"revision\":\"7.3\",\"peer_id\":\"p1\",\"version\":\"v\"}\n";
        let contact = put("7.4").replace("\"put\"", "\"contact\"");
        let events = [
            event("start", "7.1"),
            put("7.2"),
            delete.into(),
            contact.clone(),
        ];
        let canned = Canned::new([stream(&events, true), fatal()]);
        let ran = canned.run(&["watch", "--name", "files-0"]);
        assert_eq!(
            ran.out,
            "\
put        p1  files-0  10.0.0.7  userSync=5001  zone=a
delete     p1
contact    p1  seen 2026-01-31T08:00:00.000Z
"
        );
        let request = &canned.requests()[0];
        assert!(
            request.starts_with("GET /v1/peers?name=files-0&watch=true "),
            "{request}"
        );
        assert!(
            request.contains("accept: application/x-ndjson"),
            "{request}"
        );

        let canned = Canned::new([stream(&events, true), fatal()]);
        assert_eq!(canned.run(&["watch", "-o", "json"]).out, events.concat());
    }

    #[test]
    fn a_broken_connection_is_followed_by_one_that_goes_on_from_the_last_token() {
        let canned = Canned::new([
            stream(&[event("start", "7.1"), put("7.2")], false),
            problem(503, "loading", ""),
            vec![],
            stream(&[event("heartbeat", "7.9"), event("end", "7.10")], true),
            fatal(),
        ]);
        let ran = canned.run(&["watch", "-o", "json"]);
        assert_eq!(ran.code(), 1);
        assert_eq!(ran.failure(), "over (status 400)");
        assert_eq!(ran.out, [event("start", "7.1"), put("7.2")].concat());
        let [first, second] = ran.err.lines().collect::<Vec<_>>()[..] else {
            panic!("{ran:?}")
        };
        assert!(
            first.starts_with("Trying to connect again: the manager at http://"),
            "{first}"
        );
        assert_eq!(second, "Connected again.");
        assert_eq!(ran.pauses, [100, 200, 400, 100].map(Duration::from_millis));
        let since: Vec<_> = canned
            .requests()
            .iter()
            .map(|request| request.split_once(" HTTP").unwrap().0.to_owned())
            .collect();
        let path = "GET /v1/peers?watch=true";
        let after = |token: &str| format!("{path}&since={token}");
        assert_eq!(
            since,
            [
                path.into(),
                after("7.2"),
                after("7.2"),
                after("7.2"),
                after("7.10")
            ]
        );
    }

    #[test]
    fn a_manager_that_was_never_reached_is_not_waited_for() {
        let canned = Canned::new([problem(503, "loading", "")]);
        let ran = canned.run(&["watch"]);
        assert_eq!((ran.code(), ran.pauses.len()), (5, 0));
    }

    #[test]
    fn missed_changes_are_said_and_made_up_for_by_a_list() {
        for gone in [
            problem(410, "the token is too old.", ""),
            stream(&[event("gone", "")], true),
            stream(
                &["{\"type\":\"gone\",\"reason\":\"reopened\"}\n".to_owned()],
                true,
            ),
        ] {
            let list = chunked(&[PEER, "\n"], true);
            let canned = Canned::new([gone, problem(503, "busy", ""), list, fatal()]);
            let ran = canned.run(&["watch", "--since", "1.1", "-o", "json", "--label", "a=b"]);
            let expected = [event("relist", "7.1"), put("7.1"), event("listed", "7.1")]
                .map(|line| line.trim().parse::<serde_json::Value>().unwrap());
            let printed: Vec<serde_json::Value> =
                ran.out.lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!(printed, expected, "{ran:?}");
            assert!(
                ran.err.starts_with("Changes were missed (th"),
                "{}",
                ran.err
            );
            let requests = canned.requests();
            assert!(requests[0].starts_with("GET /v1/peers?label=a%3Db&watch=true&since=1.1 "));
            assert!(
                requests[1].starts_with("GET /v1/peers?label=a%3Db "),
                "{}",
                requests[1]
            );
            assert!(
                requests[2].starts_with("GET /v1/peers?label=a%3Db "),
                "{}",
                requests[2]
            );
            assert!(requests[3].contains("since=7.1 "), "{}", requests[3]);
        }
    }

    #[test]
    fn a_watch_can_begin_with_all_that_there_is() {
        let list = chunked(&[PEER, "\n"], true);
        let canned = Canned::new([list, stream(&[put("7.2")], true), fatal()]);
        let ran = canned.run(&["watch", "--all"]);
        assert_eq!(
            ran.out,
            "\
present    p1  files-0  10.0.0.7  userSync=5001  zone=a
put        p1  files-0  10.0.0.7  userSync=5001  zone=a
"
        );
        let requests = canned.requests();
        assert!(
            requests[0].starts_with("GET /v1/peers HTTP"),
            "{}",
            requests[0]
        );
        assert!(
            requests[1].contains("watch=true&since=7.1 "),
            "{}",
            requests[1]
        );
    }

    #[test]
    fn missed_changes_end_the_program_with_4_if_that_is_asked() {
        let canned = Canned::new([problem(410, "the token is too old.", "")]);
        let ran = canned.run(&["watch", "--since", "1.1", "--exit-on-gone"]);
        assert_eq!(ran.code(), 4);
        assert_eq!(
            ran.failure(),
            "changes were missed (the token is too old). Begin again with `udht-manager watch --all`."
        );
    }

    #[test]
    fn garbage_ends_the_watch() {
        let canned = Canned::new([stream(&["garbage\n".to_owned()], true)]);
        let ran = canned.run(&["watch"]);
        assert_eq!(ran.code(), 1);
        assert!(
            ran.failure()
                .contains("line 1 of its answer is not an event"),
            "{ran:?}"
        );
    }

    #[test]
    fn an_event_of_a_later_release_is_passed_on_as_json_and_left_out_of_the_table() {
        let later = event("later", "7.2");
        let canned = Canned::new([stream(std::slice::from_ref(&later), true), fatal()]);
        assert_eq!(canned.run(&["watch", "-o", "json"]).out, later);
        let canned = Canned::new([stream(&[later], true), fatal()]);
        assert_eq!(canned.run(&["watch"]).out, "");
    }
}
