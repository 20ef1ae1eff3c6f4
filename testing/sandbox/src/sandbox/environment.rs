//! The environment of the functions and of the operator.

use platform::environment::optional;

use crate::aws::access_key;
use crate::door::Doors;
use crate::names::{
    ACCOUNT, APP_SECRET, BOOT_TABLE, QUEUE, REGION, REPORTS_TABLE, RUNNER_ROLE_ID, STACK, TABLE, WEBHOOK_SECRET,
};
use crate::proxy::{AWS, GITHUB, Proxy};

/// All environment variables of a function or the operator.
pub(super) fn environment(role: &str, aws_url: &str, github_url: &str) -> Vec<(String, String)> {
    let queue_url = format!("{aws_url}/{ACCOUNT}/{QUEUE}");
    let own = [
        ("AWS_ACCESS_KEY_ID", access_key(role).unwrap_or_default()),
        ("AWS_SECRET_ACCESS_KEY", "sandbox"),
        ("AWS_REGION", REGION),
        ("AWS_ENDPOINT_URL", aws_url),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("DROVER_STACK", STACK),
        ("DROVER_QUEUE_URL", &queue_url),
        ("DROVER_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("DROVER_TABLE", TABLE),
        ("DROVER_BOOT_TABLE", BOOT_TABLE),
        ("DROVER_REPORTS_TABLE", REPORTS_TABLE),
        ("DROVER_APP_SECRET", APP_SECRET),
        ("DROVER_GITHUB_API_URL", github_url),
        ("DROVER_RUNNER_ROLE_ID", RUNNER_ROLE_ID),
    ];
    let mut all: Vec<(String, String)> = own.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    all.extend(optional("RUST_LOG").map(|log| ("RUST_LOG".to_owned(), log)));
    all
}

/// What a function needs in addition to reach AWS and GitHub through the proxy.
pub(super) fn behind(proxy: &Proxy) -> Vec<(String, String)> {
    let settings = [
        ("AWS_ENDPOINT_URL", format!("https://{AWS}")),
        ("DROVER_GITHUB_API_URL", format!("https://{GITHUB}")),
        ("HTTPS_PROXY", proxy.url.clone()),
        ("NO_PROXY", "localhost".to_owned()),
        // On one line, as a parameter of CloudFormation or in a file for systemd.
        ("DROVER_CA_CERTIFICATES", proxy.ca.replace('\n', " ")),
    ];
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a function needs in addition to reach each service through its door.
pub(super) fn behind_doors(doors: &Doors) -> Vec<(String, String)> {
    let mut all = machine_behind_doors(doors);
    let urls = [
        ("AWS_ENDPOINT_URL_SQS", &doors.sqs),
        ("AWS_ENDPOINT_URL_EC2", &doors.ec2),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &doors.secrets_manager),
        ("DROVER_GITHUB_API_URL", &doors.github),
    ];
    all.extend(urls.map(|(name, door)| (name.to_owned(), door.url.clone())));
    all
}

/// The same of a machine.
pub(super) fn machine_behind_doors(doors: &Doors) -> Vec<(String, String)> {
    vec![("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), doors.dynamodb.url.clone())]
}

/// What a machine needs in addition.
pub(super) fn machine_behind(proxy: &Proxy) -> Vec<(String, String)> {
    let mut all = behind(proxy);
    all.retain(|(name, _)| name != "DROVER_GITHUB_API_URL");
    all.push(("AWS_ENDPOINT_URL_STS".to_owned(), proxy.direct_aws_url.clone()));
    all
}
