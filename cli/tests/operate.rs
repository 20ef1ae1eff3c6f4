//! Runs every command in `docs/operate.md`, in the page's order, against the sandbox and compares the output with the page.
//!
//! The page has names of its own for jobs and machines. Numbers and other ids may differ, and a line of three dots stands for
//! any number of lines. `DROVER_UPDATE_DOCS=1` replaces outdated output in the page, except where it contains such a line.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "common/normalized.rs"]
mod normalized;

use std::path::PathBuf;
use std::time::Duration;

use domain::ids::PoolName;
use domain::state::{Item, Key};
use engine::ports::Store;
use platform::environment::optional;
use sandbox::aws::EXPIRED_ACCESS_KEY;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{DEAD_LETTERS, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use world::ec2::{Code, LaunchMatch, Refusal, When};

use self::normalized::normalized;

const WORKFLOW: &str = "on: push\njobs:\n  test:\n    runs-on: drover\n  docs:\n    runs-on: ubuntu-latest\n  \
                        bench:\n    runs-on: [drover, gpu]\n";

/// The page, and how far it was run.
struct Page {
    path: PathBuf,
    lines: Vec<String>,
    at: usize,
    /// The names on the page, and what they stand for in this run.
    names: Vec<(&'static str, String)>,
    is_updated: bool,
}

impl Page {
    fn open() -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/operate.md");
        let lines = std::fs::read_to_string(&path).unwrap().lines().map(ToOwned::to_owned).collect();
        Self { path, lines, at: 0, names: Vec::new(), is_updated: optional("DROVER_UPDATE_DOCS").is_some() }
    }

    fn name(&mut self, on_the_page: &'static str, here: impl ToString) {
        self.names.push((on_the_page, here.to_string()));
    }

    /// Runs the page's next command, which must be this one, and compares the output.
    async fn run(&mut self, sandbox: &Sandbox, command: &str) {
        self.run_with(sandbox, command, &[]).await;
    }

    async fn run_with(&mut self, sandbox: &Sandbox, command: &str, variables: &[(&str, &str)]) {
        let next = self.lines[self.at..].iter().position(|line| line.starts_with("$ ")).map(|next| self.at + next);
        let next = next.unwrap_or_else(|| panic!("the page ends before `{command}`"));
        assert_eq!(self.lines[next], format!("$ {command}"), "the page's next command");
        let length = self.lines[next + 1..].iter().position(|line| line.starts_with("$ ") || line == "```").unwrap();
        let expected = self.lines[next + 1..next + 1 + length].to_vec();

        let here = self.names.iter().fold(command.to_owned(), |text, (page, here)| text.replace(page, here));
        let arguments: Vec<&str> = here.split_whitespace().skip(1).collect();
        let output = sandbox.drover_with(&arguments, variables).await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        let said = self.names.iter().fold(said, |text, (page, here)| text.replace(here.as_str(), page));
        let mut said: Vec<String> = said.lines().map(ToOwned::to_owned).collect();
        if let Some(code) = output.status.code().filter(|code| *code != 0) {
            said.insert(0, format!("? {code}"));
        }
        // A block ends with an empty line if a command follows.
        let mut answer = expected.as_slice();
        while let [rest @ .., last] = answer
            && last.is_empty()
        {
            answer = rest;
        }
        if matches(answer, &said) {
            self.at = next + 1 + length;
        } else if self.is_updated && !answer.iter().any(|line| line == "...") {
            self.at = next + 1 + said.len();
            self.lines.splice(next + 1..next + 1 + answer.len(), said);
            std::fs::write(&self.path, self.lines.join("\n") + "\n").unwrap();
        } else {
            panic!("{command}\nthe page:\n{}\nhere:\n{}", answer.join("\n"), said.join("\n"));
        }
    }

    fn ends(&self) {
        let left = self.lines[self.at..].iter().find(|line| line.starts_with("$ "));
        assert_eq!(left, None, "a command on the page was not run");
    }
}

/// Whether the lines are equal except for numbers and ids.
fn matches(page: &[String], here: &[String]) -> bool {
    match page {
        [] => here.is_empty(),
        [any, rest @ ..] if any == "..." => (0..=here.len()).any(|skip| matches(rest, &here[skip..])),
        [line, rest @ ..] => match here {
            [first, others @ ..] => normalized(line) == normalized(first) && matches(rest, others),
            [] => false,
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_in_operate_md_prints_what_the_page_shows() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    std::fs::write(sandbox.folder().join("ci.yml"), WORKFLOW).unwrap();
    let mut page = Page::open();
    let (repository, labels, long) = ("octo-org/widgets", ["drover"], Duration::from_secs(600));

    // A normal day.
    let job = sandbox.queue_job(repository, &labels, Duration::from_millis(500));
    let machine = sandbox.running(job, PATIENCE).await.unwrap();
    sandbox.reconcile(&[job], PATIENCE).await.unwrap();
    sandbox.closed(&machine).await.unwrap();
    let table = sandbox.table().await;
    // The first sweeps may have found no pools yet.
    sandbox.sweep().await.unwrap();
    assert!(table.get(&Key::Janitor).await.unwrap().is_some(), "a sweep leaves its mark, and so does one under way");
    let pool: PoolName = "linux".parse().unwrap();
    let Some(Item::Meta(meta)) = table.get(&Key::Meta(pool)).await.unwrap() else { panic!("pools were applied") };
    page.name("40000000101", job);
    page.name("i-0c41e8a2f9d7b3650", machine);
    page.name("k3v9xq", String::from(meta.epoch));
    let second = sandbox.queue_job(repository, &labels, long);
    let machine = sandbox.running(second, PATIENCE).await.unwrap();
    page.name("40000000102", second);
    page.name("i-07d2b95c1f6ae4038", &machine);
    page.run(&sandbox, "drover doctor").await;
    page.run(&sandbox, "drover status").await;
    page.run(&sandbox, "drover pools").await;
    page.run(&sandbox, "drover jobs").await;
    page.run(&sandbox, "drover ps").await;
    page.run(&sandbox, "drover explain https://github.com/octo-org/widgets/actions/runs/7/job/40000000101").await;
    page.run(&sandbox, "drover events --job 40000000101").await;
    page.run(&sandbox, "drover lint ci.yml --repository octo-org/widgets --pools pools.toml").await;
    page.run(&sandbox, "drover drain linux").await;
    page.run(&sandbox, "drover drain linux --undo").await;
    page.run(&sandbox, "drover replay --verify").await;

    // When something is wrong.
    page.run_with(&sandbox, "drover ps", &[("AWS_ACCESS_KEY_ID", EXPIRED_ACCESS_KEY)]).await;
    page.run_with(&sandbox, "drover doctor", &[("AWS_ACCESS_KEY_ID", EXPIRED_ACCESS_KEY)]).await;
    sandbox.world.act(|state, _| {
        let (matches, code) = (LaunchMatch::default(), Code::InsufficientInstanceCapacity);
        state.ec2.faults.refusals.push(Refusal { matches, code, when: When::Chance(1.0) });
    });
    let third = sandbox.queue_job(repository, &labels, long);
    page.name("40000000103", third);
    let refused = |state: &State| {
        let twice = state.ec2.struck().get(&Code::InsufficientInstanceCapacity).is_some_and(|times| *times >= 2);
        (twice && state.sqs.bodies(QUEUE).is_empty()).then_some(())
    };
    sandbox.world.until("EC2 to refuse in both zones", PATIENCE, refused).await.unwrap();
    page.run(&sandbox, "drover explain 40000000103").await;
    page.run(&sandbox, "drover pools").await;
    page.run(&sandbox, "drover status").await;
    page.run(&sandbox, "drover logs i-07d2b95c1f6ae4038").await;
    page.run(&sandbox, "drover hold i-07d2b95c1f6ae4038").await;
    page.run(&sandbox, "drover release i-07d2b95c1f6ae4038").await;
    page.run(&sandbox, "drover retire i-07d2b95c1f6ae4038").await;
    page.run(&sandbox, "drover retire i-07d2b95c1f6ae4038 --force").await;
    let killed = |state: &State| state.github.job(second).is_some_and(|job| job.history.killed.is_some()).then_some(());
    sandbox.world.until("the machine to end, and its job with it", PATIENCE, killed).await.unwrap();
    let newer = r#"{"v":99,"kind":"nudge","pool":"linux"}"#;
    let letter = sandbox.world.act(|state, now| state.sqs.send(DEAD_LETTERS, newer, Duration::ZERO, now).unwrap());
    page.name("5f0c2d1e-7a3b-4c88-9e21-d4b6a7f01c35", letter);
    page.run(&sandbox, "drover dead-letters list").await;
    page.run(&sandbox, "drover dead-letters redrive 5f0c2d1e-7a3b-4c88-9e21-d4b6a7f01c35").await;
    page.ends();
}
