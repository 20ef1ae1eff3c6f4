//! AWS on one address: EC2 and SQS on models, DynamoDB on an emulator, and what Drover uses of Secrets Manager, Service
//! Quotas, CloudFormation and STS.
//!
//! Signatures are not verified. The access key identifies the caller, and each caller may call exactly what its policies
//! allow.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{self, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use engine::ports::Clock;
use jiff::Timestamp;
use lru::LruCache;
use platform::clock::SystemClock;
use serde_json::{Value, json};
use world::sqs::{Failure, Received};

use crate::calls::Calls;
use crate::ec2::{self, xml};
use crate::ec2_form::{Form, escaped};
pub use crate::names::{ACCOUNT, BOOT_TABLE, REGION, REPORTS_TABLE, RUNNER_ROLE_ID, STACK, TABLE};
use crate::permissions::{Access, Caller, accesses, allows};
use crate::quotas;
use crate::state::{State, World};

/// An access key whose session has expired.
pub const EXPIRED_ACCESS_KEY: &str = "ASIAEXPIRED";

/// The roles and their access keys.
const ACCESS_KEYS: [(&str, &str); 4] =
    [("ingest", "AKIAINGEST"), ("scaler", "AKIASCALER"), ("janitor", "AKIAJANITOR"), ("operator", "AKIAOPERATOR")];

/// Each transaction and its answer, by its token.
type Transactions = LruCache<String, (Bytes, http::Response<Bytes>)>;

/// How many transactions are kept for requests that repeat one.
const KEPT_TRANSACTIONS: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// What the endpoint needs to answer.
#[derive(Debug)]
pub struct Gateway {
    world: Arc<World>,
    calls: Arc<Calls>,
    /// URL of the DynamoDB emulator.
    dynamodb: String,
    http: reqwest::Client,
    transactions: Mutex<Transactions>,
}

/// The access key of a role.
pub fn access_key(role: &str) -> Option<&'static str> {
    ACCESS_KEYS.iter().find(|(name, _)| *name == role).map(|(_, key)| *key)
}

/// The access key of a machine. It encodes the instance id, which a real machine has in its session name.
pub fn instance_access_key(instance: &str) -> String {
    format!("ASIA{}", hex::encode_upper(instance))
}

/// The routes.
pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new().fallback(post(answer)).with_state(gateway)
}

/// Access key and region of a signature: `AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/...`.
fn scope(headers: &HeaderMap) -> (&str, &str) {
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = authorization.split_once("Credential=").map(|(_, rest)| rest.split('/')).into_iter().flatten();
    (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default())
}

/// The owner of an access key.
fn caller(key: &str) -> Caller {
    if let Some((role, _)) = ACCESS_KEYS.iter().find(|(_, own)| *own == key) {
        return Caller::Role(role);
    }
    let instance = key.strip_prefix("ASIA").and_then(|id| String::from_utf8(hex::decode(id).ok()?).ok());
    instance.map_or(Caller::Unknown, Caller::Instance)
}

