//! The whole table as it comes in: decoded, cut into lines, and checked line by line before
//! anything changes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;

use peer_table::Key;
use peer_table::peers::{Body, Draft};
use serde::Deserialize;
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation as _, OutBuffer};

use super::media::Encoding;
use super::problem::{Kind, Problem};
use crate::owner::Owner;

/// The most bytes of one line.
pub(super) const LINE_BYTES_MAX: usize = 64 << 10;
/// The most bytes of all lines. They are held, compressed, until the last of them is checked.
pub(super) const DUMP_BYTES_MAX: usize = 1 << 30;
/// Bytes of lines that are compressed at once.
const PIECE_BYTES: usize = 1 << 20;
/// The fastest: what it makes of lines of peers is about a sixth.
const HELD_LEVEL: i32 = 1;
/// What a frame may ask of memory: 8 MiB, which is as much as `zstd -19` uses.
const WINDOW_LOG_MAX: u32 = 23;
const DECODED_BYTES: usize = 64 << 10;

/// Undoes the encoding of a body.
pub(super) enum Decoder {
    /// There is none.
    Identity,
    /// zstd.
    Zstd(Box<Zstd>),
}

/// The state of a decompression.
pub(super) struct Zstd {
    decoder: ZstdDecoder<'static>,
    out: Vec<u8>,
    /// Whether more may come out without anything going in.
    pending: bool,
    /// Whether the last frame has ended.
    complete: bool,
}

impl Decoder {
    /// A decoder for this encoding.
    pub(super) fn new(encoding: Encoding) -> Result<Self, Problem> {
        match encoding {
            Encoding::Identity => Ok(Self::Identity),
            Encoding::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|error| no_memory(&error))?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
                    .map_err(|error| no_memory(&error))?;
                Ok(Self::Zstd(Box::new(Zstd {
                    decoder,
                    out: vec![0; DECODED_BYTES],
                    pending: false,
                    complete: false,
                })))
            }
        }
    }

    /// Decodes some of `rest`, which then begins after it; `None` once more input is needed.
    pub(super) fn decode<'a, 'i: 'a>(
        &'a mut self,
        rest: &mut &'i [u8],
    ) -> Result<Option<&'a [u8]>, Problem> {
        match self {
            Self::Identity => {
                let all = std::mem::take(rest);
                Ok((!all.is_empty()).then_some(all))
            }
            Self::Zstd(zstd) => zstd.decode(rest),
        }
    }

    /// Whether nothing is missing at the end of the body.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self {
            Self::Zstd(zstd) if !zstd.complete => {
                Err(cut_off("the body ends within a frame of zstd"))
            }
            _ => Ok(()),
        }
    }
}

impl Zstd {
    fn decode(&mut self, rest: &mut &[u8]) -> Result<Option<&[u8]>, Problem> {
        while self.pending || !rest.is_empty() {
            let mut input = InBuffer::around(rest);
            let mut output = OutBuffer::around(&mut self.out[..]);
            let remaining = self.decoder.run(&mut input, &mut output).map_err(|error| {
                let detail = format!("the body is no zstd with a window of up to 8 MiB: {error}");
                Problem::new(Kind::BAD_BODY, detail)
            })?;
            let (taken, made) = (input.pos(), output.pos());
            if remaining == 0 {
                self.complete = true;
            } else if taken > 0 {
                self.complete = false;
            }
            self.pending = made == DECODED_BYTES;
            *rest = &rest[taken..];
            if made > 0 {
                return Ok(Some(&self.out[..made]));
            }
        }
        Ok(None)
    }
}

/// zstd has no memory left to work with.
pub(super) fn no_memory(error: &std::io::Error) -> Problem {
    Problem::new(Kind::UNAVAILABLE, format!("zstd cannot be used: {error}")).retry_after(5)
}

fn cut_off(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::CUT_OFF, detail)
}

/// Cuts text into lines wherever it was cut into pieces.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// How many lines have ended.
    ended: usize,
    /// Bytes of all of them, blank ones too: a small body can decode to any number of these.
    bytes: usize,
}

