//! Text of which only some parts are known.

/// Text with holes. Without holes, the whole text is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    first: String,
    /// Each hole with the text after it.
    rest: Vec<(Hole, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hole {
    /// A number that differs in each run.
    Digits(String),
    /// Any text. The expression that gives it.
    Text(String),
}

impl Hole {
    fn expression(&self) -> &str {
        match self {
            Hole::Digits(expression) | Hole::Text(expression) => expression,
        }
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Hole::Digits(_) => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()),
            Hole::Text(_) => true,
        }
    }
}

impl Pattern {
    pub(super) fn hole(hole: Hole) -> Self {
        Self { first: String::new(), rest: vec![(hole, String::new())] }
    }

    pub(super) fn known(&self) -> Option<&str> {
        self.rest.is_empty().then_some(self.first.as_str())
    }

    /// The known text before the first hole.
    pub(super) fn beginning(&self) -> &str {
        &self.first
    }

    /// The expression of the first hole.
    pub(super) fn unknown(&self) -> Option<&str> {
        self.rest.first().map(|(hole, _)| hole.expression())
    }

    pub(super) fn push(&mut self, text: &str) {
        self.rest.last_mut().map_or(&mut self.first, |(_, after)| after).push_str(text);
    }

    pub(super) fn append(&mut self, other: Pattern) {
        self.push(&other.first);
        self.rest.extend(other.rest);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.first.trim().is_empty()
    }

    /// Whether the text is certainly not empty.
    pub(super) fn has_text(&self) -> bool {
        let has_text = |(hole, after): &(Hole, String)| matches!(hole, Hole::Digits(_)) || !after.is_empty();
        !self.first.is_empty() || self.rest.iter().any(has_text)
    }

    /// Whether the text may be this label. GitHub ignores case, and spaces at both ends.
    pub(super) fn may_be(&self, label: &str) -> bool {
        let lower = |text: &str| text.to_lowercase();
        let mut parts: Vec<(Option<&Hole>, String)> = vec![(None, lower(&self.first).trim_start().to_owned())];
        parts.extend(self.rest.iter().map(|(hole, after)| (Some(hole), lower(after))));
        if let Some((_, last)) = parts.last_mut() {
            *last = last.trim_end().to_owned();
        }
        fits(&parts, &lower(label))
    }

    /// As written in a workflow.
    pub(super) fn written(&self) -> String {
        let rest = self.rest.iter().map(|(hole, after)| format!("${{{{ {} }}}}{after}", hole.expression()));
        self.first.clone() + &rest.collect::<String>()
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Self { first: text.to_owned(), rest: Vec::new() }
    }
}

/// Whether the text is these parts: each has a hole, except the first, and the text after it.
fn fits(parts: &[(Option<&Hole>, String)], text: &str) -> bool {
    let Some(((hole, after), rest)) = parts.split_first() else { return text.is_empty() };
    match hole {
        None => text.strip_prefix(after.as_str()).is_some_and(|text| fits(rest, text)),
        Some(hole) => text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| {
            let (filled, remaining) = text.split_at(at);
            hole.fits(filled) && remaining.strip_prefix(after.as_str()).is_some_and(|text| fits(rest, text))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_takes_what_its_expression_may_give() {
        let run = Hole::Digits("github.run_id".to_owned());
        let mut pattern = Pattern::from("Ci-");
        pattern.append(Pattern::hole(run.clone()));
        pattern.push("-x ");
        for (label, may_be) in
            [("ci-1-x", true), ("ci-12-X", true), ("ci--x", false), ("ci-a-x", false), ("ci-1", false)]
        {
            assert_eq!(pattern.may_be(label), may_be, "{label}");
        }
        assert_eq!(pattern.written(), "Ci-${{ github.run_id }}-x ");
        assert!(!Pattern::hole(run).may_be("linux"));
        let mut size = Pattern::from("");
        size.append(Pattern::hole(Hole::Text("inputs.size".to_owned())));
        assert!(size.may_be("large") && size.may_be("") && !size.has_text());
        size.push("-arm");
        assert!(size.may_be("large-ARM") && !size.may_be("large"));
        assert_eq!(Pattern::from("a").known(), Some("a"));
    }
}
