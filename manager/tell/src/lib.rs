//! What both programs tell of themselves, in the same words: their [`log`], which build they are
//! and how they were started ([`about`]), and what a write goes through ([`trace`]); whom of this
//! machine they tell more ([`loopback`]); and what they [`ask`] back.

pub mod about;
pub mod ask;
pub mod log;
pub mod loopback;
pub mod trace;

use std::error::Error;

/// An error and what led to it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        // Some errors repeat their sources.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_does_not_repeat_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Outer(&'static str, #[source] std::io::Error);
        let inner = || std::io::Error::other("why");
        assert_eq!(chain(&Outer("what", inner())), "what: why");
        assert_eq!(chain(&Outer("what: why", inner())), "what: why");
    }
}
