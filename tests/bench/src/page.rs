//! The manager's page with many peers, in a headless Chromium: how soon it shows them, how long a
//! search and another order take, and how much comes over the wire.
//!
//! All times are the browser's own, from the beginning of the visit or from the click, until the page
//! shows it. The browser and the manager share the processors.

use anyhow::{Context, Result};
use peer_table::contract::BATCH_RECORDS_MAX;
use serde_json::Value;
use udht_tests::browser::{Browser, is_there};
use udht_tests::pod::StoreKind;

use crate::alone::{Alone, batches, dated};
use crate::measure::Samples;
use crate::records::Records;
use crate::report::{Report, Row, Unit};

/// How many peers there are.
const PEERS: usize = 100_000;
/// The same with the pod's own record, as the page writes it.
const SHOWN: &str = "100,001";
/// How often each is measured.
const TIMES: usize = 5;
/// The window, in pixels.
const WINDOW: (u32, u32) = (1_280, 900);

/// What waits in the page until `shown` holds, and tells the milliseconds since `since`.
fn when(since: &str, shown: &str) -> String {
    format!(
        "const done = arguments[arguments.length - 1];
         const state = () => document.querySelector('#peers-state').textContent;
         const since = {since};
         const say = () => done(performance.now() - since);
         const look = () => {shown} ? requestAnimationFrame(say) : setTimeout(look, 5);
         look();"
    )
}

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    if report.is_quick() || !is_there() {
        return Ok(());
    }
    let alone = Alone::start(StoreKind::Embedded)?;
    let records: Vec<_> = Records::new(PEERS).take(PEERS).map(dated).collect();
    for batch in batches(&records, BATCH_RECORDS_MAX) {
        alone.merge(&batch)?;
    }
    let browser = Browser::open("about:blank", WINDOW)?;
    let all = format!("state() === '{SHOWN} peers, live'");
    let some = "document.querySelectorAll('#peer-rows tr').length > 0";
    let search = format!(
        "(() => {{
             const search = document.querySelector('#search');
             search.value = 'files-{}';
             search.dispatchEvent(new Event('input', {{bubbles: true}}));
             return performance.now();
         }})()",
        PEERS / 2
    );
    let found = format!("/^[1-9].* of {SHOWN} peers/.test(state())");
    let clear = "(() => {
             const search = document.querySelector('#search');
             search.value = '';
             search.dispatchEvent(new Event('input', {bubbles: true}));
             return performance.now();
         })()";
    let sort = |column: &str| {
        format!(
            "(() => {{
                 const begun = performance.now();
                 document.querySelector('[data-sort={column}]').click();
                 return begun;
             }})()"
        )
    };
    let sorted = |column: &str| {
        format!("document.querySelector('th[aria-sort] [data-sort={column}]') !== null")
    };
    let mut steps = [
        (
            "rows",
            "until the first rows are shown",
            "0".to_owned(),
            some.to_owned(),
        ),
        ("all", "until all are there", "0".to_owned(), all.clone()),
        ("search", "a search", search, found),
        ("clear", "the search taken back", clear.to_owned(), all),
        ("sort", "another order", sort("ip"), sorted("ip")),
    ]
    .map(|(id, what, since, shown)| (id, what, when(&since, &shown), Samples::new()));
    let mut bytes = Samples::new();
    for _ in 0..TIMES {
        browser.go(&alone.url())?;
        for (_, what, script, samples) in &mut steps {
            let took = browser.run_until_done(script);
            let took = took.with_context(|| format!("{PEERS} peers in the page: {what}"))?;
            samples.add(number(&took)? / 1_000.0);
        }
        let loaded = browser.run(
            "return performance.getEntries().reduce((all, it) => all + (it.transferSize ?? 0), 0)",
        )?;
        bytes.add(number(&loaded)?);
        browser.go("about:blank")?;
    }
    for (id, what, _, samples) in steps {
        let what = format!("the page with {PEERS} peers: {what}");
        report.add(Row::new(
            format!("page/{id}"),
            what,
            samples.figure(Unit::Seconds),
        ));
    }
    let what = format!("the page with {PEERS} peers: bytes loaded");
    report.add(Row::new("page/bytes", what, bytes.figure(Unit::Bytes)));
    Ok(())
}

fn number(value: &Value) -> Result<f64> {
    value
        .as_f64()
        .with_context(|| format!("the page says {value}"))
}
