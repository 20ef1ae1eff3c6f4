//! A job on a machine that boots the project's image. `infra/check-image` makes the image and runs this test.

use std::time::Duration;

use sandbox::sandbox::{Options, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use world::ec2::EndCause;
use world::github::{Conclusion, JobState};

/// The program that boots a virtual machine in place of the agent.
const MACHINE: &str = "DROVER_TEST_IMAGE_MACHINE";

/// Without KVM the processor is emulated, many times slower. Only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_secs(3000);

/// A virtual machine boots in its own time.
const NO_HURRY: &str = "done_grace = \"1h\"\nidle_grace = \"1h\"\norphan_grace = \"1h\"\nstale_grace = \"1h\"\n\
                        unbound_grace = \"1h\"\nboot_grace = \"1h\"\nlease_margin = \"1m\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_boots_the_image_runs_a_job_and_powers_off() -> anyhow::Result<()> {
    let Some(machine) = platform::environment::optional(MACHINE) else {
        println!("skipped: {MACHINE} is not set; infra/check-image runs this test");
        return Ok(());
    };
    let options =
        Options { agent: Some(machine.into()), sweep_every: Duration::from_millis(700), ..Options::default() };
    let sandbox = Sandbox::start(options).await?;
    sandbox.apply(&one_pool(NO_HURRY)).await?;
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_millis(100));
    let ended = |state: &State| state.ec2.ended().first().map(|it| it.why);
    let why = sandbox.world.until("the machine to end", PATIENCE, ended).await?;
    assert_eq!(why, EndCause::PowerOff);
    let succeeded = |state: &State| {
        let job = state.github.job(job).expect("the model keeps it");
        matches!(job.state, JobState::Completed { conclusion: Conclusion::Success, .. })
    };
    assert!(sandbox.world.look(succeeded), "the job has succeeded");
    Ok(())
}
