use super::*;
use crate::outcomes::Outcomes;
use crate::testing::{address, at, book, partner};

fn signs(book: &PeerBook, now: u64) -> Signs<'_> {
    Signs {
        book,
        pod_at: &|_| None,
        interval: Duration::from_secs(5),
        drift_max: Duration::from_secs(10),
        certificate: None,
        is_following: None,
        brake: None,
        dropped: 0,
        turned_away: 0,
        manager_away: None,
        manager_of_other: None,
        now: at(now),
        wall: WallTime::from_millis((1_700_000_000 + now) * 1_000),
    }
}

fn kinds(watch: &Watch) -> Vec<AlarmKind> {
    watch.alarms().into_iter().map(|it| it.alarm).collect()
}

/// Since which second it stands where that is so of which it is the alarm, and since which it does not
/// any more once that is over, from a minute on.
fn stands(
    alarm: AlarmKind,
    while_it_is_so: impl Fn(&mut Signs<'_>),
    after: impl Fn(&mut Signs<'_>),
) -> (u64, u64) {
    let book = PeerBook::new();
    let mut watch = Watch::default();
    let (mut first, mut last) = (None, None);
    for second in 0..120 {
        let mut signs = signs(&book, second);
        if second < 60 {
            while_it_is_so(&mut signs);
        } else {
            after(&mut signs);
        }
        let is_news = watch.look(&signs);
        let alarms = watch.alarms();
        let has_ended = last.is_some_and(|last| last + 1 == second) && alarms.is_empty();
        assert_eq!(is_news, first.is_none() && !alarms.is_empty() || has_ended);
        if let [one] = &alarms[..] {
            assert_eq!(one.alarm, alarm);
            first = first.or(Some(second));
            last = Some(second);
        }
    }
    (first.unwrap(), last.unwrap() + 1)
}

#[test]
fn what_comes_and_goes_by_itself_is_an_alarm_once_it_lasts_and_ends_at_once() {
    let nothing = |_: &mut Signs<'_>| {};
    let many = Brake::Many { gone: 3, known: 5 };
    for brake in [Brake::Blind, many] {
        let is_so = |it: &mut Signs<'_>| it.brake = Some(brake);
        assert_eq!(stands(AlarmKind::BrakeOn, is_so, nothing), (10, 60));
    }
    let without = |it: &mut Signs<'_>| it.certificate = Some(Certificate::None);
    assert_eq!(stands(AlarmKind::Certificate, without, nothing), (10, 60));
    let is_lost = |it: &mut Signs<'_>| it.is_following = Some(false);
    let kubernetes = AlarmKind::KubernetesUnreachable;
    assert_eq!(stands(kubernetes, is_lost, nothing), (10, 60));
    let is_away = |it: &mut Signs<'_>| it.manager_away = Some("away");
    assert_eq!(stands(AlarmKind::ManagerDown, is_away, nothing), (10, 60));
    let is_of_other = |it: &mut Signs<'_>| it.manager_of_other = Some("of another cluster");
    assert_eq!(
        stands(AlarmKind::ManagerDown, is_of_other, nothing),
        (10, 60)
    );
}

#[test]
fn what_was_turned_away_or_dropped_counts_for_a_moment() {
    let cases: [fn(&mut Signs<'_>); 2] = [|it| it.dropped = 1, |it| it.turned_away = 7];
    for is_so in cases {
        // The counters stay where they are.
        assert_eq!(stands(AlarmKind::QueueFull, is_so, is_so), (0, 15));
    }
}

#[test]
fn a_certificate_near_its_end_is_an_alarm_at_once_and_one_that_was_just_renewed_never() {
    let with = |life_hours: u64, left_hours: u64| {
        let book = PeerBook::new();
        let mut watch = Watch::default();
        let [life, left] = [life_hours, left_hours].map(Duration::from_hours);
        watch.look(&Signs {
            certificate: Some(Certificate::Good { life, left }),
            ..signs(&book, 100)
        });
        watch.alarms()
    };
    assert_eq!(with(90 * 24, 30 * 24), []);
    assert_eq!(with(90 * 24, 24), []);
    assert_eq!(with(6, 2), [], "a third is left when it is renewed");
    assert!(with(90 * 24, 23)[0].text.contains("in 23 h 0 min"));
    assert!(with(6, 1)[0].text.contains("in 1 h 0 min"));
    assert!(with(6, 0)[0].text.contains("has ended"));
}

#[test]
fn who_reaches_nobody_is_isolated_and_is_told_why_of_each() {
    let mut book = book(4);
    book.know_self(&address(4));
    let mut watch = Watch::default();
    for (n, problem) in [(1, "unreachable"), (2, "cluster"), (3, "cluster")] {
        book.failed(&address(n), problem, at(1), 0);
    }
    watch.look(&signs(&book, 14));
    assert_eq!(kinds(&watch), [], "others may still be starting");
    watch.look(&signs(&book, 15));
    let [alarm] = &watch.alarms()[..] else {
        panic!("{watch:?}")
    };
    assert_eq!(alarm.alarm, AlarmKind::Isolated);
    assert!(alarm.text.contains("3 other pods"), "{}", alarm.text);
    assert!(
        alarm
            .text
            .contains("1 failed_unreachable, 2 refused_cluster"),
        "{}",
        alarm.text
    );
    assert!(alarm.advice.contains("--cluster"), "{}", alarm.advice);
    let reasons: Vec<_> = alarm.about.iter().map(|it| &*it.reason).collect();
    assert_eq!(
        reasons,
        ["failed_unreachable", "refused_cluster", "refused_cluster"]
    );
    book.succeeded(&address(1), &partner(1), 0, None, at(16));
    assert!(watch.look(&signs(&book, 16)));
    assert_eq!(kinds(&watch), []);
}

#[test]
fn who_has_no_certificate_is_isolated_by_that() {
    let book = book(1);
    let mut watch = Watch::default();
    let without = Signs {
        certificate: Some(Certificate::None),
        ..signs(&book, 20)
    };
    watch.look(&without);
    assert_eq!(watch.alarms()[0].about[0].reason, "failed_no_credentials");
    assert!(watch.alarms()[0].advice.contains("no certificate"));
}

#[test]
fn of_many_peers_an_alarm_names_as_many_as_there_is_room_for() {
    let mut book = book(200);
    for n in 1..=200 {
        book.failed(&address(n), "timed_out", at(1), 0);
    }
    let mut watch = Watch::default();
    watch.look(&signs(&book, 20));
    assert_eq!(watch.alarms()[0].about.len(), ALARM_ABOUT_MAX);
    assert!(watch.alarms()[0].text.contains("200 failed_timed_out"));
}

#[test]
fn a_store_that_two_pods_have_is_an_alarm_that_names_the_other_until_it_has_one_of_its_own() {
    let mut book = book(2);
    book.succeeded(&address(1), &partner(1), 0, None, at(1));
    book.failed(&address(2), HandshakeRefused::Copied.word(), at(1), 0);
    let mut watch = Watch::default();
    for second in [2, 11] {
        watch.look(&signs(&book, second));
        assert_eq!(
            kinds(&watch),
            [],
            "a pod may be taking the place of another"
        );
    }
    watch.look(&signs(&book, 12));
    assert_eq!(kinds(&watch), [AlarmKind::StoreCopied]);
    let about = &watch.alarms()[0].about[0];
    assert_eq!(
        (&*about.who, &*about.reason),
        ("10.0.0.2:3003", "refused_copied")
    );
    book.succeeded(&address(2), &partner(2), 0, None, at(13));
    assert!(watch.look(&signs(&book, 13)));
    assert_eq!(kinds(&watch), []);
}

#[test]
fn each_reason_not_to_be_reached_has_its_advice() {
    let words = [
        "unreachable",
        "tls",
        "timed_out",
        "cluster",
        "protocol",
        "copied",
        "busy",
    ];
    let advice: std::collections::BTreeSet<_> = words
        .iter()
        .map(|word| unreachable_advice(&result_word(word)))
        .collect();
    assert_eq!(advice.len(), words.len());
}

#[test]
fn tables_that_stay_different_are_told_with_whom_for_how_long_and_by_how_much() {
    use peer_table::contract::merged_code;
    use peer_table::table::{MergeRefused, Merged};
    let mut book = book(2);
    for n in [1, 2] {
        book.succeeded(&address(n.into()), &partner(n), 0, None, at(1));
    }
    let mut refused = Outcomes::default();
    refused.add(&[merged_code(Merged::Refused(MergeRefused::Full)); 12]);
    for second in [10, 20] {
        book.refused_of(partner(2).store, &refused, at(second));
    }
    let mut watch = Watch::default();
    watch.look(&Signs {
        pod_at: &|it| (*it == address(2)).then(|| "files-2".to_owned()),
        ..signs(&book, 22)
    });
    let [alarm] = &watch.alarms()[..] else {
        panic!("{watch:?}")
    };
    assert_eq!(alarm.alarm, AlarmKind::Diverged);
    assert!(
        alarm
            .text
            .contains("1 other, for 12 s now, by up to 12 records"),
        "{}",
        alarm.text
    );
    assert_eq!(alarm.about[0].who, "10.0.0.2:3003 (files-2)");
    assert_eq!(
        alarm.about[0].reason,
        "refused_full here, 12 records, for 12 s"
    );
}

#[test]
fn the_clock_that_most_others_contradict_is_an_alarm_here_and_only_here() {
    let mut book = book(3);
    for (n, skew_ms) in [(1, -20_000), (2, -20_100), (3, 10)] {
        book.succeeded(&address(n.into()), &partner(n), skew_ms, None, at(1));
    }
    let mut watch = Watch::default();
    watch.look(&signs(&book, 2));
    assert!(
        watch.alarms()[0].text.contains("20.0 s ahead of"),
        "{watch:?}"
    );
    book.succeeded(&address(2), &partner(2), 0, None, at(3));
    assert!(watch.look(&signs(&book, 3)));
    assert_eq!(kinds(&watch), []);
}

#[test]
fn a_clock_whose_stamps_others_take_and_could_not_stamp_themselves_is_contradicted() {
    for (skew_ms, expected) in [(-7_000, 1), (7_000, 1), (-5_000, 0), (5_000, 0)] {
        let mut book = book(2);
        for n in [1, 2] {
            book.succeeded(&address(n.into()), &partner(n), skew_ms, None, at(1));
        }
        let mut watch = Watch::default();
        watch.look(&signs(&book, 2));
        assert_eq!(kinds(&watch).len(), expected, "{skew_ms}");
    }
}
