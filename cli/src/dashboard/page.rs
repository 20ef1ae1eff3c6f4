//! The frame of the dashboard's pages, and the overview. `maud` escapes all text: anyone who can open a pull request chooses the
//! names of jobs.

use std::collections::BTreeMap;

use axum::response::Html;
use domain::ids::{InstanceId, JobId, PoolName};
use domain::log::Event;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::chart::{short, sparkline};
use super::filter::{Filter, Page, page};
use super::history::{History, POINTS, Waits};
use super::overview::Overview;
use crate::cost::Total;
use crate::describe;
use crate::jobs::JobRow;
use crate::output::{age, or_dash, printable, usd};
use crate::pools::{PoolRow, State};
use crate::ps::{Kind, Row};
use crate::web::document;

const STYLE: &str = include_str!("page.css");

/// What is said above a page's content.
#[derive(Debug, Clone, Default)]
pub(super) struct Banner {
    /// Why the content is not newer.
    pub(super) failure: Option<String>,
    /// When it was read.
    pub(super) at: Option<Timestamp>,
}

pub(super) fn framed(title: &str, banner: &Banner, body: &Markup) -> Html<String> {
    let head = html! { script src="/dashboard.js" defer {} };
    let body = html! {
        header {
            a.name href="/" { "Drover" }
            form action="/job" role="search" {
                label for="job" { "Job" }
                input #job name="job" placeholder="id or URL"; button { "Explain" }
            }
        }
        p.bad.stale role="status" { "This page is out of date: drover does not respond." }
        main {
            h1 { (title) }
            @if let Some(failure) = &banner.failure {
                p.bad.banner role="alert" {
                    @if let Some(at) = banner.at { "This is the state of " (format!("{at:.0}")) ". " }
                    (printable(failure))
                }
            }
            (body)
        }
    };
    document(&format!("{title} · Drover"), STYLE, &head, &body)
}

/// A page with an error message.
pub(super) fn error_page(message: &str) -> Html<String> {
    framed("No answer", &Banner::default(), &html! { p.bad { (printable(message)) } })
}

pub(super) fn overview(overview: &Overview, filter: &Filter, banner: &Banner, now: Timestamp) -> Html<String> {
    let pools: Vec<&PoolRow> = overview.pools.iter().filter(|row| filter.has_pool(&row.pool)).collect();
    let body = html! {
        (totals(overview, now))
        (search(overview, filter))
        h2 { "Pools" }
        (pool_table(&pools, overview))
        (sections(overview, filter, now))
    };
    framed("Overview", banner, &body)
}

/// Waiting jobs, machines and events.
pub(super) fn sections(overview: &Overview, filter: &Filter, now: Timestamp) -> Markup {
    let waiting: Vec<&JobRow> = overview.waiting().filter(|job| filter.has_job(job, overview.reason(job))).collect();
    let machines: Vec<&Row> =
        overview.machines.iter().filter(|row| filter.has_machine(row, overview.job_name(row))).collect();
    let events: Vec<&Event> = overview.events.iter().filter(|event| is_of(event, &filter.pool)).collect();
    html! {
        h2 #waiting { "Waiting jobs (" (waiting.len()) ")" }
        (reason_table(overview, filter))
        (waiting_table(&page(&waiting, &filter.jobs), overview))
        (pages("waiting", &page(&waiting, &filter.jobs), |jobs| Filter { jobs, ..filter.clone() }))
        h2 #machines { "Machines (" (machines.len()) ")" }
        (machine_table(&page(&machines, &filter.machines), overview))
        (pages("machines", &page(&machines, &filter.machines), |machines| Filter { machines, ..filter.clone() }))
        h2 { "Events" }
        (event_table(&events))
        p.dim {
            "As of " (format!("{now:.0}")) ". Charts: the last six hours. Waits: from queued to started, for jobs started in the last \
            24 hours. Cost: since midnight, UTC, at the prices that drover cost uses."
        }
    }
}

fn is_of(event: &Event, pool: &str) -> bool {
    pool.is_empty() || String::from(event.stream.clone()) == pool
}

