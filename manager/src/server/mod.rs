//! The HTTP server: the router with all calls, and what stands before each of them.

mod body;
mod clock;
mod dump;
mod etag;
mod explain;
mod health;
mod host;
mod identity;
mod list;
mod listen;
mod log;
mod media;
mod openapi;
mod page;
mod peers;
mod places;
mod problem;
mod query;
mod replicas;
mod routes;
mod schema;
mod slots;
mod status;
mod sync;
mod table;
mod traced;
mod walk;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;
use udht_tell::trace;

pub use self::listen::{GRACE, run};
pub use self::peers::drawn_id;
use self::problem::{Kind, Problem};
use self::routes::Route;
use self::slots::Slots;
use self::status::Board;
use crate::metrics::Metrics;
use crate::owner::Owner;

/// Watches at the most.
pub const WATCHES_MAX: usize = 256;
/// Feeds for sync at the most: one is used, and one more while it reconnects.
const FEEDS_MAX: usize = 8;
/// Dumps of the whole table that are written at once at the most.
const EXPORTS_MAX: usize = 8;
/// Dumps that are read at once at the most: each is held in memory until it is checked.
const IMPORTS_MAX: usize = 1;
/// How often a watch and a feed say that nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What the calls work on.
#[derive(Clone)]
pub struct App {
    owner: Owner,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
    watches: Slots,
    feeds: Slots,
    exports: Slots,
    imports: Slots,
    board: Arc<Board>,
}

impl App {
    /// The calls on the table of `owner`; watches end once `stopping` is cancelled.
    pub fn new(owner: Owner, metrics: Arc<Metrics>, stopping: CancellationToken) -> Self {
        let watchers = metrics.watchers.clone();
        let slots = |max, what, taken| Slots::new(max, what, taken, owner.clone());
        Self {
            watches: slots(WATCHES_MAX, "watches", Some(watchers)),
            feeds: slots(FEEDS_MAX, "feeds", None),
            exports: slots(EXPORTS_MAX, "dumps of the table", None),
            imports: slots(IMPORTS_MAX, "import of the table", None),
            board: Arc::default(),
            owner,
            metrics,
            stopping,
        }
    }
}

/// The router of a manager whose table is loaded.
pub fn app(app: App) -> Router {
    let metrics = Arc::clone(&app.metrics);
    let router = routed(routes::all())
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(Arc::new(app));
    layered(router, metrics)
}

/// The router of a manager that is still loading its table: alive, and not ready.
pub fn loading(metrics: Arc<Metrics>) -> Router {
    // Why it takes so long is in the log.
    let router = routed(routes::while_loading()).fallback(async || {
        let detail = "the table is being loaded from the store; try again in a moment";
        Problem::new(Kind::LOADING, detail).retry_after(1)
    });
    layered(router, metrics)
}

fn routed<S: Clone + Send + Sync + 'static>(routes: Vec<Route<S>>) -> Router<S> {
    let empty = Router::new();
    routes
        .into_iter()
        .fold(empty, |router, route| router.route(route.path, route.calls))
}

/// What stands before every call, those included that lead nowhere.
fn layered(router: Router, metrics: Arc<Metrics>) -> Router {
    router.layer(from_fn_with_state(metrics, door))
}

/// Lets a request through, or refuses it; counts the answer, and forbids browsers to guess its type.
/// One function, as each further layer would cost an allocation or two for each request.
async fn door(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match host::check(request.uri(), request.headers()) {
        Ok(()) if trace::is_on() => {
            let span = traced::span(&request, route.as_ref());
            let place = span.as_ref().and_then(trace::Span::place);
            let response = trace::within(place, next.run(request)).await;
            if let Some(mut span) = span {
                span.set("status", response.status().as_u16());
            }
            response
        }
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let status = response.status();
    metrics
        .requests
        .with_label_values(&[method, route, status.as_str()])
        .inc();
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
