//! Fifteen prepared faults: each is found with one command, in the first ten lines of its output. The snapshot has these lines.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "common/normalized.rs"]
mod normalized;

use std::time::Duration;

use jiff::SignedDuration;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{DEAD_LETTERS, Driven, Options, QUEUE, Sandbox, WEBHOOK_SECRET};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use world::ec2::{Code, LaunchMatch, Refusal, When};
use world::github::{Group, HookConfig, Immortal, JobId, QueueJob};

use self::normalized::normalized;

/// What an operator reads without scrolling.
const LINES: usize = 10;

const DOCTOR: [&str; 1] = ["doctor"];

/// The operator's screen after each fault.
struct Screens {
    sandbox: Sandbox,
    text: String,
}

impl Screens {
    async fn start() -> Self {
        let options = Options { driven: Driven::ByHand, ..Options::default() };
        // Each doctor rehearses launches. On a fast machine these use up EC2's limit, which is none of the prepared faults.
        let ec2 = world::ec2::Config { throttle: false, ..options.ec2.clone() };
        let sandbox = Sandbox::start(Options { ec2, ..options }).await.unwrap();
        sandbox.apply(&one_pool("")).await.unwrap();
        sandbox.sweep().await.unwrap();
        Self { sandbox, text: String::new() }
    }

    fn act<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.sandbox.world.act(|state, _| change(state))
    }

    /// Queues a job and lets the scaler decide about it.
    async fn queue(&self) -> String {
        let job = self.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(600));
        self.arrived(job).await;
        self.sandbox.scale().await.unwrap();
        job.to_string()
    }

    /// Waits until the queue has a message about the job.
    async fn arrived(&self, job: JobId) {
        let id = job.to_string();
        let arrived = |state: &State| state.sqs.bodies(QUEUE).iter().any(|body| body.contains(&id)).then_some(());
        self.sandbox.world.until("the delivery on the queue", PATIENCE, arrived).await.unwrap();
    }

    /// The command shows the fault in its first ten lines.
    async fn shows(&mut self, fault: &str, command: &[&str], part: &str) {
        self.shows_with(fault, command, &[], part).await;
    }

    async fn shows_with(&mut self, fault: &str, command: &[&str], variables: &[(&str, &str)], part: &str) {
        let said = self.sandbox.drover_with(command, variables).await.unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        // Whether a search was faster than a delivery that is repeated depends on how busy this machine is.
        let lines: Vec<&str> = said.lines().filter(|line| !line.contains("late webhooks")).take(LINES).collect();
        let first = lines.iter().position(|line| line.contains(part));
        assert!(first.is_some(), "{fault}: {part:?} is not in the first lines: {said}");
        let shown: String = lines.iter().map(|line| format!("{}\n", normalized(line))).collect();
        self.text += &format!("# {fault}\n$ drover {}\n{shown}\n", normalized(&command.join(" ")));
    }

    /// Breaks something, looks at doctor, and repairs it. The sweep before the fault is the last one.
    async fn doctor(
        &mut self,
        fault: &str,
        part: &str,
        break_it: impl FnOnce(&mut State),
        repair: impl FnOnce(&mut State),
    ) {
        self.sandbox.sweep().await.unwrap();
        self.act(break_it);
        self.shows(fault, &DOCTOR, part).await;
        self.act(repair);
    }
}

