//! Every order of calls in small worlds.
//!
//! A world has a few jobs and a few functions that run at the same time. Its list in `worlds` says what else may happen, and how
//! often: a function ends, a launch gets no answer, EC2 refuses one, time passes, GitHub or EC2 does something.
//!
//! The engine itself runs. A state consists of what the table, EC2, GitHub and the queue hold and of the answers that each
//! function has received. A state is reached again by making the same choices from the beginning; two ways to one state count
//! once. Where nothing more can happen, the rest of the story is run once, without faults: see `judge`.

mod choice;
mod judge;
mod running;
mod story;
mod worlds;

use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};

pub use choice::Choice;
pub use story::story;
pub use worlds::{SmallWorld, WORLDS, world};

use crate::digest::Digest;
use crate::mistakes::Mistake;
use running::{Running, in_a_world};

/// The result of an exploration.
#[derive(Debug)]
pub struct Explored {
    /// The number of different states.
    pub states: usize,
    pub transitions: usize,
    /// The number of states in which nothing more can happen.
    pub ends: usize,
    /// Choices that violate an invariant, and the violation.
    pub counterexample: Option<(Vec<Choice>, String)>,
}

/// How to reach a state, and the answers that each function has received by then.
#[derive(Default)]
struct Way {
    choices: Vec<Choice>,
    answers: Vec<Digest>,
}

/// What is left to explore.
struct Frontier {
    known: HashSet<u64>,
    /// Ends that differ only in the answers that functions have received are judged once.
    judged: HashSet<u64>,
    /// First in, first out: short counterexamples are found first.
    ways: VecDeque<Way>,
    /// The number of threads that explore a way, which may add further ways.
    exploring: usize,
    explored: Explored,
}

/// Explores a whole world, or until an invariant breaks. Drover makes the mistake, if there is one. Calls `progress` with the
/// number of states, every thousand.
pub fn explore(world: &SmallWorld, mistake: Option<Mistake>, progress: impl Fn(usize) + Sync) -> Explored {
    let frontier = Mutex::new(Frontier {
        known: HashSet::new(),
        judged: HashSet::new(),
        ways: [Way::default()].into(),
        exploring: 0,
        explored: Explored { states: 0, transitions: 0, ends: 0, counterexample: None },
    });
    let more = Condvar::new();
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(way) = next_way(&frontier, &more) {
                    in_a_world(world, mistake, |running| follow(running, way, &frontier, &more, &progress));
                    lock(&frontier).exploring -= 1;
                    more.notify_all();
                }
            });
        }
    });
    let frontier = frontier.into_inner().expect("no thread panicked while it held the lock");
    Explored { states: frontier.known.len(), ..frontier.explored }
}

fn lock(frontier: &Mutex<Frontier>) -> MutexGuard<'_, Frontier> {
    frontier.lock().expect("no thread panics while it holds the lock")
}

/// None if everything is explored, or a counterexample was found.
fn next_way(frontier: &Mutex<Frontier>, more: &Condvar) -> Option<Way> {
    let mut frontier = lock(frontier);
    loop {
        if frontier.explored.counterexample.is_some() {
            return None;
        }
        if let Some(way) = frontier.ways.pop_front() {
            frontier.exploring += 1;
            return Some(way);
        }
        if frontier.exploring == 0 {
            return None;
        }
        frontier = more.wait(frontier).expect("no thread panics while it holds the lock");
    }
}

/// Follows a way and goes on from its end as long as the states are new: with one choice at once, with the others later,
/// from the beginning.
fn follow(
    running: &mut Running<'_>,
    Way { choices: mut way, answers }: Way,
    frontier: &Mutex<Frontier>,
    more: &Condvar,
    progress: &(impl Fn(usize) + Sync),
) {
    for choice in &way {
        running.choose(*choice);
    }
    running.set_answers(&answers);
    running.universe.steps.digest_answers();
    loop {
        let (violation, digest, mut choices) = (running.violation(), running.digest(), running.choices());
        let mut frontier_now = lock(frontier);
        frontier_now.explored.transitions += 1;
        if let Some(violation) = violation {
            frontier_now.explored.counterexample.get_or_insert((way, violation));
            return;
        }
        if !frontier_now.known.insert(digest) {
            return;
        }
        if frontier_now.known.len().is_multiple_of(1000) {
            progress(frontier_now.known.len());
        }
        let Some(next) = choices.pop() else {
            frontier_now.explored.ends += 1;
            let is_new = frontier_now.judged.insert(running.lasting());
            drop(frontier_now);
            if is_new && let Some(violation) = running.end() {
                lock(frontier).explored.counterexample.get_or_insert((way, violation));
            }
            return;
        };
        let answers = running.answers();
        for choice in choices {
            let choices = way.iter().copied().chain([choice]).collect();
            frontier_now.ways.push_back(Way { choices, answers: answers.clone() });
            more.notify_one();
        }
        drop(frontier_now);
        way.push(next);
        running.choose(next);
    }
}
