//! What goes wrong with a Redis server, in words that say what to do.

use std::io;

use redis::{ErrorKind, RedisError, ServerError};
use tokio_rustls::rustls;

use super::super::{Change, StoreError};

/// Something that went wrong.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The connection is of no use any more, or there never was one; what was asked may have been
    /// done or not.
    Lost(String),
    /// Nothing was heard for too long: as [`Fault::Lost`], and a new connection may be no better.
    Silent(String),
    /// The server answered that it does not do it now; it mends itself, or is mended there.
    Refused(String),
    /// The server is a replica. The address may lead to the one that took over.
    ReadOnly(String),
    /// Somebody has to change what this manager is told, or how the server is set up.
    Unusable(String),
    /// What the store says of itself cannot be read.
    Damaged(String),
    /// It was written by a later release.
    NewerFormat(u32),
    /// Another manager has it open: who.
    Locked(String),
    /// It is not the store that was opened.
    Changed(Change),
}

impl Fault {
    /// Whether the connection it was met on has to be given up.
    pub(super) const fn ends_connection(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Silent(_) | Self::ReadOnly(_) | Self::Unusable(_) => true,
            Self::Refused(_)
            | Self::Damaged(_)
            | Self::NewerFormat(_)
            | Self::Locked(_)
            | Self::Changed(_) => false,
        }
    }

    /// Whether it goes away by itself, so that an opening waits for it.
    pub(super) const fn mends_itself(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Silent(_) | Self::Refused(_) | Self::ReadOnly(_) => true,
            Self::Unusable(_)
            | Self::Damaged(_)
            | Self::NewerFormat(_)
            | Self::Locked(_)
            | Self::Changed(_) => false,
        }
    }

    /// What it means while the store is being opened.
    pub(super) fn at_opening(self, store: &str) -> StoreError {
        match self {
            Self::Unusable(problem) => StoreError::Open {
                store: store.to_owned(),
                problem,
            },
            other => other.in_use(store),
        }
    }

    /// What it means once the store is open.
    pub(super) fn in_use(self, store: &str) -> StoreError {
        let store = store.to_owned();
        match self {
            Self::Lost(problem)
            | Self::Silent(problem)
            | Self::Refused(problem)
            | Self::ReadOnly(problem)
            | Self::Unusable(problem) => StoreError::Unavailable(format!("{store} {problem}")),
            Self::Damaged(problem) => StoreError::Damaged { store, problem },
            Self::NewerFormat(found) => StoreError::NewerFormat { store, found },
            Self::Locked(by) => StoreError::Locked { store, by },
            Self::Changed(change) => StoreError::Changed { store, change },
        }
    }
}

/// A connection that could not be made.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if let Some(tls) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Self::of_tls(tls);
        }
        Self::Lost(format!(
            "cannot be reached: {error}; see that it runs there"
        ))
    }
}

impl Fault {
    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::CertificateError as Certificate;
        use rustls::Error;
        let advice = match error {
            Error::InvalidMessage(_) => "it does not speak TLS at that port: use redis://",
            Error::InvalidCertificate(Certificate::UnknownIssuer) => {
                "its certificate is signed by an authority that is not trusted: name the \
                 authority's file with ?ca=FILE"
            }
            Error::InvalidCertificate(
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
            ) => "its certificate is for another name: use that name in the URL",
            Error::AlertReceived(_) => {
                "it broke off: it may demand a certificate, which ?cert=FILE&key=FILE gives"
            }
            _ => "see to its certificate",
        };
        Self::Unusable(format!("cannot be trusted ({error}): {advice}"))
    }
}

/// A connection that broke while an answer was awaited.
impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        if error.kind() == ErrorKind::Parse {
            return Self::Unusable(
                "answers in something else than the protocol of Redis: see that host and port are \
                 right, and that TLS is used where it is needed (rediss://)"
                    .to_owned(),
            );
        }
        Self::Lost(format!("broke the connection ({error}); see that it runs"))
    }
}

/// An answer that says no.
impl From<&ServerError> for Fault {
    fn from(error: &ServerError) -> Self {
        let detail = error.details().unwrap_or_default();
        let said = || format!("({} {detail})", error.code());
        match error.code() {
            "NOAUTH" => Self::Unusable(
                "needs a password: use redis://:PASSWORD@HOST or redis://USER:PASSWORD@HOST"
                    .to_owned(),
            ),
            "WRONGPASS" => Self::Unusable(
                "does not know this user with this password: see to the ones in the URL".to_owned(),
            ),
            "NOPERM" => Self::Unusable(format!(
                "does not let this user do what is needed {}: give it that in its ACL",
                said()
            )),
            "DENIED" => Self::Unusable(
                "is in protected mode, and lets nobody in from elsewhere: give it a password"
                    .to_owned(),
            ),
            "MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN" => Self::Unusable(CLUSTER.to_owned()),
            "WRONGTYPE" => Self::Damaged(
                "a key of it is of another type: something else writes under its prefix".to_owned(),
            ),
            "READONLY" => Self::ReadOnly(
                "is a read-only replica: name the primary, or wait until it is one".to_owned(),
            ),
            "OOM" => Self::Refused(
                "is out of memory and takes no writes: raise its maxmemory, or make room"
                    .to_owned(),
            ),
            "MISCONF" => Self::Refused(
                "cannot write to its disk and takes no writes: make room there".to_owned(),
            ),
            "NOREPLICAS" => Self::Refused(
                "has fewer replicas than it needs to take writes: see to them".to_owned(),
            ),
            "LOADING" => Self::Refused("is loading its data: wait".to_owned()),
            "MASTERDOWN" => {
                Self::ReadOnly("is a replica that lost its primary: name the primary".to_owned())
            }
            "BUSY" => Self::Refused("is busy with a script: wait, or end that".to_owned()),
            "ERR" if detail.starts_with("max number of clients") => {
                Self::Lost("has too many clients: raise its maxclients".to_owned())
            }
            "ERR" if detail.starts_with("unknown") => {
                Self::Unusable(format!("{TOO_OLD} {}", said()))
            }
            "ERR" if detail.starts_with("DB index") => {
                Self::Unusable(format!("does not have the database in the URL {}", said()))
            }
            _ => Self::Refused(format!("refuses {}", said())),
        }
    }
}

/// What is said of a server of Redis Cluster.
pub(super) const CLUSTER: &str =
    "is part of a Redis Cluster, over which no transaction reaches: name a server of its own";
/// What is said of a server that lacks what is needed.
pub(super) const TOO_OLD: &str = "is too old: Redis 6.2 or later is needed";
/// What is said of an answer that makes no sense.
pub(super) fn odd(what: &str) -> Fault {
    Fault::Unusable(format!(
        "gives an answer to {what} that Redis would not give"
    ))
}
