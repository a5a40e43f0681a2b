//! A program that is run to its end, within a time limit.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::interrupt;

/// How long a program may take that was given no limit of its own.
const LIMIT: Duration = Duration::from_mins(1);

/// How often a wait looks whether the user has had enough.
const SLICE: Duration = Duration::from_millis(250);

/// How much of what a failed program said stands in the error.
const SAID_CHARS_MAX: usize = 4_000;

/// A program and its arguments, about to be run.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before it is asked for its outcome"]
pub struct Run {
    program: OsString,
    arguments: Vec<OsString>,
    input: String,
    limit: Duration,
}

/// What a program said, and how it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Outcome {
    /// All that it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl Run {
    /// This program, without arguments.
    pub fn program(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            input: String::new(),
            limit: LIMIT,
        }
    }

    /// With these arguments behind those it has.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        let more = arguments.into_iter().map(|it| it.as_ref().to_owned());
        self.arguments.extend(more);
        self
    }

    /// With this on its standard input.
    pub fn input(mut self, input: impl Into<String>) -> Self {
        self.input = input.into();
        self
    }

    /// Ended after this time.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What it says, if it ends well.
    pub fn output(self) -> Result<String> {
        let shown = self.shown();
        let outcome = self.outcome()?;
        ensure!(
            outcome.status.success(),
            "{shown}: {}: {}",
            outcome.status,
            tail(outcome.said().trim())
        );
        Ok(outcome.stdout)
    }

    /// How it ends, be it well or not.
    pub fn outcome(self) -> Result<Outcome> {
        let shown = self.shown();
        let mut child = Ended(
            Command::new(&self.program)
                .args(&self.arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                // A group of its own: Ctrl-C in a terminal is ours to pass on.
                .process_group(0)
                .spawn()
                .with_context(|| format!("start {shown}"))?,
        );
        let (sender, receiver) = channel();
        let stdout = child.0.stdout.take().context("no standard output")?;
        read(stdout, 0, sender.clone());
        let stderr = child.0.stderr.take().context("no standard error")?;
        read(stderr, 1, sender);
        let mut stdin = child.0.stdin.take().context("no standard input")?;
        let input = self.input;
        // It may end without having read it all.
        std::thread::spawn(move || stdin.write_all(input.as_bytes()));

        let deadline = Instant::now() + self.limit;
        let mut said = [String::new(), String::new()];
        for _ in 0..said.len() {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match receiver.recv_timeout(left.min(SLICE)) {
                    Ok((place, text)) => {
                        said[place] = text;
                        break;
                    }
                    Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                        bail!("{shown}: did not end within {:?}", self.limit)
                    }
                    Err(RecvTimeoutError::Timeout) => interrupt::check()?,
                    Err(RecvTimeoutError::Disconnected) => bail!("{shown}: nobody read it"),
                }
            }
        }
        let status = child
            .0
            .wait()
            .with_context(|| format!("wait for {shown}"))?;
        let [stdout, stderr] = said;
        Ok(Outcome {
            status,
            stdout,
            stderr,
        })
    }

    fn shown(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        words
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A child that ends with its owner.
#[derive(Debug)]
pub(super) struct Ended(pub(super) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(mut from: impl Read + Send + 'static, place: usize, to: Sender<(usize, String)>) {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until it broke is what there is.
        let _ = from.read_to_end(&mut bytes);
        let _ = to.send((place, String::from_utf8_lossy(&bytes).into_owned()));
    });
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(SAID_CHARS_MAX);
    let from = (from..=text.len()).find(|place| text.is_char_boundary(*place));
    &text[from.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_its_output_and_a_bad_end_an_error_that_has_its_words() {
        let said = Run::program("sh").args(["-c", "cat; echo loud >&2"]);
        assert_eq!(said.input("quiet").output().unwrap(), "quiet");
        let bad = Run::program("sh").args(["-c", "echo why >&2; exit 3"]);
        let error = bad.output().unwrap_err().to_string();
        assert!(error.contains("why"), "{error}");
        assert!(error.contains('3'), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let hangs = Run::program("sleep")
            .args(["1000"])
            .within(Duration::from_millis(1));
        let error = hangs.output().unwrap_err().to_string();
        assert!(error.contains("did not end"), "{error}");
    }
}
