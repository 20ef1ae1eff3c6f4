//! Which values an expression of a workflow may have.
//!
//! An expression is evaluated as far as it is known. Where a condition is unknown, both sides of `&&` and `||` are
//! alternatives.

use std::collections::BTreeMap;

use domain::ids::Repository;
use github_actions_expressions::call::Call;
use github_actions_expressions::context::Context;
use github_actions_expressions::op::{BinExpr, BinOp, UnOp};
use github_actions_expressions::{Evaluation, Expr, SpannedExpr};
use serde_json::{Number, Value, json};

use super::pattern::{Hole, Pattern};
use super::value::{Alternatives, Combination, Inputs, Possible, Truth, as_text, known, unknown};
use super::yaml::{Content, Node};

/// More alternatives than this are one unknown value.
const MAX_ALTERNATIVES: usize = 64;

/// What an expression can refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) repository: &'a Repository,
    /// Configuration variables, by their name in upper case.
    pub(super) variables: &'a BTreeMap<String, String>,
    pub(super) inputs: &'a Inputs,
    pub(super) matrix: Option<&'a Combination>,
}

/// Why GitHub refuses an expression.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

/// A value of a workflow that may contain expressions.
pub(super) fn value_of(node: &Node, scope: &Scope) -> Result<Alternatives, Refused> {
    let one = |value| Ok(vec![Possible::Known(value)]);
    match &node.content {
        Content::Null => one(Value::Null),
        Content::Bool(value) => one(json!(value)),
        Content::Number(number) => one(number_value(*number)),
        Content::Text(text) => template(text, scope),
        Content::List(items) => {
            let items: Vec<Alternatives> = items.iter().map(|item| value_of(item, scope)).collect::<Result<_, _>>()?;
            let known: Option<Vec<Value>> = items.iter().map(|item| known(item).cloned()).collect();
            Ok(vec![known.map_or(Possible::List(items), |items| Possible::Known(items.into()))])
        }
        Content::Map(entries) => {
            let value = |entry: &super::yaml::Entry| Ok((entry.key.clone(), value_of(&entry.value, scope)?));
            let fields: Vec<(String, Alternatives)> = entries.iter().map(value).collect::<Result<_, Refused>>()?;
            let known: Option<serde_json::Map<String, Value>> =
                fields.iter().map(|(key, value)| Some((key.clone(), known(value)?.clone()))).collect();
            Ok(vec![known.map_or(Possible::Map(fields), |fields| Possible::Known(fields.into()))])
        }
    }
}

/// An integer is written without a fraction.
fn number_value(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked")]
    let integer = (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64);
    integer.map_or_else(|| Number::from_f64(number).map_or(Value::Null, Value::Number), |integer| json!(integer))
}

/// Text in which `${{ }}` is replaced. An expression that is the whole text may give any type.
pub(super) fn template(text: &str, scope: &Scope) -> Result<Alternatives, Refused> {
    let mut so_far = vec![Pattern::from("")];
    let mut rest = text;
    while let Some(start) = rest.find("${{") {
        let inside = &rest[start + 3..];
        let end = end_of_expression(inside).ok_or_else(|| Refused(format!("{} has no }}}}", text.trim())))?;
        let alternatives = parsed(&inside[..end], scope)?;
        let (before, after) = (&rest[..start], &inside[end + 2..]);
        if so_far == [Pattern::from("")] && before.trim().is_empty() && after.trim().is_empty() {
            return Ok(alternatives);
        }
        let mut longer = Vec::new();
        for pattern in &so_far {
            for alternative in &alternatives {
                let mut pattern = pattern.clone();
                pattern.push(before);
                pattern.append(as_text(alternative));
                longer.push(pattern);
            }
        }
        if longer.len() > MAX_ALTERNATIVES {
            return Ok(vec![unknown(text)]);
        }
        (so_far, rest) = (longer, after);
    }
    let finished = so_far.into_iter().map(|mut pattern| {
        pattern.push(rest);
        text_value(pattern)
    });
    Ok(distinct(finished, text))
}

/// Where the `}}` is that ends an expression. A string may contain `}}`.
fn end_of_expression(text: &str) -> Option<usize> {
    let mut in_string = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\'' => in_string = !in_string,
            b'}' if !in_string && text.as_bytes().get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
    }
    None
}

fn parsed(text: &str, scope: &Scope) -> Result<Alternatives, Refused> {
    let text = text.trim();
    let expression = Expr::parse(text).map_err(|error| Refused(format!("${{{{ {text} }}}}: {error}")))?;
    evaluated(&expression, scope)
}

fn text_value(pattern: Pattern) -> Possible {
    match pattern.known() {
        Some(text) => Possible::Known(json!(text)),
        None => Possible::Text(pattern),
    }
}

