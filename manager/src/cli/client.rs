//! The client of one manager: bounded in time and in bytes, and its errors are [`Failure`]s.

use std::io::{BufReader, Read};
use std::time::Duration;

use peer_table::peers::Peer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Response, request};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, AsSendBody, Body, BodyReader};

use super::args::{FilterArgs, Manager};
use super::early::HungUp;
use super::failure::{Failure, Refusal};
use super::lines::Lines;

/// The longest answer that is held as a whole, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The media type of one JSON value a line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// How long a call may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// 2 s in all: a probe.
    Probe,
    /// 10 s in all: one record.
    Record,
    /// 10 s for the answer to begin, and then 60 s from one part to the next: a stream. A watch
    /// has a heartbeat every 15 s.
    Stream,
    /// As long as it works: many records at once.
    Work,
}

/// Speaks to one manager.
pub(crate) struct Client {
    manager: Manager,
    agent: Agent,
    hung_up: HungUp,
}

impl Client {
    pub(crate) fn new(manager: Manager) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A kept connection may be closed by the time that it is used again, and not every
            // request can be repeated.
            .max_idle_connections(0)
            .max_redirects_will_error(false)
            // A manager is on loopback or forwarded to it; a proxy of the environment is not meant.
            .proxy(None)
            .user_agent(concat!("udht-manager/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(2)))
            .build();
        let hung_up = HungUp::default();
        let connector = TcpConnector::default().chain(hung_up.clone());
        let agent = Agent::with_parts(config, connector, DefaultResolver::default());
        Self {
            manager,
            agent,
            hung_up,
        }
    }

    /// Who is spoken to.
    pub(crate) const fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Whether the manager takes no more of the request that is being sent.
    pub(crate) fn hung_up(&self) -> HungUp {
        self.hung_up.clone()
    }

    /// A request to be completed and sent with [`Client::send`].
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
    ) -> request::Builder {
        let mut uri = format!("{}{path}", self.manager);
        for (number, (name, value)) in query.iter().enumerate() {
            uri.push(if number == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            encode(&mut uri, value);
        }
        Request::builder().method(method).uri(uri)
    }

    /// Sends it; an answer that is no success is a [`Failure`].
    pub(crate) fn send(
        &self,
        request: request::Builder,
        body: impl AsSendBody,
        patience: Patience,
    ) -> Result<Answer, Failure> {
        let request = request
            .body(body)
            .map_err(|error| Failure::Usage(format!("no request: {error}")))?;
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let config = self.agent.configure_request(request);
        let request = match patience {
            Patience::Probe => config.timeout_global(seconds(2)),
            Patience::Record => config.timeout_global(seconds(10)),
            Patience::Stream => config
                .timeout_recv_response(seconds(10))
                .timeout_per_read(seconds(60)),
            Patience::Work => config.timeout_per_write(seconds(60)),
        }
        .build();
        let response = self
            .agent
            .run(request)
            .map_err(|error| Failure::of_request(&self.manager, error))?;
        let answer = Answer {
            manager: self.manager.clone(),
            response,
        };
        match answer.response.status().as_u16() {
            200..300 => Ok(answer),
            400.. => Err(answer.into_refusal()),
            status => Err(answer.strange(format!("it answered with status {status}"))),
        }
    }

    /// `GET /v1/peers` as a stream, with the token from which to watch.
    pub(crate) fn list(
        &self,
        filter: &FilterArgs,
        page: &[(&'static str, String)],
    ) -> Result<Answer, Failure> {
        let query = [filter.to_query(), page.to_vec()].concat();
        let request = self
            .request(Method::GET, "/v1/peers", &query)
            .header("accept", NDJSON);
        self.send(request, (), Patience::Stream)
    }
}

/// Escapes all that has a meaning in a query (RFC 3986, section 2.3).
fn encode(uri: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            uri.push(byte.into());
        } else {
            uri.push('%');
            uri.extend([byte >> 4, byte & 15].map(|digit| {
                char::from_digit(digit.into(), 16)
                    .expect("four bits")
                    .to_ascii_uppercase()
            }));
        }
    }
}

/// A manager's answer to a call that succeeded.
pub(crate) struct Answer {
    manager: Manager,
    response: Response<Body>,
}

impl Answer {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    }

    /// One peer.
    pub(crate) fn peer(self) -> Result<Received, Failure> {
        let manager = self.manager.clone();
        let bytes = self.bytes()?;
        Received::parse(&bytes).map_err(|error| not_json(&manager, "a peer", &error))
    }

