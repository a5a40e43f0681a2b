//! Recipes of the documentation: fenced blocks that are run as they stand, against a real manager.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The address that the documentation writes for a manager.
pub const WRITTEN_ADDRESS: &str = "http://127.0.0.1:3002";

/// A fenced block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// What the comment `<!-- recipe: NAME -->` in the line before it calls it; empty without one.
    pub name: String,
    /// What follows the opening fence.
    pub language: String,
    /// What is between the fences.
    pub text: String,
}

/// The part of a text in Markdown from a heading to the next of its rank or higher.
pub fn section<'a>(markdown: &'a str, heading: &str) -> Result<&'a str> {
    let start = markdown.find(&format!("\n{heading}\n"));
    let rest = &markdown[start.with_context(|| format!("no {heading}"))? + 1..];
    let rank = heading.split(' ').next().unwrap_or_default();
    let ends = (1..=rank.len()).filter_map(|rank| rest.find(&format!("\n{} ", "#".repeat(rank))));
    Ok(&rest[..ends.min().unwrap_or(rest.len())])
}

/// The fenced blocks of a text in Markdown.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut named = "";
    for line in markdown.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                open = Some(Block {
                    name: named.to_owned(),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
        let name = line.strip_prefix("<!-- recipe: ");
        named = name
            .and_then(|name| name.strip_suffix(" -->"))
            .unwrap_or_default();
    }
    blocks
}

/// Whether `program` can be run here. Where all recipes must be run (`CI=true`), its absence is an
/// error.
pub fn is_installed(program: &str) -> Result<bool> {
    let found = Command::new(program)
        .arg(if program == "go" {
            "version"
        } else {
            "--version"
        })
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found && std::env::var_os("CI").is_some() {
        bail!("{program} is not installed, and CI runs every recipe");
    }
    Ok(found)
}

/// Runs a command with `input`, and gives what it wrote.
pub fn output(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("the input of a child")?;
    // It may end before it has read all of it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}
