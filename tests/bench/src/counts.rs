//! What is the same on every machine, and must not grow unnoticed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::report::Report;

/// By how much a count may be above the one that is kept: what a field more in a message costs is
/// to be seen, what varies with the version of a compressor is not.
const MARGIN: f64 = 1.02;

/// The counts that are kept, by the names of their rows.
#[derive(Default, Debug)]
pub(crate) struct Counts(BTreeMap<String, f64>);

impl Counts {
    /// Those of a file.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let hint = "run this in the root of the repository, or name the file with --counts";
        let json = std::fs::read_to_string(file)
            .with_context(|| format!("read {}: {hint}", file.display()))?;
        let counts = serde_json::from_str(&json);
        counts
            .map(Self)
            .with_context(|| format!("{} is no list of counts", file.display()))
    }

    /// Takes over those of a report, and leaves those of which it says nothing.
    pub(crate) fn keep(&mut self, report: &Report) {
        let counts = report.counts().map(|(id, value)| (id.to_owned(), value));
        self.0.extend(counts);
    }

    /// Writes them, a line each.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let mut json = serde_json::to_string_pretty(&self.0).context("the counts as JSON")?;
        json.push('\n');
        std::fs::write(file, json).with_context(|| format!("write {}", file.display()))
    }

    /// A sentence for each count of a report that is larger than the one kept, by more than the
    /// margin, and for each that is not kept yet.
    pub(crate) fn grown(&self, report: &Report) -> Vec<String> {
        let sentences = report.counts().filter_map(|(id, value)| {
            let Some(kept) = self.0.get(id) else {
                return Some(format!("{id} is {value}, and no count is kept for it"));
            };
            (value > kept * MARGIN).then(|| format!("{id} has grown from {kept} to {value}"))
        });
        sentences.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Figure, Row};

    fn report(bytes: u64) -> Report {
        let mut report = Report::new(true);
        report.add(Row::new("a/b", "what", Figure::bytes(bytes)).count());
        report.add(Row::new("a/c", "not a count", Figure::bytes(bytes)));
        report
    }

    #[test]
    fn a_count_that_has_grown_beyond_the_margin_is_named() {
        let mut counts = Counts::default();
        counts.keep(&report(1_000));
        assert_eq!(counts.grown(&report(1_020)), [""; 0]);
        assert_eq!(counts.grown(&report(500)), [""; 0]);
        assert_eq!(
            counts.grown(&report(1_021)),
            ["a/b has grown from 1000 to 1021"]
        );
    }

    #[test]
    fn a_count_that_nobody_kept_is_named_too() {
        let sentences = Counts::default().grown(&report(1));
        assert_eq!(sentences, ["a/b is 1, and no count is kept for it"]);
    }
}
