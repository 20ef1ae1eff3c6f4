//! GitHub's answers with their entity tags. Sent with the next request, a tag makes GitHub answer 304 if nothing has
//! changed, and 304 does not count against the rate limit.
//!
//! The cache lives as long as the process. Losing an answer costs a call, never correctness.

use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// The most bytes that all answers take. A function has 128 MB in total.
const MAX_BYTES: usize = 8 << 20;

/// The largest answer that is kept. A larger one would displace too many others.
const MAX_ANSWER_BYTES: usize = MAX_BYTES / 8;

/// About as many answers as fit: a job has 8 KB or more.
const ESTIMATED_ANSWERS: usize = 1000;

/// An answer.
#[derive(Debug)]
pub(super) struct CachedAnswer {
    pub(super) tag: String,
    pub(super) body: Vec<u8>,
}

/// Answers by path.
#[derive(Debug)]
pub(super) struct EtagCache(Cache<String, Arc<CachedAnswer>, Bytes>);

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<String, Arc<CachedAnswer>> for Bytes {
    fn weight(&self, path: &String, answer: &Arc<CachedAnswer>) -> u64 {
        (path.len() + answer.tag.len() + answer.body.len()) as u64
    }
}

impl Default for EtagCache {
    fn default() -> Self {
        // One shard: each shard has its share of the bytes, and a function has one thread.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(ESTIMATED_ANSWERS)
            .weight_capacity(MAX_BYTES as u64)
            .build()
            .expect("both capacities are set");
        Self(Cache::with_options(options, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default()))
    }
}

impl EtagCache {
    pub(super) fn get(&self, path: &str) -> Option<Arc<CachedAnswer>> {
        self.0.get(path)
    }

    /// Keeps an answer. If there is no room, answers that were not used recently go.
    pub(super) fn insert(&self, path: String, answer: CachedAnswer) {
        if answer.body.len() <= MAX_ANSWER_BYTES {
            self.0.insert(path, Arc::new(answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_use_stay_and_the_others_make_room() {
        let answers = EtagCache::default();
        let insert = |path: &str, bytes| {
            answers.insert(path.to_owned(), CachedAnswer { tag: path.to_owned(), body: vec![0; bytes] });
        };
        for n in 0..100 {
            insert(&n.to_string(), MAX_ANSWER_BYTES - 100);
            assert!(n == 0 || answers.get("0").is_some(), "used again and again, also after {n} others");
        }
        let left = (0..100).filter(|n| answers.get(&n.to_string()).is_some()).count();
        assert!((4..=8).contains(&left), "{left} answers of 1 MiB in 8 MiB");
    }

    #[test]
    fn an_answer_that_is_too_large_is_not_kept() {
        let answers = EtagCache::default();
        let body = vec![0; MAX_ANSWER_BYTES + 1];
        answers.insert("huge".to_owned(), CachedAnswer { tag: String::new(), body });
        assert!(answers.get("huge").is_none());
    }
}
