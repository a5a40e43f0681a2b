//! The program: the manager, and the client of its own directory.

use std::process::ExitCode;

use clap::Parser;
use udht_manager::cli::{self, Cli};
use udht_manager::serve;

fn main() -> ExitCode {
    cli::run(Cli::parse(), |args| match serve::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    })
}
