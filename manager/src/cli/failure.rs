//! What can go wrong for a client, what it says of it, and the exit code that tells a script.

use std::io;

use serde::Deserialize;
use serde_json::Value;

use super::args::Manager;
use super::output::printable;

/// The longest text of a manager's answer that is repeated in an error, in characters.
const DETAIL_CHARS_MAX: usize = 1000;

/// Why a verb did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for something that does not go together.
    #[error("{0}")]
    Usage(String),

    /// What the user gave cannot be used: a file that is not there or not what it should be.
    #[error("{0}")]
    Input(String),

    /// Nobody listens there.
    #[error(
        "cannot reach a manager at {manager} ({cause}). Start one with `udht-manager serve`, or \
         forward a pod's with `kubectl port-forward POD 3002`; --manager URL names another address."
    )]
    Unreachable {
        /// Where it was looked for.
        manager: Manager,
        /// What the connection said.
        cause: String,
    },

    /// It took the connection and then kept silent.
    #[error(
        "the manager at {manager} did not answer in time ({cause}). Try again; \
         `udht-manager healthcheck --ready` says whether it is ready."
    )]
    Silent {
        /// Who was asked.
        manager: Manager,
        /// Which wait was too long.
        cause: String,
    },

    /// The connection broke before the answer was whole.
    #[error(
        "the manager at {manager} broke the connection before its answer was whole ({cause}). \
         Try again; if it happens again, its log says why."
    )]
    CutOff {
        /// Who was asked.
        manager: Manager,
        /// What the connection said.
        cause: String,
    },

    /// What answered does not speak as a manager does.
    #[error(
        "what answers at {manager} does not speak as a manager of this release does: {cause}. \
         Check the address (--manager) and the version of the manager."
    )]
    NotAManager {
        /// Who was asked.
        manager: Manager,
        /// What was wrong with the answer.
        cause: String,
    },

    /// The manager refused.
    #[error("{0}")]
    Refused(Box<Refusal>),

    /// Changes of a watch were missed, and it was asked to end then.
    #[error("changes were missed ({0}). Begin again with `udht-manager watch --all`.")]
    Missed(String),

    /// The manager is not healthy, or not there.
    #[error("unhealthy: {0}")]
    Unhealthy(Box<Failure>),

    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

impl Failure {
    /// The code to exit with; the help of the program tells users.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } | Self::Silent { .. } | Self::CutOff { .. } => 5,
            Self::Refused(refusal) => match refusal.status {
                404 if refusal.is_problem => 3,
                409 | 410 | 412 | 428 => 4,
                429 | 502 | 503 | 504 => 5,
                _ => 1,
            },
            Self::Missed(_) => 4,
            Self::Input(_) | Self::NotAManager { .. } | Self::Unhealthy(_) | Self::Output(_) => 1,
        }
    }

    /// Whether the same may succeed a while later without anything else being done.
    pub(crate) fn may_pass(&self) -> bool {
        self.exit_code() == 5
    }

    /// Whether nobody reads the output any more, which needs no words.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What went wrong with a request to `manager`.
    pub(crate) fn of_request(manager: &Manager, error: ureq::Error) -> Self {
        use ureq::{Error, Timeout};
        let manager = manager.clone();
        let cause = printable(&error.to_string()).into_owned();
        match error {
            Error::Timeout(Timeout::Connect | Timeout::Resolve)
            | Error::HostNotFound
            | Error::ConnectionFailed => Self::Unreachable { manager, cause },
            Error::Timeout(_) => Self::Silent { manager, cause },
            Error::Io(error) => Self::of_io(&manager, error),
            _ => Self::NotAManager { manager, cause },
        }
    }

    /// What went wrong while an answer of `manager` was read.
    pub(crate) fn of_io(manager: &Manager, error: io::Error) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof,
        };
        let manager = manager.clone();
        match error.downcast::<ureq::Error>() {
            Ok(error) => Self::of_request(&manager, error),
            Err(error) => {
                let cause = printable(&error.to_string()).into_owned();
                match error.kind() {
                    BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => {
                        Self::CutOff { manager, cause }
                    }
                    InvalidData => Self::NotAManager { manager, cause },
                    _ => Self::Unreachable { manager, cause },
                }
            }
        }
    }
}

