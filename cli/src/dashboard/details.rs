//! The pages of one job, one machine and one pool.

use axum::response::Html;
use domain::config::MicroUsd;
use domain::ids::JobId;
use domain::log::{Event, Stream, What};
use domain::state::{Instance, Item, Job, Key, Ownership, in_columns};
use engine::ports::Store;
use jiff::Timestamp;
use maud::html;
use platform::table::Table;
use serde_json::Value;

use super::chart::{Phase, phases, timeline};
use super::filter::Filter;
use super::history::History;
use super::overview::Overview;
use super::page::{Banner, chart, event_table, facts_list, framed, job_link, pool_table, sections};
use crate::aside::{self, Aside};
use crate::output::{Failure, Output, or_dash, printable};
use crate::pools::PoolRow;

/// Events of a pool that are searched for a machine.
const EVENTS: usize = 2000;

/// What `drover explain` prints about a job, with its timeline.
pub(super) fn job(id: JobId, explained: &Output, banner: &Banner, now: Timestamp) -> Html<String> {
    let url = explained.json["job"]["html_url"].as_str().filter(|url| url.starts_with("https://"));
    let machine = explained.json["instance"].as_str();
    let phases = phases_of_job(&explained.json, now);
    let body = html! {
        p {
            a href="/" { "Overview" }
            @if let Some(url) = url { " · " a href=(url) { "On GitHub" } }
            @if let Some(id) = machine { " · " a href={ "/machine?id=" (id) } { "Its machine" } }
        }
        @if !phases.is_empty() { (timeline(&phases)) }
        pre tabindex="0" { (printable(&explained.text)) }
    };
    framed(&format!("Job {id}"), banner, &body)
}

fn phases_of_job(explained: &Value, now: Timestamp) -> Vec<Phase> {
    let Ok(job) = serde_json::from_value::<Job>(explained["job"].clone()) else { return Vec::new() };
    let slot = explained["slots"].as_array().into_iter().flatten().find(|slot| slot["id"] == explained["slot"]);
    let at = |name: &str| slot.and_then(|slot| slot[name].as_str()?.parse::<Timestamp>().ok());
    let mut marks = vec![("queued", Some(job.queued_at))];
    match explained["parts"].as_array().filter(|parts| !parts.is_empty()) {
        Some(parts) => {
            let mut since = job.queued_at;
            for part in parts {
                let seconds = part["seconds"].as_f64().unwrap_or_default();
                since = since.checked_add(std::time::Duration::from_secs_f64(seconds.max(0.0))).unwrap_or(since);
                let name = match part["until"].as_str().unwrap_or_default() {
                    until if until.contains("launched") => "launched",
                    until if until.contains("started the stopped machine") => "started",
                    until if until.contains("registered") => "registered",
                    until if until.contains("recorded") => "recorded",
                    _ => continue,
                };
                marks.push((name, Some(since)));
            }
        }
        None => {
            let recorded = Some(job.first_seen_at).filter(|at| *at > job.queued_at);
            let waits = |at: Option<Timestamp>| at.filter(|at| *at > job.queued_at);
            marks.extend([
                ("recorded", recorded),
                ("launched", waits(at("launched_at"))),
                ("started", waits(at("started_at"))),
                ("registered", waits(at("configured_at"))),
            ]);
        }
    }
    marks.push(("running", job.started_at.filter(|_| job.runner.is_some())));
    phases(&marks, job.completed_at.unwrap_or(now))
}

/// A machine, as the table knows it.
pub(super) struct MachineReport {
    instance: Instance,
    job: Option<Job>,
    /// Newest first.
    events: Vec<Event>,
}

impl MachineReport {
    /// None if the table knows no such machine.
    pub(super) async fn read(table: &Table, key: &Key) -> Result<Option<Self>, Failure> {
        let Some(Item::Instance(instance)) = table.get(key).await? else { return Ok(None) };
        let job = match instance.job {
            Some(id) => match table.get(&Key::Job(id)).await? {
                Some(Item::Job(job)) => Some(*job),
                _ => None,
            },
            None => None,
        };
        let stream = instance.pool.clone().map_or(Stream::Stack, Stream::Pool);
        let mut events = table.events(&stream, EVENTS).await?;
        events.retain(|event| is_about(event, &instance));
        Ok(Some(Self { instance, job, events }))
    }
}