impl Lines {
    /// Hands each line that ends in `text` to `take`, with its number.
    pub(super) fn push(
        &mut self,
        text: &[u8],
        mut take: impl FnMut(usize, &[u8]) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > DUMP_BYTES_MAX {
            let detail = format!("the dump has more than {DUMP_BYTES_MAX} bytes");
            return Err(Problem::new(Kind::TOO_LARGE, detail).limit(DUMP_BYTES_MAX));
        }
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            if self.begun.len() + piece.len() > LINE_BYTES_MAX + 1 {
                let detail = format!("it has more than {LINE_BYTES_MAX} bytes");
                return Err(Problem::new(Kind::BAD_LINE, detail)
                    .in_line(self.ended + 1)
                    .limit(LINE_BYTES_MAX));
            }
            let Some(end) = piece.strip_suffix(b"\n") else {
                self.begun.extend_from_slice(piece);
                continue;
            };
            self.ended += 1;
            if self.begun.is_empty() {
                take(self.ended, end)?;
            } else {
                self.begun.extend_from_slice(end);
                take(self.ended, &self.begun)?;
                self.begun.clear();
            }
        }
        Ok(())
    }

    /// Hands the last line to `take`, if it has no line end.
    pub(super) fn finish(
        self,
        take: impl FnOnce(usize, &[u8]) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        if self.begun.is_empty() {
            return Ok(());
        }
        take(self.ended + 1, &self.begun)
    }
}

/// Lines that are held compressed, so that a table of a million peers goes in beside the one that it
/// replaces.
#[derive(Default)]
struct Held {
    /// Pieces of [`PIECE_BYTES`] and a line at the most, each of whole lines with their ends.
    pieces: Vec<Vec<u8>>,
    /// The lines that are not in a piece yet.
    open: Vec<u8>,
    /// Of all lines with their ends.
    bytes: usize,
}

impl Held {
    fn push(&mut self, line: &[u8]) -> io::Result<()> {
        self.open.extend_from_slice(line);
        self.open.push(b'\n');
        self.bytes += line.len() + 1;
        if self.open.len() >= PIECE_BYTES {
            self.pieces
                .push(zstd::bulk::compress(&self.open, HELD_LEVEL)?);
            self.open.clear();
        }
        Ok(())
    }

    /// The lines, a piece at a time.
    fn pieces(&self) -> impl Iterator<Item = io::Result<Cow<'_, [u8]>>> {
        let whole = |piece| zstd::bulk::decompress(piece, PIECE_BYTES + LINE_BYTES_MAX + 1);
        let pieces = { self.pieces.iter() }.map(move |piece| whole(piece).map(Cow::Owned));
        pieces.chain([Ok(Cow::Borrowed(&*self.open))])
    }
}

/// The lines of a dump that were checked so far.
pub(super) struct Dump {
    owner: Owner,
    /// Each good line.
    held: Held,
    keys: HashSet<Key>,
    /// Keys that the table does not hold.
    new: usize,
    end: Option<u64>,
}

/// A dump of which every line was checked.
pub(super) struct Checked {
    held: Held,
    /// The keys in it.
    pub(super) keys: HashSet<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndLine {
    end: EndCount,
}

#[derive(Deserialize)]
struct EndCount {
    records: u64,
}

impl Dump {
    /// No lines yet; the table of `owner` is what they are checked against.
    pub(super) fn new(owner: Owner) -> Self {
        Self {
            owner,
            held: Held::default(),
            keys: HashSet::new(),
            new: 0,
            end: None,
        }
    }

    /// Checks a line.
    pub(super) fn take(&mut self, number: usize, line: &[u8]) -> Result<(), Problem> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let bad = |detail: String| Problem::new(Kind::BAD_LINE, detail).in_line(number);
        if self.end.is_some() {
            return Err(bad("it comes after the end line".to_owned()));
        }
        let body = match Body::from_json(line) {
            Ok(body) => body,
            Err(invalid) => {
                if invalid.field == "end"
                    && let Ok(EndLine { end }) = serde_json::from_slice(line)
                {
                    self.end = Some(end.records);
                    return Ok(());
                }
                if invalid.field == "end" {
                    let detail =
                        "end: must be {\"records\": N}, as the last line of an export has it";
                    return Err(bad(detail.to_owned()).about("end"));
                }
                return Err(Problem::record(line, invalid).into_bad_line(number));
            }
        };
        let Some(key) = body.peer_id else {
            return Err(bad("peer_id: is missing".to_owned()).about("peer_id"));
        };
        self.check(&key, body.draft, number)?;
        if !self.keys.insert(key.clone()) {
            return Err(bad(format!("{key} was in an earlier line already")).about("peer_id"));
        }
        if self.held.bytes + line.len() >= DUMP_BYTES_MAX {
            let problem = Problem::too_large(DUMP_BYTES_MAX);
            return Err(problem.in_line(number));
        }
        self.held.push(line).map_err(|error| no_memory(&error))
    }

