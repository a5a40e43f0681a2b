use peer_table::contract::PeerStanding;

use super::*;

const STORE: StoreId = StoreId::from_bytes([7; 16]);

fn at(seconds: u64) -> WallTime {
    WallTime::from_millis((1_700_000_000 + seconds) * 1_000)
}

/// A manager that has nothing to do.
fn quiet() -> Signs {
    Signs {
        rows_max: 10,
        publish_pause: Duration::from_mins(1),
        ..Signs::default()
    }
}

fn replica() -> Replica {
    Replica {
        id: OriginId::from_bytes([3; 16]),
        store: Some(STORE),
        pod: Some("p3".parse().unwrap()),
    }
}

/// One of which a tombstone, made at `first`, waits for one other replica.
fn waiting(first: WallTime) -> Signs {
    Signs {
        tombstones: 1,
        first_tombstone: Some(first),
        holders: vec![Holder {
            reason: "published",
            replica: Some(replica()),
        }],
        ..quiet()
    }
}

fn reported(reachable: bool, seconds: u64) -> Reported {
    let peer = PeerStanding {
        address: "10.0.0.3:3003".to_owned(),
        reachable,
        store: Some(STORE.to_string()),
        last_error: (!reachable).then(|| "failed_unreachable".to_owned()),
        ..PeerStanding::default()
    };
    let report = Report {
        known: 1,
        peers: vec![peer],
        ..Report::default()
    };
    Reported {
        at: at(seconds),
        report,
    }
}

fn kinds(alarms: &[Alarm]) -> Vec<AlarmKind> {
    alarms.iter().map(|it| it.alarm).collect()
}

#[test]
fn each_sign_is_an_alarm_that_ends_with_it() {
    let signs = |change: fn(&mut Signs)| {
        let mut signs = quiet();
        change(&mut signs);
        signs
    };
    let cases = [
        (
            signs(|it| it.store_fails = Some("away".to_owned())),
            AlarmKind::StoreFailing,
        ),
        (
            signs(|it| it.commit_failed = Some("full".to_owned())),
            AlarmKind::StoreFailing,
        ),
        (signs(|it| it.crowded = Some(at(0))), AlarmKind::QueueFull),
        (signs(|it| it.rows = 10), AlarmKind::TableFull),
        (
            signs(|it| it.clock_off = Some(Duration::from_secs(11))),
            AlarmKind::ClockOutlier,
        ),
        (signs(|it| it.mutual = vec![replica()]), AlarmKind::Mutual),
        (signs(|it| it.is_mass_silence = true), AlarmKind::BrakeOn),
    ];
    for (signs, kind) in cases {
        let mut watch = Watch::default();
        assert!(watch.look(&quiet(), None, at(0)).is_empty());
        let alarms = watch.look(&signs, None, at(1));
        assert_eq!(kinds(&alarms), [kind]);
        assert!(watch.stands(kind));
        assert!(alarms[0].text.ends_with(['.', 'y', 'l']) && alarms[0].advice.len() > 20);
        assert!(watch.look(&quiet(), None, at(2)).is_empty());
    }
}

#[test]
fn what_is_over_by_itself_counts_only_for_a_while() {
    let mut watch = Watch::default();
    let signs = Signs {
        crowded: Some(at(0)),
        ..quiet()
    };
    assert_eq!(watch.look(&signs, None, at(14)).len(), 1);
    assert!(watch.look(&signs, None, at(15)).is_empty());
}

#[test]
fn those_who_gave_each_other_up_are_named() {
    let mut watch = Watch::default();
    let unnamed = Replica {
        id: OriginId::from_bytes([4; 16]),
        store: None,
        pod: None,
    };
    let mut signs = Signs {
        mutual: vec![replica(), unnamed],
        ..quiet()
    };
    assert_eq!(watch.pods(&signs), [replica().pod.unwrap()]);
    signs.names = BTreeMap::from([(replica().pod.unwrap(), "pod-3".to_owned())]);
    let alarms = watch.look(&signs, None, at(0));
    assert!(alarms[0].text.contains("2 others"), "{alarms:?}");
    let who: Vec<_> = alarms[0].about.iter().map(|it| it.who.as_str()).collect();
    let wanted = [
        format!("pod-3 (peer p3, store {STORE})"),
        "the replica 04040404-0404-0404-0404-040404040404".to_owned(),
    ];
    assert_eq!(who, wanted);
}

