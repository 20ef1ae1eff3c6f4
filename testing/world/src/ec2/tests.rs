//! Facts about EC2 that Drover depends on.

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A region with a template and subnets in two zones.
fn region() -> (Ec2, RunInstances) {
    let mut ec2 = Ec2::new(Config::default(), 7);
    ec2.add_subnet("subnet-a", "eu-central-1a", Tags::new());
    ec2.add_subnet("subnet-a2", "eu-central-1a", Tags::new());
    ec2.add_subnet("subnet-b", "eu-central-1b", Tags::new());
    let data =
        TemplateData { image: "ami-1".into(), instance_type: "m7i.large".into(), on_power_off: OnPowerOff::Terminate };
    let template = ec2.create_launch_template("runner", data, Tags::new(), at(0)).unwrap();
    let request = RunInstances {
        template: TemplateRef::Id(template.id),
        template_version: Some("1".into()),
        min_count: 1,
        max_count: 3,
        subnet: "subnet-a".into(),
        instance_type: None,
        market: Market::OnDemand,
        client_token: Some("token".into()),
        tags: Tags::from([("drover:stack".into(), "ci".into())]),
        volume_tags: Tags::new(),
    };
    (ec2, request)
}

fn ids(reservation: &Reservation) -> Vec<InstanceId> {
    reservation.instances.iter().map(|instance| instance.id.clone()).collect()
}

#[test]
fn a_client_token_is_zonal_and_covers_every_parameter() {
    let (mut ec2, request) = region();
    let first = ec2.run_instances(request.clone(), at(0)).unwrap();
    let again = ec2.run_instances(request.clone(), at(60)).unwrap();
    assert_eq!(ids(&first), ids(&again));

    let changed = RunInstances { max_count: 2, ..request.clone() };
    assert_eq!(ec2.run_instances(changed, at(61)).unwrap_err().code(), Some(Code::IdempotentParameterMismatch));
    let other_subnet_same_zone = RunInstances { subnet: "subnet-a2".into(), ..request.clone() };
    let refused = ec2.run_instances(other_subnet_same_zone, at(62)).unwrap_err();
    assert_eq!(refused.code(), Some(Code::IdempotentParameterMismatch));

    let elsewhere = ec2.run_instances(RunInstances { subnet: "subnet-b".into(), ..request }, at(63)).unwrap();
    assert!(
        ids(&elsewhere).iter().all(|id| !ids(&first).contains(id)),
        "the same token in another zone launches again"
    );
    assert_eq!(ec2.launches(), 6);
}

#[test]
fn a_lost_reply_may_have_launched_and_the_same_token_finds_out() {
    let (mut ec2, request) = region();
    ec2.faults.lost_replies =
        [(Operation::RunInstances, LostReply::NotApplied), (Operation::RunInstances, LostReply::Applied)].into();
    assert_eq!(ec2.run_instances(request.clone(), at(0)).unwrap_err(), Failure::NoReply);
    assert_eq!(ec2.launches(), 0);
    assert_eq!(ec2.run_instances(request.clone(), at(1)).unwrap_err(), Failure::NoReply);
    assert_eq!(ec2.launches(), 3);
    assert_eq!(ec2.run_instances(request, at(2)).unwrap().instances.len(), 3);
    assert_eq!(ec2.launches(), 3);
}

#[test]
fn a_new_instance_is_not_found_before_it_is_visible_and_one_bad_id_fails_all() {
    let (mut ec2, request) = region();
    let old = ids(&ec2.run_instances(RunInstances { client_token: None, ..request.clone() }, at(0)).unwrap());
    ec2.faults.invisible_for = Duration::from_secs(30);
    let new = ids(&ec2.run_instances(request, at(10)).unwrap());

    let both = [old[0].clone(), new[0].clone()];
    assert_eq!(ec2.terminate_instances(&both, at(11)).unwrap_err().code(), Some(Code::InvalidInstanceIdNotFound));
    assert_eq!(ec2.alive().count(), 6, "nothing ended");
    let listed = ec2.describe_instances(&[], &[Filter::tag("drover:stack", "ci")], None, None, at(11)).unwrap();
    assert_eq!(listed.items.len(), 1);

    ec2.terminate_instances(&both, at(40)).unwrap();
    assert_eq!(ec2.alive().count(), 4);
}

