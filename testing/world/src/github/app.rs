//! The app, its hook and its tokens.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

/// The number of the key that an app is created with.
pub const FIRST_KEY: u32 = 1;

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
    /// The numbers of its private keys. The driver knows the keys themselves.
    pub keys: BTreeSet<u32>,
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
            keys: [FIRST_KEY].into(),
        }
    }

    /// Generates one more private key, and returns its number.
    pub fn add_key(&mut self) -> u32 {
        let number = self.keys.last().map_or(FIRST_KEY, |last| last + 1);
        self.keys.insert(number);
        number
    }

    /// Deletes every other key.
    pub fn keep_only_key(&mut self, number: u32) {
        self.keys.retain(|key| *key == number);
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
