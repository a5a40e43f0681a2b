//! An open loop: requests that become due at a fixed rate, whether earlier ones were answered or not.
//!
//! None of the packaged generators does that: `wrk` and `hey` send when the last answer is there, so
//! that while a server stalls they ask nothing, and the stall is one slow request in place of all
//! those that would have waited (coordinated omission). Here each request is counted from when it was
//! due. A connection whose answer is late sends what became due meanwhile right after it, and all of
//! that waiting counts; so does being late of this program itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;

/// The longest that is told apart, in nanoseconds; what is longer counts as that.
const LONGEST_NS: u64 = 60_000_000_000;
/// How long an answer may take; only a hang is that slow.
const PATIENCE: Duration = Duration::from_mins(1);

/// How an answer ends.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Protocol {
    /// HTTP/1.1 with a Content-Length, and a status of success.
    Http,
    /// Redis: one line, or a value with its length; no error.
    Redis,
}

impl Protocol {
    /// Reads an answer of success.
    pub(crate) fn read(self, answers: &mut impl BufRead) -> Result<()> {
        match self {
            Self::Http => read_http(answers),
            Self::Redis => read_redis(answers),
        }
    }
}

/// What is sent to whom.
pub(crate) struct Load<'a> {
    pub(crate) address: (Ipv4Addr, u16),
    pub(crate) protocol: Protocol,
    pub(crate) connections: u32,
    /// Between two requests, of whichever connections.
    pub(crate) every: Duration,
    pub(crate) last: Duration,
    /// The bytes of the request of this number.
    pub(crate) request: &'a (dyn Fn(usize) -> Vec<u8> + Sync),
}

/// A histogram of nanoseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LONGEST_NS, 3)?)
}

impl Load<'_> {
    /// How long each answer took from when its request was due, in nanoseconds.
    pub(crate) fn run(&self) -> Result<Histogram<u64>> {
        // So that all connections are there when the first request is due.
        let begin = Instant::now() + Duration::from_millis(200);
        let mut all = histogram()?;
        thread::scope(|scope| {
            let connections = (0..self.connections)
                .map(|number| scope.spawn(move || self.connection(number, begin)));
            let connections: Vec<_> = connections.collect();
            for connection in connections {
                let part = connection.join();
                let part = part.map_err(|_| anyhow::anyhow!("a connection panicked"))??;
                all.add(part)?;
            }
            Ok(all)
        })
    }

    /// Every so many-th request, from this number on.
    fn connection(&self, number: u32, begin: Instant) -> Result<Histogram<u64>> {
        let mut histogram = histogram()?;
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let numbers = (number..).step_by(self.connections as usize);
        for number in numbers {
            let after = self.every * number;
            if after >= self.last {
                break;
            }
            let due = begin + after;
            let request = (self.request)(number as usize);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            stream.write_all(&request)?;
            self.protocol.read(&mut answers)?;
            let took = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            histogram.saturating_record(took);
        }
        Ok(histogram)
    }
}

fn read_http(answers: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 2"), "the answer was {line:?}");
    let mut length = 0;
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("a length")?;
        }
    }
    skip(answers, length)
}

fn read_redis(answers: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    match line.split_at_checked(1) {
        Some(("$", length)) => skip(answers, length.trim().parse::<u64>()? + 2),
        Some((":" | "+", _)) => Ok(()),
        _ => bail!("the answer was {line:?}"),
    }
}

fn skip(answers: &mut impl BufRead, bytes: u64) -> Result<()> {
    let skipped = std::io::copy(&mut answers.take(bytes), &mut std::io::sink())?;
    ensure!(skipped == bytes, "the answer broke off");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_stall_counts_for_all_that_became_due_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stall = Duration::from_millis(200);
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = asked.next() {
                if line == "0" {
                    thread::sleep(stall);
                }
                stream.write_all(b"+OK\r\n").unwrap();
            }
        });
        let load = Load {
            address: (Ipv4Addr::LOCALHOST, port),
            protocol: Protocol::Redis,
            connections: 1,
            every: Duration::from_millis(10),
            last: stall,
            request: &|number| format!("{number}\n").into_bytes(),
        };
        let histogram = load.run().unwrap();
        assert_eq!(histogram.len(), 20);
        // A closed loop would have seen one.
        let slow = histogram.len() - histogram.count_between(0, 50_000_000);
        assert!(slow >= 15, "only {slow} were slow");
    }
}
