//! Callers of the API: who signed a call, and how each answer is sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::ports::Clock;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use platform::clock::SystemClock;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::github::{Caller as Charged, Failure, InstallationId, Paging, Reader};

use crate::calls::{Calls, hang_up};
use crate::permissions::Caller;
use crate::state::{State, World};

/// The longest life of a JWT that GitHub accepts, in seconds.
const LONGEST_JWT: i64 = 600;

/// The app's key pair.
#[derive(Clone)]
pub struct AppKey {
    /// In PEM form, for Drover.
    pub private: String,
    public: DecodingKey,
}

impl AppKey {
    /// Generates a key pair.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub fn generate() -> anyhow::Result<Self> {
        let failed = |_| anyhow::anyhow!("cannot make an RSA key");
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(failed)?;
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
        Ok(Self {
            private: format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")),
            public: DecodingKey::from_rsa_der(pair.public_key().as_ref()),
        })
    }
}

impl std::fmt::Debug for AppKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppKey(<secret>)")
    }
}

/// The key that GitHub accepts. It can be replaced.
#[derive(Debug)]
pub struct AcceptedKey(Mutex<AppKey>);

impl AcceptedKey {
    pub fn new(key: AppKey) -> Self {
        Self(Mutex::new(key))
    }

    pub fn get(&self) -> AppKey {
        self.0.lock().expect("nobody panics while holding it").clone()
    }

    /// From now on GitHub accepts only this key.
    pub fn replace(&self, key: AppKey) {
        *self.0.lock().expect("nobody panics while holding it") = key;
    }
}

/// GitHub's API.
#[derive(Debug)]
pub struct Api {
    pub world: Arc<World>,
    pub calls: Arc<Calls>,
    /// Verifies the app's JWTs.
    pub key: Arc<AcceptedKey>,
    /// How long it takes to register a runner.
    pub registration: Duration,
}

/// Status and body of an answer.
pub(super) type Answered = Result<(StatusCode, Value), Failure>;

impl Api {
    /// A call of the app, authenticated by a JWT.
    pub(super) async fn as_app(
        &self,
        operation: &str,
        headers: &HeaderMap,
        act: impl FnOnce(&mut State, Timestamp) -> Answered,
    ) -> Response {
        let is_app = self.signed_by_app(headers);
        let answer = async {
            self.world.act(|state, now| {
                let done = if is_app { act(state, now) } else { Err(Failure::Unauthorized) };
                respond(state, Charged::App, done, now)
            })
        };
        self.calls.answer(&Caller::ControlPlane, "", "GitHub", operation, answer).await
    }

    /// A call of an installation, authenticated by its token. If the caller has the current answer already, the call is
    /// answered with 304 and does not count towards the hourly limit.
    pub(super) async fn as_installation(
        &self,
        operation: &str,
        headers: &HeaderMap,
        act: impl FnOnce(&mut State, InstallationId, Timestamp) -> Answered,
    ) -> Response {
        let only_installations = |state: &mut State, reader, now| match reader {
            Reader::Installation(installation) => act(state, installation, now),
            Reader::User(_) => Err(Failure::Forbidden("Resource not accessible by personal access token".to_owned())),
        };
        self.as_reader(operation, headers, only_installations).await
    }

