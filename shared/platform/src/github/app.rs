//! The app itself, as its owner sets it up: what it may do, where its webhook goes, who installed it.

use std::collections::BTreeMap;

use domain::ids::Scope;
use engine::ports::{Clock, GitHubError};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::{App, GitHubApp, NO_BODY, failed, lost};
use crate::clock::{SystemClock, ahead};

/// Permissions by name, `read` or `write`.
pub type Permissions = BTreeMap<String, String>;

/// The app.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct About {
    /// Its id.
    pub id: u64,
    /// Its name in addresses.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// Its public page, from which it can be installed.
    pub html_url: String,
    /// What it asks for.
    pub permissions: Permissions,
    /// The events it is told of.
    pub events: Vec<String>,
}

/// Where the app's webhook goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The address.
    pub url: String,
    /// `json` or `form`.
    pub content_type: String,
    /// Whether GitHub checks the certificate there.
    pub checks_certificate: bool,
    /// Whether deliveries are signed. Which secret they are signed with, GitHub tells nobody.
    pub has_secret: bool,
}

/// The app on one account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Installed {
    /// What the account granted.
    pub permissions: Permissions,
    /// The events it is told of.
    pub events: Vec<String>,
    /// Since when it may do nothing.
    pub suspended_at: Option<Timestamp>,
    /// Its page, for the account's administrators.
    pub html_url: String,
}

/// One attempt to deliver.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attempt {
    /// Which attempt.
    pub id: u64,
    /// What was delivered; a redelivery has the same.
    pub guid: String,
    /// When.
    pub delivered_at: Timestamp,
    /// Whether somebody asked for it again.
    pub redelivery: bool,
    /// What came back, in GitHub's words.
    pub status: String,
    /// The same as HTTP says it.
    pub status_code: u16,
    /// What was told of.
    pub event: String,
}

impl Attempt {
    /// Whether the receiver took it.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status_code)
    }
}

impl GitHubApp {
    /// The app's own description.
    ///
    /// # Errors
    /// When its secret is unusable, or GitHub does not know it.
    pub async fn about(&self) -> Result<About, GitHubError> {
        let answer = self.call_as_app(Method::GET, "/app", NO_BODY).await?;
        match answer.status() {
            StatusCode::OK => answer.json().await.map_err(lost),
            _ => Err(failed(answer, SystemClock.now()).await),
        }
    }

    /// How far GitHub's clock is ahead of ours. It tells that to callers whom it refuses, too.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn clock_ahead(&self) -> Result<SignedDuration, GitHubError> {
        let answer = self.call_as_app(Method::GET, "/app", NO_BODY).await?;
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        date.and_then(ahead).ok_or_else(|| GitHubError::unavailable("an answer without a date"))
    }

    /// Where the webhook goes.
    ///
    /// # Errors
    /// When GitHub does not say.
    pub async fn hook(&self) -> Result<Hook, GitHubError> {
        let answer = self.call_as_app(Method::GET, "/app/hook/config", NO_BODY).await?;
        match answer.status() {
            StatusCode::OK => hook(answer).await,
            _ => Err(failed(answer, SystemClock.now()).await),
        }
    }

    /// Sends the webhook somewhere else, signs it with another secret, or both.
    ///
    /// # Errors
    /// When GitHub does not confirm it.
    pub async fn set_hook(&self, url: Option<&str>, secret: Option<&str>) -> Result<Hook, GitHubError> {
        #[derive(Serialize)]
        struct Wanted<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            url: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            secret: Option<&'a str>,
            content_type: &'static str,
            insecure_ssl: &'static str,
        }
        let wanted = Wanted { url, secret, content_type: "json", insecure_ssl: "0" };
        let answer = self.call_as_app(Method::PATCH, "/app/hook/config", Some(&wanted)).await?;
        match answer.status() {
            StatusCode::OK => hook(answer).await,
            _ => Err(failed(answer, SystemClock.now()).await),
        }
    }

    /// The app on the account of a scope; None if it is not installed there.
    ///
    /// # Errors
    /// When GitHub does not say.
    pub async fn installed(&self, scope: &Scope) -> Result<Option<Installed>, GitHubError> {
        let answer = self.call_as_app(Method::GET, &App::installation_path(scope), NO_BODY).await?;
        match answer.status() {
            StatusCode::OK => answer.json().await.map(Some).map_err(lost),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(failed(answer, SystemClock.now()).await),
        }
    }
}

async fn hook(answer: reqwest::Response) -> Result<Hook, GitHubError> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        url: String,
        #[serde(default)]
        content_type: String,
        #[serde(default)]
        insecure_ssl: Insecure,
        #[serde(default)]
        secret: Option<String>,
    }
    /// GitHub describes both.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Insecure {
        Text(String),
        Number(f64),
    }
    impl Default for Insecure {
        fn default() -> Self {
            Insecure::Number(0.0)
        }
    }
    let Config { url, content_type, insecure_ssl, secret } = answer.json().await.map_err(lost)?;
    let checks_certificate = match insecure_ssl {
        Insecure::Text(text) => text == "0",
        Insecure::Number(number) => number == 0.0,
    };
    Ok(Hook { url, content_type, checks_certificate, has_secret: secret.is_some_and(|secret| !secret.is_empty()) })
}
