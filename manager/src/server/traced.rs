//! Requests as spans of a trace, where traces are sent at all.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method};
use peer_table::Key;
use udht_tell::trace::{HEADER, Kind, Place, Span};

/// The writes of which it is remembered which trace they belong to, at the most: until sync has
/// heard of them.
const WRITES_MAX: usize = 256;

static WRITES: Mutex<VecDeque<(Key, Place)>> = Mutex::new(VecDeque::new());

/// The span of a request, if it is a write of one record or comes from sync as a part of a trace.
pub(super) fn span(request: &Request, route: Option<&MatchedPath>) -> Option<Span> {
    let parent = parent(request.headers());
    let route = route?.as_str();
    let is_write = [Method::PUT, Method::PATCH, Method::DELETE].contains(request.method());
    if route == "/v1/peers/{peer_id}" && is_write {
        let span = Span::under(parent, "write", Kind::Server);
        let key = request.uri().path().rsplit('/').next()?.parse();
        if let (Ok(key), Some(place)) = (key, span.place()) {
            remember(key, place);
        }
        return Some(span);
    }
    let name = match route {
        "/v1/sync/tables/{table}/merge" => "merge",
        route if route.starts_with("/v1/sync/") => "sync",
        _ => return None,
    };
    parent.map(|parent| Span::under(Some(parent), name, Kind::Server))
}

fn parent(headers: &HeaderMap) -> Option<Place> {
    headers.get(HEADER)?.to_str().ok()?.parse().ok()
}

/// Before the write is done: sync may hear of it before it is answered.
fn remember(key: Key, place: Place) {
    let mut writes = WRITES.lock().unwrap_or_else(PoisonError::into_inner);
    if writes.len() >= WRITES_MAX {
        writes.pop_front();
    }
    writes.push_back((key, place));
}

/// The trace of the first of these keys that was written in one.
pub(super) fn trace_of<'a>(mut keys: impl Iterator<Item = &'a Key>) -> Option<Place> {
    let mut writes = WRITES.lock().unwrap_or_else(PoisonError::into_inner);
    if writes.is_empty() {
        return None;
    }
    keys.find_map(|key| {
        let at = writes.iter().rposition(|(written, _)| written == key)?;
        writes.remove(at).map(|(_, place)| place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_a_write_is_told_once_and_the_oldest_are_forgotten() {
        let place: Place = "00-000000000000000000000000000000aa-00000000000000bb-01"
            .parse()
            .unwrap();
        let key = |number: usize| -> Key { format!("k{number}").parse().unwrap() };
        for number in 0..=WRITES_MAX {
            remember(key(number), place);
        }
        let first = [key(0)];
        assert_eq!(trace_of(first.iter()), None);
        let both = [key(0), key(7)];
        assert_eq!(trace_of(both.iter()), Some(place));
        assert_eq!(trace_of(both.iter()), None);
    }
}
