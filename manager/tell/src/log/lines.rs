//! The last lines of the log, for whoever has only just begun to look.

use std::collections::VecDeque;
use std::io::{self, Write, stderr};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// So many lines are kept at the most.
pub const LINES_MAX: usize = 1_000;
/// So many bytes of lines are kept at the most.
pub const LINES_BYTES_MAX: usize = 512 << 10;
/// A longer line is written, and not kept.
const LINE_BYTES_MAX: usize = 16 << 10;

/// The last lines, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Box<str>>,
    bytes: usize,
}

impl Lines {
    /// Keeps this line, and lets go of the oldest ones if there are too many.
    fn keep(&self, line: &[u8]) {
        let line = if line.len() <= LINE_BYTES_MAX {
            String::from_utf8_lossy(line).into()
        } else {
            let bytes = line.len();
            format!("{{\"message\":\"a line of {bytes} bytes is not kept\"}}\n").into_boxed_str()
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.lines.len() > LINES_MAX || kept.bytes > LINES_BYTES_MAX {
            let oldest = kept.lines.pop_front().map_or(0, |line| line.len());
            kept.bytes -= oldest;
        }
    }

    /// All of them.
    pub(crate) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(kept.bytes);
        kept.lines.iter().for_each(|line| text.push_str(line));
        text
    }
}

/// Where lines in JSON are written: they are kept, and may go to standard error too.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    lines: Arc<Lines>,
    is_echoed: bool,
}

impl Written {
    pub(crate) fn new(lines: &Arc<Lines>, is_echoed: bool) -> Self {
        let lines = Arc::clone(lines);
        Self { lines, is_echoed }
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Each write is one whole line: so the layer above makes them.
impl Write for &Written {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.keep(line);
        if self.is_echoed {
            stderr().write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_their_bounds() {
        let lines = Lines::default();
        for number in 0..=LINES_MAX {
            lines.keep(format!("{number}\n").as_bytes());
        }
        let text = lines.text();
        assert_eq!(text.lines().count(), LINES_MAX);
        assert!(text.starts_with("1\n") && text.ends_with(&format!("{LINES_MAX}\n")));

        let long = [b'x'; LINE_BYTES_MAX];
        for _ in 0..=LINES_BYTES_MAX / LINE_BYTES_MAX {
            lines.keep(&long);
        }
        assert_eq!(lines.text().len(), LINES_BYTES_MAX);
        lines.keep(&vec![b'y'; LINE_BYTES_MAX + 1]);
        assert!(lines.text().ends_with("16385 bytes is not kept\"}\n"));
        assert!(!lines.text().contains('y'.to_string().repeat(2).as_str()));
    }
}
