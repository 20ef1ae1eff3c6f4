//! EC2's API for pools with shapes, as Drover's own client calls it: instance types, zones, spot prices, and root volumes.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use domain::config::{LaunchTemplate, Market, MicroUsd, RootVolume, Tuple};
use domain::ids::{BatchTag, InstanceType, StackName, SubnetId};
use engine::ports::{Clock, Compute, ErrorClass, Launch};
use jiff::SignedDuration;
use platform::clock::SystemClock;
use platform::ec2::Ec2;
use sandbox::aws::access_key;
use sandbox::sandbox::{Driven, Options, STACK, Sandbox};
use world::ec2::{Code, InstanceId, Operation, TYPES, spot_price};

struct Region {
    sandbox: Sandbox,
    /// The client of the janitor.
    janitor: Ec2,
    scaler: Ec2,
    template: LaunchTemplate,
    subnets: Vec<SubnetId>,
}

impl Region {
    async fn start() -> anyhow::Result<Self> {
        let arm_launch_templates = vec!["drover-arm".to_owned()];
        let sandbox =
            Sandbox::start(Options { driven: Driven::ByHand, arm_launch_templates, ..Options::default() }).await?;
        let stack: StackName = STACK.parse()?;
        let client = async |role: &str| -> anyhow::Result<Ec2> {
            let key = access_key(role).context("the role exists")?;
            Ok(Ec2::new(&platform::aws::emulator(&sandbox.aws_url, key).await, stack.clone()))
        };
        let (operator, janitor, scaler) =
            (client("operator").await?, client("janitor").await?, client("scaler").await?);
        let template = operator.resolve_template("drover-runner", None).await?;
        let template = LaunchTemplate { root: operator.root_volume(&template).await?, ..template };
        let subnets = operator.tagged_subnets().await?;
        Ok(Self { sandbox, janitor, scaler, template, subnets })
    }

    fn launch(&self, version: u64, root: Option<RootVolume>) -> Launch {
        let tag = BatchTag {
            pool: "any".parse().expect("a name"),
            epoch: "e1".parse().expect("an epoch"),
            version,
            attempt: 1,
        };
        let tuple = Tuple {
            template: self.template.id.clone(),
            template_version: self.template.version,
            subnet: self.subnets[0].clone(),
            instance_type: "m7i.large".into(),
            market: Market::Spot,
            root,
        };
        Launch { tag, tuple, count: 2, within: SignedDuration::from_secs(20) }
    }

