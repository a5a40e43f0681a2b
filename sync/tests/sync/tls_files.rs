//! The files of mutual TLS: what is said of those that do not do, and what becomes of a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peer_exchange::Address;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use udht_sync::node::Node;

use crate::authority::{Authority, Folder, Leaf, NAME, client};
use crate::cli::{is_refused, said, udht_sync};
use crate::pod::{CLUSTER, Pod, soon, start};
use crate::tls::{ASK, connect, counts_just, knock, with};

const RELOADED: &str = "udht_tls_reloads_total{result=\"ok\"}";
const FAILED: &str = "udht_tls_reloads_total{result=\"failed\"}";

/// Exchanges one after the other, until told to stop; none may fail.
pub(crate) fn exchange_on(
    node: &Arc<Node>,
    with: &Address,
    stop: &Arc<AtomicBool>,
) -> (watch::Receiver<u64>, tokio::task::JoinHandle<()>) {
    let (node, with, stop) = (Arc::clone(node), with.clone(), Arc::clone(stop));
    let (counts, counted) = watch::channel(0);
    let task = tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            node.exchange(&with).await.unwrap();
            counts.send_modify(|count| *count += 1);
        }
    });
    (counted, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_replaced_while_exchanges_go_on_and_none_is_dropped() {
    let [old, new] = ["old", "new"].map(Authority::new);
    let [old_leaf, new_leaf] = [old.leaf(), new.leaf()];
    let mut folders = [0; 2].map(|_| Folder::new(&[&old], &old_leaf));
    let [a, b] = start(folders.each_ref().map(with)).await;
    let stop = Arc::default();
    let mut loops = [(&a, &b), (&b, &a)]
        .map(|(one, other)| exchange_on(&one.sync.node, &other.sync.address, &stop));
    // Whoever was let in before.
    let mut early = connect(&b, NAME, client(&old, Some(&old_leaf), &TLS13))
        .await
        .unwrap();
    early.write_all(ASK).await.unwrap();
    early.read_u8().await.unwrap();

    // Everybody believes both, then everybody has a certificate of the new one, then nobody
    // believes the old one.
    let steps: [(&[&Authority], &Leaf); 3] = [
        (&[&old, &new], &old_leaf),
        (&[&old, &new], &new_leaf),
        (&[&new], &new_leaf),
    ];
    for ((authorities, leaf), step) in steps.into_iter().zip(1..) {
        for folder in &mut folders {
            folder.swap(authorities, leaf);
        }
        for pod in [&a, &b] {
            pod.sync.counts(RELOADED, step).await;
        }
        for (counted, _) in &mut loops {
            let target = *counted.borrow() + 20;
            let more = counted.wait_for(|count| *count >= target);
            soon("exchanges go on", more).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for (_, task) in loops {
        task.await.unwrap();
    }
    // It has heard its answer, and is closed.
    let mut rest = Vec::new();
    let _ = soon("the old guest is closed", early.read_to_end(&mut rest)).await;
    let said = knock(&b, NAME, client(&new, Some(&old_leaf), &TLS13)).await;
    assert!(said.contains("UnknownCA"), "{said}");
    counts_just(&b.sync, "server", "unknown_authority", 2).await;
    for pod in [&a, &b] {
        assert_eq!(pod.sync.metric(FAILED).await, 0);
    }
}

#[tokio::test]
async fn files_that_do_not_do_are_counted_and_those_of_before_stay_in_use() {
    let [authority, other] = ["one", "two"].map(Authority::new);
    let leaf = authority.leaf();
    let mut folder = Folder::new(&[&authority], &leaf);
    let stays = Folder::new(&[&authority], &leaf);
    let [a, b] = start([with(&folder), with(&stays)]).await;
    let authorities = authority.pem();
    let foreign_key = other.leaf().key;
    let cut_off = &leaf.chain[..leaf.chain.len() / 2];
    for (contents, failures) in [
        ([&*authorities, &leaf.chain, &foreign_key], 1),
        ([&authorities, cut_off, &leaf.key], 2),
        ([&authorities, "", &leaf.key], 3),
    ] {
        folder.put(contents);
        a.sync.counts(FAILED, failures).await;
        b.sync.node.exchange(&a.sync.address).await.unwrap();
        a.sync.node.exchange(&b.sync.address).await.unwrap();
    }
    folder.lose("tls.key");
    a.sync.counts(FAILED, 4).await;
    folder.swap(&[&authority], &authority.expired_leaf());
    a.sync.counts(FAILED, 5).await;
    assert_eq!(a.sync.metric(RELOADED).await, 0);
    // And what does is taken again.
    folder.swap(&[&authority], &authority.leaf());
    a.sync.counts(RELOADED, 1).await;
    b.sync.node.exchange(&a.sync.address).await.unwrap();
    assert_eq!(a.sync.metric(FAILED).await, 5);
}

#[tokio::test]
async fn the_end_of_the_certificate_is_told_and_follows_the_files() {
    let authority = Authority::new("one");
    let until = |year| {
        authority.leaf_with(NAME, |params| {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        })
    };
    let mut folder = Folder::new(&[&authority], &until(2100));
    let [a] = start([with(&folder)]).await;
    let expiry = "udht_tls_certificate_expiry_timestamp_seconds";
    assert_eq!(a.sync.metric(expiry).await, 4_102_444_800);
    folder.swap(&[&authority], &until(2101));
    a.sync.counts(RELOADED, 1).await;
    assert_eq!(a.sync.metric(expiry).await, 4_133_980_800);
}

/// Starts a sync with these files, which ends at once, and says why.
async fn cannot_start(flag: &str, part: &str) {
    let tls = format!("--tls={flag}");
    let arguments = [
        "serve",
        "--cluster",
        CLUSTER,
        "--discovery=fixed:",
        "--listen=127.0.0.1:0",
        "--ops-listen=127.0.0.1:0",
        &tls,
    ];
    is_refused(&arguments, 1, part).await;
}

#[tokio::test]
async fn a_start_with_files_that_do_not_do_says_what_to_do() {
    let [authority, other] = ["one", "two"].map(Authority::new);
    let [leaf, others_leaf] = [authority.leaf(), other.leaf()];
    let authorities = authority.pem();
    let server_only = authority.leaf_with(NAME, |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let nameless = authority.leaf_with("pod-0.udht.svc", |_| ());
    let expired = authority.expired_leaf();
    cannot_start(
        "files:/no/such/folder",
        "there is no folder /no/such/folder",
    )
    .await;
    for (contents, part) in [
        (
            [&*authorities, &leaf.chain, &others_leaf.key],
            "not the key of",
        ),
        (
            [&authorities, &others_leaf.chain, &others_leaf.key],
            "not signed by",
        ),
        ([&authorities, &nameless.chain, &nameless.key], NAME),
        (
            [&authorities, &expired.chain, &expired.key],
            "issue it anew",
        ),
        (
            [&authorities, &server_only.chain, &server_only.key],
            "key usages",
        ),
        (["text", &leaf.chain, &leaf.key], "no certificate in ca.crt"),
        (
            [&authorities, &leaf.chain, &leaf.chain],
            "no private key in tls.key",
        ),
        (
            [&authorities, "-----BEGIN CERTIFICATE-----\n", ""],
            "no PEM file",
        ),
    ] {
        let mut folder = Folder::new(&[&authority], &leaf);
        folder.put(contents);
        cannot_start(&folder.flag(), part).await;
    }
    let folder = Folder::new(&[&authority], &leaf);
    folder.lose("ca.crt");
    cannot_start(&folder.flag(), "ca.crt: --tls files:DIR needs").await;
}

#[tokio::test]
async fn an_exchange_by_hand_uses_the_files_too() {
    let [authority, other] = ["one", "two"].map(Authority::new);
    let folder = Folder::new(&[&authority], &authority.leaf());
    let foreign = Folder::new(&[&other], &other.leaf());
    let [a, b] = start([with(&folder), with(&folder)]).await;
    let Pod { manager, .. } = &b;
    let [url, peer] = [manager.url(), a.sync.address.to_string()];
    let ends = ["exchange", &peer, "--manager", &url, "--cluster", CLUSTER];
    let tls = format!("--tls={}", folder.flag());
    let output = udht_sync(&[&ends[..], &[&tls]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let tls = format!("--tls={}", foreign.flag());
    let arguments = [&ends[..], &[&tls]].concat();
    is_refused(&arguments, 3, "not signed by an authority").await;
    let arguments = [&ends[..], &["--tls=off"]].concat();
    is_refused(&arguments, 1, "--tls files:DIR").await;
}
