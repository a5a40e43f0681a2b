//! How records look: described one by one, or as the rows of a table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use peer_table::peers::Peer;

use super::args::Format;
use super::client::Received;
use super::console::Console;
use super::failure::Failure;

/// As many rows are held back to see how wide the columns are; the table itself is never held.
const ROWS_MEASURED: usize = 100;
/// The widest cell but an id, in characters: the rest is in the JSON.
const CELL_CHARS_MAX: usize = 60;
/// The columns of a list.
const COLUMNS: [&str; 6] = ["PEER ID", "NAME", "IP", "LAST SEEN", "PORTS", "LABELS"];

/// Text from outside, fit for a terminal: no control characters, nothing that turns the writing
/// direction.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmful(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Prints one record.
pub(crate) fn record(
    console: &mut Console<'_>,
    format: Format,
    received: &Received,
) -> Result<(), Failure> {
    match format {
        Format::Json => console.say(&received.json),
        Format::Table => {
            let text = describe(&received.peer, console.now);
            console
                .out
                .write_all(text.as_bytes())
                .map_err(Failure::Output)
        }
    }
}

fn describe(peer: &Peer, now: SystemTime) -> String {
    let seen = match &peer.last_connection_on {
        None => "never".to_owned(),
        Some(time) => match contact_ago(time, now) {
            Some(ago) => format!("{time} ({ago})"),
            None => time.clone(),
        },
    };
    let fields = [
        ("Peer ID", peer.peer_id.clone()),
        ("Name", peer.name.clone()),
        ("IP", peer.ip.to_string()),
        ("Ports", pairs(&peer.ports, "\n")),
        ("Labels", pairs(&peer.labels, "\n")),
        ("Created", peer.created_at.clone()),
        ("Updated", peer.updated_at.clone()),
        ("Last seen", seen),
        ("Version", peer.version.clone()),
    ];
    let mut text = String::new();
    for (title, value) in fields {
        let value = if value.is_empty() {
            "-".to_owned()
        } else {
            value
        };
        for (number, line) in value.lines().enumerate() {
            let title = if number == 0 { title } else { "" };
            let _ = writeln!(text, "{title:<11}{}", printable(line));
        }
    }
    text
}

/// Ports and labels as they are written on the command line.
pub(crate) fn pairs(map: &BTreeMap<String, impl Display>, between: &str) -> String {
    // A line break inside a label would look like a label more.
    let shown = map
        .iter()
        .map(|(k, v)| format!("{k}={v}").replace('\n', "\\n"));
    shown.collect::<Vec<_>>().join(between)
}

/// The steps in which a contact comes.
const CONTACT_STEP: Duration = Duration::from_mins(5);

/// How long ago a time was, in its largest unit.
pub(crate) fn ago(time: &str, now: SystemTime) -> Option<String> {
    let seconds = age(time, now)?.as_secs();
    Some(match seconds {
        0 => "just now".to_owned(),
        1..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..86_400 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    })
}

/// The same of the last contact of a peer.
fn contact_ago(time: &str, now: SystemTime) -> Option<String> {
    match age(time, now)? {
        age if age < CONTACT_STEP => Some("just now".to_owned()),
        _ => ago(time, now),
    }
}

fn age(time: &str, now: SystemTime) -> Option<Duration> {
    let time = humantime::parse_rfc3339(time).ok()?;
    Some(now.duration_since(time).unwrap_or(Duration::ZERO))
}

/// A table of peers that is printed while it comes: the first rows say how wide its columns are.
pub(crate) struct Table {
    now: SystemTime,
    widths: [usize; COLUMNS.len()],
    measured: Option<Vec<[String; COLUMNS.len()]>>,
}

impl Table {
    pub(crate) fn new(now: SystemTime) -> Self {
        Self {
            now,
            widths: COLUMNS.map(str::len),
            measured: Some(Vec::with_capacity(ROWS_MEASURED)),
        }
    }

    /// Prints a row, or holds it back while the columns are measured.
    pub(crate) fn row(&mut self, out: &mut dyn Write, peer: &Peer) -> io::Result<()> {
        let seen = peer.last_connection_on.as_ref();
        let row = [
            printable(&peer.peer_id).into_owned(),
            cell(&peer.name),
            peer.ip.to_string(),
            seen.map_or("never".into(), |t| {
                contact_ago(t, self.now).unwrap_or_else(|| cell(t))
            }),
            cell(&pairs(&peer.ports, ",")),
            cell(&pairs(&peer.labels, ",")),
        ];
        let Some(measured) = &mut self.measured else {
            return write_row(out, &self.widths, &row);
        };
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        measured.push(row);
        if measured.len() == ROWS_MEASURED {
            self.finish(out)
        } else {
            Ok(())
        }
    }

