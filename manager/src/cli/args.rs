//! What several verbs take on the command line, as typed values that parse themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Uri;

use super::failure::Failure;
use crate::config::{LabelArg, PortArg};

/// A text of the command line that is not what its place needs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidArgument(String);

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people: aligned, shortened where it is long.
    Table,
    /// For programs: one JSON object a line, as the manager sent it.
    Json,
}

/// Where a manager listens: `http://HOST[:PORT]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manager(String);

impl FromStr for Manager {
    type Err = InvalidArgument;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why: &str| {
            InvalidArgument(format!(
                "{why}; write it as http://HOST:PORT, such as http://127.0.0.1:3002"
            ))
        };
        let address = text.strip_suffix('/').unwrap_or(text);
        let uri: Uri = address.parse().map_err(|_| invalid("this is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(invalid("a manager speaks plain http on loopback")),
            _ => return Err(invalid("the scheme http:// is missing")),
        }
        let authority = uri
            .authority()
            .ok_or_else(|| invalid("the host is missing"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(invalid("a host is needed, and no user"));
        }
        if uri
            .path_and_query()
            .is_some_and(|rest| rest.as_str() != "/")
            || text.contains('#')
        {
            return Err(invalid("a path is of no use here"));
        }
        Ok(Self(format!("http://{authority}")))
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A label that is asked for: with a value, or with any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LabelFilter(String);

impl FromStr for LabelFilter {
    type Err = InvalidArgument;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.starts_with('=') {
            return Err(InvalidArgument(
                "must be KEY=VALUE, such as zone=a, or KEY".to_owned(),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The version of a record, as `get` prints it, or `*` for any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct VersionTag(String);

impl VersionTag {
    /// The value of a header `If-Match`.
    pub(crate) fn to_header(&self) -> String {
        if self.0 == "*" {
            self.0.clone()
        } else {
            format!("\"{}\"", self.0)
        }
    }
}

impl FromStr for VersionTag {
    type Err = InvalidArgument;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .unwrap_or(text);
        if bare.is_empty()
            || bare
                .bytes()
                .any(|byte| !byte.is_ascii_graphic() || byte == b'"')
        {
            return Err(InvalidArgument(
                "write the version of the record as `udht-manager get ID` prints it".to_owned(),
            ));
        }
        Ok(Self(bare.to_owned()))
    }
}

/// Which peers: those that match all that is given.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FilterArgs {
    /// Only peers of exactly this name
    #[arg(long)]
    name: Option<String>,
    /// Only peers at this IPv4 or IPv6 address
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Only peers with this label, whatever its value if none is given; repeat it for more that
    /// must match too
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<LabelFilter>,
}

impl FilterArgs {
    /// Only peers with these labels.
    pub(crate) fn of_labels(labels: &[LabelFilter]) -> Self {
        Self {
            name: None,
            ip: None,
            labels: labels.to_vec(),
        }
    }

    /// As parameters of a query.
    pub(crate) fn to_query(&self) -> Vec<(&'static str, String)> {
        let name = self.name.iter().map(|name| ("name", name.clone()));
        let ip = self.ip.iter().map(|ip| ("ip", ip.to_string()));
        let labels = self.labels.iter().map(|label| ("label", label.to_string()));
        name.chain(ip).chain(labels).collect()
    }
}

/// What a record says, by flags or as JSON.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecordArgs {
    /// A name for people
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    name: Option<String>,
    /// Its IPv4 or IPv6 address
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    ip: Option<IpAddr>,
    /// A port and what it is for: userSync, fileSync, networkLayer, consensusPort or any other
    /// purpose; repeatable
    #[arg(long = "port", value_name = "PURPOSE=PORT", conflicts_with = "file")]
    ports: Vec<PortArg>,
    /// Free text under a key; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", conflicts_with = "file")]
    labels: Vec<LabelArg>,
    /// Read the record as JSON from this file instead; `-` is the standard input
    #[arg(long, short)]
    pub(crate) file: Option<String>,
}

impl RecordArgs {
    /// The JSON of the flags.
    pub(crate) fn to_json(&self) -> Result<Value, Failure> {
        let ports = by_key(
            "--port",
            self.ports
                .iter()
                .map(|PortArg { purpose, port }| (purpose, Value::from(*port))),
        )?;
        let labels = by_key(
            "--label",
            self.labels
                .iter()
                .map(|LabelArg { key, value }| (key, Value::from(value.as_str()))),
        )?;
        Ok(json!({ "name": self.name, "ip": self.ip, "ports": ports, "labels": labels }))
    }
}

fn by_key<'a>(
    flag: &str,
    pairs: impl Iterator<Item = (&'a String, Value)>,
) -> Result<BTreeMap<&'a String, Value>, Failure> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.insert(key, value).is_some() {
            return Err(Failure::Usage(format!(
                "{flag} {key} is given twice. Give each key once."
            )));
        }
    }
    Ok(map)
}

/// What must hold of the record as it stands, or nothing is written.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct MatchArgs {
    /// Only if the record still has this version (`*`: any, but it must exist)
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_match: Option<VersionTag>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(text: &str) -> Result<String, String> {
        text.parse()
            .map(|manager: Manager| manager.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_address_of_a_manager_is_http_with_host_and_port_and_nothing_else() {
        assert_eq!(
            manager("http://127.0.0.1:3002").unwrap(),
            "http://127.0.0.1:3002"
        );
        assert_eq!(manager("http://[::1]:3002/").unwrap(), "http://[::1]:3002");
        assert_eq!(manager("http://localhost").unwrap(), "http://localhost");
        for (text, part) in [
            ("127.0.0.1:3002", "write it as http://HOST:PORT"),
            ("localhost:3002", "write it as http://HOST:PORT"),
            ("https://127.0.0.1:3002", "plain http"),
            ("ftp://127.0.0.1", "scheme http://"),
            ("http://", "write it as"),
            ("http://user@localhost", "no user"),
            ("http://localhost/v1", "path"),
            ("http://localhost?x=1", "path"),
            ("http://local host", "no URL"),
            ("", "no URL"),
        ] {
            let error = manager(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_version_is_taken_with_or_without_the_quotes_of_an_etag() {
        for text in ["0a-1", "\"0a-1\""] {
            assert_eq!(text.parse::<VersionTag>().unwrap().to_header(), "\"0a-1\"");
        }
        assert_eq!("*".parse::<VersionTag>().unwrap().to_header(), "*");
        for text in ["", "\"\"", "a b", "a\nb", "é"] {
            text.parse::<VersionTag>().expect_err(text);
        }
    }
}
