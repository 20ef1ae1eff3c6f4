//! The app, its hook and its tokens.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// The app. The driver verifies its JWTs.
#[derive(Debug, Clone)]
pub struct App {
    /// The issuer of its JWTs.
    pub id: u64,
    /// The name in URLs.
    pub slug: String,
    pub name: String,
    pub created_at: Timestamp,
    /// The permissions that it requests, each with `read` or `write`.
    pub permissions: BTreeMap<String, String>,
    /// The events that it subscribes to.
    pub events: Vec<String>,
}

impl App {
    /// An app with the permissions for runners of organisations and of repositories.
    pub fn new(id: u64, slug: &str, name: &str, created_at: Timestamp) -> Self {
        let requested = [
            ("actions", "write"),
            ("administration", "write"),
            ("checks", "write"),
            ("metadata", "read"),
            ("organization_self_hosted_runners", "write"),
        ];
        Self {
            id,
            slug: slug.to_owned(),
            name: name.to_owned(),
            created_at,
            permissions: requested.iter().map(|(name, level)| ((*name).to_owned(), (*level).to_owned())).collect(),
            events: vec!["workflow_job".to_owned()],
        }
    }
}

/// Configuration of the app's webhook. The driver signs the deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookConfig {
    pub url: String,
    /// `json` or `form`.
    pub content_type: String,
    /// Signs the deliveries.
    pub secret: Option<String>,
}

impl Default for HookConfig {
    fn default() -> Self {
        Self { url: "https://example.invalid/".to_owned(), content_type: "json".to_owned(), secret: None }
    }
}

/// A token of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    pub token: String,
    pub expires_at: Timestamp,
}
