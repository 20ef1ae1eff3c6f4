//! The HTTP client, and the calls that the app makes with its private key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use domain::ids::Scope;
use engine::ports::{GitHubError, Source, TokenMark};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::IF_NONE_MATCH;
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::answer::{error, parse, unanswered};
use super::api_url::ApiUrl;
use crate::network;

/// A healthy API accepts a connection within milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// GitHub takes 0.7 s to create a JIT config. A call that takes longer than this time-out counts as unanswered.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// GitHub refuses a JWT whose `exp` is more than 10 minutes ahead of GitHub's clock. This leaves 2 minutes for a local
/// clock that is fast.
const JWT_LIFETIME: SignedDuration = SignedDuration::from_mins(8);

/// How far `iat` lies in the past, for a local clock that is fast. GitHub recommends it.
const JWT_BACKDATED: SignedDuration = SignedDuration::from_secs(120);

/// GitHub redirects a call for a renamed repository to the repository's number: once, or again after another renaming.
const MAX_REDIRECTS: usize = 3;

/// The body of a call without one.
pub(super) const NO_BODY: Option<&()> = None;

/// The app's identity and the HTTP client.
pub(super) struct Client {
    app_id: String,
    key: EncodingKey,
    api_url: ApiUrl,
    http: reqwest::Client,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("app_id", &self.app_id).field("api_url", &self.api_url).finish_non_exhaustive()
    }
}

/// One request. `if_changed_from` is an entity tag: if the answer still has this tag, GitHub answers 304 without a body.
pub(super) struct Request<'a, B: ?Sized> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) body: Option<&'a B>,
    pub(super) if_changed_from: Option<&'a str>,
}

impl<B: ?Sized> Clone for Request<'_, B> {
    fn clone(&self) -> Self {
        let Self { method, path, body, if_changed_from } = self;
        Self { method: method.clone(), path, body: *body, if_changed_from: *if_changed_from }
    }
}

/// The app's secret, as `drover` or an operator wrote it.
#[derive(Deserialize)]
struct AppSecret {
    app_id: AppId,
    private_key: SecretString,
    #[serde(default)]
    api_url: Option<String>,
}

/// People write the id as a number or as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum AppId {
    Number(u64),
    Text(String),
}

/// The public CAs that a GitHub client trusts, in addition to those of `DROVER_CA_CERTIFICATES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicRoots {
    /// Mozilla's, as they were when this program was built. Lambda's system has the same list, in files that each cold start
    /// would read.
    BuiltIn,
    /// Those of the system, which may include an organisation's own.
    System,
}

