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
mod problem;
mod query;
mod replicas;
mod schema;
mod slots;
mod status;
mod sync;
mod table;
mod traced;
mod walk;
mod watch;

use std::mem;
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
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

pub use self::listen::{GRACE, run};
pub use self::peers::drawn_id;
use self::problem::{Kind, Problem};
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

/// All calls, one path after the other, each with its contract. Who only routes by them drops each
/// contract at once: all together take 2 MB, which would stay with the program as holes in its heap
/// (3.1 MB of memory of its own at the start; 1.6 MB so).
fn each_route(mut add: impl FnMut(UtoipaMethodRouter<Arc<App>>)) {
    add(routes!(list::get, peers::create, peers::delete_many));
    add(routes!(
        peers::read,
        peers::replace,
        peers::change,
        peers::delete
    ));
    add(routes!(peers::contact));
    add(routes!(explain::get));
    add(routes!(identity::read, identity::replace));
    add(routes!(table::export, table::import));
    add(routes!(replicas::list));
    add(routes!(replicas::give_up));
    add(routes!(replicas::start_over));
    add(routes!(clock::heal));
    add(routes!(sync::state, sync::state_for));
    add(routes!(sync::replicas));
    add(routes!(sync::advance));
    add(routes!(sync::tend));
    add(routes!(sync::fingerprints));
    add(routes!(sync::records));
    add(routes!(sync::merge));
    add(routes!(sync::feed));
    add(routes!(sync::bind));
    add(routes!(sync::leave));
    add(routes!(status::report));
    add(routes!(status::read));
    add(routes!(health::live));
    add(routes!(health::ready));
    add(routes!(health::metrics));
    add(routes!(log::about));
    add(routes!(log::filter, log::set_filter));
    add(routes!(log::lines));
    add(routes!(openapi::get));
    add(routes!(page::get));
    add(routes!(page::file));
}

/// The router of a manager whose table is loaded.
pub fn app(app: App) -> Router {
    let metrics = Arc::clone(&app.metrics);
    let mut router = Router::new();
    each_route(|(_, contracts, methods)| {
        for path in contracts.paths.keys() {
            router = mem::take(&mut router).route(path, methods.clone());
        }
    });
    let router = router
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(Arc::new(app));
    layered(router, metrics)
}

/// The router of a manager that is still loading its table: alive, and not ready.
pub fn loading(metrics: Arc<Metrics>) -> Router {
    // Why it takes so long is in the log.
    let (router, _) = OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(log::filter, log::set_filter))
        .routes(routes!(log::lines))
        .split_for_parts();
    let router = router.fallback(async || {
        let detail = "the table is being loaded from the store; try again in a moment";
        Problem::new(Kind::LOADING, detail).retry_after(1)
    });
    layered(router, metrics)
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