fn is_about(event: &Event, instance: &Instance) -> bool {
    let key = Key::Instance(instance.id.clone()).to_string();
    let is_its_slot = match &event.what {
        What::HandedOver { slot, .. } | What::Stopped { slot, .. } => Some(*slot) == instance.slot,
        What::Unregistered { slot, others } => instance.slot.is_some_and(|own| own == *slot || others.contains(&own)),
        _ => false,
    };
    is_its_slot
        || slot_of(instance).is_some_and(|slot| aside::is_about(event, &slot))
        || event.after.iter().any(|after| after.key == key)
}

fn slot_of(instance: &Instance) -> Option<Key> {
    Some(Key::Slot(instance.pool.clone()?, instance.slot?))
}

pub(super) fn machine(report: &MachineReport, banner: &Banner, now: Timestamp) -> Html<String> {
    let MachineReport { instance, job, events } = report;
    let first = |is: fn(&What) -> bool| events.iter().rev().find(|event| is(&event.what)).map(|event| event.at);
    let closed = match &instance.ownership {
        Ownership::Closed { closed_at, .. } => Some(*closed_at),
        Ownership::Bound | Ownership::Condemned { .. } | Ownership::Adopted => None,
    };
    let aside = slot_of(instance).map(|slot| Aside::of(events.iter().rev(), &slot)).unwrap_or_default();
    let ran = job.as_ref().filter(|job| job.started_at.is_some());
    let marks = [
        ("launched", Some(instance.launched_at)),
        ("stopped", aside.stopped_at),
        ("started", aside.started_at),
        ("registered", first(|what| matches!(what, What::HandedOver { .. }))),
        ("running", ran.and_then(|job| job.started_at)),
        ("done", ran.and_then(|job| job.completed_at)),
    ];
    let facts = [
        ("Pool", or_dash(instance.pool.as_ref())),
        ("Slot", or_dash(instance.slot)),
        ("Type", or_dash(instance.instance_type.as_ref())),
        ("Market", or_dash(instance.market)),
        ("Class", or_dash(instance.class.as_ref())),
        ("Per hour", or_dash(instance.price_per_hour)),
        ("Runner", or_dash(instance.runner_name.as_ref())),
        ("Repository", or_dash(instance.repository.as_ref())),
        ("Reclaimed by EC2", or_dash(instance.interrupted_at.map(|at| format!("{at:.0}")))),
        ("Cost", or_dash(instance.cost_micro_usd.map(|cost: MicroUsd| cost.to_string()))),
    ];
    // Of pools with shapes and caps.
    let is_shown = |(name, value): &(&str, String)| !matches!(*name, "Class" | "Per hour") || value != "-";
    let facts: Vec<(&str, String)> = facts.into_iter().filter(is_shown).collect();
    let events: Vec<&Event> = events.iter().collect();
    let body = html! {
        p {
            a href="/" { "Overview" }
            @if let Some(job) = instance.job { " · Job " (job_link(job)) }
        }
        (timeline(&phases(&marks, closed.unwrap_or(now))))
        (facts_list(&facts))
        @if let Some(usage) = &instance.usage {
            h2 { "Used by its job, as it reported" }
            pre tabindex="0" { (in_columns(&usage.lines()).join("\n")) }
        }
        @if let Some(console) = &instance.console {
            h2 { "The end of its console" }
            pre tabindex="0" { (printable(console)) }
        }
        h2 { "Events" }
        (event_table(&events))
    };
    framed(&format!("Machine {}", instance.id), banner, &body)
}

pub(super) fn pool(overview: &Overview, row: &PoolRow, banner: &Banner, now: Timestamp) -> Html<String> {
    let none = History::default();
    let history = overview.histories.by_pool.get(&row.pool).unwrap_or(&none);
    let filter = Filter { pool: row.pool.to_string(), ..Filter::default() };
    let body = html! {
        p { a href="/" { "Overview" } }
        div.wide { (chart(row, history, 96)) }
        h2 { "State" }
        (pool_table(&[row], overview))
        (sections(overview, &filter, now))
    };
    framed(&format!("Pool {}", row.pool), banner, &body)
}