/// Each alternative once.
fn distinct(all: impl IntoIterator<Item = Possible>, expression: &str) -> Alternatives {
    let mut distinct = Vec::new();
    for one in all {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
        if distinct.len() > MAX_ALTERNATIVES {
            return vec![unknown(expression)];
        }
    }
    distinct
}

/// What the value is as a condition, if that is known.
fn truth(value: &Possible) -> Option<bool> {
    match value {
        Possible::Known(value) => Evaluation::try_from(value.clone()).ok().map(|value| value.as_boolean()),
        Possible::Text(pattern) => pattern.has_text().then_some(true),
        Possible::List(_) | Possible::Map(_) => Some(true),
        Possible::Unknown { truth: Truth::False, .. } => Some(false),
        Possible::Unknown { truth: Truth::Any, .. } => None,
    }
}

fn evaluated(expression: &SpannedExpr, scope: &Scope) -> Result<Alternatives, Refused> {
    let raw = expression.origin.raw;
    match &expression.inner {
        Expr::Literal(_) => Ok(vec![constant(raw).unwrap_or_else(|| unknown(raw))]),
        Expr::BinExpr(BinExpr { lhs, op: op @ (BinOp::And | BinOp::Or), rhs }) => {
            let (left, right) = (evaluated(lhs, scope)?, evaluated(rhs, scope)?);
            Ok(distinct(left.into_iter().flat_map(|left| joined(left, op, &right)), raw))
        }
        Expr::BinExpr(BinExpr { lhs, op, rhs }) => {
            let sides = [evaluated(lhs, scope)?, evaluated(rhs, scope)?];
            let sign = sign(op);
            Ok(computed(&sides, raw, |sides| format!("{} {sign} {}", sides[0], sides[1])))
        }
        Expr::UnExpr { op: UnOp::Not, expr } => {
            Ok(computed(&[evaluated(expr, scope)?], raw, |value| format!("!{}", value[0])))
        }
        Expr::Call(Call { args, .. }) => {
            let arguments: Vec<Alternatives> =
                args.iter().map(|argument| evaluated(argument, scope)).collect::<Result<_, _>>()?;
            let name = raw.split('(').next().unwrap_or_default();
            Ok(computed(&arguments, raw, |arguments| format!("{name}({})", arguments.join(", "))))
        }
        Expr::Context(context) => looked_up(context, raw, scope),
        Expr::Star | Expr::Identifier(_) | Expr::Index(_) => Ok(vec![unknown(raw)]),
    }
}

/// `left && right` or `left || right`.
fn joined(left: Possible, op: &BinOp, right: &[Possible]) -> Alternatives {
    let is_and = *op == BinOp::And;
    match truth(&left) {
        Some(truth) if truth == is_and => right.to_vec(),
        Some(_) => vec![left],
        None => {
            let left = match left {
                Possible::Unknown { expression, .. } if is_and => Possible::Unknown { expression, truth: Truth::False },
                // An unknown text that counts as false is empty.
                Possible::Text(_) if is_and => Possible::Known(json!("")),
                left => left,
            };
            [left].into_iter().chain(right.iter().cloned()).collect()
        }
    }
}

fn sign(op: &BinOp) -> &'static str {
    match op {
        BinOp::And => "&&",
        BinOp::Or => "||",
        BinOp::Eq => "==",
        BinOp::Neq => "!=",
        BinOp::Gt => ">",
        BinOp::Ge => ">=",
        BinOp::Lt => "<",
        BinOp::Le => "<=",
    }
}

/// The values of an expression whose parts have these values.
fn computed(parts: &[Alternatives], raw: &str, written: impl Fn(&[String]) -> String) -> Alternatives {
    let mut choices: Vec<Vec<String>> = vec![Vec::new()];
    let mut unknowns = Vec::new();
    for part in parts {
        let mut literals = Vec::new();
        for value in part {
            match value {
                Possible::Known(value) => literals.push(literal(value)),
                // `fromJSON(inputs.runner)` is as unknown as `inputs.runner`.
                Possible::Unknown { expression, .. } if parts.len() == 1 => unknowns.push(unknown(expression)),
                Possible::Unknown { .. } | Possible::Text(_) | Possible::List(_) | Possible::Map(_) => {
                    unknowns.push(unknown(raw));
                }
            }
        }
        let with = |choice: &Vec<String>, literal: &String| choice.iter().cloned().chain([literal.clone()]).collect();
        choices = choices.iter().flat_map(|choice| literals.iter().map(|literal| with(choice, literal))).collect();
        if choices.len() > MAX_ALTERNATIVES {
            return vec![unknown(raw)];
        }
    }
    let values = choices.iter().map(|choice| constant(&written(choice)).unwrap_or_else(|| unknown(raw)));
    distinct(unknowns.into_iter().chain(values), raw)
}

