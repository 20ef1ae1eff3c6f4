//! How the app is set up: its permissions, its webhook, and the accounts that installed it.

use std::collections::BTreeMap;

use domain::ids::Scope;
use engine::ports::{Clock, GitHubError};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::answer::{error, parse};
use super::app::GitHubApp;
use super::client::{NO_BODY, installation_path};
use crate::clock::{SystemClock, ahead};

/// Permissions by name, `read` or `write`.
pub type Permissions = BTreeMap<String, String>;

/// The app's own description.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct About {
    pub id: u64,
    /// The app's name in URLs.
    pub slug: String,
    pub name: String,
    /// The app's public page, where people install it.
    pub html_url: String,
    /// The permissions that the app requests.
    pub permissions: Permissions,
    /// The events that the app subscribes to.
    pub events: Vec<String>,
}

/// The configuration of the app's webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub url: String,
    /// `json` or `form`.
    pub content_type: String,
    /// Whether GitHub verifies the receiver's certificate.
    pub checks_certificate: bool,
    /// Whether deliveries are signed. GitHub never returns the secret.
    pub has_secret: bool,
}

/// The repositories of an account about which GitHub sends webhooks to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepositorySelection {
    All,
    Selected,
}

/// The app's installation on one account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Installed {
    /// The permissions that the account granted.
    pub permissions: Permissions,
    /// The events that the installation subscribes to.
    pub events: Vec<String>,
    /// Which repositories the app sees.
    pub repository_selection: RepositorySelection,
    /// When the account suspended the app, if it did.
    pub suspended_at: Option<Timestamp>,
    /// The installation's page, for the account's administrators.
    pub html_url: String,
}

impl GitHubApp {
    /// The app's own description.
    ///
    /// # Errors
    /// If the app's secret is unusable, or GitHub does not know the app.
    pub async fn about(&self) -> Result<About, GitHubError> {
        let answer = self.call_as_app(Method::GET, "/app", NO_BODY).await?;
        match answer.status() {
            StatusCode::OK => parse(answer).await,
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }

    /// How far GitHub's clock is ahead of the local clock. GitHub also sends its time when it refuses a call.
    ///
    /// # Errors
    /// If GitHub does not answer.
    pub async fn clock_ahead(&self) -> Result<SignedDuration, GitHubError> {
        let answer = self.call_as_app(Method::GET, "/app", NO_BODY).await?;
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        date.and_then(ahead).ok_or_else(|| GitHubError::unavailable("the answer has no date"))
    }

    /// The configuration of the webhook.
    ///
    /// # Errors
    /// If GitHub does not return it.
    pub async fn hook(&self) -> Result<Hook, GitHubError> {
        let answer = self.call_as_app(Method::GET, "/app/hook/config", NO_BODY).await?;
        match answer.status() {
            StatusCode::OK => hook(answer).await,
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }

    /// Changes the webhook's address, its secret, or both.
    ///
    /// # Errors
    /// If GitHub does not confirm the change.
    pub async fn set_hook(&self, url: Option<&str>, secret: Option<&str>) -> Result<Hook, GitHubError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            url: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            secret: Option<&'a str>,
            content_type: &'static str,
            insecure_ssl: &'static str,
        }
        let body = Body { url, secret, content_type: "json", insecure_ssl: "0" };
        let answer = self.call_as_app(Method::PATCH, "/app/hook/config", Some(&body)).await?;
        match answer.status() {
            StatusCode::OK => hook(answer).await,
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }

    /// The app's installation on the account of a scope; None if the app is not installed there.
    ///
    /// # Errors
    /// If GitHub does not return it.
    pub async fn installed(&self, scope: &Scope) -> Result<Option<Installed>, GitHubError> {
        let answer = self.call_as_app(Method::GET, &installation_path(scope), NO_BODY).await?;
        match answer.status() {
            StatusCode::OK => parse(answer).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(error(answer, SystemClock.now()).await),
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
    /// GitHub's description allows a string and a number.
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
    let Config { url, content_type, insecure_ssl, secret } = parse(answer).await?;
    let checks_certificate = match insecure_ssl {
        Insecure::Text(text) => text == "0",
        Insecure::Number(number) => number == 0.0,
    };
    Ok(Hook { url, content_type, checks_certificate, has_secret: secret.is_some_and(|secret| !secret.is_empty()) })
}
