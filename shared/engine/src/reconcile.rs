//! Reconciling one pool: read it, decide until nothing is left to decide, perform every effect that is due.
//!
//! There is no other path: the first run, a retry, a redelivered message and the janitor after a crash all call
//! [`reconcile`].

use std::collections::{BTreeMap, BTreeSet};

use domain::config::Pool;
use domain::ids::{PoolName, SlotId};
use domain::policy::due::{Effect, LEFT_OUT_FOR, affordable, asked_again_at, due, lease_of, next_due, next_effect};
use domain::policy::nudge::Reader;
use domain::policy::retire::TagReading;
use domain::policy::stopped::STARTED_TOGETHER;
use domain::policy::{PoolView, decide, nudge};
use domain::state::{Config, Item, Key, Lease, Nudge, Phase};
use futures::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use tracing::Instrument;

use crate::accounts::Accounts;
use crate::context::Context;
use crate::effects::register::MAX_CONCURRENT_REGISTRATIONS;
use crate::effects::retire::RETIRED_TOGETHER;
use crate::effects::{Holder, Next, check, launch, lost_job, notify, register, rerun, retire, stop_machine};
use crate::error::ReconcileError;
use crate::pools;
use crate::table::{
    Commit, Extent, announce, answers, commit, leave_to_another, read, read_after, read_meta, read_pool, send_nudge,
    sent_nudge,
};

/// Concurrent effects of one pool besides registrations. GitHub allows 100 concurrent requests per installation, and the
/// registrations of one invocation are up to 24 of them.
const MAX_CONCURRENT_EFFECTS: usize = 4;

/// Rounds of deciding and performing in one invocation. After each round, nothing is left to decide and every due effect was
/// attempted. Another round follows if EC2's or GitHub's answers made more due.
const MAX_ROUNDS: usize = 16;

/// Rounds in an invocation that other messages wait for, and questions to GitHub per round, however long they take: a slow
/// invocation makes progress, too.
const MIN_ROUNDS: usize = 3;
const MIN_QUESTIONS: usize = 8;

/// Decisions in one round, of up to 48 launches each.
const MAX_DECISIONS: usize = 64;

/// How long after the beginning of a reading an invocation may decide from it again. Facts that others record meanwhile count as if
/// they had come a moment later. A reading of very many items takes longer, and is valid for as long as no other is made.
const READING_VALID_FOR: SignedDuration = SignedDuration::from_secs(1);

/// Reconciles the pool, as far as time allows.
pub async fn reconcile(context: &Context<'_>, config: &Config, pool: &Pool) -> Result<(), ReconcileError> {
    let span = tracing::error_span!("pool", pool = %pool.name);
    let reconciled = async {
        let read_at = context.now();
        let view = read_pool(context, &pool.name).await?;
        reconcile_pool(context, config, pool, (view, read_at), Extent::Whole).await
    };
    reconciled.instrument(span).await
}

/// Reconciles a pool after a nudge that this invocation has answered, unless another one decides about it now.
pub(crate) async fn reconcile_after_nudge(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
) -> Result<(), ReconcileError> {
    let span = tracing::error_span!("pool", pool = %pool.name);
    let reconciled = async {
        match read_unless_paused(context, pool, None, Extent::Whole).await? {
            Some(reading) => reconcile_pool(context, config, pool, reading, Extent::Whole).await,
            None => Ok(()),
        }
    };
    reconciled.instrument(span).await
}

/// Reads a pool, and returns the time before that, too. None if the pool is large and another invocation decides about it or reads it
/// now: a nudge makes one read it after that.
async fn read_unless_paused(
    context: &Context<'_>,
    pool: &Pool,
    sent: Option<&Nudge>,
    extent: Extent,
) -> Result<Option<(PoolView, Timestamp)>, ReconcileError> {
    let meta = read_meta(context, &pool.name).await?;
    if let Some(until) = nudge::paused_until(&meta, context.now()) {
        return send_nudge(context, &pool.name, sent, until).await.map(|()| None);
    }
    let read_at = context.now();
    let Some(meta) = announce(context, meta).await? else { return Ok(None) };
    Ok(Some((read_after(context, pool, meta, extent).await?, read_at)))
}

/// Reconciles a pool about which this invocation has recorded facts, unless another one does after that. `extent` is what these
/// facts make it necessary to read.
pub(crate) async fn reconcile_after_facts(
    context: &Context<'_>,
    accounts: &Accounts<'_>,
    config: &Config,
    pool: &Pool,
    extent: Extent,
) -> Result<(), ReconcileError> {
    let span = tracing::error_span!("pool", pool = %pool.name);
    let reconciled = async {
        let read_at = context.now();
        match read_after_facts(context, accounts, pool, extent).await? {
            Some((view, extent)) => reconcile_pool(context, config, pool, (view, read_at), extent).await,
            None => Ok(()),
        }
    };
    reconciled.instrument(span).await
}