    /// One JSON object of another kind.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let manager = self.manager.clone();
        let bytes = self.bytes()?;
        serde_json::from_slice(&bytes).map_err(|error| not_json(&manager, "what was asked", &error))
    }

    /// The same, and as it was sent, so that a field of a later release is not lost.
    pub(crate) fn json_as_sent<T: DeserializeOwned>(self) -> Result<(String, T), Failure> {
        let manager = self.manager.clone();
        let bytes = self.bytes()?;
        let known = serde_json::from_slice(&bytes)
            .map_err(|error| not_json(&manager, "what was asked", &error))?;
        let json = String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
        Ok((json, known))
    }

    /// The lines of a stream.
    pub(crate) fn lines(self) -> AnswerLines {
        let reader = BufReader::with_capacity(64 * 1024, self.response.into_body().into_reader());
        AnswerLines {
            manager: self.manager,
            lines: Lines::new(reader),
        }
    }

    /// That this answer is not one of a manager.
    pub(crate) fn strange(&self, cause: String) -> Failure {
        Failure::NotAManager {
            manager: self.manager.clone(),
            cause,
        }
    }

    fn bytes(self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut body = self
            .response
            .into_body()
            .into_reader()
            .take(ANSWER_BYTES_MAX + 1);
        body.read_to_end(&mut bytes)
            .map_err(|error| Failure::of_io(&self.manager, error))?;
        if bytes.len() as u64 > ANSWER_BYTES_MAX {
            let cause = format!("its answer is longer than {ANSWER_BYTES_MAX} bytes");
            return Err(Failure::NotAManager {
                manager: self.manager,
                cause,
            });
        }
        Ok(bytes)
    }

    fn into_refusal(self) -> Failure {
        let status = self.response.status().as_u16();
        let retry_after = self.header("retry-after").map(str::to_owned);
        // What was understood of a problem that is cut off is still worth showing.
        let mut body = Vec::new();
        let _ = self
            .response
            .into_body()
            .into_reader()
            .take(64 * 1024)
            .read_to_end(&mut body);
        Failure::Refused(Box::new(Refusal::new(
            status,
            &body,
            retry_after.as_deref(),
        )))
    }
}

fn not_json(manager: &Manager, wanted: &str, error: &serde_json::Error) -> Failure {
    let cause = format!("its answer is not {wanted} ({error})");
    Failure::NotAManager {
        manager: manager.clone(),
        cause,
    }
}

/// The lines of a stream of a manager.
pub(crate) struct AnswerLines {
    manager: Manager,
    lines: Lines<BufReader<BodyReader<'static>>>,
}

impl AnswerLines {
    /// The next line; `None` at the end of the answer, which is then whole.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        self.lines
            .next()
            .map_err(|error| Failure::of_io(&self.manager, error))
    }

    /// The next entry of a list of peers.
    pub(crate) fn next_listed(&mut self) -> Result<Option<Listed>, Failure> {
        let Some(line) = self
            .lines
            .next()
            .map_err(|error| Failure::of_io(&self.manager, error))?
        else {
            return Ok(None);
        };
        match Received::parse(line) {
            Ok(received) => Ok(Some(Listed::Peer(received.into()))),
            Err(error) => match serde_json::from_slice::<NextPage>(line) {
                Ok(page) => Ok(Some(Listed::More { after: page.next })),
                Err(_) => Err(self.strange("a peer", &error)),
            },
        }
    }

    /// Whether a line can be had without waiting for the manager.
    pub(crate) fn has_next_at_hand(&self) -> bool {
        self.lines.reader().buffer().contains(&b'\n')
    }

    /// That the line that was read last is not `wanted`.
    pub(crate) fn strange(&self, wanted: &str, error: &serde_json::Error) -> Failure {
        let line = self.lines.number();
        let cause = format!("line {line} of its answer is not {wanted} ({error})");
        Failure::NotAManager {
            manager: self.manager.clone(),
            cause,
        }
    }

    /// That the answer ended although it was not whole.
    pub(crate) fn cut_off(&self, cause: String) -> Failure {
        Failure::CutOff {
            manager: self.manager.clone(),
            cause,
        }
    }
}

/// A peer, and the JSON in which it came, so that a field of a later release is not lost.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// What it says.
    pub(crate) peer: Peer,
    /// The same as it was sent.
    pub(crate) json: String,
}

impl Received {
    fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let peer = serde_json::from_slice(bytes)?;
        Ok(Self {
            peer,
            json: String::from_utf8_lossy(bytes.trim_ascii()).into_owned(),
        })
    }
}

/// One entry of a list.
pub(crate) enum Listed {
    /// A peer.
    Peer(Box<Received>),
    /// The last one, if the limit cut the list: there is more after this key.
    More {
        /// The last key that was listed.
        after: String,
    },
}

#[derive(Deserialize)]
struct NextPage {
    next: String,
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::testing::{Canned, PEER, chunked, json, problem};
    use super::*;

    fn get(client: &Client) -> Result<Received, Failure> {
        client
            .send(
                client.request(Method::GET, "/v1/peers/p1", &[]),
                (),
                Patience::Record,
            )?
            .peer()
    }

