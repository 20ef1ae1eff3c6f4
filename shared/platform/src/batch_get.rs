//! Reading several items in one call, which is repeated for those that DynamoDB left out.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemError;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};

use crate::aws::{CallError, ErrorKind};

/// DynamoDB's limit for one BatchGetItem.
pub(crate) const KEYS_PER_CALL: usize = 100;

/// How long a throttled call waits before it is repeated; doubled each time up to [`LONGEST_WAIT`], 1.5 s in all.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(100);

/// See [`FIRST_WAIT`].
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(800);

/// Reads these items of the table, at most [`KEYS_PER_CALL`]. DynamoDB leaves some out if it throttles, or if they are larger
/// than 16 MB together.
///
/// # Errors
/// If DynamoDB does not answer for all of the keys.
pub(crate) async fn batch_get(
    client: &Client,
    table: &str,
    keys: KeysAndAttributes,
) -> Result<Vec<HashMap<String, AttributeValue>>, CallError> {
    let mut items = Vec::new();
    let mut wait = FIRST_WAIT;
    let mut pending = HashMap::from([(table.to_owned(), keys)]);
    loop {
        let answer = client.batch_get_item().set_request_items(Some(pending)).send().await;
        let answer = answer.map_err(CallError::from_sdk::<SdkError<BatchGetItemError>>)?;
        let before = items.len();
        items.extend(answer.responses.unwrap_or_default().into_values().flatten());
        match answer.unprocessed_keys.filter(|left| !left.is_empty()) {
            None => return Ok(items),
            Some(left) => pending = left,
        }
        if items.len() > before {
            continue;
        }
        if wait > LONGEST_WAIT {
            let message = "DynamoDB keeps leaving out keys of a BatchGetItem".to_owned();
            return Err(CallError::new(ErrorKind::Unavailable, message));
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
}
