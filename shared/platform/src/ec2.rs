//! EC2: launching, listing, stopping, starting and terminating instances, and resolving the names in a pool file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, Filter, InstanceInterruptionBehavior, InstanceMarketOptionsRequest,
    InstanceStateName, InstanceType, LaunchTemplateSpecification, MarketType, ResourceType, SpotInstanceType,
    SpotMarketOptions, Tag, TagSpecification, VolumeType,
};
use domain::config::{LaunchTemplate, Market, ObservedMachines, ObservedPrice, Rates, RootVolume};
use domain::ids::{BatchTag, ImageId, InstanceId, InstanceType as TypeName, StackName, SubnetId, TemplateId};
use domain::state::bounded;
use domain::wire::{MachineState, ObservedInstance, StateReason};
use engine::ports::{
    Compute, ComputeError, INSTANCES_PER_READING, Launch, LaunchError, Launched, Terminated, TerminationPermit,
};
use jiff::{SignedDuration, Timestamp};

use crate::aws::{CallError, ErrorKind, describe, failed_ec2};
use crate::{ec2_machines, image};

/// EC2 takes seconds to launch many instances.
const LAUNCH_TIMEOUT: SignedDuration = SignedDuration::from_secs(20);

/// EC2 answers a stop before the machine has shut down.
const STOP_TIMEOUT: SignedDuration = SignedDuration::from_secs(8);

/// The shortest time-out of a launch or a stop, however little time the invocation has left. With less, no answer would
/// arrive in time.
const MIN_TIMEOUT: SignedDuration = SignedDuration::from_secs(1);

/// The largest page of DescribeInstances.
const PER_PAGE: i32 = 1000;

/// The tag that protects an instance from termination.
const HOLD: &str = "drover:hold";

/// The longest value of a tag, in characters.
const MAX_TAG_CHARS: usize = 256;

/// The version of the AWS SDK whose list of instance types [`known_types`] is.
pub fn known_types_from() -> &'static str {
    aws_sdk_ec2::meta::PKG_VERSION
}

/// The names of the instance types that existed when this version of the AWS SDK was released.
pub fn known_types() -> &'static [&'static str] {
    InstanceType::values()
}

/// EC2, limited to the instances of one stack.
#[derive(Debug, Clone)]
pub struct Ec2 {
    client: Client,
    stack: StackName,
}

impl Ec2 {
    /// Makes no call.
    pub fn new(aws: &SdkConfig, stack: StackName) -> Self {
        Self { client: Client::new(aws), stack }
    }

    /// List prices in the client's region.
    pub fn rates(&self) -> Rates {
        Rates::of(self.client.config().region().map(ToString::to_string).unwrap_or_default())
    }

    /// When the template's image was created, and when GitHub published the runner in it. None for a date that EC2 does not
    /// have.
    ///
    /// # Errors
    /// If EC2 does not answer.
    pub async fn image_dates(
        &self,
        template: &LaunchTemplate,
    ) -> Result<(Option<Timestamp>, Option<Timestamp>), ComputeError> {
        let found = image::template(&self.client, template).await.map_err(failed_ec2)?;
        let Some(id) = found.and_then(|data| data.image_id) else { return Ok((None, None)) };
        let found = image::image(&self.client, &id).await.map_err(failed_ec2)?;
        let found = found.as_ref();
        Ok((found.and_then(image::created_at), found.and_then(image::runner_released_at)))
    }

    fn tags(&self, tag: &BatchTag) -> Vec<Tag> {
        let tag_of = |key: &str, value: String| Tag::builder().key(key).value(value).build();
        vec![
            tag_of("drover:stack", self.stack.to_string()),
            tag_of("drover:pool", tag.pool.to_string()),
            tag_of("drover:batch", tag.to_string()),
            tag_of("Name", format!("drover {} {}", self.stack, tag.pool)),
        ]
    }

