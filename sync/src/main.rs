//! `udht-sync`: see `udht-sync --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    udht_sync::cli::parse_and_run()
}
