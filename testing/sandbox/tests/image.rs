//! A job on a machine that boots the project's image. `infra/check-image` makes the image and runs this test.

use std::time::Duration;

use sandbox::sandbox::{Options, Sandbox};
use sandbox::short_timings::one_pool;
use world::ec2::EndCause;

/// The program that boots a virtual machine in place of the agent.
const MACHINE: &str = "DROVER_TEST_IMAGE_MACHINE";

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
    sandbox.serve(&[job]).await?;
    sandbox.world.look(|state| {
        let ended: Vec<EndCause> = state.ec2.ended().iter().map(|it| it.why).collect();
        assert_eq!(ended, [EndCause::PowerOff], "the machine powered itself off");
    });
    Ok(())
}
