//! All calls: where each leads, and its contract.

use std::sync::Arc;

use axum::routing::MethodRouter;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::{
    App, clock, explain, health, identity, list, log, openapi, page, peers, replicas, status, sync,
    table,
};

/// A path with its calls, which work on an `S`.
pub(super) struct Route<S> {
    /// As both the router and the contract write it.
    pub(super) path: &'static str,
    /// What answers each method.
    pub(super) calls: MethodRouter<S>,
    /// Makes its part of the contract. A manager that only serves makes none of it: all would take
    /// 2 MB of memory, and keep half a megabyte more of code there.
    pub(super) contract: fn() -> UtoipaMethodRouter<S>,
}

macro_rules! route {
    ($path:literal: $($method:ident $module:ident::$call:ident),+) => {
        Route {
            path: $path,
            calls: MethodRouter::new()$(.$method($module::$call))+,
            contract: || routes!($($module::$call),+),
        }
    };
}

/// Those of a manager that is still loading its table, which need none.
pub(super) fn while_loading<S: Clone + Send + Sync + 'static>() -> Vec<Route<S>> {
    vec![
        route!("/livez": get health::live),
        route!("/v1/log-filter": get log::filter, put log::set_filter),
        route!("/v1/logs": get log::lines),
    ]
}

/// Those of a manager whose table is loaded.
pub(super) fn all() -> Vec<Route<Arc<App>>> {
    let mut routes = while_loading();
    routes.extend([
        route!("/v1/peers": get list::get, post peers::create, delete peers::delete_many),
        route!(
            "/v1/peers/{peer_id}":
            get peers::read, put peers::replace, patch peers::change, delete peers::delete
        ),
        route!("/v1/peers/{peer_id}/contact": post peers::contact),
        route!("/v1/peers/{peer_id}/explain": get explain::get),
        route!("/v1/identity": get identity::read, put identity::replace),
        route!("/v1/table": get table::export, post table::import),
        route!("/v1/replicas": get replicas::list),
        route!("/v1/replicas/{store}/give-up": post replicas::give_up),
        route!("/v1/replicas/start-over": post replicas::start_over),
        route!("/v1/clock/heal": post clock::heal),
        route!("/v1/sync/state": get sync::state, post sync::state_for),
        route!("/v1/sync/replicas": post sync::replicas),
        route!("/v1/sync/advance": post sync::advance),
        route!("/v1/sync/tend": post sync::tend),
        route!("/v1/sync/tables/{table}/fingerprints": get sync::fingerprints),
        route!("/v1/sync/tables/{table}/records": post sync::records),
        route!("/v1/sync/tables/{table}/merge": post sync::merge),
        route!("/v1/sync/feed": get sync::feed),
        route!("/v1/sync/authority": post sync::bind),
        route!("/v1/sync/leave": post sync::leave),
        route!("/v1/sync/report": post status::report),
        route!("/v1/status": get status::read),
        route!("/readyz": get health::ready),
        route!("/metrics": get health::metrics),
        route!("/v1/about": get log::about),
        route!("/openapi.json": get openapi::get),
        route!("/": get page::get),
        route!("/page/{file}": get page::file),
    ]);
    routes
}
