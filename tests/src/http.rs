//! Requests to a manager or a sync.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use peer_table::contract::State;
use prost::Message;
use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

/// An answer: its status and its body as JSON (null if it has none).
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

impl Answer {
    /// The answer, if its status is one of success.
    pub fn ok(self) -> Result<Value> {
        ensure!(
            (200..300).contains(&self.status),
            "status {}: {}",
            self.status,
            self.body
        );
        Ok(self.body)
    }
}

/// A client that answers every status alike.
pub fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .build()
        .into()
}

/// GET.
pub fn get(agent: &Agent, url: &str) -> Result<Answer> {
    answer(
        agent
            .get(url)
            .call()
            .with_context(|| format!("GET {url}"))?,
    )
}

/// POST of a JSON body.
pub fn post(agent: &Agent, url: &str, body: &Value) -> Result<Answer> {
    answer(
        agent
            .post(url)
            .send_json(body)
            .with_context(|| format!("POST {url}"))?,
    )
}

/// PUT of a JSON body.
pub fn put(agent: &Agent, url: &str, body: &Value) -> Result<Answer> {
    answer(
        agent
            .put(url)
            .send_json(body)
            .with_context(|| format!("PUT {url}"))?,
    )
}

/// DELETE.
pub fn delete(agent: &Agent, url: &str) -> Result<Answer> {
    answer(
        agent
            .delete(url)
            .call()
            .with_context(|| format!("DELETE {url}"))?,
    )
}

/// The text of an answer with status 200.
pub fn text(agent: &Agent, url: &str) -> Result<String> {
    let mut response = agent
        .get(url)
        .call()
        .with_context(|| format!("GET {url}"))?;
    ensure!(
        response.status() == 200,
        "GET {url}: status {}",
        response.status()
    );
    Ok(response.body_mut().read_to_string()?)
}

/// How the manager at `url` stands.
pub fn state(agent: &Agent, url: &str) -> Result<State> {
    let url = format!("{url}/v1/sync/state?symbols=0");
    let mut response = agent
        .get(&url)
        .call()
        .with_context(|| format!("GET {url}"))?;
    ensure!(
        response.status() == 200,
        "GET {url}: status {}",
        response.status()
    );
    Ok(State::decode(&response.body_mut().read_to_vec()?[..])?)
}

/// All records that pass this filter (`label=K=V`, or nothing), page by page; `get` asks a manager for a
/// path.
pub fn pages(mut get: impl FnMut(&str) -> Result<Answer>, filter: &str) -> Result<Vec<Value>> {
    let mut records = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(&format!("/v1/peers?limit=1000{after}&{filter}"))?;
        let mut page = page.ok()?;
        if let Value::Array(peers) = page["peers"].take() {
            records.extend(peers);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(records),
        }
    }
}

fn answer(mut response: Response<ureq::Body>) -> Result<Answer> {
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string()?;
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text:.200}"))?
    };
    Ok(Answer { status, body })
}
