//! The table in DynamoDB behaves like the one in memory, whatever is written in whatever order, and however old the
//! revision that the writer has read.

use std::collections::{BTreeMap, BTreeSet};

use domain::state::{Limit, Nudge, Unserved};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::runtime::Runtime;

use super::*;

/// The subject of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Meta,
    Waiting(u64),
    Nudge,
    /// It lies in no pool's partition.
    Limit,
}

const SUBJECTS: [Subject; 7] = [
    Subject::Meta,
    Subject::Waiting(1),
    Subject::Waiting(2),
    Subject::Waiting(3),
    Subject::Waiting(u64::MAX),
    Subject::Nudge,
    Subject::Limit,
];

#[derive(Debug, Clone)]
enum Deed {
    Put(Content),
    Delete,
    Check,
}

/// What differs between two items about the same.
#[derive(Debug, Clone)]
struct Content {
    text: String,
    seconds: Vec<i64>,
    flag: bool,
}

/// A transaction.
#[derive(Debug, Clone)]
struct Write {
    /// For each subject, what is done, and how many revisions old what the writer had read is.
    deeds: BTreeMap<Subject, (Deed, u64)>,
    boot: Option<u8>,
    has_event: bool,
}

/// How often each item was written: all that is needed to think of transactions that mostly succeed.
#[derive(Debug, Clone, Default)]
struct Revisions(BTreeMap<Subject, u64>, BTreeSet<u8>);

impl Revisions {
    fn of(&self, subject: Subject) -> u64 {
        self.0.get(&subject).copied().unwrap_or_default()
    }

    fn accepts(&self, write: &Write) -> bool {
        write.deeds.values().all(|(_, behind)| *behind == 0) && write.boot.is_none_or(|boot| !self.1.contains(&boot))
    }
}

impl ReferenceStateMachine for Revisions {
    type State = Self;
    type Transition = Write;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Write> {
        // Empty text, numbers of years before 1970 and long after, and whatever else Unicode has.
        let content = (any::<String>(), vec(-4_000_000_000_i64..8_000_000_000, 0..4), any::<bool>());
        let content = content.prop_map(|(text, seconds, flag)| Content { text, seconds, flag });
        let deed = prop_oneof![6 => content.prop_map(Deed::Put), 2 => Just(Deed::Delete), 1 => Just(Deed::Check)];
        let behind = prop_oneof![9 => Just(0_u64), 1 => 1..3_u64];
        let deeds = btree_map(select(&SUBJECTS[..]), (deed, behind), 1..5);
        (deeds, proptest::option::weighted(0.2, 0..4_u8), any::<bool>())
            .prop_map(|(deeds, boot, has_event)| Write { deeds, boot, has_event })
            .boxed()
    }

    fn apply(mut state: Self, write: &Write) -> Self {
        if state.accepts(write) {
            for (subject, (deed, _)) in &write.deeds {
                match deed {
                    Deed::Put(_) => *state.0.entry(*subject).or_default() += 1,
                    Deed::Delete => {
                        state.0.remove(subject);
                    }
                    Deed::Check => {}
                }
            }
            state.1.extend(write.boot);
        }
        state
    }
}

/// Both tables, with unique names.
struct Both {
    runtime: Runtime,
    table: Table,
    memory: MemoryStore,
    /// Kept for as long as its table is used.
    _target: Target,
    number: u32,
    revisions: Revisions,
    writes: i64,
}

impl Both {
    fn pool(&self) -> PoolName {
        format!("p{}", self.number).parse().unwrap()
    }

    fn key(&self, subject: Subject) -> Key {
        match subject {
            Subject::Meta => Key::Meta(self.pool()),
            Subject::Waiting(job) => Key::Waiting(self.pool(), JobId(job)),
            Subject::Nudge => Key::Nudge(self.pool()),
            Subject::Limit => Key::Limit(format!("o{}", self.number).parse().unwrap()),
        }
    }

