//! EC2's query API on the model: requests are forms, answers are XML.

use std::fmt::Write;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use world::ec2::{
    Code, Ec2, Failure, Image, Instance, InstanceId, LaunchTemplate, Market, OnPowerOff, Reservation, RunInstances,
    StateChange, StateReason, Subnet, Tags, TemplateRef,
};

use crate::calls::hang_up;
use crate::ec2_form::{Form, escaped, filters, list, number, required};
use crate::ec2_machines::{describe_instance_type_offerings, describe_instance_types, describe_spot_price_history};
use crate::root_volumes::{IMAGE_GIB, INITIALIZED_AT, ROOT_DEVICE, RootVolumes, requested};

/// Answers one request. Operations that Drover does not use are refused as unknown.
pub fn answer(ec2: &mut Ec2, volumes: &mut RootVolumes, form: &Form, now: Timestamp) -> Response {
    let action = form.get("Action").map(String::as_str).unwrap_or_default();
    let done = match action {
        "RunInstances" => run_instances(ec2, volumes, form, now),
        "DescribeInstances" => describe_instances(ec2, form, now),
        "StopInstances" => ec2.stop_instances(&instances(form), now).map(|it| changes_xml(&it)),
        "StartInstances" => ec2.start_instances(&instances(form), now).map(|it| changes_xml(&it)),
        "TerminateInstances" => ec2.terminate_instances(&instances(form), now).map(|it| changes_xml(&it)),
        "DescribeLaunchTemplates" => describe_launch_templates(ec2, form, now),
        "DescribeLaunchTemplateVersions" => describe_template_versions(ec2, form, now),
        "DescribeSubnets" => describe_subnets(ec2, form, now),
        "DescribeImages" => describe_images(ec2, form, now),
        "CreateTags" => create_tags(ec2, form, now),
        "DeleteTags" => delete_tags(ec2, form, now),
        "GetConsoleOutput" => console_output(ec2, form, now),
        "DescribeInstanceTypes" => describe_instance_types(ec2, form, now),
        "DescribeInstanceTypeOfferings" => describe_instance_type_offerings(ec2, form, now),
        "DescribeSpotPriceHistory" => describe_spot_price_history(ec2, form, now),
        _ => Err(Failure::Refused {
            code: Code::InvalidAction,
            message: format!("The action {action} is not valid for this web service."),
        }),
    };
    match done {
        Ok(inside) => xml(
            StatusCode::OK,
            format!(
                "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
                 <requestId>sandbox</requestId>{inside}</{action}Response>"
            ),
        ),
        Err(Failure::NoReply) => hang_up(),
        Err(Failure::Refused { code, message }) => xml(
            StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{}</Message></Error></Errors>\
                 <RequestID>sandbox</RequestID></Response>",
                escaped(&message)
            ),
        ),
    }
}

pub(crate) fn xml(status: StatusCode, body: String) -> Response {
    (status, [("content-type", "text/xml;charset=UTF-8")], body).into_response()
}

fn tags_for(form: &Form, resource: &str) -> Tags {
    let specifications = (1..).map_while(|n| {
        let kind = form.get(&format!("TagSpecification.{n}.ResourceType"))?;
        Some((n, kind))
    });
    let wanted = specifications.filter(|(_, kind)| *kind == resource);
    wanted
        .flat_map(|(n, _)| {
            (1..).map_while(move |m| {
                let key = form.get(&format!("TagSpecification.{n}.Tag.{m}.Key"))?.clone();
                Some((key, form.get(&format!("TagSpecification.{n}.Tag.{m}.Value")).cloned().unwrap_or_default()))
            })
        })
        .collect()
}

fn run_instances(ec2: &mut Ec2, volumes: &mut RootVolumes, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let template = match (form.get("LaunchTemplate.LaunchTemplateId"), form.get("LaunchTemplate.LaunchTemplateName")) {
        (Some(id), _) => TemplateRef::Id(id.as_str().into()),
        (None, Some(name)) => TemplateRef::Name(name.clone()),
        (None, None) => TemplateRef::Id(required(form, "LaunchTemplate.LaunchTemplateId")?.as_str().into()),
    };
    let market = match form.get("InstanceMarketOptions.MarketType").map(String::as_str) {
        Some("spot") => Market::Spot,
        _ => Market::OnDemand,
    };
    let request = RunInstances {
        template,
        template_version: form.get("LaunchTemplate.Version").cloned(),
        min_count: number(form, "MinCount")?.unwrap_or(0),
        max_count: number(form, "MaxCount")?.unwrap_or(0),
        subnet: required(form, "SubnetId")?.as_str().into(),
        instance_type: form.get("InstanceType").cloned(),
        market,
        client_token: form.get("ClientToken").cloned(),
        tags: tags_for(form, "instance"),
        volume_tags: tags_for(form, "volume"),
    };
    // The policies of all roles require the tag, also for a dry run.
    let is_tagged = |tags: &Tags| tags.contains_key("drover:stack");
    if !is_tagged(&request.tags) || !is_tagged(&request.volume_tags) {
        return Err(Failure::new(Code::UnauthorizedOperation, "the request has no tag drover:stack"));
    }
    let volume = requested(form)?;
    if form.get("DryRun").is_some_and(|dry| dry == "true") {
        return Err(ec2.try_run_instances(&request, now));
    }
    volumes.record(ec2, &request, volume)?;
    let reservation = ec2.run_instances(request, now)?;
    let account = ec2.config().account.clone();
    Ok(reservation_xml(&reservation, &account))
}

