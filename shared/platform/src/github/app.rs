//! The GitHub App: its calls as itself and as its installations, with their tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex};

use domain::ids::{Owner, Repository, Scope};
use engine::app_key::AppKey;
use engine::ports::{Budget, Clock, GitHubAnswer, GitHubError, TokenMark};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::ETAG;
use reqwest::{Method, Response, StatusCode};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::answer::{error, parse_body, read_body};
use super::api_url::ApiUrl;
use super::budgets::Budgets;
use super::client::{Client, NO_BODY, PublicRoots, Request, Token};
use super::etag_cache::{CachedAnswer, EtagCache};
use crate::clock::SystemClock;
use crate::secrets::Secret;

/// How long before its end (after an hour) a token is replaced. No call may begin with a token that ends during the call,
/// even if the local clock is two minutes wrong.
const TOKEN_MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// The GitHub App.
#[derive(Debug)]
pub struct GitHubApp {
    client: Source,
    installations: StdMutex<HashMap<Owner, Arc<Mutex<Installation>>>>,
    answers: EtagCache,
    budgets: Budgets,
}

/// Where the client gets the app's key from.
#[derive(Debug)]
enum Source {
    /// A secret, which is read again when GitHub refuses the key.
    Secret { secret: Secret, key: AppKey<Client> },
    /// A text that is not stored. No other key takes its place.
    Text(Arc<Client>),
}

/// The app's installation on one account. Its lock is held while a token is created, so that concurrent calls create one
/// token; calls for other accounts do not wait.
#[derive(Debug, Default)]
struct Installation {
    id: Option<u64>,
    /// The token, and when to replace it.
    token: Option<(Token, Timestamp)>,
}

/// GitHub answered 404: the resource does not exist, or the app may not see it.
#[derive(Debug)]
pub(super) struct NotFound(pub(super) GitHubAnswer);

/// A resource that was read.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) resource: T,
    /// How many calls counted towards the hourly limit: 0 or 1.
    pub(super) counted: u32,
}

impl GitHubApp {
    /// The app whose id and key are in a secret. Makes no call: the first use reads the secret.
    pub fn new(secret: Secret, api_url: Option<ApiUrl>, roots: PublicRoots) -> Self {
        let parse = move |text: &SecretString| Client::from_secret(text, api_url.clone(), roots);
        Self::with(Source::Secret { secret, key: AppKey::new(parse) })
    }

    /// The app whose id and key are in a text that is not stored yet, to ask GitHub about it first.
    ///
    /// # Errors
    /// If the text is not an app's secret.
    pub fn of_text(text: &str, api_url: Option<ApiUrl>) -> Result<Self, GitHubError> {
        let client = Client::from_secret(&SecretString::from(text), api_url, PublicRoots::System)?;
        Ok(Self::with(Source::Text(Arc::new(client))))
    }

    fn with(client: Source) -> Self {
        Self { client, installations: StdMutex::default(), answers: EtagCache::default(), budgets: Budgets::default() }
    }

    /// Records what is left of the accounts' rate limits as metrics.
    pub(crate) fn record_budgets(&self) {
        self.budgets.record();
    }

    pub(super) fn budget_of(&self, owner: &Owner) -> Option<Budget> {
        self.budgets.of(owner, SystemClock.now())
    }

    /// Makes a call with the app's key. If GitHub refuses the key, the call is made once more with the key that the secret has
    /// now: the key may have been rotated, or the app replaced.
    async fn with_key<A, F: Future<Output = A>>(
        &self,
        call: impl Fn(Arc<Client>) -> F,
        is_refused: impl Fn(&A) -> bool,
    ) -> Result<A, GitHubError> {
        match &self.client {
            Source::Secret { secret, key } => key.call(secret, &SystemClock, call, is_refused).await,
            Source::Text(client) => Ok(call(client.clone()).await),
        }
    }

    fn installation(&self, owner: &Owner) -> Arc<Mutex<Installation>> {
        let mut all = self.installations.lock().expect("no thread panics while it holds the lock");
        all.entry(owner.clone()).or_default().clone()
    }

    /// The app is, or was, installed on the account. If GitHub does not know this installation any more, it is looked up.
    pub(super) fn remember_installation(&self, owner: &Owner, installation: u64) {
        // Locked while a token is created: then the installation is known.
        if let Ok(mut known) = self.installation(owner).try_lock() {
            known.id.get_or_insert(installation);
        }
    }

    /// A token of the installation on the account of a scope.
    async fn token(&self, scope: &Scope) -> Result<Token, GitHubError> {
        let installation = self.installation(scope.owner());
        let mut installation = installation.lock().await;
        let now = SystemClock.now();
        if let Some((token, until)) = &installation.token
            && now < *until
        {
            return Ok(token.clone());
        }
        let known = std::mem::take(&mut *installation).id;
        let call = |client: Arc<Client>| async move { client.new_token(scope, known, now).await };
        // "Not installed" and "suspended" are refusals as well: the secret may name another app now.
        let made = self.with_key(call, |made| matches!(made, Err(GitHubError::Denied(_)))).await??;
        let token = made.token.clone();
        *installation =
            Installation { id: Some(made.installation), token: Some((made.token, made.expires_at - TOKEN_MARGIN)) };
        Ok(token)
    }

