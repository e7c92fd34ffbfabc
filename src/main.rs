//! Entry: reads the command line, does what it says, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use ichd::cli::{self, Cli};
use ichd::error::Exit;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; wrong use is 64, whatever the parser thinks.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    match cli::execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            ichd::telemetry::say(&format!("ichd: {fatal}"));
            ExitCode::from(fatal.exit as u8)
        }
    }
}
