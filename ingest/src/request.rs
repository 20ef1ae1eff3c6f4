//! The event and the answer of a function URL or an HTTP API (payload format 2.0).

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::ids::{DeliveryId, JobId};
use serde::{Deserialize, Serialize, Serializer};

use crate::verify::Signature;

/// One HTTP request, as a function URL passes it on. The values of a repeated header are joined by a comma.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    #[serde(default)]
    headers: HashMap<String, String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    is_base64_encoded: bool,
}

impl Request {
    /// The header with this name, whatever its case. None if there is none, or if there are several.
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value.as_str())
    }

    /// `X-GitHub-Event`; empty if missing.
    pub(crate) fn event(&self) -> String {
        self.header("x-github-event").unwrap_or_default().to_owned()
    }

    /// `X-GitHub-Delivery`; `unknown` if it is missing or has an unusual form. The header is not signed, and the id is only logged
    /// and recorded, so that is no reason to refuse the delivery. An empty id would mean that GitHub answered a request.
    pub(crate) fn delivery_id(&self) -> DeliveryId {
        let id = self.header("x-github-delivery").unwrap_or_default();
        let plain = (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        DeliveryId::from(if plain { id } else { "unknown" })
    }

    /// The signature, if there is exactly one and it has GitHub's form.
    pub(crate) fn signature(&self) -> Option<Signature> {
        self.header("x-hub-signature-256").and_then(Signature::parse)
    }

    /// Whether the webhook is set up to send a form instead of JSON.
    pub(crate) fn is_form(&self) -> bool {
        let form = "application/x-www-form-urlencoded";
        self.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with(form))
    }

    /// Whether the body certainly has more bytes than that. Needs no decoding.
    pub(crate) fn is_larger_than(&self, bytes: usize) -> bool {
        // Base64 has four characters for three bytes.
        let most = if self.is_base64_encoded { bytes.div_ceil(3) * 4 } else { bytes };
        self.body.len() > most
    }

    /// The raw bytes that GitHub signed. None if they cannot be decoded.
    pub(crate) fn body(self) -> Option<Vec<u8>> {
        match self.is_base64_encoded {
            true => STANDARD.decode(&self.body).ok(),
            false => Some(self.body.into_bytes()),
        }
    }
}

/// The answer to GitHub: an HTTP status and a body `{"result", "reason"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `enqueued`, `ignored` or `rejected`.
    pub result: &'static str,
    /// Empty if the delivery was enqueued.
    pub reason: String,
    /// The job, if it is known. For the log only.
    pub job: Option<JobId>,
}

impl Answer {
    pub(crate) fn enqueued(job: JobId) -> Self {
        Self { status: 202, result: "enqueued", reason: String::new(), job: Some(job) }
    }

    pub(crate) fn ignored(why: &str) -> Self {
        Self { status: 200, result: "ignored", reason: why.to_owned(), job: None }
    }

    pub(crate) fn rejected(status: u16, why: impl Into<String>) -> Self {
        Self { status, result: "rejected", reason: why.into(), job: None }
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            result: &'a str,
            reason: &'a str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Response<'a> {
            status_code: u16,
            headers: HashMap<&'a str, &'a str>,
            body: String,
        }
        let body = serde_json::to_string(&Body { result: self.result, reason: &self.reason });
        Response {
            status_code: self.status,
            headers: [("content-type", "application/json")].into(),
            body: body.map_err(serde::ser::Error::custom)?,
        }
        .serialize(to)
    }
}
