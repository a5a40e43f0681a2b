//! Which store a manager is told to use, as the flag `--store` spells it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use peer_table::ClusterId;
use tokio::task::spawn_blocking;

use super::embedded::EmbeddedStore;
use super::redis::{InvalidRedisUrl, RedisStore, RedisUrl};
use super::{Draw, Store, StoreError};

const EMBEDDED: &str = "embedded:";

/// Which store to open. Shown without user and password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreUrl {
    /// A file, made if it is missing.
    Embedded(PathBuf),
    /// A Redis server.
    Redis(RedisUrl),
}

/// A text that names no store.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidStoreUrl {
    /// It begins with no known kind of store.
    #[error("names no kind of store: use embedded:PATH or redis://HOST:PORT")]
    Kind,
    /// It names no file.
    #[error(
        "names no file: use embedded:PATH with the path of a file, as embedded:/data/udht.redb"
    )]
    Path,
    /// It is no URL of a Redis server.
    #[error(transparent)]
    Redis(#[from] InvalidRedisUrl),
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix(EMBEDDED) {
            // `embedded://x/y` is the habit of a URL; as a path it would be another file: `/x/y`.
            let like_a_url = path.starts_with("//") && !path.starts_with("///");
            if path.is_empty() || path.ends_with('/') || like_a_url {
                return Err(InvalidStoreUrl::Path);
            }
            return Ok(Self::Embedded(PathBuf::from(path)));
        }
        if RedisUrl::is_meant(text) {
            return Ok(Self::Redis(RedisUrl::parse(text)?));
        }
        Err(InvalidStoreUrl::Kind)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(path) => write!(f, "{EMBEDDED}{}", path.display()),
            Self::Redis(url) => url.fmt(f),
        }
    }
}

/// Opens the store at `url`, and makes it if it is not there yet. Cluster and pod name the store
/// where several may share a server.
pub async fn open(
    url: &StoreUrl,
    cluster: &ClusterId,
    pod: &str,
    draw: Draw,
) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        StoreUrl::Embedded(path) => {
            let path = path.clone();
            let opened = spawn_blocking(move || EmbeddedStore::open(&path, draw)).await;
            let store = opened.map_err(|error| StoreError::Open {
                store: url.to_string(),
                problem: error.to_string(),
            })??;
            Ok(Arc::new(store))
        }
        StoreUrl::Redis(url) => {
            let store = RedisStore::open(url.clone(), cluster, pod, draw).await?;
            Ok(Arc::new(store))
        }
    }
}

#[cfg(test)]
mod tests {
    use peer_table::{OriginId, StoreId};

    use super::*;
    use crate::store::Opening;

    #[test]
    fn a_store_is_named_by_a_path_or_a_redis_url() {
        let embedded = |path: &str| Ok(StoreUrl::Embedded(PathBuf::from(path)));
        assert_eq!(
            "embedded:/data/udht.redb".parse(),
            embedded("/data/udht.redb")
        );
        assert_eq!("embedded:udht.redb".parse(), embedded("udht.redb"));
        assert_eq!(
            "embedded:///data/udht.redb".parse(),
            embedded("///data/udht.redb")
        );
        let redis: StoreUrl = "redis://127.0.0.1:6379/0?prefix=a:b"
            .parse()
            .expect("a URL");
        assert!(matches!(redis, StoreUrl::Redis(_)));
        let redis: StoreUrl = "rediss://cache".parse().expect("a URL");
        assert_eq!(redis.to_string(), "rediss://cache:6379");
    }

    #[test]
    fn what_names_no_store_is_answered_with_what_would() {
        for (text, wanted) in [
            ("", InvalidStoreUrl::Kind),
            ("/data/udht.redb", InvalidStoreUrl::Kind),
            ("memory:", InvalidStoreUrl::Kind),
            ("redis:127.0.0.1", InvalidStoreUrl::Kind),
            ("embedded:", InvalidStoreUrl::Path),
            ("embedded:/data/", InvalidStoreUrl::Path),
            ("embedded://data/udht.redb", InvalidStoreUrl::Path),
        ] {
            assert_eq!(text.parse::<StoreUrl>(), Err(wanted.clone()), "{text}");
            assert!(wanted.to_string().contains("use "), "{wanted}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let url: StoreUrl = "redis://user:p@ss@cache:6379/1".parse().expect("a URL");
        assert_eq!(url.to_string(), "redis://cache:6379/1");
        let url: StoreUrl = "embedded:/a/b@c".parse().expect("a URL");
        assert_eq!(url.to_string(), "embedded:/a/b@c");
    }

    fn draw() -> Draw {
        Draw {
            store: StoreId::from_bytes([1; 16]),
            origin: OriginId::from_bytes([2; 16]),
            peer_id: "pod".parse().expect("a key"),
            cluster: None,
            binding: None,
        }
    }

    #[tokio::test]
    async fn an_embedded_store_is_made_where_the_url_says() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("deep/er/udht.redb");
        let url = StoreUrl::Embedded(path.clone());
        let cluster = "udht".parse().expect("a cluster id");
        let store = open(&url, &cluster, "pod", draw()).await.expect("opens");
        assert_eq!(store.opening(), &Opening::first(draw()));
        assert!(path.is_file());
    }
}
