//! `drover`: parses the command line, runs the command, and prints its result.

mod arguments;
mod run;

use std::process::ExitCode;

use clap::Parser;
use drover::output::Format;

use crate::arguments::Arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    let format = if json { Format::Json } else { Format::Text };
    match run::run(command, format).await {
        Ok(output) => {
            output.print(format);
            output.exit_code()
        }
        Err(failure) => {
            failure.print(format);
            failure.exit_code()
        }
    }
}
