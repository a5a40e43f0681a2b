//! A watch on a manager, followed by a thread of its own.

use std::io::{BufRead, BufReader};
use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use ureq::Agent;

/// Something that a watch told.
#[derive(Clone, Debug)]
pub struct Event {
    /// The number of the pod that was watched.
    pub pod: usize,
    /// When it came.
    pub at: Instant,
    /// What came: an event as the manager tells it, or null at the end of the stream.
    pub said: Value,
}

impl Event {
    /// The kind of event; empty at the end of the stream.
    pub fn kind(&self) -> &str {
        self.said["type"].as_str().unwrap_or_default()
    }

    /// The peer it is about.
    pub fn peer_id(&self) -> Option<&str> {
        self.said["peer"]["peer_id"]
            .as_str()
            .or_else(|| self.said["peer_id"].as_str())
    }
}

/// Follows the changes of the manager at `url`, from now on, until the stream ends. When this
/// returns, the stream has begun: no later change is missed.
pub fn follow(agent: &Agent, url: &str, pod: usize, events: Sender<Event>) -> Result<()> {
    let url = format!("{url}/v1/peers?watch=true");
    let request = agent.get(&url).header("accept", "application/x-ndjson");
    let response = request.call().with_context(|| format!("GET {url}"))?;
    ensure!(
        response.status() == 200,
        "GET {url}: status {}",
        response.status()
    );
    let reader = response
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .reader();
    let mut lines = BufReader::new(reader).lines();
    let first = lines.next().context("the watch ended at once")??;
    let first: Value = serde_json::from_str(&first)?;
    ensure!(first["type"] == "start", "the watch began with {first}");
    std::thread::spawn(move || {
        let parsed = lines
            .map_while(Result::ok)
            .map(|line| serde_json::from_str(&line));
        for said in parsed
            .map_while(Result::ok)
            .chain(std::iter::once(Value::Null))
        {
            // Nobody may be listening any more.
            if events
                .send(Event {
                    pod,
                    at: Instant::now(),
                    said,
                })
                .is_err()
            {
                return;
            }
        }
    });
    Ok(())
}