async fn answer(Shared(gateway): Shared<Arc<Gateway>>, headers: HeaderMap, body: Bytes) -> Response {
    let (key, region) = scope(&headers);
    let caller = caller(key);
    let token = headers.get("x-amz-security-token").and_then(|token| token.to_str().ok()).unwrap_or_default();
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match target.rsplit_once('.') {
        Some((service, operation)) => {
            let (service, prefix) = match service {
                "DynamoDB_20120810" => ("DynamoDB", "dynamodb"),
                "AmazonSQS" => ("SQS", "sqs"),
                "secretsmanager" => ("Secrets Manager", "secretsmanager"),
                "ServiceQuotasV20190624" => ("Service Quotas", "servicequotas"),
                _ => return refused("UnknownOperationException", "The sandbox does not have this service."),
            };
            let body_json: Value = serde_json::from_slice(&body).unwrap_or_default();
            let reply = async {
                if caller == Caller::Unknown {
                    return unknown_caller(key);
                }
                if !is_allowed(&gateway, &caller, &accesses(prefix, operation, &body_json)) {
                    return refused("AccessDeniedException", &format!("{caller} may not call {operation}"));
                }
                if region != REGION {
                    return no_resources(service);
                }
                match service {
                    "DynamoDB" if operation == "TransactWriteItems" && throttles(&gateway) => throttled(&body_json),
                    "DynamoDB" if gateway.calls.measures(&caller) => {
                        gateway.measured(target, operation, &body_json).await
                    }
                    "DynamoDB" => gateway.forward(target, body.clone()).await,
                    "SQS" => {
                        let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
                        gateway.world.act(|state, now| sqs(state, host, operation, &body_json, now))
                    }
                    "Service Quotas" => {
                        gateway.world.look(|state| match quotas::quota(&state.quotas, operation, &body_json) {
                            Some(quota) => reply(quota),
                            None => refused(
                                "NoSuchResourceException",
                                "The request failed because the specified quota does not exist.",
                            ),
                        })
                    }
                    _ => gateway.world.act(|state, now| secrets(state, operation, &body_json, now)),
                }
            };
            let answer = gateway.calls.answer(&caller, token, service, operation, reply).await;
            gateway.world.touch();
            answer
        }
        None => {
            let form: Form = form_urlencoded::parse(&body).into_owned().collect();
            let operation = form.get("Action").cloned().unwrap_or_default();
            let service = match operation.as_str() {
                "GetCallerIdentity" => "STS",
                "DescribeStacks" => "CloudFormation",
                _ => "EC2",
            };
            let reply = async {
                if caller == Caller::Unknown {
                    return unknown_query_caller(service, key);
                }
                match service {
                    "STS" => return identity(&caller),
                    "CloudFormation" => {
                        let name = form.get("StackName").map(String::as_str).unwrap_or_default();
                        let is_here = name == STACK && region == REGION;
                        return gateway.world.look(|state| stacks(name, is_here.then_some(&state.outputs)));
                    }
                    _ => {}
                }
                if !is_allowed(&gateway, &caller, &accesses("ec2", &operation, &Value::Null)) {
                    let message = format!("{caller} may not call {operation}");
                    return xml(
                        StatusCode::FORBIDDEN,
                        format!(
                            "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>{}</Message></Error>\
                             </Errors><RequestID>sandbox</RequestID></Response>",
                            escaped(&message)
                        ),
                    );
                }
                if operation == "GetEbsDefaultKmsKeyId" {
                    return gateway.world.look(|state| default_volume_key(&state.volume_key));
                }
                gateway.world.act(|state, now| ec2::answer(&mut state.ec2, &mut state.root_volumes, &form, now))
            };
            let answer = gateway.calls.answer(&caller, token, service, &operation, reply).await;
            gateway.world.touch();
            answer
        }
    }
}

/// Whether the caller's policies allow a call. Records the call's actions if they do.
fn is_allowed(gateway: &Gateway, caller: &Caller, accesses: &[Access]) -> bool {
    let is_denied = |state: &State| accesses.iter().any(|access| state.denied.contains(access.action.as_str()));
    let allowed = allows(caller, accesses) && !gateway.world.look(is_denied);
    if let (true, Caller::Role(role)) = (allowed, caller) {
        gateway.calls.record_actions(role, accesses.iter().map(|access| access.action.clone()));
    }
    allowed
}

fn reply(body: Value) -> Response {
    (StatusCode::OK, [("content-type", "application/x-amz-json-1.0")], body.to_string()).into_response()
}

fn refused(code: &str, message: &str) -> Response {
    let body = json!({ "__type": code, "message": message, "Message": message });
    (StatusCode::BAD_REQUEST, [("content-type", "application/x-amz-json-1.0")], body.to_string()).into_response()
}

/// The answer to a signature with an unknown or expired access key.
fn unknown_caller(key: &str) -> Response {
    match key {
        EXPIRED_ACCESS_KEY => refused("ExpiredTokenException", "The security token included in the request is expired"),
        _ => refused("UnrecognizedClientException", "The security token included in the request is invalid."),
    }
}

