//! The last page, for a second: however often pages are requested, the table is read about once a second.

use axum::response::Html;
use engine::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use tokio::sync::Mutex;

use crate::output::Failure;

const CACHED_FOR: SignedDuration = SignedDuration::from_secs(1);

/// Pages that are kept at a time. Each tab of the operator's browser loads one.
const MAX_PAGES: usize = 16;

/// The pages of the last second, by name.
#[derive(Debug, Default)]
pub(super) struct PageCache(Mutex<Vec<CachedPage>>);

#[derive(Debug)]
struct CachedPage {
    name: String,
    made_at: Timestamp,
    page: Html<String>,
}

impl PageCache {
    /// The page of that name, made by `make` unless it was made within the last second. One page is made at a time. Failures are
    /// not kept.
    pub(super) async fn get(
        &self,
        name: &str,
        make: impl AsyncFnOnce(Timestamp) -> Result<Html<String>, Failure>,
    ) -> Result<Html<String>, Failure> {
        let mut pages = self.0.lock().await;
        let now = SystemClock.now();
        pages.retain(|cached| now.duration_since(cached.made_at).abs() < CACHED_FOR);
        if let Some(cached) = pages.iter().find(|cached| cached.name == name) {
            return Ok(cached.page.clone());
        }
        let page = make(now).await?;
        if pages.len() < MAX_PAGES {
            pages.push(CachedPage { name: name.to_owned(), made_at: now, page: page.clone() });
        }
        Ok(page)
    }
}
