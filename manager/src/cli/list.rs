//! The verb list: peers as they come.

use clap::Args;
use peer_table::key::Key;

use super::args::{FilterArgs, Format};
use super::client::{Client, Listed};
use super::console::Console;
use super::failure::Failure;
use super::output::Table;

/// List peers in the order of their ids
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager list
  udht-manager list --label zone=a --label tier=test
  udht-manager list --label udht/pod
  udht-manager list --limit 100 --after peer-1
  udht-manager list -o json | jq -r 'select(.ports.userSync) | .ip'")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most as many, 1 to 10000; a note on the standard error says how to get the next ones
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: Option<u32>,
    /// Only peers whose id comes after this one
    #[arg(long, value_name = "ID")]
    after: Option<Key>,
}

impl ListArgs {
    /// Prints them while they come.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let limit = self.limit.iter().map(|limit| ("limit", limit.to_string()));
        let after = self.after.iter().map(|after| ("after", after.to_string()));
        let page: Vec<_> = limit.chain(after).collect();
        let mut lines = client.list(&self.filter, &page)?.lines();
        let mut table = Table::new(console.now);
        let mut more = None;
        let end = loop {
            match lines.next_listed() {
                Ok(Some(Listed::Peer(received))) => match format {
                    Format::Json => console.say(&received.json)?,
                    Format::Table => {
                        table
                            .row(console.out, &received.peer)
                            .map_err(Failure::Output)?;
                    }
                },
                Ok(Some(Listed::More { after })) => more = Some(after),
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        if format == Format::Table {
            table.finish(console.out).map_err(Failure::Output)?;
        }
        console.flush()?;
        end?;
        if let Some(after) = more {
            let after = super::output::cell(&after);
            console.note(&format!("There are more: list again with --after {after}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Canned, PEER, chunked, problem};

    const NEXT: &str = r#"{"next":"p1","revision":"7.1"}"#;

    #[test]
    fn filters_and_pages_are_sent_as_a_query() {
        let canned = Canned::new([chunked(&[PEER, "\n", NEXT, "\n"], true)]);
        let line = [
            "--name", "a b", "--ip", "::1", "--label", "x=y", "--label", "z", "--limit", "1",
            "--after", "p0",
        ];
        let ran = canned.run(&[&["list"], &line[..]].concat());
        assert_eq!(
            ran.out,
            "\
PEER ID  NAME     IP        LAST SEEN  PORTS          LABELS
p1       files-0  10.0.0.7  2h ago     userSync=5001  zone=a
"
        );
        assert_eq!(ran.err, "There are more: list again with --after p1\n");
        let request = &canned.requests()[0];
        let query = "name=a%20b&ip=%3A%3A1&label=x%3Dy&label=z&limit=1&after=p0";
        assert!(
            request.starts_with(&format!("GET /v1/peers?{query} HTTP/1.1\r\n")),
            "{request}"
        );
        assert!(
            request.contains("accept: application/x-ndjson"),
            "{request}"
        );
    }

    #[test]
    fn json_is_one_record_a_line_and_nothing_else() {
        let canned = Canned::new([chunked(&[PEER, "\n", PEER, "\n", NEXT, "\n"], true)]);
        let ran = canned.run(&["list", "-o", "json"]);
        assert_eq!((ran.code(), ran.out), (0, format!("{PEER}\n{PEER}\n")));
    }

    #[test]
    fn a_list_that_is_cut_off_prints_what_came_and_fails() {
        let canned = Canned::new([chunked(&[PEER, "\n"], false), chunked(&["{}\n"], true)]);
        let ran = canned.run(&["list"]);
        assert_eq!(ran.code(), 5);
        assert!(ran.out.contains("p1  "), "{}", ran.out);
        let ran = canned.run(&["list"]);
        assert_eq!(ran.code(), 1);
        assert!(
            ran.failure().contains("line 1 of its answer is not a peer"),
            "{}",
            ran.failure()
        );
    }

    #[test]
    fn an_empty_list_is_a_success() {
        let canned = Canned::new([chunked(&[], true), problem(400, "no such key", "after")]);
        let ran = canned.run(&["list"]);
        assert_eq!((ran.code(), ran.out.lines().count()), (0, 1));
        assert_eq!(canned.run(&["list"]).code(), 1);
    }
}