    /// A call of an installation or a user, authenticated by the token.
    pub(super) async fn as_reader(
        &self,
        operation: &str,
        headers: &HeaderMap,
        act: impl FnOnce(&mut State, Reader, Timestamp) -> Answered,
    ) -> Response {
        let token = bearer(headers).to_owned();
        let answer = async {
            self.world.act(|state, now| match state.github.reader(&token, now) {
                Ok(caller) => {
                    let charged = Charged::from(caller);
                    let done = act(state, caller, now);
                    let tag = match &done {
                        Ok((StatusCode::OK, body)) if operation.starts_with("GET ") => Some(entity_tag(body, &token)),
                        _ => None,
                    };
                    let known = headers.get("if-none-match").and_then(|known| known.to_str().ok());
                    let unchanged = tag.is_some() && known == tag.as_deref();
                    let mut answer = match unchanged {
                        true => {
                            state.github.not_modified(charged, now);
                            respond(state, charged, Ok((StatusCode::NOT_MODIFIED, Value::Null)), now)
                        }
                        false => respond(state, charged, done, now),
                    };
                    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
                        answer.headers_mut().insert("etag", tag);
                    }
                    answer
                }
                Err(error) => respond(state, Charged::Anonymous, Err(error), now),
            })
        };
        self.calls.answer(&Caller::ControlPlane, "", "GitHub", operation, answer).await
    }

    /// Whether the JWT is valid: RS256, `iss` is the app, and by GitHub's clock `iat` is not in the future and `exp` at most
    /// ten minutes ahead.
    fn signed_by_app(&self, headers: &HeaderMap) -> bool {
        #[derive(Deserialize)]
        struct Claims {
            iat: i64,
            exp: i64,
            iss: String,
        }
        let mut rules = Validation::new(Algorithm::RS256);
        rules.validate_aud = false;
        rules.validate_exp = false;
        let Ok(token) = jsonwebtoken::decode::<Claims>(bearer(headers), &self.key.get().public, &rules) else {
            return false;
        };
        let (app, ahead) = self.world.look(|state| (state.github.app().id, state.github_ahead));
        let (claims, now) = (token.claims, (SystemClock.now() + ahead).as_second());
        claims.iss == app.to_string() && claims.iat <= now && (now + 1..=now + LONGEST_JWT).contains(&claims.exp)
    }
}

/// The query parameters of a list.
#[derive(Deserialize)]
pub(super) struct List {
    pub(super) page: Option<usize>,
    pub(super) per_page: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) status: Option<String>,
    pub(super) filter: Option<String>,
    pub(super) cursor: Option<String>,
    pub(super) visible_to_repository: Option<String>,
    pub(super) created: Option<String>,
}

impl List {
    pub(super) fn paging(&self) -> Paging {
        Paging { page: self.page.unwrap_or(1), per_page: self.per_page.unwrap_or(30) }
    }
}

/// A request's body.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Unprocessable(error.to_string()))
}

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.strip_prefix("Bearer ").unwrap_or_default()
}

/// A weak ETag, as GitHub's are. Equal bodies have equal tags for the same token, and different ones for another token.
fn entity_tag(body: &Value, token: &str) -> String {
    format!("W/\"{}\"", hex::encode(Sha256::digest(format!("{token} {body}"))))
}

pub(super) fn respond(state: &mut State, caller: Charged, done: Answered, now: Timestamp) -> Response {
    let (github, ahead) = (&mut state.github, state.github_ahead);
    let mut answer = match done {
        Ok((status @ (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED), _)) => status.into_response(),
        Ok((status, body)) => (status, Json(body)).into_response(),
        Err(Failure::NoReply) => return hang_up(),
        Err(failure) => {
            let status = failure.status().and_then(|status| StatusCode::from_u16(status).ok());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = json!({
                "message": failure.to_string(), "documentation_url": "https://docs.github.com/rest",
                "status": status.as_str(),
            });
            let mut answer = (status, Json(body)).into_response();
            match failure {
                Failure::SecondaryLimit { until } => {
                    let seconds = until.duration_since(now).as_secs().max(0) + 1;
                    answer.headers_mut().insert("retry-after", HeaderValue::from(seconds));
                }
                Failure::PrimaryLimit { reset } => {
                    answer.headers_mut().insert("x-ratelimit-remaining", HeaderValue::from(0));
                    answer.headers_mut().insert("x-ratelimit-reset", HeaderValue::from((reset + ahead).as_second()));
                }
                _ => {}
            }
            answer
        }
    };
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&(now + ahead));
    if let Some(date) = date.ok().and_then(|date| HeaderValue::from_str(&date).ok()) {
        answer.headers_mut().insert("date", date);
    }
    let rate = github.rate(caller, now);
    let shown = [
        ("x-ratelimit-limit", rate.limit as i64),
        ("x-ratelimit-remaining", rate.limit.saturating_sub(rate.used) as i64),
        ("x-ratelimit-reset", (rate.reset + ahead).as_second()),
    ];
    for (name, value) in shown {
        answer.headers_mut().entry(HeaderName::from_static(name)).or_insert(HeaderValue::from(value));
    }
    answer
}