    /// The root volume of a machine, as its launch asked for it: GiB, and the initialization rate.
    fn root_volume(&self, machine: &str) -> Option<(u32, Option<u32>)> {
        self.sandbox.world.look(|state| {
            let instance = state.ec2.instance(&InstanceId::from(machine))?;
            state.root_volumes.of(instance).map(|volume| (volume.gib, volume.initialize_at))
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_read_with_its_facts_and_the_zones_that_offer_it() -> anyhow::Result<()> {
    let region = Region::start().await?;
    let subnets: BTreeSet<SubnetId> = region.subnets.iter().cloned().collect();
    let read = region.janitor.machines(&subnets).await?;
    assert_eq!(read.types.len(), TYPES.len(), "each page is read, once");
    for it in &read.types {
        let known = TYPES.iter().find(|known| known.name == it.name.as_str()).context("the model has the type")?;
        let architecture = if it.architecture.to_string() == "arm64" { "arm64" } else { "x86_64" };
        let read = (it.vcpus, it.memory_mib, architecture, it.current_generation, it.burstable, it.bare_metal);
        let (current, burstable) = (known.current_generation, known.burstable);
        let expected = (known.vcpus, known.memory_mib, known.architecture, current, burstable, known.bare_metal);
        assert_eq!(read, expected, "{}", it.name);
    }
    let asked = region.sandbox.world.act(|state, now| state.ec2.describe_instance_type_offerings(now))?;
    let offered: BTreeSet<(String, String)> = asked.into_iter().map(|(name, zone)| (name.to_owned(), zone)).collect();
    let zones = read.types.iter().flat_map(|it| it.zones.iter().map(|zone| (it.name.to_string(), zone.to_string())));
    assert_eq!(zones.collect::<BTreeSet<_>>(), offered);
    ensure!(offered.len() < 2 * TYPES.len(), "each zone offers each type, so the test shows nothing");
    let of_subnets: Vec<&str> = read.zones.values().map(|zone| zone.as_str()).collect();
    assert_eq!(of_subnets, ["eu-central-1-0", "eu-central-1-1"]);
    let one = [region.subnets[1].clone()].into();
    assert_eq!(region.janitor.machines(&one).await?.zones.keys().collect::<BTreeSet<_>>(), one.iter().collect());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spot_prices_are_those_of_linux_in_force_now_although_the_first_page_is_empty() -> anyhow::Result<()> {
    let region = Region::start().await?;
    let asked: BTreeSet<InstanceType> = ["m7i.large", "c8g.2xlarge", "m9z.large"].map(InstanceType::from).into();
    let before = SystemClock.now();
    let read = region.janitor.spot_prices(&asked, SystemClock.now()).await?;
    let after = SystemClock.now();
    assert_eq!(read.len(), 2 * 2, "one for each known type and zone: {read:?}");
    for price in &read {
        let known = TYPES.iter().find(|it| it.name == price.instance_type.as_str()).context("a known type")?;
        // A price may have changed meanwhile.
        let expected =
            [before, after].map(|at| MicroUsd((spot_price(known, price.zone.as_str(), at) * 1e6).round() as u64));
        assert!(expected.contains(&price.per_hour), "{price:?}, not {expected:?}");
    }
    assert!(region.janitor.spot_prices(&BTreeSet::new(), SystemClock.now()).await?.is_empty());
    let refused = region.scaler.spot_prices(&asked, SystemClock.now()).await;
    ensure!(refused.is_err(), "only janitor and operator read prices");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_asks_for_the_root_volume_that_its_tuple_has() -> anyhow::Result<()> {
    let region = Region::start().await?;
    let root = region.template.root.clone().context("the image has a root volume")?;
    assert_eq!((root.device.as_str(), root.gib, root.kind.as_str()), ("/dev/sda1", 30, "gp3"));
    assert_eq!(root.initialize_at, Some(200));
    let of_template = region.scaler.launch(&region.launch(1, None)).await?;
    assert_eq!(of_template.len(), 2);
    assert!(of_template.iter().all(|it| region.root_volume(it.id.as_str()).is_none()));

    let larger = region.launch(2, Some(RootVolume { gib: 200, ..root.clone() }));
    let launched = region.scaler.launch(&larger).await?;
    assert!(launched.iter().all(|it| region.root_volume(it.id.as_str()) == Some((200, Some(200)))), "{launched:?}");
    assert_eq!(region.scaler.launch(&larger).await?, launched, "the same token is the same launch");

    let other = region.launch(2, Some(RootVolume { gib: 300, ..root.clone() }));
    let refused = region.scaler.launch(&other).await.expect_err("the token was used with another volume");
    assert_eq!((refused.class, refused.code.as_str()), (ErrorClass::TokenUsed, "IdempotentParameterMismatch"));
    assert_eq!(region.root_volume(launched[0].id.as_str()), Some((200, Some(200))));

    for wrong in [
        RootVolume { gib: 20, ..root.clone() },
        RootVolume { device: "/dev/xvda".to_owned(), ..root.clone() },
        RootVolume { initialize_at: Some(90), ..root.clone() },
    ] {
        let refused = region.scaler.launch(&region.launch(3, Some(wrong))).await.expect_err("EC2 refuses the volume");
        assert_eq!((refused.class, refused.code.as_str()), (ErrorClass::Refusal, "InvalidParameterValue"));
    }
    let launches = region.sandbox.world.look(|state| state.ec2.launches());
    assert_eq!(launches, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_whose_answer_is_lost_has_its_root_volume() -> anyhow::Result<()> {
    let region = Region::start().await?;
    let root = region.template.root.clone().context("the image has a root volume")?;
    region.sandbox.world.act(|state, _| {
        state.ec2.faults.lost_replies.push_back((Operation::RunInstances, world::LostReply::Applied));
    });
    let launch = region.launch(1, Some(RootVolume { gib: 90, ..root }));
    assert!(region.scaler.launch(&launch).await.is_err());
    let found = region.scaler.by_batch(&launch.tag).await?;
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|it| region.root_volume(it.id.as_str()) == Some((90, Some(200)))), "{found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_ec2_refuses_is_an_error_and_not_an_empty_list() -> anyhow::Result<()> {
    for operation in [Operation::DescribeInstanceTypes, Operation::DescribeInstanceTypeOfferings] {
        let region = Region::start().await?;
        let subnets: BTreeSet<SubnetId> = region.subnets.iter().cloned().collect();
        let refuse = (operation, Code::UnauthorizedOperation);
        region.sandbox.world.act(|state, _| state.ec2.faults.errors.push_back(refuse));
        let refused = region.janitor.machines(&subnets).await;
        ensure!(refused.is_err(), "{operation:?} was refused, and the reading is {refused:?}");
    }
    let region = Region::start().await?;
    let refuse = (Operation::DescribeSpotPriceHistory, Code::UnauthorizedOperation);
    region.sandbox.world.act(|state, _| state.ec2.faults.errors.push_back(refuse));
    let refused = region.janitor.spot_prices(&["m7i.large".into()].into(), SystemClock.now()).await;
    ensure!(refused.is_err(), "the prices were refused, and the reading is {refused:?}");
    Ok(())
}
