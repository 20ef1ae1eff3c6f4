//! GitHub's attempts to deliver the app's webhook.

use domain::ids::DeliveryId;
use engine::ports::{Clock, DeliveryAttempt, DeliveryPage, GitHubError};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::answer::{error, parse};
use super::app::GitHubApp;
use super::client::NO_BODY;
use super::listed::readable;
use crate::clock::SystemClock;

/// GitHub's largest page of deliveries.
const PER_PAGE: usize = 100;

/// One attempt to deliver an event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attempt {
    pub id: u64,
    /// The delivery's id. A redelivery has the same.
    pub guid: String,
    pub delivered_at: Timestamp,
    /// Whether the attempt was requested.
    pub redelivery: bool,
    /// The receiver's answer as text.
    pub status: String,
    /// The receiver's answer as an HTTP status; 0 if there was none.
    pub status_code: u16,
    /// The event's name, such as `workflow_job`.
    pub event: String,
}

impl Attempt {
    /// Whether the receiver answered with 2xx.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status_code)
    }
}

impl GitHubApp {
    pub(super) async fn list_deliveries(&self, from: Option<&str>) -> Result<DeliveryPage, GitHubError> {
        let (attempts, unreadable, next) = self.page(from).await?;
        let attempts = attempts
            .into_iter()
            .map(|attempt| DeliveryAttempt {
                id: attempt.id,
                guid: DeliveryId::from(attempt.guid.as_str()),
                delivered_at: attempt.delivered_at,
                redelivery: attempt.redelivery,
                succeeded: attempt.succeeded(),
                about_a_job: attempt.event == "workflow_job",
            })
            .collect();
        Ok(DeliveryPage { attempts, unreadable, next })
    }

    /// One page of attempts, the number of unreadable ones, and the cursor of the next page.
    async fn page(&self, from: Option<&str>) -> Result<(Vec<Attempt>, usize, Option<String>), GitHubError> {
        let cursor = from.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("/app/hook/deliveries?per_page={PER_PAGE}{cursor}");
        let answer = self.call_as_app(Method::GET, &path, NO_BODY).await?;
        if answer.status() != StatusCode::OK {
            return Err(error(answer, SystemClock.now()).await);
        }
        let next = next_cursor(answer.headers());
        let (attempts, unreadable) = readable(parse(answer).await?);
        Ok((attempts, unreadable, next))
    }

    /// Attempts since a time, newest first, from at most `max_pages` pages of a hundred.
    ///
    /// # Errors
    /// If GitHub does not list them.
    pub async fn attempts(&self, since: Timestamp, max_pages: usize) -> Result<Vec<Attempt>, GitHubError> {
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut from: Option<String> = None;
        for _ in 0..max_pages {
            let (page, _, next) = self.page(from.as_deref()).await?;
            let is_past_since = page.last().is_some_and(|last| last.delivered_at < since);
            attempts.extend(page.into_iter().filter(|attempt| attempt.delivered_at >= since));
            match next {
                Some(next) if !is_past_since => from = Some(next),
                _ => break,
            }
        }
        Ok(attempts)
    }

    /// Requests one more delivery of what an earlier attempt delivered.
    ///
    /// # Errors
    /// If GitHub does not confirm the request. The redelivery may happen nevertheless.
    pub async fn redeliver(&self, attempt: u64) -> Result<(), GitHubError> {
        let path = format!("/app/hook/deliveries/{attempt}/attempts");
        let answer = self.call_as_app(Method::POST, &path, NO_BODY).await?;
        match answer.status() {
            StatusCode::ACCEPTED => Ok(()),
            _ => Err(error(answer, SystemClock.now()).await),
        }
    }
}

/// The cursor of the next page, from the header `link`. Only the cursor is used: the rest of the address is not trusted.
fn next_cursor(headers: &HeaderMap) -> Option<String> {
    let links = headers.get("link")?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let address = next.trim().strip_prefix('<')?.split_once('>')?.0;
    let url: Url = address.parse().ok()?;
    let cursor = url.query_pairs().find(|(name, _)| name == "cursor")?.1.into_owned();
    let is_plain = cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
    is_plain.then_some(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_by_its_cursor() {
        let cursor =
            |link: &str| next_cursor(&HeaderMap::from_iter([("link".parse().unwrap(), link.parse().unwrap())]));
        let next = "<https://api.github.com/app/hook/deliveries?per_page=100&cursor=v1_12077215967>; rel=\"next\"";
        assert_eq!(cursor(next).as_deref(), Some("v1_12077215967"));
        let both = format!("<https://api.github.com/x?cursor=a>; rel=\"prev\", {next}");
        assert_eq!(cursor(&both).as_deref(), Some("v1_12077215967"));
        assert_eq!(cursor("<https://api.github.com/x?cursor=a>; rel=\"prev\""), None);
        assert_eq!(cursor("<https://api.github.com/x?cursor=a%26per_page%3D1>; rel=\"next\""), None);
        assert_eq!(next_cursor(&HeaderMap::new()), None);
    }
}