/// The same of the services with XML. EC2 has a code of its own.
fn unknown_query_caller(service: &str, key: &str) -> Response {
    let (code, message) = match (service, key) {
        (_, EXPIRED_ACCESS_KEY) => ("ExpiredToken", "The security token included in the request is expired"),
        ("STS" | "CloudFormation", _) => {
            ("InvalidClientTokenId", "The security token included in the request is invalid.")
        }
        _ => ("AuthFailure", "AWS was not able to validate the provided access credentials"),
    };
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    let body = match service {
        "STS" | "CloudFormation" => format!("<ErrorResponse>{error}<RequestId>sandbox</RequestId></ErrorResponse>"),
        _ => format!("<Response><Errors>{error}</Errors><RequestID>sandbox</RequestID></Response>"),
    };
    let status = if service != "EC2" { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
    xml(status, body)
}

/// The answer of a region without resources.
fn no_resources(service: &str) -> Response {
    match service {
        "SQS" => refused("com.amazonaws.sqs#QueueDoesNotExist", &Failure::NoSuchQueue.to_string()),
        "DynamoDB" => refused("ResourceNotFoundException", "Requested resource not found"),
        _ => refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret."),
    }
}

/// Whether a partition of the table has too many writes for this transaction. Counts it.
fn throttles(gateway: &Gateway) -> bool {
    gateway.world.act(|state, _| {
        let is_throttled = state.throttled_transactions > 0;
        state.throttled_transactions = state.throttled_transactions.saturating_sub(1);
        is_throttled
    })
}

/// DynamoDB's answer if one partition has too many writes. It gives a reason for each item, in their order.
fn throttled(request: &Value) -> Response {
    let items = request["TransactItems"].as_array().map_or(1, Vec::len);
    let mut reasons = vec![json!({ "Code": "None" }); items];
    reasons[0] = json!({ "Code": "ThrottlingError", "Message": "Throughput exceeds the current capacity for one or more partitions." });
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons [ThrottlingError]",
        "CancellationReasons": reasons,
    });
    (StatusCode::BAD_REQUEST, [("content-type", "application/x-amz-json-1.0")], body.to_string()).into_response()
}

fn default_volume_key(key: &str) -> Response {
    let body = format!(
        "<GetEbsDefaultKmsKeyIdResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>sandbox</requestId>\
         <kmsKeyId>{}</kmsKeyId></GetEbsDefaultKmsKeyIdResponse>",
        escaped(key)
    );
    xml(StatusCode::OK, body)
}

/// CloudFormation's answer about a stack. None: there is no such stack.
fn stacks(name: &str, outputs: Option<&BTreeMap<&'static str, String>>) -> Response {
    let Some(outputs) = outputs else {
        let error = format!(
            "<ErrorResponse xmlns=\"http://cloudformation.amazonaws.com/doc/2010-05-15/\"><Error><Type>Sender</Type>\
             <Code>ValidationError</Code><Message>Stack with id {} does not exist</Message></Error>\
             <RequestId>sandbox</RequestId></ErrorResponse>",
            escaped(name)
        );
        return xml(StatusCode::BAD_REQUEST, error);
    };
    let member = |(name, value): (&&str, &String)| {
        let value = escaped(value);
        format!("<member><OutputKey>{name}</OutputKey><OutputValue>{value}</OutputValue></member>")
    };
    let outputs: String = outputs.iter().map(member).collect();
    let body = format!(
        "<DescribeStacksResponse xmlns=\"http://cloudformation.amazonaws.com/doc/2010-05-15/\"><DescribeStacksResult><Stacks>\
         <member><StackName>{}</StackName><CreationTime>2026-11-01T00:00:00.000Z</CreationTime>\
         <StackStatus>CREATE_COMPLETE</StackStatus><Outputs>{outputs}</Outputs></member></Stacks></DescribeStacksResult>\
         <ResponseMetadata><RequestId>sandbox</RequestId></ResponseMetadata></DescribeStacksResponse>",
        escaped(name)
    );
    xml(StatusCode::OK, body)
}

