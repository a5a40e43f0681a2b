//! `docs/logs.md` has every field and every event that the programs log.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = include_str!("../../../docs/logs.md");
const MACROS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

/// A call of one of the macros that log.
#[derive(Debug)]
struct Event {
    #[expect(dead_code, reason = "it is for whoever reads what is wrong")]
    place: String,
    level: &'static str,
    fields: Vec<String>,
    message: String,
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// What is between the parenthesis that is open already and its end, split at its commas.
fn arguments(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth) = (Vec::new(), String::new(), 0);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                part.push(char);
                while let Some(char) = chars.next() {
                    part.push(char);
                    match char {
                        '\\' => part.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(char);
    }
    parts.push(part);
    let parts = parts.iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// A literal as it is said: without what breaks its line, and `…` for what is put in.
fn said(literal: &str) -> String {
    let (mut text, mut depth) = (String::new(), 0);
    let literal = literal.trim_matches('"').split("\\\n").map(str::trim_start);
    for char in literal.collect::<String>().chars() {
        match char {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                text.push('…');
            }
            _ if depth == 0 => text.push(char),
            _ => {}
        }
    }
    text
}

fn events() -> Vec<Event> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for part in ["manager", "sync", "manager/tell"] {
        sources(&root.join(part).join("src"), &mut files);
    }
    let mut events = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for level in MACROS {
            let call = format!("tracing::{level}!(");
            for (at, _) in text.match_indices(&call) {
                let mut event = Event {
                    place: format!("{}, byte {at}", file.display()),
                    level,
                    fields: Vec::new(),
                    message: String::new(),
                };
                for argument in arguments(&text[at + call.len()..]) {
                    if argument.starts_with('"') {
                        event.message = said(&argument);
                        break;
                    }
                    if argument.starts_with("target:") {
                        continue;
                    }
                    let name = argument.split('=').next().unwrap();
                    let name = name.trim().trim_start_matches(['%', '?']);
                    event.fields.push(name.to_owned());
                }
                assert!(!event.message.is_empty(), "{event:?}");
                events.push(event);
            }
        }
    }
    events
}

/// What stands in backquotes at the beginning of the lines of a table.
fn first_cells() -> BTreeSet<&'static str> {
    let cells = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    cells
        .filter_map(|rest| rest.split_once('`'))
        .map(|(cell, _)| cell)
        .collect()
}

#[test]
fn every_field_that_is_logged_is_in_the_list_of_fields() {
    let (known, events) = (first_cells(), events());
    assert!(events.len() > 50, "{}", events.len());
    for event in &events {
        for field in &event.fields {
            assert!(known.contains(field.as_str()), "{field}: {event:?}");
        }
    }
    // And nothing is in the list that nobody logs.
    let logged: BTreeSet<_> = events.iter().flat_map(|event| &event.fields).collect();
    let written_by_all = ["timestamp", "level", "target", "message"];
    let table = DOCUMENT.split("## Fields").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    for line in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let field = line.split('`').next().unwrap();
        let is_logged = logged.iter().any(|logged| *logged == field);
        assert!(is_logged || written_by_all.contains(&field), "{field}");
    }
}

#[test]
fn every_event_from_info_on_is_in_the_list_of_events_with_its_level() {
    for event in events() {
        if ["trace", "debug"].contains(&event.level) || event.message == "…" {
            continue;
        }
        let lines = DOCUMENT.lines().filter(|line| line.starts_with("| "));
        let mut lines = lines.filter(|line| line.contains(&event.message));
        let level = format!("| {} |", event.level);
        assert!(lines.any(|line| line.contains(&level)), "{event:?}");
    }
}
