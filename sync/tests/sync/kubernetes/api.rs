//! A stand-in for the Kubernetes API server: it says what it is told to say.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clap::Parser;
use futures_util::{StreamExt, stream};
use kube::Client;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use udht_sync::config::KubernetesArgs;
use udht_sync::kubernetes::client::{ApiBounds, client};
use udht_sync::metrics::Metrics;

use crate::pod::soon;

/// An API server on a free port of this machine, and a folder with what a client needs to find it.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    says: Mutex<BTreeMap<&'static str, VecDeque<Say>>>,
    asked: watch::Sender<Vec<Asked>>,
    events: broadcast::Sender<Part>,
}

/// What it answers to a verb, until it is told something else.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// This.
    Body(u16, String),
    /// Nothing at all.
    Nothing,
    /// The beginning of an answer, and then nothing more.
    Beginning(String),
    /// The events that come from now on.
    Events,
    /// An answer without an event that is at its end.
    End,
}

/// What a watch is sent.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Event(String),
    End,
    Break,
}

/// A request that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    pub(crate) verb: &'static str,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) token: String,
}

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    kubernetes: KubernetesArgs,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), TempDir::new().unwrap()).await
    }

    async fn start_at(address: SocketAddr, folder: TempDir) -> Self {
        let shared = Arc::new(Shared {
            says: Mutex::default(),
            asked: watch::Sender::default(),
            events: broadcast::Sender::new(64),
        });
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async { axum::serve(listener, routes).await.unwrap() });
        let api = Self {
            address,
            folder,
            shared,
            task,
        };
        api.token("first");
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: c,
              contexts: [{{name: c, context: {{cluster: c, user: u}}}}],
              clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}],
              users: [{{name: u, user: {{tokenFile: token}}}}]}}"
        );
        std::fs::write(api.kubeconfig(), kubeconfig).unwrap();
        api
    }

    /// Where a client is told of it.
    pub(crate) fn kubeconfig(&self) -> String {
        let path = self.folder.path().join("kubeconfig");
        path.to_str().unwrap().to_owned()
    }

    /// What a sync is told to follow a service in it.
    pub(crate) fn args(&self) -> KubernetesArgs {
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig());
        let told = [
            "udht-sync",
            "--namespace=files",
            "--service=udht",
            &kubeconfig,
        ];
        Args::parse_from(told).kubernetes
    }

    pub(crate) async fn client(&self, bounds: &ApiBounds, metrics: &Metrics) -> Client {
        let client = client(&self.args(), bounds, &metrics.kubernetes).await;
        client.unwrap()
    }

    /// Puts another token where clients find theirs.
    pub(crate) fn token(&self, token: &str) {
        std::fs::write(self.folder.path().join("token"), format!("{token}\n")).unwrap();
    }

    /// From now on, this is what it answers to a verb.
    pub(crate) fn says(&self, verb: &'static str, say: Say) {
        self.says_in_turn(verb, [say]);
    }

    /// One after another, this is what it answers to a verb; the last one for ever.
    pub(crate) fn says_in_turn<const N: usize>(&self, verb: &'static str, say: [Say; N]) {
        self.shared.says.lock().unwrap().insert(verb, say.into());
    }

    /// Sends this to each watch that is open.
    pub(crate) fn send(&self, part: Part) {
        // There may be none.
        let _ = self.shared.events.send(part);
    }

    /// Waits until these requests were made.
    pub(crate) async fn asked(&self, enough: impl FnMut(&Vec<Asked>) -> bool) -> Vec<Asked> {
        let mut asked = self.shared.asked.subscribe();
        let asked = soon("the API is asked", asked.wait_for(enough)).await;
        asked.unwrap().clone()
    }

    /// Waits until the verb was asked for so many times.
    pub(crate) async fn asked_times(&self, verb: &str, times: usize) -> Vec<Asked> {
        let of_verb = |asked: &Vec<Asked>| asked.iter().filter(|asked| asked.verb == verb).count();
        let mut asked = self.asked(|asked| of_verb(asked) >= times).await;
        asked.retain(|asked| asked.verb == verb);
        asked
    }

    /// Ends it at once; whoever asks next finds nobody.
    pub(crate) async fn end(self) -> (SocketAddr, TempDir) {
        self.send(Part::Break);
        self.task.abort();
        let _ = self.task.await;
        (self.address, self.folder)
    }

    /// Starts it again where it was.
    pub(crate) async fn again((address, folder): (SocketAddr, TempDir)) -> Self {
        Self::start_at(address, folder).await
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let query: BTreeMap<_, _> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let path = request.uri().path();
    let verb = match *request.method() {
        Method::GET if query.contains_key("watch") => "watch",
        Method::GET if path.ends_with('s') => "list",
        Method::GET => "get",
        Method::PUT => "update",
        _ => "other",
    };
    let token = request.headers().get("authorization");
    let asked = Asked {
        verb,
        path: path.to_owned(),
        query,
        token: token.map_or_else(String::new, |token| token.to_str().unwrap().to_owned()),
    };
    let say = {
        let mut says = shared.says.lock().unwrap();
        says.get_mut(verb).and_then(|says| match says.len() {
            1 => says.front().cloned(),
            _ => says.pop_front(),
        })
    };
    let events = shared.events.subscribe();
    shared.asked.send_modify(|all| all.push(asked));
    match say.unwrap_or(Say::Nothing) {
        Say::Body(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Say::Nothing => std::future::pending().await,
        Say::Beginning(text) => {
            let beginning = stream::iter([Ok::<_, io::Error>(Bytes::from(text))]);
            Body::from_stream(beginning.chain(stream::pending())).into_response()
        }
        Say::Events => Body::from_stream(stream::unfold(events, next)).into_response(),
        Say::End => String::new().into_response(),
    }
}

type Events = broadcast::Receiver<Part>;

async fn next(mut events: Events) -> Option<(io::Result<Bytes>, Events)> {
    match events.recv().await.ok()? {
        Part::Event(event) => Some((Ok(Bytes::from(event + "\n")), events)),
        Part::End => None,
        Part::Break => Some((Err(io::Error::other("broken")), events)),
    }
}