/// Reads a pool about which facts were recorded. None if another invocation reads it after that.
///
/// The limit of the pool's account is read, too: a launch follows, and then calls to GitHub.
async fn read_after_facts(
    context: &Context<'_>,
    accounts: &Accounts<'_>,
    pool: &Pool,
    extent: Extent,
) -> Result<Option<(PoolView, Extent)>, ReconcileError> {
    let owner = pool.owner.owner();
    let name = &pool.name;
    let (mut meta, mut sent, mut limit) = (None, None, None);
    let keys = [Key::Meta(name.clone()), Key::Nudge(name.clone()), Key::Limit(owner.clone())];
    let read_at = context.now();
    let read = context.ports.store.get_readable(&keys).await?;
    for item in read.items {
        match item {
            Item::Meta(found) => meta = Some(found),
            Item::Nudge(found) => sent = Some(found),
            Item::Limit(found) => limit = Some(found),
            _ => {}
        }
    }
    if !read.unreadable.contains(&Key::Limit(owner.clone())) {
        accounts.limit_was_read(owner, limit, read_at);
    }
    let Some(meta) = meta else { return Err(ReconcileError::NoMeta(name.clone())) };
    let (meta, extent) = match nudge::reader(&meta, sent.as_ref(), context.now()) {
        Reader::This => (meta, extent),
        Reader::WhoeverDeletes(nudge) => match answers(context, nudge).await? {
            true => (read_meta(context, name).await?, Extent::Whole),
            false => return Ok(None),
        },
        Reader::Another => return Ok(None),
        Reader::Later(at) => return send_nudge(context, name, sent.as_ref(), at).await.map(|()| None),
    };
    let Some(meta) = announce(context, meta).await? else { return Ok(None) };
    Ok(Some((read_after(context, pool, meta, extent).await?, extent)))
}

/// `view` comes with the time before it was read.
async fn reconcile_pool(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    (mut view, mut read_at): (PoolView, Timestamp),
    extent: Extent,
) -> Result<(), ReconcileError> {
    let is_first = view.meta.config_hash.is_empty();
    if is_first || view.meta.config_hash == pool.config_hash() {
        return reconcile_view(context, config, pool, (view, read_at), extent).await;
    }
    if view.unread.is_some() {
        // Whether the rest is needed was decided by the old settings.
        read_at = context.now();
        view = read_pool(context, &pool.name).await?;
    }
    // Either the pool has been changed since the last decision, or since this invocation read the pools, which may be cached.
    // Read after META, they are at least as new as those of the last decision, so old settings never replace newer ones.
    let Some(newest) = pools::newest(context).await? else { return Ok(()) };
    match newest.pool(&pool.name) {
        Some(pool) => reconcile_view(context, &newest, pool, (view, read_at), Extent::Whole).await,
        None => Ok(()),
    }
}

async fn reconcile_view(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    (mut view, mut read_at): (PoolView, Timestamp),
    extent: Extent,
) -> Result<(), ReconcileError> {
    let mut next = None;
    let mut points = context.share.points;
    for round in 0..MAX_ROUNDS {
        if round > 0 {
            let reading = read_unless_paused(context, pool, view.nudge.as_ref(), extent).await?;
            let Some(newer) = reading else { return Ok(()) };
            (view, read_at) = newer;
        }
        let mut decided = BTreeMap::new();
        // What was decided before a failure is performed all the same.
        let outcome = decide_all(context, pool, (&mut view, read_at), extent, &mut decided).await;
        let resumes_at = decide::resumes_at(pool, &view, &context.turn(pool));
        // The view may have been read again since. If clocks differ, another invocation may have claimed an effect by now.
        decided.retain(|effect, lease| lease_of(&view, *effect) == Some(*lease));
        let budget = context.ports.github.budget(pool.owner.owner());
        let looked_at = context.now();
        let due = due(pool, &view, budget, looked_at);
        let needed: BTreeSet<Effect> = due.effects.into_iter().chain(decided.keys().copied()).collect();
        let effects = affordable(&needed, &mut points);
        let is_left_out = effects.len() < needed.len() || due.is_more_due;
        let left_out = is_left_out.then(|| context.now() + LEFT_OUT_FOR);
        let tags = retire::read_tags(context, &view, &effects).await;
        let performed = perform_all(context, config, pool, (&view, &tags), &effects, &decided).await;
        let undecided = match outcome {
            Ok(Decided::All) => None,
            Ok(Decided::NotAll) => Some(context.now()),
            Ok(Decided::LostRace) => return leave_to_another(context, &pool.name, view.size()).await,
            Err(error) => {
                let at = context.now() + LEFT_OUT_FOR;
                if let Err(failed) = send_nudge(context, &pool.name, view.nudge.as_ref(), at).await {
                    tracing::warn!("pool {} is left to the next sweep: {failed}", pool.name);
                }
                return Err(error);
            }
        };
        let later = due_later(context, pool, &view, looked_at);
        next = undecided.into_iter().chain(resumes_at).chain(performed).chain(left_out).chain(later).min();
        let yields = round + 1 >= MIN_ROUNDS && context.must_yield();
        if context.short_of_time() || yields || next.is_none_or(|at| at > context.now()) {
            break;
        }
    }
    match next {
        Some(at) => send_nudge(context, &pool.name, view.nudge.as_ref(), at).await,
        None => Ok(()),
    }
}