    /// Every instance with that tag, all pages.
    async fn tagged(&self, key: &str, value: String) -> Result<Vec<ObservedInstance>, ComputeError> {
        let filter = Filter::builder().name(format!("tag:{key}")).values(value).build();
        let mut pages = self.client.describe_instances().filters(filter).into_paginator().page_size(PER_PAGE).send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(failed_ec2)?;
            all.extend(
                page.reservations
                    .unwrap_or_default()
                    .into_iter()
                    .flat_map(|it| it.instances.unwrap_or_default())
                    .filter_map(observed),
            );
        }
        Ok(all)
    }

    /// An instance of this stack. None if there is no such instance.
    ///
    /// # Errors
    /// If EC2 does not answer.
    pub async fn machine(&self, id: &InstanceId) -> Result<Option<ObservedInstance>, ComputeError> {
        let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
        let own = filter("tag:drover:stack", self.stack.as_str());
        let ask = self.client.describe_instances().filters(filter("instance-id", id.as_str())).filters(own);
        let found = ask.send().await.map_err(failed_ec2)?.reservations.unwrap_or_default().into_iter();
        Ok(found.flat_map(|it| it.instances.unwrap_or_default()).find_map(observed))
    }

    /// The availability zones of those of the instances that belong to the stack and that EC2 lists.
    ///
    /// # Errors
    /// If EC2 does not answer.
    pub async fn zones(&self, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, String>, ComputeError> {
        let mut zones = BTreeMap::new();
        for some in ids.chunks(INSTANCES_PER_READING) {
            let found = self.described(some).await?;
            zones.extend(
                found
                    .into_iter()
                    .filter_map(|it| Some((InstanceId::from(it.instance_id?), it.placement?.availability_zone?))),
            );
        }
        Ok(zones)
    }

    /// Those of the instances that belong to the stack.
    async fn described(&self, ids: &[InstanceId]) -> Result<Vec<aws_sdk_ec2::types::Instance>, ComputeError> {
        let values = ids.iter().map(|id| id.to_string()).collect();
        let filters = [
            Filter::builder().name("tag:drover:stack").values(self.stack.as_str()).build(),
            Filter::builder().name("instance-id").set_values(Some(values)).build(),
        ];
        let ask = self.client.describe_instances().set_filters(Some(filters.to_vec()));
        let found = ask.send().await.map_err(failed_ec2)?.reservations.unwrap_or_default().into_iter();
        Ok(found.flat_map(|it| it.instances.unwrap_or_default()).collect())
    }

    /// Protects an instance from termination by a tag, whose value says who did so.
    ///
    /// # Errors
    /// If EC2 does not confirm it.
    pub async fn hold(&self, id: &InstanceId, who: &str) -> Result<(), ComputeError> {
        let value: String = who.chars().take(MAX_TAG_CHARS).collect();
        let tag = Tag::builder().key(HOLD).value(value).build();
        self.client.create_tags().resources(id.as_str()).tags(tag).send().await.map(drop).map_err(failed_ec2)
    }

    /// Removes the protection.
    ///
    /// # Errors
    /// If EC2 does not confirm it.
    pub async fn release(&self, id: &InstanceId) -> Result<(), ComputeError> {
        let tag = Tag::builder().key(HOLD).build();
        self.client.delete_tags().resources(id.as_str()).tags(tag).send().await.map(drop).map_err(failed_ec2)
    }

    /// Finds a launch template by name or id, and pins its version: the given one, or else the default version.
    ///
    /// # Errors
    /// If the template does not exist, or EC2 does not answer.
    pub async fn resolve_template(
        &self,
        name_or_id: &str,
        version: Option<u64>,
    ) -> Result<LaunchTemplate, ComputeError> {
        let ask = self.client.describe_launch_templates();
        let ask = match name_or_id.starts_with("lt-") {
            true => ask.launch_template_ids(name_or_id),
            false => ask.launch_template_names(name_or_id),
        };
        let found = ask.send().await.map_err(failed_ec2)?.launch_templates.unwrap_or_default().into_iter().next();
        let missing = || {
            let message = format!("there is no launch template {name_or_id:?} in this account and region");
            ComputeError::from(CallError::new(ErrorKind::NotFound, message))
        };
        let found = found.ok_or_else(missing)?;
        let default = found.default_version_number.and_then(|number| u64::try_from(number).ok());
        Ok(LaunchTemplate {
            id: TemplateId::from(found.launch_template_id.ok_or_else(missing)?),
            name: found.launch_template_name.unwrap_or_else(|| name_or_id.to_owned()),
            version: version.or(default).ok_or_else(missing)?,
            root: None,
        })
    }

    /// The root volume that the template's machines get. None if neither the template nor its image says what it is.
    ///
    /// # Errors
    /// If EC2 does not answer.
    pub async fn root_volume(&self, template: &LaunchTemplate) -> Result<Option<RootVolume>, ComputeError> {
        let Some(data) = image::template(&self.client, template).await.map_err(failed_ec2)? else { return Ok(None) };
        let Some(id) = &data.image_id else { return Ok(None) };
        let Some(image) = image::image(&self.client, id).await.map_err(failed_ec2)? else { return Ok(None) };
        let Some(device) = image.root_device_name else { return Ok(None) };
        let of_template = data.block_device_mappings.unwrap_or_default().into_iter();
        let of_template = of_template.filter(|it| it.device_name.as_ref() == Some(&device)).find_map(|it| it.ebs);
        let of_image = image.block_device_mappings.unwrap_or_default().into_iter();
        let of_image = of_image.filter(|it| it.device_name.as_ref() == Some(&device)).find_map(|it| it.ebs);
        let number = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
        let gib =
            of_template.as_ref().and_then(|it| it.volume_size).or(of_image.as_ref().and_then(|it| it.volume_size));
        let kind = of_template.as_ref().and_then(|it| it.volume_type.clone());
        let kind = kind.or(of_image.as_ref().and_then(|it| it.volume_type.clone())).unwrap_or(VolumeType::Gp3);
        Ok(Some(RootVolume {
            device,
            gib: number(gib).unwrap_or_default(),
            kind: kind.as_str().to_owned(),
            iops: number(of_template.as_ref().and_then(|it| it.iops)),
            throughput: number(of_template.as_ref().and_then(|it| it.throughput)),
            initialize_at: number(of_template.as_ref().and_then(|it| it.volume_initialization_rate)),
            kms_key: of_template.and_then(|it| it.kms_key_id),
        }))
    }

    /// The subnets tagged with the stack, ordered by zone, so that the order is the same for everyone.
    ///
    /// # Errors
    /// If EC2 does not answer.
    pub async fn tagged_subnets(&self) -> Result<Vec<SubnetId>, ComputeError> {
        let filter = Filter::builder().name("tag:drover:stack").values(self.stack.as_str()).build();
        let mut pages = self.client.describe_subnets().filters(filter).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let subnets = page.map_err(failed_ec2)?.subnets.unwrap_or_default();
            found.extend(subnets.into_iter().filter_map(|it| Some((it.availability_zone, it.subnet_id?))));
        }
        found.sort();
        Ok(found.into_iter().map(|(_, id)| SubnetId::from(id)).collect())
    }
}