    fn failure_of(answer: impl Into<Vec<u8>>) -> Failure {
        let canned = Canned::new([answer.into()]);
        get(&canned.client()).unwrap_err()
    }

    #[test]
    fn a_peer_is_received_with_the_json_it_came_in() {
        let with_more = PEER.replacen('{', r#"{"later":{"b":1,"a":2},"#, 1);
        let canned = Canned::new([json(&with_more)]);
        let received = get(&canned.client()).unwrap();
        assert_eq!(received.peer.peer_id, "p1");
        assert_eq!(received.json, with_more);
    }

    #[test]
    fn a_query_is_escaped() {
        let client = Client::new("http://127.0.0.1:1".parse().unwrap());
        let query = [("label", "k=ä &#%".to_owned()), ("name", "a.b".to_owned())];
        let request = client
            .request(Method::GET, "/v1/peers", &query)
            .body(())
            .unwrap();
        assert_eq!(
            request.uri().to_string(),
            "http://127.0.0.1:1/v1/peers?label=k%3D%C3%A4%20%26%23%25&name=a.b"
        );
    }

    #[test]
    fn each_refusal_says_what_the_problem_says() {
        for (status, code) in [(404, 3), (409, 4), (412, 4), (421, 1), (422, 1), (503, 5)] {
            let failure = failure_of(problem(status, "do this", "ports.userSync"));
            assert_eq!(failure.exit_code(), code);
            assert_eq!(
                failure.to_string(),
                format!("do this (status {status}, field ports.userSync)")
            );
        }
    }

    #[test]
    fn nobody_listening_names_the_address_and_how_to_start_or_forward_a_manager() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let manager = format!("http://127.0.0.1:{port}");
        let failure = get(&Client::new(manager.parse().unwrap())).unwrap_err();
        assert_eq!(failure.exit_code(), 5);
        let text = failure.to_string();
        for part in [
            manager.as_str(),
            "udht-manager serve",
            "kubectl port-forward",
            "--manager",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_connection_that_is_closed_without_an_answer_counts_as_unavailable() {
        let failure = failure_of("");
        assert!(matches!(failure, Failure::CutOff { .. }), "{failure:?}");
        assert_eq!(failure.exit_code(), 5);
    }

    #[test]
    fn an_answer_that_is_cut_off_counts_as_unavailable() {
        let whole = json(PEER);
        let failure = failure_of(&whole[..whole.len() - 5]);
        assert!(matches!(failure, Failure::CutOff { .. }), "{failure:?}");
    }

    #[test]
    fn garbage_is_not_taken_for_a_manager() {
        let html = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n<p>Hi</p>";
        let redirect = "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n";
        let mut no_utf8 = json(PEER);
        no_utf8
            .iter_mut()
            .filter(|byte| **byte == b'f')
            .for_each(|byte| *byte = 0xff);
        for answer in [
            &b"SSH-2.0-OpenSSH_9.7\r\n\r\n"[..],
            html.as_bytes(),
            redirect.as_bytes(),
            &no_utf8,
        ] {
            let failure = failure_of(answer);
            assert!(
                matches!(failure, Failure::NotAManager { .. }),
                "{failure:?}"
            );
            assert_eq!(failure.exit_code(), 1);
            assert!(failure.to_string().contains("--manager"), "{failure}");
        }
    }

    #[test]
    fn an_endless_answer_is_not_read_to_its_end() {
        let body = "x".repeat(2 << 20);
        let failure = failure_of(json(&body));
        assert!(
            failure.to_string().contains("longer than 1048576 bytes"),
            "{failure}"
        );
        let failure = failure_of(format!("HTTP/1.1 200 OK\r\nx: {body}\r\n\r\n"));
        assert!(
            matches!(failure, Failure::NotAManager { .. }),
            "{failure:?}"
        );
    }

    #[test]
    fn a_list_is_read_line_by_line_to_the_note_of_the_next_page() {
        let page = r#"{"next":"p1","revision":"1.1"}"#;
        let canned = Canned::new([chunked(&[PEER, "\n", page, "\n"], true)]);
        let mut lines = canned
            .client()
            .list(&FilterArgs::default(), &[])
            .unwrap()
            .lines();
        assert!(matches!(
            lines.next_listed().unwrap(),
            Some(Listed::Peer(_))
        ));
        assert!(
            matches!(lines.next_listed().unwrap(), Some(Listed::More { after }) if after == "p1")
        );
        assert!(lines.next_listed().unwrap().is_none());
    }

    #[test]
    fn a_stream_that_is_cut_off_is_an_error_and_not_an_end() {
        let canned = Canned::new([chunked(&[PEER, "\n"], false)]);
        let mut lines = canned
            .client()
            .list(&FilterArgs::default(), &[])
            .unwrap()
            .lines();
        lines.next().unwrap().unwrap();
        let failure = lines.next().unwrap_err();
        assert!(matches!(failure, Failure::CutOff { .. }), "{failure:?}");
    }
}
