//! A stand-in for the Kubernetes API: one Secret with its versions, and what a sync may ask of it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use udht_sync::authority::state::{Authority, SECRET_KEY};

use crate::pod::soon;

const NAMESPACE: &str = "default";
const NAME: &str = "udht-authority";

/// A stand-in for the Kubernetes API.
#[derive(Debug)]
pub(crate) struct Api {
    shared: Arc<Shared>,
    /// With the kubeconfig.
    folder: TempDir,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// The last version.
    versions: watch::Sender<u64>,
    /// Requests that were answered, by verb and status.
    answered: Mutex<BTreeMap<(&'static str, u16), u64>>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    secret: Option<Secret>,
    version: u64,
    events: Vec<(u64, Value)>,
    refuses: Option<StatusCode>,
}

impl Api {
    /// With an empty Secret, as the chart makes it.
    pub(crate) async fn start() -> Self {
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                secret: None,
                version: 1,
                events: Vec::new(),
                refuses: None,
            }),
            versions: watch::Sender::new(1),
            answered: Mutex::default(),
            stop: stop.clone(),
        });
        let path = "/api/v1/namespaces/{namespace}/secrets";
        let routes = Router::new()
            .route(path, get(watch_secrets))
            .route(&format!("{path}/{{name}}"), get(get_secret).put(put_secret))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            let server = axum::serve(listener, routes).with_graceful_shutdown(stopped);
            server.await.unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "it", "user": {}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "current-context": "it",
        });
        fs::write(folder.path().join("config"), kubeconfig.to_string()).unwrap();
        let api = Self {
            shared,
            folder,
            stop,
        };
        api.put_data([]);
        api
    }

    /// The flag that leads to it.
    pub(crate) fn flag(&self) -> String {
        format!(
            "--kubeconfig={}",
            self.folder.path().join("config").display()
        )
    }

    /// Answers everything with this status from now on, and ends all watches; or does its work.
    pub(crate) fn refuse(&self, with: Option<StatusCode>) {
        self.shared.inner.lock().unwrap().refuses = with;
        self.shared.versions.send_modify(|_| ());
    }

    /// Puts this, and nothing else, into the Secret.
    pub(crate) fn put_data<const N: usize>(&self, data: [(&str, &[u8]); N]) {
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())));
        self.shared.change(|secret| {
            let secret = secret.get_or_insert_default();
            secret.metadata.name = Some(NAME.to_owned());
            secret.metadata.namespace = Some(NAMESPACE.to_owned());
            secret.data = (N > 0).then(|| data.into());
        });
    }

    /// Puts this authority into the Secret.
    pub(crate) fn put(&self, authority: &Authority) {
        self.put_data([(SECRET_KEY, &authority.to_bytes())]);
    }

    /// Deletes the Secret.
    pub(crate) fn delete(&self) {
        self.shared.change(Option::take);
    }

    /// What is in the Secret.
    pub(crate) fn data(&self) -> BTreeMap<String, ByteString> {
        let inner = self.shared.inner.lock().unwrap();
        let secret = inner.secret.clone().unwrap();
        secret.data.unwrap_or_default()
    }

    /// The authority in the Secret.
    pub(crate) fn authority(&self) -> Option<Authority> {
        let data = self.data();
        let bytes = data.get(SECRET_KEY)?;
        Some(Authority::from_bytes(&bytes.0).unwrap())
    }

    /// Waits until there is one, for which this holds.
    pub(crate) async fn has(&self, what: &str, is: impl Fn(&Authority) -> bool) -> Authority {
        let mut versions = self.shared.versions.subscribe();
        let there = versions.wait_for(|_| self.authority().as_ref().is_some_and(&is));
        soon(what, there).await.unwrap();
        self.authority().unwrap()
    }

    /// How often it has answered this.
    pub(crate) fn answered(&self, verb: &'static str, status: u16) -> u64 {
        let answered = self.shared.answered.lock().unwrap();
        answered.get(&(verb, status)).copied().unwrap_or_default()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Option<Secret>) -> T) {
        let version = {
            let mut inner = self.inner.lock().unwrap();
            inner.version += 1;
            let version = inner.version;
            let before = inner.secret.clone();
            change(&mut inner.secret);
            if let Some(secret) = &mut inner.secret {
                secret.metadata.resource_version = Some(version.to_string());
            }
            let (kind, object) = match (before, inner.secret.clone()) {
                (None, Some(secret)) => ("ADDED", secret),
                (Some(_), Some(secret)) => ("MODIFIED", secret),
                (Some(secret), None) => ("DELETED", secret),
                (None, None) => return,
            };
            let event = json!({"type": kind, "object": object});
            inner.events.push((version, event));
            version
        };
        self.versions.send_replace(version);
    }

    fn answer(&self, verb: &'static str, status: StatusCode, body: Value) -> Response {
        let key = (verb, status.as_u16());
        *self.answered.lock().unwrap().entry(key).or_default() += 1;
        (status, axum::Json(body)).into_response()
    }

    fn refusal(&self, verb: &'static str, status: StatusCode) -> Response {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": format!("the stand-in refuses to {verb}"), "code": status.as_u16(),
        });
        self.answer(verb, status, body)
    }
}

