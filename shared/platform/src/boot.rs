//! A machine's one read: its boot item.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use domain::state::BootItem;

use crate::aws::describe;

/// The boot table, as a runner's machine sees it: its own key, once.
#[derive(Debug, Clone)]
pub struct BootTable {
    dynamodb: aws_sdk_dynamodb::Client,
    sts: aws_sdk_sts::Client,
    name: String,
}

/// The boot item could not be asked for, or not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BootError(String);

impl BootTable {
    /// The table of that name. Makes no call.
    pub fn new(aws: &SdkConfig, name: String) -> Self {
        Self { dynamodb: aws_sdk_dynamodb::Client::new(aws), sts: aws_sdk_sts::Client::new(aws), name }
    }

    /// This machine's key: the `UserId` of its role, `<role id>:<instance id>`. Needs no permission.
    ///
    /// # Errors
    /// When STS does not answer.
    pub async fn key(&self) -> Result<String, BootError> {
        let identity = self.sts.get_caller_identity().send().await;
        let identity =
            identity.map_err(|error| BootError(format!("cannot ask STS who we are: {}", describe(&error))))?;
        identity.user_id.ok_or_else(|| BootError("STS did not say who we are".to_owned()))
    }

    /// Takes the boot item: DynamoDB deletes it and returns it in one step. None if it is not there yet.
    ///
    /// # Errors
    /// When DynamoDB does not answer (the item may be gone then: the control plane sees a boot failure), or with
    /// something that is no boot item.
    pub async fn take(&self, key: &str) -> Result<Option<BootItem>, BootError> {
        let taken = self
            .dynamodb
            .delete_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(key.to_owned()))
            .return_values(ReturnValue::AllOld)
            .send()
            .await
            .map_err(|error| BootError(format!("cannot take the boot item: {}", describe(&error))))?;
        let Some(item) = taken.attributes else { return Ok(None) };
        serde_dynamo::from_item(item)
            .map(Some)
            .map_err(|error| BootError(format!("the boot item {key} is none that this agent understands: {error}")))
    }
}

/// The machine's metadata service, as far as it announces the machine's end.
#[derive(Debug, Clone)]
pub struct SpotNotice {
    imds: aws_config::imds::Client,
}

impl SpotNotice {
    /// Makes no call.
    pub fn new(aws: &SdkConfig) -> Self {
        let mut provider = aws_config::provider_config::ProviderConfig::without_region();
        if let Some(http) = aws.http_client() {
            provider = provider.with_http_client(http);
        }
        Self { imds: aws_config::imds::Client::builder().configure(&provider).max_attempts(1).build() }
    }

    /// EC2's notice that it takes the machine back, as it writes it; None as long as there is none, which is also said of a
    /// metadata service that does not answer: it is best effort by EC2's own words.
    pub async fn read(&self) -> Option<String> {
        let notice = self.imds.get("/latest/meta-data/spot/instance-action").await.ok()?;
        Some(notice.as_ref().to_owned())
    }
}
