//! How a fresh change spreads over replicas.

use std::collections::{BTreeMap, VecDeque};

use peer_exchange::Address;
use peer_exchange::Own;
use peer_exchange::exchange::{ExchangeError, Options};
use peer_exchange::push::{PassOn, PushReport, Scope, plan, push};
use peer_table::contract::{Batch, StateRequest};

use udht_replica::{Replica, Setup, Wire, key, now_or_never, peers, record, records};

fn push_to(
    from: &Replica,
    wire: &Wire<'_>,
    batch: &Batch,
    scope: Scope,
) -> Result<PushReport, ExchangeError> {
    now_or_never(async {
        let state = from.state(&StateRequest::default()).await.unwrap();
        let news = PassOn {
            table: peers(),
            batch: batch.clone(),
            replicas: None,
            scope,
        };
        push(from, &state, wire, &news, scope, &Options::default()).await
    })
}

#[test]
fn a_change_reaches_every_replica_once() {
    const REPLICAS: u8 = 50;
    let address = |n: u8| format!("10.0.0.{n}:3003").parse::<Address>().unwrap();
    let replicas: BTreeMap<Address, Replica> = (1..=REPLICAS)
        .map(|n| (address(n), Replica::new(n)))
        .collect();
    let origin = &replicas[&address(1)];
    origin.put("a", "news");
    let batch = Batch::new(&peers(), origin.entries());

    let mut messages = 0;
    let mut todo = VecDeque::from([(
        address(1),
        batch,
        Scope::whole(12_345, Some(address(1).position())),
    )]);
    while let Some((from, batch, scope)) = todo.pop_front() {
        let others = replicas.keys().filter(|address| **address != from);
        let ring = others.map(|address| (address.position(), address.clone()));
        for group in plan(ring, scope, 4) {
            let (to, scope) = group.heads().next().unwrap();
            let wire = Wire::to(&replicas[to]);
            let report = push_to(&replicas[&from], &wire, &batch, scope).unwrap();
            assert_eq!(report.merged_there.of("applied"), 1);
            assert_eq!(report.traffic.round_trips, 1);
            assert_eq!(report.partner.store, replicas[to].store());
            messages += 1;
            let trip = wire.trips().pop().unwrap();
            assert_eq!(trip.report.merged.of("applied"), 1);
            if let Some(pass_on) = trip.report.pass_on {
                assert_eq!(pass_on.table, peers());
                todo.push_back((to.clone(), pass_on.batch, pass_on.scope));
            }
        }
    }
    assert_eq!(messages, u32::from(REPLICAS) - 1);
    for replica in replicas.values() {
        assert_eq!(replica.content("a").unwrap(), "news");
    }
}

#[test]
fn what_is_refused_is_not_passed_on_and_what_is_known_is() {
    let from = Replica::new(1);
    let all = records(0..4);
    let to = Setup {
        records_max: 3,
        ..Setup::of(2)
    }
    .replica();
    to.load(&all[..1]);
    let batch = Batch::new(&peers(), all.clone());
    let wire = Wire::to(&to);
    let report = push_to(&from, &wire, &batch, Scope::whole(0, None)).unwrap();
    assert_eq!(report.merged_there.of("equal"), 1);
    assert_eq!(report.merged_there.of("applied"), 2);
    assert_eq!(report.merged_there.of("refused_full"), 1);
    let pass_on = wire.trips().pop().unwrap().report.pass_on.unwrap();
    assert_eq!(pass_on.batch.into_records().unwrap(), all[..3]);
}

#[test]
fn the_last_one_has_nobody_to_pass_it_on_to() {
    let (from, to) = (Replica::new(1), Replica::new(2));
    let batch = Batch::new(&peers(), [record("a", 1, 1)]);
    let wire = Wire::to(&to);
    let nobody = Scope {
        up_to: Scope::whole(0, None).after,
        ..Scope::whole(0, None)
    };
    push_to(&from, &wire, &batch, nobody).unwrap();
    assert_eq!(wire.trips()[0].report.pass_on, None);
    assert!(to.entries().contains_key(&key("a")));
}

#[test]
fn a_push_to_another_cluster_is_refused_before_any_record() {
    let from = Replica::new(1);
    let to = Setup {
        cluster: "default/other",
        ..Setup::of(2)
    }
    .replica();
    let batch = Batch::new(&peers(), [record("a", 1, 1)]);
    let wire = Wire::to(&to);
    let refused = push_to(&from, &wire, &batch, Scope::whole(0, None)).unwrap_err();
    assert_eq!(refused.word(), "cluster");
    assert_eq!(to.entries().len(), 0);
    assert_eq!(wire.trips()[0].report.pass_on, None);
}

#[test]
fn a_push_of_nothing_does_nothing() {
    let (from, to) = (Replica::new(1), Replica::new(2));
    let report = push_to(
        &from,
        &Wire::to(&to),
        &Batch::new(&peers(), []),
        Scope::whole(0, None),
    )
    .unwrap();
    assert_eq!(report.merged_there.total(), 0);
}