fn create_tags(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let pairs = (1..).map_while(|n| {
        let key = form.get(&format!("Tag.{n}.Key"))?.clone();
        Some((key, form.get(&format!("Tag.{n}.Value")).cloned().unwrap_or_default()))
    });
    ec2.create_tags(&list(form, "ResourceId"), &pairs.collect(), now)?;
    Ok("<return>true</return>".to_owned())
}

fn delete_tags(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let keys: Vec<String> = (1..).map_while(|n| form.get(&format!("Tag.{n}.Key")).cloned()).collect();
    ec2.delete_tags(&list(form, "ResourceId"), &keys, now)?;
    Ok("<return>true</return>".to_owned())
}

fn console_output(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let id = InstanceId::from(required(form, "InstanceId")?);
    let latest = form.get("Latest").is_some_and(|latest| latest == "true");
    let output = STANDARD.encode(ec2.console_output(&id, latest, now)?);
    Ok(format!("<instanceId>{id}</instanceId><timestamp>{now}</timestamp><output>{output}</output>"))
}

fn describe_instances(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let ids = instances(form);
    let (size, token) = (number(form, "MaxResults")?, form.get("NextToken").map(String::as_str));
    let page = ec2.describe_instances(&ids, &filters(form), size, token, now)?;
    let account = ec2.config().account.clone();
    let items: String = page.items.iter().map(|it| format!("<item>{}</item>", reservation_xml(it, &account))).collect();
    let next = page.next_token.map(|token| format!("<nextToken>{}</nextToken>", escaped(&token))).unwrap_or_default();
    Ok(format!("<reservationSet>{items}</reservationSet>{next}"))
}

fn reservation_xml(reservation: &Reservation, account: &str) -> String {
    let instances: String = reservation.instances.iter().map(instance_xml).collect();
    format!(
        "<reservationId>{}</reservationId><ownerId>{account}</ownerId><groupSet/><instancesSet>{instances}</instancesSet>",
        reservation.id
    )
}

fn instance_xml(instance: &Instance) -> String {
    let mut xml = format!(
        "<item><instanceId>{}</instanceId><imageId>{}</imageId><instanceState><code>{}</code><name>{}</name>\
         </instanceState><amiLaunchIndex>{}</amiLaunchIndex><instanceType>{}</instanceType><launchTime>{:.3}</launchTime>\
         <placement><availabilityZone>{}</availabilityZone></placement><subnetId>{}</subnetId>\
         <privateIpAddress>{}</privateIpAddress>",
        instance.id,
        escaped(&instance.image),
        instance.state.code(),
        instance.state,
        instance.launch_index,
        escaped(&instance.instance_type),
        instance.launched_at,
        instance.zone,
        instance.subnet,
        instance.private_ip,
    );
    if let Some(StateReason { code, message }) = &instance.state_reason {
        // Writing to a string cannot fail.
        let _ = write!(
            xml,
            "<stateReason><code>{}</code><message>{}</message></stateReason>",
            escaped(code),
            escaped(message)
        );
    }
    if instance.market == Market::Spot {
        xml += "<instanceLifecycle>spot</instanceLifecycle>";
    }
    if let Some(token) = &instance.client_token {
        // Writing to a string cannot fail.
        let _ = write!(xml, "<clientToken>{}</clientToken>", escaped(token));
    }
    xml + &tags_xml(&instance.tags) + "</item>"
}

fn tags_xml(tags: &Tags) -> String {
    let item = |(key, value): (&String, &String)| {
        format!("<item><key>{}</key><value>{}</value></item>", escaped(key), escaped(value))
    };
    format!("<tagSet>{}</tagSet>", tags.iter().map(item).collect::<String>())
}

fn instances(form: &Form) -> Vec<InstanceId> {
    list(form, "InstanceId").into_iter().map(InstanceId::from).collect()
}

