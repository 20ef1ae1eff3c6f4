//! The part of the overview that a page's address selects.

use domain::ids::PoolName;
use serde::{Deserialize, Serialize};

use crate::jobs::JobRow;
use crate::ps::Row;

/// Lines of a table per page.
pub(super) const LINES: usize = 25;

/// The query of the address. An empty field selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Filter {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) pool: String,
    /// A part of a repository's or job's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) find: String,
    /// Why jobs wait.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    /// Pages of the tables, from 1. Text, because an address may contain anything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) jobs: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) machines: String,
}

impl Filter {
    /// The address of the overview with this filter.
    pub(super) fn url(&self) -> String {
        let query = serde_urlencoded::to_string(self).unwrap_or_default();
        if query.is_empty() { "/".to_owned() } else { format!("/?{query}") }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pool.is_empty() && self.find.is_empty() && self.reason.is_empty()
    }

    pub(super) fn has_pool(&self, pool: &PoolName) -> bool {
        self.pool.is_empty() || self.pool == pool.as_str()
    }

    pub(super) fn has_job(&self, job: &JobRow, reason: &str) -> bool {
        self.has_pool(&job.pool)
            && (self.reason.is_empty() || self.reason == reason)
            && self.has_text(&[&job.name, &job.repository.to_string(), &job.job.to_string()])
    }

    pub(super) fn has_machine(&self, row: &Row, job_name: &str) -> bool {
        let text = |value: Option<String>| value.unwrap_or_default();
        let (id, repository) =
            (row.instance.as_ref().map(ToString::to_string), row.repository.as_ref().map(ToString::to_string));
        self.has_pool(&row.pool) && self.has_text(&[job_name, &text(id), &text(repository), &row.state])
    }

    fn has_text(&self, texts: &[&str]) -> bool {
        let part = self.find.trim().to_lowercase();
        part.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&part))
    }
}

/// One page of a list.
pub(super) struct Page<'a, T> {
    pub(super) lines: &'a [T],
    /// From 1.
    pub(super) number: usize,
    pub(super) pages: usize,
}

/// The page of that number, or the nearest one.
pub(super) fn page<'a, T>(all: &'a [T], number: &str) -> Page<'a, T> {
    let pages = all.len().div_ceil(LINES).max(1);
    let number = number.parse().unwrap_or(1).clamp(1, pages);
    let lines = all.chunks(LINES).nth(number - 1).unwrap_or_default();
    Page { lines, number, pages }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_filter_and_back() {
        let filter = Filter { pool: "linux".into(), find: "a&b=c".into(), jobs: "2".into(), ..Filter::default() };
        assert_eq!(filter.url(), "/?pool=linux&find=a%26b%3Dc&jobs=2");
        assert_eq!(Filter::default().url(), "/");
        let lines: Vec<usize> = (0..60).collect();
        let numbers = |number| (page(&lines, number).lines[0], page(&lines, number).lines.len());
        assert_eq!((numbers("1"), numbers("3"), numbers("99")), ((0, 25), (50, 10), (50, 10)));
        assert_eq!((numbers(""), numbers("-1"), numbers("0")), ((0, 25), (0, 25), (0, 25)));
        assert_eq!(page::<usize>(&[], "1").lines.len(), 0);
    }
}
