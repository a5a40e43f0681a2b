//! A coded symbol and the bytes it travels as.

use std::iter::FusedIterator;
use std::slice::ChunksExact;

use crate::fingerprint::Fingerprint;

/// One coded symbol: what remains of the fingerprints mapped to it.
///
/// A symbol that two sides hold for the same index can be subtracted: fingerprints that both hold
/// cancel out. One that is left with a single fingerprint shows it, because then `check` is the
/// checksum of `sum`.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Symbol {
    /// XOR of the fingerprints.
    pub sum: u64,
    /// XOR of the checksums of the fingerprints.
    pub check: u32,
    /// Number of fingerprints. A symbol from the wire has only its lowest eight bits, as a number
    /// from -128 to 127.
    pub count: i32,
}

impl Symbol {
    /// Puts `fingerprint` in (`count` 1) or takes it out (-1).
    pub(super) fn add(&mut self, fingerprint: Fingerprint, check: u32, count: i32) {
        self.sum ^= fingerprint.0;
        self.check ^= check;
        self.count = self.count.wrapping_add(count);
    }
}

/// The checksum of a fingerprint: the upper half of the 64-bit finalizer of `MurmurHash3`, over the
/// fingerprint XOR a constant, so that it shares nothing with the mapping and a zero is no fixed
/// point. It is part of the wire contract.
pub(super) fn checksum(fingerprint: Fingerprint) -> u32 {
    let z = fingerprint.0 ^ 0x5851_f42d_4c95_7f2d;
    let z = (z ^ (z >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let z = (z ^ (z >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    u32::try_from(z >> 32).unwrap_or_default()
}

/// The length of a symbol on the wire, in bytes.
pub const WIRE_LEN: usize = 13;

/// Appends a run of symbols to `wire`, [`WIRE_LEN`] bytes each: the sum, the check, then the lowest
/// eight bits of the count, each of them little endian.
///
/// Eight bits of the count are enough: peeling asks whether a difference is 1 or -1, the estimate
/// puts together what it needs from the exact numbers of elements, which travel apart.
pub fn encode(symbols: &[Symbol], wire: &mut Vec<u8>) {
    wire.reserve(symbols.len() * WIRE_LEN);
    for symbol in symbols {
        wire.extend_from_slice(&symbol.sum.to_le_bytes());
        wire.extend_from_slice(&symbol.check.to_le_bytes());
        wire.push(symbol.count.to_le_bytes()[0]);
    }
}

/// A run of symbols as it came from the wire, read in place.
#[derive(Copy, Clone, Debug)]
pub struct WireSymbols<'a>(&'a [u8]);

impl<'a> WireSymbols<'a> {
    /// Takes `wire` for a run of symbols, if it is a whole number of them.
    pub fn parse(wire: &'a [u8]) -> Result<Self, WireLenError> {
        if wire.len().is_multiple_of(WIRE_LEN) {
            Ok(Self(wire))
        } else {
            Err(WireLenError(wire.len()))
        }
    }
}

impl<'a> IntoIterator for WireSymbols<'a> {
    type Item = Symbol;
    type IntoIter = WireIter<'a>;

    fn into_iter(self) -> WireIter<'a> {
        WireIter(self.0.chunks_exact(WIRE_LEN))
    }
}

/// The symbols of a [`WireSymbols`], in order.
#[derive(Clone, Debug)]
pub struct WireIter<'a>(ChunksExact<'a, u8>);

impl Iterator for WireIter<'_> {
    type Item = Symbol;

    fn next(&mut self) -> Option<Symbol> {
        let (sum, rest) = self.0.next()?.split_first_chunk()?;
        let (check, rest) = rest.split_first_chunk()?;
        let (count, _) = rest.split_first_chunk()?;
        Some(Symbol {
            sum: u64::from_le_bytes(*sum),
            check: u32::from_le_bytes(*check),
            count: i8::from_le_bytes(*count).into(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for WireIter<'_> {}

impl FusedIterator for WireIter<'_> {}

/// Bytes that are no run of symbols.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} bytes are not a whole number of symbols of {WIRE_LEN} bytes")]
pub struct WireLenError(pub usize);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn these_checksums_are_part_of_the_wire_contract() {
        let checksums = [0, 1, 2, u64::MAX, 0xfeed_beef_dead_cafe]
            .map(|fingerprint| checksum(Fingerprint(fingerprint)));
        assert_eq!(
            checksums,
            [
                0x2643_04d1,
                0x5cc8_0982,
                0x1dd8_d53f,
                0xa57f_7246,
                0xbda8_5f25
            ]
        );
    }

    #[test]
    fn these_bytes_of_a_symbol_are_part_of_the_wire_contract() {
        let symbol = Symbol {
            sum: 0x0102_0304_0506_0708,
            check: 0x090a_0b0c,
            count: -2,
        };
        let mut wire = Vec::new();
        encode(&[symbol], &mut wire);
        assert_eq!(wire, [8, 7, 6, 5, 4, 3, 2, 1, 12, 11, 10, 9, 254]);
    }

    #[test]
    fn a_part_of_a_symbol_is_refused() {
        assert!(WireSymbols::parse(&[0; 2 * WIRE_LEN]).is_ok());
        let error = WireSymbols::parse(&[0; 2 * WIRE_LEN - 1]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "25 bytes are not a whole number of symbols of 13 bytes"
        );
    }

    proptest! {
        #[test]
        fn symbols_come_back_from_the_wire_with_eight_bits_of_their_counts(
            symbols in vec(any::<(u64, u32, i32)>(), 0..20),
        ) {
            let symbol = |(sum, check, count)| Symbol { sum, check, count };
            let symbols: Vec<_> = symbols.into_iter().map(symbol).collect();
            let mut wire = Vec::new();
            encode(&symbols, &mut wire);
            let parsed = WireSymbols::parse(&wire).unwrap().into_iter();
            prop_assert_eq!(parsed.len(), symbols.len());
            for (parsed, symbol) in parsed.zip(symbols) {
                prop_assert_eq!((parsed.sum, parsed.check), (symbol.sum, symbol.check));
                prop_assert_eq!(parsed.count.rem_euclid(256), symbol.count.rem_euclid(256));
                prop_assert!((-128..128).contains(&parsed.count));
            }
        }
    }
}
