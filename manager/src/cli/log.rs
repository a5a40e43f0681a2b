//! The verb log-filter: what the running manager logs.

use clap::Args;
use udht_tell::log::{ChangeFilter, FilterInUse, LogFilter, Moment};
use ureq::http::Method;

use super::args::Format;
use super::client::{Client, Patience};
use super::console::Console;
use super::failure::Failure;

/// Show what is logged, or change it while the manager runs
///
/// A start of the manager takes it back to what `serve --log` says.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  udht-manager log-filter
  udht-manager log-filter debug --for 10m
  udht-manager log-filter info,udht_manager::store=debug
  kubectl exec POD -c manager -- /udht-manager log-filter debug")]
pub(crate) struct LogFilterArgs {
    /// A level (off, error, warn, info, debug, trace), or levels by module, with commas
    #[arg(value_name = "FILTER")]
    filter: Option<LogFilter>,
    /// For how long, from 1s to 24h; then it is again what the manager was started with
    #[arg(long = "for", value_name = "TIME", requires = "filter")]
    moment: Option<Moment>,
}

impl LogFilterArgs {
    /// Shows the filter, changed before if one is given.
    pub(crate) fn run(
        &self,
        client: &Client,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let path = "/v1/log-filter";
        let answer = match &self.filter {
            None => client.send(client.request(Method::GET, path, &[]), (), Patience::Record)?,
            Some(filter) => {
                let change = ChangeFilter {
                    filter: filter.clone(),
                    moment: self.moment,
                };
                let change = serde_json::to_string(&change)
                    .map_err(|error| Failure::Usage(format!("no filter: {error}.")))?;
                let request = client
                    .request(Method::PUT, path, &[])
                    .header("content-type", "application/json");
                client.send(request, change, Patience::Record)?
            }
        };
        let (json, used) = answer.json_as_sent::<FilterInUse>()?;
        match format {
            Format::Json => console.say(&json),
            Format::Table => console.say(&used.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Canned, json, problem};

    #[test]
    fn the_filter_is_shown_and_changed() {
        let used = |filter: &str, until: &str| {
            json(&format!(
                r#"{{"filter":"{filter}","begun":"info","until":{until}}}"#
            ))
        };
        let canned = Canned::new([
            used("info", "null"),
            used("debug", r#""2026-01-31T10:40:00Z""#),
            used("warn", "null"),
            used("info", "null"),
            problem(422, "a filter is a level", "filter"),
        ]);
        let run = |line: &[&str]| canned.run(&[&["log-filter"], line].concat());
        assert_eq!(run(&[]).out, "info\n");
        assert_eq!(
            run(&["debug", "--for", "10m"]).out,
            "debug (until 2026-01-31T10:40:00Z; then info)\n"
        );
        assert_eq!(run(&["warn"]).out, "warn (begun with info)\n");
        assert!(run(&["-o", "json"]).out.starts_with('{'));
        assert_eq!(run(&["warn"]).code(), 1);
        let requests = canned.requests();
        assert!(requests[0].starts_with("GET /v1/log-filter "));
        assert!(requests[1].starts_with("PUT /v1/log-filter "));
        assert!(requests[1].ends_with(r#"{"filter":"debug","for":"10m"}"#));
        assert!(requests[2].ends_with(r#"{"filter":"warn"}"#));
    }
}
