//! Who is not talked to, and that nothing moves then.

use peer_exchange::exchange::{ExchangeError, Kind, Options, Report, exchange};
use peer_exchange::handshake::{HandshakeRefused, Protocols, Refusal};
use peer_exchange::message::{Answer, Ask, Hello, Open, Request, Response};
use peer_exchange::respond::{refuse, respond};
use peer_table::contract::{State, StateRequest};

use udht_replica::{Replica, Setup, Wire, now_or_never, peers, records};

fn protocols(min: u32, max: u32) -> Protocols {
    Protocols { min, max }
}

/// An exchange of two replicas that differ, and must still do so afterwards.
fn refusal(ours: &Replica, wire: &Wire<'_>, theirs: &Replica) -> Refusal {
    let all = records(0..20);
    ours.load(&all[..15]);
    theirs.load(&all[5..]);
    let before = (ours.entries(), theirs.entries());
    let result = now_or_never(exchange(ours, wire, &peers(), &Options::default()));
    assert_eq!((ours.entries(), theirs.entries()), before);
    assert_eq!(wire.asks(), ["open"]);
    match result {
        Err(ExchangeError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Refused by the responder, and as well by an initiator whose partner does not look.
fn refused_on_both_sides(make: impl Fn() -> (Replica, Replica), reason: HandshakeRefused) {
    let (ours, theirs) = make();
    let wire = Wire::to(&theirs);
    assert_eq!(refusal(&ours, &wire, &theirs).reason, reason);
    let refused = wire.trips()[0].report.refused.clone().unwrap();
    assert_eq!(refused.reason, reason);
    assert_eq!(wire.trips()[0].report.partner, None);

    let (ours, theirs) = make();
    let careless = Replica::new(99);
    let hello = now_or_never(hello_of(&theirs));
    let wire = Wire::to(&careless).tamper(|_, _, response| {
        Response {
            hello: Some(hello.clone()),
            ..response
        }
        .to_bytes()
    });
    // The one who answers is of our cluster, and says that it is of theirs.
    careless.change_state(|state| {
        state.key_check = state_of(&ours).key_check;
        state.cluster = state_of(&ours).cluster;
    });
    assert_eq!(refusal(&ours, &wire, &careless).reason, reason);
}

fn state_of(replica: &Replica) -> State {
    now_or_never(peer_exchange::Own::state(replica, &StateRequest::default())).unwrap()
}

async fn hello_of(replica: &Replica) -> Hello {
    let body = Request {
        table: "peers".into(),
        ..Request::default()
    }
    .to_bytes();
    let responded = respond(replica, &body, protocols(1, 1)).await;
    Response::from_bytes(&responded.response)
        .unwrap()
        .hello
        .unwrap()
}

#[test]
fn another_cluster_is_refused_before_any_record() {
    let other = || {
        Setup {
            cluster: "default/other",
            ..Setup::of(2)
        }
        .replica()
    };
    refused_on_both_sides(|| (Replica::new(1), other()), HandshakeRefused::Cluster);
    let (ours, theirs) = (Replica::new(1), other());
    let detail = refusal(&ours, &Wire::to(&theirs), &theirs).detail;
    assert_eq!(
        detail,
        "this is the cluster default/other, and not the one meant"
    );
}

#[test]
fn another_fingerprint_key_is_refused_before_any_record() {
    let other = || {
        Setup {
            fingerprint_key: Some([1; 16]),
            ..Setup::of(2)
        }
        .replica()
    };
    refused_on_both_sides(|| (Replica::new(1), other()), HandshakeRefused::Key);
}

#[test]
fn we_do_not_talk_to_ourselves() {
    refused_on_both_sides(
        || (Replica::new(1), Replica::new(1)),
        HandshakeRefused::Myself,
    );
}

#[test]
fn a_copied_store_is_told_from_ourselves() {
    let copy = || {
        let copy = Replica::new(1);
        copy.change_state(|state| state.origin = vec![7; 16]);
        copy
    };
    refused_on_both_sides(|| (Replica::new(1), copy()), HandshakeRefused::Copied);
}

fn with_protocols(
    ours: Protocols,
    theirs: Protocols,
) -> (Result<Report, ExchangeError>, Vec<&'static str>) {
    after_meeting(None, ours, theirs)
}

/// An exchange with a partner that was last heard to understand these versions, if it was.
fn after_meeting(
    partner: Option<Protocols>,
    ours: Protocols,
    theirs: Protocols,
) -> (Result<Report, ExchangeError>, Vec<&'static str>) {
    let all = records(0..20);
    let (a, b) = (Replica::with(1, &all[..15]), Replica::with(2, &all[5..]));
    let wire = Wire::to(&b).understood(theirs);
    let options = Options {
        protocols: ours,
        partner,
        ..Options::default()
    };
    let result = now_or_never(exchange(&a, &wire, &peers(), &options));
    assert_eq!(result.is_ok(), a.entries() == b.entries());
    let asks = wire.asks();
    (result, asks)
}

#[test]
fn two_neighbouring_versions_talk_whoever_begins() {
    let (report, asks) = with_protocols(protocols(1, 1), protocols(1, 2));
    assert_eq!(report.unwrap().kind, Kind::Reconciled);
    assert_eq!(asks, ["open", "swap"]);
    // A newer one begins in its own version, and then comes down to the older one's.
    let (report, asks) = with_protocols(protocols(1, 2), protocols(1, 1));
    assert_eq!(report.unwrap().kind, Kind::Reconciled);
    assert_eq!(asks, ["open", "open", "swap"]);
    let (report, _) = with_protocols(protocols(2, 3), protocols(1, 2));
    assert_eq!(report.unwrap().kind, Kind::Reconciled);
}

#[test]
fn who_knows_what_its_partner_understands_speaks_that_at_once() {
    let known = |partner, ours, theirs| {
        let (report, asks) = after_meeting(Some(partner), ours, theirs);
        assert_eq!(report.unwrap().kind, Kind::Reconciled);
        asks
    };
    let (older, newer) = (protocols(1, 1), protocols(1, 2));
    assert_eq!(known(older, newer, older), ["open", "swap"]);
    // It was upgraded, or rolled back, meanwhile.
    assert_eq!(known(older, newer, newer), ["open", "swap"]);
    assert_eq!(known(newer, newer, older), ["open", "open", "swap"]);
    assert_eq!(
        known(older, newer, protocols(2, 3)),
        ["open", "open", "swap"]
    );
}

#[test]
fn who_refuses_the_version_that_it_named_is_not_asked_again() {
    let (a, b) = (Replica::new(1), Replica::new(2));
    let wire = Wire::to(&b).tamper(|nth, _, mut response| {
        // Each time it is another one that it would have us speak.
        let version = if nth.is_multiple_of(2) { 1 } else { 2 };
        let hello = response.hello.as_mut().unwrap();
        (hello.protocol, hello.protocol_min, hello.protocol_max) = (version, 0, 0);
        response.answer = Some(Answer::Refused(
            Refusal::new(HandshakeRefused::Protocol, "not that one").to_wire(),
        ));
        response.to_bytes()
    });
    let options = Options {
        protocols: protocols(1, 2),
        ..Options::default()
    };
    let result = now_or_never(exchange(
        &a,
        &wire.understood(protocols(1, 2)),
        &peers(),
        &options,
    ));
    assert_eq!(result.unwrap_err().word(), "protocol");
}

/// What is said of twenty records that were merged takes twenty bytes in version 1, and two in 2.
#[test]
fn each_pair_speaks_the_highest_version_of_both() {
    let answer_bytes = |ours, theirs| {
        let (a, b) = (Replica::with(1, &records(0..20)), Replica::new(2));
        let wire = Wire::to(&b).understood(theirs);
        let options = Options {
            protocols: ours,
            ..Options::default()
        };
        let report = now_or_never(exchange(&a, &wire, &peers(), &options)).unwrap();
        assert_eq!(report.moved.merged_there.of("applied"), 20);
        assert_eq!(a.entries(), b.entries());
        wire.trips().last().unwrap().response_bytes
    };
    let (older, newer) = (protocols(1, 1), protocols(1, 2));
    let first = answer_bytes(older, older);
    let second = answer_bytes(newer, newer);
    // Two bytes name the range of a newer one.
    assert_eq!(second, first - 18 + 2);
    assert_eq!(answer_bytes(newer, older), first);
    assert_eq!(answer_bytes(older, newer), first + 2);
}

#[test]
fn versions_too_far_apart_refuse_each_other() {
    for (ours, theirs) in [
        (protocols(1, 1), protocols(2, 3)),
        (protocols(2, 3), protocols(1, 1)),
    ] {
        let (result, asks) = with_protocols(ours, theirs);
        assert_eq!(result.unwrap_err().word(), "protocol");
        assert_eq!(asks, ["open"]);
    }
}

#[test]
fn a_table_that_the_partner_does_not_have_is_refused() {
    let theirs = Replica::new(2);
    let hello = now_or_never(hello_of(&Replica::new(1)));
    for (table, reason) in [
        ("files", HandshakeRefused::Table),
        ("Not A Name", HandshakeRefused::Malformed),
    ] {
        let request = Request {
            hello: hello.clone(),
            table: table.into(),
            ask: Some(Ask::Open(Open::default())),
        };
        let responded = now_or_never(respond(&theirs, &request.to_bytes(), protocols(1, 1)));
        assert_eq!(responded.report.refused.unwrap().reason, reason);
    }
}

#[test]
fn an_ask_of_a_newer_release_is_refused_by_name() {
    let (ours, theirs) = (Replica::new(1), Replica::new(2));
    let hello = now_or_never(hello_of(&ours));
    let request = Request {
        hello,
        table: "peers".into(),
        ask: None,
    };
    let responded = now_or_never(respond(&theirs, &request.to_bytes(), protocols(1, 1)));
    assert_eq!(responded.report.ask, "unknown");
    assert_eq!(
        responded.report.refused.unwrap().reason,
        HandshakeRefused::Ask
    );
}

#[test]
fn a_partner_whose_manager_is_down_says_so() {
    let (ours, theirs) = (Replica::new(1), Replica::new(2));
    let wire = Wire::to(&theirs).before(|_| theirs.set_down(true));
    let refusal = refusal(&ours, &wire, &theirs);
    assert_eq!(refusal.reason, HandshakeRefused::Unavailable);
    assert_eq!(
        refusal.detail,
        "the manager here failed: the manager is down"
    );
}

#[test]
fn an_own_manager_that_is_down_is_an_error_of_our_own() {
    let (ours, theirs) = (Replica::new(1), Replica::new(2));
    ours.set_down(true);
    let wire = Wire::to(&theirs);
    let result = now_or_never(exchange(&ours, &wire, &peers(), &Options::default()));
    assert_eq!(result.unwrap_err().word(), "own");
    assert_eq!(wire.asks(), Vec::<&str>::new());
}

#[test]
fn who_is_too_busy_refuses_without_looking() {
    let (ours, theirs) = (Replica::new(1), Replica::new(2));
    let wire = Wire::to(&theirs)
        .tamper(|_, _, _| refuse(HandshakeRefused::Busy, "8 exchanges are going on").response);
    let result = now_or_never(exchange(&ours, &wire, &peers(), &Options::default()));
    assert_eq!(result.unwrap_err().word(), "busy");
}
