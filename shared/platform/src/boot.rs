//! What the agent reads on a machine: the boot item and EC2's interruption notice.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::types::AttributeValue;
use domain::state::BootItem;

use crate::aws::{self, AwsError, describe};
use crate::reports::ReportsTable;

/// The boot table. A machine may read and delete only the item of its own key.
#[derive(Debug, Clone)]
pub struct BootTable {
    dynamodb: aws_sdk_dynamodb::Client,
    sts: aws_sdk_sts::Client,
    name: String,
}

/// The boot item could not be read or deleted.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BootError(String);

/// What a machine may use.
#[derive(Debug)]
pub struct Clients {
    /// The AWS region of this machine.
    pub region: String,
    pub boot: BootTable,
    /// None if the stack has no reports table.
    pub reports: Option<ReportsTable>,
    pub spot: SpotNotice,
}

/// The clients of this machine: its tables and its metadata service. None if no region is known: neither `AWS_REGION` nor
/// the metadata service names one. The SDK looks for a region only when it is configured, so that later calls would fail
/// for ever.
///
/// # Errors
/// If AWS cannot be configured.
pub async fn clients(boot_table: &str, reports_table: Option<&str>) -> Result<Option<Clients>, AwsError> {
    let aws = aws::config().await?;
    Ok(aws.region().map(|region| Clients {
        region: region.to_string(),
        boot: BootTable::new(&aws, boot_table.to_owned()),
        reports: reports_table.map(|name| ReportsTable::new(&aws, name.to_owned())),
        spot: SpotNotice::new(&aws),
    }))
}

impl BootTable {
    /// The table with this name. Makes no call.
    pub fn new(aws: &SdkConfig, name: String) -> Self {
        Self { dynamodb: aws_sdk_dynamodb::Client::new(aws), sts: aws_sdk_sts::Client::new(aws), name }
    }

    /// This machine's key: the `UserId` of the role's session, `<role id>:<instance id>`. The call needs no permission.
    ///
    /// # Errors
    /// If STS does not answer.
    pub async fn key(&self) -> Result<String, BootError> {
        let identity = self.sts.get_caller_identity().send().await;
        let identity = identity.map_err(|error| {
            BootError(format!("cannot read this machine's identity from STS: {}", describe(&error)))
        })?;
        identity.user_id.ok_or_else(|| BootError("STS returned no user id".to_owned()))
    }

    /// The boot item. None if it does not exist yet. Reading and deleting are two calls, because a delete that returns the
    /// item cannot be repeated: if its answer is lost, so is the item.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or the item has an unknown form.
    pub async fn read(&self, key: &str) -> Result<Option<BootItem>, BootError> {
        let read = self
            .dynamodb
            .get_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(key.to_owned()))
            .send()
            .await
            .map_err(|error| BootError(format!("cannot read the boot item: {}", describe(&error))))?;
        let Some(item) = read.item else { return Ok(None) };
        serde_dynamo::from_item(item)
            .map(Some)
            .map_err(|error| BootError(format!("the boot item {key} has an unknown form: {error}")))
    }

    /// Deletes the boot item, so that nothing on the machine can read it again. May be repeated.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn delete(&self, key: &str) -> Result<(), BootError> {
        let delete = self.dynamodb.delete_item().table_name(&self.name).key("pk", AttributeValue::S(key.to_owned()));
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(BootError(format!("cannot delete the boot item: {}", describe(&error)))),
        }
    }
}

/// EC2's notice that it will reclaim the machine, from the machine's metadata service.
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

    /// The text of the notice; None if there is none. A metadata service that does not answer counts as no notice: EC2
    /// gives the notice on a best-effort basis.
    pub async fn read(&self) -> Option<String> {
        let notice = self.imds.get("/latest/meta-data/spot/instance-action").await.ok()?;
        Some(notice.as_ref().to_owned())
    }
}