#[test]
fn a_machine_boots_and_powers_itself_off_for_good() {
    let (mut ec2, request) = region();
    let instance = ids(&ec2.run_instances(RunInstances { max_count: 1, ..request }, at(0)).unwrap())[0].clone();
    assert_eq!(ec2.next_due(), Some(at(5)));
    assert!(ec2.advance(at(5)).is_empty(), "running, not yet booted");
    assert_eq!(ec2.advance(at(20)), [Happening::Booted { instance: instance.clone() }]);

    ec2.power_off(&instance, at(100));
    assert_eq!(
        ec2.terminate_instances(std::slice::from_ref(&instance), at(101)).unwrap()[0].previous,
        State::ShuttingDown
    );
    let happenings = ec2.advance(at(200));
    let gone = Happening::Terminated { instance: instance.clone(), why: EndCause::PowerOff };
    assert_eq!(happenings, [Happening::PowerLost { instance: instance.clone() }, gone]);
    let entered: Vec<State> = ec2.entered().iter().map(|entered| entered.state).collect();
    assert_eq!(entered, [State::Pending, State::Running, State::ShuttingDown, State::Terminated]);
    assert_eq!(ec2.ended(), [Ended { instance, why: EndCause::PowerOff, at: at(100) }]);
    assert_eq!(ec2.next_due(), None);
    let listed = ec2.describe_instances(&[], &[], None, None, at(120 + 3600)).unwrap();
    assert!(listed.items.is_empty(), "a terminated instance is forgotten after an hour");
}

#[test]
fn capacity_runs_out_into_a_partial_launch_and_then_a_refusal() {
    let (mut ec2, request) = region();
    ec2.faults.capacity = vec![Capacity { matches: LaunchMatch::default(), left: 2 }];
    assert_eq!(ec2.run_instances(request.clone(), at(0)).unwrap().instances.len(), 2);
    let more = RunInstances { client_token: Some("next".into()), ..request };
    let refused = ec2.run_instances(more.clone(), at(1)).unwrap_err();
    assert_eq!(refused.code(), Some(Code::InsufficientInstanceCapacity));
    assert_eq!(Code::InsufficientInstanceCapacity.status(), 500);

    ec2.faults.capacity.clear();
    let quota = Refusal { matches: LaunchMatch::default(), code: Code::VcpuLimitExceeded, when: When::Next(1) };
    ec2.faults.refusals.push(quota);
    assert_eq!(ec2.run_instances(more.clone(), at(2)).unwrap_err().code(), Some(Code::VcpuLimitExceeded));
    assert_eq!(ec2.struck(), &BTreeMap::from([(Code::VcpuLimitExceeded, 1)]));
    assert_eq!(ec2.run_instances(more, at(2)).unwrap().instances.len(), 3, "a failed call has not used its token");
}

#[test]
fn a_spot_machine_is_reclaimed_two_minutes_after_the_warning() {
    let (mut ec2, request) = region();
    let spot = RunInstances { market: Market::Spot, max_count: 1, ..request };
    let instance = ids(&ec2.run_instances(spot, at(0)).unwrap())[0].clone();
    ec2.advance(at(30));
    ec2.interrupt_spot(&instance, at(40));
    assert_eq!(ec2.advance(at(40)), [Happening::SpotNotice { instance: instance.clone(), at: at(160) }]);
    ec2.advance(at(160));
    assert_eq!(ec2.ended(), [Ended { instance, why: EndCause::Ec2, at: at(160) }]);
}

#[test]
fn the_published_buckets_hold() {
    let (mut ec2, request) = region();
    let call = |n: i64| RunInstances { client_token: Some(n.to_string()), max_count: 1, ..request.clone() };
    for n in 0..5 {
        ec2.run_instances(call(n), at(0)).unwrap();
    }
    assert_eq!(ec2.run_instances(call(6), at(0)).unwrap_err().code(), Some(Code::RequestLimitExceeded));
    ec2.run_instances(call(7), at(1)).unwrap();
    ec2.run_instances(call(8), at(1)).unwrap();
    assert!(ec2.run_instances(call(9), at(1)).is_err(), "two per second");
}

#[test]
fn pages_show_every_instance_once() {
    let (mut ec2, request) = region();
    let all = ids(&ec2.run_instances(RunInstances { max_count: 12, ..request }, at(0)).unwrap());
    let (mut listed, mut token) = (Vec::new(), None::<String>);
    loop {
        let page = ec2.describe_instances(&[], &[], Some(5), token.as_deref(), at(1)).unwrap();
        listed.extend(page.items.iter().flat_map(ids));
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(listed, all);
}
