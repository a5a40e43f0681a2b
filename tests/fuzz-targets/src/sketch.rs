//! Coded symbols, and the difference that is decoded from them.

use std::collections::BTreeSet;

use peer_table::Fingerprint;
use peer_table::sketch::{DecodeError, Decoded, Difference, Sketch, Symbol, WireSymbols, encode};

use crate::choices::Choices;

/// Symbols in these tests at the most.
const LEN: usize = 1_024;

fn sketch<'a>(set: impl IntoIterator<Item = &'a Fingerprint>) -> Sketch {
    let mut sketch = Sketch::new(LEN);
    for fingerprint in set {
        sketch.insert(*fingerprint);
    }
    sketch
}

fn set(choices: &mut Choices<'_>) -> BTreeSet<Fingerprint> {
    let len = choices.up_to(40);
    (0..len).map(|_| Fingerprint(choices.number())).collect()
}

fn on_the_wire(symbols: &[Symbol]) -> Vec<u8> {
    let mut wire = Vec::new();
    encode(symbols, &mut wire);
    wire
}

/// Symbols as they come, taken off those of a set of our own.
pub(crate) fn symbols(bytes: &[u8]) {
    let (head, wire) = bytes.split_at(bytes.len().min(16));
    let mut choices = Choices::new(head);
    let ours: BTreeSet<_> = (0..choices.up_to(20) as u64).map(Fingerprint).collect();
    let theirs = ours.len() as u64 + choices.number() % 64;
    let Ok(symbols) = WireSymbols::parse(wire) else {
        return;
    };
    let symbols: Vec<_> = symbols.into_iter().take(LEN).collect();
    let ours_coded = sketch(&ours);
    assert_eq!(
        on_the_wire(&symbols),
        wire[..symbols.len() * peer_table::sketch::WIRE_LEN]
    );
    let mut difference = Difference::new(ours.len() as u64, theirs);
    let mut seen = 0;
    while seen < symbols.len() {
        let to = (seen + 1 + choices.up_to(200)).min(symbols.len());
        let run = symbols[seen..to].iter().copied();
        let added = difference.extend(ours_coded.symbols(seen..to).iter().copied(), run);
        assert_eq!(added, Ok(()));
        seen = to;
        match difference.decode() {
            Ok(decoded) => is_the_difference(&ours, theirs, &decoded, &symbols[..seen]),
            Err(DecodeError::Incomplete) => {}
            Err(DecodeError::Inconsistent) => return,
        }
        assert!(difference.symbols_needed() > difference.symbols());
        assert!(difference.estimate_low() >= theirs.abs_diff(ours.len() as u64));
    }
}

/// What was decoded is at most a fingerprint for each symbol, and with it our set has just the
/// symbols that were sent.
fn is_the_difference(
    ours: &BTreeSet<Fingerprint>,
    total: u64,
    decoded: &Decoded,
    symbols: &[Symbol],
) {
    assert!(decoded.ours.len() + decoded.theirs.len() <= symbols.len());
    let mut theirs = sketch(ours);
    decoded.ours.iter().for_each(|only| theirs.remove(*only));
    decoded.theirs.iter().for_each(|only| theirs.insert(*only));
    let coded = theirs.symbols(0..symbols.len());
    assert_eq!(on_the_wire(coded), on_the_wire(symbols));
    let removed = ours.len() as u64 - decoded.ours.len() as u64;
    assert_eq!(removed + decoded.theirs.len() as u64, total);
}

/// Two honest sets: what is decoded is how they differ, or nothing is.
pub(crate) fn difference(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let [common, only_ours, only_theirs] = [(); 3].map(|()| set(&mut choices));
    let ours: BTreeSet<_> = common.union(&only_ours).copied().collect();
    let theirs: BTreeSet<_> = common.union(&only_theirs).copied().collect();
    let wire = on_the_wire(sketch(&theirs).symbols(0..LEN));
    let coded = sketch(&ours);
    let symbols: Vec<_> = WireSymbols::parse(&wire)
        .expect("it was just written")
        .into_iter()
        .collect();
    let mut difference = Difference::new(ours.len() as u64, theirs.len() as u64);
    let mut seen = 0;
    while seen < LEN {
        let to = (seen + 1 + choices.up_to(300)).min(LEN);
        let run = symbols[seen..to].iter().copied();
        let added = difference.extend(coded.symbols(seen..to).iter().copied(), run);
        assert_eq!(added, Ok(()));
        seen = to;
        if let Ok(decoded) = difference.decode() {
            assert!(decoded.ours.iter().eq(ours.difference(&theirs)));
            assert!(decoded.theirs.iter().eq(theirs.difference(&ours)));
            return;
        }
    }
}
