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
    let listed = ec2.describe_instances(&[], &[Filter::tag("drover:stack", "ci")], None, None, at(30)).unwrap();
    assert_eq!(listed.items.iter().map(|it| it.instances.len()).collect::<Vec<_>>(), [3, 2], "a part of the new ones");

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

/// A region with a machine that has booted at 20 seconds.
fn booted() -> (Ec2, InstanceId) {
    let (mut ec2, request) = region();
    let instance = ids(&ec2.run_instances(RunInstances { max_count: 1, ..request }, at(0)).unwrap()).remove(0);
    assert_eq!(ec2.advance(at(20)), [Happening::Booted { instance: instance.clone() }]);
    (ec2, instance)
}

fn stop(ec2: &mut Ec2, id: &InstanceId, now: Timestamp) -> Result<(State, State), Failure> {
    let changes = ec2.stop_instances(std::slice::from_ref(id), now)?;
    Ok((changes[0].previous, changes[0].current))
}

fn start(ec2: &mut Ec2, id: &InstanceId, now: Timestamp) -> Result<(State, State), Failure> {
    let changes = ec2.start_instances(std::slice::from_ref(id), now)?;
    Ok((changes[0].previous, changes[0].current))
}

fn states(ec2: &Ec2) -> Vec<State> {
    ec2.entered().iter().map(|entered| entered.state).collect()
}

#[test]
fn a_machine_stops_whatever_its_shutdown_behaviour_and_starts_again() {
    let (mut ec2, instance) = booted();
    let id = || instance.clone();
    assert_eq!(stop(&mut ec2, &instance, at(30)), Ok((State::Running, State::Stopping)));
    assert_eq!(ec2.advance(at(30)), [Happening::ShutDown { instance: id() }]);
    ec2.power_off(&instance, at(31));
    let stopped = [Happening::PowerLost { instance: id() }, Happening::Stopped { instance: id() }];
    assert_eq!(ec2.advance(at(50)), stopped, "the launch template says that a power-off terminates");
    assert_eq!(ec2.next_due(), None);

    assert_eq!(start(&mut ec2, &instance, at(100)), Ok((State::Stopped, State::Pending)));
    assert!(ec2.advance(at(111)).is_empty());
    assert_eq!(ec2.advance(at(112)), [Happening::Booted { instance: id() }], "sooner than a launched machine");
    let entered = [State::Pending, State::Running, State::Stopping, State::Stopped, State::Pending, State::Running];
    assert_eq!(states(&ec2), entered);
    assert!(ec2.ended().is_empty());
    assert_eq!(ec2.launches(), 1);
}

#[test]
fn a_start_moves_the_launch_time_in_whole_seconds() {
    let (mut ec2, instance) = booted();
    stop(&mut ec2, &instance, at(30)).unwrap();
    ec2.advance(at(50));
    assert_eq!(ec2.instance(&instance).unwrap().launched_at, at(0));
    start(&mut ec2, &instance, at(100) + Duration::from_millis(700)).unwrap();
    let machine = ec2.instance(&instance).unwrap();
    assert_eq!((machine.launched_at, machine.created_at, machine.starts), (at(100), at(0), 1));
}

#[test]
fn a_repeated_stop_or_start_changes_nothing() {
    let (mut ec2, instance) = booted();
    stop(&mut ec2, &instance, at(30)).unwrap();
    assert_eq!(stop(&mut ec2, &instance, at(40)), Ok((State::Stopping, State::Stopping)));
    ec2.advance(at(50));
    assert_eq!(stop(&mut ec2, &instance, at(55)), Ok((State::Stopped, State::Stopped)));
    start(&mut ec2, &instance, at(60)).unwrap();
    assert_eq!(start(&mut ec2, &instance, at(61)), Ok((State::Pending, State::Pending)));
    assert_eq!(ec2.advance(at(72)), [Happening::Booted { instance: instance.clone() }]);
    assert_eq!(start(&mut ec2, &instance, at(80)), Ok((State::Running, State::Running)));
    assert_eq!(ec2.next_due(), None);
    assert_eq!(ec2.instance(&instance).unwrap().launched_at, at(60));
}

