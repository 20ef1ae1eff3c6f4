//! What the sandbox adds to the DynamoDB emulator.

use anyhow::ensure;
use sandbox::aws::{TABLE, access_key, dynamodb_request};
use sandbox::sandbox::{Driven, Options, Sandbox};
use serde_json::{Value, json};

/// Calls an operation as the scaler. Returns the status and the answer.
async fn call(sandbox: &Sandbox, operation: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let (key, target) = (access_key("scaler").unwrap_or_default(), format!("DynamoDB_20120810.{operation}"));
    let request = dynamodb_request(&reqwest::Client::new(), &sandbox.aws_url, &target, key);
    let answer = request.body(body.to_string()).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

/// A transaction that may be written once.
fn transaction(token: &str, key: &str) -> Value {
    let item = json!({ "pk": { "S": key }, "sk": { "S": "a" } });
    let put = json!({ "TableName": TABLE, "Item": item, "ConditionExpression": "attribute_not_exists(pk)" });
    json!({ "ClientRequestToken": token, "TransactItems": [{ "Put": put }] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_written_once_for_each_token() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await?;
    let write = "TransactWriteItems";
    let written = transaction("one", "a");
    let (status, first) = call(&sandbox, write, &written).await?;
    ensure!(status == 200, "{first}");
    assert_eq!(call(&sandbox, write, &written).await?, (200, first), "a repeated request gets the first answer");

    let (_, refused) = call(&sandbox, write, &transaction("two", "a")).await?;
    ensure!(refused.to_string().contains("ConditionalCheckFailed"), "another token is another transaction: {refused}");
    let (status, refused) = call(&sandbox, write, &transaction("one", "b")).await?;
    ensure!(status == 400 && refused.to_string().contains("IdempotentParameterMismatchException"), "{refused}");

    let mut anonymous = transaction("", "c");
    anonymous.as_object_mut().expect("an object").remove("ClientRequestToken");
    assert_eq!(call(&sandbox, write, &anonymous).await?.0, 200);
    let (status, refused) = call(&sandbox, write, &anonymous).await?;
    ensure!(status == 400 && refused.to_string().contains("ConditionalCheckFailed"), "it has no token: {refused}");
    Ok(())
}
