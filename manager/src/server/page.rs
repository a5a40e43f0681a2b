//! `/`: a page for people, to look at through `kubectl port-forward`.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use peer_table::peers::Peer;
use uuid::Uuid;

use super::App;
use super::problem::{Fails, Problem};

const STYLE: &str = "
    :root { color-scheme: light dark }
    body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
    th { text-align: left; vertical-align: top; padding-right: 1.5rem; font-weight: 600 }
    code, pre { font-family: ui-monospace, monospace }
    pre { overflow-x: auto; border-left: 3px solid #8884; padding-left: 1rem }
";

/// A first page for people.
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
    // Only this very style is let through; scripts, frames, forms and everything from outside are
    // not.
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let head: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, &policy),
    ];
    // The guard has let it through, so it is a loopback name.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let page = html(&app, own.as_ref(), host.unwrap_or("localhost:3002"), &nonce);
    Ok((head, page).into_response())
}

fn html(app: &App, own: Option<&Peer>, host: &str, nonce: &str) -> String {
    let owner = &app.owner;
    let (live, tombstones) = owner.counts();
    let mut rows = vec![
        ("Cluster", owner.cluster().to_string()),
        ("peer_id", owner.own_key().to_string()),
    ];
    match own {
        Some(peer) => {
            let list = |pairs: Vec<String>| match pairs[..] {
                [] => "none".to_owned(),
                _ => pairs.join(", "),
            };
            let ports = peer
                .ports
                .iter()
                .map(|(purpose, port)| format!("{purpose} {port}"));
            let labels = peer
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            rows.push(("Name", peer.name.clone()));
            rows.push(("Address", peer.ip.to_string()));
            rows.push(("Ports", list(ports.collect())));
            rows.push(("Labels", list(labels.collect())));
            rows.push(("Updated", peer.updated_at.clone()));
        }
        None => rows.push((
            "Record",
            "none yet: start with --peer-ip, or PUT /v1/identity".to_owned(),
        )),
    }
    rows.push(("Peers", live.to_string()));
    rows.push(("Deleted, still remembered", tombstones.to_string()));
    rows.push(("Store", owner.opening().store.to_string()));
    rows.push(("Release", env!("CARGO_PKG_VERSION").to_owned()));
    let host = Escaped(host);
    let mut table = String::new();
    for (head, text) in rows {
        let _ = writeln!(table, "<tr><th scope=row>{head}<td>{}", Escaped(&text));
    }
    format!(
        "<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content=\"width=device-width\">
<title>UDHT manager</title>
<style nonce=\"{nonce}\">{STYLE}</style>
<h1>UDHT manager</h1>
<p>The directory of peers of this pod. It answers on this machine only.</p>
<table>
{table}</table>
<h2>Look</h2>
<ul>
<li><a href=\"/v1/peers?limit=100\">/v1/peers</a>: the peers; add <code>?name=</code>, <code>?ip=</code> or
    <code>?label=key=value</code>
<li><a href=\"/v1/identity\">/v1/identity</a>: this pod's own record
<li><a href=\"/v1/table\">/v1/table</a>: all of it, a line for each peer
<li><a href=\"/metrics\">/metrics</a>, <a href=\"/livez\">/livez</a>, <a href=\"/readyz\">/readyz</a>
<li><a href=\"/openapi.json\">/openapi.json</a>: every call with all its answers
</ul>
<h2>Use</h2>
<pre>
curl -X PUT {host}/v1/peers/p1 -H 'content-type: application/json' \\
     -d '{{\"name\": \"files-0\", \"ip\": \"10.0.0.7\", \"ports\": {{\"userSync\": 5001}}}}'
curl {host}/v1/peers/p1
curl -N '{host}/v1/peers?watch=true'
</pre>
</html>
"
    )
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
}
