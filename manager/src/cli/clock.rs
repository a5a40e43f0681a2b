//! The verb heal-clock: for a store that once took a wrong clock's stamps.

use clap::Args;
use serde::Deserialize;
use ureq::http::Method;

use super::args::Format;
use super::client::{Client, Patience};
use super::console::Console;
use super::failure::Failure;

/// Heal what was stamped while this machine's clock was ahead; first set the clock right
///
/// Records that are stamped further ahead than half of --max-clock-drift are stamped anew: no peer
/// takes them as they are, and no later write of them either. Nothing of what they say is lost. Then
/// writes are taken again at once. Run it on each pod whose clock was ahead.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager heal-clock
  udht-manager heal-clock -o json | jq .healed
  kubectl exec POD -c manager -- /udht-manager heal-clock")]
pub(crate) struct HealClockArgs {}

#[derive(Deserialize)]
struct Healed {
    healed: u64,
}

impl HealClockArgs {
    /// Heals, and prints how many records that were.
    #[expect(
        clippy::unused_self,
        reason = "all verbs are run alike, and this one takes nothing"
    )]
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let request = client.request(Method::POST, "/v1/clock/heal", &[]);
        let (json, answer) = client
            .send(request, "", Patience::Work)?
            .json_as_sent::<Healed>()?;
        match (format, answer.healed) {
            (Format::Json, _) => console.say(&json),
            (Format::Table, 0) => console.say("nothing is stamped too far ahead"),
            (Format::Table, 1) => console.say("1 record was stamped anew"),
            (Format::Table, count) => console.say(&format!("{count} records were stamped anew")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Canned, json, problem};

    #[test]
    fn what_was_healed_is_told_and_a_clock_that_is_still_wrong_is_a_later_try() {
        let healed = |count: u64| json(&format!(r#"{{"healed":{count}}}"#));
        let canned = Canned::new([
            healed(0),
            healed(1),
            healed(7),
            healed(7),
            problem(503, "set it", ""),
        ]);
        let run = |line: &[&str]| canned.run(&[&["heal-clock"], line].concat());
        assert_eq!(run(&[]).out, "nothing is stamped too far ahead\n");
        assert_eq!(run(&[]).out, "1 record was stamped anew\n");
        assert_eq!(run(&[]).out, "7 records were stamped anew\n");
        assert_eq!(run(&["-o", "json"]).out, "{\"healed\":7}\n");
        assert_eq!(run(&[]).code(), 5);
        let requests = canned.requests();
        let path = "POST /v1/clock/heal ";
        assert!(
            requests.iter().all(|it| it.starts_with(path)),
            "{requests:?}"
        );
    }
}
