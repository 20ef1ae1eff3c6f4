//! The reports table. Each machine writes its own item there and can read none; the janitor reads.

use std::collections::{BTreeMap, HashMap};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use domain::state::{BootReport, KEEP_REPORTS, StoredReport, Usage};
use jiff::Timestamp;

use crate::aws::{CallError, ErrorKind};
use crate::batch_get::{KEYS_PER_CALL, batch_get};

/// The attributes of a report, apart from its key. The role of the machines may write these and no others.
const REPORTED_AT: &str = "reported_at";
const UPTIME_SECONDS: &str = "uptime_seconds";
const PREPARED_AT: &str = "prepared_at";
/// `usage` is a reserved word of DynamoDB.
const USAGE: &str = "job_usage";
const EXPIRES_AT: &str = "expires_at";

/// The reports table.
#[derive(Debug, Clone)]
pub struct ReportsTable {
    client: aws_sdk_dynamodb::Client,
    name: String,
}

impl ReportsTable {
    /// The table with this name. Makes no call.
    pub fn new(aws: &SdkConfig, name: String) -> Self {
        Self { client: aws_sdk_dynamodb::Client::new(aws), name }
    }

    /// Writes the report of the machine with this key. May be repeated.
    ///
    /// # Errors
    /// If DynamoDB does not confirm the write.
    pub async fn write(&self, key: &str, report: &BootReport) -> Result<(), CallError> {
        let stored = report.stored();
        let expires_at = (report.reported_at + KEEP_REPORTS).as_second().to_string();
        let number = |text: String| AttributeValue::N(text);
        let mut set =
            format!("SET {REPORTED_AT} = :reported_at, {UPTIME_SECONDS} = :uptime, {EXPIRES_AT} = :expires_at");
        if stored.prepared_at.is_some() {
            set += &format!(", {PREPARED_AT} = :prepared_at");
        }
        let write = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(key.to_owned()))
            .update_expression(set)
            .expression_attribute_values(":reported_at", AttributeValue::S(stored.reported_at.unwrap_or_default()))
            .expression_attribute_values(":uptime", number(stored.uptime_seconds.unwrap_or_default()))
            .expression_attribute_values(":expires_at", number(expires_at));
        let write = match stored.prepared_at {
            Some(time) => write.expression_attribute_values(":prepared_at", AttributeValue::S(time)),
            None => write,
        };
        write.send().await.map(drop).map_err(CallError::from_sdk)
    }

    /// Writes what the job of the machine with this key used. May be repeated.
    ///
    /// # Errors
    /// If DynamoDB does not confirm the write.
    pub async fn write_usage(&self, key: &str, usage: &Usage, now: Timestamp) -> Result<(), CallError> {
        let expires_at = (now + KEEP_REPORTS).as_second().to_string();
        let write = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("pk", AttributeValue::S(key.to_owned()))
            .update_expression(format!("SET {USAGE} = :usage, {EXPIRES_AT} = :expires_at"))
            .expression_attribute_values(":usage", AttributeValue::S(usage.text()))
            .expression_attribute_values(":expires_at", AttributeValue::N(expires_at));
        write.send().await.map(drop).map_err(CallError::from_sdk)
    }

    /// The reports under these keys, which may have been written a second ago. Missing ones are left out, and so is every
    /// attribute that is no part of a report.
    ///
    /// # Errors
    /// If DynamoDB does not answer for all of the keys.
    pub async fn read(&self, keys: &[String]) -> Result<BTreeMap<String, StoredReport>, CallError> {
        let mut reports = BTreeMap::new();
        for some in keys.chunks(KEYS_PER_CALL) {
            let key = |key: &String| HashMap::from([("pk".to_owned(), AttributeValue::S(key.clone()))]);
            let all = KeysAndAttributes::builder()
                .set_keys(Some(some.iter().map(key).collect()))
                .projection_expression(format!("pk, {REPORTED_AT}, {UPTIME_SECONDS}, {PREPARED_AT}, {USAGE}"))
                .build()
                .map_err(|error| CallError::new(ErrorKind::Unavailable, error.to_string()))?;
            let items = batch_get(&self.client, &self.name, all).await?.into_iter();
            reports.extend(items.filter_map(|item| Some((item.get("pk")?.as_s().ok()?.clone(), stored(&item)))));
        }
        Ok(reports)
    }
}

fn stored(item: &HashMap<String, AttributeValue>) -> StoredReport {
    StoredReport {
        reported_at: item.get(REPORTED_AT).and_then(|value| value.as_s().ok()).cloned(),
        uptime_seconds: item.get(UPTIME_SECONDS).and_then(|value| value.as_n().ok()).cloned(),
        // A missing one is nothing unusual, so another type must not look like that.
        prepared_at: item.get(PREPARED_AT).map(|value| value.as_s().cloned().unwrap_or_default()),
        usage: item.get(USAGE).map(|value| value.as_s().cloned().unwrap_or_default()),
    }
}
