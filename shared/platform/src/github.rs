//! GitHub's REST API, as the app and as its installations.
//!
//! Rate limits are answers like any other here: they are reported, never waited for. Whoever has time decides what waits.

mod app;
mod app_manifest;
mod etag_cache;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::ids::{JobId, Owner, Repository, RunId, RunnerId, RunnerName, Scope, StackName};
use domain::wire::JobNotice;
use engine::ports::{
    Budget, CheckRunUpdate, Clock, DeliveryAttempt, Deregistered, FoundJob, GitHub, GitHubAnswer, GitHubError,
    ObservedRunner, Registered, Registration, Rerun, Source,
};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::{ETAG, HeaderMap, IF_NONE_MATCH};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OnceCell};

pub use self::app::{About, Attempt, Hook, Installed, Permissions};
pub use self::app_manifest::{HookAttributes, Made, Manifest, app_secret, convert, web_url};
use self::etag_cache::{Answers, Budgets, Known};
pub use self::watch::RunnerGroup;
use crate::clock::SystemClock;
use crate::secrets::Secret;
use crate::workflow_job::WorkflowJob;

/// Where GitHub's API is unless told otherwise.
pub const API_URL: &str = "https://api.github.com";

/// A healthy API accepts a connection within milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A JIT config takes GitHub 0.7 s; an answer that takes longer than this is as good as lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// GitHub refuses a JWT whose `exp` is more than 10 minutes ahead of its own clock; ours may be ahead of that.
const JWT_GOOD_FOR: SignedDuration = SignedDuration::from_mins(8);

/// GitHub recommends to date a JWT back, for clocks that are behind.
const JWT_DATED_BACK: SignedDuration = SignedDuration::from_secs(120);

/// A token is renewed so long before it ends (after an hour): no call may begin with one that ends on its way, on a clock
/// that is two minutes wrong.
const TOKEN_MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// GitHub: "wait for at least one minute" when a limit names no time.
const LEAST_WAIT: SignedDuration = SignedDuration::from_mins(1);

/// GitHub's largest page of runners.
const PER_PAGE: usize = 100;

/// A runner group holds at most 10,000 runners; an organisation may have several.
const PAGES: usize = 1000;

/// GitHub sends whoever calls a renamed repository on to its number: once, or twice after another renaming.
const REDIRECTS: usize = 3;

/// GitHub's API at an app's service.
#[derive(Debug)]
pub struct GitHubApp {
    secret: Secret,
    api_url: Option<String>,
    app: OnceCell<App>,
    installations: StdMutex<HashMap<Owner, Arc<Mutex<Installation>>>>,
    answers: Answers,
    budgets: Budgets,
}

/// What the app's secret says, and the client for it.
struct App {
    id: String,
    key: EncodingKey,
    api_url: String,
    http: reqwest::Client,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("id", &self.id).field("api_url", &self.api_url).finish_non_exhaustive()
    }
}

/// What is known of the app's installation on an account. Its lock is held while a token is made, so that a burst of
/// registrations makes one; other accounts do not wait for it.
#[derive(Debug, Default)]
struct Installation {
    id: Option<u64>,
    token: Option<(Token, Timestamp)>,
}

#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

/// The app's secret, as `drover` and the operator write it.
#[derive(Deserialize)]
struct AppSecret {
    app_id: AppId,
    private_key: String,
    #[serde(default)]
    api_url: Option<String>,
}

/// Written by hand, it is a number as often as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum AppId {
    Number(u64),
    Text(String),
}

#[derive(Serialize)]
struct Claims<'a> {
    iat: i64,
    exp: i64,
    iss: &'a str,
}

impl GitHubApp {
    /// The app of that secret. Makes no call: the first use reads the secret.
    pub fn new(secret: Secret, api_url: Option<String>) -> Self {
        Self {
            secret,
            api_url,
            app: OnceCell::new(),
            installations: StdMutex::default(),
            answers: Answers::default(),
            budgets: Budgets::default(),
        }
    }

    /// Takes the figures of what may still be asked.
    pub(crate) fn record_budgets(&self) {
        self.budgets.measure();
    }

