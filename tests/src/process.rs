//! A child process whose log is read, and that ends with its owner.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long anything that is awaited may take. It is no measure of speed: only a hang is that slow.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Lines of a process's log that are kept for an error's text.
const LOG_LINES_KEPT: usize = 40;

/// Where [`program`] looks, if not beside this one.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Has [`program`] look in this folder, from the first call on.
pub fn programs_in(folder: PathBuf) {
    FOLDER.get_or_init(|| folder);
}

/// The program of this name that was built beside this one, or lies in the folder that was named.
pub fn program(name: &str) -> Result<PathBuf> {
    if let Some(folder) = FOLDER.get() {
        let path = folder.join(name);
        let is_there = path.is_file().then_some(path);
        return is_there.with_context(|| format!("no {name} in {}", folder.display()));
    }
    let here = std::env::current_exe().context("where is this program?")?;
    let beside = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name));
    let found = beside.into_iter().find(|path| path.is_file());
    found.with_context(|| format!("no {name} beside {}: `make test` builds it", here.display()))
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts `program` with `arguments`. Its log (standard error, and standard output where a
    /// program has it there) is read as it comes.
    pub fn start(name: &str, program: &Path, arguments: &[String]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .env_remove("UDHT_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, lines) = channel();
        let streams = child.stderr.take().zip(child.stdout.take());
        let (stderr, stdout) = streams.context("the log of a child that was just started")?;
        let (kept, other) = (Arc::clone(&log), sender.clone());
        std::thread::spawn(move || read_log(stderr, &other, &kept));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || read_log(stdout, &sender, &kept));
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
            log,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line of its log contains `part`, and gives that line.
    pub fn wait_for_log(&mut self, part: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(part) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "{} did not say {part:?}; its log:\n{}",
                        self.name,
                        self.log()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "{} ended without saying {part:?}; its log:\n{}",
                        self.name,
                        self.log()
                    )
                }
            }
        }
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Ends it as kill -9 does.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("kill {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let id = self.child.id().to_string();
        let asked = Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .context("run kill")?;
        if !asked.success() {
            bail!("{} could not be asked to end", self.name);
        }
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        let status = self.child.try_wait();
        let status = status.with_context(|| format!("look for {}", self.name))?;
        Ok(status.is_some())
    }

    /// Its resident memory in bytes, as the kernel tells.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most that its resident memory ever was, in bytes, as the kernel tells.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kib: u64 = kib
            .with_context(|| format!("no {field} in the status of a process"))?
            .trim()
            .parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_log(stream: impl Read, lines: &Sender<String>, kept: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let mut log = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES_KEPT {
            log.pop_front();
        }
        log.push_back(line.clone());
        drop(log);
        // Nobody may be waiting for a line any more.
        let _ = lines.send(line);
    }
}
