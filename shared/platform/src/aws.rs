//! One AWS configuration for all clients, and the errors of their calls.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use engine::ports::{ComputeError, QueueError, Source, StoreError};

use crate::{environment, network};

/// A healthy endpoint accepts a connection within milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One attempt of a call. Two attempts fit into the 10 s that GitHub waits for ingest.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// A call including its retries. GitHub waits 10 s for ingest, so a later answer is of no use to ingest. The other
/// functions keep a reserve of the same length before they begin an effect.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// The root certificates of AWS's endpoints. Reading all root certificates of the machine instead takes a third of
/// ingest's cold start.
const AWS_ROOTS: &[u8] = include_bytes!("aws-roots.crt");

/// The configuration of the SDK's own environment variables, with Drover's time-outs and root certificates.
/// `AWS_CA_BUNDLE` names a file with other root certificates, and `DROVER_CA_CERTIFICATES` contains additional ones.
///
/// Makes no call.
///
/// # Errors
/// If `AWS_CA_BUNDLE` cannot be read, or a setting of the network is invalid.
pub async fn config() -> Result<SdkConfig, AwsError> {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build();
    let roots = match environment::optional("AWS_CA_BUNDLE") {
        None => AWS_ROOTS.to_vec(),
        Some(path) => {
            std::fs::read(&path).map_err(|error| AwsError(format!("cannot read AWS_CA_BUNDLE {path}: {error}")))?
        }
    };
    let own = network::ca_certificates().map_err(|error| AwsError(error.to_string()))?;
    let trusted = TrustStore::empty().with_pem_certificate(roots);
    let trusted = own.iter().fold(trusted, |trusted, own| trusted.with_pem_certificate(network::pem(own)));
    let tls = TlsContext::builder().with_trust_store(trusted).build();
    let tls = tls.map_err(|error| AwsError(format!("cannot use the root certificates: {error}")))?;
    let proxy = network::proxy().map_err(|error| AwsError(error.to_string()))?;
    // The SDK's builder of clients has no setting for a proxy; its builder of connectors has one.
    let http = aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector
            .proxy_config(proxy.clone())
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .build()
    });
    let mut loader = aws_config::from_env().http_client(http).timeout_config(timeouts);
    if let Some(region) = environment::supplied("AWS_REGION") {
        loader = loader.region(Region::new(region));
    }
    if let Some(profile) = environment::supplied("AWS_PROFILE") {
        loader = loader.profile_name(profile);
    }
    Ok(loader.load().await)
}

/// The configuration for an emulator, with an access key. The sandbox's tests use it.
pub async fn emulator(endpoint: &str, access_key: &str) -> SdkConfig {
    let credentials = aws_credential_types::Credentials::new(access_key, "emulator", None, None, "emulator");
    aws_config::from_env()
        .region("eu-central-1")
        .endpoint_url(endpoint)
        .credentials_provider(credentials)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .load()
        .await
}

/// The AWS clients cannot be configured.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct AwsError(String);

/// An SDK error in one line for people. The error's own `Display` says only "service error".
pub(crate) fn describe<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &E) -> String {
    CallError::of(error).to_string()
}

/// Layers of an error that say only that the next one is the cause.
const WITHOUT_CONTENT: [&str; 7] = [
    "service error",
    "dispatch failure",
    "io error",
    "other",
    "client error (Connect)",
    "client error (SendRequest)",
    "error sending request",
];

/// The chain of causes in one line, without the layers that say nothing.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    // The provider of credentials lists each place where it looked on a line of its own.
    let first_line = |text: String| text.lines().next().unwrap_or_default().trim_end_matches(" Attempted:").to_owned();
    let all: Vec<String> =
        std::iter::successors(Some(error), |error| error.source()).map(|error| first_line(error.to_string())).collect();
    let mut chain: Vec<&str> = all.iter().map(String::as_str).filter(|it| !WITHOUT_CONTENT.contains(it)).collect();
    chain.dedup();
    match chain.is_empty() {
        true => all.join(": "),
        false => chain.join(": "),
    }
}

/// The category of an AWS error, by what an operator can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// There are no credentials, or they are invalid or expired.
    Credentials,
    /// The caller lacks a permission.
    NotAllowed,
    /// The resource does not exist in this account and region.
    NotFound,
    /// An item in the table has a format that this version does not know.
    Unreadable,
    /// Anything else: no answer, a throttled call, an error inside AWS.
    Unavailable,
}

impl ErrorKind {
    /// The category of an error, if a [`CallError`] is its cause.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(call) = error.downcast_ref::<CallError>() {
                return call.kind;
            }
            next = error.source();
        }
        ErrorKind::Unavailable
    }

    /// The codes are those of AWS's lists of common errors, of DynamoDB's, of SQS's and of EC2's.
    pub fn of_code(code: &str) -> Self {
        match code {
            "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "AuthFailure"
            | "IncompleteSignature"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException" => ErrorKind::Credentials,
            "UnauthorizedOperation"
            | "OptInRequired"
            | "AccessDenied"
            | "AccessDeniedException"
            | "AuthorizationError"
            | "AuthorizationErrorException" => ErrorKind::NotAllowed,
            "ResourceNotFoundException" | "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue" => {
                ErrorKind::NotFound
            }
            _ if code.contains(".NotFound") => ErrorKind::NotFound,
            _ => ErrorKind::Unavailable,
        }
    }
}

/// A call of an AWS service that failed, or whose answer cannot be used. It is the source of the ports' errors.
#[derive(Debug, thiserror::Error)]
#[error("{}{message}", code.as_ref().map(|code| format!("{code}: ")).unwrap_or_default())]
pub struct CallError {
    pub kind: ErrorKind,
    /// AWS's error code. None if the service did not answer.
    pub code: Option<String>,
    /// The service's message, or what failed before it could answer.
    pub message: String,
}

impl CallError {
    /// An answer that cannot be used.
    pub(crate) fn new(kind: ErrorKind, message: String) -> Self {
        Self { kind, code: None, message }
    }

    pub(crate) fn from_sdk<E: ProvideErrorMetadata + std::error::Error + 'static>(error: E) -> Self {
        Self::of(&error)
    }

    pub(crate) fn of<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &E) -> Self {
        match error.code() {
            Some(code) => Self {
                kind: ErrorKind::of_code(code),
                code: Some(code.to_owned()),
                message: error.message().unwrap_or("without a message").to_owned(),
            },
            None => Self::unanswered(error),
        }
    }

    /// The service did not answer: the message is the chain of causes.
    fn unanswered(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut chain = std::iter::successors(Some(error), |error| error.source());
        let kind = match chain.any(|error| error.is::<CredentialsError>()) {
            true => ErrorKind::Credentials,
            false => ErrorKind::Unavailable,
        };
        Self::new(kind, causes(error))
    }
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        Self { message: error.to_string(), source: Some(Source::new(error)) }
    }
}

impl From<CallError> for QueueError {
    fn from(error: CallError) -> Self {
        Self { message: error.to_string(), source: Some(Source::new(error)) }
    }
}

impl From<CallError> for ComputeError {
    fn from(error: CallError) -> Self {
        Self { code: error.code.clone(), message: error.message.clone(), source: Some(Source::new(error)) }
    }
}

/// A failed call of EC2, whatever the operation.
pub(crate) fn failed_ec2<E: ProvideErrorMetadata + std::error::Error + 'static>(error: E) -> ComputeError {
    CallError::from_sdk(error).into()
}