fn changes_xml(changes: &[StateChange]) -> String {
    let items: String = changes
        .iter()
        .map(|change| {
            let state = |state: world::ec2::State| format!("<code>{}</code><name>{state}</name>", state.code());
            format!(
                "<item><instanceId>{}</instanceId><currentState>{}</currentState><previousState>{}</previousState></item>",
                change.id,
                state(change.current),
                state(change.previous)
            )
        })
        .collect();
    format!("<instancesSet>{items}</instancesSet>")
}

fn describe_launch_templates(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let ids: Vec<_> = list(form, "LaunchTemplateId").iter().map(|id| id.as_str().into()).collect();
    let found = ec2.describe_launch_templates(&ids, &list(form, "LaunchTemplateName"), &filters(form), now)?;
    let item = |it: &LaunchTemplate| {
        format!(
            "<item><launchTemplateId>{}</launchTemplateId><launchTemplateName>{}</launchTemplateName>\
             <defaultVersionNumber>{}</defaultVersionNumber><latestVersionNumber>{}</latestVersionNumber>{}</item>",
            it.id,
            escaped(&it.name),
            it.default_version,
            it.versions.len(),
            tags_xml(&it.tags)
        )
    };
    Ok(format!("<launchTemplates>{}</launchTemplates>", found.iter().map(item).collect::<String>()))
}

fn describe_template_versions(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let template = TemplateRef::Id(required(form, "LaunchTemplateId")?.as_str().into());
    let asked = list(form, "LaunchTemplateVersion");
    let (template, numbers) = ec2.describe_launch_template_versions(&template, &asked, now)?;
    let item = |number: &u64| {
        let data = template.versions.get(usize::try_from(*number).ok()?.checked_sub(1)?)?;
        let on_power_off = match data.on_power_off {
            OnPowerOff::Terminate => "terminate",
            OnPowerOff::Stop => "stop",
        };
        Some(format!(
            "<item><launchTemplateId>{}</launchTemplateId><launchTemplateName>{}</launchTemplateName>\
             <versionNumber>{number}</versionNumber><defaultVersion>{}</defaultVersion><launchTemplateData>\
             <imageId>{}</imageId><instanceType>{}</instanceType>\
             <instanceInitiatedShutdownBehavior>{on_power_off}</instanceInitiatedShutdownBehavior>\
             <blockDeviceMappingSet><item><deviceName>{ROOT_DEVICE}</deviceName><ebs><encrypted>true</encrypted>\
             <volumeSize>{IMAGE_GIB}</volumeSize><volumeType>gp3</volumeType>\
             <volumeInitializationRate>{INITIALIZED_AT}</volumeInitializationRate></ebs></item></blockDeviceMappingSet>\
             </launchTemplateData></item>",
            template.id,
            escaped(&template.name),
            *number == template.default_version,
            escaped(&data.image),
            escaped(&data.instance_type),
        ))
    };
    let items: String = numbers.iter().filter_map(item).collect();
    Ok(format!("<launchTemplateVersionSet>{items}</launchTemplateVersionSet>"))
}

fn describe_images(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let found = ec2.describe_images(&list(form, "ImageId"), now)?;
    let item = |it: &Image| {
        format!(
            "<item><imageId>{}</imageId><imageState>available</imageState><creationDate>{:.3}</creationDate>\
             <architecture>{}</architecture><rootDeviceName>{ROOT_DEVICE}</rootDeviceName><blockDeviceMapping><item>\
             <deviceName>{ROOT_DEVICE}</deviceName><ebs><volumeSize>{IMAGE_GIB}</volumeSize><volumeType>gp3</volumeType>\
             </ebs></item>\
             </blockDeviceMapping>{}</item>",
            escaped(&it.id),
            it.created_at,
            it.architecture,
            tags_xml(&it.tags)
        )
    };
    Ok(format!("<imagesSet>{}</imagesSet>", found.iter().map(item).collect::<String>()))
}

/// The free addresses of a subnet without a limit: those of a /20.
const ADDRESSES: u32 = 4091;

fn describe_subnets(ec2: &mut Ec2, form: &Form, now: Timestamp) -> Result<String, Failure> {
    let ids: Vec<_> = list(form, "SubnetId").iter().map(|id| id.as_str().into()).collect();
    let found = ec2.describe_subnets(&ids, &filters(form), now)?;
    let item = |it: &Subnet| {
        format!(
            "<item><subnetId>{}</subnetId><availabilityZone>{}</availabilityZone>\
             <availableIpAddressCount>{}</availableIpAddressCount>{}</item>",
            it.id,
            it.zone,
            ec2.free_addresses(&it.id).unwrap_or(ADDRESSES),
            tags_xml(&it.tags)
        )
    };
    Ok(format!("<subnetSet>{}</subnetSet>", found.iter().map(item).collect::<String>()))
}
