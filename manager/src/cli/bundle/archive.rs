//! A tar archive (POSIX ustar) of small files, compressed with zstd, written as it comes.

use std::io::{self, Write};

/// The default of zstd.
const ZSTD_LEVEL: i32 = 3;
const BLOCK_BYTES: usize = 512;

/// An archive that is being written.
pub(super) struct Archive<'a, W: Write> {
    to: zstd::Encoder<'a, W>,
    /// When its files were made, in seconds since 1970.
    made: u64,
}

impl<W: Write> Archive<'_, W> {
    pub(super) fn new(to: W, made: u64) -> io::Result<Self> {
        let to = zstd::Encoder::new(to, ZSTD_LEVEL)?;
        Ok(Self { to, made })
    }

    /// Adds a file in the folder `udht-bundle`.
    pub(super) fn file(&mut self, name: &str, body: &[u8]) -> io::Result<()> {
        let header = header(&format!("udht-bundle/{name}"), body.len(), self.made);
        self.to.write_all(&header)?;
        self.to.write_all(body)?;
        let rest = body.len().next_multiple_of(BLOCK_BYTES) - body.len();
        self.to.write_all(&[0; BLOCK_BYTES][..rest])
    }

    /// Ends it, by two empty blocks.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.to.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.to.finish()?.flush()
    }
}

/// The block that stands before a file. Fields are text at fixed places; numbers are octal.
fn header(name: &str, bytes: usize, made: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &str| {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{bytes:011o}\0"));
    put(136, &format!("{:011o}\0", made & 0o777_7777_7777));
    // The sum is taken with blanks in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn tar_unpacks_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes, 1_769_855_400).unwrap();
        let sizes = [0, 1, 511, 512, 513, 100_000];
        for size in sizes {
            let body = vec![b'x'; size];
            archive.file(&format!("of/{size}"), &body).unwrap();
        }
        archive.finish().unwrap();
        let bytes = zstd::decode_all(&bytes[..]).unwrap();
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        let tar = Command::new("tar")
            .args(["--extract", "--file=-"])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut tar) = tar else {
            println!("skipped: tar is needed");
            return;
        };
        tar.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(tar.wait().unwrap().success());
        for size in sizes {
            let path = folder.path().join(format!("udht-bundle/of/{size}"));
            assert_eq!(std::fs::read(path).unwrap(), vec![b'x'; size]);
        }
    }
}
