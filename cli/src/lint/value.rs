//! The values that a part of a workflow may have.

use std::collections::BTreeMap;

use github_actions_expressions::Evaluation;
use serde_json::Value;

use super::pattern::{Hole, Pattern};

/// The values that an expression may have; at least one.
pub(super) type Alternatives = Vec<Possible>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Possible {
    Known(Value),
    Text(Pattern),
    /// A list with items that are not all known.
    List(Vec<Alternatives>),
    /// A mapping with values that are not all known.
    Map(Vec<(String, Alternatives)>),
    /// Known only when the workflow runs.
    Unknown {
        expression: String,
        truth: Truth,
    },
}

/// What an unknown value is as a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    Any,
    False,
}

/// The inputs of a workflow, by name in lower case.
pub(super) type Inputs = BTreeMap<String, Alternatives>;

/// The values of one job of a matrix.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Combination {
    pub(super) values: Vec<(String, Alternatives)>,
    /// The expression that may give it further values.
    pub(super) more: Option<String>,
}

impl Combination {
    /// The value of a variable. GitHub ignores the case of its name.
    pub(super) fn get(&self, key: &str) -> Alternatives {
        let value = self.values.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        match (value, &self.more) {
            (Some((_, value)), _) => value.clone(),
            (None, Some(expression)) => vec![unknown(expression)],
            (None, None) => vec![Possible::Known(Value::Null)],
        }
    }

    /// Whether it has the value of each of these variables.
    pub(super) fn matches(&self, entry: &[(String, Alternatives)]) -> bool {
        entry.iter().all(|(key, value)| self.own(key).is_some_and(|own| known(own).is_some() && own == value))
    }

    pub(super) fn own(&self, key: &str) -> Option<&Alternatives> {
        self.values.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(super) fn set(&mut self, key: &str, value: &Alternatives) {
        match self.values.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => old.clone_from(value),
            None => self.values.push((key.to_owned(), value.clone())),
        }
    }
}

pub(super) fn unknown(expression: &str) -> Possible {
    Possible::Unknown { expression: expression.trim().to_owned(), truth: Truth::Any }
}

/// The value, if there is one and it is known.
pub(super) fn known(alternatives: &[Possible]) -> Option<&Value> {
    match alternatives {
        [Possible::Known(value)] => Some(value),
        _ => None,
    }
}

/// The value as part of a text.
pub(super) fn as_text(value: &Possible) -> Pattern {
    let list = |name: &str| Pattern::from(name);
    match value {
        Possible::Known(value) => Evaluation::try_from(value.clone())
            .map_or_else(|()| list(""), |value| Pattern::from(value.sema().to_string().as_str())),
        Possible::Text(pattern) => pattern.clone(),
        Possible::List(_) => list("Array"),
        Possible::Map(_) => list("Object"),
        Possible::Unknown { expression, .. } => Pattern::hole(Hole::Text(expression.clone())),
    }
}