    fn check(&mut self, key: &Key, draft: Draft, number: usize) -> Result<(), Problem> {
        let records_max = self.owner.records_max();
        if self.keys.len() == records_max {
            return Err(Problem::full(records_max).in_line(number));
        }
        match self.owner.rehearse_put(key, draft) {
            Ok(is_new) => {
                self.new += usize::from(is_new);
                Ok(())
            }
            Err(refused) => {
                let problem = Problem::refused(key, refused);
                Err(if problem.kind() == Kind::FULL {
                    problem.in_line(number)
                } else {
                    problem.into_bad_line(number)
                })
            }
        }
    }

    /// All lines, if nothing is missing and the table has room for them.
    pub(super) fn finish(self, end_is_optional: bool) -> Result<Checked, Problem> {
        let records = self.keys.len();
        match self.end {
            None if !end_is_optional => {
                return Err(cut_off(
                    "the end line is missing, as if the dump was cut off; if it is whole, add \
                     end=optional",
                ));
            }
            Some(said) if u64::try_from(records) != Ok(said) => {
                let detail = format!("the end line says {said} records, and {records} came");
                return Err(cut_off(detail));
            }
            _ => {}
        }
        let (live, tombstones) = self.owner.counts();
        let records_max = self.owner.records_max();
        if live + tombstones + self.new > records_max {
            return Err(Problem::full(records_max));
        }
        Ok(Checked {
            held: self.held,
            keys: self.keys,
        })
    }
}

impl Checked {
    /// What the lines say, some of them at a time.
    pub(super) fn parts(&self) -> impl Iterator<Item = Result<Vec<(Key, Draft)>, Problem>> {
        self.held.pieces().map(|piece| {
            let piece = piece.map_err(|error| no_memory(&error))?;
            let lines = piece.split(|byte| *byte == b'\n');
            // Each line was read before; what is empty is behind the last line end.
            let records = lines.filter_map(|line| {
                let body = Body::from_json(line).ok()?;
                Some((body.peer_id?, body.draft))
            });
            Ok(records.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_held_compressed_and_come_back_whole_and_in_order() {
        let line = |n: usize| {
            format!(
                "{{\"peer_id\":\"p{n}\",\"name\":\"{}\"}}",
                "x".repeat(n % 999)
            )
        };
        let mut held = Held::default();
        let lines: Vec<_> = (0..9_000).map(line).collect();
        for line in &lines {
            held.push(line.as_bytes()).unwrap();
        }
        let all = lines.join("\n") + "\n";
        let pieces: Vec<_> = held.pieces().map(|piece| piece.unwrap()).collect();
        assert!(pieces.len() > 3 && pieces.concat() == all.as_bytes());
        assert_eq!(held.bytes, all.len());
        let longest = vec![b'x'; LINE_BYTES_MAX];
        for _ in 0..9 {
            held.push(&longest).unwrap();
        }
        assert!(held.pieces().all(|piece| piece.unwrap().ends_with(b"\n")));
        let kept: usize = held.pieces.iter().map(Vec::len).sum();
        assert!(kept * 5 < held.bytes);
    }

    #[test]
    fn blank_lines_count_too_so_that_a_small_body_decodes_to_a_bounded_one() {
        let mut lines = Lines {
            bytes: DUMP_BYTES_MAX - 2,
            ..Lines::default()
        };
        assert!(lines.push(b"\n\n", |_, _| Ok(())).is_ok());
        assert!(lines.push(b"\n", |_, _| Ok(())).is_err());
    }
}
