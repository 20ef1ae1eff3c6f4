//! Reads the parts of the AWS account that `drover` shows. The only write is a new value of a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::{
    Filter, ImageState, InstanceType, LaunchTemplateSpecification, ResourceType, ShutdownBehavior, Tag,
    TagSpecification,
};
use aws_sdk_sqs::types::QueueAttributeName;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use domain::config::{LaunchTemplate, Market, Tuple};
use domain::ids::{InstanceType as TypeName, StackName, SubnetId};
use domain::policy::launch_error::is_throttling;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::aws::{CallError, ErrorKind, causes};
use crate::clock::ahead;
use crate::ec2::spot;
use crate::image;
use crate::quotas::Quota;

/// GitHub waits this long for an answer of ingest.
const INGEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A question to AWS without a usable answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Unanswered {
    /// AWS's error code. None if AWS did not answer.
    pub code: Option<String>,
    /// Code and message, or what failed before AWS could answer.
    pub message: String,
    pub kind: ErrorKind,
}

impl Unanswered {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { code: None, message: message.into(), kind }
    }

    /// Whether AWS throttles the call.
    pub fn is_throttled(&self) -> bool {
        self.code.as_deref().is_some_and(is_throttling)
    }
}

pub(crate) fn unanswered<E: ProvideErrorMetadata + std::error::Error + 'static>(error: E) -> Unanswered {
    let error = CallError::of(&error);
    Unanswered { kind: error.kind, message: error.to_string(), code: error.code }
}

/// EC2 accepts two RunInstances calls per second from an account, and the scaler launches with the same ones.
fn patient() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(7).with_initial_backoff(Duration::from_millis(500))
}

/// The caller's identity, and the difference between AWS's clock and the local clock.
#[derive(Debug, Clone)]
pub struct Identity {
    /// ARN of the role or user.
    pub arn: String,
    /// How far AWS's clock is ahead of the local clock.
    pub clock_ahead: Option<SignedDuration>,
}

/// The content of a launch template's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFacts {
    /// The image's id, with an alias resolved.
    pub image: Option<String>,
    /// Whether an instance that powers itself off is terminated.
    pub ends_by_power_off: bool,
    /// The KMS key of a volume, if the template names one.
    pub volume_key: Option<String>,
}

/// The key that AWS manages, which every principal of the account may use through EC2.
pub const AWS_VOLUME_KEY: &str = "alias/aws/ebs";

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Whether machines can be launched from it.
    pub available: bool,
    /// `x86_64` or `arm64`.
    pub architecture: Option<String>,
    pub created_at: Option<Timestamp>,
    /// Version of the runner in the image, from the tag that `make build-image` sets.
    pub runner: Option<String>,
    /// Version of the agent in the image, from a tag too.
    pub agent: Option<String>,
    /// When GitHub published that runner, from a tag too.
    pub runner_released_at: Option<Timestamp>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetFacts {
    pub id: SubnetId,
    /// Free addresses.
    pub free: u32,
}

/// The number of messages in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    pub waiting: u64,
    /// Received and not deleted yet.
    pub in_flight: u64,
}

/// Reads the account.
#[derive(Debug, Clone)]
pub struct Inspect {
    ec2: aws_sdk_ec2::Client,
    sqs: aws_sdk_sqs::Client,
    secrets: aws_sdk_secretsmanager::Client,
    sts: aws_sdk_sts::Client,
    quotas: aws_sdk_servicequotas::Client,
    region: Option<String>,
}

impl Inspect {
    /// Makes no call.
    pub fn new(aws: &SdkConfig) -> Self {
        Self {
            ec2: aws_sdk_ec2::Client::new(aws),
            sqs: aws_sdk_sqs::Client::new(aws),
            secrets: aws_sdk_secretsmanager::Client::new(aws),
            sts: aws_sdk_sts::Client::new(aws),
            quotas: aws_sdk_servicequotas::Client::new(aws),
            region: aws.region().map(ToString::to_string),
        }
    }

    /// The configured region, if any.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// The caller's identity.
    ///
    /// # Errors
    /// If AWS does not answer, because there are no credentials or they have expired, for example.
    pub async fn identity(&self) -> Result<Identity, Unanswered> {
        let date = AnswerDate::default();
        let asked = self.sts.get_caller_identity().customize().interceptor(date.clone()).send().await;
        let arn = asked.map_err(unanswered)?.arn.unwrap_or_default();
        Ok(Identity { arn, clock_ahead: date.ahead() })
    }

    /// The content of a pool's launch template.
    ///
    /// # Errors
    /// If the version does not exist, or EC2 does not answer.
    pub async fn template(&self, template: &LaunchTemplate) -> Result<TemplateFacts, Unanswered> {
        let found = image::template(&self.ec2, template).await.map_err(unanswered)?;
        let missing = || format!("there is no version {} of launch template {}", template.version, template.name);
        let data = found.ok_or_else(|| Unanswered::new(ErrorKind::NotFound, missing()))?;
        Ok(TemplateFacts {
            volume_key: data.block_device_mappings.iter().flatten().find_map(|it| it.ebs.as_ref()?.kms_key_id.clone()),
            image: data.image_id,
            ends_by_power_off: data.instance_initiated_shutdown_behavior == Some(ShutdownBehavior::Terminate),
        })
    }