fn observed(instance: aws_sdk_ec2::types::Instance) -> Option<ObservedInstance> {
    let tag = |key: &str| {
        let tags = instance.tags.iter().flatten();
        tags.filter(|tag| tag.key() == Some(key)).find_map(|tag| tag.value.clone())
    };
    let (pool, batch, hold) = (tag("drover:pool"), tag("drover:batch"), tag(HOLD).is_some());
    let state = match instance.state.as_ref().and_then(|state| state.name.as_ref()) {
        Some(InstanceStateName::Pending) => MachineState::Pending,
        Some(InstanceStateName::Running) => MachineState::Running,
        Some(InstanceStateName::Stopping) => MachineState::Stopping,
        Some(InstanceStateName::Stopped) => MachineState::Stopped,
        Some(InstanceStateName::ShuttingDown) => MachineState::ShuttingDown,
        Some(InstanceStateName::Terminated) => MachineState::Terminated,
        // A state that does not exist today. The instance exists, as far as is known.
        Some(_) | None => MachineState::Running,
    };
    Some(ObservedInstance {
        id: InstanceId::from(instance.instance_id?),
        state,
        launched_at: instance.launch_time.and_then(timestamp)?,
        image: instance.image_id.map(ImageId::from),
        pool: pool.and_then(|pool| pool.parse().ok()),
        batch: batch.and_then(|batch| batch.parse().ok()),
        hold,
        state_reason: instance.state_reason.and_then(|reason| {
            Some(StateReason { code: reason.code?, message: bounded(&reason.message.unwrap_or_default()) })
        }),
    })
}

