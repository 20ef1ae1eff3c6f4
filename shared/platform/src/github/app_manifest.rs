//! Creating the app: a person confirms a manifest in the browser, and GitHub exchanges a code for the app's key.

use std::collections::BTreeMap;

use engine::ports::{Clock, GitHubError};
use jsonwebtoken::EncodingKey;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{error, parse, unanswered};
use super::api_url::ApiUrl;
use super::client::{PublicRoots, http_client};
use crate::clock::SystemClock;

/// The description of an app to create.
#[derive(Debug, Clone, Serialize)]
pub struct Manifest {
    /// Unique among all apps on GitHub.
    pub name: String,
    /// The app's home page.
    pub url: String,
    pub hook_attributes: HookAttributes,
    /// The page to which GitHub sends the browser, with the code.
    pub redirect_url: String,
    /// Whether other accounts may install the app.
    pub public: bool,
    /// Permissions by name, `read` or `write`.
    pub default_permissions: BTreeMap<String, String>,
    /// The events that the app subscribes to.
    pub default_events: Vec<String>,
}

/// The webhook of an app to create. GitHub generates the secret.
#[derive(Debug, Clone, Serialize)]
pub struct HookAttributes {
    pub url: String,
    /// Whether GitHub delivers events.
    pub active: bool,
}

/// A new app. GitHub returns the key and the webhook's secret only once.
#[derive(Deserialize)]
pub struct Made {
    pub id: u64,
    pub name: String,
    /// The app's public page, where people install it.
    pub html_url: String,
    /// The private key.
    pub pem: String,
    pub webhook_secret: Option<String>,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("id", &self.id).field("html_url", &self.html_url).finish_non_exhaustive()
    }
}

/// Exchanges the code for the new app. A code works once and for an hour.
///
/// # Errors
/// If GitHub does not know the code, or does not answer. In the latter case the app may exist and its key be lost.
pub async fn convert(api_url: &ApiUrl, code: &str) -> Result<Made, GitHubError> {
    if code.is_empty() || !code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return Err(GitHubError::Refused("the code is not one that GitHub issues".to_owned().into()));
    }
    let url = format!("{api_url}/app-manifests/{code}/conversions");
    let call = http_client(PublicRoots::System)?.post(url).header("accept", "application/vnd.github+json");
    let answer = call.header("x-github-api-version", "2022-11-28").send().await.map_err(unanswered)?;
    match answer.status() {
        StatusCode::CREATED => parse(answer).await,
        _ => Err(error(answer, SystemClock.now()).await),
    }
}

/// The text to store as the app's secret.
///
/// # Errors
/// If the key does not have the form of GitHub's keys. The message does not quote the key.
pub fn app_secret(id: u64, private_key: &str, api_url: Option<&ApiUrl>) -> Result<String, String> {
    EncodingKey::from_rsa_pem(private_key.as_bytes())
        .map_err(|_| "not an RSA private key in PEM format (GitHub's file ends in .private-key.pem)".to_owned())?;
    let mut secret = json!({ "app_id": id, "private_key": private_key });
    if let Some(api_url) = api_url {
        secret["api_url"] = json!(api_url.to_string());
    }
    Ok(secret.to_string())
}

/// The API's address in an app's secret. None if the text has no valid one.
pub fn stored_api_url(secret: &SecretString) -> Option<ApiUrl> {
    let secret: Value = serde_json::from_str(secret.expose_secret()).ok()?;
    secret["api_url"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_not_a_key_is_refused_without_being_quoted() {
        let refused = app_secret(1, "-----BEGIN PUBLIC KEY-----\nhunter2", None).unwrap_err();
        assert!(!refused.contains("hunter2"));
    }
}