fn totals(overview: &Overview, now: Timestamp) -> Markup {
    let busy = overview.machines.iter().filter(|row| row.kind == Kind::BusyMachine).count();
    let cost: f64 = overview.histories.cost_today.values().map(|total| total.usd).sum();
    let facts = [
        ("Stack", overview.surroundings.stack.to_string()),
        ("Region", overview.surroundings.region.clone()),
        ("Time", format!("{now:.0}")),
        ("Waiting", overview.waiting().count().to_string()),
        ("Running", busy.to_string()),
        ("Machines", overview.pools.iter().map(|pool| pool.live).sum::<usize>().to_string()),
        ("Cost today", format!("{} USD", usd(cost))),
    ];
    facts_list(&facts)
}

pub(super) fn facts_list(facts: &[(&str, String)]) -> Markup {
    html! { dl.facts { @for (name, value) in facts { div { dt { (name) } dd { (printable(value)) } } } } }
}

fn search(overview: &Overview, filter: &Filter) -> Markup {
    html! { form.filter action="/" role="search" aria-label="Filter" {
        label for="pool" { "Pool" }
        select #pool name="pool" {
            option value="" { "all" }
            @for row in &overview.pools {
                option value=(row.pool) selected[filter.pool == row.pool.as_str()] { (row.pool) }
            }
        }
        label for="find" { "Job, repository or machine" }
        input #find name="find" value=(filter.find);
        button { "Filter" }
        @if !filter.is_empty() { a href="/" { "Show everything" } }
    } }
}

/// Links to the pages of a table.
fn pages<T>(section: &str, page: &Page<'_, T>, filter: impl Fn(String) -> Filter) -> Markup {
    let link = |number: usize| format!("{}#{section}", filter(number.to_string()).url());
    html! { @if page.pages > 1 { nav.pages aria-label={ "Pages of " (section) } {
        @if page.number > 1 { a href=(link(page.number - 1)) { "Previous" } }
        span { "Page " (page.number) " of " (page.pages) }
        @if page.number < page.pages { a href=(link(page.number + 1)) { "Next" } }
    } } }
}

pub(super) fn job_link(job: JobId) -> Markup {
    html! { a href={ "/job?job=" (job) } { (job) } }
}

pub(super) fn machine_link(instance: &InstanceId) -> Markup {
    html! { a href={ "/machine?id=" (instance) } { code { (instance) } } }
}

fn pool_link(pool: &PoolName) -> Markup {
    html! { a href={ "/pool?name=" (pool) } { (pool) } }
}

fn empty(message: &str) -> Markup {
    html! { p.dim { (message) } }
}

fn head(titles: &[(&str, &str)]) -> Markup {
    html! { thead { tr { @for (title, class) in titles { th scope="col" class=(class) { (title) } } } } }
}

pub(super) fn pool_table(pools: &[&PoolRow], overview: &Overview) -> Markup {
    let titles = [
        ("Pool", ""),
        ("State", ""),
        ("Last 6 hours", ""),
        ("Demand", "n"),
        ("Supply", "n"),
        ("Live / max", "n"),
        ("USD per hour", "n"),
        ("Busy", "n"),
        ("Warm", "n"),
        ("Oldest waits", "n"),
        ("Wait p50", "n"),
        ("Wait p90", "n"),
        ("Wait p99", "n"),
        ("Jobs started", "n"),
        ("Cost today", "n"),
    ];
    // Other operators see the same as before.
    let has_prices = pools.iter().any(|pool| pool.usd_per_hour.is_some());
    let titles = titles.into_iter().filter(|(title, _)| has_prices || *title != "USD per hour");
    let titles: Vec<(&str, &str)> = titles.collect();
    html! {
        table {
            (head(&titles))
            tbody { @for pool in pools { (pool_row(pool, overview, has_prices)) } }
        }
        p.dim {
            span.key.live aria-hidden="true" {} "machines " span.key.demand aria-hidden="true" {} "demand"
            @if let Some(url) = &overview.surroundings.metrics_url {
                " · " a href=(url) rel="noreferrer" { "Metrics in CloudWatch" }
            }
        }
        @for pool in pools {
            @for obstacle in &pool.obstacles { p.bad { (pool.pool) ": " (printable(obstacle)) } }
        }
    }
}

