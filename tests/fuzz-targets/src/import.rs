//! The CLI's import: a table in a file, which is checked line by line as it is sent.

use axum::body::Body;
use axum::http::Request;
use peer_table::peers;
use udht_manager::cli::sent_by_import;

use crate::manager::{Manager, run};

/// A file, compressed or not.
pub(crate) fn cli(bytes: &[u8]) {
    let (head, file) = bytes.split_at(bytes.len().min(1));
    let mode = head.first().copied().unwrap_or(0);
    let needs_end = mode & 1 == 0;
    let mut file = file.to_vec();
    if mode & 2 != 0 {
        file = zstd::encode_all(&file[..], 1).expect("memory for zstd");
    }
    let sent = match sent_by_import(&file, needs_end) {
        Ok(sent) => sent,
        Err(failure) => {
            assert!(failure.contains("a file"), "which file? {failure}");
            assert!(failure.len() <= 1_024, "{failure}");
            assert!(
                !failure.contains(|char: char| char.is_control() && char != '\n'),
                "{failure:?}"
            );
            return;
        }
    };
    // What is sent is what was checked, and checking it again finds nothing new.
    assert_eq!(sent_by_import(&sent, needs_end).as_ref(), Ok(&sent));
    let lines = sent
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let peers = lines
        .filter(|line| peers::Body::from_json(line).is_ok())
        .count();
    run(async {
        let manager = Manager::new(1).await;
        let end = if needs_end { "required" } else { "optional" };
        let request = Request::builder()
            .method("POST")
            .uri(format!("/v1/table?end={end}"))
            .header("host", "localhost")
            .header("content-type", "application/x-ndjson")
            .body(Body::from(sent));
        let status = manager.call(request.expect("a request")).await.status();
        // A manager knows more: a key that comes twice, its bounds, its clock.
        assert!(status == 200 || status == 400 || status == 507, "{status}");
        if status == 200 {
            assert_eq!(manager.entries().len(), peers);
        }
    });
}
