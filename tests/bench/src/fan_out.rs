//! How soon a change is with all who watch.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::measure::Samples;
use crate::open_loop::Protocol;

/// How many changes are made.
const CHANGES: usize = 200;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(5);
/// How long anything may take; only a hang is that slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is told of changes, and how these are made.
pub(crate) struct FanOut<'a> {
    pub(crate) address: (Ipv4Addr, u16),
    /// What a watcher asks, and what it is told once it misses nothing any more.
    pub(crate) watch: (&'a [u8], &'a [u8]),
    /// What it is told of each change.
    pub(crate) told: &'a [u8],
    /// What makes the change of this number, and how that is answered, how often.
    pub(crate) change: &'a dyn Fn(usize) -> Vec<u8>,
    pub(crate) protocol: Protocol,
    pub(crate) answers: usize,
}

impl FanOut<'_> {
    /// From the sending of a change until the last of so many watchers has it, in seconds.
    pub(crate) fn measure(&self, watchers: usize) -> Result<Samples> {
        let (sender, had) = channel();
        let mut streams = Vec::new();
        for _ in 0..watchers {
            let stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            (&stream).write_all(self.watch.0)?;
            let watched = stream.try_clone()?;
            let (begun, told) = (self.watch.1.to_vec(), self.told.to_vec());
            let sender = sender.clone();
            // It ends with its stream.
            thread::spawn(move || follow(watched, &begun, &told, &sender));
            had.recv_timeout(PATIENCE).context("a watch to begin")?;
            streams.push(stream);
        }
        let mut writer = TcpStream::connect(self.address)?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        let mut answers = std::io::BufReader::new(writer.try_clone()?);
        let mut samples = Samples::new();
        for number in 0..CHANGES {
            let change = (self.change)(number);
            let sent = Instant::now();
            writer.write_all(&change)?;
            let mut last = sent;
            for _ in 0..watchers {
                last = last.max(had.recv_timeout(PATIENCE).context("a change to be told")?);
            }
            samples.add((last - sent).as_secs_f64());
            for _ in 0..self.answers {
                self.protocol.read(&mut answers)?;
            }
            thread::sleep(PAUSE);
        }
        for stream in streams {
            stream.shutdown(std::net::Shutdown::Both)?;
        }
        Ok(samples)
    }
}

/// Says when the watch has begun, and of each change when it was told.
fn follow(mut stream: TcpStream, begun: &[u8], told: &[u8], had: &Sender<Instant>) {
    let mut unread = Vec::new();
    let mut wanted = begun;
    let mut part = [0; 16 << 10];
    loop {
        let Ok(read @ 1..) = stream.read(&mut part) else {
            return;
        };
        let at = Instant::now();
        unread.extend_from_slice(&part[..read]);
        while let Some(found) = find(&unread, wanted) {
            unread.drain(..found + wanted.len());
            wanted = told;
            if had.send(at).is_err() {
                return;
            }
        }
        // The beginning of what is wanted may be there already.
        let kept = unread.len().min(wanted.len());
        unread.drain(..unread.len() - kept);
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}
