//! The verb healthcheck: for exec probes where there is no shell and no curl.

use clap::Args;
use ureq::http::Method;

use super::args::Format;
use super::client::{Client, Patience};
use super::console::Console;
use super::failure::Failure;

/// Say by the exit code whether the manager is well: 0 if it is, 1 if not, within 2 s
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager healthcheck
  udht-manager healthcheck --ready
  kubectl exec POD -c manager -- /udht-manager healthcheck --ready")]
pub(crate) struct HealthcheckArgs {
    /// Ask whether it is ready (store open, table loaded), not only whether it is alive
    #[arg(long)]
    ready: bool,
}

impl HealthcheckArgs {
    /// Asks, and prints the answer.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let (path, well) = if self.ready {
            ("/readyz", "ready")
        } else {
            ("/livez", "alive")
        };
        client
            .send(client.request(Method::GET, path, &[]), (), Patience::Probe)
            .map_err(|failure| Failure::Unhealthy(Box::new(failure)))?;
        match format {
            Format::Json => console.say(&serde_json::json!({ "health": well }).to_string()),
            Format::Table => console.say(well),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Canned, json, problem};

    #[test]
    fn healthy_is_0_and_everything_else_is_1() {
        let canned = Canned::new([json("ok"), json("ok"), problem(503, "loading", ""), vec![]]);
        assert_eq!(canned.run(&["healthcheck"]).out, "alive\n");
        assert_eq!(canned.run(&["healthcheck", "--ready"]).out, "ready\n");
        let ran = canned.run(&["healthcheck", "--ready"]);
        assert_eq!(
            (ran.code(), ran.failure()),
            (1, "unhealthy: loading (status 503)".to_owned())
        );
        assert_eq!(canned.run(&["healthcheck"]).code(), 1);
        let requests = canned.requests();
        assert!(requests[0].starts_with("GET /livez "), "{}", requests[0]);
        assert!(requests[1].starts_with("GET /readyz "), "{}", requests[1]);
    }
}
