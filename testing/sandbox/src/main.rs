//! `make demo`: the whole system on this machine.

use std::process::ExitCode;

use clap::Parser;
use sandbox::demo::{Arguments, demo};
use sandbox::interruption::{interruption, unless_interrupted};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = if arguments.serves() {
        // Only Ctrl-C ends it.
        tokio::select! {
            failed = demo(arguments) => failed,
            asked = interruption() => asked,
        }
    } else {
        unless_interrupted(demo(arguments)).await
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