fn identity(caller: &Caller) -> Response {
    let (arn, id) = match caller {
        Caller::Instance(id) => (format!("assumed-role/drover-runner/{id}"), format!("{RUNNER_ROLE_ID}:{id}")),
        Caller::Role(role) => (format!("assumed-role/drover-{role}/sandbox"), format!("AROA{role}:sandbox")),
        Caller::ControlPlane | Caller::Unknown => return StatusCode::FORBIDDEN.into_response(),
    };
    xml(
        StatusCode::OK,
        format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>arn:aws:sts::{ACCOUNT}:{arn}</Arn><UserId>{id}</UserId><Account>{ACCOUNT}</Account>\
             </GetCallerIdentityResult><ResponseMetadata><RequestId>sandbox</RequestId></ResponseMetadata>\
             </GetCallerIdentityResponse>"
        ),
    )
}

/// A request to the DynamoDB emulator, which accepts any signature.
fn dynamodb(http: &reqwest::Client, url: &str, target: &str) -> reqwest::RequestBuilder {
    dynamodb_request(http, url, target, "AKIASANDBOX")
}

/// A request to DynamoDB with an access key, and without the SDK.
pub fn dynamodb_request(http: &reqwest::Client, url: &str, target: &str, access_key: &str) -> reqwest::RequestBuilder {
    let scope = format!("{access_key}/20260101/{REGION}/dynamodb/aws4_request");
    let signature = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
    http.post(url)
        .header("x-amz-target", target)
        .header("content-type", "application/x-amz-json-1.0")
        .header("authorization", signature)
        .header("x-amz-date", "20260101T000000Z")
}

impl Gateway {
    /// Forwards to the DynamoDB emulator at this URL.
    pub(crate) fn new(world: Arc<World>, calls: Arc<Calls>, dynamodb: String, http: reqwest::Client) -> Self {
        Self { world, calls, dynamodb, http, transactions: Mutex::new(LruCache::new(KEPT_TRANSACTIONS)) }
    }

    /// Forwards a request to the DynamoDB emulator, and counts the capacity units that it reports.
    async fn measured(&self, target: &str, operation: &str, request: &Value) -> Response {
        let mut request = request.clone();
        request["ReturnConsumedCapacity"] = json!("TOTAL");
        let (parts, body) = self.forward(target, request.to_string().into()).await.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let units = |consumed: &Value| consumed["CapacityUnits"].as_f64().unwrap_or_default();
        let consumed = match &answer["ConsumedCapacity"] {
            Value::Array(tables) => tables.iter().map(units).sum(),
            table => units(table),
        };
        self.calls.consumed(operation, consumed);
        if parts.status.is_success() {
            self.calls.wrote(&request);
        }
        Response::from_parts(parts, body.into())
    }

    /// Forwards a request to the DynamoDB emulator.
    async fn forward(&self, target: &str, body: Bytes) -> Response {
        let answer = match target.ends_with(".TransactWriteItems") {
            true => self.transact(target, body).await,
            false => self.send(target, body).await.map(|answer| answer.map(Body::from)),
        };
        answer.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
    }

    /// Forwards a transaction without its token. One that is repeated gets the answer of the first request.
    ///
    /// The emulator does the same for a token, but at each transaction it reads through those of the last ten minutes. With
    /// hundreds of transactions per second this takes most of its time.
    async fn transact(&self, target: &str, body: Bytes) -> Result<Response, reqwest::Error> {
        let mut request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = request.as_object_mut().and_then(|request| request.remove("ClientRequestToken"));
        let token = token.and_then(|token| token.as_str().map(str::to_owned));
        let request = Bytes::from(request.to_string());
        let known = token.as_ref().and_then(|token| self.transactions().get(token).cloned());
        match known {
            Some((first, answer)) if first == request => return Ok(answer.map(Body::from)),
            Some(_) => {
                let message = "The request uses the same client token as a previous, but non-identical request.";
                return Ok(refused("IdempotentParameterMismatchException", message));
            }
            None => {}
        }
        let answer = self.send(target, request.clone()).await?;
        if let Some(token) = token.filter(|_| answer.status().is_success()) {
            self.transactions().put(token, (request, answer.clone()));
        }
        Ok(answer.map(Body::from))
    }

