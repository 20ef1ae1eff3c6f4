//! Collects what is wrong with one pool.

use std::ops::Range;

use super::fields::Written;
use super::finding::{Finding, Severity, Source};

/// Collects what is wrong with one pool.
pub(super) struct Check<'a> {
    pub(super) source: &'a Source,
    pub(super) written: &'a Written,
    pub(super) findings: Vec<(Severity, Finding)>,
}

impl Check<'_> {
    /// Adds an error at the first of these fields unless the condition holds, or one of the fields has an error of its own.
    pub(super) fn require(&mut self, fields: &[&str], valid: bool, message: impl Into<String>) {
        self.add(Severity::Error, fields, valid, message);
    }

    pub(super) fn advise(&mut self, fields: &[&str], valid: bool, message: impl Into<String>) {
        self.add(Severity::Warning, fields, valid, message);
    }

    pub(super) fn add(&mut self, severity: Severity, fields: &[&str], valid: bool, message: impl Into<String>) {
        if !valid && !fields.iter().any(|field| self.is_invalid(field)) {
            let finding = self.source.finding(self.written.field(fields[0]), message);
            self.findings.push((severity, finding));
        }
    }

    /// Whether the field has an error of its own.
    pub(super) fn is_invalid(&self, field: &str) -> bool {
        self.written.invalid.contains(field)
    }

    pub(super) fn at(&mut self, severity: Severity, span: &Range<usize>, message: String) {
        self.findings.push((severity, self.source.finding(span, message)));
    }

    /// Adds an error for each value of the list that is listed before.
    pub(super) fn unique<T: ToString + PartialEq>(&mut self, field: &str, values: &[T]) {
        for (index, value) in values.iter().enumerate() {
            if values[..index].contains(value) && !self.written.invalid.contains(field) {
                let span = self.written.element(field, index).clone();
                self.at(Severity::Error, &span, format!("{field}: {} is listed twice", value.to_string()));
            }
        }
    }
}
