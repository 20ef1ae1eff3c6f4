//! How `drover` finds its stack.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use sandbox::sandbox::{Driven, Options, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use world::github::HookConfig;

/// The variables that the stack's outputs replace.
const OF_THE_STACK: [&str; 7] = [
    "DROVER_STACK",
    "DROVER_TABLE",
    "DROVER_BOOT_TABLE",
    "DROVER_QUEUE_URL",
    "DROVER_APP_SECRET",
    "DROVER_WEBHOOK_SECRET",
    "DROVER_WEBHOOK_URL",
];

struct Operator {
    sandbox: Sandbox,
    home: tempfile::TempDir,
}

impl Operator {
    async fn new() -> Self {
        let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
        sandbox.apply(&one_pool("")).await.unwrap();
        sandbox.sweep().await.unwrap();
        Self { sandbox, home: tempfile::tempdir().unwrap() }
    }

    /// Runs `drover` with none of the stack's variables but these. Returns its exit code and output.
    async fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
        let mut all = vec![("HOME", self.home.path().to_str().unwrap())];
        let unset = OF_THE_STACK.iter().filter(|name| !variables.iter().any(|(set, _)| set == *name));
        all.extend(unset.map(|name| (*name, "")));
        all.extend(variables);
        let output = self.sandbox.drover_with(arguments, &all).await.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), text)
    }

    fn readings(&self) -> u64 {
        let counts = self.sandbox.calls.counts();
        counts.iter().filter(|((_, call), _)| call == "DescribeStacks").map(|(_, calls)| calls).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stack_is_named_and_its_outputs_have_the_rest() {
    let operator = Operator::new().await;
    let (code, text) = operator.run(&["pools", "--stack", "sandbox"], &[]).await;
    assert!(code == 0 && text.contains("linux"), "{text}");
    assert_eq!(operator.readings(), 1);
    // The outputs are cached, and the variable does the same as the option.
    let (code, text) = operator.run(&["ps"], &[("DROVER_STACK", "sandbox")]).await;
    assert!(code == 0, "{text}");
    assert_eq!(operator.readings(), 1, "the outputs are cached");
    // A stack that was deployed again has the same names, but its ingest has another URL. Doctor uses all outputs.
    let url = operator.sandbox.webhooks.url.clone();
    operator.sandbox.world.act(|state, _| {
        let hook = state.github.hook().clone();
        state.github.set_hook(HookConfig { url: "https://old.example.com/".to_owned(), ..hook });
        state.outputs.insert("WebhookUrl", "https://new.example.com/".to_owned());
    });
    let (_, text) = operator.run(&["doctor", "--fix"], &[("DROVER_STACK", "sandbox")]).await;
    assert_eq!(operator.readings(), 2, "{text}");
    let is_new = |state: &State| state.github.hook().url == "https://new.example.com/";
    assert!(operator.sandbox.world.look(is_new), "{text}");
    operator.sandbox.world.act(|state, _| {
        state.outputs.insert("WebhookUrl", url);
    });
    let (code, text) = operator.run(&["doctor", "--fix"], &[("DROVER_STACK", "sandbox")]).await;
    assert!(code == 0, "{text}");
    let tags = [("drover:agent".to_owned(), "0.0.9".to_owned())];
    operator.sandbox.world.act(|state, _| state.ec2.tag_image("ami-runner", tags.into()));
    let (code, text) = operator.run(&["version", "--stack", "sandbox"], &[]).await;
    let own = env!("CARGO_PKG_VERSION");
    let (agent, janitor) = ("agent    0.0.9, runner ", format!("janitor  {own}, supports table formats up to"));
    for part in [&*format!("drover   {own}, supports"), "table    format 1", agent, &*janitor, "agent: another version"]
    {
        assert!(code == 0 && text.contains(part), "{part}: {text}");
    }
    let (code, text) = operator.run(&["version", "--stack", "nowhere"], &[]).await;
    assert!(code == 1 && text.contains(own) && text.contains("there is no stack nowhere"), "{text}");
    // What needs no stack reads none.
    let (code, text) = operator
        .run(&["pools", "init", "--file", operator.home.path().join("pools.toml").to_str().unwrap()], &[])
        .await;
    assert_eq!((code, operator.readings()), (0, 4), "{text}");
    // Other credentials may belong to another account.
    let (code, text) = operator.run(&["pools", "--stack", "sandbox"], &[("AWS_ACCESS_KEY_ID", "AKIANOBODY")]).await;
    assert!(code == 3 && text.contains("log in again"), "{text}");

    // A table that is gone: the outputs are read again.
    let wrong = [("DROVER_STACK", "sandbox"), ("DROVER_TABLE", "gone")];
    let (code, text) = operator.run(&["pools"], &wrong).await;
    assert!(code == 3 && text.contains("Requested resource not found"), "environment variables win: {text}");
    operator.run(&["pools", "--stack", "sandbox"], &[]).await;
    assert!(operator.readings() > 5, "{}", operator.readings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_names_a_stack_and_its_region() {
    let operator = Operator::new().await;
    let folder = operator.home.path().join(".config/drover");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.toml");
    std::fs::write(&file, "default = \"blue\"\n[profile.blue]\nstack = \"sandbox\"\nregion = \"eu-central-1\"\n[profile.red]\nstack = \"red\"\n").unwrap();
    let (code, text) = operator.run(&["pools"], &[("AWS_REGION", "")]).await;
    assert!(code == 0 && text.contains("linux"), "{text}");
    for (arguments, variables) in
        [(&["pools", "--profile", "red"][..], &[][..]), (&["pools"], &[("DROVER_PROFILE", "red")])]
    {
        let (code, text) = operator.run(arguments, variables).await;
        assert!(code == 2 && text.contains("there is no stack red in eu-central-1 -> name it with --stack"), "{text}");
    }
    let (code, text) = operator.run(&["pools", "--profile", "green"], &[]).await;
    assert!(code == 2 && text.contains("has no profile \"green\"; it has blue, red"), "{text}");
    let elsewhere = [("DROVER_STACK", "other"), ("AWS_REGION", "us-east-1"), ("AWS_DEFAULT_REGION", "us-east-2")];
    let (code, text) = operator.run(&["status", "--profile", "blue"], &elsewhere).await;
    assert!(code == 0 && text.starts_with("stack sandbox in eu-central-1"), "--profile wins: {text}");
    let (code, text) = operator.run(&["status"], &[("AWS_REGION", "us-east-1")]).await;
    assert!(code == 2 && text.contains("no stack sandbox in us-east-1"), "a variable wins over a default: {text}");
    std::fs::write(&file, "[profile.blue]\nstck = \"sandbox\"\n").unwrap();
    let (code, text) = operator.run(&["pools"], &[]).await;
    assert!(code == 2 && text.contains("stck"), "{text}");
    let (code, text) = operator.run(&["doctor"], &[]).await;
    assert!(code == 1 && text.contains("FAIL  environment") && text.contains("stck"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_option_for_one_stack_is_not_mixed_with_variables_of_another() {
    let operator = Operator::new().await;
    let other = [("DROVER_STACK", "other"), ("DROVER_TABLE", "other")];
    let (code, text) = operator.run(&["pools", "--stack", "sandbox"], &other).await;
    assert!(code == 2 && text.contains("-> unset DROVER_STACK DROVER_TABLE"), "{text}");
    let (code, text) = operator.run(&["pools", "--stack", "sandbox"], &other[..1]).await;
    assert!(code == 0 && text.contains("linux"), "{text}");
    // What the command line names also decides which machines and subnets are meant.
    let (code, text) = operator.run(&["status", "--stack", "sandbox"], &other[..1]).await;
    assert!(code == 0 && text.starts_with("stack sandbox in eu-central-1"), "{text}");
    // Without any name it is the stack of make deploy.
    let (code, text) = operator.run(&["pools"], &[]).await;
    assert!(code == 2 && text.contains("there is no stack drover in eu-central-1"), "{text}");
}
