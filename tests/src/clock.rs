//! A clock of a pod's own, by libfaketime: the programs run as they are, and what they ask the system
//! for the time of day is answered by that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::recipe::output;

/// A clock that can be set while programs go by it.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The library that answers for the system.
    library: String,
    /// How far it is off.
    file: PathBuf,
}

impl Clock {
    /// One that is right; `file` keeps how far it is off.
    pub fn new(file: PathBuf) -> Result<Self> {
        // The program knows where its library is, and tells those that it starts.
        let told = output(Command::new("faketime").args(["-f", "+0s", "env"]), "")?;
        let mut preloaded = told
            .lines()
            .filter_map(|line| line.strip_prefix("LD_PRELOAD="));
        let library = preloaded.next().context("faketime preloads nothing")?;
        let clock = Self {
            library: library.to_owned(),
            file,
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds ahead of this machine's.
    pub fn set(&self, ahead: i64) -> Result<()> {
        // Whoever reads the file meanwhile finds it whole.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{ahead:+}\n")).context("set a clock")?;
        fs::rename(&next, &self.file).context("set a clock")
    }

    /// How `program` is run so that it goes by this clock. How long things take it knows rightly.
    pub(crate) fn under(&self, program: &Path, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
        let set = [
            format!("LD_PRELOAD={}", self.library),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            program.display().to_string(),
        ];
        let words = set.into_iter().chain(arguments).collect();
        (PathBuf::from("env"), words)
    }
}