fn pool_row(row: &PoolRow, overview: &Overview, has_prices: bool) -> Markup {
    let none = History::default();
    let history = overview.histories.by_pool.get(&row.pool).unwrap_or(&none);
    let waits = &history.waits;
    let wait = |percent| or_dash(waits.percentile(percent).map(short));
    let oldest = overview.waiting().filter(|job| job.pool == row.pool).map(|job| job.waited_seconds).max();
    let is_bad = match row.state {
        State::Ok | State::Draining | State::Paused => false,
        State::CircuitOpen | State::ClassCircuitOpen | State::Refused | State::AtMax | State::AtCap | State::NoType => {
            true
        }
    };
    html! { tr {
        td.t data-title="Pool" { b { (pool_link(&row.pool)) } }
        td.t data-title="State" {
            span.good[row.state == State::Ok] .bad[is_bad] { (row.state_text()) }
        }
        td.all data-title="Last 6 hours" { (chart(row, history, 28)) }
        td.n data-title="Demand" { (row.demand) }
        td.n.o data-title="Supply" { (row.supply) }
        td.n data-title="Live / max" { (row.live) " / " (row.max) }
        @if has_prices { td.n data-title="USD per hour" { (or_dash(row.price())) } }
        td.n data-title="Busy" { (row.busy) (utilisation(row)) }
        td.n.o data-title="Warm" {
            (row.warm) " / " (row.warm_wanted)
            @if let Some(stopped) = row.stopped() { ", stopped " (stopped) }
            @if let Some(schedule) = &row.schedule { span.dim { " " (schedule.to_string()) } }
        }
        td.n data-title="Oldest waits" { (or_dash(oldest.map(seconds))) }
        td.n.o data-title="Wait p50" { (wait(50)) }
        td.n data-title="Wait p90" { (wait(90)) }
        td.n.o data-title="Wait p99" { (wait(99)) }
        td.n.o data-title="Jobs started" { (started(waits)) }
        td.n data-title="Cost today" { (or_dash(overview.histories.cost_today.get(row.pool.as_str()).map(amount))) }
    } }
}

pub(super) fn chart(row: &PoolRow, history: &History, height: u32) -> Markup {
    let top = |series: &[u32]| series.iter().max().copied().unwrap_or(0);
    let (demand, live) = (top(&history.demand), top(&history.live));
    let period = history.charted_since.map_or("in the last six hours".to_owned(), |at| format!("since {at:.0}"));
    let label = format!("{} {period}: at most {live} machines, at most {demand} jobs waiting", row.pool);
    html! {
        (sparkline(&history.demand, &history.live, POINTS, height, &label))
        @if let Some(at) = history.charted_since { span.dim { "since " (format!("{at:.0}")) } }
    }
}

/// The share of the running machines that have a job.
fn utilisation(row: &PoolRow) -> String {
    let running = row.live - row.stopped.unwrap_or_default();
    (row.busy * 100).checked_div(running).map(|percent| format!(" ({percent} %)")).unwrap_or_default()
}

fn started(waits: &Waits) -> Markup {
    html! {
        (waits.sorted.len())
        @if let Some(since) = waits.only_since { span.dim { " since " (format!("{since:.0}")) } }
    }
}

fn amount(total: &Total) -> String {
    let more = if total.unpriced > 0 { "> " } else { "" };
    format!("{more}{} USD", usd(total.usd))
}

fn seconds(seconds: i64) -> String {
    age(SignedDuration::from_secs(seconds))
}

/// Why jobs wait: how many for each reason, and the oldest of them.
fn reason_table(overview: &Overview, filter: &Filter) -> Markup {
    let mut groups: BTreeMap<(&PoolName, &str), (usize, i64)> = BTreeMap::new();
    let all = Filter { reason: String::new(), ..filter.clone() };
    for job in overview.waiting().filter(|job| all.has_job(job, overview.reason(job))) {
        let group = groups.entry((&job.pool, overview.reason(job))).or_default();
        *group = (group.0 + 1, group.1.max(job.waited_seconds));
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (_, oldest))| std::cmp::Reverse(*oldest));
    let link = |pool: &PoolName, reason: &str| {
        let filter = Filter { pool: pool.to_string(), reason: reason.to_owned(), ..Filter::default() };
        format!("{}#waiting", filter.url())
    };
    html! { @if !groups.is_empty() { table.reasons {
        (head(&[("Reason", ""), ("Pool", ""), ("Jobs", "n"), ("Oldest waits", "n")]))
        tbody { @for ((pool, reason), (jobs, oldest)) in &groups { tr {
            td.all data-title="Reason" { a href=(link(pool, reason)) { (printable(reason)) } }
            td.t data-title="Pool" { (pool_link(pool)) }
            td.n data-title="Jobs" { (jobs) }
            td.n data-title="Oldest waits" { (seconds(*oldest)) }
        } } }
    } } }
}