/// A refusal: what the manager's problem document (RFC 9457) says.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The status of the answer.
    pub(crate) status: u16,
    /// Whether a manager said so, and not something else that is there.
    is_problem: bool,
    detail: String,
    field: Option<String>,
    limit: Option<String>,
    retry_after: Option<String>,
}

#[derive(Deserialize)]
struct ProblemDocument {
    title: Option<String>,
    detail: Option<String>,
    field: Option<String>,
    limit: Option<Value>,
}

impl Refusal {
    /// Reads the body of an answer with this status; anything but a problem document is repeated
    /// as it is, shortened.
    pub(crate) fn new(status: u16, body: &[u8], retry_after: Option<&str>) -> Self {
        let known = serde_json::from_slice(body).unwrap_or_else(|_| ProblemDocument {
            title: None,
            detail: Some(String::from_utf8_lossy(body).trim().to_owned()),
            field: None,
            limit: None,
        });
        let is_problem = known.title.is_some();
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let detail = said(known.detail)
            .or(said(known.title))
            .unwrap_or_else(|| "the manager refused and did not say why".to_owned());
        Self {
            status,
            is_problem,
            detail: shorten(&detail),
            field: said(known.field).map(|field| shorten(&field)),
            limit: known.limit.map(|limit| match limit {
                Value::String(text) => shorten(&text),
                other => shorten(&other.to_string()),
            }),
            retry_after: retry_after
                .and_then(|seconds| seconds.parse::<u32>().ok())
                .map(|seconds| format!("try again in {seconds} s")),
        }
    }

    /// What to do, in the manager's words, without a dot at the end.
    pub(crate) fn detail(&self) -> &str {
        self.detail.trim_end_matches('.')
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (status {}", self.detail, self.status)?;
        let is_named = |field: &&String| !self.detail.starts_with(&format!("{field}: "));
        if let Some(field) = self.field.as_ref().filter(is_named) {
            write!(f, ", field {field}")?;
        }
        if let Some(limit) = &self.limit {
            write!(f, ", limit {limit}")?;
        }
        if let Some(retry_after) = &self.retry_after {
            write!(f, ", {retry_after}")?;
        }
        write!(f, ")")
    }
}

fn shorten(text: &str) -> String {
    let text = printable(text);
    match text.char_indices().nth(DETAIL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_the_exit_code_that_the_help_promises() {
        let cases = [
            (400, 1),
            (403, 1),
            (404, 3),
            (409, 4),
            (410, 4),
            (412, 4),
            (413, 1),
            (415, 1),
            (421, 1),
            (422, 1),
            (500, 1),
            (503, 5),
            (507, 1),
        ];
        for (status, code) in cases {
            let refused = |body| Failure::Refused(Box::new(Refusal::new(status, body, None)));
            assert_eq!(refused(br#"{"title":"t"}"#).exit_code(), code, "{status}");
            // A port that is none of a manager's does not say that there is no such peer.
            let code = if status == 404 { 1 } else { code };
            assert_eq!(refused(b"not found").exit_code(), code, "{status}");
        }
    }

    #[test]
    fn a_problem_document_is_shown_with_its_field_and_limit() {
        let body =
            br#"{"type":"urn:udht:problem:invalid-field","title":"Invalid field","status":422,
            "detail":"must be a whole number from 1 to 65535","field":"ports.userSync",
            "limit":65535}"#;
        assert_eq!(
            Refusal::new(422, body, None).to_string(),
            "must be a whole number from 1 to 65535 (status 422, field ports.userSync, limit 65535)"
        );
        let body = br#"{"detail":"ports.userSync: is missing","field":"ports.userSync"}"#;
        let once = "ports.userSync: is missing (status 422)";
        assert_eq!(Refusal::new(422, body, None).to_string(), once);
    }

    #[test]
    fn what_is_no_problem_document_is_repeated_shortened_and_without_control_characters() {
        let text = Refusal::new(500, b"\x1b[31mred\xff", Some("7")).to_string();
        assert_eq!(
            text,
            "\\u{1b}[31mred\u{fffd} (status 500, try again in 7 s)"
        );
        let text = Refusal::new(500, &vec![b'x'; 100_000], None).to_string();
        assert!(text.len() < 1100, "{}", text.len());
        let text = Refusal::new(502, b"", Some("Wed, 21 Oct 2026 07:28:00 GMT")).to_string();
        assert_eq!(text, "the manager refused and did not say why (status 502)");
    }
}
