//! `make chaos` for half a minute, with an outage of one service.

use clap::Parser;
use sandbox::chaos::{Arguments, chaos};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_dynamodb_loses_no_job_and_leaves_nothing() -> anyhow::Result<()> {
    let half_a_minute = ["chaos", "--minutes", "0.5", "--rate", "1", "--only", "dynamodb"];
    chaos(Arguments::try_parse_from(half_a_minute)?).await
}

#[test]
fn invalid_arguments_are_refused() {
    for wrong in [&["--rate", "0"][..], &["--minutes", "x"], &["--only", "lambda"]] {
        assert!(Arguments::try_parse_from(["chaos"].iter().chain(wrong)).is_err(), "{wrong:?}");
    }
}
