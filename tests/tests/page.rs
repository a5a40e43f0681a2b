//! The page at `/`, in a real browser.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use udht_tests::browser::{Browser, Key, is_there};
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions, Part};
use ureq::Agent;

/// Sizes of a window, in pixels.
const WIDE: (u32, u32) = (1_280, 900);
const PHONE: (u32, u32) = (500, 900);

/// Pods, and peers that they know.
struct House {
    cluster: Cluster,
    agent: Agent,
    _folder: TempDir,
}

impl House {
    fn start(pods: usize) -> Result<Self> {
        let folder = TempDir::new()?;
        let cluster = Cluster::start(folder.path(), pods, &ClusterOptions::default())?;
        let agent = agent();
        Ok(Self {
            cluster,
            agent,
            _folder: folder,
        })
    }

    fn url(&self) -> String {
        self.cluster.pods[0].manager_url()
    }

    fn peer(&self, id: &str) -> String {
        format!("{}/v1/peers/{id}", self.url())
    }

    /// Writes a peer through the first pod.
    fn put(&self, id: &str, record: &Value) -> Result<()> {
        http::put(&self.agent, &self.peer(id), record)?
            .ok()
            .map(drop)
    }

    /// Writes that many peers: `peer-001`, ...
    fn fill(&self, count: usize) -> Result<()> {
        for number in 1..=count {
            let zone = if number % 2 == 0 { "even" } else { "odd" };
            let ip = format!("10.0.{}.{}", number / 200, number % 200);
            let record =
                json!({"name": format!("peer-{number:03}"), "ip": ip, "labels": {"zone": zone}});
            self.put(&format!("id-{number:03}"), &record)?;
        }
        Ok(())
    }
}

#[test]
fn peers_are_searched_sorted_and_paged_and_follow_each_change() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let house = House::start(1)?;
    house.fill(120)?;
    let browser = Browser::open(&house.url(), WIDE)?;
    // 120 and the pod's own.
    browser.find_with("#peers-state", "121 peers, live")?;
    browser.find_with("#range", "1–50 of 121")?;
    browser.click("#next", "")?;
    browser.find_with("#range", "51–100 of 121")?;
    browser.click("#last", "")?;
    browser.find_with("#range", "101–121 of 121")?;

    browser.type_into("#search", "zone=even peer-11")?;
    browser.find_with("#peers-state", "5 of 121 peers, live")?;
    browser.click("[data-sort=name]", "")?;
    browser.find_with("#peer-rows tr:first-child", "peer-118")?;
    browser.find("th[aria-sort=descending] [data-sort=name]")?;

    // What others write is there by itself.
    let record = json!({"name": "peer-119", "ip": "10.9.9.9", "labels": {"zone": "even"}});
    house.put("id-119", &record)?;
    browser.find_with("#peer-rows tr:first-child", "10.9.9.9")?;
    browser.find_with("#peers-state", "6 of 121 peers, live")?;
    house.agent.delete(house.peer("id-118")).call()?;
    browser.find_with("#peers-state", "5 of 120 peers, live")?;
    browser.gone("#peer-rows tr", "peer-118")?;
    Ok(())
}

#[test]
fn a_peer_is_changed_and_deleted_only_where_that_was_allowed() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let house = House::start(1)?;
    house.put("p1", &json!({"name": "first", "ip": "10.0.0.1"}))?;
    let browser = Browser::open(&house.url(), WIDE)?;
    let open = "[data-peer=p1]";
    browser.click(open, "")?;
    browser.find_with("#peer-body", "10.0.0.1")?;
    ensure!(
        buttons(&browser)? == ["Close"],
        "it only reads unless asked"
    );
    browser.click("#peer-buttons button", "Close")?;

    browser.click("#changes", "")?;
    browser.click(open, "")?;
    ensure!(buttons(&browser)? == ["Close", "Edit…", "Delete…"]);
    browser.click("#peer-buttons button", "Edit")?;
    // A record that breaks a rule is refused in the manager's own words.
    edit(&browser, &json!({"name": "renamed", "ip": "nowhere"}))?;
    browser.find_with("#peer-problem", "ip:")?;
    edit(&browser, &json!({"name": "renamed", "ip": "10.0.0.2"}))?;
    browser.find_with(open, "renamed")?;
    let read = http::get(&house.agent, &house.peer("p1"))?.ok()?;
    ensure!(read["ip"] == "10.0.0.2", "{read}");

    // Who is slower is told, and changes nothing.
    browser.click(open, "")?;
    browser.click("#peer-buttons button", "Edit")?;
    house.put("p1", &json!({"name": "faster", "ip": "10.0.0.3"}))?;
    edit(&browser, &json!({"name": "slower", "ip": "10.0.0.4"}))?;
    browser.find_with("#peer-problem", "changed meanwhile")?;
    browser.click("#peer-buttons button", "Back")?;
    browser.find_with("#peer-title", "faster")?;

    // Deleting asks back, and the button that was under the finger is not the one that deletes.
    browser.click("#peer-buttons button", "Delete")?;
    browser.find_with("#peer-body", "in every pod")?;
    ensure!(browser.text(&browser.focused()?)? == "Back");
    browser.click("#peer-buttons button.danger", "Delete in every pod")?;
    browser.gone("#peer-rows tr", "faster")?;
    ensure!(http::get(&house.agent, &house.peer("p1"))?.status == 404);
    Ok(())
}