fn refuse(code: Code) -> impl FnOnce(&mut State) {
    move |state| {
        let matches = LaunchMatch::default();
        state.ec2.faults.refusals.push(Refusal { matches, code, when: When::Chance(1.0) });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_installation_are_found_with_one_command_in_ten_lines() {
    let mut screens = Screens::start().await;
    // A delivery for doctor to look at.
    let job = screens.sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(600));
    screens.arrived(job).await;
    let nothing = |_: &mut State| {};
    let owner = screens.act(|state| state.github.find_owner("octo-org").unwrap().clone());
    let hook = screens.act(|state| state.github.hook().clone());

    let elsewhere = HookConfig { url: "https://example.com/hook".to_owned(), ..hook.clone() };
    let original = hook.clone();
    let repair = move |state: &mut State| state.github.set_hook(original);
    screens
        .doctor("the webhook points elsewhere", "FAIL  webhook: ", |state| state.github.set_hook(elsewhere), repair)
        .await;

    let secret = screens.act(|state| state.secrets[WEBHOOK_SECRET].current.clone());
    let fill = |text: String| move |state: &mut State| state.secrets.get_mut(WEBHOOK_SECRET).unwrap().current = text;
    screens
        .doctor("the webhook secret has no value", "FAIL  webhook secret: ", fill(String::new()), fill(secret))
        .await;

    let other = HookConfig { secret: Some("another".to_owned()), ..hook.clone() };
    let repair = move |state: &mut State| state.github.set_hook(hook);
    screens
        .doctor("GitHub signs with another secret", "FAIL  signature: ", |state| state.github.set_hook(other), repair)
        .await;

    let permit = |level: Option<&'static str>| {
        move |state: &mut State| state.github.set_permission("organization_self_hosted_runners", level)
    };
    screens.doctor("the app lacks a permission", "FAIL  permissions: ", permit(None), permit(Some("write"))).await;

    // An account grants a permission that was added later by installing the app again, for example.
    let reinstall = |screens: &Screens| {
        screens.sandbox.world.act(|state, now| {
            state.github.uninstall(owner.id);
            state.github.install(owner.id, now);
        });
    };
    reinstall(&screens);

    let subscribe = |events: &'static [&'static str]| move |state: &mut State| state.github.set_events(events);
    screens.doctor("the app is not subscribed", "FAIL  events: ", subscribe(&[]), subscribe(&["workflow_job"])).await;

    screens
        .doctor("the app is not installed", "FAIL  installed: ", |state| state.github.uninstall(owner.id), nothing)
        .await;
    reinstall(&screens);

    let groups = |groups: Vec<Group>| {
        move |state: &mut State| groups.into_iter().for_each(|group| state.github.set_group(owner.id, group))
    };
    let open = owner.groups.iter().map(|group| Group { repositories: None, allows_public: true, ..group.clone() });
    let (open, closed) = (groups(open.collect()), groups(owner.groups.clone()));
    screens.doctor("the runner group admits every repository", "FAIL  runner groups: ", open, closed).await;

    let addresses = |addresses: Option<u32>| {
        move |state: &mut State| {
            let subnets: Vec<_> = state.ec2.subnets().cloned().collect();
            subnets.iter().for_each(|subnet| state.ec2.set_addresses(subnet, addresses));
        }
    };
    screens.doctor("the subnets are full", "FAIL  addresses: ", addresses(Some(0)), addresses(None)).await;

    screens.sandbox.sweep().await.unwrap();
    screens.sandbox.world.act(|state, now| drop(state.sqs.send(DEAD_LETTERS, "poison", Duration::ZERO, now).unwrap()));
    screens.shows("the scaler could not process a message", &DOCTOR, "FAIL  dead letters: ").await;
    let deleted = screens.sandbox.drover(&["dead-letters", "delete", "--all"]).await.unwrap();
    assert!(deleted.status.success());

    let old = |state: &mut State, now: jiff::Timestamp| {
        let released = format!("{:.0}", now - SignedDuration::from_hours(29 * 24));
        let tags = [("drover:runner", "2.300.0".to_owned()), ("drover:runner-released", released)];
        state.ec2.tag_image("ami-runner", tags.map(|(key, value)| (key.to_owned(), value)).into());
    };
    screens.sandbox.sweep().await.unwrap();
    screens.sandbox.world.act(old);
    screens.shows("the image contains an outdated runner", &DOCTOR, "FAIL  image: ").await;

    let closed = [("AWS_ENDPOINT_URL", "http://127.0.0.1:1")];
    screens.shows_with("AWS is unreachable", &DOCTOR, &closed, "FAIL  credentials: AWS does not answer").await;
    insta::assert_snapshot!("set_up", screens.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_running_pools_are_found_with_one_command_in_ten_lines() {
    // EC2 has no capacity.
    let mut screens = Screens::start().await;
    screens.act(refuse(Code::InsufficientInstanceCapacity));
    let job = screens.queue().await;
    screens.shows("EC2 has no capacity", &["explain", &job], "Waiting: no m7i.large").await;
    let mut text = std::mem::take(&mut screens.text);

    // EC2 refuses a launch for good.
    let mut screens = Screens::start().await;
    screens.act(refuse(Code::TagPolicyViolation));
    screens.queue().await;
    screens.shows("EC2 refuses the launch", &["status"], "TagPolicyViolation").await;
    text += &screens.text;

    // GitHub calls a job queued for ever.
    let mut screens = Screens::start().await;
    let job = screens.sandbox.world.act(|state, now| {
        let repository = state.github.find_repository("octo-org", "widgets").unwrap().id;
        let job = QueueJob::new(repository, &["drover"]);
        state.github.queue_immortal_job(job, Immortal::RunUnderWay, 98 * 24 * Duration::from_secs(3600), now)
    });
    screens.arrived(job).await;
    screens.sandbox.scale().await.unwrap();
    screens.sandbox.sweep().await.unwrap();
    screens.shows("GitHub calls a job queued for ever", &DOCTOR, "warn  waiting jobs: ").await;
    text += &screens.text;

    // The app's key was replaced on GitHub.
    let mut screens = Screens::start().await;
    screens.sandbox.sweep().await.unwrap();
    screens.sandbox.revoke_app_key().unwrap();
    screens.shows("the app's key was replaced", &DOCTOR, "FAIL  key: ").await;
    text += &screens.text;
    insta::assert_snapshot!("at_work", text);
}
