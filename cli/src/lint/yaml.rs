//! YAML as GitHub reads a workflow: aliases are accepted, merge keys and duplicate keys are not. Every value has its position.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, options};

/// The largest number of values in a file with its aliases expanded.
const MAX_NODES: usize = 50_000;

/// The largest nesting with aliases expanded: everything that reads a file is recursive.
const MAX_DEPTH: usize = 100;

/// A place in a file. Lines and columns start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    pub(super) const START: Position = Position { line: 1, column: 1 };

    fn of(span: Span) -> Self {
        Self { line: span.start.line().max(1), column: span.start.col() + 1 }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) content: Content,
    /// With aliases expanded.
    nodes: usize,
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) value: Rc<Node>,
}

/// Why GitHub cannot read a file.
#[derive(Debug)]
pub(super) struct Invalid {
    pub(super) at: Position,
    pub(super) why: String,
}

impl Node {
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map(entries) => entries,
            Content::Null | Content::Bool(_) | Content::Number(_) | Content::Text(_) | Content::List(_) => &[],
        }
    }

    pub(super) fn items(&self) -> &[Rc<Node>] {
        match &self.content {
            Content::List(items) => items,
            Content::Null | Content::Bool(_) | Content::Number(_) | Content::Text(_) | Content::Map(_) => &[],
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &*entry.value)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::Null | Content::Bool(_) | Content::Number(_) | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The first text in this value for which `matches` is true.
    pub(super) fn find(&self, matches: &impl Fn(&str) -> bool) -> Option<Position> {
        match &self.content {
            Content::Null | Content::Bool(_) | Content::Number(_) => None,
            Content::Text(text) => matches(text).then_some(self.at),
            Content::List(items) => items.iter().find_map(|item| item.find(matches)),
            Content::Map(entries) => entries.iter().find_map(|entry| entry.value.find(matches)),
        }
    }
}

/// Reads the first document of a file.
pub(super) fn parse(text: &str) -> Result<Rc<Node>, Invalid> {
    let options = options! { emit_comments: false };
    let mut reader = Reader { parser: Parser::new_from_str_with_options(text, options), anchors: HashMap::new() };
    loop {
        match reader.next()? {
            (Event::StreamStart | Event::DocumentStart(..), _) => {}
            (Event::StreamEnd | Event::DocumentEnd, span) => {
                return Err(Invalid { at: Position::of(span), why: "the file is empty".to_owned() });
            }
            (event, span) => return reader.node(event, span),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// By the parser's number of the anchor.
    anchors: HashMap<usize, Rc<Node>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Invalid> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = error.marker();
                let at = Position { line: marker.line().max(1), column: marker.col() + 1 };
                Err(Invalid { at, why: format!("not YAML: {}", error.info()) })
            }
            None => Err(Invalid { at: Position::START, why: "not YAML: the file ends early".to_owned() }),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Rc<Node>, Invalid> {
        let at = Position::of(span);
        let (anchor, content) = match event {
            Event::Alias(id) => {
                let why = || "this alias refers to the value that contains it".to_owned();
                return self.anchors.get(&id).cloned().ok_or_else(|| Invalid { at, why: why() });
            }
            Event::Scalar(text, ScalarStyle::Plain, anchor, None) => (anchor, plain(&text)),
            Event::Scalar(text, _, anchor, _) => (anchor, Content::Text(text.into_owned())),
            Event::SequenceStart(_, anchor, _) => (anchor, Content::List(self.items()?)),
            Event::MappingStart(_, anchor, _) => (anchor, Content::Map(self.entries()?)),
            _ => return Err(Invalid { at, why: "not YAML: a value is missing".to_owned() }),
        };
        let children: Vec<&Rc<Node>> = match &content {
            Content::List(items) => items.iter().collect(),
            Content::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
            Content::Null | Content::Bool(_) | Content::Number(_) | Content::Text(_) => Vec::new(),
        };
        let nodes = children.iter().fold(1_usize, |sum, child| sum.saturating_add(child.nodes));
        let depth = children.iter().map(|child| child.depth + 1).max().unwrap_or(1);
        if nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(Invalid { at, why: "this value is too large with its aliases expanded".to_owned() });
        }
        let node = Rc::new(Node { at, content, nodes, depth });
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn items(&mut self) -> Result<Vec<Rc<Node>>, Invalid> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Invalid> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut keys = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            let at = Position::of(span);
            let is_plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let key = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Alias(_) => self.node(event, span)?.text().map(ToOwned::to_owned),
                Event::Scalar(text, ..) => Some(text.into_owned()),
                _ => None,
            };
            let key = key.ok_or_else(|| Invalid { at, why: "a key must be text".to_owned() })?;
            if is_plain && key == "<<" {
                let why =
                    "GitHub does not accept merge keys (<<); write the keys out, or use an alias for a whole value";
                return Err(Invalid { at, why: why.to_owned() });
            }
            if !keys.insert(key.clone()) {
                return Err(Invalid { at, why: format!("the key {key} is used twice") });
            }
            let (event, span) = self.next()?;
            entries.push(Entry { key, at, value: self.node(event, span)? });
        }
    }
}

/// A scalar without quotes, by YAML 1.2's core schema.
fn plain(text: &str) -> Content {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Content::Null,
        "true" | "True" | "TRUE" => Content::Bool(true),
        "false" | "False" | "FALSE" => Content::Bool(false),
        _ => match text.parse::<f64>() {
            // Rust also reads "inf" and "nan".
            Ok(number) if number.is_finite() && text.contains(|c: char| c.is_ascii_digit()) => Content::Number(number),
            Ok(_) | Err(_) => Content::Text(text.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        match parse(text) {
            Ok(_) => String::new(),
            Err(invalid) => format!("{}:{}: {}", invalid.at.line, invalid.at.column, invalid.why),
        }
    }

    #[test]
    fn a_value_has_its_position_and_an_alias_that_of_its_anchor() {
        let file = parse("a:\n  b: &x [one, two]\n  c: *x\n").unwrap();
        let at = |key| file.get("a").unwrap().get(key).unwrap().items()[1].at;
        assert_eq!((at("b"), at("c")), (Position { line: 2, column: 15 }, Position { line: 2, column: 15 }));
    }

    #[test]
    fn what_github_refuses_is_refused_with_its_place() {
        for (text, expected) in [
            ("x: &x {a: 1}\ny:\n  <<: *x\n", "3:3: GitHub does not accept merge keys"),
            ("a: 1\nb: 2\na: 3\n", "3:1: the key a is used twice"),
            ("a: [", "not YAML: "),
            ("a: *x", "1:4: not YAML: "),
            ("a: &a [*a]", "1:8: this alias refers to the value that contains it"),
            ("", "the file is empty"),
            ("? [a]\n: b\n", "1:3: a key must be text"),
        ] {
            assert!(why(text).contains(expected), "{text:?}: {}", why(text));
        }
        assert_eq!(why("'<<': 1"), "", "only a plain << is a merge key");
    }

    #[test]
    fn aliases_cannot_make_a_small_file_large() {
        let bomb = |levels: usize, width: usize| {
            let level = |n: usize| format!("l{}: &l{} [{}]\n", n + 1, n + 1, vec![format!("*l{n}"); width].join(", "));
            format!("l0: &l0 x\n{}", (0..levels).map(level).collect::<String>())
        };
        assert!(why(&bomb(9, 10)).contains("too large"));
        assert!(why(&bomb(200, 1)).contains("too large"), "nesting");
        assert_eq!(why(&bomb(3, 3)), "");
    }
}
