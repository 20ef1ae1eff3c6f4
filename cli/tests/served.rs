//! The sandbox as `make demo ARGS=--serve` starts it, operated from another shell.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use sandbox::pace::PATIENCE;
use std::process::Stdio;

use reqwest::Client;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

const POOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pools.toml");

/// The next line of the sandbox's output with this beginning.
async fn next(lines: &mut Lines<BufReader<ChildStdout>>, begin: &str) -> String {
    let found = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the sandbox keeps running");
            if line.starts_with(begin) {
                return line;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no line begins with {begin:?}"))
}

/// Exit code and output of a command in a shell that has sourced the sandbox's file.
async fn operate(shell: &str, command: &str) -> (i32, String) {
    let said = Command::new("sh").args(["-c", &format!("{shell} && {command}")]).output().await.unwrap();
    (said.status.code().unwrap(), String::from_utf8([said.stdout, said.stderr].concat()).unwrap())
}

/// Sends the request of a printed curl command. Returns the id of its job.
async fn post(curl: &str) -> String {
    let (command, file) = curl.split_once(" --data-binary @").unwrap();
    let mut parts = command.split(" -H ");
    let url = parts.next().unwrap().trim_start_matches("curl -i ").to_owned();
    let body = std::fs::read(file).unwrap();
    let request = parts.map(|part| part.trim_matches('\'').split_once(": ").unwrap());
    let request = request.fold(Client::new().post(url), |request, (name, value)| request.header(name, value));
    assert_eq!(request.body(body).send().await.unwrap().status(), 202);
    file.rsplit_once("queued-").unwrap().1.trim_end_matches(".json").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_sends_deliveries_follows_their_jobs_and_operates_the_pools() {
    let programs = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let mut served = Command::new(programs.join("sandbox"))
        .args(["--serve", "--pools", POOLS])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(served.stdout.take().unwrap()).lines();
    let shell = next(&mut lines, ". ").await;
    let first = next(&mut lines, "curl ").await;

    let (code, said) = operate(&shell, "drover doctor").await;
    assert_eq!(code, 0, "{said}");
    let job = post(&first).await;
    // The sandbox prints the next command when this job is done.
    let second = next(&mut lines, "curl ").await;
    let (code, said) = operate(&shell, &format!("drover explain {job}")).await;
    assert!(code == 0 && said.contains("  started  ") && said.contains("on i-"), "{said}");
    let (code, said) = operate(&shell, "drover jobs").await;
    assert_eq!(code, 0, "{said}");

    // The next job is for another pool.
    let job = post(&second).await;
    next(&mut lines, "curl ").await;
    let (code, said) = operate(&shell, &format!("drover explain {job}")).await;
    assert!(code == 0 && said.contains("  pool       large"), "{said}");
    for pool in ["linux", "large"] {
        let (code, said) = operate(&shell, &format!("drover drain {pool}")).await;
        assert_eq!(code, 0, "{said}");
    }
    let (_, said) = operate(&shell, "drover pools").await;
    assert_eq!(said.matches("draining").count(), 2, "{said}");

    let stopped = Command::new("kill").args(["-INT", &served.id().unwrap().to_string()]).status().await.unwrap();
    assert!(stopped.success() && served.wait().await.unwrap().success(), "Ctrl-C ends it");
}
