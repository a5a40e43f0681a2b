//! Lines of a stream, bounded: an endless line is an error, not an endless buffer.

use std::io::{self, BufRead, Read};

/// The longest line, in bytes: a record has 64 KiB at the most.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// Reads one line after the other.
pub(crate) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            line: Vec::new(),
            number: 0,
        }
    }

    /// The next line that is not blank, without the white space around it; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            self.line.clear();
            let mut bounded = self.reader.by_ref().take(LINE_BYTES_MAX as u64 + 1);
            if bounded.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.line.len() > LINE_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("line {} is longer than {LINE_BYTES_MAX} bytes", self.number),
                ));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(self.line.trim_ascii()));
            }
        }
    }

    /// The number of the line that was read last, counted from 1.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// What is read from.
    pub(crate) const fn reader(&self) -> &R {
        &self.reader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_skipped_and_counted() {
        let mut lines = Lines::new(&b"a\r\n\n  \nb"[..]);
        assert_eq!(lines.next().unwrap(), Some(&b"a"[..]));
        assert_eq!(lines.next().unwrap(), Some(&b"b"[..]));
        assert_eq!(lines.number(), 4);
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let mut lines = Lines::new(io::BufReader::new(io::repeat(b'x')));
        let error = lines.next().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(
            error
                .to_string()
                .contains("line 1 is longer than 1048576 bytes"),
            "{error}"
        );
    }
}