    /// Prints what is held back.
    pub(crate) fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Some(measured) = self.measured.take() else {
            return Ok(());
        };
        write_row(out, &self.widths, &COLUMNS.map(str::to_owned))?;
        measured
            .iter()
            .try_for_each(|row| write_row(out, &self.widths, row))
    }
}

/// Text as a cell: one line, not too long, never empty.
pub(crate) fn cell(text: &str) -> String {
    let text = printable(text).replace('\n', "\\n");
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if text.is_empty() => "-".to_owned(),
        None => text,
    }
}

/// Prints rows that are all at hand under their heads.
pub(crate) fn rows<const N: usize>(
    out: &mut dyn Write,
    heads: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let heads = heads.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(rows);
    let widths = std::array::from_fn(|column| {
        let cells = all().map(|row: &[String; N]| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    all().try_for_each(|row| write_row(out, &widths, row))
}

fn write_row<const N: usize>(
    out: &mut dyn Write,
    widths: &[usize; N],
    row: &[String; N],
) -> io::Result<()> {
    let (last, first) = row.split_last().expect("a table has columns");
    for (cell, width) in first.iter().zip(widths) {
        write!(out, "{cell:<width$}  ")?;
    }
    writeln!(out, "{last}")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PEER, now};
    use super::*;

    fn peer() -> Peer {
        serde_json::from_str(PEER).unwrap()
    }

    #[test]
    fn a_record_is_described_field_by_field() {
        let mut peer = peer();
        peer.labels
            .insert("note".into(), "two\nlines\u{1b}[2J".into());
        let expected = "\
Peer ID    p1
Name       files-0
IP         10.0.0.7
Ports      userSync=5001
Labels     note=two\\nlines\\u{1b}[2J
           zone=a
Created    2026-01-31T08:00:00.000Z
Updated    2026-01-31T08:00:01.000Z
Last seen  2026-01-31T08:00:00.000Z (2h ago)
Version    v1
";
        assert_eq!(describe(&peer, now()), expected);
    }

    #[test]
    fn what_a_record_does_not_say_is_a_dash_or_never() {
        let mut peer = peer();
        peer.labels.clear();
        peer.last_connection_on = None;
        let text = describe(&peer, now());
        assert!(
            text.contains("Labels     -\n") && text.contains("Last seen  never\n"),
            "{text}"
        );
    }

    #[test]
    fn a_time_is_told_in_its_largest_unit() {
        let cases = [
            ("2026-01-31T10:29:59.5Z", "just now"),
            ("2026-01-31T10:29:18Z", "42s ago"),
            ("2026-01-31T10:25:00Z", "5m ago"),
            ("2026-01-31T09:30:00Z", "1h ago"),
            ("2026-01-28T09:30:00Z", "3d ago"),
            ("2027-01-01T00:00:00Z", "just now"),
        ];
        for (time, told) in cases {
            assert_eq!(ago(time, now()).as_deref(), Some(told), "{time}");
        }
        assert_eq!(ago("yesterday", now()), None);
        let contact = |time| contact_ago(time, now());
        assert_eq!(contact("2026-01-31T10:25:01Z").as_deref(), Some("just now"));
        assert_eq!(contact("2026-01-31T10:25:00Z").as_deref(), Some("5m ago"));
        assert_eq!(contact("yesterday"), None);
    }

    #[test]
    fn the_columns_of_a_table_are_as_wide_as_the_first_rows_need() {
        let mut other = peer();
        other.peer_id = "a-longer-id".into();
        other.ip = "2001:db8::7".parse().unwrap();
        other.labels.insert("long".into(), "x".repeat(100));
        let (mut out, mut table) = (Vec::new(), Table::new(now()));
        table.row(&mut out, &peer()).unwrap();
        table.row(&mut out, &other).unwrap();
        assert!(out.is_empty());
        table.finish(&mut out).unwrap();
        let expected = format!(
            "\
PEER ID      NAME     IP           LAST SEEN  PORTS          LABELS
p1           files-0  10.0.0.7     2h ago     userSync=5001  zone=a
a-longer-id  files-0  2001:db8::7  2h ago     userSync=5001  long={}…
",
            "x".repeat(55)
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_long_table_is_not_held_back() {
        let (mut out, mut table) = (Vec::new(), Table::new(now()));
        for row in 1..=1000 {
            table.row(&mut out, &peer()).unwrap();
            let printed = out.split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(printed, if row < ROWS_MEASURED { 0 } else { row + 1 });
        }
    }
}