    async fn app(&self) -> Result<&App, GitHubError> {
        self.app.get_or_try_init(|| self.read_app()).await
    }

    async fn read_app(&self) -> Result<App, GitHubError> {
        let text = self.secret.read().await.map_err(|error| GitHubError::SecretUnreadable {
            message: error.to_string(),
            source: Some(Source::new(error)),
        })?;
        App::of(&text, self.api_url.clone())
    }

    fn installation(&self, owner: &Owner) -> Arc<Mutex<Installation>> {
        let mut all = self.installations.lock().expect("nobody panics while holding it");
        all.entry(owner.clone()).or_default().clone()
    }

    /// A token for the account of the scope.
    async fn token(&self, app: &App, scope: &Scope) -> Result<Token, GitHubError> {
        let installation = self.installation(scope.owner());
        let mut installation = installation.lock().await;
        let now = SystemClock.now();
        if let Some((token, until)) = &installation.token
            && now < *until
        {
            return Ok(token.clone());
        }
        let id = match installation.id {
            Some(id) => id,
            None => app.find_installation(scope, now).await?,
        };
        installation.id = None;
        let (token, expires_at) = app.make_token(id, now).await?;
        *installation = Installation { id: Some(id), token: Some((token.clone(), expires_at - TOKEN_MARGIN)) };
        Ok(token)
    }

    /// A call as the installation.
    async fn call<B: Serialize + ?Sized + Sync>(
        &self,
        method: Method,
        scope: &Scope,
        path: &str,
        body: Option<&B>,
    ) -> Result<Response, GitHubError> {
        self.call_unless(None, method, scope, path, body).await
    }

    /// The same, unless the answer is still the one with that tag: then it is 304. A token that GitHub refuses (the app was
    /// installed anew, say) is forgotten, and the call made once more with a fresh one.
    async fn call_unless<B: Serialize + ?Sized + Sync>(
        &self,
        tag: Option<&str>,
        method: Method,
        scope: &Scope,
        path: &str,
        body: Option<&B>,
    ) -> Result<Response, GitHubError> {
        let app = self.app().await?;
        let token = self.token(app, scope).await?;
        let mut answer = app.send(tag, method.clone(), path, &token.0, body).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            *self.installation(scope.owner()).lock().await = Installation::default();
            let token = self.token(app, scope).await?;
            answer = app.send(tag, method, path, &token.0, body).await?;
        }
        self.budgets.hear(scope.owner(), answer.headers());
        Ok(answer)
    }

    /// A call in the app's own name.
    async fn call_as_app<B: Serialize + ?Sized + Sync>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Response, GitHubError> {
        let app = self.app().await?;
        app.send(None, method, path, &app.jwt(SystemClock.now())?, body).await
    }

    /// Reads something of a repository that is read again and again: if it has not changed, GitHub says only that, and
    /// charges nothing for it.
    async fn read<T: DeserializeOwned>(
        &self,
        repository: &Repository,
        path: &str,
    ) -> Result<Result<T, Missing>, GitHubError> {
        let (known, scope) = (self.answers.known(path), Scope::Repository(repository.clone()));
        let tag = known.as_ref().map(|known| known.tag.as_str());
        let answer = self.call_unless(tag, Method::GET, &scope, path, NO_BODY).await?;
        match (answer.status(), known) {
            (StatusCode::NOT_MODIFIED, Some(known)) => parsed(&known.body).map(Ok),
            (StatusCode::OK, _) => {
                let tag = answer.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(ToOwned::to_owned);
                let body = answer.bytes().await.map_err(lost)?;
                let read = parsed(&body)?;
                if let Some(tag) = tag {
                    self.answers.keep(path.to_owned(), Known { tag, body: body.into() });
                }
                Ok(Ok(read))
            }
            (StatusCode::NOT_FOUND, _) => {
                Ok(Err(Missing(GitHubAnswer { code: Some(404), message: format!("GitHub knows no {path}") })))
            }
            _ => Err(failed(answer, SystemClock.now()).await),
        }
    }
}

