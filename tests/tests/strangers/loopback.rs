//! The manager's door: whoever is on this machine, and the pages that a browser on it shows.

use std::io::Write;

use udht_tests::http;

use crate::house::{House, connect, say};

/// As a browser asks that an attacker's page has led here, by a name of the attacker's that now is
/// this machine's address.
fn ask(house: &House, method: &str, path: &str, host: &str, origin: Option<&str>) -> String {
    let address = house.pod().manager_url();
    let address = address.strip_prefix("http://").unwrap();
    let body = r#"{"name":"evil","ip":"10.6.6.6"}"#;
    let origin = origin.map(|origin| format!("origin: {origin}\r\n"));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{}connection: close\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        origin.unwrap_or_default(),
        body.len()
    );
    String::from_utf8(say(connect(address), request.as_bytes())).unwrap()
}

/// How many answers of the manager had this status.
fn answered(house: &House, status: u16) -> u64 {
    let url = format!("{}/metrics", house.pod().manager_url());
    let metrics = http::text(&house.agent, &url).unwrap();
    let status = format!("status=\"{status}\"");
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("udht_manager_requests_total{") && line.contains(&status));
    let counts = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    counts.sum()
}

#[test]
fn a_page_of_an_attacker_reaches_nothing_at_the_manager() {
    let house = House::new();
    let calls = [
        ("GET", "/v1/peers"),
        ("GET", "/v1/table"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("PUT", "/v1/peers/evil"),
        ("POST", "/v1/peers"),
        ("PATCH", "/v1/identity"),
        ("DELETE", "/v1/peers/k0"),
        ("POST", "/v1/sync/leave"),
        ("OPTIONS", "/v1/peers"),
    ];
    let before = house.held();
    let hosts = [
        "evil.example",
        "evil.example:3002",
        "127.0.0.1.evil.example",
        "10.6.6.6",
    ];
    for (method, path) in calls {
        for host in hosts {
            let said = ask(&house, method, path, host, None);
            assert!(
                said.starts_with("HTTP/1.1 421"),
                "{method} {path} {host}: {said}"
            );
            assert!(!said.contains("k0"), "{said}");
        }
        for origin in ["http://evil.example", "null", "https://localhost"] {
            let said = ask(&house, method, path, "localhost:3002", Some(origin));
            assert!(
                said.starts_with("HTTP/1.1 403"),
                "{method} {path} {origin}: {said}"
            );
            assert!(
                !said.to_lowercase().contains("access-control-allow"),
                "{said}"
            );
        }
    }
    assert_eq!(house.held(), before);
    assert_eq!(answered(&house, 421), (calls.len() * hosts.len()) as u64);
    assert_eq!(answered(&house, 403), (calls.len() * 3) as u64);
    house.peers_go_on();
    house.is_within_memory("pages of an attacker");
}

#[test]
fn a_thousand_idle_connections_and_what_is_too_large_do_not_stop_the_manager() {
    let house = House::new();
    let address = house.pod().manager_url();
    let address = address.strip_prefix("http://").unwrap();
    let idle: Vec<_> = (0..1_000)
        .map(|number| {
            let mut stream = connect(address);
            // Half of them have begun.
            if number % 2 == 0 {
                stream
                    .write_all(b"GET /v1/peers HTTP/1.1\r\nhost: local")
                    .unwrap();
            }
            stream
        })
        .collect();
    house.peers_go_on();

    let post = |path: &str, head: &str, body: &[u8]| {
        let said = say(connect(address), &crate::house::post(path, head, body));
        String::from_utf8_lossy(&said).into_owned()
    };
    let json = "content-type: application/json";
    let message = "content-type: application/x-protobuf";
    let merge = "/v1/sync/tables/peers/merge?via=push&from=09090909-0909-0909-0909-090909090909";
    let bomb = zstd::encode_all(&vec![b' '; 64 << 20][..], 1).unwrap();
    let zstd = "content-type: application/x-ndjson\r\ncontent-encoding: zstd\r\ncontent-length: ";
    let large = "content-length: 1099511627776";
    let head = format!("x: {}", "x".repeat(1 << 20));
    for (path, head, body, status) in [
        ("/v1/peers", &*head, &b""[..], "431"),
        ("/v1/peers", &format!("{json}\r\n{large}"), b"{", "413"),
        (
            "/v1/peers",
            &format!("{json}\r\ncontent-length: 70000"),
            &b" ".repeat(70_000),
            "413",
        ),
        (merge, &format!("{message}\r\n{large}"), b"", "413"),
        ("/v1/table", &format!("{zstd}{}", bomb.len()), &bomb, "400"),
    ] {
        let said = post(path, head, body);
        // Who is cut off while it speaks may not hear why.
        let is_refused = said.is_empty() || said.starts_with(&format!("HTTP/1.1 {status}"));
        assert!(is_refused, "{path}: {said}");
        house.peers_go_on();
    }
    house.is_within_memory("a thousand idle connections and what is too large");
    drop(idle);
}