/// The value of an expression without contexts.
fn constant(expression: &str) -> Option<Possible> {
    let value: Value = Expr::parse(expression).ok()?.consteval()?.try_into().ok()?;
    Some(Possible::Known(value))
}

/// An expression that has this value.
fn literal(value: &Value) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) | Value::Object(_) => format!("fromJSON({})", quoted(&value.to_string())),
    }
}

/// The value of `matrix.os`, `inputs['runner']` or `fromJSON(...).x`.
fn looked_up(context: &Context, raw: &str, scope: &Scope) -> Result<Alternatives, Refused> {
    let Some((head, path)) = context.parts.split_first() else { return Ok(vec![unknown(raw)]) };
    let Expr::Identifier(name) = &head.inner else {
        return inside(evaluated(head, scope)?, path, raw, scope);
    };
    let name = name.as_str().to_lowercase();
    let Some((first, rest)) = path.split_first() else {
        return if is_available(&name) { Ok(vec![unknown(raw)]) } else { Err(unavailable(&name)) };
    };
    let Some(key) = key(first, scope)? else { return Ok(vec![unknown(raw)]) };
    match name.as_str() {
        "matrix" => {
            let values = scope.matrix.map_or_else(|| vec![Possible::Known(Value::Null)], |matrix| matrix.get(&key));
            inside(values, rest, raw, scope)
        }
        "inputs" => {
            let none = || vec![Possible::Known(Value::Null)];
            inside(scope.inputs.get(&key.to_lowercase()).cloned().unwrap_or_else(none), rest, raw, scope)
        }
        "vars" => Ok(vec![match scope.variables.get(&key.to_uppercase()) {
            Some(value) => Possible::Known(json!(value)),
            None => unknown(raw),
        }]),
        "github" => Ok(vec![match key.to_lowercase().as_str() {
            "repository" => Possible::Known(json!(scope.repository.to_string())),
            "repository_owner" => Possible::Known(json!(scope.repository.owner.to_string())),
            "run_id" | "run_number" => Possible::Text(Pattern::hole(Hole::Digits(raw.to_owned()))),
            _ => unknown(raw),
        }]),
        other if is_available(other) => Ok(vec![unknown(raw)]),
        other => Err(unavailable(other)),
    }
}

fn is_available(context: &str) -> bool {
    matches!(context, "github" | "inputs" | "matrix" | "needs" | "strategy" | "vars")
}

fn unavailable(context: &str) -> Refused {
    Refused(format!(
        "the context {context} cannot be used here -> GitHub has github, inputs, matrix, needs, strategy and vars before a job \
         starts"
    ))
}

/// What `.key` or `[key]` names, if that is known.
fn key(part: &SpannedExpr, scope: &Scope) -> Result<Option<String>, Refused> {
    match &part.inner {
        Expr::Identifier(name) => Ok(Some(name.as_str().to_owned())),
        Expr::Index(index) => {
            let index = evaluated(index, scope)?;
            Ok(known(&index).map(|index| as_text(&Possible::Known(index.clone())).written()))
        }
        Expr::Literal(_) | Expr::Star | Expr::Call(_) | Expr::Context(_) | Expr::BinExpr(_) | Expr::UnExpr { .. } => {
            Ok(None)
        }
    }
}

/// The parts of the values that a path leads to.
fn inside(values: Alternatives, path: &[SpannedExpr], raw: &str, scope: &Scope) -> Result<Alternatives, Refused> {
    let mut values = values;
    for part in path {
        let Some(key) = key(part, scope)? else { return Ok(vec![unknown(raw)]) };
        values = distinct(values.iter().flat_map(|value| child(value, &key, raw)), raw);
    }
    Ok(values)
}

fn child(value: &Possible, key: &str, raw: &str) -> Alternatives {
    let none = || vec![Possible::Known(Value::Null)];
    match value {
        Possible::Known(Value::Object(fields)) => {
            let field = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
            field.map_or_else(none, |(_, value)| vec![Possible::Known(value.clone())])
        }
        Possible::Known(Value::Array(items)) => {
            let item = key.parse().ok().and_then(|index: usize| items.get(index));
            item.map_or_else(none, |value| vec![Possible::Known(value.clone())])
        }
        Possible::Map(fields) => {
            let field = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
            field.map_or_else(none, |(_, value)| value.clone())
        }
        Possible::List(items) => {
            key.parse().ok().and_then(|index: usize| items.get(index)).cloned().unwrap_or_else(none)
        }
        Possible::Known(_) | Possible::Text(_) => none(),
        Possible::Unknown { .. } => vec![unknown(raw)],
    }
}