fn waiting_table(page: &Page<'_, &JobRow>, overview: &Overview) -> Markup {
    if page.lines.is_empty() {
        return empty("No waiting jobs.");
    }
    let has_classes = page.lines.iter().any(|row| row.class.is_some());
    let titles =
        [("Job", ""), ("Name", ""), ("Repository", ""), ("Pool", ""), ("Class", ""), ("State", ""), ("Reason", "")];
    let titles = titles.into_iter().filter(|(title, _)| has_classes || *title != "Class");
    let titles: Vec<(&str, &str)> = titles.chain([("Waiting for", "n")]).collect();
    html! { table {
        (head(&titles))
        tbody { @for row in page.lines { tr {
            td.t data-title="Job" { (job_link(row.job)) }
            td data-title="Name" { (printable(&row.name)) }
            td data-title="Repository" { (row.repository) }
            td.t data-title="Pool" { (pool_link(&row.pool)) }
            @if has_classes { td.t data-title="Class" { (or_dash(row.class.as_ref())) } }
            td.t data-title="State" { (row.state.as_str()) }
            td.cut.o data-title="Reason" title=(printable(overview.reason(row))) { span { (printable(overview.reason(row))) } }
            td.n data-title="Waiting for" { (seconds(row.waited_seconds)) }
        } } }
    } }
}

fn machine_table(page: &Page<'_, &Row>, overview: &Overview) -> Markup {
    if page.lines.is_empty() {
        return empty("No machines.");
    }
    let has_classes = page.lines.iter().any(|row| row.class.is_some());
    let titles = [("Machine", ""), ("Pool", ""), ("Class", ""), ("State", ""), ("Type", ""), ("Job", ""), ("Name", "")];
    let titles = titles.into_iter().filter(|(title, _)| has_classes || *title != "Class");
    let titles: Vec<(&str, &str)> = titles.chain([("Repository", ""), ("Age", "n")]).collect();
    html! { table {
        (head(&titles))
        tbody { @for row in page.lines { tr {
            td.t data-title="Machine" { @if let Some(id) = &row.instance { (machine_link(id)) } @else { "-" } }
            td.t data-title="Pool" { (pool_link(&row.pool)) }
            @if has_classes { td.t data-title="Class" { (or_dash(row.class.as_ref())) } }
            td data-title="State" { span.busy[row.kind == Kind::BusyMachine] { (row.state) } }
            td.t.o data-title="Type" { (or_dash(row.instance_type.as_ref())) }
            td.t data-title="Job" { @if let Some(job) = row.job { (job_link(job)) } @else { "-" } }
            td data-title="Name" { (printable(overview.job_name(row))) }
            td.o data-title="Repository" { (or_dash(row.repository.as_ref())) }
            td.n data-title="Age" { (seconds(row.age_seconds)) }
        } } }
    } }
}

/// The cause of an event is shown where the pointer is.
pub(super) fn event_table(events: &[&Event]) -> Markup {
    if events.is_empty() {
        return empty("No events yet.");
    }
    html! { table {
        (head(&[("Time", ""), ("Log", ""), ("Event", "")]))
        tbody { @for event in events { tr title=(printable(&describe::cause(&event.cause))) {
            td.t data-title="Time" { (format!("{:.0}", event.at)) }
            td.t data-title="Log" { (String::from(event.stream.clone())) }
            td.all.clamp data-title="Event" { span { (linked(&printable(&describe::event(event, None)), &jobs_of(event))) } }
        } } }
    } }
}

fn jobs_of(event: &Event) -> Vec<JobId> {
    let id = |key| str::strip_prefix(key, "JOB#")?.split(' ').next()?.parse().ok().map(JobId);
    event.after.iter().filter_map(|after| id(&after.key)).collect()
}

/// The text, with the ids of these jobs and of machines as links.
fn linked(text: &str, jobs: &[JobId]) -> Markup {
    html! {
        @for word in text.split_inclusive(' ') {
            @let own = word.trim_end_matches([' ', ',', ':', ';']);
            @let job = own.parse().ok().map(JobId).filter(|job| jobs.contains(job));
            @let machine = own.strip_prefix("i-").filter(|id| id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
            @if let Some(job) = job { (job_link(job)) (word[own.len()..]) }
            @else if machine.is_some() { (machine_link(&InstanceId::from(own))) (word[own.len()..]) }
            @else { (word) }
        }
    }
}
