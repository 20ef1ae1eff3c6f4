//! What `drover` prints when AWS cannot be reached, does not accept the credentials or has no such stack.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use sandbox::aws::EXPIRED_ACCESS_KEY;
use sandbox::sandbox::{Driven, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;
use serde_json::Value;

/// Variables of the operator, and what the first line then says.
struct Fault {
    variables: Vec<(&'static str, String)>,
    parts: &'static [&'static str],
}

/// Runs doctor. Returns what it printed, which must fail, and its report.
async fn doctor(sandbox: &Sandbox, variables: &[(&str, &str)]) -> (String, Value) {
    let said = sandbox.drover_with(&["doctor"], variables).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(said.status.code(), Some(1), "{text}");
    let json = sandbox.drover_with(&["doctor", "--json"], variables).await.unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    for part in ["Failure(", "Error {", "Some(", "kind: ", "DispatchFailure", "ServiceError"] {
        assert!(!text.contains(part) && !json.to_string().contains(part), "{part:?} is Rust's: {text}");
    }
    (text, json)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cause_is_one_line_and_doctor_skips_what_depends_on_it() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    sandbox.apply(&one_pool("")).await.unwrap();
    sandbox.sweep().await.unwrap();
    let fault = |name, value: &str, parts| Fault { variables: vec![(name, value.to_owned())], parts };
    let faults = [
        fault(
            "AWS_ENDPOINT_URL",
            "http://127.0.0.1:1",
            &["AWS does not answer", "Connection refused", "check the network"],
        ),
        fault("AWS_REGION", "us-east-1", &["us-east-1 has neither the table", "AWS_REGION"]),
        fault("AWS_REGION", "", &["no AWS region is set", "export AWS_REGION"]),
        fault("AWS_ACCESS_KEY_ID", "AKIANOBODY", &["InvalidClientTokenId", "log in again"]),
        fault("AWS_ACCESS_KEY_ID", EXPIRED_ACCESS_KEY, &["expired", "log in again"]),
        Fault {
            variables: vec![("DROVER_TABLE", String::new()), ("DROVER_STACK", "nowhere".to_owned())],
            parts: &["environment: there is no stack nowhere in eu-central-1", "name it with --stack"],
        },
        Fault {
            variables: vec![("DROVER_TABLE", String::new()), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1".to_owned())],
            parts: &["AWS does not answer", "Connection refused"],
        },
    ];
    for Fault { variables, parts } in faults {
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (text, json) = doctor(&sandbox, &variables).await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.iter().filter(|line| line.contains("FAIL")).count(), 1, "one cause: {text}");
        assert!(lines[0].starts_with("FAIL  ") && lines[0].contains(" -> "), "{text}");
        assert!(parts.iter().all(|part| lines[0].contains(part)), "{parts:?}: {}", lines[0]);
        assert!(lines[0].len() < 320, "{}", lines[0]);
        assert!(lines[1..3].iter().any(|line| line.ends_with(" checks skipped")), "{text}");
        let skipped = json["checks"].as_array().unwrap().iter().filter(|check| check["level"] == "skip").count();
        assert_eq!((json["skipped"].as_u64(), json["failed"].as_u64()), (Some(skipped as u64), Some(1)), "{json:#}");
        assert!(skipped >= 14, "{json:#}");
    }

    // The queue alone is missing: only what is in it is not checked.
    sandbox.world.act(|state, _| state.sqs.delete_queue(QUEUE));
    let (text, json) = doctor(&sandbox, &[]).await;
    let first = text.lines().next().unwrap();
    assert!(first.starts_with("FAIL  messages: ") && first.contains("QueueDoesNotExist"), "{text}");
    assert!(first.contains("check that AWS_REGION is the stack's region and that the stack exists"), "{text}");
    // The other one is the signature: there is no delivery to repeat.
    assert_eq!((json["failed"].as_u64(), json["skipped"].as_u64()), (Some(1), Some(2)), "{json:#}");
}
