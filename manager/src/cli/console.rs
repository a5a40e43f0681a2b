//! What a verb sees of the terminal, or of the pipes in its place.

use std::io::{Read, Write};
use std::time::{Duration, Instant, SystemTime};

use udht_tell::ask::{Unconfirmed, confirm};

use super::failure::Failure;

/// Standard streams, clock and pauses, handed in so that a test can hold them.
pub(crate) struct Console<'a> {
    /// Results.
    pub(crate) out: &'a mut dyn Write,
    /// Notes and questions.
    pub(crate) err: &'a mut dyn Write,
    /// Data, or the replies to questions.
    pub(crate) input: &'a mut dyn Read,
    /// Whether someone looks at the results as they come.
    pub(crate) out_is_terminal: bool,
    /// Whether someone looks at the notes as they come.
    pub(crate) err_is_terminal: bool,
    /// Whether someone can reply.
    pub(crate) input_is_terminal: bool,
    /// The wall clock at the start.
    pub(crate) now: SystemTime,
    /// Lets time pass.
    pub(crate) pause: &'a mut dyn FnMut(Duration),
}

impl Console<'_> {
    /// Writes a line of the result.
    pub(crate) fn say(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.out, "{line}").map_err(Failure::Output)
    }

    /// Hands on what was written.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::Output)
    }

    /// Writes a note, which nobody needs to read: that it cannot be written is no failure.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// Asks before something that cannot be undone; without a terminal it must have been said
    /// with `--yes`.
    pub(crate) fn confirm(&mut self, what: &str, yes: bool) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        let done = confirm(what, self.input, self.input_is_terminal, self.err);
        done.map_err(|error| match error {
            Unconfirmed::Unasked(_) => Failure::Usage(error.to_string()),
            Unconfirmed::No | Unconfirmed::Unreadable(_) => Failure::Input(error.to_string()),
        })
    }
}

/// How far a long transfer has come, shown on a terminal ten times a second.
pub(crate) struct Progress {
    doing: &'static str,
    next: Option<Instant>,
    records: u64,
    bytes: u64,
}

impl Progress {
    /// Of `doing`, such as "exported"; `shown` if someone looks.
    pub(crate) fn new(doing: &'static str, shown: bool) -> Self {
        Self {
            doing,
            next: shown.then(Instant::now),
            records: 0,
            bytes: 0,
        }
    }

    /// Counts one more record.
    pub(crate) fn count(&mut self, err: &mut dyn Write, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
        let Some(next) = self.next else { return };
        // The clock is looked at for each 64th only: there are up to a million a second.
        if self.records % 64 == 1 && Instant::now() >= next {
            self.next = Some(Instant::now() + Duration::from_millis(100));
            let (doing, records, bytes) = (self.doing, self.records, megabytes(self.bytes));
            let _ = write!(err, "\r{doing} {records} records, {bytes} MB ");
            let _ = err.flush();
        }
    }

    /// Wipes what was shown.
    pub(crate) fn clear(&self, err: &mut dyn Write) {
        if self.next.is_some() {
            let _ = write!(err, "\r{:60}\r", "");
            let _ = err.flush();
        }
    }

    /// The records so far.
    pub(crate) const fn records(&self) -> u64 {
        self.records
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_silent_unless_someone_looks() {
        let mut err = Vec::new();
        let mut progress = Progress::new("exported", false);
        progress.count(&mut err, 1_234_567);
        progress.clear(&mut err);
        assert!(err.is_empty());
        assert_eq!(progress.records(), 1);

        let mut progress = Progress::new("exported", true);
        progress.count(&mut err, 1_234_567);
        assert_eq!(
            String::from_utf8(err).unwrap(),
            "\rexported 1 records, 1.2 MB "
        );
    }
}
