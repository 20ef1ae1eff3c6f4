//! The app, its hook and its tokens.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// The app. Its key is the driver's business: the model believes that a call in the app's name is the app's.
#[derive(Debug, Clone)]
pub struct App {
    /// Its id, the issuer of its JWTs.
    pub id: u64,
    /// Its name in URLs.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it asks for: the permission, and `read` or `write`.
    pub permissions: BTreeMap<String, String>,
    /// The events it is told of.
    pub events: Vec<String>,
}

impl App {
    /// An app as a runner service needs it, for organisations' runners and for repositories'.
    pub fn new(id: u64, slug: &str, name: &str, created_at: Timestamp) -> Self {
        let asked = [
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
            permissions: asked.iter().map(|(name, level)| ((*name).to_owned(), (*level).to_owned())).collect(),
            events: vec!["workflow_job".to_owned()],
        }
    }
}

/// Where webhooks go. The secret itself stays with the driver, which signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookConfig {
    /// The URL.
    pub url: String,
    /// `json` or `form`.
    pub content_type: String,
    /// The secret deliveries are signed with.
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
    /// The secret.
    pub token: String,
    /// Until when it is good.
    pub expires_at: Timestamp,
}