    fn item(&self, subject: Subject, content: &Content, revision: u64) -> Item {
        let times: Vec<Timestamp> =
            content.seconds.iter().map(|second| Timestamp::from_second(*second).unwrap()).collect();
        let first = times.first().copied().unwrap_or_default();
        match subject {
            Subject::Meta => {
                let meta = Meta::new(self.pool(), "e1".parse().unwrap());
                Item::Meta(Meta { config_hash: content.text.clone(), revision, ..meta })
            }
            Subject::Waiting(job) => Item::Waiting(WaitingJob {
                pool: self.pool(),
                open: content.flag,
                checked_at: first,
                unserved: content.flag.then_some(Unserved { since: first, until: first, seconds: 30 }),
                launches: times,
                revision,
                ..waiting(job)
            }),
            Subject::Nudge => Item::Nudge(Nudge { pool: self.pool(), due_at: first, revision }),
            Subject::Limit => {
                let owner = format!("o{}", self.number).parse().unwrap();
                Item::Limit(Limit { owner, backoff_until: first, why: content.text.clone(), revision })
            }
        }
    }

    fn transaction(&self, write: &Write) -> Transaction {
        let mut transaction = Transaction::new();
        for (subject, (deed, behind)) in &write.deeds {
            let revision = self.revisions.of(*subject);
            // One that was read before the item was there, or one from before it was written last.
            let read = revision.checked_sub(*behind).unwrap_or(revision + behind);
            match deed {
                Deed::Put(content) => transaction.puts.push(self.item(*subject, content, read)),
                Deed::Delete => transaction.deletes.push((self.key(*subject), read)),
                Deed::Check => transaction.checks.push((self.key(*subject), read)),
            }
        }
        if let Some(boot) = write.boot {
            transaction = transaction.put_boot_item(format!("role:i-{}-{boot}", self.number), boot_item());
        }
        if write.has_event {
            let what = What::Checked { job: JobId(1), status: "queued".to_owned() };
            let cause = Cause::Operator("test".to_owned());
            transaction = transaction.emit(
                Stream::Pool(self.pool()),
                what,
                &Turn { now: at(self.writes), lease: at(self.writes), cause },
            );
        }
        transaction
    }

    /// Everything that can be read.
    async fn read(&self, store: &dyn LoggedStore) -> (Vec<String>, Vec<Option<Item>>, Vec<Event>) {
        let keys: Vec<Key> = SUBJECTS.iter().map(|subject| self.key(*subject)).collect();
        let mut one_by_one = Vec::new();
        for key in &keys {
            one_by_one.push(store.get(key).await.unwrap());
        }
        let mut many = store.partition(&self.pool()).await.unwrap().items;
        many.extend(store.get_many(&keys).await.unwrap());
        let mut many: Vec<String> = many.iter().map(|item| format!("{item:?}")).collect();
        many.sort();
        (many, one_by_one, store.newest_events(&Stream::Pool(self.pool()), 5).await)
    }
}

async fn written(store: &dyn Store, transaction: &Transaction) -> Result<(), String> {
    match store.commit(transaction).await {
        Ok(()) => Ok(()),
        Err(CommitError::Conflict(on)) => Err(on),
        Err(CommitError::Store(error)) => panic!("{error}"),
    }
}

struct Conforms;

impl StateMachineTest for Conforms {
    type SystemUnderTest = Both;
    type Reference = Revisions;

    fn init_test(_: &Revisions) -> Both {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (target, table) = runtime.block_on(async {
            let target = target().await;
            let (table, _) = target.table().await;
            (target, table)
        });
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (memory, revisions) = (MemoryStore::default(), Revisions::default());
        Both { runtime, table, memory, _target: target, number, revisions, writes: 0 }
    }

    fn apply(mut both: Both, _: &Revisions, write: Write) -> Both {
        both.writes += 1;
        let transaction = both.transaction(&write);
        let expected = both.runtime.block_on(written(&both.memory, &transaction));
        assert_eq!(expected.is_ok(), both.revisions.accepts(&write), "{transaction:?}");
        assert_eq!(both.runtime.block_on(written(&both.table, &transaction)), expected, "{transaction:?}");
        both.revisions = Revisions::apply(both.revisions, &write);
        let (is, should) =
            both.runtime.block_on(async { (both.read(&both.table).await, both.read(&both.memory).await) });
        assert_eq!(is, should, "after {transaction:?}");
        both
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: 12, failure_persistence: None, max_shrink_iters: 200, ..Config::default() })]

    #[test]
    fn the_table_equals_the_one_in_memory_after_any_writes(sequential 1..20 => Conforms);
}