/// When the first effect is due that was not due at `looked_at`. It may be due by now, because others took their time.
fn due_later(context: &Context<'_>, pool: &Pool, view: &PoolView, looked_at: Timestamp) -> Option<Timestamp> {
    let reports = view.slots.values().filter_map(|slot| slot.awaits_report_until()).filter(|at| *at > looked_at);
    let budget = context.ports.github.budget(pool.owner.owner());
    let asked_again = asked_again_at(pool, view, budget, looked_at);
    reports.chain(asked_again).chain(next_due(view, looked_at)).min()
}

/// How a round of decisions ended.
enum Decided {
    All,
    /// The time, the reading or the number of decisions is used up.
    NotAll,
    /// Another invocation has decided from a newer reading.
    LostRace,
}

/// Decides until nothing is left to decide. Adds the effects of the decisions to `decided`, with the leases that were written.
async fn decide_all(
    context: &Context<'_>,
    pool: &Pool,
    (view, mut read_at): (&mut PoolView, Timestamp),
    extent: Extent,
    decided: &mut BTreeMap<Effect, Lease>,
) -> Result<Decided, ReconcileError> {
    let mut decisions = 0;
    let mut is_fresh = true;
    while decisions < MAX_DECISIONS {
        let turn = context.turn(pool);
        let Some(decision) = decide::decide(pool, view, &turn) else { return Ok(Decided::All) };
        if context.short_of_time() {
            // Its effects could not begin before its leases end.
            break;
        }
        let valid_for = READING_VALID_FOR.max(nudge::pause(view.size()));
        if !is_fresh && turn.now.duration_since(read_at) >= valid_for {
            // This invocation wrote the pool's version itself, so the version does not show what others have written since.
            if nudge::is_large(view.size()) {
                // First what was decided, which takes longer than a reading.
                break;
            }
            read_at = context.now();
            *view = read(context, pool, extent).await?;
            is_fresh = true;
            continue;
        }
        decisions += 1;
        let launch = decision.batch.as_ref().map(|batch| Effect::Launch(batch.version));
        let slots: Vec<Effect> = decision.slots.iter().filter_map(next_effect).collect();
        let writes = decision.transaction(&turn);
        match commit(context, &writes).await? {
            Commit::Written => {
                view.apply(&writes);
                is_fresh = false;
                let leased = launch.into_iter().chain(slots).filter_map(|it| Some((it, lease_of(view, it)?)));
                decided.extend(leased);
            }
            Commit::Lost(what) if what == Key::Meta(pool.name.clone()).to_string() => return Ok(Decided::LostRace),
            Commit::Lost(_) => {
                read_at = context.now();
                *view = read(context, pool, extent).await?;
                is_fresh = true;
            }
        }
    }
    Ok(Decided::NotAll)
}

/// Performs the effects, and returns when more is due. A failed effect stays due.
async fn perform_all(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    readings: (&PoolView, &TagReading),
    effects: &BTreeSet<Effect>,
    decided: &BTreeMap<Effect, Lease>,
) -> Next {
    let first_extra = effects.iter().filter(|effect| effect.is_question()).nth(MIN_QUESTIONS);
    let may_wait = |effect: &Effect| effect.is_question() && first_extra.is_some_and(|first| effect >= first);
    let holder = |effect: &Effect| if decided.contains_key(effect) { Holder::This } else { Holder::None };
    let perform_one = |Group { effect, slots }: Group| async move {
        let effect = &effect;
        if context.short_of_time() {
            return Some(context.now());
        }
        if may_wait(effect) && context.must_yield() {
            return Some(context.now() + LEFT_OUT_FOR);
        }
        let span = effect_span(effect);
        let performed = perform(context, config, pool, readings, *effect, holder(effect), &slots);
        performed.instrument(span.clone()).await.unwrap_or_else(|error| {
            span.in_scope(|| tracing::warn!("{effect} failed and stays due: {error}"));
            None
        })
    };
    let Groups { registrations, others } = grouped(readings.0, effects, holder);
    let perform_each = |groups: Vec<Group>, at_a_time| {
        let performed = stream::iter(groups).map(perform_one).buffer_unordered(at_a_time);
        performed.filter_map(std::future::ready).collect::<Vec<Timestamp>>()
    };
    // A job waits for each registration, and a launch takes seconds.
    let (registered, performed) = futures::join!(
        perform_each(registrations, MAX_CONCURRENT_REGISTRATIONS),
        perform_each(others, MAX_CONCURRENT_EFFECTS)
    );
    registered.into_iter().chain(performed).min()
}