/// Whose row has the focus.
fn focused_peer(browser: &Browser) -> Result<Option<String>> {
    browser.attribute(&browser.focused()?, "data-peer")
}

/// The labels of the dialog's buttons.
fn buttons(browser: &Browser) -> Result<Vec<String>> {
    let mut labels = Vec::new();
    for button in browser.all("#peer-buttons button")? {
        labels.push(browser.text(&button)?);
    }
    Ok(labels)
}

/// Puts a record into the editor, and saves.
fn edit(browser: &Browser, record: &Value) -> Result<()> {
    browser.type_into("#edited", &record.to_string())?;
    browser.click("#peer-buttons button", "Save")?;
    Ok(())
}

#[test]
fn what_a_record_says_is_shown_as_text_and_nothing_comes_from_elsewhere() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let house = House::start(1)?;
    let hostile = "<img src=x onerror=\"document.title='broken in'\">";
    house.put(
        "p1",
        &json!({"name": hostile, "ip": "10.0.0.1", "labels": {"k": hostile}}),
    )?;
    let browser = Browser::open(&house.url(), WIDE)?;
    browser.click("[data-peer=p1]", hostile)?;
    browser.find_with("#peer-body", hostile)?;
    ensure!(browser.all("img")?.is_empty(), "no markup came of it");
    ensure!(browser.title()? == "pod-1 · UDHT");
    let script = "return performance.getEntriesByType('resource').map((it) => it.name)";
    let loaded: Vec<String> = serde_json::from_value(browser.run(script)?)?;
    let own = format!("{}/", house.url());
    ensure!(loaded.len() > 5, "{loaded:?}");
    ensure!(loaded.iter().all(|url| url.starts_with(&own)), "{loaded:?}");
    // The policy forbids what a script that got in would do.
    let script = "const done = arguments[0];
        addEventListener('securitypolicyviolation', (event) => done(event.violatedDirective));
        document.body.append(Object.assign(document.createElement('img'), { src: 'http://127.0.0.1:1/x' }));";
    ensure!(browser.run_until_done(script)? == "img-src");
    Ok(())
}

#[test]
fn a_page_of_another_program_on_this_machine_changes_nothing() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let house = House::start(1)?;
    house.put("p1", &json!({"name": "first", "ip": "10.0.0.1"}))?;
    let browser = Browser::open(&empty_page()?, WIDE)?;
    // The first is asked for leave by the browser; the second is one of those that any page may send
    // without, though it never sees the answer.
    let script = format!(
        "const done = arguments[0];
        const outcome = (asked) => asked.then(() => 'sent', () => 'stopped');
        Promise.all([
            outcome(fetch('{peer}', {{ method: 'DELETE' }})),
            outcome(fetch('{peer}/contact', {{ method: 'POST', mode: 'no-cors' }})),
        ]).then(done);",
        peer = house.peer("p1"),
    );
    let outcomes = browser.run_until_done(&script)?;
    ensure!(outcomes == json!(["stopped", "sent"]), "{outcomes}");
    let read = http::get(&house.agent, &house.peer("p1"))?.ok()?;
    ensure!(read["lastConnectionOn"] == Value::Null, "{read}");
    Ok(())
}

/// Where another program of this machine serves an empty page, until the test ends.
fn empty_page() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            if lines.any(|line| line.is_empty()) {
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 15\r\n\
                              connection: close\r\n\r\n<!doctype html>";
                // Fails only where the browser has gone, and then nobody waits for it.
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    Ok(url)
}

