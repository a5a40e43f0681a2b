//! A headless Chromium, driven through chromedriver by the few commands of the W3C's `WebDriver` that
//! the tests need.
//!
//! The crates for it do not fit in here: one has JSON objects keep another order in all programs that
//! are built beside it, the other brings a second HTTP stack.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use ureq::Agent;

use crate::cluster::wait::until;
use crate::http;
use crate::process::{PATIENCE, Process};

/// What an element is called in JSON, as the standard fixes it.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A key on the keyboard, as the standard numbers them.
#[derive(Copy, Clone, Debug)]
pub enum Key {
    /// To the next element.
    Tab,
    /// As a click.
    Enter,
    /// Out of a dialogue.
    Escape,
}

impl Key {
    const fn code(self) -> &'static str {
        match self {
            Self::Tab => "\u{e004}",
            Self::Enter => "\u{e007}",
            Self::Escape => "\u{e00c}",
        }
    }
}

/// A browser with one window, and the driver that holds it.
#[derive(Debug)]
pub struct Browser {
    agent: Agent,
    session: String,
    // Ends when it is dropped, and the browser with it.
    _driver: Process,
}

/// An element of the page.
#[derive(Clone, Debug)]
pub struct Element(String);

/// Whether there is a Chromium to test with. It is large, so only CI insists on it.
pub fn is_there() -> bool {
    let version = std::process::Command::new("chromedriver")
        .arg("--version")
        .output();
    let is_there = version.is_ok();
    assert!(
        is_there || std::env::var_os("CI").is_none(),
        "CI has one: .ci/setup installs it"
    );
    if !is_there {
        println!("skipped: there is no chromedriver here (chromium-driver in Debian)");
    }
    is_there
}

impl Browser {
    /// Starts it with a window of this width and height, and opens `url`.
    pub fn open(url: &str, (width, height): (u32, u32)) -> Result<Self> {
        let chosen = ["--port=0".to_owned()];
        let mut driver = Process::start("chromedriver", Path::new("chromedriver"), &chosen)?;
        let said = driver.wait_for_log("started successfully on port")?;
        let port = said
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .trim_end_matches('.');
        let size = format!("--window-size={width},{height}");
        // The sandbox of Chromium is not to be had by root in a container, where CI runs.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            &size,
        ];
        let wanted = json!({"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}});
        let agent = http::agent();
        let sessions = format!("http://127.0.0.1:{port}/session");
        let begun = http::post(&agent, &sessions, &json!({"capabilities": wanted}))?.ok()?;
        let id = begun["value"]["sessionId"]
            .as_str()
            .context("a session without an id")?;
        let session = format!("{sessions}/{id}");
        let browser = Self {
            agent,
            session,
            _driver: driver,
        };
        browser.go(url)?;
        Ok(browser)
    }

    /// Opens another page, and waits until it is loaded.
    pub fn go(&self, url: &str) -> Result<()> {
        self.command("url", &json!({"url": url})).map(drop)
    }

    fn command(&self, command: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/{command}", self.session);
        let mut answer = http::post(&self.agent, &url, body)?.ok()?;
        Ok(answer["value"].take())
    }

    fn read(&self, what: &str) -> Result<Value> {
        let mut answer = http::get(&self.agent, &format!("{}/{what}", self.session))?.ok()?;
        Ok(answer["value"].take())
    }

    /// Each element of this CSS selector that is there now.
    pub fn all(&self, selector: &str) -> Result<Vec<Element>> {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.command("elements", &wanted)?;
        let ids = found.as_array().context("a list of elements")?.iter();
        let element = |it: &Value| Some(Element(it[ELEMENT].as_str()?.to_owned()));
        ids.map(element)
            .collect::<Option<_>>()
            .context("an element without an id")
    }

    /// The first element of this selector, once there is one.
    pub fn find(&self, selector: &str) -> Result<Element> {
        self.find_with(selector, "")
    }

    /// The first element of this selector that shows this text in it, once there is one.
    pub fn find_with(&self, selector: &str, text: &str) -> Result<Element> {
        until(&format!("{selector} with {text:?}"), PATIENCE, || {
            let found = self.with(selector, text)?;
            found.with_context(|| format!("the page shows:\n{}", self.shown().unwrap_or_default()))
        })
    }

    /// Waits until no element of this selector shows this text in it.
    pub fn gone(&self, selector: &str, text: &str) -> Result<()> {
        until(&format!("{selector} with {text:?} goes"), PATIENCE, || {
            ensure!(self.with(selector, text)?.is_none(), "it is still there");
            Ok(())
        })
    }

    fn with(&self, selector: &str, text: &str) -> Result<Option<Element>> {
        for element in self.all(selector)? {
            if text.is_empty() || self.text(&element)?.contains(text) {
                return Ok(Some(element));
            }
        }
        Ok(None)
    }

    fn shown(&self) -> Result<String> {
        let body = self.all("body")?;
        self.text(body.first().context("a page without a body")?)
    }

    /// The text that an element shows.
    pub fn text(&self, Element(id): &Element) -> Result<String> {
        let text = self.read(&format!("element/{id}/text"))?;
        Ok(text.as_str().context("a text")?.to_owned())
    }

    /// An attribute of an element.
    pub fn attribute(&self, Element(id): &Element, name: &str) -> Result<Option<String>> {
        let value = self.read(&format!("element/{id}/attribute/{name}"))?;
        Ok(value.as_str().map(str::to_owned))
    }

    /// The element that has the focus.
    pub fn focused(&self) -> Result<Element> {
        let found = self.read("element/active")?;
        Ok(Element(
            found[ELEMENT]
                .as_str()
                .context("nothing has the focus")?
                .to_owned(),
        ))
    }

    /// Clicks an element of this selector that shows this text, once there is one. What is drawn
    /// anew just then is looked for again.
    pub fn click(&self, selector: &str, text: &str) -> Result<()> {
        until(
            &format!("a click on {selector} with {text:?}"),
            PATIENCE,
            || {
                let Element(id) = self.with(selector, text)?.context("it is not there")?;
                self.command(&format!("element/{id}/click"), &json!({}))
                    .map(drop)
            },
        )
    }

    /// Types into an element, in place of what it holds.
    pub fn type_into(&self, selector: &str, text: &str) -> Result<()> {
        let Element(id) = self.find(selector)?;
        self.command(&format!("element/{id}/clear"), &json!({}))?;
        self.command(&format!("element/{id}/value"), &json!({"text": text}))
            .map(drop)
    }

    /// Presses a key, wherever the focus is.
    pub fn press(&self, key: Key) -> Result<()> {
        let strokes = ["keyDown", "keyUp"].map(|it| json!({"type": it, "value": key.code()}));
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        self.command("actions", &json!({"actions": [keyboard]}))
            .map(drop)
    }

    /// What a script gives back.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// What a script gives to the function that is its last argument.
    pub fn run_until_done(&self, script: &str) -> Result<Value> {
        self.command("execute/async", &json!({"script": script, "args": []}))
    }

    /// The page's title.
    pub fn title(&self) -> Result<String> {
        Ok(self.read("title")?.as_str().context("a title")?.to_owned())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails only where the driver has ended, and the browser with it.
        let _ = self.agent.delete(&self.session).call();
    }
}
