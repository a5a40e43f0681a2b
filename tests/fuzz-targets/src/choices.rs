//! Bytes taken for a list of choices.

use arbitrary::Unstructured;

/// Choices that are made by foreign bytes. When they run out, the first is chosen of any, so that
/// every list of bytes is a list of choices and comes to an end.
pub(crate) struct Choices<'a>(Unstructured<'a>);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// A number from 0 to `max`.
    pub(crate) fn up_to(&mut self, max: usize) -> usize {
        self.0.int_in_range(0..=max).unwrap_or(0)
    }

    /// One of these.
    pub(crate) fn of<'o, T>(&mut self, options: &'o [T]) -> &'o T {
        &options[self.up_to(options.len() - 1)]
    }

    /// Yes in one case of `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.up_to(times - 1) == times - 1
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Up to `max` bytes.
    pub(crate) fn bytes(&mut self, max: usize) -> Vec<u8> {
        let wanted = self.up_to(max).min(self.0.len());
        self.0.bytes(wanted).unwrap_or_default().to_vec()
    }

    /// A text of up to `max` bytes.
    pub(crate) fn text(&mut self, max: usize) -> String {
        String::from_utf8_lossy(&self.bytes(max)).into_owned()
    }

    /// Whether there are any left.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes `bytes` at up to four places: a byte is set, put in or taken out, or the rest is cut off.
    pub(crate) fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.up_to(3) {
            let place = self.up_to(bytes.len());
            let byte = self.number().to_le_bytes()[0];
            match self.up_to(3) {
                0 if place < bytes.len() => bytes[place] = byte,
                1 if place < bytes.len() => drop(bytes.remove(place)),
                2 => bytes.truncate(place),
                _ => bytes.insert(place, byte),
            }
        }
    }
}
