//! The program: the manager, and the client of its own directory.

use std::process::ExitCode;

use udht_manager::{cli, serve};

fn main() -> ExitCode {
    cli::run(cli::parse(), |args| match serve::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = udht_tell::chain(&error), "the manager ends");
            ExitCode::FAILURE
        }
    })
}
