//! Names of this machine in a request.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::http::uri::Authority;

/// Whether this is `localhost`, an address of 127.0.0.0/8 or `[::1]`, with or without a port.
pub fn is_loopback(authority: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(authority) else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return ip.is_loopback();
    }
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Some(inner) = inner {
        return inner.parse() == Ok(Ipv6Addr::LOCALHOST);
    }
    host.eq_ignore_ascii_case("localhost")
}