    /// The account's default KMS key for volumes: an ARN, or [`AWS_VOLUME_KEY`].
    ///
    /// # Errors
    /// If EC2 does not answer.
    pub async fn default_volume_key(&self) -> Result<String, Unanswered> {
        let answer = self.ec2.get_ebs_default_kms_key_id().send().await.map_err(unanswered)?;
        Ok(answer.kms_key_id.unwrap_or_default())
    }

    /// The number of vCPUs of each of the instance types that EC2 has in this region.
    ///
    /// # Errors
    /// If EC2 does not answer.
    pub async fn vcpus(&self, types: &BTreeSet<&TypeName>) -> Result<BTreeMap<TypeName, u32>, Unanswered> {
        // With a filter, because a call that names an unknown type fails for all of them.
        let names = types.iter().map(|it| it.as_str().to_owned()).collect();
        let filter = Filter::builder().name("instance-type").set_values(Some(names)).build();
        let mut pages = self.ec2.describe_instance_types().filters(filter).into_paginator().send();
        let mut found = BTreeMap::new();
        while let Some(page) = pages.next().await {
            found.extend(page.map_err(unanswered)?.instance_types.into_iter().flatten().filter_map(|it| {
                let vcpus = u32::try_from(it.v_cpu_info?.default_v_cpus?).ok()?;
                Some((TypeName::from(it.instance_type?.as_str()), vcpus))
            }));
        }
        Ok(found)
    }

