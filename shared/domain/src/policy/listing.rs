//! GitHub's list of the runners of a scope, put together from pages, and how often it is read.
//!
//! What is not in a list is not always absent: a page may not have been read, and an item may be unreadable. A long list is
//! read in several sweeps. Then the state of a runner is known only from this sweep's pages; the earlier ones only say that
//! it is registered.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::config::Pool;
use crate::ids::{Owner, RunnerId, RunnerName, Scope};
use crate::policy::PoolView;
use crate::policy::budget::{Budget, price_of_lists};
use crate::state::{Janitor, ListReading, ListState, Listing, Suspect};
use crate::wire::{ObservedInstance, ObservedRunner, RunnerPage};

/// GitHub's largest page of runners.
pub const RUNNERS_PER_PAGE: usize = 100;

/// Runners without a slot that are kept while a list is read in several sweeps. There are few, unless the table was lost.
const MAX_UNUSED: usize = 1000;

/// The janitor runs every minute. A minute pays for this many counted calls, so that lists of fewer pages are always due.
const PAID_BY_A_MINUTE: u32 = 10;

/// A reading that has taken longer than this begins again: runners that were registered meanwhile are on no page of it.
const LONGEST_READING: SignedDuration = SignedDuration::from_mins(20);

/// How often a list is read in which nothing can change: the stack has no machine there and no registration.
pub const QUIET_INTERVAL: SignedDuration = SignedDuration::from_mins(12);

/// What a sweep knows about the runners of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerList {
    /// The stack's runners on the pages that this sweep has read.
    pub runners: Vec<ObservedRunner>,
    /// Runners that no slot used when an earlier sweep read their page. Their state may have changed.
    pub unused: Vec<ObservedRunner>,
    /// Runners that GitHub lists, but whose state is unknown.
    pub listed: BTreeSet<RunnerId>,
    /// How many of these have no readable name.
    pub unnamed: usize,
    /// What it means that a runner is in none of these.
    pub missing: Missing,
}

/// What it means that a list lacks a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// GitHub has removed it, if it was registered before this time.
    Absent {
        /// When the first page was read.
        since: Timestamp,
    },
    /// It may be an item whose id cannot be read.
    PerhapsUnreadable,
    /// It may be on a page that was not read.
    PerhapsUnread,
}

/// A reading of a list: what earlier sweeps have read, if it is unfinished, and this sweep's pages.
#[derive(Debug, Clone)]
pub struct Reading {
    before: Option<Listing>,
    pub since: Timestamp,
    pages: Vec<RunnerPage>,
    first_page: usize,
}

impl Reading {
    /// Begins to read a list, or goes on with one.
    pub fn new(before: Option<Listing>, now: Timestamp) -> Self {
        let going_on = before.as_ref().filter(|it| now.duration_since(it.since) < LONGEST_READING);
        let (since, first_page) = going_on.map_or((now, 1), |it| (it.since, it.next_page));
        Self { before, since, pages: Vec::new(), first_page }
    }

    /// The next page to read; None if all were read.
    pub fn next_page(&self) -> Option<usize> {
        let next = self.first_page + self.pages.len();
        let last = self.pages.last().map_or(next, |page| pages(page.total));
        (next <= last).then_some(next)
    }

    /// How many more pages there are, as far as known.
    pub fn pages_left(&self) -> usize {
        let next = self.first_page + self.pages.len();
        self.pages.last().map_or(1, |page| (pages(page.total) + 1).saturating_sub(next))
    }

    pub fn add(&mut self, page: RunnerPage) {
        self.pages.push(page);
    }

    /// How many calls of this sweep counted towards the account's hourly limit.
    pub fn counted(&self) -> u32 {
        self.pages.iter().map(|page| page.counted).sum()
    }

    /// Items on this sweep's pages that cannot be read.
    pub fn unreadable(&self) -> usize {
        self.pages.iter().map(|page| page.unreadable.len()).sum()
    }

    fn goes_on(&self) -> Option<&Listing> {
        self.before.as_ref().filter(|_| self.first_page > 1)
    }

    /// What is known now.
    pub fn list(&self) -> RunnerList {
        let before = self.goes_on();
        let mut listed = before.map(|it| it.listed.clone()).unwrap_or_default();
        let (mut unknown, mut unnamed) = before.map_or((0, 0), |it| (it.unknown, it.unnamed));
        let runners: Vec<ObservedRunner> = self.pages.iter().flat_map(|page| page.runners.clone()).collect();
        for runner in &runners {
            listed.remove(&runner.id);
        }
        for item in self.pages.iter().flat_map(|page| &page.unreadable) {
            match item {
                Some(id) => {
                    listed.insert(*id);
                    unnamed += 1;
                }
                None => unknown += 1,
            }
        }
        let mut unused = before.map(|it| it.unused.clone()).unwrap_or_default();
        unused.retain(|earlier| runners.iter().all(|runner| runner.id != earlier.id));
        let missing = match (self.next_page(), unknown) {
            (Some(_), _) => Missing::PerhapsUnread,
            (None, 0) => Missing::Absent { since: self.since },
            (None, _) => Missing::PerhapsUnreadable,
        };
        RunnerList { runners, unused, listed, unnamed, missing }
    }