/// An effect, or the first of several that share calls, with their slots.
struct Group {
    effect: Effect,
    slots: Vec<(SlotId, Holder)>,
}

struct Groups {
    registrations: Vec<Group>,
    others: Vec<Group>,
}

/// Groups retirements, which share their transactions, and registrations of stopped machines, which are started with one call.
fn grouped(view: &PoolView, effects: &BTreeSet<Effect>, holder: impl Fn(&Effect) -> Holder) -> Groups {
    let (mut registrations, mut others) = (Vec::new(), Vec::new());
    let (mut starts, mut retirements) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Register(slot) if view.slots.get(slot).is_some_and(|slot| slot.phase() == Phase::Started) => {
                starts.push((*slot, holder(effect)));
            }
            Effect::Register(slot) => {
                registrations.push(Group { effect: *effect, slots: vec![(*slot, holder(effect))] });
            }
            Effect::Retire(slot) => retirements.push((*slot, holder(effect))),
            Effect::Launch(_)
            | Effect::StopMachine(_)
            | Effect::Check(_)
            | Effect::CheckLostJob(_)
            | Effect::Notify(_)
            | Effect::Rerun(_) => others.push(Group { effect: *effect, slots: Vec::new() }),
        }
    }
    let together = |slots: &[(SlotId, Holder)], effect: fn(SlotId) -> Effect| Group {
        effect: effect(slots[0].0),
        slots: slots.to_vec(),
    };
    registrations.extend(starts.chunks(STARTED_TOGETHER).map(|slots| together(slots, Effect::Register)));
    others.extend(retirements.chunks(RETIRED_TOGETHER).map(|slots| together(slots, Effect::Retire)));
    Groups { registrations, others }
}

async fn perform(
    context: &Context<'_>,
    config: &Config,
    pool: &Pool,
    (view, tags): (&PoolView, &TagReading),
    effect: Effect,
    holder: Holder,
    slots: &[(SlotId, Holder)],
) -> Result<Next, ReconcileError> {
    match effect {
        Effect::Launch(version) => launch::launch(context, pool, view, version, holder).await,
        Effect::Register(_) => register::register_each(context, pool, view, slots).await,
        Effect::StopMachine(slot) => stop_machine::stop_machine(context, pool, view, tags, slot, holder).await,
        Effect::Retire(_) => {
            let retired = retire::retire(context, pool, view, tags, slots).await;
            for error in &retired.failed {
                tracing::warn!("a retirement failed and stays due: {error}");
            }
            Ok(retired.next)
        }
        Effect::Check(job) => check::check(context, config, pool, view, job).await,
        Effect::CheckLostJob(slot) => lost_job::check_lost_job(context, config, pool, view, slot).await,
        Effect::Notify(job) => notify::notify(context, pool, view, job).await,
        Effect::Rerun(job) => rerun::rerun(context, pool, view, job).await,
    }
}

/// Its level is the highest, so that no configured level hides the span while lines are written.
fn effect_span(effect: &Effect) -> tracing::Span {
    match effect {
        Effect::Launch(version) => tracing::error_span!("effect", effect = "launch", batch = version),
        Effect::Register(slot) => tracing::error_span!("effect", effect = "register", %slot),
        Effect::StopMachine(slot) => tracing::error_span!("effect", effect = "stop_machine", %slot),
        Effect::Retire(slot) => tracing::error_span!("effect", effect = "retire", %slot),
        Effect::Check(job) => tracing::error_span!("effect", effect = "check", %job),
        Effect::CheckLostJob(slot) => tracing::error_span!("effect", effect = "check_lost_job", %slot),
        Effect::Notify(job) => tracing::error_span!("effect", effect = "notify", %job),
        Effect::Rerun(job) => tracing::error_span!("effect", effect = "rerun", %job),
    }
}

/// A nudge has arrived. Returns whether this invocation answers it, by deleting its record: the pool is read after that.
/// Otherwise another one has answered it, or an operator has sent it.
pub async fn nudged(context: &Context<'_>, pool: &PoolName) -> Result<bool, ReconcileError> {
    match sent_nudge(context, pool).await? {
        Some(nudge) => answers(context, nudge).await,
        None => Ok(false),
    }
}
