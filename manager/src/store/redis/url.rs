//! The URL of a Redis server and what of it is the store's.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

const PORT: u16 = 6_379;
/// The longest prefix of keys, in bytes.
const PREFIX_BYTES_MAX: usize = 512;

/// `redis://[USER][:PASSWORD]@HOST[:PORT][/DATABASE][?prefix=..]`, or `rediss://` for TLS, then
/// also with `?ca=FILE` and `?cert=FILE&key=FILE`. Shown without user, password and parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: u32,
    /// What each key begins with, if it is not the default.
    pub(super) prefix: Option<String>,
    pub(super) tls: Option<TlsFiles>,
}

/// Files that TLS needs, in PEM.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct TlsFiles {
    /// The authorities to trust, instead of the system's.
    pub(super) authorities: Option<PathBuf>,
    /// The chain of certificates to show, and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// A text that is no URL of a Redis server, and what would be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRedisUrl(String);

fn invalid<T>(problem: impl Into<String>) -> Result<T, InvalidRedisUrl> {
    Err(InvalidRedisUrl(problem.into()))
}

impl RedisUrl {
    /// Whether `text` begins as the URL of a Redis server does.
    pub(crate) fn is_meant(text: &str) -> bool {
        text.starts_with("redis://") || text.starts_with("rediss://")
    }

    /// Reads the URL.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidRedisUrl> {
        let Ok(url) = Url::parse(text) else {
            return invalid(
                "cannot be read as a URL: use redis://HOST:PORT, as redis://127.0.0.1:6379, with \
                 special characters of a password percent-encoded",
            );
        };
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => decoded("the host", name)?,
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            _ => {
                return invalid("names no host: use redis://HOST:PORT, as redis://127.0.0.1:6379");
            }
        };
        if url.fragment().is_some() {
            return invalid("has a part after #, which means nothing here: leave it out");
        }
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let user = user.map(|user| decoded("the user", user)).transpose()?;
        let password = url.password();
        let password = password.map(|it| decoded("the password", it)).transpose()?;
        if user.is_some() && password.is_none() {
            return invalid("names a user without a password: use redis://USER:PASSWORD@HOST");
        }
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => number.parse().map_err(|_| {
                InvalidRedisUrl(
                    "names a database that is no number: use redis://HOST:PORT/0".to_owned(),
                )
            })?,
        };
        let parameters = Parameters::take(&url)?;
        let tls = parameters.tls(url.scheme() == "rediss")?;
        Ok(Self {
            host,
            port: url.port().unwrap_or(PORT),
            user,
            password,
            database,
            prefix: parameters.prefix,
            tls,
        })
    }
}

fn decoded(what: &str, text: &str) -> Result<String, InvalidRedisUrl> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => invalid(format!("has something else than UTF-8 in {what}")),
    }
}

