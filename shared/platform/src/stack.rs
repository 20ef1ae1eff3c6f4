//! The outputs of a CloudFormation stack.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_cloudformation::Client;
use aws_sdk_cloudformation::error::ProvideErrorMetadata;
use domain::ids::StackName;

use crate::inspect::{Unanswered, unanswered};

/// The stack's outputs, by name. None if the stack does not exist.
///
/// # Errors
/// If CloudFormation does not answer.
pub async fn outputs(aws: &SdkConfig, stack: &StackName) -> Result<Option<BTreeMap<String, String>>, Unanswered> {
    let answer = match Client::new(aws).describe_stacks().stack_name(stack.as_str()).send().await {
        // CloudFormation has no code of its own for it.
        Err(error) if error.message().is_some_and(|message| message.contains("does not exist")) => return Ok(None),
        answer => answer.map_err(unanswered)?,
    };
    let stack = answer.stacks.unwrap_or_default().into_iter().next();
    let outputs = stack.into_iter().flat_map(|stack| stack.outputs.unwrap_or_default());
    Ok(Some(outputs.filter_map(|output| Some((output.output_key?, output.output_value?))).collect()))
}