/// 404: not there, or not ours to see.
#[derive(Debug)]
struct Missing(GitHubAnswer);

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, GitHubError> {
    serde_json::from_slice(body)
        .map_err(|error| GitHubError::unavailable(format!("an answer of another form: {error}")))
}

/// Follows GitHub on the same host only: what leads elsewhere would take the request's body there.
fn renamed() -> Policy {
    Policy::custom(|attempt| {
        let from = attempt.previous().last();
        let same = from.is_some_and(|from| from.origin() == attempt.url().origin());
        if same && attempt.previous().len() <= REDIRECTS { attempt.follow() } else { attempt.stop() }
    })
}

const NO_BODY: Option<&()> = None;

fn client() -> Result<reqwest::Client, GitHubError> {
    reqwest::Client::builder()
        .user_agent(concat!("drover/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .redirect(renamed())
        .build()
        .map_err(|error| GitHubError::unavailable(format!("no HTTP client: {error}")))
}

impl App {
    /// The app of a secret's text, at the address given, or else at that in the text.
    fn of(text: &str, api_url: Option<String>) -> Result<App, GitHubError> {
        let unusable = |why: String| GitHubError::SecretUnusable(why);
        // serde_json's message could quote the key.
        let expected =
            || unusable("it must be JSON of the form {\"app_id\": ..., \"private_key\": \"...\"}".to_owned());
        let secret: AppSecret = serde_json::from_str(text).map_err(|_| expected())?;
        let key = EncodingKey::from_rsa_pem(secret.private_key.as_bytes())
            .map_err(|error| unusable(format!("private_key is no RSA key in PEM: {error}")))?;
        let api_url = api_url.or(secret.api_url).unwrap_or_else(|| API_URL.to_owned());
        let id = match secret.app_id {
            AppId::Number(id) => id.to_string(),
            AppId::Text(id) => id,
        };
        Ok(App { id, key, api_url: api_url.trim_end_matches('/').to_owned(), http: client()? })
    }

    async fn send<B: Serialize + ?Sized>(
        &self,
        tag: Option<&str>,
        method: Method,
        path: &str,
        bearer: &str,
        body: Option<&B>,
    ) -> Result<Response, GitHubError> {
        let request = self
            .http
            .request(method, format!("{}{path}", self.api_url))
            .bearer_auth(bearer)
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28");
        let request = match tag {
            Some(tag) => request.header(IF_NONE_MATCH, tag),
            None => request,
        };
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        request.send().await.map_err(lost)
    }

    fn jwt(&self, now: Timestamp) -> Result<String, GitHubError> {
        let claims =
            Claims { iat: (now - JWT_DATED_BACK).as_second(), exp: (now + JWT_GOOD_FOR).as_second(), iss: &self.id };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key)
            .map_err(|error| GitHubError::SecretUnusable(format!("cannot sign as the app: {error}")))
    }

    fn installation_path(scope: &Scope) -> String {
        match scope {
            Scope::Organization(owner) => format!("/orgs/{owner}/installation"),
            Scope::Repository(repository) => format!("/repos/{repository}/installation"),
        }
    }

    async fn find_installation(&self, scope: &Scope, now: Timestamp) -> Result<u64, GitHubError> {
        #[derive(Deserialize)]
        struct Found {
            id: u64,
            suspended_at: Option<Timestamp>,
        }
        let answer = self.send(None, Method::GET, &Self::installation_path(scope), &self.jwt(now)?, NO_BODY).await?;
        match answer.status() {
            StatusCode::OK => {
                let found: Found = answer.json().await.map_err(lost)?;
                match found.suspended_at {
                    Some(since) => {
                        Err(GitHubError::Denied(format!("the app is suspended on {scope} since {since}").into()))
                    }
                    None => Ok(found.id),
                }
            }
            StatusCode::NOT_FOUND => {
                Err(GitHubError::Denied(format!("the app is not installed on {scope}: install it there").into()))
            }
            _ => Err(failed(answer, now).await),
        }
    }

    async fn make_token(&self, installation: u64, now: Timestamp) -> Result<(Token, Timestamp), GitHubError> {
        #[derive(Deserialize)]
        struct Made {
            token: String,
            expires_at: Timestamp,
        }
        let path = format!("/app/installations/{installation}/access_tokens");
        let answer = self.send(None, Method::POST, &path, &self.jwt(now)?, NO_BODY).await?;
        match answer.status() {
            StatusCode::CREATED => {
                let made: Made = answer.json().await.map_err(lost)?;
                Ok((Token(made.token), made.expires_at))
            }
            StatusCode::NOT_FOUND => {
                Err(GitHubError::Denied(format!("there is no installation {installation} any more").into()))
            }
            _ => Err(failed(answer, now).await),
        }
    }
}

/// No answer, or half of one: it may have happened. The URL is left out, as it says nothing that the caller does not know.
fn lost(error: reqwest::Error) -> GitHubError {
    let error = error.without_url();
    let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
    let message = format!("{error}{source}");
    GitHubError::Unavailable { message, source: Some(Source::new(error)) }
}

/// What an answer that is none of the expected ones means.
async fn failed(answer: Response, now: Timestamp) -> GitHubError {
    #[derive(Deserialize, Default)]
    struct Said {
        #[serde(default)]
        message: String,
    }
    let (status, headers) = (answer.status(), answer.headers().clone());
    let said: Said = answer.json().await.unwrap_or_default();
    if let Some(until) = limit(status, &headers, &said.message, now) {
        return GitHubError::Limited { until, message: format!("{status}: {}", said.message) };
    }
    let answer = GitHubAnswer { code: Some(status.as_u16()), message: said.message };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => GitHubError::Denied(answer),
        status if status.is_client_error() => GitHubError::Refused(answer),
        _ => GitHubError::unavailable(answer.to_string()),
    }
}

