//! Each role may call exactly what its policies allow, and needs everything that they allow.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use domain::log::Transaction;
use domain::state::{Instance, Item, Key};
use engine::ports::Store;
use sandbox::aws::access_key;
use sandbox::pace::{PATIENCE, slowness};
use sandbox::permissions::allowed_actions;
use sandbox::sandbox::{Driven, Options, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use serde_json::{Value, json};
use world::ec2::{Code, InstanceId, LaunchMatch, Refusal, When};

/// The jobs end when the test says so.
const LONG: Duration = Duration::from_secs(3600);

/// Actions that a role needs although its function does not call them, and why.
const NOT_CALLED: [(&str, &str); 14] = [
    ("logs:CreateLogStream", "Lambda writes a function's output to its log group on behalf of the function"),
    ("logs:PutLogEvents", "Lambda writes a function's output to its log group on behalf of the function"),
    ("xray:PutTraceSegments", "Lambda sends traces on behalf of the function"),
    ("xray:PutTelemetryRecords", "Lambda sends traces on behalf of the function"),
    ("sqs:ReceiveMessage", "Lambda polls the queue on behalf of the scaler"),
    ("sqs:DeleteMessage", "Lambda polls the queue on behalf of the scaler"),
    ("sqs:GetQueueAttributes", "Lambda polls the queue on behalf of the scaler"),
    ("ec2:CreateTags", "RunInstances tags resources on behalf of the caller"),
    ("iam:PassRole", "RunInstances passes the template's instance profile to EC2 on behalf of the caller"),
    ("kms:CreateGrant", "EC2 uses the key of encrypted volumes on behalf of the caller"),
    ("kms:Decrypt", "EC2 uses the key of encrypted volumes on behalf of the caller"),
    ("kms:DescribeKey", "EC2 uses the key of encrypted volumes on behalf of the caller"),
    ("kms:GenerateDataKeyWithoutPlaintext", "EC2 uses the key of encrypted volumes on behalf of the caller"),
    ("ssm:GetParameters", "RunInstances resolves the template's image on behalf of the caller"),
];

/// Calls an operation of DynamoDB, or of EC2 if the target has no dot, and returns the answer's text.
async fn call(sandbox: &Sandbox, role: &str, target: &str, body: Value) -> anyhow::Result<String> {
    let key = access_key(role).unwrap_or_default();
    let authorization = format!("AWS4-HMAC-SHA256 Credential={key}/20260101/eu-central-1/service/aws4_request");
    let request = reqwest::Client::new().post(&sandbox.aws_url).header("authorization", authorization);
    let request = match target.contains('.') {
        true => request.header("x-amz-target", target).body(body.to_string()),
        false => request.body(format!("Action={target}&InstanceId.1=i-0")),
    };
    Ok(request.send().await?.text().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_the_policies_do_not_allow_is_refused() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await?;
    let key = json!({ "pk": { "S": "a" }, "sk": { "S": "b" } });
    let from = |table: &str| json!({ "TableName": table, "Key": key });
    let put = |table: &str| json!({ "TransactItems": [{ "Put": { "TableName": table, "Item": key } }] });
    let update = json!({ "TransactItems": [{ "Update": { "TableName": "drover", "Key": key } }] });
    let (get, transact) = ("DynamoDB_20120810.GetItem", "DynamoDB_20120810.TransactWriteItems");
    for (role, target, body, allowed) in [
        ("ingest", get, from("drover"), false),
        ("ingest", "DescribeInstances", Value::Null, false),
        ("scaler", get, from("drover"), true),
        ("scaler", get, from("drover-boot"), false),
        ("scaler", transact, put("drover"), true),
        ("scaler", transact, put("drover-boot"), true),
        ("scaler", transact, update, false),
        ("scaler", "TerminateInstances", Value::Null, true),
        ("scaler", "StartInstances", Value::Null, true),
        ("janitor", "StopInstances", Value::Null, true),
        ("operator", "StartInstances", Value::Null, false),
        ("scaler", "DescribeImages", Value::Null, false),
        ("janitor", "DescribeImages", Value::Null, true),
        ("janitor", "DescribeSpotPriceHistory", Value::Null, true),
        ("scaler", "DescribeSpotPriceHistory", Value::Null, false),
        ("operator", "DescribeInstanceTypeOfferings", Value::Null, true),
        ("janitor", "CreateTags", Value::Null, true),
        ("janitor", "DeleteTags", Value::Null, false),
        ("operator", "TerminateInstances", Value::Null, false),
        ("operator", "DeleteTags", Value::Null, true),
        ("operator", "DynamoDB_20120810.CreateTable", from("drover"), false),
    ] {
        let answer = call(&sandbox, role, target, body).await?;
        let refused = answer.contains(&format!("{role} may not call"));
        assert_eq!(refused, !allowed, "{role}, {target}: {answer}");
        let code = if target.contains('.') { "AccessDeniedException" } else { "UnauthorizedOperation" };
        assert_eq!(answer.contains(code), refused, "{role}, {target}: {answer}");
    }
    Ok(())
}

/// A pool with shapes, for which the janitor reads types and prices.
const WITH_SHAPES: &str = "[[pool]]\nname = \"any\"\nowner = \"octo-org\"\nrepositories = [\"octo-org/widgets\"]\n\
                           launch_templates = { x64 = \"drover-runner\" }\nmax = 2\n\
                           [pool.shapes]\ncpu = \"1..8\"\nram = \"1..32\"\narch = [\"x64\"]\n";

/// Waits for the launch of that number, from 1.
async fn launched(sandbox: &Sandbox, number: usize) -> anyhow::Result<InstanceId> {
    let launched = |state: &State| state.ec2.instances().nth(number - 1).map(|instance| instance.id.clone());
    sandbox.world.until("a launch", PATIENCE, launched).await
}

/// Deletes the slot of a machine from the table, once the machine's runner is registered.
async fn delete_slot(sandbox: &Sandbox, machine: &InstanceId) -> anyhow::Result<()> {
    let registered = |state: &State| state.github.registrations().next().map(drop);
    sandbox.world.until("a registration", PATIENCE, registered).await?;
    let table = sandbox.table().await;
    let deleted = async || {
        let Some(Item::Instance(Instance { pool: Some(pool), slot: Some(slot), .. })) =
            table.get(&Key::Instance(machine.as_str().into())).await?
        else {
            return Ok(None);
        };
        let Some(Item::Slot(slot)) = table.get(&Key::Slot(pool, slot)).await? else { return Ok(None) };
        // Fails if the slot has changed meanwhile.
        Ok(table.commit(&Transaction::new().delete(slot)).await.ok())
    };
    sandbox.sweep_until("a slot to delete", deleted).await
}

/// Deletes what `pools apply` has read about instance types, which the janitor reads again only after a day.
async fn delete_catalogue(sandbox: &Sandbox) -> anyhow::Result<()> {
    let table = sandbox.table().await;
    let deleted = async || {
        let Some(Item::Catalogue(catalogue)) = table.get(&Key::Catalogue).await? else { return Ok(None) };
        Ok(table.commit(&Transaction::new().delete(catalogue)).await.ok())
    };
    sandbox.sweep_until("a catalogue to delete", deleted).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_use_every_action_that_the_template_allows() -> anyhow::Result<()> {
    let options = Options { sweep_every: Duration::from_secs(1), ..Options::default() };
    let sandbox = Sandbox::start(options).await?;
    let pools = one_pool(&format!("boot_grace = \"{}s\"", 10 * slowness()));
    sandbox.apply(&format!("{pools}\n{WITH_SHAPES}")).await?;
    // A throttled launch is tried again later.
    let throttled = Refusal { matches: LaunchMatch::default(), code: Code::RequestLimitExceeded, when: When::Next(1) };
    sandbox.world.act(|state, _| state.ec2.faults.refusals.push(throttled));
    let first = sandbox.queue_job("octo-org/widgets", &["drover"], LONG);
    let failing = launched(&sandbox, 1).await?;
    // Its console output is read, it is terminated, and another machine takes its place.
    sandbox.world.act(|state, _| state.ec2.fail_boot(&failing));
    sandbox.serve(&[first]).await?;
    // A machine without a slot, as after a restore of the table.
    let second = sandbox.queue_job("octo-org/widgets", &["drover"], LONG);
    let orphan = launched(&sandbox, 3).await?;
    sandbox.world.act(|state, _| state.ec2.fail_boot(&orphan));
    delete_slot(&sandbox, &orphan).await?;
    sandbox.serve(&[second]).await?;

    // A machine that is stopped until a job needs it.
    sandbox.apply(&format!("{pools}stopped = 1\n{WITH_SHAPES}")).await?;
    sandbox.ready(&"linux".parse()?).await?;
    let third = sandbox.queue_job("octo-org/widgets", &["drover"], LONG);
    sandbox.running(third, PATIENCE).await?;

    delete_catalogue(&sandbox).await?;

    let allowed = |role: &str| -> BTreeSet<String> { allowed_actions(role).map(str::to_owned).collect() };
    let not_called: BTreeSet<String> = NOT_CALLED.iter().map(|(action, _)| (*action).to_owned()).collect();
    let unused = || -> BTreeSet<String> {
        let control_plane = &sandbox.calls.actions("scaler") | &sandbox.calls.actions("janitor");
        let of_ingest = &allowed("ingest") - &sandbox.calls.actions("ingest");
        let of_control_plane = &(&allowed("scaler") | &allowed("janitor")) - &control_plane;
        &(&of_ingest | &of_control_plane) - &not_called
    };
    let all_used = async || Ok(unused().is_empty().then_some(()));
    let swept = sandbox.sweep_until("the use of every allowed action", all_used).await;
    swept.with_context(|| format!("the template allows actions that no function needs: {:?}", unused()))?;
    let all: BTreeSet<String> = ["ingest", "scaler", "janitor"].into_iter().flat_map(allowed).collect();
    assert_eq!(&not_called - &all, BTreeSet::new(), "the list has actions that the template does not allow");
    Ok(())
}