#[derive(Default)]
struct Parameters {
    prefix: Option<String>,
    authorities: Option<PathBuf>,
    chain: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Parameters {
    fn take(url: &Url) -> Result<Self, InvalidRedisUrl> {
        let mut taken = Self::default();
        // What is behind it is the rest of a password, of which nothing may be shown.
        if url.query().is_some_and(|query| query.contains('@')) {
            return invalid("has ? before an @: in a password, write it as %3F");
        }
        for (name, value) in url.query_pairs() {
            if value.is_empty() {
                return invalid(format!("has an empty parameter {name}: leave it out"));
            }
            let path = || Some(PathBuf::from(&*value));
            match &*name {
                "prefix" => taken.prefix = Some(prefix(&value)?),
                "ca" => taken.authorities = path(),
                "cert" => taken.chain = path(),
                "key" => taken.key = path(),
                _ => {
                    return invalid(format!(
                        "has the unknown parameter {name}: there are prefix, ca, cert and key"
                    ));
                }
            }
        }
        Ok(taken)
    }

    fn tls(&self, is_tls: bool) -> Result<Option<TlsFiles>, InvalidRedisUrl> {
        let Self {
            prefix: _,
            authorities,
            chain,
            key,
        } = self;
        let is_plain = authorities.is_none() && chain.is_none() && key.is_none();
        if !is_tls {
            return if is_plain {
                Ok(None)
            } else {
                invalid("has ca, cert or key, which are for TLS: use rediss://")
            };
        }
        let identity = match (chain, key) {
            (Some(chain), Some(key)) => Some((chain.clone(), key.clone())),
            (None, None) => None,
            _ => return invalid("has one of cert and key: give both"),
        };
        Ok(Some(TlsFiles {
            authorities: authorities.clone(),
            identity,
        }))
    }
}

fn prefix(text: &str) -> Result<String, InvalidRedisUrl> {
    if text.len() <= PREFIX_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        invalid(format!(
            "has a prefix that is not 1 to {PREFIX_BYTES_MAX} printable ASCII characters"
        ))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            port,
            database,
            tls,
            user: _,
            password: _,
            prefix: _,
        } = self;
        let scheme = if tls.is_some() { "rediss" } else { "redis" };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")?;
        } else {
            write!(f, "{scheme}://{host}:{port}")?;
        }
        if *database == 0 {
            Ok(())
        } else {
            write!(f, "/{database}")
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedisUrl {
        RedisUrl::parse(text).expect(text)
    }

    #[test]
    fn host_port_database_and_prefix_are_read() {
        let url = parse("redis://127.0.0.1:7000/3?prefix=a:b:");
        assert_eq!(
            (url.host.as_str(), url.port, url.database),
            ("127.0.0.1", 7_000, 3)
        );
        assert_eq!(url.prefix.as_deref(), Some("a:b:"));
        assert_eq!((url.user, url.password, url.tls), (None, None, None));
        let url = parse("redis://cache");
        assert_eq!(
            (url.host.as_str(), url.port, url.database),
            ("cache", 6_379, 0)
        );
        assert_eq!(parse("redis://[::1]:7000/").host, "::1");
    }

    #[test]
    fn user_and_password_are_decoded_and_never_shown() {
        let url = parse("redis://us%40er:p%3Ass@cache:7000/1?prefix=x");
        assert_eq!(url.user.as_deref(), Some("us@er"));
        assert_eq!(url.password.as_deref(), Some("p:ss"));
        assert_eq!(url.to_string(), "redis://cache:7000/1");
        assert_eq!(format!("{url:?}"), "RedisUrl(redis://cache:7000/1)");
        let url = parse("redis://:secret@[::1]");
        assert_eq!((url.user, url.password.as_deref()), (None, Some("secret")));
        assert_eq!(
            parse("redis://:secret@[::1]").to_string(),
            "redis://[::1]:6379"
        );
    }

    #[test]
    fn tls_takes_files() {
        let url = parse("rediss://cache?ca=/tls/ca.pem&cert=/tls/tls.crt&key=/tls/tls.key");
        let files = url.tls.clone().expect("TLS");
        assert_eq!(files.authorities, Some(PathBuf::from("/tls/ca.pem")));
        assert_eq!(
            files.identity,
            Some(("/tls/tls.crt".into(), "/tls/tls.key".into()))
        );
        assert_eq!(url.to_string(), "rediss://cache:6379");
        assert_eq!(parse("rediss://cache").tls, Some(TlsFiles::default()));
    }

    #[test]
    fn what_is_no_url_of_a_server_is_answered_with_what_would_be() {
        for (text, part) in [
            ("redis://", "names no host"),
            ("redis://:6379", "use redis://HOST:PORT"),
            ("redis:///0", "names no host"),
            ("redis://cache:port", "cannot be read as a URL"),
            ("redis://user@cache", "redis://USER:PASSWORD@HOST"),
            ("redis://cache/zero", "no number"),
            ("redis://cache/-1", "no number"),
            ("redis://cache#insecure", "leave it out"),
            ("redis://cache?prefx=a", "unknown parameter prefx"),
            ("redis://cache?prefix=", "empty parameter prefix"),
            ("redis://user:1?word@cache", "write it as %3F"),
            ("redis://cache?prefix=a%20b", "printable ASCII"),
            ("redis://cache?ca=/ca.pem", "use rediss://"),
            ("rediss://cache?cert=/cert.pem", "give both"),
            ("redis://%ff@cache", "UTF-8"),
        ] {
            let error = RedisUrl::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