/// Until when a rate limit asks us to wait; None if the answer is not one.
///
/// From GitHub's "Best practices for using the REST API": `retry-after`, else `x-ratelimit-reset` if nothing remains, else
/// at least a minute.
fn limit(status: StatusCode, headers: &HeaderMap, message: &str, now: Timestamp) -> Option<Timestamp> {
    if !matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    if let Some(seconds) = number("retry-after") {
        return Some(now + SignedDuration::from_secs(seconds.clamp(1, 24 * 3600)));
    }
    if number("x-ratelimit-remaining") == Some(0) {
        let reset = number("x-ratelimit-reset").and_then(|at| Timestamp::from_second(at).ok());
        return Some(reset.filter(|at| *at > now).unwrap_or(now + LEAST_WAIT));
    }
    let is_limit = status == StatusCode::TOO_MANY_REQUESTS || message.to_ascii_lowercase().contains("rate limit");
    is_limit.then_some(now + LEAST_WAIT)
}

/// `/orgs/{org}/actions/runners` or `/repos/{owner}/{repo}/actions/runners`.
fn runners_path(scope: &Scope) -> String {
    match scope {
        Scope::Organization(owner) => format!("/orgs/{owner}/actions/runners"),
        Scope::Repository(repository) => format!("/repos/{repository}/actions/runners"),
    }
}

#[derive(Deserialize)]
struct Runner {
    id: u64,
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    busy: bool,
}