fn timestamp(time: aws_smithy_types::DateTime) -> Option<Timestamp> {
    Timestamp::from_millisecond(time.to_millis().ok()?).ok()
}

#[async_trait]
impl Compute for Ec2 {
    async fn launch(&self, launch: &Launch) -> Result<Vec<Launched>, LaunchError> {
        let (tuple, tags) = (&launch.tuple, self.tags(&launch.tag));
        let template = LaunchTemplateSpecification::builder()
            .launch_template_id(tuple.template.as_str())
            .version(tuple.template_version.to_string())
            .build();
        let market = match tuple.market {
            Market::OnDemand => None,
            Market::Spot => Some(spot()),
        };
        let tagged = |kind| TagSpecification::builder().resource_type(kind).set_tags(Some(tags.clone())).build();
        let within = launch.within.clamp(MIN_TIMEOUT, LAUNCH_TIMEOUT).unsigned_abs();
        let answer = self
            .client
            .run_instances()
            .min_count(1)
            .max_count(i32::try_from(launch.count).unwrap_or(i32::MAX))
            .launch_template(template)
            .subnet_id(tuple.subnet.as_str())
            .instance_type(InstanceType::from(tuple.instance_type.as_str()))
            .set_instance_market_options(market)
            .set_block_device_mappings(tuple.root.as_ref().map(|root| vec![mapping(root)]))
            .client_token(launch.tag.token(&self.stack))
            .tag_specifications(tagged(ResourceType::Instance))
            .tag_specifications(tagged(ResourceType::Volume))
            .customize()
            .config_override(once(within))
            .send()
            .await
            .map_err(refused)?;
        let launched = answer.instances.unwrap_or_default().into_iter();
        Ok(launched
            .filter_map(|it| {
                let launched_at = it.launch_time.and_then(timestamp)?;
                Some(Launched { id: InstanceId::from(it.instance_id?), launched_at })
            })
            .collect())
    }

    async fn by_batch(&self, tag: &BatchTag) -> Result<Vec<ObservedInstance>, ComputeError> {
        self.tagged("drover:batch", tag.to_string()).await
    }

    async fn census(&self) -> Result<Vec<ObservedInstance>, ComputeError> {
        self.tagged("drover:stack", self.stack.to_string()).await
    }

    async fn instances(&self, ids: &[InstanceId]) -> Result<Vec<ObservedInstance>, ComputeError> {
        Ok(self.described(ids).await?.into_iter().filter_map(observed).collect())
    }

    async fn terminate(&self, permit: &TerminationPermit) -> Result<Terminated, ComputeError> {
        let instance = permit.instance();
        match self.client.terminate_instances().instance_ids(instance.as_str()).send().await {
            Ok(_) => Ok(Terminated::Ending),
            Err(error) if error.code() == Some("InvalidInstanceID.NotFound") => Ok(Terminated::NotFound),
            Err(error) => Err(failed_ec2(error)),
        }
    }