#[test]
fn a_manager_without_a_sync_does_not_miss_it_and_one_that_had_it_does() {
    let mut watch = Watch::default();
    assert!(watch.look(&quiet(), None, at(1_000)).is_empty());
    let reported = reported(true, 0);
    assert!(watch.look(&quiet(), Some(&reported), at(19)).is_empty());
    let alarms = watch.look(&quiet(), Some(&reported), at(20));
    assert_eq!(kinds(&alarms), [AlarmKind::SyncSilent]);
}

#[test]
fn a_tombstone_that_waits_for_a_replica_that_cannot_be_reached_is_an_alarm_soon() {
    let mut watch = Watch::default();
    let signs = waiting(at(0));
    for second in [0, 5] {
        let alarms = watch.look(&signs, Some(&reported(false, second)), at(second));
        assert!(alarms.is_empty(), "{second}");
    }
    let mut signs = signs;
    let pods = watch.pods(&signs).into_iter();
    signs.names = pods.map(|pod| (pod, "pod-3".to_owned())).collect();
    let alarms = watch.look(&signs, Some(&reported(false, 10)), at(10));
    assert_eq!(kinds(&alarms), [AlarmKind::FloorHeld]);
    let [about] = &alarms[0].about[..] else {
        panic!("{alarms:?}")
    };
    assert_eq!(about.who, format!("pod-3 (peer p3, store {STORE})"));
    assert_eq!(about.reason, "published: failed_unreachable");
    assert!(
        watch
            .look(&signs, Some(&reported(true, 20)), at(20))
            .is_empty()
    );
}

#[test]
fn one_that_waits_for_a_replica_of_which_no_pod_is_left_is_an_alarm_soon() {
    let mut watch = Watch::default();
    let signs = waiting(at(0));
    let mut gone = reported(true, 15);
    gone.report.peers[0].store = Some(StoreId::from_bytes([8; 16]).to_string());
    assert!(watch.look(&signs, Some(&gone), at(0)).is_empty());
    assert_eq!(watch.look(&signs, Some(&gone), at(15)).len(), 1);
    // Not all peers are in the report, or one of them was not met yet: it may be that one.
    gone.report.known = 2;
    assert!(watch.look(&signs, Some(&gone), at(16)).is_empty());
    gone.report.known = 1;
    gone.report.peers[0].store = None;
    assert!(watch.look(&signs, Some(&gone), at(16)).is_empty());
}

#[test]
fn one_that_waits_for_a_stranger_is_an_alarm_soon() {
    let mut watch = Watch::default();
    let mut signs = waiting(at(0));
    signs.holders[0] = Holder {
        reason: "stranger",
        replica: None,
    };
    let mut stranger = reported(false, 10);
    stranger.report.peers[0].store = None;
    assert!(watch.look(&signs, Some(&stranger), at(0)).is_empty());
    let alarms = watch.look(&signs, Some(&stranger), at(15));
    assert_eq!(
        alarms[0].about[0].reason,
        "stranger: 10.0.0.3:3003 failed_unreachable"
    );
}

#[test]
fn one_that_waits_as_long_as_it_does_while_all_is_well_is_none() {
    let mut watch = Watch::default();
    let signs = waiting(at(0));
    let mut look = |signs: &Signs, second| {
        let alarms = watch.look(signs, Some(&reported(true, second)), at(second));
        kinds(&alarms)
    };
    for second in [0, 15, 60, 120, 599] {
        assert!(look(&signs, second).is_empty(), "{second}");
    }
    assert_eq!(look(&signs, 600), [AlarmKind::FloorHeld]);
    // A brake is another alarm, and nobody's who is named here.
    let braked = Signs {
        is_braked: true,
        ..signs
    };
    assert!(look(&braked, 601).is_empty());
}
