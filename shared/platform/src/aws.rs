//! How we talk to AWS: one configuration for all clients.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use engine::ports::ErrorKind;

use crate::environment;

/// A healthy endpoint accepts a connection within milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One try of one call. Twice this is still within the time GitHub waits for ingest.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// A call with its retries. GitHub gives a webhook 10 s; an answer after that is worth nothing to ingest, and the other
/// functions keep as much in reserve before they begin an effect.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// The roots of AWS's own endpoints. Reading every root certificate of the machine instead takes a third of ingest's cold
/// start.
const AWS_ROOTS: &[u8] = include_bytes!("aws-roots.crt");

/// Region, credentials and endpoints as the SDK finds them in its own variables; time-outs and roots are ours.
/// `AWS_CA_BUNDLE` names a file with other roots, for endpoints behind a proxy that has its own.
///
/// Makes no call.
///
/// # Errors
/// When `AWS_CA_BUNDLE` cannot be read.
pub async fn config() -> Result<SdkConfig, AwsError> {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build();
    let roots = match environment::optional("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        None => AWS_ROOTS.to_vec(),
        Some(path) => {
            std::fs::read(&path).map_err(|error| AwsError(format!("cannot read AWS_CA_BUNDLE {path}: {error}")))?
        }
    };
    let tls = TlsContext::builder().with_trust_store(TrustStore::empty().with_pem_certificate(roots)).build();
    let tls = tls.map_err(|error| AwsError(format!("the root certificates are unusable: {error}")))?;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https();
    Ok(aws_config::from_env().http_client(http).timeout_config(timeouts).load().await)
}

/// An emulator at that address, as whoever has that access key: for whoever looks at a sandbox from outside.
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

/// AWS cannot be talked to at all.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct AwsError(String);

/// The whole chain of an SDK's error in one line: its own `Display` says only "service error".
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    aws_smithy_types::error::display::DisplayErrorContext(error).to_string()
}

/// What is in the way, and what AWS says about it; where it did not answer, what failed on the way.
pub(crate) fn trouble<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &E) -> (ErrorKind, String) {
    if let Some(code) = error.code() {
        let message = error.message().unwrap_or("without a message");
        return (trouble_of(code), format!("{code}: {message}"));
    }
    // Where credentials were looked for takes a line each.
    let first_line = |text: String| text.lines().next().unwrap_or_default().trim_end_matches(" Attempted:").to_owned();
    let mut chain = vec![error.to_string()];
    let mut trouble = ErrorKind::Away;
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<CredentialsError>() {
            trouble = ErrorKind::Credentials;
        }
        chain.push(first_line(error.to_string()));
        source = error.source();
    }
    chain.dedup();
    (trouble, chain.join(": "))
}

/// The codes are those of AWS's lists of common errors, of DynamoDB's, of SQS's and of EC2's.
pub(crate) fn trouble_of(code: &str) -> ErrorKind {
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
        "UnauthorizedOperation" | "OptInRequired" | "AccessDenied" | "AccessDeniedException" => ErrorKind::NotAllowed,
        "ResourceNotFoundException" | "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue" => {
            ErrorKind::NotThere
        }
        _ if code.contains(".NotFound") => ErrorKind::NotThere,
        _ => ErrorKind::Away,
    }
}