/// Builds the HTTP client. It reads `HTTPS_PROXY` and `NO_PROXY` by itself.
pub(super) fn http_client(roots: PublicRoots) -> Result<reqwest::Client, GitHubError> {
    let own = network::ca_certificates().map_err(|error| {
        let message = error.to_string();
        GitHubError::Unavailable { message, source: Some(Source::new(error)) }
    })?;
    let built_in = match roots {
        PublicRoots::BuiltIn => webpki_root_certs::TLS_SERVER_ROOT_CERTS,
        PublicRoots::System => &[],
    };
    let trusted = built_in.iter().chain(&own).map(|root| reqwest::Certificate::from_der(root));
    let trusted = trusted.collect::<Result<Vec<_>, _>>().map_err(unanswered)?;
    let builder = match roots {
        PublicRoots::BuiltIn => reqwest::Client::builder().tls_certs_only(trusted),
        PublicRoots::System => reqwest::Client::builder().tls_certs_merge(trusted),
    };
    builder
        .user_agent(concat!("drover/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .redirect(same_host())
        .build()
        .map_err(unanswered)
}

/// Follows redirects to the same host only. Another host would receive the request's body.
fn same_host() -> Policy {
    Policy::custom(|attempt| {
        let from = attempt.previous().last();
        let same = from.is_some_and(|from| from.origin() == attempt.url().origin());
        if same && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
    })
}

/// The path of the app's installation on the account of a scope.
pub(super) fn installation_path(scope: &Scope) -> String {
    match scope {
        Scope::Organization(owner) => format!("/orgs/{owner}/installation"),
        Scope::Repository(repository) => format!("/repos/{repository}/installation"),
    }
}

/// Sends a request that authenticates with a token.
pub(super) async fn send<B: Serialize + ?Sized>(
    http: &reqwest::Client,
    api_url: &ApiUrl,
    request: Request<'_, B>,
    token: &SecretString,
) -> Result<Response, GitHubError> {
    let Request { method, path, body, if_changed_from } = request;
    let mut call = http
        .request(method, format!("{api_url}{path}"))
        .bearer_auth(token.expose_secret())
        .header("accept", "application/vnd.github+json")
        .header("x-github-api-version", "2022-11-28");
    if let Some(tag) = if_changed_from {
        call = call.header(IF_NONE_MATCH, tag);
    }
    if let Some(body) = body {
        call = call.json(body);
    }
    call.send().await.map_err(unanswered)
}

impl Client {
    /// The client of the app in a secret's text. The address is `api_url`, else the one in the text, else GitHub's.
    pub(super) fn from_secret(
        text: &SecretString,
        api_url: Option<ApiUrl>,
        roots: PublicRoots,
    ) -> Result<Self, GitHubError> {
        // serde_json's own message could quote the key.
        let expected = || {
            let form = "it must be JSON of the form {\"app_id\": ..., \"private_key\": \"...\"}";
            GitHubError::SecretUnusable(form.to_owned())
        };
        let secret: AppSecret = serde_json::from_str(text.expose_secret()).map_err(|_| expected())?;
        let key = EncodingKey::from_rsa_pem(secret.private_key.expose_secret().as_bytes()).map_err(|error| {
            GitHubError::SecretUnusable(format!("private_key is not an RSA private key in PEM format: {error}"))
        })?;
        let stored = secret.api_url.map(|url| url.parse::<ApiUrl>()).transpose();
        let stored = stored.map_err(|rule| GitHubError::SecretUnusable(format!("api_url {rule}")))?;
        let api_url = api_url.or(stored).unwrap_or_default();
        let app_id = match secret.app_id {
            AppId::Number(id) => id.to_string(),
            AppId::Text(id) => id,
        };
        Ok(Self { app_id, key, api_url, http: http_client(roots)? })
    }

    async fn send<B: Serialize + ?Sized>(
        &self,
        request: Request<'_, B>,
        token: &SecretString,
    ) -> Result<Response, GitHubError> {
        send(&self.http, &self.api_url, request, token).await
    }

    /// Sends a request that authenticates as the app.
    pub(super) async fn send_as_app<B: Serialize + ?Sized>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        now: Timestamp,
    ) -> Result<Response, GitHubError> {
        self.send(Request { method, path, body, if_changed_from: None }, &self.jwt(now)?).await
    }

    fn jwt(&self, now: Timestamp) -> Result<SecretString, GitHubError> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iat: i64,
            exp: i64,
            iss: &'a str,
        }
        let (iat, exp) = ((now - JWT_BACKDATED).as_second(), (now + JWT_LIFETIME).as_second());
        let claims = Claims { iat, exp, iss: &self.app_id };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key)
            .map(SecretString::from)
            .map_err(|error| GitHubError::SecretUnusable(format!("cannot sign with private_key: {error}")))
    }

    /// The id of the app's installation on the account of a scope.
    async fn find_installation(&self, scope: &Scope, now: Timestamp) -> Result<u64, GitHubError> {
        #[derive(Deserialize)]
        struct Found {
            id: u64,
            suspended_at: Option<Timestamp>,
        }
        let denied = |message: String| GitHubError::Denied(message.into());
        let answer = self.send_as_app(Method::GET, &installation_path(scope), NO_BODY, now).await?;
        match answer.status() {
            StatusCode::OK => {
                let found: Found = parse(answer).await?;
                match found.suspended_at {
                    Some(since) => Err(denied(format!("the app is suspended on {scope} since {since}"))),
                    None => Ok(found.id),
                }
            }
            StatusCode::NOT_FOUND => Err(denied(format!("the app is not installed on {scope}: install it there"))),
            _ => Err(error(answer, now).await),
        }
    }

    /// Creates a token of the app's installation on the account of a scope. `known` is the installation that the account had
    /// last; if it is gone, the account may have installed the app again, or another app.
    pub(super) async fn new_token(
        self: Arc<Self>,
        scope: &Scope,
        known: Option<u64>,
        now: Timestamp,
    ) -> Result<NewToken, GitHubError> {
        if let Some(known) = known
            && let Some(made) = self.clone().create_token(known, now).await?
        {
            return Ok(made);
        }
        let installation = self.find_installation(scope, now).await?;
        let gone = || GitHubError::Denied(format!("installation {installation} no longer exists").into());
        self.create_token(installation, now).await?.ok_or_else(gone)
    }

    /// Creates a token of an installation. None if the installation does not exist.
    async fn create_token(self: Arc<Self>, installation: u64, now: Timestamp) -> Result<Option<NewToken>, GitHubError> {
        #[derive(Deserialize)]
        struct Created {
            token: SecretString,
            expires_at: Timestamp,
        }
        let path = format!("/app/installations/{installation}/access_tokens");
        let answer = self.send_as_app(Method::POST, &path, NO_BODY, now).await?;
        match answer.status() {
            StatusCode::CREATED => {
                let Created { token, expires_at } = parse(answer).await?;
                Ok(Some(NewToken { installation, token: Token { text: token, client: self }, expires_at }))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(error(answer, now).await),
        }
    }
}

/// A token of an installation that was just created.
pub(super) struct NewToken {
    pub(super) installation: u64,
    pub(super) token: Token,
    pub(super) expires_at: Timestamp,
}

/// A token of an installation, with the client of the app that it belongs to.
#[derive(Clone)]
pub(super) struct Token {
    text: SecretString,
    client: Arc<Client>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(<secret>)")
    }
}

impl Token {
    pub(super) fn is(&self, other: &Self) -> bool {
        self.text.expose_secret() == other.text.expose_secret()
    }

    /// Sends a request that authenticates as the installation.
    pub(super) async fn send<B: Serialize + ?Sized>(&self, request: Request<'_, B>) -> Result<Response, GitHubError> {
        self.client.send(request, &self.text).await
    }

    /// Distinguishes tokens without revealing them.
    pub(super) fn mark(&self) -> TokenMark {
        let mut hasher = DefaultHasher::new();
        self.text.expose_secret().hash(&mut hasher);
        TokenMark(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_roots_include_the_cas_that_sign_githubs_certificates() {
        let signers = [
            "USERTrust ECC Certification Authority",
            "Sectigo Public Server Authentication Root E46",
            "DigiCert Global Root G2",
            "ISRG Root X1",
        ];
        for signer in signers {
            let names = |root: &[u8]| root.windows(signer.len()).any(|part| part == signer.as_bytes());
            assert!(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().any(|root| names(root)), "{signer}");
        }
    }

    #[test]
    fn a_client_can_be_built_with_each_kind_of_roots() {
        for roots in [PublicRoots::BuiltIn, PublicRoots::System] {
            assert!(http_client(roots).is_ok(), "{roots:?}");
        }
    }
}
