//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A word that is not UTF-8 names nothing GlusterFS allows; shown with U+FFFD it is refused like any other.
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    ExitCode::from(ladrillo_mgmt::cli::run(&arguments))
}