#[test]
fn a_state_refuses_a_stop_or_a_start_and_one_bad_id_fails_all() {
    let (mut ec2, request) = region();
    let two = ids(&ec2.run_instances(RunInstances { max_count: 2, ..request.clone() }, at(0)).unwrap());
    let wrong = Some(Code::IncorrectInstanceState);
    assert_eq!(stop(&mut ec2, &two[0], at(1)).unwrap_err().code(), wrong, "pending");
    ec2.advance(at(20));
    let unknown = InstanceId::from("i-0123456789abcdef0");
    let missing = Some(Code::InvalidInstanceIdNotFound);
    assert_eq!(ec2.stop_instances(&[two[0].clone(), unknown.clone()], at(21)).unwrap_err().code(), missing);
    assert_eq!(start(&mut ec2, &unknown, at(21)).unwrap_err().code(), missing);
    assert_eq!(ec2.instance(&two[0]).unwrap().state, State::Running);

    stop(&mut ec2, &two[0], at(22)).unwrap();
    assert_eq!(start(&mut ec2, &two[0], at(23)).unwrap_err().code(), wrong, "stopping");
    ec2.advance(at(42));
    ec2.terminate_instances(&two, at(50)).unwrap();
    for now in [at(50), at(80)] {
        ec2.advance(now);
        for id in &two {
            assert_eq!(stop(&mut ec2, id, now).unwrap_err().code(), wrong);
            assert_eq!(start(&mut ec2, id, now).unwrap_err().code(), wrong);
        }
    }
    let spot = RunInstances { market: Market::Spot, max_count: 1, client_token: None, ..request };
    let spot = ids(&ec2.run_instances(spot, at(90)).unwrap()).remove(0);
    ec2.advance(at(110));
    assert_eq!(stop(&mut ec2, &spot, at(110)).unwrap_err().code(), Some(Code::UnsupportedOperation));
}

#[test]
fn a_stopped_machine_terminates_and_stays_so() {
    let (mut ec2, instance) = booted();
    stop(&mut ec2, &instance, at(30)).unwrap();
    ec2.advance(at(50));
    ec2.fail_host(&instance, at(51));
    assert_eq!(ec2.instance(&instance).unwrap().state, State::Stopped, "it has no host");
    let changes = ec2.terminate_instances(std::slice::from_ref(&instance), at(60)).unwrap();
    assert_eq!((changes[0].previous, changes[0].current), (State::Stopped, State::ShuttingDown));
    ec2.advance(at(80));
    assert_eq!(ec2.ended(), [Ended { instance, why: EndCause::TerminateCall, at: at(60) }]);
}

#[test]
fn the_programs_of_an_earlier_run_do_not_boot_in_a_later_one() {
    let (mut ec2, request) = region();
    let instance = ids(&ec2.run_instances(RunInstances { max_count: 1, ..request }, at(0)).unwrap()).remove(0);
    ec2.config.boot = Duration::from_secs(60);
    ec2.advance(at(5));
    stop(&mut ec2, &instance, at(6)).unwrap();
    ec2.advance(at(26));
    start(&mut ec2, &instance, at(60)).unwrap();
    assert!(ec2.advance(at(71)).is_empty(), "the first run would have booted at 65 seconds");
    assert_eq!(ec2.advance(at(72)), [Happening::Booted { instance }]);
}

#[test]
fn a_start_is_refused_where_capacity_is_used_up_and_may_fail_after_it_was_accepted() {
    let (mut ec2, instance) = booted();
    stop(&mut ec2, &instance, at(30)).unwrap();
    ec2.advance(at(50));
    let here = LaunchMatch { subnet: Some("subnet-a".into()), ..LaunchMatch::default() };
    let elsewhere = LaunchMatch { subnet: Some("subnet-b".into()), ..LaunchMatch::default() };
    let code = Code::InsufficientInstanceCapacity;
    ec2.faults.start_refusals = vec![
        Refusal { matches: elsewhere, code: Code::VcpuLimitExceeded, when: When::Chance(1.0) },
        Refusal { matches: here.clone(), code, when: When::Next(1) },
    ];
    ec2.faults.capacity = vec![Capacity { matches: here, left: 0 }];
    assert_eq!(start(&mut ec2, &instance, at(60)).unwrap_err().code(), Some(code));
    assert_eq!(start(&mut ec2, &instance, at(61)).unwrap_err().code(), Some(code), "no machine is left");
    assert_eq!(ec2.start_refusals(), &BTreeMap::from([(code, 2)]));
    assert_eq!(ec2.instance(&instance).unwrap().state, State::Stopped);

    ec2.faults.capacity[0].left = 2;
    ec2.faults.failed_starts = 1.0;
    start(&mut ec2, &instance, at(70)).unwrap();
    assert_eq!(ec2.advance(at(100)), [Happening::Stopped { instance: instance.clone() }]);
    ec2.faults.failed_starts = 0.0;
    start(&mut ec2, &instance, at(100)).unwrap();
    assert_eq!(ec2.faults.capacity[0].left, 0);
    assert_eq!(ec2.advance(at(200)), [Happening::Booted { instance }]);
}

#[test]
fn a_lost_reply_may_have_stopped_or_started() {
    let (mut ec2, instance) = booted();
    let lose = |operation| [(operation, LostReply::NotApplied), (operation, LostReply::Applied)];
    ec2.faults.lost_replies =
        lose(Operation::StopInstances).into_iter().chain(lose(Operation::StartInstances)).collect();
    for state in [State::Running, State::Stopping] {
        assert_eq!(stop(&mut ec2, &instance, at(30)).unwrap_err(), Failure::NoReply);
        assert_eq!(ec2.instance(&instance).unwrap().state, state);
    }
    ec2.advance(at(50));
    for state in [State::Stopped, State::Pending] {
        assert_eq!(start(&mut ec2, &instance, at(60)).unwrap_err(), Failure::NoReply);
        assert_eq!(ec2.instance(&instance).unwrap().state, state);
    }
}