async fn get_secret(Extract(shared): Extract<Arc<Shared>>, path: Path<[String; 2]>) -> Response {
    assert_eq!(*path, [NAMESPACE, NAME]);
    let (secret, refuses) = {
        let inner = shared.inner.lock().unwrap();
        (inner.secret.clone(), inner.refuses)
    };
    match (secret, refuses) {
        (_, Some(status)) => shared.refusal("get", status),
        (None, None) => shared.refusal("get", StatusCode::NOT_FOUND),
        (Some(secret), None) => {
            let body = serde_json::to_value(secret).unwrap();
            shared.answer("get", StatusCode::OK, body)
        }
    }
}

async fn put_secret(
    Extract(shared): Extract<Arc<Shared>>,
    path: Path<[String; 2]>,
    body: Bytes,
) -> Response {
    assert_eq!(*path, [NAMESPACE, NAME]);
    let new: Secret = serde_json::from_slice(&body).unwrap();
    let wanted = new.metadata.resource_version.clone();
    assert!(wanted.is_some(), "a change without a precondition");
    let refused = {
        let inner = shared.inner.lock().unwrap();
        let held = inner.secret.as_ref();
        let held = held.map(|secret| secret.metadata.resource_version.clone());
        match (inner.refuses, held) {
            (Some(status), _) => Some(status),
            (None, None) => Some(StatusCode::NOT_FOUND),
            (None, Some(version)) if version != wanted => Some(StatusCode::CONFLICT),
            _ => None,
        }
    };
    if let Some(status) = refused {
        return shared.refusal("update", status);
    }
    shared.change(|secret| *secret = Some(new));
    let secret = shared.inner.lock().unwrap().secret.clone();
    let body = serde_json::to_value(secret).unwrap();
    shared.answer("update", StatusCode::OK, body)
}

async fn watch_secrets(
    Extract(shared): Extract<Arc<Shared>>,
    Query(asked): Query<BTreeMap<String, String>>,
) -> Response {
    assert_eq!(asked["watch"], "true", "a list is not allowed");
    assert_eq!(asked["fieldSelector"], format!("metadata.name={NAME}"));
    let timeout = asked["timeoutSeconds"].parse().unwrap();
    let ends = tokio::time::Instant::now() + Duration::from_secs(timeout);
    let since: u64 = asked["resourceVersion"].parse().unwrap();
    let refuses = shared.inner.lock().unwrap().refuses;
    if let Some(status) = refuses {
        return shared.refusal("watch", status);
    }
    shared.answer("watch", StatusCode::OK, Value::Null);
    let versions = shared.versions.subscribe();
    let events = stream::unfold(
        (shared, versions, since),
        move |(shared, mut versions, since)| async move {
            loop {
                versions.mark_unchanged();
                let found = {
                    let inner = shared.inner.lock().unwrap();
                    if inner.refuses.is_some() {
                        return None;
                    }
                    let mut events = inner.events.iter();
                    events.find(|(version, _)| *version > since).cloned()
                };
                if let Some((version, event)) = found {
                    let line = Bytes::from(format!("{event}\n"));
                    return Some((Ok::<_, Infallible>(line), (shared, versions, version)));
                }
                tokio::select! {
                    changed = versions.changed() => changed.ok()?,
                    () = shared.stop.cancelled() => return None,
                    () = tokio::time::sleep_until(ends) => return None,
                }
            }
        },
    );
    Body::from_stream(events).into_response()
}
