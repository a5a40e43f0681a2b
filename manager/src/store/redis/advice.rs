//! What a server is set up to do with a table that its operator may not want.

use redis::Value;

use super::connection::{Connection, PATIENCE, pipeline};

const SETTINGS: [&str; 4] = ["appendonly", "appendfsync", "maxmemory", "maxmemory-policy"];

/// Says in the log what of the server's settings may lose records. A user that may not ask for them
/// is not told.
pub(super) async fn give(connection: &Connection, store: &str) {
    let mut commands = pipeline();
    for setting in SETTINGS {
        commands.cmd("CONFIG").arg("GET").arg(setting);
    }
    let Ok(mut replies) = connection.ask(&commands, PATIENCE).await else {
        return;
    };
    let settings = SETTINGS.map(|_| match replies.next() {
        Ok(Value::Array(pair)) => match pair.last() {
            Some(Value::BulkString(value)) => String::from_utf8_lossy(value).into_owned(),
            _ => String::new(),
        },
        _ => String::new(),
    });
    for advice in advice(settings.each_ref().map(String::as_str)) {
        tracing::warn!(url = store, "{advice}");
    }
}

fn advice(
    [appendonly, appendfsync, maxmemory, policy]: [&str; 4],
) -> impl Iterator<Item = &'static str> {
    let memory_only = appendonly == "no";
    let every_second = appendonly == "yes" && appendfsync == "everysec";
    let evicts = policy.starts_with("allkeys") && !matches!(maxmemory, "" | "0");
    let all = [
        (
            memory_only,
            "this Redis keeps what was written since its last dump in memory only: set appendonly \
             yes for writes to survive its end",
        ),
        (
            every_second,
            "this Redis may answer up to two seconds before it writes: set appendfsync always, or \
             no, which survives kill -9 and not a loss of power",
        ),
        (
            evicts,
            "this Redis may throw the table away when its memory is full: set maxmemory-policy \
             noeviction",
        ),
    ];
    all.into_iter()
        .filter(|(applies, _)| *applies)
        .map(|(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_lose_records_is_spoken_of() {
        for (settings, said) in [
            (["yes", "always", "0", "noeviction"], 0),
            (["yes", "no", "1000", "noeviction"], 0),
            (["yes", "always", "1000", "volatile-lru"], 0),
            (["", "", "", ""], 0),
            (["no", "everysec", "0", "allkeys-lru"], 1),
            (["yes", "everysec", "1000", "allkeys-lru"], 2),
        ] {
            assert_eq!(advice(settings).count(), said, "{settings:?}");
        }
    }
}
