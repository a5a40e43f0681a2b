//! A tar archive of small files, compressed with zstd, written as it comes.

use std::io::{self, Write};

/// The default of zstd.
const ZSTD_LEVEL: i32 = 3;

/// An archive that is being written.
pub(super) struct Archive<'a, W: Write> {
    tar: tar::Builder<zstd::Encoder<'a, W>>,
    /// When its files were made, in seconds since 1970.
    made: u64,
}

impl<W: Write> Archive<'_, W> {
    pub(super) fn new(to: W, made: u64) -> io::Result<Self> {
        let tar = tar::Builder::new(zstd::Encoder::new(to, ZSTD_LEVEL)?);
        Ok(Self { tar, made })
    }

    /// Adds a file in the folder `udht-bundle`.
    pub(super) fn file(&mut self, name: &str, body: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(self.made);
        header.set_size(body.len() as u64);
        self.tar
            .append_data(&mut header, format!("udht-bundle/{name}"), body)
    }

    /// Ends it.
    pub(super) fn finish(self) -> io::Result<()> {
        self.tar.into_inner()?.finish()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes, 1_769_855_400).unwrap();
        let sizes = [0, 1, 511, 512, 513, 100_000];
        for size in sizes {
            let body = vec![b'x'; size];
            archive.file(&format!("of/{size}"), &body).unwrap();
        }
        archive.finish().unwrap();
        let mut read = tar::Archive::new(zstd::Decoder::new(&bytes[..]).unwrap());
        let mut found = Vec::new();
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut body = Vec::new();
            entry.read_to_end(&mut body).unwrap();
            assert!(body.iter().all(|byte| *byte == b'x'));
            found.push((entry.path().unwrap().into_owned(), body.len()));
        }
        let all = sizes.map(|size| (format!("udht-bundle/of/{size}").into(), size));
        assert_eq!(found, all);
    }
}
