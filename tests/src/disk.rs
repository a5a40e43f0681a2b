//! A small file system of a test's own, to be filled and emptied again.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Where it stands, as those see it who are in its namespace.
const PLACE: &str = "/mnt";
/// What is written at once to fill it: a page, which is what it is made of.
const PAGE_BYTES: usize = 4_096;

/// A file system in memory, which ends with this handle. It stands in namespaces of its own, so that
/// nobody has to be root to make one, and is reached from outside through those of its shell.
#[derive(Debug)]
pub struct Disk {
    shell: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    path: PathBuf,
}

impl Disk {
    /// One of so many bytes; `None` where the system lets this user make none. Where all must be
    /// tested (`CI=true`), that is an error.
    pub fn new(bytes: u64) -> Result<Option<Self>> {
        let mut shell = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run unshare")?;
        let streams = shell.stdin.take().zip(shell.stdout.take());
        let (input, output) = streams.context("the shell of a file system")?;
        let mut disk = Self {
            path: PathBuf::from(format!("/proc/{}/root{PLACE}", shell.id())),
            shell,
            input,
            output: BufReader::new(output),
        };
        match disk.run(&format!("mount -t tmpfs -o size={bytes} udht {PLACE}")) {
            Ok(()) => Ok(Some(disk)),
            Err(error) if std::env::var_os("CI").is_some() => {
                Err(error.context("this user may make no file system, and CI tests full ones"))
            }
            Err(_) => Ok(None),
        }
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the room there is.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::options()
            .create(true)
            .append(true)
            .open(self.path.join("filler"))?;
        loop {
            match filler.write_all(&[1; PAGE_BYTES]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn make_room(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path.join("filler"))?)
    }

    /// Lets it be written, or only be read; no file may be open for writing then.
    pub fn writable(&mut self, writable: bool) -> Result<()> {
        let how = if writable { "rw" } else { "ro" };
        self.run(&format!("mount -o remount,{how} {PLACE}"))
    }

    fn run(&mut self, command: &str) -> Result<()> {
        writeln!(self.input, "{command} && echo done || echo failed")?;
        let mut said = String::new();
        self.output.read_line(&mut said)?;
        if said.is_empty() {
            bail!("its shell has ended");
        }
        ensure!(said.trim() == "done", "{command}: {}", said.trim());
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
