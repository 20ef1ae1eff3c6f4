//! The combinations of a matrix.

use serde_json::Value;

use super::expression::{Refused, Scope, value_of};
use super::value::{Alternatives, Combination, Possible, unknown};
use super::yaml::Node;

/// GitHub's limit of jobs per matrix.
const MAX_COMBINATIONS: usize = 256;

/// Every combination of a job's matrix; without a matrix, one that is empty.
pub(super) fn combinations(matrix: Option<&Node>, scope: &Scope) -> Result<Vec<Combination>, Refused> {
    let Some(matrix) = matrix else { return Ok(vec![Combination::default()]) };
    let mut all = Vec::new();
    for alternative in value_of(matrix, scope)? {
        all.extend(match fields(&alternative) {
            Ok(fields) => of_fields(&fields),
            Err(expression) => vec![Combination { values: Vec::new(), more: Some(expression) }],
        });
    }
    Ok(all)
}

/// The combinations by GitHub's rules ("Running variations of jobs in a workflow" in its docs): a combination that contains an
/// entry of `exclude` is dropped; an entry of `include` extends the combinations whose own values it does not change, and is
/// a combination of its own if there is none.
fn of_fields(fields: &[(String, Alternatives)]) -> Vec<Combination> {
    let is_axis = |key: &str| !matches!(key, "include" | "exclude");
    let mut own = vec![Combination::default()];
    for (key, values) in fields.iter().filter(|(key, _)| is_axis(key)) {
        let mut values = elements(values);
        if values.is_empty() {
            continue;
        }
        if own.len() * values.len() > MAX_COMBINATIONS {
            values = vec![vec![unknown(&format!("matrix.{key}"))]];
        }
        let with = |combination: &Combination, value: &Alternatives| {
            let mut combination = combination.clone();
            combination.values.push((key.clone(), value.clone()));
            combination
        };
        own = own.iter().flat_map(|it| values.iter().map(move |value| with(it, value))).collect();
    }
    if !fields.iter().any(|(key, _)| is_axis(key)) {
        own.clear();
    }
    let entries = |name: &str| {
        let lists = fields.iter().filter(|(key, _)| key == name);
        lists.flat_map(|(_, values)| elements(values)).flatten().collect::<Vec<Possible>>()
    };
    let excluded: Vec<Vec<(String, Alternatives)>> =
        entries("exclude").iter().filter_map(|entry| self::fields(entry).ok()).collect();
    own.retain(|it| !excluded.iter().any(|entry| it.matches(entry)));
    let mut all = own.clone();
    for entry in entries("include").iter().take(MAX_COMBINATIONS) {
        match self::fields(entry) {
            Ok(entry) => include(&mut all, &own, &entry),
            Err(expression) => all.push(Combination { values: Vec::new(), more: Some(expression) }),
        }
    }
    if all.is_empty() { vec![Combination::default()] } else { all }
}

fn include(all: &mut Vec<Combination>, own: &[Combination], entry: &[(String, Alternatives)]) {
    let mut fits = false;
    for (combination, own) in all.iter_mut().zip(own) {
        if entry.iter().all(|(key, value)| own.own(key).is_none_or(|own| own == value)) {
            entry.iter().for_each(|(key, value)| combination.set(key, value));
            fits = true;
        }
    }
    if !fits {
        all.push(Combination { values: entry.to_vec(), more: None });
    }
}

/// The fields of a mapping, or the expression that it depends on.
pub(super) fn fields(value: &Possible) -> Result<Vec<(String, Alternatives)>, String> {
    match value {
        Possible::Known(Value::Object(fields)) => {
            Ok(fields.iter().map(|(key, value)| (key.clone(), vec![Possible::Known(value.clone())])).collect())
        }
        Possible::Map(fields) => Ok(fields.clone()),
        Possible::Unknown { expression, .. } => Err(expression.clone()),
        Possible::Text(text) => Err(text.written()),
        Possible::Known(_) | Possible::List(_) => Ok(Vec::new()),
    }
}

/// The items of every list that the value may be.
fn elements(values: &[Possible]) -> Vec<Alternatives> {
    let items = |value: &Possible| match value {
        Possible::Known(Value::Array(items)) => items.iter().map(|item| vec![Possible::Known(item.clone())]).collect(),
        Possible::List(items) => items.clone(),
        Possible::Unknown { expression, .. } => vec![vec![unknown(expression)]],
        Possible::Text(text) => vec![vec![unknown(&text.written())]],
        Possible::Known(_) | Possible::Map(_) => Vec::new(),
    };
    values.iter().flat_map(items).collect()
}
