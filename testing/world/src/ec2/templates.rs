//! Launch templates and images.

use jiff::Timestamp;

use super::*;

impl Ec2 {
    /// CreateLaunchTemplate. The first version is the default version.
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
        let id = TemplateId::from(self.fresh_id("lt"));
        self.add_image(&data.image, now);
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

    /// Adds a version to a template, for example with another image. The default version stays.
    pub fn add_template_version(&mut self, id: &TemplateId, data: TemplateData) -> Option<u64> {
        let template = self.templates.get_mut(id)?;
        let (image, made_at) = (data.image.clone(), template.created_at);
        template.versions.push(data);
        let number = template.versions.len() as u64;
        self.add_image(&image, made_at);
        Some(number)
    }

    /// Deletes a template with all its versions.
    pub fn delete_launch_template(&mut self, id: &TemplateId) {
        self.templates.remove(id);
    }

    /// Every template, without a call.
    pub fn launch_templates(&self) -> impl Iterator<Item = &LaunchTemplate> {
        self.templates.values()
    }

    /// Registers an image if it does not exist.
    pub fn add_image(&mut self, id: &str, created_at: Timestamp) {
        self.images.entry(id.to_owned()).or_insert(Image {
            id: id.to_owned(),
            created_at,
            architecture: "x86_64",
            tags: Tags::new(),
        });
    }

    /// Changes an image's architecture, `x86_64` at first.
    pub fn set_architecture(&mut self, id: &str, architecture: &'static str) {
        if let Some(image) = self.images.get_mut(id) {
            image.architecture = architecture;
        }
    }

    /// Adds tags to an image.
    pub fn tag_image(&mut self, id: &str, tags: Tags) {
        if let Some(image) = self.images.get_mut(id) {
            image.tags.extend(tags);
        }
    }

    /// Deregisters an image, after which launches from it fail.
    pub fn remove_image(&mut self, id: &str) {
        self.images.remove(id);
    }

    /// DescribeImages, by ids. If one does not exist, the call fails.
    pub fn describe_images(&mut self, ids: &[String], now: Timestamp) -> Result<Vec<Image>, Failure> {
        self.admit(Operation::DescribeImages, now)?;
        ids.iter().map(|id| self.image(id).cloned()).collect()
    }

    pub(super) fn image(&self, id: &str) -> Result<&Image, Failure> {
        let missing = || Failure::new(Code::InvalidAmiIdNotFound, format!("The image id '[{id}]' does not exist"));
        self.images.get(id).ok_or_else(missing)
    }

    /// DescribeLaunchTemplates, by ids or names, or all templates without either.
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

    /// DescribeLaunchTemplateVersions of one template: the template, and the numbers of the requested versions, or of all.
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
