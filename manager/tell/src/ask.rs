//! Asking back before something that cannot be undone.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};

/// The longest reply, in bytes.
const REPLY_BYTES_MAX: u64 = 64;

/// Nobody said yes.
#[derive(Debug, thiserror::Error)]
pub enum Unconfirmed {
    /// Nobody can be asked: with what would be done.
    #[error("{0} Add --yes to do it without being asked.")]
    Unasked(String),
    /// Whoever was asked said something else.
    #[error("nothing was changed, as you did not say yes.")]
    No,
    /// What was replied cannot be read.
    #[error("cannot read your reply: {0}.")]
    Unreadable(#[source] io::Error),
}

/// Tells on `err` what would be done, and waits for a yes from `input`: if that `is_terminal`, as
/// nobody replies at the end of a pipe.
pub fn confirm(
    what: &str,
    input: &mut dyn Read,
    is_terminal: bool,
    err: &mut dyn Write,
) -> Result<(), Unconfirmed> {
    if !is_terminal {
        return Err(Unconfirmed::Unasked(what.to_owned()));
    }
    // That a question cannot be shown is told by its reply.
    let _ = write!(err, "{what} Go on? [y/N] ");
    let _ = err.flush();
    let mut reply = String::new();
    BufReader::new(input.take(REPLY_BYTES_MAX))
        .read_line(&mut reply)
        .map_err(Unconfirmed::Unreadable)?;
    match reply.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Unconfirmed::No),
    }
}

/// The same by the standard streams.
pub fn confirm_on_terminal(what: &str) -> Result<(), Unconfirmed> {
    let mut input = io::stdin();
    let is_terminal = input.is_terminal();
    confirm(what, &mut input, is_terminal, &mut io::stderr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> (Result<(), String>, String) {
        let mut err = Vec::new();
        let done = confirm("All goes.", &mut text.as_bytes(), true, &mut err);
        let done = done.map_err(|error| error.to_string());
        (done, String::from_utf8(err).unwrap())
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for yes in ["y\n", "Y\n", " yes \n", "YES"] {
            let asked = "All goes. Go on? [y/N] ".to_owned();
            assert_eq!(reply(yes), (Ok(()), asked), "{yes:?}");
        }
        let long = format!("{}y\n", " ".repeat(100));
        for no in ["", "\n", "no\n", "n\ny\n", "yess\n", &long] {
            let (done, _) = reply(no);
            assert!(done.unwrap_err().contains("did not say yes"), "{no:?}");
        }
        let unreadable = confirm("All goes.", &mut &b"\xff\n"[..], true, &mut Vec::new());
        assert!(matches!(unreadable, Err(Unconfirmed::Unreadable(_))));
    }

    #[test]
    fn who_cannot_be_asked_is_told_what_would_be_done_and_how() {
        let mut err = Vec::new();
        let unasked = confirm("All goes.", &mut io::empty(), false, &mut err).unwrap_err();
        assert_eq!(
            unasked.to_string(),
            "All goes. Add --yes to do it without being asked."
        );
        assert!(err.is_empty());
    }
}