    fn transactions(&self) -> MutexGuard<'_, Transactions> {
        self.transactions.lock().expect("nobody panics while holding it")
    }

    async fn send(&self, target: &str, body: Bytes) -> Result<http::Response<Bytes>, reqwest::Error> {
        let answer = dynamodb(&self.http, &self.dynamodb, target).body(body).send().await?;
        let mut sent = http::Response::new(Bytes::new());
        *sent.status_mut() = answer.status();
        for name in ["content-type", "x-amz-crc32", "x-amzn-requestid"] {
            if let Some(value) = answer.headers().get(name) {
                sent.headers_mut().insert(name, value.clone());
            }
        }
        *sent.body_mut() = answer.bytes().await?;
        Ok(sent)
    }
}

/// SQS. The last part of a queue's URL is its name.
fn sqs(state: &mut State, host: &str, operation: &str, body: &Value, now: Timestamp) -> Response {
    let queue = body["QueueUrl"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let receipt = body["ReceiptHandle"].as_str().unwrap_or_default();
    let seconds = |name: &str| body[name].as_u64().map(Duration::from_secs);
    let done = match operation {
        "SendMessage" => {
            let delay = Duration::from_secs(body["DelaySeconds"].as_u64().unwrap_or_default());
            let text = body["MessageBody"].as_str().unwrap_or_default();
            let sent = state.sqs.send_in_group(queue, text, body["MessageGroupId"].as_str(), delay, now);
            sent.map(|id| json!({ "MessageId": id }))
        }
        "GetQueueUrl" => {
            let name = body["QueueName"].as_str().unwrap_or_default();
            state.sqs.config(name).map(|_| json!({ "QueueUrl": format!("http://{host}/{ACCOUNT}/{name}") }))
        }
        "GetQueueAttributes" => queue_attributes(state, queue, now),
        "ReceiveMessage" => {
            let limit = body["MaxNumberOfMessages"].as_u64().unwrap_or(1) as usize;
            let received = state.sqs.receive_hidden_for(queue, limit, seconds("VisibilityTimeout"), now);
            received.map(|messages| json!({ "Messages": messages.iter().map(message_json).collect::<Vec<_>>() }))
        }
        "DeleteMessage" => state.sqs.delete(queue, receipt).map(|()| json!({})),
        "ChangeMessageVisibility" => {
            let hidden_for = seconds("VisibilityTimeout").unwrap_or_default();
            state.sqs.change_visibility(queue, receipt, hidden_for, now).map(|()| json!({}))
        }
        _ => Err(Failure::Invalid(format!("{operation} is not one that Drover calls"))),
    };
    match done {
        Ok(body) => reply(body),
        Err(Failure::NoSuchQueue) => refused("com.amazonaws.sqs#QueueDoesNotExist", &Failure::NoSuchQueue.to_string()),
        Err(Failure::Invalid(why)) => refused("com.amazonaws.sqs#InvalidParameterValue", &why),
    }
}

fn queue_attributes(state: &State, queue: &str, now: Timestamp) -> Result<Value, Failure> {
    let (config, depth) = (state.sqs.config(queue)?, state.sqs.depth(queue, now));
    let arn = |name: &str| format!("arn:aws:sqs:eu-central-1:{ACCOUNT}:{name}");
    let mut attributes = json!({
        "QueueArn": arn(queue), "VisibilityTimeout": config.visibility.as_secs().to_string(),
        "ApproximateNumberOfMessages": depth.visible.to_string(),
        "ApproximateNumberOfMessagesNotVisible": depth.in_flight.to_string(),
        "ApproximateNumberOfMessagesDelayed": depth.delayed.to_string(),
    });
    if let Some(redrive) = &config.redrive {
        let policy = json!({ "deadLetterTargetArn": arn(&redrive.to), "maxReceiveCount": redrive.after });
        attributes["RedrivePolicy"] = json!(policy.to_string());
    }
    Ok(json!({ "Attributes": attributes }))
}

fn message_json(message: &Received) -> Value {
    json!({
        "MessageId": message.id, "ReceiptHandle": message.receipt, "Body": message.body,
        "Attributes": {
            "ApproximateReceiveCount": message.receive_count.to_string(),
            "SentTimestamp": message.sent_at.as_millisecond().to_string(),
        },
    })
}

fn secrets(state: &mut State, operation: &str, body: &Value, now: Timestamp) -> Response {
    let name = body["SecretId"].as_str().unwrap_or_default();
    let Some(secret) = state.secrets.get_mut(name) else {
        return refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret.");
    };
    let arn = format!("arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:{name}-AbCdEf");
    match operation {
        "GetSecretValue" => {}
        "DescribeSecret" => {
            let mut versions = serde_json::Map::new();
            if !secret.current.is_empty() {
                versions.insert("version-current".to_owned(), json!(["AWSCURRENT"]));
            }
            return reply(json!({
                "ARN": arn, "Name": name, "VersionIdsToStages": versions,
                "LastChangedDate": secret.created_at.as_millisecond() as f64 / 1000.0,
            }));
        }
        "PutSecretValue" => {
            let before = std::mem::take(&mut secret.current);
            secret.current = body["SecretString"].as_str().unwrap_or_default().to_owned();
            secret.previous = Some(before).filter(|before| !before.is_empty());
            secret.created_at = now;
            return reply(json!({ "ARN": arn, "Name": name, "VersionStages": ["AWSCURRENT"] }));
        }
        _ => return refused("InvalidRequestException", "The sandbox does not have this operation."),
    }
    let stage = body["VersionStage"].as_str().unwrap_or("AWSCURRENT");
    let text = match stage {
        // A secret without a value has no version.
        "AWSCURRENT" => Some(&secret.current).filter(|current| !current.is_empty()),
        "AWSPREVIOUS" => secret.previous.as_ref(),
        _ => None,
    };
    let Some(text) = text else {
        return refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret value.");
    };
    reply(json!({
        "ARN": arn,
        "Name": name,
        "SecretString": text,
        "VersionStages": [stage],
        "CreatedDate": secret.created_at.as_millisecond() as f64 / 1000.0,
    }))
}

/// Creates the tables of `template.yaml`.
pub(crate) async fn create_tables(http: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    create_table(http, url, TABLE, &[("pk", "HASH"), ("sk", "RANGE")]).await?;
    create_table(http, url, BOOT_TABLE, &[("pk", "HASH")]).await?;
    create_table(http, url, REPORTS_TABLE, &[("pk", "HASH")]).await
}

async fn create_table(http: &reqwest::Client, url: &str, name: &str, keys: &[(&str, &str)]) -> anyhow::Result<()> {
    let key = |(name, kind): &(&str, &str)| json!({ "AttributeName": name, "KeyType": kind });
    let text = |(name, _): &(&str, &str)| json!({ "AttributeName": name, "AttributeType": "S" });
    let body = json!({
        "TableName": name, "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": keys.iter().map(key).collect::<Vec<_>>(),
        "AttributeDefinitions": keys.iter().map(text).collect::<Vec<_>>(),
    });
    administer(http, url, "CreateTable", body).await
}

pub(crate) async fn lose_table(http: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    administer(http, url, "DeleteTable", json!({ "TableName": TABLE })).await?;
    create_table(http, url, TABLE, &[("pk", "HASH"), ("sk", "RANGE")]).await
}

async fn administer(http: &reqwest::Client, url: &str, operation: &str, body: Value) -> anyhow::Result<()> {
    let answer = dynamodb(http, url, &format!("DynamoDB_20120810.{operation}")).body(body.to_string()).send().await?;
    let status = answer.status();
    anyhow::ensure!(status.is_success(), "{operation}: {status}: {}", answer.text().await?);
    Ok(())
}

/// The credentials in a machine's metadata, valid for six hours.
pub(crate) fn instance_credentials(instance: &str) -> Value {
    let now = SystemClock.now();
    json!({
        "Code": "Success",
        "LastUpdated": now.to_string(),
        "Type": "AWS-HMAC",
        "AccessKeyId": instance_access_key(instance),
        "SecretAccessKey": "sandbox",
        "Token": "sandbox",
        "AccountId": ACCOUNT,
        "Expiration": (now + jiff::SignedDuration::from_hours(6)).to_string(),
    })
}