#[async_trait]
impl GitHub for GitHubApp {
    async fn register(&self, registration: &Registration) -> Result<Registered, GitHubError> {
        #[derive(Serialize)]
        struct Wanted<'a> {
            name: String,
            runner_group_id: u64,
            labels: Vec<&'a str>,
        }
        #[derive(Deserialize)]
        struct Made {
            runner: Runner,
            encoded_jit_config: String,
        }
        let scope = &registration.scope;
        let wanted = Wanted {
            name: registration.name.to_string(),
            runner_group_id: registration.group,
            labels: registration.labels.iter().map(|label| label.as_str()).collect(),
        };
        let path = format!("{}/generate-jitconfig", runners_path(scope));
        let answer = self.call(Method::POST, scope, &path, Some(&wanted)).await?;
        match answer.status() {
            StatusCode::CREATED => {
                let made: Made = answer.json().await.map_err(lost)?;
                Ok(Registered { runner_id: RunnerId(made.runner.id), jit_config: made.encoded_jit_config })
            }
            StatusCode::CONFLICT => Err(GitHubError::NameTaken),
            _ => Err(failed(answer, SystemClock.now()).await),
        }
    }

    async fn runners(&self, scope: &Scope, stack: &StackName) -> Result<Vec<ObservedRunner>, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            runners: Vec<Runner>,
        }
        let prefix = RunnerName::prefix(stack);
        let mut ours = Vec::new();
        for page in 1..=PAGES {
            let path = format!("{}?per_page={PER_PAGE}&page={page}", runners_path(scope));
            let answer = self.call(Method::GET, scope, &path, NO_BODY).await?;
            if answer.status() != StatusCode::OK {
                return Err(failed(answer, SystemClock.now()).await);
            }
            let listed: Page = answer.json().await.map_err(lost)?;
            let last = listed.runners.is_empty() || page * PER_PAGE >= listed.total_count;
            ours.extend(listed.runners.into_iter().filter(|runner| runner.name.starts_with(&prefix)).map(|runner| {
                ObservedRunner {
                    id: RunnerId(runner.id),
                    online: runner.status == "online",
                    busy: runner.busy,
                    name: runner.name,
                }
            }));
            if last {
                return Ok(ours);
            }
        }
        Err(GitHubError::unavailable(format!("{scope} has more runners than fit {PAGES} pages")))
    }

    async fn deregister(&self, scope: &Scope, runner: RunnerId) -> Result<Deregistered, GitHubError> {
        let path = format!("{}/{runner}", runners_path(scope));
        let answer = self.call(Method::DELETE, scope, &path, NO_BODY).await?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(Deregistered::Removed),
            StatusCode::NOT_FOUND => Ok(Deregistered::AlreadyGone),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Deregistered::Busy),
            _ => Err(failed(answer, SystemClock.now()).await),
        }
    }

    async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobNotice>, GitHubError> {
        let read = self.read::<WorkflowJob>(repository, &format!("/repos/{repository}/actions/jobs/{job}")).await?;
        Ok(read.ok().map(Into::into))
    }

    async fn run_jobs(&self, repository: &Repository, run: RunId) -> Result<Vec<JobNotice>, GitHubError> {
        self.run_jobs(repository, run).await
    }

    async fn jobs_under_way(&self, repository: &Repository) -> Result<Vec<FoundJob>, GitHubError> {
        self.jobs_under_way(repository).await
    }

    async fn deliveries(&self, since: Timestamp) -> Result<Vec<DeliveryAttempt>, GitHubError> {
        self.deliveries(since).await
    }

    async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        self.redeliver(attempt).await
    }

    async fn write_check_run(&self, update: &CheckRunUpdate) -> Result<u64, GitHubError> {
        self.write_check_run(update).await
    }

    async fn rerun(&self, repository: &Repository, job: JobId) -> Result<Rerun, GitHubError> {
        self.rerun(repository, job).await
    }

    fn budget(&self, owner: &Owner) -> Option<Budget> {
        self.budgets.of(owner, SystemClock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_limit_is_told_from_a_refusal_and_says_until_when() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let after = |seconds| Some(now + SignedDuration::from_secs(seconds));
        let forbidden = StatusCode::FORBIDDEN;
        assert_eq!(limit(forbidden, &headers(&[("retry-after", "30")]), "", now), after(30));
        let used_up = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000900")]);
        assert_eq!(limit(forbidden, &used_up, "", now), after(900));
        let past = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")]);
        assert_eq!(limit(forbidden, &past, "", now), after(60), "a reset that is past is no reason to call at once");
        assert_eq!(limit(StatusCode::TOO_MANY_REQUESTS, &headers(&[]), "", now), after(60));
        assert_eq!(limit(forbidden, &headers(&[]), "You have exceeded a secondary rate limit", now), after(60));
        assert_eq!(limit(forbidden, &headers(&[("x-ratelimit-remaining", "9")]), "Resource not accessible", now), None);
        assert_eq!(limit(StatusCode::NOT_FOUND, &headers(&[("retry-after", "30")]), "", now), None);
    }
}
