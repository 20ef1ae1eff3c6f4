//! Functions and machines whose only way out is a proxy.

use std::collections::BTreeSet;

use sandbox::proxy::{AWS, GITHUB};
use sandbox::sandbox::{Network, Options, Sandbox};
use sandbox::short_timings::one_pool;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_and_agents_work_behind_a_proxy_with_certificates_of_a_private_ca() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options { network: Network::BehindProxy, ..Options::default() }).await?;
    sandbox.apply(&one_pool("done_grace = \"1h\"")).await?;
    let jobs =
        [(); 2].map(|()| sandbox.queue_job("octo-org/widgets", &["drover"], std::time::Duration::from_secs(3600)));
    sandbox.serve(&jobs).await?;
    let proxy = sandbox.proxy.as_ref().expect("the network has a proxy");
    assert_eq!(proxy.connected(), BTreeSet::from([AWS.to_owned(), GITHUB.to_owned()]));
    Ok(())
}
