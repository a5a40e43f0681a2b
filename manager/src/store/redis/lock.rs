//! The lock: which manager has the store, tied to its connection.
//!
//! No time to live takes part: a lock is good as long as the server knows the client that wrote it.
//! Every transaction runs under a watch of the lock, so that whoever lost it writes nothing more,
//! however late its commands arrive.

use std::fmt;

use super::connection::{Connection, PATIENCE, pipeline};
use super::fault::{Fault, odd};

/// A client that was silent for so long is taken for dead, though its connection was never closed:
/// its machine is gone. A living manager asks something every second.
const IDLE_SECONDS_MAX: u64 = 15;

/// Who has a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lock {
    /// The id by which the server knows the connection.
    pub(super) client: u64,
    /// Drawn by the holder when it began: ids of clients come again after the server's restart.
    pub(super) token: String,
    /// The holder in words.
    pub(super) holder: String,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.client, self.token, self.holder)
    }
}

/// The name under which a holder's connection is listed.
pub(super) fn client_name(token: &str) -> String {
    format!("udht:{token}")
}

impl Lock {
    /// Reads what is stored.
    pub(super) fn parse(stored: &[u8]) -> Result<Self, Fault> {
        let read = || {
            let mut parts = str::from_utf8(stored).ok()?.splitn(3, ' ');
            Some(Self {
                client: parts.next()?.parse().ok()?,
                token: parts.next()?.to_owned(),
                holder: parts.next()?.to_owned(),
            })
        };
        read().ok_or_else(|| Fault::Damaged("its lock cannot be read".to_owned()))
    }

    /// Who has the lock in words, with the address it is seen at; `None` if its connection is gone.
    pub(super) async fn living_holder(
        &self,
        connection: &Connection,
    ) -> Result<Option<String>, Fault> {
        let mut list = pipeline();
        list.cmd("CLIENT").arg("LIST").arg("ID").arg(self.client);
        let listed = connection.ask(&list, PATIENCE).await?.value()?;
        let listed = String::from_utf8(listed.unwrap_or_default()).map_err(|_| odd("CLIENT"))?;
        let field = |wanted: &str| {
            let mut fields = listed.split_ascii_whitespace();
            fields.find_map(|field| field.strip_prefix(wanted)?.strip_prefix('='))
        };
        if field("name") != Some(&client_name(&self.token)) {
            return Ok(None);
        }
        let idle = field("idle").and_then(|seconds| seconds.parse::<u64>().ok());
        if idle.is_some_and(|seconds| seconds > IDLE_SECONDS_MAX) {
            return Ok(None);
        }
        let address = field("addr").unwrap_or("an unknown address");
        Ok(Some(format!("{} (connected from {address})", self.holder)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_back() {
        let lock = Lock {
            client: 17,
            token: "abc".to_owned(),
            holder: "process 5 on pod-0".to_owned(),
        };
        assert_eq!(lock.to_string(), "17 abc process 5 on pod-0");
        assert_eq!(Lock::parse(lock.to_string().as_bytes()).ok(), Some(lock));
        for bad in [&b""[..], b"x abc y", b"17 abc", b"\xff"] {
            assert!(matches!(Lock::parse(bad), Err(Fault::Damaged(_))));
        }
    }
}
