//! What records may be, by what was answered to those who wrote them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What each key may be: the number that was written, or `None` for deleted. More than one where the
/// outcome of a write is unknown.
///
/// It holds for keys that have one writer each, who waits for one answer before the next write.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<String, Vec<Option<u64>>>);

impl Ledger {
    /// A write was answered with success: this is what the key is.
    pub fn answered(&mut self, key: &str, content: Option<u64>) {
        self.0.insert(key.to_owned(), vec![content]);
    }

    /// Nobody knows what became of a write: the key may be this, too.
    pub fn unknown(&mut self, key: &str, content: Option<u64>) {
        let may = self.0.entry(key.to_owned());
        may.or_insert_with(|| vec![None]).push(content);
    }

    /// What the key may be.
    pub fn may_be(&self, key: &str) -> &[Option<u64>] {
        self.0.get(key).map_or(&[None], Vec::as_slice)
    }

    /// The account of other keys is added.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Every key that was written.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Of how many keys it is not known what they are.
    pub fn doubtful(&self) -> usize {
        self.0.values().filter(|may| may.len() > 1).count()
    }

    /// The keys, of those that begin so, that are not what they may be where `held` is all there is.
    pub fn wrong(&self, held: &BTreeMap<String, u64>, prefix: &str) -> Vec<String> {
        let of_prefix = self.0.iter().filter(|(key, _)| key.starts_with(prefix));
        let wrong = of_prefix.filter_map(|(key, may)| {
            let is = held.get(key).copied();
            (!may.contains(&is)).then(|| format!("{key} is {is:?}, to be of {may:?}"))
        });
        wrong.collect()
    }

    /// Every key was found to be what `held` says, and is that until it is written again.
    pub fn found(&mut self, held: &BTreeMap<String, u64>) {
        for (key, may) in &mut self.0 {
            *may = vec![held.get(key).copied()];
        }
    }
}

/// The body of a record that says `number`, with a label to find it by.
pub fn record(label: (&str, &str), number: u64) -> Value {
    let (label, value) = label;
    json!({
        "name": value,
        "ip": "10.0.0.1",
        "ports": {"userSync": 5001},
        "labels": {label: value, "number": number.to_string()},
    })
}

/// The number that each of these records says, by key.
pub fn numbers(records: &[Value]) -> BTreeMap<String, u64> {
    let number = |record: &Value| {
        let number = record["labels"]["number"].as_str();
        let number = number.and_then(|number| number.parse().ok());
        number.unwrap_or(u64::MAX)
    };
    let key = |record: &Value| Some((record["peer_id"].as_str()?.to_owned(), number(record)));
    records.iter().filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_what_was_answered_last_or_any_later_write_of_unknown_outcome() {
        let mut ledger = Ledger::default();
        ledger.answered("a", Some(1));
        ledger.answered("a", Some(2));
        ledger.unknown("a", None);
        ledger.unknown("b", Some(3));
        let wrong = |ledger: &Ledger, held: &[(&str, u64)]| {
            let held = held
                .iter()
                .map(|(key, number)| ((*key).to_owned(), *number));
            ledger.wrong(&held.collect(), "").len()
        };
        assert_eq!(ledger.doubtful(), 2);
        for (held, count) in [
            (&[("a", 2), ("b", 3)][..], 0),
            (&[], 0),
            (&[("a", 1)], 1),
            (&[("a", 2), ("b", 4)], 1),
        ] {
            assert_eq!(wrong(&ledger, held), count, "{held:?}");
        }
        ledger.found(&[("a".to_owned(), 2)].into());
        assert_eq!(wrong(&ledger, &[]), 1, "what was there does not leave");
        assert_eq!(
            wrong(&ledger, &[("a", 2), ("b", 3)]),
            1,
            "nor what was not come"
        );
        ledger.answered("a", None);
        assert_eq!(ledger.may_be("a"), [None]);
        assert_eq!(wrong(&ledger, &[]), 0);
    }
}
