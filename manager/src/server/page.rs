//! `/`: a page for people, to look at through `kubectl port-forward`.
//!
//! What is known when it is asked for is written into it, so that it says something without a
//! script too; from then on its scripts ask the calls that anybody may use. All of it is in this
//! program, and the policy lets nothing in from elsewhere.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use peer_table::peers::Peer;

use super::App;
use super::problem::{self, Fails, Problem};

/// Scripts, style and calls of this very manager, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What is said of a program's own files: a forwarded port leads to another release tomorrow.
const HEAD: [(HeaderName, &str); 3] = [
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (CONTENT_SECURITY_POLICY, POLICY),
];

/// The files of the page, by their names, with their types.
const FILES: [(&str, &str, &str); 9] = [
    ("app.js", SCRIPT, include_str!("page/app.js")),
    ("calls.js", SCRIPT, include_str!("page/calls.js")),
    ("directory.js", SCRIPT, include_str!("page/directory.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("peer.js", SCRIPT, include_str!("page/peer.js")),
    ("peers.js", SCRIPT, include_str!("page/peers.js")),
    ("status.js", SCRIPT, include_str!("page/status.js")),
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("page/style.css"),
    ),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// A page for people.
///
/// The pod's health and alarms, its peers, the replicas, and what passes between them, live. It only
/// reads, unless a person ticks that changes are allowed.
#[utoipa::path(
    get, path = "/", tag = "operations", operation_id = "page",
    responses(
        (status = 200, description = "HTML.", body = String, content_type = "text/html"),
        Fails<503>,
    ),
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let owner = &app.owner;
    let own = match owner.get(&owner.own_key()).await? {
        Some(entry) => Peer::from_entry(&owner.own_key(), &entry).ok().flatten(),
        None => None,
    };
    // The guard has let it through, so it is a loopback name.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let page = html(&app, own.as_ref(), host.unwrap_or("localhost:3002"));
    let content_type = [(CONTENT_TYPE, "text/html; charset=utf-8")];
    Ok((HEAD, content_type, page).into_response())
}

/// A file of the page.
#[utoipa::path(
    get, path = "/page/{file}", tag = "operations", operation_id = "pageFile",
    params(("file" = String, Path, description = "Its name.")),
    responses(
        (status = 200, description = "A script, a style or a picture.", content(
            (String = "text/javascript"), (String = "text/css"), (String = "image/svg+xml"))),
        Fails<404>,
    ),
)]
pub(super) async fn file(
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let name = name.map_or_else(|_| String::new(), |Path(name)| name);
    let Some((_, content_type, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Err(problem::not_found(request).await);
    };
    Ok((HEAD, [(CONTENT_TYPE, *content_type)], *text).into_response())
}

fn html(app: &App, own: Option<&Peer>, host: &str) -> String {
    let owner = &app.owner;
    let (live, tombstones) = owner.counts();
    let peer_id = owner.own_key().to_string();
    let name = own.map_or("", |peer| &peer.name);
    let address = own.map_or_else(
        || "no record of its own yet: start with --peer-ip, or PUT /v1/identity".to_owned(),
        |peer| peer.ip.to_string(),
    );
    let health = format!("{address} · {live} peers, {tombstones} deleted and still remembered");
    let is_named = !name.is_empty();
    filled(
        include_str!("page/index.html"),
        &[
            ("name", if is_named { name } else { &peer_id }),
            ("peer_id", if is_named { &peer_id } else { "" }),
            ("health", &health),
            ("cluster", &owner.cluster().to_string()),
            ("store", &owner.opening().store.to_string()),
            ("release", env!("CARGO_PKG_VERSION")),
            ("host", host),
        ],
    )
}

/// `text` with each `{{name}}` replaced by the value of that name. What a value says is never looked
/// at for names.
fn filled(text: &str, values: &[(&str, &str)]) -> String {
    let mut whole = String::with_capacity(text.len() + 512);
    let mut parts = text.split("{{");
    whole.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or(("", part));
        let value = values.iter().find(|(known, _)| *known == name);
        let _ = write!(whole, "{}", Escaped(value.map_or("", |(_, value)| value)));
        whole.push_str(rest);
    }
    whole
}

/// Text that is no markup.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_of_itself_is_no_markup() {
        let escaped = Escaped("<script>&'\"").to_string();
        assert_eq!(escaped, "&lt;script&gt;&amp;&#39;&quot;");
    }

    #[test]
    fn what_a_peer_says_of_itself_is_no_place_to_fill() {
        let values = [("name", "{{host}}"), ("host", "h")];
        assert_eq!(filled("<{{name}}|{{host}}>", &values), "<{{host}}|h>");
    }

    #[test]
    fn each_place_of_the_page_is_filled_and_each_file_that_it_names_is_there() {
        let page = include_str!("page/index.html");
        let known = [
            "name", "peer_id", "health", "cluster", "store", "release", "host",
        ];
        for place in page.split("{{").skip(1) {
            let (name, _) = place.split_once("}}").unwrap();
            assert!(known.contains(&name), "{name}");
        }
        let scripts = FILES.iter().map(|(_, _, text)| *text);
        for text in scripts.chain([page]) {
            let named = text.split("from \"./").skip(1);
            for rest in named.chain(text.split("\"/page/").skip(1)) {
                let (name, _) = rest.split_once('"').unwrap();
                assert!(FILES.iter().any(|(known, ..)| *known == name), "{name}");
            }
        }
    }
}