    /// What the next sweep needs to go on; None if the list was read to its end. `is_used` says whether an open slot uses
    /// the registration.
    pub fn unfinished(&self, scope: &Scope, is_used: impl Fn(&RunnerName) -> bool) -> Option<Listing> {
        let next_page = self.next_page()?;
        let RunnerList { runners, mut unused, mut listed, unnamed, .. } = self.list();
        let mut unknown = self.goes_on().map_or(0, |it| it.unknown);
        unknown += self.pages.iter().flat_map(|page| &page.unreadable).filter(|item| item.is_none()).count();
        listed.extend(runners.iter().map(|runner| runner.id));
        let is_unused = |runner: &ObservedRunner| runner.name.parse().is_ok_and(|name| !is_used(&name));
        unused.extend(runners.into_iter().filter(is_unused));
        if unused.len() > MAX_UNUSED {
            unknown += 1;
            unused.truncate(MAX_UNUSED);
        }
        let revision = self.before.as_ref().map_or(0, |it| it.revision);
        Some(Listing { scope: scope.clone(), since: self.since, next_page, listed, unused, unknown, unnamed, revision })
    }

    /// What an earlier sweep has stored, and what is not needed any more.
    pub fn outdated(&self) -> Option<&Listing> {
        self.before.as_ref().filter(|_| self.next_page().is_none())
    }
}

impl RunnerList {
    /// Whether GitHub lists no runner of the stack.
    pub fn is_empty(&self) -> bool {
        self.runners.is_empty() && self.listed.is_empty() && self.is_readable()
    }

    /// Whether all pages were read, and every item that may be a runner of the stack. Only then is it known which runners
    /// a machine without a slot may have.
    pub fn is_readable(&self) -> bool {
        matches!(self.missing, Missing::Absent { .. }) && self.unnamed == 0
    }
}

/// The number of pages of a list with `total` runners. An empty list has one page.
fn pages(total: usize) -> usize {
    total.div_ceil(RUNNERS_PER_PAGE).max(1)
}

/// The scopes whose lists are due, least recently read first.
pub fn due(memory: &Janitor, pools: &[Pool], budget: impl Fn(&Owner) -> Option<Budget>, now: Timestamp) -> Vec<Scope> {
    let scopes: BTreeSet<&Scope> = pools.iter().map(|pool| &pool.owner).collect();
    let mut due: Vec<(Option<Timestamp>, &Scope)> = scopes
        .into_iter()
        .filter(|scope| is_due(memory, scope, budget(scope.owner()), now))
        .map(|scope| (memory.lists.get(scope).map(|last| last.read_at), scope))
        .collect();
    due.sort();
    due.into_iter().map(|(_, scope)| scope.clone()).collect()
}

/// A list is due as soon as the account's share of the budget has paid for its last reading and those of the account's
/// other lists.
fn is_due(memory: &Janitor, scope: &Scope, budget: Option<Budget>, now: Timestamp) -> bool {
    let Some(last) = memory.lists.get(scope) else { return true };
    let since = now.duration_since(last.read_at);
    match last.state {
        ListState::Unfinished => true,
        ListState::Quiet => since >= QUIET_INTERVAL,
        ListState::Finished => {
            let of_account = memory.lists.iter().filter(|(other, _)| other.owner() == scope.owner());
            let counted: u32 = of_account.map(|(_, last)| last.counted).sum();
            counted < PAID_BY_A_MINUTE || since >= price_of_lists(budget) * i32::try_from(counted).unwrap_or(i32::MAX)
        }
    }
}

/// Remembers how far a list was read, and what that cost.
pub fn remember(memory: &mut Janitor, scope: &Scope, reading: &Reading) {
    let before = memory.lists.get(scope).filter(|last| last.state == ListState::Unfinished).map_or(0, |it| it.counted);
    let state = if reading.next_page().is_some() { ListState::Unfinished } else { ListState::Finished };
    let last = ListReading { read_at: reading.since, counted: before + reading.counted(), state };
    memory.lists.insert(scope.clone(), last);
}

