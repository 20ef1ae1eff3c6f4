//! `make chaos`: storms of faults and outages on the real executables.

use std::process::ExitCode;

use clap::Parser;
use sandbox::chaos::{Arguments, chaos};
use sandbox::interruption::unless_interrupted;

#[tokio::main]
async fn main() -> ExitCode {
    match unless_interrupted(chaos(Arguments::parse())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
