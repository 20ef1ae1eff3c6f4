//! Which format of the table is written, and which functions support it.

mod common;

use common::{ago, config, noon, pool, slot};
use domain::config::Pool;
use domain::policy::format::{TooNew, VERSION, check, lowest, of_slot, report, unsupported_by};
use domain::state::{Config, FORMAT, Function, FunctionName};
use serde_json::json;

fn recorded(name: FunctionName, format: u32) -> Function {
    Function { format, revision: 3, ..report(name, None, ago(60)).expect("a first report") }
}

#[test]
fn a_table_of_a_newer_format_is_not_written() {
    let of = |format| check(&Config { format, ..config([pool()]) });
    assert_eq!((of(1), of(FORMAT)), (Ok(()), Ok(())));
    assert_eq!(of(FORMAT + 1), Err(TooNew { found: FORMAT + 1 }));
}

#[test]
fn the_pools_and_slots_that_need_the_newest_format_decide() {
    assert_eq!(lowest(&[]), 1);
    assert_eq!(lowest(&[pool(), Pool { stopped: 1, ..pool() }, pool()]), 5);
    assert_eq!(of_slot(&slot("online", 60, json!({}))), 1);
    assert_eq!(of_slot(&slot("planned", 60, json!({}))), 1);
    assert_eq!(of_slot(&slot("online", 60, json!({ "stopped_at": ago(90) }))), 5);
}

#[test]
fn a_function_reports_its_format_and_version_once() {
    let scaler = FunctionName::Scaler;
    let first = report(scaler, None, noon()).expect("nothing is recorded yet");
    assert_eq!((first.format, first.version.as_deref(), first.revision), (FORMAT, Some(VERSION), 0));
    assert_eq!((first.name, first.recorded_at), (scaler, noon()));
    assert_eq!(report(scaler, Some(&first), noon()), None);
    let older = Function { format: FORMAT - 1, revision: 3, ..first.clone() };
    assert_eq!(report(scaler, Some(&older), noon()).map(|it| (it.format, it.revision)), Some((FORMAT, 3)));
    let other = Function { version: Some("0.0.1".to_owned()), ..first };
    assert!(report(scaler, Some(&other), noon()).is_some());
}

#[test]
fn a_function_without_a_record_supports_the_first_format_only() {
    let all: Vec<Function> = FunctionName::ALL.into_iter().map(|name| recorded(name, 4)).collect();
    assert_eq!(unsupported_by(1, &[]), []);
    assert_eq!(unsupported_by(2, &[]), FunctionName::ALL);
    assert_eq!(unsupported_by(4, &all), []);
    assert_eq!(unsupported_by(5, &all), FunctionName::ALL);
    let others: Vec<Function> = all.into_iter().filter(|it| it.name != FunctionName::Scaler).collect();
    assert_eq!(unsupported_by(4, &others), [FunctionName::Scaler]);
}
