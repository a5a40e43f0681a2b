//! The guard at the door: a request must be meant for a loopback name, and must not come from a
//! page of elsewhere. Against DNS rebinding, where a foreign name leads a browser here, and against
//! pages that send requests across.

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};
use udht_tell::loopback::is_loopback;

use super::problem::{Kind, Problem};

/// Whether a request with this URI and these headers is let through, or why not.
pub(super) fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        let detail = "one header Host is needed, such as localhost or 127.0.0.1:3002";
        return Err(Problem::new(Kind::BAD_HEADER, detail).about("host"));
    };
    // A request for a whole URI names the host twice, and the one in the URI counts.
    let meant_for_us = is_loopback(host.as_bytes())
        && uri
            .authority()
            .is_none_or(|authority| is_loopback(authority.as_str().as_bytes()));
    if !meant_for_us {
        let detail = "the header Host must be localhost, 127.0.0.0/8 or [::1], with any port: this \
                      service speaks to its own machine only";
        return Err(Problem::new(Kind::MISDIRECTED, detail).about("host"));
    }
    // A page that another program of this machine serves is another origin too.
    let is_ours = |origin: &[u8]| {
        let authority = origin.strip_prefix(b"http://");
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_bytes()))
    };
    if headers
        .get_all(ORIGIN)
        .iter()
        .all(|origin| is_ours(origin.as_bytes()))
    {
        return Ok(());
    }
    let detail = "a page of another origin may not use this service; the header Origin must be left \
                  out or be http:// and what the header Host says";
    Err(Problem::new(Kind::FOREIGN_ORIGIN, detail).about("origin"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn checked(uri: &str, hosts: &[&str], origins: &[&str]) -> Result<(), Kind> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        check(&uri.parse().unwrap(), &headers).map_err(|problem| problem.kind())
    }

    #[test]
    fn loopback_names_are_let_in_with_any_port_or_none() {
        for host in [
            "localhost",
            "LocalHost:80",
            "127.0.0.1",
            "127.0.0.1:3002",
            "127.8.9.10:1",
            "[::1]",
            "[::1]:3002",
        ] {
            assert_eq!(checked("/", &[host], &[]), Ok(()), "{host}");
        }
    }

    #[test]
    fn any_other_host_is_refused() {
        for host in [
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "localhost.",
            "10.0.0.1:3002",
            "0.0.0.0",
            "[::]",
            "[::ffff:127.0.0.1]",
            "user@localhost",
            "127.1",
            "2130706433",
            "localhost/x",
            "",
        ] {
            assert_eq!(checked("/", &[host], &[]), Err(Kind::MISDIRECTED), "{host}");
        }
        let in_uri = checked("http://example.com/", &["localhost"], &[]);
        assert_eq!(in_uri, Err(Kind::MISDIRECTED));
        assert_eq!(checked("http://localhost/", &["localhost"], &[]), Ok(()));
    }

    #[test]
    fn a_request_names_one_host() {
        assert_eq!(checked("/", &[], &[]), Err(Kind::BAD_HEADER));
        let twice = checked("/", &["localhost", "localhost"], &[]);
        assert_eq!(twice, Err(Kind::BAD_HEADER));
    }

    #[test]
    fn this_services_own_page_is_let_in_and_no_other() {
        for host in ["localhost:3002", "127.0.0.1", "[::1]:80"] {
            let own = format!("http://{host}");
            assert_eq!(checked("/", &[host], &[&own]), Ok(()), "{own}");
        }
        let own = "http://localhost:3002";
        for origin in [
            "http://localhost:8080",
            "http://127.0.0.1:3002",
            "https://localhost:3002",
            "null",
            "https://example.com",
            "http://example.com",
            "file://",
            "",
        ] {
            let checked = checked("/", &["localhost:3002"], &[own, origin]);
            assert_eq!(checked, Err(Kind::FOREIGN_ORIGIN), "{origin}");
        }
    }
}
