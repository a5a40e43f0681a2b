//! Which build a program is, and how it was started: for whoever has to find out what is wrong.

use std::sync::OnceLock;
use std::time::SystemTime;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde::{Deserialize, Serialize};

/// Which build this is, and how it was started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct About {
    /// The program.
    pub program: String,
    /// Its release.
    pub release: String,
    /// The commit that an image was built of; null elsewhere.
    pub revision: Option<String>,
    /// Whether it was built to be fast (`release`), or to be tested (`debug`).
    pub profile: String,
    /// The machine that it was built for, as `linux/x86_64`.
    pub platform: String,
    /// When it was started (RFC 3339).
    #[serde(rename = "startedAt")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub started_at: String,
    /// Its flags as they are in effect; what in them is secret is `***`.
    pub flags: Vec<Flag>,
}

/// A flag as it is in effect.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Flag {
    /// Its name, as `--listen`.
    pub name: String,
    /// Its value; several are separated by commas.
    pub value: String,
    /// Who said so: `flag`, `environment` or `default`.
    pub from: String,
}

static ABOUT: OnceLock<About> = OnceLock::new();

/// What is known of this program: nothing before [`begin`].
pub fn about() -> About {
    ABOUT.get().cloned().unwrap_or_default()
}

/// Notes how a program was started: by these `matches` of its `command`, of which `verb` is what
/// runs.
pub fn begin(program: &str, release: &str, command: &Command, verb: &str, matches: &ArgMatches) {
    let flags = match (
        command.find_subcommand(verb),
        matches.subcommand_matches(verb),
    ) {
        (Some(command), Some(matches)) => flags(command, matches),
        _ => Vec::new(),
    };
    let about = About {
        program: program.to_owned(),
        release: release.to_owned(),
        revision: option_env!("UDHT_REVISION").map(str::to_owned),
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        }
        .to_owned(),
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        started_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        flags,
    };
    // A second start is one of a test.
    let _ = ABOUT.set(about);
}

fn flags(command: &Command, matches: &ArgMatches) -> Vec<Flag> {
    let flag = |arg: &clap::Arg| {
        let id = arg.get_id().as_str();
        let values = matches.try_get_raw(id).ok().flatten()?;
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        let from = match matches.value_source(id)? {
            ValueSource::CommandLine => "flag",
            ValueSource::EnvVariable => "environment",
            _ => "default",
        };
        Some(Flag {
            name: format!("--{}", arg.get_long()?),
            value: without_secrets(&values.join(",")),
            from: from.to_owned(),
        })
    };
    command.get_arguments().filter_map(flag).collect()
}

/// The same text, with `***` in place of the user and the password of a URL.
pub fn without_secrets(text: &str) -> String {
    match text.split_once("://") {
        // A password may have `@` in it, and what is behind the last one is a host.
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{host}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        _verb: Verb,
    }

    #[derive(clap::Subcommand)]
    enum Verb {
        Serve {
            #[arg(long, default_value = "127.0.0.1:3002")]
            listen: String,
            #[arg(long)]
            store: String,
            #[arg(long)]
            port: Vec<String>,
            #[arg(long)]
            unsaid: Option<String>,
        },
    }

    #[test]
    fn the_flags_in_effect_are_told_without_their_secrets() {
        let line = [
            "x",
            "serve",
            "--store=redis://u:p@ss/w@cache:1/0",
            "--port=a",
            "--port=b",
        ];
        let command = Cli::command();
        let matches = command.clone().try_get_matches_from(line);
        let matches = matches.unwrap_or_else(|error| panic!("{error}"));
        assert!(Cli::from_arg_matches(&matches).is_ok());
        begin("x", "1.2.3", &command, "serve", &matches);
        let about = about();
        let told: Vec<_> = about
            .flags
            .iter()
            .map(|flag| [&flag.name[..], &flag.value, &flag.from])
            .collect();
        assert_eq!(
            told,
            [
                ["--listen", "127.0.0.1:3002", "default"],
                ["--store", "redis://***@cache:1/0", "flag"],
                ["--port", "a,b", "flag"],
            ]
        );
        assert_eq!(about.release, "1.2.3");
    }

    #[test]
    fn a_url_is_told_without_its_user_and_password() {
        assert_eq!(without_secrets("redis://cache:6379"), "redis://cache:6379");
        assert_eq!(without_secrets("rediss://:a@b@c"), "rediss://***@c");
        assert_eq!(without_secrets("embedded:/a@b"), "embedded:/a@b");
    }
}