    /// Forgets a token that GitHub refused, unless a concurrent call has replaced it already.
    async fn forget(&self, scope: &Scope, refused: &Token) {
        let installation = self.installation(scope.owner());
        let mut installation = installation.lock().await;
        if installation.token.as_ref().is_some_and(|(token, _)| token.is(refused)) {
            *installation = Installation::default();
        }
    }

    /// Calls GitHub as the app itself.
    pub(super) async fn call_as_app<B: Serialize + ?Sized + Sync>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Response, GitHubError> {
        let method = &method;
        let call = |client: Arc<Client>| async move {
            client.send_as_app(method.clone(), path, body, SystemClock.now()).await
        };
        self.with_key(call, |answer| answer.as_ref().is_ok_and(is_unauthorized)).await?
    }

    /// Calls GitHub as the installation on the account of a scope.
    pub(super) async fn call<B: Serialize + ?Sized + Sync>(
        &self,
        method: Method,
        scope: &Scope,
        path: &str,
        body: Option<&B>,
    ) -> Result<Response, GitHubError> {
        self.send(scope, Request { method, path, body, if_changed_from: None }).await
    }

    /// Like [`Self::call`], with a mark of the token that GitHub accepted.
    pub(super) async fn call_marked<B: Serialize + ?Sized + Sync>(
        &self,
        method: Method,
        scope: &Scope,
        path: &str,
        body: Option<&B>,
    ) -> Result<(Response, TokenMark), GitHubError> {
        self.send_marked(scope, Request { method, path, body, if_changed_from: None }).await
    }

    async fn send<B: Serialize + ?Sized + Sync>(
        &self,
        scope: &Scope,
        request: Request<'_, B>,
    ) -> Result<Response, GitHubError> {
        self.send_marked(scope, request).await.map(|(answer, _)| answer)
    }

    /// Sends a request as the installation. If GitHub refuses the token, because the app was installed again, for example,
    /// the request is sent once more with a new token.
    async fn send_marked<B: Serialize + ?Sized + Sync>(
        &self,
        scope: &Scope,
        request: Request<'_, B>,
    ) -> Result<(Response, TokenMark), GitHubError> {
        let mut token = self.token(scope).await?;
        let mut answer = token.send(request.clone()).await?;
        if is_unauthorized(&answer) {
            self.forget(scope, &token).await;
            token = self.token(scope).await?;
            answer = token.send(request).await?;
        }
        self.budgets.update(scope.owner(), answer.headers());
        Ok((answer, token.mark()))
    }

    /// Reads a resource of a repository that is read repeatedly, see [`GitHubApp::read_cached`].
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        repository: &Repository,
        path: &str,
    ) -> Result<Result<Read<T>, NotFound>, GitHubError> {
        self.read_cached(&Scope::Repository(repository.clone()), path).await
    }

    /// Reads a resource that is read repeatedly. If the resource has not changed, GitHub answers 304, which does not count
    /// against the rate limit, and the cached answer is returned.
    ///
    /// GitHub's tags depend on the token: after its renewal, each answer is 200 once, with a new tag. A tag of another token
    /// is sent all the same, because GitHub Enterprise Server may treat it differently; the answer decides in any case.
    pub(super) async fn read_cached<T: DeserializeOwned>(
        &self,
        scope: &Scope,
        path: &str,
    ) -> Result<Result<Read<T>, NotFound>, GitHubError> {
        // The same path means another resource for another installation.
        let key = format!("{}{path}", scope.owner());
        let cached = self.answers.get(&key);
        let if_changed_from = cached.as_ref().map(|cached| cached.tag.as_str());
        let request = Request { method: Method::GET, path, body: NO_BODY, if_changed_from };
        let answer = self.send(scope, request).await?;
        match (answer.status(), cached) {
            (StatusCode::NOT_MODIFIED, Some(cached)) => {
                parse_body(&cached.body).map(|it| Ok(Read { resource: it, counted: 0 }))
            }
            (StatusCode::OK, _) => {
                let tag = answer.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(ToOwned::to_owned);
                let body = read_body(answer).await?;
                let resource = parse_body(&body)?;
                if let Some(tag) = tag {
                    self.answers.insert(key, CachedAnswer { tag, body });
                }
                Ok(Ok(Read { resource, counted: 1 }))
            }
            (StatusCode::NOT_FOUND, _) => {
                let message = format!("GitHub does not know {path}");
                Ok(Err(NotFound(GitHubAnswer { code: Some(404), message })))
            }
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }
}

fn is_unauthorized(answer: &Response) -> bool {
    answer.status() == StatusCode::UNAUTHORIZED
}