    async fn stop(&self, instance: &InstanceId, within: SignedDuration) -> Result<(), ComputeError> {
        let within = within.clamp(MIN_TIMEOUT, STOP_TIMEOUT).unsigned_abs();
        let stop = self.client.stop_instances().instance_ids(instance.as_str()).customize();
        stop.config_override(once(within)).send().await.map(drop).map_err(failed_ec2)
    }

    async fn start(&self, instances: &[InstanceId]) -> Result<(), ComputeError> {
        let ids = instances.iter().map(|id| id.as_str().to_owned()).collect();
        self.client.start_instances().set_instance_ids(Some(ids)).send().await.map(drop).map_err(failed_ec2)
    }

    async fn machines(&self, subnets: &BTreeSet<SubnetId>) -> Result<ObservedMachines, ComputeError> {
        ec2_machines::machines(&self.client, subnets).await
    }

    async fn spot_prices(
        &self,
        types: &BTreeSet<TypeName>,
        now: Timestamp,
    ) -> Result<Vec<ObservedPrice>, ComputeError> {
        ec2_machines::spot_prices(&self.client, types, now).await
    }

    async fn console(&self, id: &InstanceId) -> Result<Option<String>, ComputeError> {
        let read = |latest| self.client.get_console_output().instance_id(id.as_str()).latest(latest).send();
        let answer = match read(true).await {
            // Instance types without Nitro only have an older output.
            Err(error) if error.code() == Some("UnsupportedOperation") => read(false).await,
            answer => answer,
        };
        match answer {
            Ok(answer) => {
                let bytes = answer.output.and_then(|text| aws_smithy_types::base64::decode(text).ok());
                Ok(Some(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()))
            }
            Err(error) if error.code() == Some("InvalidInstanceID.NotFound") => Ok(None),
            Err(error) => Err(failed_ec2(error)),
        }
    }
}

/// One attempt with a time-out. The SDK would retry a launch that lacks capacity, which EC2 answers with 500, and lose seconds
/// in which another zone could serve. A repeated stop could arrive when the machine has been started again.
fn once(within: Duration) -> aws_sdk_ec2::config::Builder {
    let timeouts = TimeoutConfig::builder().operation_timeout(within).operation_attempt_timeout(within).build();
    aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled()).timeout_config(timeouts)
}

/// The whole mapping of the root device: EC2 replaces that of the launch template with it.
fn mapping(root: &RootVolume) -> BlockDeviceMapping {
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let volume = EbsBlockDevice::builder()
        .volume_size(number(root.gib))
        .volume_type(VolumeType::from(root.kind.as_str()))
        .set_iops(root.iops.map(number))
        .set_throughput(root.throughput.map(number))
        .set_volume_initialization_rate(root.initialize_at.map(number))
        .set_kms_key_id(root.kms_key.clone())
        .encrypted(true)
        .delete_on_termination(true)
        .build();
    BlockDeviceMapping::builder().device_name(&root.device).ebs(volume).build()
}

pub(crate) fn spot() -> InstanceMarketOptionsRequest {
    let options = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
        .build();
    InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).spot_options(options).build()
}

/// The class follows from the HTTP status and from whether the body has an EC2 code.
fn refused<E: ProvideErrorMetadata + std::error::Error + 'static>(error: SdkError<E>) -> LaunchError {
    let message = match error.as_service_error().and_then(ProvideErrorMetadata::message) {
        Some(message) => message.to_owned(),
        None => describe(&error),
    };
    match &error {
        SdkError::ServiceError(service) => {
            LaunchError::answered(service.raw().status().as_u16(), service.err().code(), &message)
        }
        SdkError::ResponseError(_) => LaunchError::unanswered("UnreadableAnswer", &message),
        SdkError::TimeoutError(_) => LaunchError::unanswered("TimedOut", &message),
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => LaunchError::unanswered("NotSent", &message),
        _ => LaunchError::unanswered("Unknown", &message),
    }
}
