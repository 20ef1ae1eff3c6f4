//! How an app comes to be: a manifest that a person agrees to in the browser, and the code that GitHub gives for it.

use std::collections::BTreeMap;

use engine::ports::{Clock, GitHubError};
use jsonwebtoken::EncodingKey;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OnceCell;

use super::{App, GitHubApp, client, failed, lost};
use crate::clock::SystemClock;
use crate::secrets::Secret;

/// What a new app is to be.
#[derive(Debug, Clone, Serialize)]
pub struct Manifest {
    /// Its name, which no other app on GitHub may have.
    pub name: String,
    /// Its home page.
    pub url: String,
    /// Where deliveries go.
    pub hook_attributes: HookAttributes,
    /// Where the browser is sent with the code.
    pub redirect_url: String,
    /// Whether other accounts may install it.
    pub public: bool,
    /// Permissions by name, `read` or `write`.
    pub default_permissions: BTreeMap<String, String>,
    /// The events it is told of.
    pub default_events: Vec<String>,
}

/// The webhook of a new app. GitHub makes its secret.
#[derive(Debug, Clone, Serialize)]
pub struct HookAttributes {
    /// Where to.
    pub url: String,
    /// Whether anything is delivered.
    pub active: bool,
}

/// A new app, with what GitHub tells once.
#[derive(Deserialize)]
pub struct Made {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its public page, from which it can be installed.
    pub html_url: String,
    /// Its private key.
    pub pem: String,
    /// What it signs deliveries with.
    pub webhook_secret: Option<String>,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("id", &self.id).field("html_url", &self.html_url).finish_non_exhaustive()
    }
}

/// Where people see the GitHub whose API is there.
pub fn web_url(api_url: &str) -> String {
    let api_url = api_url.trim_end_matches('/');
    match api_url {
        "https://api.github.com" => "https://github.com".to_owned(),
        _ => api_url.strip_suffix("/api/v3").unwrap_or(api_url).to_owned(),
    }
}

/// Turns the code into the app, which GitHub does once and within an hour.
///
/// # Errors
/// When GitHub does not know the code, or does not answer: then the app may exist, and its key be lost.
pub async fn convert(api_url: &str, code: &str) -> Result<Made, GitHubError> {
    if code.is_empty() || !code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return Err(GitHubError::Refused("that is no code of GitHub's".to_owned().into()));
    }
    let url = format!("{}/app-manifests/{code}/conversions", api_url.trim_end_matches('/'));
    let ask = client()?.post(url).header("accept", "application/vnd.github+json");
    let answer = ask.header("x-github-api-version", "2022-11-28").send().await.map_err(lost)?;
    match answer.status() {
        StatusCode::CREATED => answer.json().await.map_err(lost),
        _ => Err(failed(answer, SystemClock.now()).await),
    }
}

/// The text of the app's secret.
///
/// # Errors
/// When the key is not one that GitHub hands out; the message does not quote it.
pub fn app_secret(id: u64, private_key: &str, api_url: Option<&str>) -> Result<String, String> {
    EncodingKey::from_rsa_pem(private_key.as_bytes()).map_err(|_| {
        "it is no RSA private key in PEM: the file that GitHub makes ends in .private-key.pem".to_owned()
    })?;
    let mut secret = json!({ "app_id": id, "private_key": private_key });
    if let Some(api_url) = api_url {
        secret["api_url"] = json!(api_url);
    }
    Ok(secret.to_string())
}

impl GitHubApp {
    /// The app that this text of a secret names, which is not stored yet: to ask GitHub about it first.
    ///
    /// # Errors
    /// When the text is none.
    pub fn of_text(secret: Secret, text: &str, api_url: Option<String>) -> Result<Self, GitHubError> {
        let app = App::of(text, api_url.clone())?;
        Ok(Self { app: OnceCell::new_with(Some(app)), ..Self::new(secret, api_url) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_a_github_where_its_api_says() {
        assert_eq!(web_url("https://api.github.com"), "https://github.com");
        assert_eq!(web_url("https://ghe.example.com/api/v3/"), "https://ghe.example.com");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        let refused = app_secret(1, "-----BEGIN PUBLIC KEY-----\nhunter2", None).unwrap_err();
        assert!(!refused.contains("hunter2"));
    }
}
