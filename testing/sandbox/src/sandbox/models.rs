//! The models of EC2 and GitHub as the options ask for them.

use std::collections::BTreeSet;

use domain::ids::{Owner, Repository};
use jiff::{SignedDuration, Timestamp};
use world::ec2::{Ec2, OnPowerOff, Tags, TemplateData};
use world::github::{App, DEFAULT_GROUP, GitHub, Group, GroupId, OwnerKind, Visibility};

use super::options::{Options, RunnerGroup};
use crate::names::{FOREIGN_REPOSITORY, STACK};

pub(super) fn app(now: Timestamp) -> App {
    App::new(4242, "drover-sandbox", "Drover sandbox", now)
}

/// A region with the subnets and launch templates of the options. Its image is three days old.
pub(super) fn ec2(options: &Options, now: Timestamp) -> anyhow::Result<Ec2> {
    let mut ec2 = Ec2::new(options.ec2.clone(), options.seed);
    let stack_tag: Tags = [("drover:stack".to_owned(), STACK.to_owned())].into();
    for (number, subnet) in options.subnets.iter().enumerate() {
        ec2.add_subnet(subnet, &format!("eu-central-1-{number}"), stack_tag.clone());
    }
    // The tags that `make build-image` sets.
    let released_at = now - SignedDuration::from_hours(3 * 24);
    let tags = [("drover:runner", "2.338.0".to_owned()), ("drover:runner-released", format!("{released_at:.0}"))];
    let tags: Tags = tags.map(|(key, value)| (key.to_owned(), value)).into();
    for (image, architecture, instance_type, names) in [
        ("ami-runner", "x86_64", "m7i.large", &options.launch_templates),
        ("ami-runner-arm", "arm64", "m8g.large", &options.arm_launch_templates),
    ] {
        let (image, instance_type) = (image.to_owned(), instance_type.to_owned());
        let data = TemplateData { image, instance_type, on_power_off: OnPowerOff::Terminate };
        for name in names {
            ec2.create_launch_template(name, data.clone(), stack_tag.clone(), now)?;
        }
        ec2.set_architecture(&data.image, architecture);
        ec2.tag_image(&data.image, tags.clone());
    }
    Ok(ec2)
}

/// The organisations, repositories and runner groups of the options, with the app installed.
pub(super) fn github(options: &Options, now: Timestamp) -> GitHub {
    let mut github = GitHub::new(options.github.clone(), app(now), options.seed);
    for repository in &options.repositories {
        let login = repository.owner.as_str();
        let existing = github.find_owner(login).map(|owner| owner.id);
        let owner = existing.unwrap_or_else(|| {
            let owner = github.add_owner(login, OwnerKind::Organization, now);
            github.install(owner, now);
            github.add_repository(owner, FOREIGN_REPOSITORY, Visibility::Private, now);
            owner
        });
        github.add_repository(owner, repository.name(), Visibility::Private, now);
    }
    let owners: BTreeSet<&Owner> = options.repositories.iter().map(|repository| &repository.owner).collect();
    for owner in owners {
        let of_owner = options.repositories.iter().filter(|repository| repository.owner == *owner);
        add_group(&mut github, owner, DEFAULT_GROUP.0, of_owner);
    }
    for RunnerGroup { owner, group, repositories } in &options.groups {
        add_group(&mut github, owner, *group, repositories.iter());
    }
    github
}

/// Adds or changes a runner group so that it allows these repositories, but no public ones.
fn add_group<'a>(github: &mut GitHub, owner: &Owner, group: u64, allowed: impl Iterator<Item = &'a Repository>) {
    let Some(id) = github.find_owner(owner.as_str()).map(|owner| owner.id) else { return };
    let found = allowed.filter_map(|it| github.find_repository(owner.as_str(), it.name())).map(|it| it.id);
    let repositories = Some(found.collect());
    let name = if group == DEFAULT_GROUP.0 { "Default".to_owned() } else { format!("group {group}") };
    github.set_group(id, Group { id: GroupId(group), name, repositories, allows_public: false });
}
