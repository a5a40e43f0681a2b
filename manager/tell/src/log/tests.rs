//! The log as a program has it, kept in memory in place of standard error.

use serde_json::Value;
use tracing::subscriber::set_default;

use super::*;

fn lines(log: &Log) -> Vec<Value> {
    let text = log.last_lines();
    let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(line).collect()
}

fn begun(filter: &str) -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let filter = filter.parse().unwrap_or_else(|error| panic!("{error}"));
    let guard = set_default(log.subscriber(&filter, Echo::Nothing, false));
    (log, guard)
}

fn change(filter: &str, moment: Option<&str>) -> ChangeFilter {
    let moment = moment.map(|moment| moment.parse().unwrap_or_else(|error| panic!("{error}")));
    let filter = filter.parse().unwrap_or_else(|error| panic!("{error}"));
    ChangeFilter { filter, moment }
}

fn fails(peer: &str, error: &str) {
    tracing::warn!(
        peer,
        result = "failed_unreachable",
        error,
        "an exchange failed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_faults_is_said_once_then_counted_and_summarised() {
    let (log, _guard) = begun("info");
    let keeper = log.clone();
    tokio::spawn(async move { keeper.keep().await });
    for number in 0..10_000 {
        fails("10.0.0.7:3003", &format!("refused on port {number}"));
    }
    assert_eq!(lines(&log).len(), 1);
    assert_eq!(lines(&log)[0]["error"], "refused on port 0");
    tokio::time::sleep(WINDOW + WINDOW / 2).await;
    let told = lines(&log);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!(told[1]["times"], 9_999);
    assert_eq!(told[1]["level"], "WARN");
    assert_eq!(told[1]["error"], "refused on port 9999");
    let text = "said 9999 more times in the last minute: an exchange failed";
    assert_eq!(told[1]["message"], text);

    // It goes on: each minute has one line more. It ends, and comes back: that is said in full.
    for minute in 1..=3 {
        fails("10.0.0.7:3003", "refused");
        tokio::time::sleep(WINDOW).await;
        let times = lines(&log).last().map(|line| line["times"].clone());
        assert_eq!(lines(&log).len(), 2 + minute, "{times:?}");
    }
    tokio::time::sleep(3 * WINDOW).await;
    fails("10.0.0.7:3003", "refused");
    let told = lines(&log);
    assert_eq!(told.len(), 6, "{told:#?}");
    assert_eq!(told[5]["message"], "an exchange failed");
}

#[tokio::test(start_paused = true)]
async fn a_few_kinds_are_said_in_full_and_the_rest_is_counted() {
    let (log, _guard) = begun("info");
    for peer in 0..50 {
        for _ in 0..20 {
            fails(&format!("10.0.0.{peer}:3003"), "refused");
        }
    }
    assert_eq!(lines(&log).len(), KINDS_MAX);
    log.tell_left_out();
    let told = lines(&log);
    assert_eq!(told.len(), KINDS_MAX + 1);
    assert_eq!(told[KINDS_MAX]["times"], 1_000 - KINDS_MAX);
    log.tell_left_out();
    assert_eq!(lines(&log).len(), KINDS_MAX + 1, "there is nothing to tell");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_where_nobody_tells_what_was_left_out() {
    let (log, _guard) = begun("info");
    fails("a", "refused");
    fails("a", "refused");
    tokio::time::sleep(2 * WINDOW).await;
    fails("a", "refused");
    assert_eq!(lines(&log).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_looks_closely_at_a_module_sees_all_of_it() {
    let (log, _guard) = begun("info,udht_tell::log::tests=debug");
    for _ in 0..50 {
        fails("a", "refused");
    }
    assert_eq!(lines(&log).len(), 50);
}

#[tokio::test(start_paused = true)]
async fn the_filter_is_changed_while_the_program_runs_and_goes_back_by_itself() {
    let (log, _guard) = begun("warn");
    tracing::debug!("nobody hears this");
    assert_eq!(log.filter().filter, "warn".parse().unwrap_or_default());
    let used = log.set_filter(&change("debug", None));
    assert_eq!(used.filter.to_string(), "debug");
    assert_eq!(
        (used.begun.to_string().as_str(), used.until),
        ("warn", None)
    );
    tracing::debug!("this is heard");
    let used = log.set_filter(&change("trace", Some("10m")));
    assert!(used.until.is_some());
    tracing::trace!("this too");
    tokio::time::sleep(WINDOW * 11).await;
    assert_eq!(log.filter().filter.to_string(), "warn");
    assert_eq!(log.filter().until, None);
    tracing::info!("and this is not");
    let said: Vec<_> = lines(&log)
        .iter()
        .map(|line| line["message"].clone())
        .collect();
    let changed = "another filter of the log is in use";
    assert_eq!(
        said,
        [changed, "this is heard", changed, "this too", changed]
    );
}

#[tokio::test(start_paused = true)]
async fn a_later_change_is_not_undone_by_an_earlier_one() {
    let (log, _guard) = begun("warn");
    log.set_filter(&change("trace", Some("1m")));
    log.set_filter(&change("debug", None));
    tokio::time::sleep(WINDOW * 3).await;
    assert_eq!(log.filter().filter.to_string(), "debug");
}

#[test]
fn a_change_is_read_from_json_within_its_bounds() {
    let read = |text: &str| serde_json::from_str::<ChangeFilter>(text);
    let change = read(r#"{"filter":"debug","for":"10m"}"#);
    assert_eq!(change.ok(), Some(self::change("debug", Some("10m"))));
    for (bad, part) in [
        (r#"{"filter":"loud"}"#, "off, error, warn"),
        (r#"{"filter":"info","for":"2days"}"#, "1s to 24h"),
        (r#"{"filter":"info","for":"soon"}"#, "such as 10m"),
        (r#"{"filter":"info","more":1}"#, "unknown field"),
        (r"{}", "filter"),
    ] {
        let refused = read(bad).map_err(|error| error.to_string()).expect_err(bad);
        assert!(refused.contains(part), "{bad}: {refused}");
    }
}

#[test]
fn an_event_is_one_line_of_json_with_its_fields() {
    let (log, _guard) = begun("info");
    tracing::info!(peer = "a\nb", records = 3, "two\nlines");
    let told = lines(&log);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["peer"], "a\nb");
    assert_eq!(told[0]["records"], 3);
    assert_eq!(told[0]["message"], "two\nlines");
    assert_eq!(told[0]["target"], "udht_tell::log::tests");
    assert!(told[0]["timestamp"].is_string());
}