    /// The account's value of a quota. None if Service Quotas has none.
    ///
    /// # Errors
    /// If Service Quotas does not answer.
    pub async fn quota(&self, quota: Quota) -> Result<Option<f64>, Unanswered> {
        let (service, code) = quota.codes();
        let answer = self.quotas.get_service_quota().service_code(service).quota_code(code).send().await;
        match answer.map_err(unanswered) {
            Ok(answer) => Ok(answer.quota.and_then(|quota| quota.value)),
            Err(error) if error.code.as_deref() == Some("NoSuchResourceException") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An image. None if it does not exist.
    ///
    /// # Errors
    /// If EC2 does not answer.
    pub async fn image(&self, id: &str) -> Result<Option<ImageFacts>, Unanswered> {
        let found = image::image(&self.ec2, id).await.map_err(unanswered)?;
        Ok(found.map(|image| ImageFacts {
            available: image.state == Some(ImageState::Available),
            architecture: image.architecture.as_ref().map(|it| it.as_str().to_owned()),
            created_at: image::created_at(&image),
            runner: image::tagged(&image, "drover:runner").map(ToOwned::to_owned),
            agent: image::tagged(&image, "drover:agent").map(ToOwned::to_owned),
            runner_released_at: image::runner_released_at(&image),
        }))
    }

    /// Those of the subnets that exist.
    ///
    /// # Errors
    /// If EC2 does not answer.
    pub async fn subnets(&self, ids: &[&SubnetId]) -> Result<Vec<SubnetFacts>, Unanswered> {
        // With a filter, because a call that names a missing subnet fails for all of them.
        let these = ids.iter().map(|id| id.to_string()).collect();
        let filter = Filter::builder().name("subnet-id").set_values(Some(these)).build();
        let mut pages = self.ec2.describe_subnets().filters(filter).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let subnets = page.map_err(unanswered)?.subnets.unwrap_or_default();
            found.extend(subnets.into_iter().filter_map(|subnet| {
                let free = u32::try_from(subnet.available_ip_address_count.unwrap_or_default()).unwrap_or_default();
                Some(SubnetFacts { id: SubnetId::from(subnet.subnet_id?), free })
            }));
        }
        Ok(found)
    }

    /// Whether EC2 would accept a launch, by a dry run in the caller's name, not the scaler's. A dry run does not check
    /// capacity. The tag of the stack is the one that the policies of the scaler and of operators require. Throttled dry runs
    /// are repeated for about a quarter of a minute.
    ///
    /// # Errors
    /// Why EC2 would not accept it.
    pub async fn try_launch(&self, stack: &StackName, tuple: &Tuple) -> Result<(), Unanswered> {
        let template = LaunchTemplateSpecification::builder()
            .launch_template_id(tuple.template.as_str())
            .version(tuple.template_version.to_string())
            .build();
        let market = match tuple.market {
            Market::OnDemand => None,
            Market::Spot => Some(spot()),
        };
        let tag = Tag::builder().key("drover:stack").value(stack.to_string()).build();
        let tagged = |kind| TagSpecification::builder().resource_type(kind).tags(tag.clone()).build();
        let answer = self
            .ec2
            .run_instances()
            .dry_run(true)
            .min_count(1)
            .max_count(1)
            .launch_template(template)
            .subnet_id(tuple.subnet.as_str())
            .instance_type(InstanceType::from(tuple.instance_type.as_str()))
            .set_instance_market_options(market)
            .tag_specifications(tagged(ResourceType::Instance))
            .tag_specifications(tagged(ResourceType::Volume))
            .customize()
            .config_override(aws_sdk_ec2::config::Builder::new().retry_config(patient()))
            .send()
            .await;
        match answer {
            Err(error) if error.code() == Some("DryRunOperation") => Ok(()),
            Err(error) => Err(unanswered(error)),
            Ok(_) => Err(Unanswered::new(ErrorKind::Unavailable, "EC2 answered a dry run like a launch")),
        }
    }

    /// The number of messages in a queue.
    ///
    /// # Errors
    /// If SQS does not answer.
    pub async fn queue(&self, url: &str) -> Result<Depth, Unanswered> {
        Ok(self.depth(url).await?.0)
    }

    /// The number of dead letters of a queue. None if the queue has no dead-letter queue.
    ///
    /// # Errors
    /// If SQS does not answer.
    pub async fn dead_letters(&self, url: &str) -> Result<Option<Depth>, Unanswered> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Policy {
            dead_letter_target_arn: String,
        }
        let policy = self.depth(url).await?.1;
        let Some(policy) = policy.and_then(|policy| serde_json::from_str::<Policy>(&policy).ok()) else {
            return Ok(None);
        };
        let mut parts = policy.dead_letter_target_arn.rsplit(':');
        let (name, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let ask = self.sqs.get_queue_url().queue_name(name).queue_owner_aws_account_id(account);
        let url = ask.send().await.map_err(unanswered)?.queue_url.unwrap_or_default();
        Ok(Some(self.depth(&url).await?.0))
    }

    async fn depth(&self, url: &str) -> Result<(Depth, Option<String>), Unanswered> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Waiting, ApproximateNumberOfMessagesNotVisible as InFlight, RedrivePolicy,
        };
        let ask = self.sqs.get_queue_attributes().queue_url(url);
        let ask = ask.attribute_names(Waiting).attribute_names(InFlight).attribute_names(RedrivePolicy);
        let said = ask.send().await.map_err(unanswered)?.attributes.unwrap_or_default();
        let number = |name| said.get(&name).and_then(|text| text.parse().ok()).unwrap_or_default();
        let depth = Depth { waiting: number(Waiting), in_flight: number(InFlight) };
        Ok((depth, said.get(&RedrivePolicy).cloned()))
    }

    /// Whether a secret has a value. Does not read the value.
    ///
    /// # Errors
    /// If the secret does not exist, or Secrets Manager does not answer.
    pub async fn is_filled(&self, secret: &str) -> Result<bool, Unanswered> {
        let asked = self.secrets.describe_secret().secret_id(secret).send().await.map_err(unanswered)?;
        let stages = asked.version_ids_to_stages.unwrap_or_default();
        Ok(stages.values().flatten().any(|stage| stage == "AWSCURRENT"))
    }

    /// Gives a secret a new value. The old value becomes the previous version.
    ///
    /// # Errors
    /// If Secrets Manager does not confirm it.
    pub async fn fill(&self, secret: &str, text: &str) -> Result<(), Unanswered> {
        let put = self.secrets.put_secret_value().secret_id(secret).secret_string(text);
        put.send().await.map(drop).map_err(unanswered)
    }
}

/// The status that ingest answers to an unsigned request. It is 401 if ingest works and can read its secret.
///
/// # Errors
/// If nothing answers at the address.
pub async fn unsigned(webhook_url: &str) -> Result<u16, Unanswered> {
    let failed = |error: reqwest::Error| Unanswered::new(ErrorKind::Unavailable, causes(&error.without_url()));
    let http = reqwest::Client::builder().timeout(INGEST_TIMEOUT).build().map_err(failed)?;
    let asked = http.post(webhook_url).header("x-github-event", "ping").body("{}").send().await;
    Ok(asked.map_err(failed)?.status().as_u16())
}

/// Reads AWS's clock from the header `date` of an answer. The SDK uses the header to correct its signatures, but does not
/// report it.
#[derive(Debug, Clone, Default)]
struct AnswerDate(Arc<Mutex<Option<SignedDuration>>>);

impl AnswerDate {
    fn ahead(&self) -> Option<SignedDuration> {
        *self.0.lock().expect("no thread panics while it holds the lock")
    }
}

impl Intercept for AnswerDate {
    fn name(&self) -> &'static str {
        "AnswerDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let ahead = context.response().headers().get("date").and_then(ahead);
        *self.0.lock().expect("no thread panics while it holds the lock") = ahead;
        Ok(())
    }
}
