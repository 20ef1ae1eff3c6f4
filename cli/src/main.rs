//! `drover`: parses the command line, runs the command, and prints its result.

mod arguments;
mod candidates;
mod run;

use std::process::ExitCode;

use clap::FromArgMatches;
use clap_complete::CompleteEnv;
use drover::output::choose_colour;
use drover::settings::forget_outputs;

use crate::arguments::{Arguments, command};

/// A simulation allocates and frees all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Answers a shell that completes a command line, and ends.
    CompleteEnv::with_factory(command).complete();
    let arguments = Arguments::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    choose_colour(arguments.color);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system has what a runtime needs").block_on(run(arguments))
}

async fn run(arguments: Arguments) -> ExitCode {
    let (format, selection) = (arguments.format(), arguments.selection());
    match run::run(arguments.command, &selection, format).await {
        Ok(output) => {
            output.print(format);
            output.exit_code()
        }
        Err(failure) => {
            if failure.is_not_found() {
                forget_outputs();
            }
            failure.print(format);
            failure.exit_code()
        }
    }
}
