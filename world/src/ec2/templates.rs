//! Launch templates.

use jiff::Timestamp;

use super::*;

impl Ec2 {
    /// CreateLaunchTemplate: its first version is also its default.
    pub fn create_launch_template(
        &mut self,
        name: &str,
        data: TemplateData,
        tags: Tags,
        now: Timestamp,
    ) -> Result<LaunchTemplate, Failure> {
        self.admit(Operation::CreateLaunchTemplate, now)?;
        if self.templates.values().any(|template| template.name == name) {
            return Err(Failure::new(
                Code::InvalidLaunchTemplateNameAlreadyExists,
                "Launch template name already in use.",
            ));
        }
        let id = TemplateId(self.fresh_id("lt"));
        let template = LaunchTemplate {
            id: id.clone(),
            name: name.to_owned(),
            default_version: 1,
            versions: vec![data],
            tags,
            created_at: now,
        };
        self.templates.insert(id, template.clone());
        Ok(template)
    }

    /// Adds a version to a template, as an operator does who changes the image. The default version stays.
    pub fn add_template_version(&mut self, id: &TemplateId, data: TemplateData) -> Option<u64> {
        let template = self.templates.get_mut(id)?;
        template.versions.push(data);
        Some(template.versions.len() as u64)
    }

    /// DescribeLaunchTemplates, by ids or names (all when none is given).
    pub fn describe_launch_templates(
        &mut self,
        ids: &[TemplateId],
        names: &[String],
        filters: &[Filter],
        now: Timestamp,
    ) -> Result<Vec<LaunchTemplate>, Failure> {
        self.admit(Operation::DescribeLaunchTemplates, now)?;
        let mut named = Vec::new();
        for id in ids {
            named.push(self.template(&TemplateRef::Id(id.clone()))?.clone());
        }
        for name in names {
            named.push(self.template(&TemplateRef::Name(name.clone()))?.clone());
        }
        if ids.is_empty() && names.is_empty() {
            named.extend(self.templates.values().cloned());
        }
        let mut found = Vec::new();
        for template in named {
            let mut wanted = true;
            for filter in filters {
                wanted &= match filter.name.as_str() {
                    "launch-template-name" => filter.values.contains(&template.name),
                    name => match name.strip_prefix("tag:") {
                        Some(key) => template.tags.get(key).is_some_and(|value| filter.values.contains(value)),
                        None => {
                            return Err(Failure::new(
                                Code::InvalidParameterValue,
                                format!("The filter '{name}' is invalid"),
                            ));
                        }
                    },
                };
            }
            if wanted {
                found.push(template);
            }
        }
        Ok(found)
    }

    /// DescribeLaunchTemplateVersions of one template: the asked versions (all when none is given), with their numbers.
    pub fn describe_launch_template_versions(
        &mut self,
        template: &TemplateRef,
        versions: &[String],
        now: Timestamp,
    ) -> Result<(LaunchTemplate, Vec<u64>), Failure> {
        self.admit(Operation::DescribeLaunchTemplateVersions, now)?;
        let found = self.template(template)?.clone();
        let mut numbers = Vec::new();
        for version in versions {
            numbers.push(self.resolve_template(template, Some(version))?.1);
        }
        if versions.is_empty() {
            numbers.extend((1..=found.versions.len() as u64).rev());
        }
        Ok((found, numbers))
    }

    pub(super) fn resolve_template(
        &self,
        template: &TemplateRef,
        version: Option<&str>,
    ) -> Result<(TemplateId, u64, TemplateData), Failure> {
        let found = self.template(template)?;
        let number = match version {
            None | Some("$Default") => Some(found.default_version),
            Some("$Latest") => Some(found.versions.len() as u64),
            Some(number) => number.parse().ok(),
        };
        number
            .and_then(|number: u64| {
                Some((found.id.clone(), number, found.versions.get(number.checked_sub(1)? as usize)?.clone()))
            })
            .ok_or_else(|| {
                Failure::new(
                    Code::InvalidLaunchTemplateVersionNotFound,
                    format!("Could not find launch template version {}", version.unwrap_or_default()),
                )
            })
    }

    fn template(&self, template: &TemplateRef) -> Result<&LaunchTemplate, Failure> {
        match template {
            TemplateRef::Id(id) => self.templates.get(id).ok_or_else(|| {
                Failure::new(
                    Code::InvalidLaunchTemplateIdNotFound,
                    format!("The launch template ID '{id}' does not exist"),
                )
            }),
            TemplateRef::Name(name) => self.templates.values().find(|each| each.name == *name).ok_or_else(|| {
                Failure::new(
                    Code::InvalidLaunchTemplateNameNotFound,
                    format!("The specified launch template, with template name {name}, does not exist."),
                )
            }),
        }
    }
}
