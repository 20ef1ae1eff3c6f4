//! What is wrong with a pool file, and where in the file it is.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};

/// An error or a warning. Printed as `pools.toml:6:1: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    place: Place,
    /// One line.
    message: String,
}

/// Where the text is that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: String,
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    /// In bytes of the file.
    span: Range<usize>,
}

impl Finding {
    pub(super) fn json(&self, level: &str) -> Value {
        let Place { file, line, column, .. } = &self.place;
        json!({ "level": level, "file": file, "line": line, "column": column, "message": self.message })
    }

    /// Findings in the order of the file.
    pub(super) fn order(&self) -> (usize, usize, String) {
        (self.place.span.start, self.place.span.end, self.message.clone())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, line, column, .. } = &self.place;
        write!(f, "{file}:{line}:{column}: {}", self.message)
    }
}

/// Whether a finding keeps the file from being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
}

/// A pool file's text.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

impl Source {
    /// A finding about a part of the text. What follows the end of the span's first line is left out, so that the line shown
    /// is the one with the mistake.
    pub(super) fn finding(&self, span: &Range<usize>, message: impl Into<String>) -> Finding {
        let start = self.boundary(span.start);
        let first_line = self.text[start..].find('\n').map_or(self.text.len(), |end| start + end);
        let end = self.boundary(span.end).clamp(start, first_line);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let place = Place {
            file: self.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span: start..end,
        };
        Finding { place, message: message.into().replace('\n', " ") }
    }

    /// The number of the line at a position.
    pub(super) fn line(&self, position: usize) -> usize {
        self.text[..self.boundary(position)].matches('\n').count() + 1
    }

    /// The finding with the line that it is about.
    pub(super) fn render(&self, finding: &Finding, severity: Severity) -> String {
        let level = match severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mark = AnnotationKind::Primary.span(finding.place.span.clone());
        let snippet = Snippet::source(&self.text).annotation(mark);
        let report = [level.primary_title(finding.to_string()).element(snippet)];
        let text = Renderer::plain().render(&report);
        let lines = text.lines().map(|line| format!("{}\n", line.trim_end()));
        lines.collect()
    }

    /// The nearest position at or before this one where a character begins.
    fn boundary(&self, position: usize) -> usize {
        let mut position = position.min(self.text.len());
        while !self.text.is_char_boundary(position) {
            position -= 1;
        }
        position
    }
}