/// Notes in which lists nothing can change until a slot is opened: those that this sweep has read to the end and that have
/// no runner of the stack, and where the stack has no machine. `pools` are the pools that could be read, and `machines` is
/// None if EC2's list could not be read.
pub fn note_quiet(
    memory: &mut Janitor,
    all: &[Pool],
    pools: &[(Pool, PoolView)],
    lists: &BTreeMap<Scope, RunnerList>,
    machines: Option<&[ObservedInstance]>,
    now: Timestamp,
) {
    let Janitor { lists: readings, suspects, .. } = memory;
    readings.retain(|scope, _| all.iter().any(|pool| pool.owner == *scope));
    let is_idle = |pool: &Pool| {
        let view = pools.iter().find(|(read, _)| read.name == pool.name).map(|(_, view)| view);
        let is_suspect = |suspect: &Suspect| suspect.runner().is_some_and(|name| name.pool == pool.name);
        let is_live = |seen: &ObservedInstance| seen.state.is_live() && seen.is_of(&pool.name);
        view.is_some_and(|view| view.slots.is_empty() && view.batches.is_empty())
            && machines.is_some_and(|machines| !machines.iter().any(is_live))
            && !suspects.keys().any(is_suspect)
    };
    for (scope, last) in readings {
        let idle = all.iter().filter(|pool| pool.owner == *scope).all(&is_idle);
        last.state = match last.state {
            ListState::Unfinished => ListState::Unfinished,
            ListState::Finished if idle && lists.get(scope).is_some_and(RunnerList::is_empty) => ListState::Quiet,
            ListState::Quiet if idle => ListState::Quiet,
            ListState::Finished | ListState::Quiet => ListState::Finished,
        };
        // A clock that was wrong must not stop the readings.
        last.read_at = last.read_at.min(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ids: std::ops::Range<u64>, total: usize) -> RunnerPage {
        let runner = |id| ObservedRunner {
            id: RunnerId(id),
            name: format!("drover_sim_linux_e1_{id}_0_1"),
            online: true,
            busy: false,
        };
        RunnerPage { runners: ids.map(runner).collect(), unreadable: Vec::new(), total, counted: 1 }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_list_that_two_sweeps_read_tells_absent_from_unread_and_from_unknown() {
        let scope: Scope = "octo-org".parse().unwrap();
        let mut first = Reading::new(None, at(0));
        assert_eq!(first.next_page(), Some(1));
        first.add(page(0..100, 250));
        assert_eq!((first.next_page(), first.pages_left()), (Some(2), 2));
        assert_eq!(first.list().missing, Missing::PerhapsUnread, "nothing is absent yet");
        let kept = first.unfinished(&scope, |name| name.slot.version != 7).expect("there is more");
        assert_eq!((kept.next_page, kept.listed.len(), kept.unused.len()), (2, 100, 1));

        let mut second = Reading::new(Some(kept.clone()), at(60));
        assert_eq!(second.next_page(), Some(2), "it goes on");
        second.add(page(100..200, 250));
        second.add(page(200..250, 250));
        assert_eq!(second.next_page(), None);
        let list = second.list();
        assert_eq!(list.missing, Missing::Absent { since: at(0) }, "since the first page was read");
        assert_eq!((list.runners.len(), list.listed.len(), list.unused.len()), (150, 100, 1));
        assert!(list.is_readable() && !list.is_empty());
        assert!(second.unfinished(&scope, |_| false).is_none() && second.outdated().is_some());

        let late = Reading::new(Some(kept), at(60 * 60));
        assert_eq!((late.next_page(), late.since), (Some(1), at(3600)), "too old to go on with");
    }

    #[test]
    fn an_item_without_an_id_makes_absence_unknown_and_one_without_a_name_does_not() {
        let with = |item| {
            let mut reading = Reading::new(None, at(0));
            reading.add(RunnerPage { unreadable: vec![item], ..page(0..1, 2) });
            reading.list()
        };
        assert_eq!(with(None).missing, Missing::PerhapsUnreadable);
        let unnamed = with(Some(RunnerId(5)));
        assert_eq!(unnamed.missing, Missing::Absent { since: at(0) });
        assert!(unnamed.listed.contains(&RunnerId(5)) && !unnamed.is_readable());
    }

    #[test]
    fn a_long_list_is_read_as_often_as_the_budget_allows() {
        let scope: Scope = "octo-org".parse().unwrap();
        let read = |counted, state| {
            let last = ListReading { read_at: at(0), counted, state };
            Janitor { lists: [(scope.clone(), last)].into(), ..Janitor::default() }
        };
        let due = |memory: &Janitor, seconds| is_due(memory, &scope, None, at(seconds));
        assert!(due(&Janitor::default(), 0));
        assert!(due(&read(1, ListState::Finished), 60), "a short list in every sweep");
        let long = read(100, ListState::Finished);
        assert!(!due(&long, 599) && due(&long, 600), "a hundred pages six times an hour");
        assert!(due(&read(0, ListState::Finished), 60), "an unchanged list costs nothing");
        assert!(due(&read(60, ListState::Unfinished), 60), "an unfinished one goes on");
        assert!(!due(&read(1, ListState::Quiet), 660) && due(&read(1, ListState::Quiet), 720));
    }

    #[test]
    fn a_reading_that_begins_again_forgets_what_the_earlier_one_listed() {
        let scope: Scope = "octo-org".parse().unwrap();
        let mut first = Reading::new(None, at(0));
        first.add(page(0..100, 150));
        let kept = first.unfinished(&scope, |_| false).expect("there is more");
        let mut again = Reading::new(Some(kept), at(20 * 60));
        again.add(page(200..250, 50));
        let list = again.list();
        assert_eq!((list.listed.len(), list.unused.len(), list.runners.len()), (0, 0, 50));
    }

    #[test]
    fn items_that_cannot_be_read_count_until_the_list_is_read_again() {
        let scope: Scope = "octo-org".parse().unwrap();
        let mut first = Reading::new(None, at(0));
        first.add(RunnerPage { unreadable: vec![None, None, Some(RunnerId(5))], ..page(0..97, 250) });
        assert_eq!((first.unreadable(), first.counted()), (3, 1));
        let kept = first.unfinished(&scope, |_| true).expect("there is more");
        assert_eq!((kept.unknown, kept.unnamed, kept.unused.len()), (2, 1, 0));
        let mut second = Reading::new(Some(kept), at(60));
        second.add(RunnerPage { unreadable: vec![None], ..page(100..199, 250) });
        let kept = second.unfinished(&scope, |_| true).expect("there is more");
        assert_eq!((kept.unknown, kept.unnamed), (3, 1));
        let mut third = Reading::new(Some(kept), at(120));
        third.add(page(200..250, 250));
        assert_eq!(third.list().missing, Missing::PerhapsUnreadable);
    }

    #[test]
    fn of_very_many_unused_runners_a_thousand_are_kept_and_the_others_are_unknown() {
        let scope: Scope = "octo-org".parse().unwrap();
        let kept = |unused: u64| {
            let mut reading = Reading::new(None, at(0));
            (0..11).for_each(|number| {
                reading.add(page(number * 100..((number + 1) * 100).min(unused).max(number * 100), 5000))
            });
            let kept = reading.unfinished(&scope, |_| false).expect("there is more");
            (kept.unused.len(), kept.unknown)
        };
        assert_eq!((kept(1000), kept(1001)), ((1000, 0), (1000, 1)));
    }

    #[test]
    fn a_list_is_empty_if_github_certainly_lists_no_runner_of_the_stack() {
        let list = |runners: u64, item: Option<Option<RunnerId>>, total| {
            let mut reading = Reading::new(None, at(0));
            reading.add(RunnerPage { unreadable: item.into_iter().collect(), ..page(0..runners, total) });
            reading.list().is_empty()
        };
        assert!(list(0, None, 50), "the others are not the stack's");
        assert!(!list(1, None, 50) && !list(0, None, 150));
        assert!(!list(0, Some(None), 50) && !list(0, Some(Some(RunnerId(5))), 50));
    }

    #[test]
    fn what_a_reading_of_several_sweeps_costs_adds_up() {
        let scope: Scope = "octo-org".parse().unwrap();
        let mut memory = Janitor::default();
        let mut first = Reading::new(None, at(0));
        first.add(page(0..100, 150));
        remember(&mut memory, &scope, &first);
        assert_eq!(memory.lists[&scope], ListReading { read_at: at(0), counted: 1, state: ListState::Unfinished });
        let mut second = Reading::new(first.unfinished(&scope, |_| true), at(60));
        second.add(page(100..150, 150));
        remember(&mut memory, &scope, &second);
        assert_eq!(memory.lists[&scope], ListReading { read_at: at(0), counted: 2, state: ListState::Finished });
        let mut third = Reading::new(None, at(120));
        third.add(page(0..50, 50));
        remember(&mut memory, &scope, &third);
        assert_eq!(memory.lists[&scope], ListReading { read_at: at(120), counted: 1, state: ListState::Finished });
        let ten = ListReading { read_at: at(0), counted: PAID_BY_A_MINUTE, state: ListState::Finished };
        let memory = Janitor { lists: [(scope.clone(), ten)].into(), ..Janitor::default() };
        assert!(!is_due(&memory, &scope, None, at(59)) && is_due(&memory, &scope, None, at(60)));
    }
}