#[test]
fn it_is_used_by_keyboard_alone_and_on_a_phone() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let house = House::start(1)?;
    house.fill(3)?;
    let browser = Browser::open(&house.url(), PHONE)?;
    browser.find_with("#peers-state", "4 peers, live")?;
    // From the search by Tab: the switch, the list as a region, its heads, and then each peer.
    browser.type_into("#search", "peer-002")?;
    browser.find_with("#peers-state", "1 of 4 peers")?;
    let mut reached = Vec::new();
    for _ in 0..20 {
        browser.press(Key::Tab)?;
        reached.push(focused_peer(&browser)?);
        if reached.last() == Some(&Some("id-002".to_owned())) {
            break;
        }
    }
    ensure!(
        focused_peer(&browser)?.as_deref() == Some("id-002"),
        "{reached:?}"
    );
    browser.press(Key::Enter)?;
    browser.find_with("dialog[open] #peer-title", "peer-002")?;
    browser.press(Key::Escape)?;
    browser.gone("dialog[open]", "")?;
    let back = focused_peer(&browser)?;
    ensure!(
        back.as_deref() == Some("id-002"),
        "the focus goes back to where it came from: {back:?}"
    );

    // Each control says what it is, and nothing is wider than the screen.
    let script = "return [...document.querySelectorAll('input, button, a, textarea')]
        .filter((it) => it.checkVisibility() && !(it.textContent.trim() || it.labels?.[0]?.textContent.trim()
            || it.getAttribute('aria-label'))).map((it) => it.outerHTML)";
    let nameless: Vec<String> = serde_json::from_value(browser.run(script)?)?;
    ensure!(nameless.is_empty(), "{nameless:?}");
    for part in ["#peers", "#replicas", "#activity", "#calls"] {
        browser.click(&format!("nav a[href='{part}']"), "")?;
        browser.find(&format!("section{part}:not([hidden])"))?;
        let script =
            "const root = document.documentElement; return root.scrollWidth - root.clientWidth";
        let beyond = browser.run(script)?;
        ensure!(beyond == 0, "{part} is {beyond} pixels too wide");
    }
    Ok(())
}

#[test]
fn a_manager_that_comes_back_is_followed_again() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut house = House::start(1)?;
    house.put("p1", &json!({"name": "first", "ip": "10.0.0.1"}))?;
    let browser = Browser::open(&house.url(), WIDE)?;
    browser.find_with("#peers-state", "2 peers, live")?;
    let pod = house.cluster.pod(1);
    pod.manager.as_mut().context("a manager")?.kill()?;
    browser.find_with("#peers-state.bad", "connection was lost")?;
    browser.find_with("#health.bad", "cannot be asked")?;
    pod.start_manager()?;
    house.put("p2", &json!({"name": "second", "ip": "10.0.0.2"}))?;
    browser.find_with("#peers-state", "3 peers, live")?;
    browser.find_with("#peer-rows", "second")?;
    Ok(())
}

#[test]
fn it_tells_of_the_other_replicas_and_of_what_is_wrong_and_forgets_it_when_it_is_over() -> Result<()>
{
    if !is_there() {
        return Ok(());
    }
    let mut house = House::start(2)?;
    house.cluster.wait_until_joined(&house.agent)?;
    let browser = Browser::open(&house.url(), WIDE)?;
    browser.find_with(
        "#health.good",
        "reaches 1 of 1 replica · tables are equal · no alarm",
    )?;
    browser.click("nav a[href='#replicas']", "")?;
    let other = house.cluster.pods[1].exchange_address();
    browser.find_with("#replica-rows tr", &other)?;
    browser.find_with("#replica-rows", "reachable")?;
    browser.click("nav a[href='#activity']", "")?;
    browser.click("#quiet", "")?;
    browser.find_with("#event-rows tr", "exchange with")?;
    // A write there is there in the peer's own words: who pushed it, and when.
    let record = json!({"name": "far", "ip": "10.0.0.1"});
    let there = format!("{}/v1/peers/far", house.cluster.pods[1].manager_url());
    http::put(&house.agent, &there, &record)?.ok()?;
    browser.find_with("#event-rows tr", "pushed by")?;
    browser.click("nav a[href='#peers']", "")?;
    browser.click("[data-peer=far]", "")?;
    browser.find_with("#why", "came by a push")?;
    browser.press(Key::Escape)?;

    house.cluster.pod(2).kill_part(Part::Sync)?;
    browser.find_with("[data-alarm=isolated]", &other)?;
    browser.find_with("#health.bad", "1 alarm")?;
    house.cluster.pod(2).start_sync()?;
    browser.gone("[data-alarm]", "")?;
    browser.find_with("#health.good", "no alarm")?;
    Ok(())
}
