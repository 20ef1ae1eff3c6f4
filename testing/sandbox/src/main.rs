//! `make demo`: the whole system on this machine.

use std::process::ExitCode;

use clap::Parser;
use sandbox::demo::{Arguments, demo};

#[tokio::main]
async fn main() -> ExitCode {
    match demo(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
