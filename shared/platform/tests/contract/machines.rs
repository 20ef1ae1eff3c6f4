//! What EC2 says of instance types, zones and spot prices, and root volumes of another size.

use domain::config::{Architecture, ObservedType, RootVolume};

use super::*;

/// What a type is: vCPUs, MiB, architecture, current generation, burstable, bare metal.
fn facts(it: &ObservedType) -> (u32, u32, Architecture, bool, bool, bool) {
    (it.vcpus, it.memory_mib, it.architecture, it.current_generation, it.burstable, it.bare_metal)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_zones_and_prices_are_read() {
    let region = region().await;
    let ec2 = Ec2::new(&region.target.aws("janitor").await, "drover".parse().unwrap());
    let subnets: BTreeSet<SubnetId> = region.subnets.iter().cloned().collect();
    let read = ec2.machines(&subnets).await.unwrap();
    let named = |name: &str| read.types.iter().find(|it| it.name.as_str() == name).unwrap();
    assert_eq!(facts(named("m7i.large")), (2, 8192, Architecture::X64, true, false, false));
    assert_eq!(facts(named("t3.large")), (2, 8192, Architecture::X64, true, true, false));
    assert_eq!(facts(named("m8g.2xlarge")), (8, 32768, Architecture::Arm64, true, false, false));
    let names: BTreeSet<&str> = read.types.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names.len(), read.types.len(), "each type is read once");
    assert_eq!(read.zones.keys().collect::<BTreeSet<_>>(), subnets.iter().collect());
    let zones: BTreeSet<_> = read.zones.values().cloned().collect();
    assert_eq!(zones.len(), 2);
    assert!(!named("m7i.large").zones.is_disjoint(&zones), "{:?}", named("m7i.large").zones);

    let asked = ["m7i.large", "m8g.2xlarge"].map(Into::into).into();
    let prices = ec2.spot_prices(&asked, SystemClock.now()).await.unwrap();
    assert!(
        prices.iter().all(|price| asked.contains(&price.instance_type) && price.per_hour > MicroUsd(0)),
        "{prices:?}"
    );
    assert!(prices.iter().any(|price| zones.contains(&price.zone)), "{prices:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_has_a_root_volume_of_the_size_that_its_tuple_names() {
    let region = region().await;
    let resolver = Ec2::new(&region.target.aws("operator").await, "drover".parse().unwrap());
    let root = resolver.root_volume(&region.template).await.unwrap().unwrap();
    let mut launch = region.launch(1, 1);
    launch.tuple.root = Some(RootVolume { gib: root.gib + 170, kind: "gp3".to_owned(), ..root.clone() });
    let machine = region.ec2.launch(&launch).await.unwrap()[0].id.to_string();
    let gib = match &region.target {
        Target::Sandbox(sandbox) => sandbox.world.look(|state| {
            let instance = state.ec2.instance(&world::ec2::InstanceId::from(machine)).unwrap();
            state.root_volumes.of(instance).map(|volume| volume.gib)
        }),
        Target::Other(..) => {
            let ec2 = aws_sdk_ec2::Client::new(&region.target.aws("operator").await);
            let machine = aws_sdk_ec2::types::Filter::builder().name("attachment.instance-id").values(machine).build();
            let volumes = ec2.describe_volumes().filters(machine).send().await.unwrap();
            let volumes = volumes.volumes();
            assert!(volumes.len() == 1 && volumes[0].encrypted() == Some(true), "{volumes:?}");
            volumes[0].size().and_then(|gib| u32::try_from(gib).ok())
        }
    };
    assert_eq!(gib, Some(root.gib + 170));
}
