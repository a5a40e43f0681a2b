//! Counts of what became of merged records.

use std::collections::BTreeMap;

use peer_table::contract::{merged_code, merged_from_code, merged_word};
use peer_table::table::Merged;

/// The word for an outcome that only a newer release knows.
pub const UNKNOWN: &str = "unknown";
/// The word for a refusal that only a newer release knows.
pub const REFUSED_UNKNOWN: &str = "refused_unknown";
/// From this byte up, an outcome says that the record was refused.
const REFUSED_FROM: u8 = 16;

/// How many merged records had which outcome, by the word of
/// [`merged_word`], or [`UNKNOWN`], or [`REFUSED_UNKNOWN`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcomes(BTreeMap<&'static str, u64>);

impl Outcomes {
    /// Counts outcomes given as bytes, one a record.
    pub fn add(&mut self, codes: &[u8]) {
        for &code in codes {
            *self.0.entry(word(code)).or_default() += 1;
        }
    }

    /// How many had this outcome.
    pub fn of(&self, word: &str) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.iter()
            .filter(|(word, _)| word.starts_with("refused"))
            .map(|(_, count)| count)
            .sum()
    }

    /// Each outcome that occurred, with how often it did.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(word, count)| (*word, *count))
    }
}

fn word(code: u8) -> &'static str {
    match merged_from_code(code) {
        Some(merged) => merged_word(merged),
        None if is_refused(code) => REFUSED_UNKNOWN,
        None => UNKNOWN,
    }
}

/// Whether a record of which that became is of no use to anybody else either: it was refused, or what
/// is known here of deletions and of ends says that it is over.
pub(crate) fn is_over(code: u8) -> bool {
    let over = [Merged::Ghost, Merged::Collected, Merged::Fenced];
    is_refused(code) || over.map(merged_code).contains(&code)
}

/// Whether the byte of an outcome says that the record was refused.
pub(crate) const fn is_refused(code: u8) -> bool {
    code >= REFUSED_FROM
}

#[cfg(test)]
mod tests {
    use peer_table::contract::merged_all;

    use super::*;

    #[test]
    fn every_outcome_is_counted_under_its_word() {
        let mut outcomes = Outcomes::default();
        let codes: Vec<u8> = merged_all().map(merged_code).collect();
        outcomes.add(&codes);
        outcomes.add(&[200, 9, 9, merged_code(Merged::Applied)]);
        assert_eq!(outcomes.of("applied"), 2);
        assert_eq!(outcomes.of(UNKNOWN), 2);
        assert_eq!(outcomes.of(REFUSED_UNKNOWN), 1);
        assert_eq!(outcomes.total(), codes.len() as u64 + 4);
        assert_eq!(outcomes.refused(), 8);
    }

    #[test]
    fn a_byte_says_refused_just_where_its_outcome_does() {
        for merged in merged_all() {
            let refused = matches!(merged, Merged::Refused(_));
            assert_eq!(is_refused(merged_code(merged)), refused, "{merged:?}");
            let is_dead = matches!(merged, Merged::Ghost | Merged::Collected | Merged::Fenced);
            assert_eq!(
                is_over(merged_code(merged)),
                refused || is_dead,
                "{merged:?}"
            );
        }
    }
}
