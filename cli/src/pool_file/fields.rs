//! Reads the fields of a table one by one, so that each mistake is reported with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Finding, Source};

/// A field as it is written: in a `[[pool]]`, or in `[defaults]`.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    key: Range<usize>,
    value: Spanned<DeValue<'a>>,
}

impl Field<'_> {
    pub(super) fn key(&self) -> &Range<usize> {
        &self.key
    }
}

pub(super) type Fields<'a> = BTreeMap<String, Field<'a>>;

pub(super) fn fields<'a>(table: &DeTable<'a>) -> Fields<'a> {
    let field = |(key, value): (&Spanned<_>, &Spanned<DeValue<'a>>)| {
        let name: &std::borrow::Cow<'a, str> = key.get_ref();
        (name.to_string(), Field { key: key.span(), value: value.clone() })
    };
    table.iter().map(field).collect()
}

/// Where the parts of a pool are written.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    /// The line `[[pool]]`.
    pub(super) header: Range<usize>,
    /// By field: its name, then its values if it is a list.
    fields: BTreeMap<String, (Range<usize>, Vec<Range<usize>>)>,
    /// Fields that are missing or have an error of their own. No rule looks at them.
    pub(super) invalid: BTreeSet<String>,
    /// Of each schedule, in the order of the file.
    pub(super) schedules: Vec<Written>,
}

impl Written {
    /// Where the field is, or the pool if it does not set the field.
    pub(super) fn field(&self, name: &str) -> &Range<usize> {
        self.fields.get(name).map_or(&self.header, |(key, _)| key)
    }

    /// Whether the field is set.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Where a value of a list is.
    pub(super) fn element(&self, name: &str, index: usize) -> &Range<usize> {
        self.fields.get(name).and_then(|(_, elements)| elements.get(index)).unwrap_or_else(|| self.field(name))
    }
}

/// Takes the fields of a pool.
pub(super) struct Reader<'a> {
    source: &'a Source,
    /// What the table describes.
    subject: &'static str,
    fields: Fields<'a>,
    pub(super) errors: Vec<Finding>,
    pub(super) written: Written,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source, header: Range<usize>, fields: Fields<'a>) -> Self {
        let places = fields.iter().map(|(name, field)| (name.clone(), places(field)));
        let written = Written { header, fields: places.collect(), ..Written::default() };
        Self { source, subject: "pool", fields, errors: Vec::new(), written }
    }

    /// Takes a list of tables of the pool, with a reader for each. Empty if the pool has none.
    pub(super) fn tables(&mut self, name: &str, subject: &'static str) -> Vec<Reader<'a>> {
        let Some(Field { value, .. }) = self.fields.remove(name) else { return Vec::new() };
        let tables = value.get_ref().as_array().map(|tables| tables.iter().collect::<Vec<_>>());
        let of_table = |table: &&Spanned<DeValue<'a>>| Some((table.span(), fields(table.get_ref().as_table()?)));
        let Some(tables) = tables.and_then(|tables| tables.iter().map(of_table).collect::<Option<Vec<_>>>()) else {
            let found = value.get_ref().type_str();
            let message = format!(
                "{name} must be tables that begin with [[pool.{name}]], in double brackets, not of type {found}"
            );
            self.invalid(name, &value.span(), message);
            return Vec::new();
        };
        let reader = |(header, fields)| Reader { subject, ..Reader::new(self.source, header, fields) };
        tables.into_iter().map(reader).collect()
    }

    /// Takes a table of the pool. From then on its fields are fields of the pool, such as `shapes.cpu`. False if the pool has no
    /// such table.
    pub(super) fn table(&mut self, name: &str) -> bool {
        let Some(Field { value, .. }) = self.fields.remove(name) else { return false };
        let Some(table) = value.get_ref().as_table() else {
            let found = value.get_ref().type_str();
            let message = format!("{name} must be a table that begins with [pool.{name}], not of type {found}");
            self.invalid(name, &value.span(), message);
            return false;
        };
        for (own, field) in fields(table) {
            let own = format!("{name}.{own}");
            self.written.fields.insert(own.clone(), places(&field));
            self.fields.insert(own, field);
        }
        true
    }

    /// The value of a field. None if the field is not set or invalid.
    pub(super) fn optional<T: Deserialize<'a>>(&mut self, name: &str) -> Option<T> {
        let value = self.fields.remove(name)?.value;
        self.value(name, value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// The value of a field that must be set. None if it is not set or invalid.
    pub(super) fn required<T: Deserialize<'a>>(&mut self, name: &str) -> Option<T> {
        self.require(name);
        self.optional(name)
    }

    /// A list, without those of its values that are invalid.
    pub(super) fn list<T: Deserialize<'a>>(&mut self, name: &str) -> Vec<T> {
        let Some(Field { value, .. }) = self.fields.remove(name) else { return Vec::new() };
        let Some(elements) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.invalid(name, &value.span(), format!("{name} must be a list, not of type {found}"));
            return Vec::new();
        };
        elements.iter().filter_map(|element| self.value(name, element.clone())).collect()
    }

    /// Reports the field as missing if it is not set.
    pub(super) fn require(&mut self, name: &str) {
        self.require_like(name, "");
    }

    /// The same, with what the author may write.
    pub(super) fn require_like(&mut self, name: &str, example: &str) {
        if !self.fields.contains_key(name) {
            let table = name.split_once('.').map_or(name, |(table, _)| table);
            let place = self.written.field(table).clone();
            self.invalid(name, &place, format!("the {} has no {name}{example}", self.subject));
        }
    }

    /// Reports each value of the list that is listed before.
    pub(super) fn unique<T: PartialEq>(&mut self, name: &str, values: &[T], message: impl Fn(&T) -> String) {
        // The places of a list with invalid values are not those of the valid ones.
        if self.written.invalid.contains(name) {
            return;
        }
        for (index, value) in values.iter().enumerate().filter(|(index, value)| values[..*index].contains(value)) {
            let place = self.written.element(name, index).clone();
            self.invalid(name, &place, message(value));
        }
    }

    /// Reports a field whose value is wrong.
    pub(super) fn refuse(&mut self, name: &str, message: impl Into<String>) {
        let place = self.written.field(name).clone();
        self.invalid(name, &place, message.into());
    }

    /// Takes a field and reports it.
    pub(super) fn refuse_field(&mut self, name: &str, message: impl Into<String>) {
        if let Some(Field { key, .. }) = self.fields.remove(name) {
            self.invalid(name, &key, message.into());
        }
    }

    /// Reports every field that was not taken.
    pub(super) fn finish(&mut self, known: &[&str]) {
        for (name, Field { key, .. }) in std::mem::take(&mut self.fields) {
            self.errors.push(self.source.finding(&key, unknown_field(&name, known)));
        }
    }

    fn value<T: Deserialize<'a>>(&mut self, name: &str, value: Spanned<DeValue<'a>>) -> Option<T> {
        let (span, text) = (value.span(), value.get_ref().as_str().map(ToOwned::to_owned));
        match T::deserialize(value.into_deserializer()) {
            Ok(value) => Some(value),
            Err(error) => {
                let message = error.message().trim().to_owned();
                let near = text.and_then(|text| nearest_variant(&text, &message));
                let message = format!("{name}: {}{}", plain(&message), did_you_mean(near));
                self.invalid(name, &error.span().unwrap_or(span), message);
                None
            }
        }
    }

    fn invalid(&mut self, name: &str, span: &Range<usize>, message: String) {
        self.written.invalid.insert(name.to_owned());
        self.errors.push(self.source.finding(span, message));
    }
}

/// Where a field's name and, if it is a list, its values are.
fn places(field: &Field<'_>) -> (Range<usize>, Vec<Range<usize>>) {
    let elements = field.value.get_ref().as_array().map(|array| array.iter().map(Spanned::span).collect());
    (field.key.clone(), elements.unwrap_or_default())
}

pub(super) fn unknown_field(name: &str, known: &[&str]) -> String {
    // In TOML, what follows a table's header belongs to the table.
    if let Some((table, own)) = name.split_once('.').filter(|(_, own)| known.contains(own)) {
        return format!("unknown field {name}: {own} is a field of the pool, write it above [pool.{table}]");
    }
    let of_table = known.iter().find_map(|it| it.split_once('.').filter(|(_, own)| *own == name));
    if let Some((table, own)) = of_table {
        return format!("unknown field {name}: {own} is a field of [pool.{table}], write it below that line");
    }
    format!("unknown field {name}{}", did_you_mean(nearest(name, known.iter().copied())))
}

/// serde lists the variants of an enum in its message: "expected one of `a`, `b`", or "expected `a` or `b`".
fn nearest_variant<'a>(written: &str, message: &'a str) -> Option<&'a str> {
    let (_, variants) = message.split_once(", expected ").filter(|(before, _)| before.contains("variant"))?;
    nearest(&written.to_lowercase(), variants.split('`').skip(1).step_by(2))
}

/// A message of serde in words of TOML: serde names types of Rust. Other messages stay as they are.
fn plain(message: &str) -> String {
    let Some((found, expected)) = message.split_once(", expected ") else { return message.to_owned() };
    if let Some(variant) = found.strip_prefix("unknown variant ") {
        return format!("unknown value {}, expected {}", variant.replace('`', ""), expected.replace('`', ""));
    }
    let is_wrong = |kind: &str| found.strip_prefix(kind).map(|found| found.replace('`', ""));
    let Some(found) = is_wrong("invalid type: ").or_else(|| is_wrong("invalid value: ")) else {
        return message.to_owned();
    };
    let found =
        [("string ", "the text "), ("integer ", "the number "), ("floating point ", "the number "), ("boolean ", "")]
            .into_iter()
            .find_map(|(kind, plain)| Some(format!("{plain}{}", found.strip_prefix(kind)?)))
            .unwrap_or_else(|| match found.as_str() {
                "sequence" => "a list".to_owned(),
                "map" => "a table".to_owned(),
                _ => found.clone(),
            });
    let expected = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "a sequence" => "a list in brackets",
        "a map" => "a table",
        other => other,
    };
    format!("must be {expected}, not {found}")
}

pub(super) fn did_you_mean(name: Option<&str>) -> String {
    name.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// The candidate that a slip of the keyboard turns into the written name: a third of its letters may differ.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(written, candidate);
    let nearest = candidates.into_iter().min_by_key(distance)?;
    (distance(&nearest) <= written.chars().count().div_ceil(3)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_described_without_words_of_rust() {
        for (message, text) in [
            (
                r#"invalid type: string "100", expected u32"#,
                r#"must be a whole number from 0 to 4294967295, not the text "100""#,
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "must be a whole number from 0 to 4294967295, not the number -1",
            ),
            ("invalid type: integer `8`, expected a string", "must be a text in quotes, not the number 8"),
            ("invalid type: sequence, expected a boolean", "must be true or false, not a list"),
            (
                "unknown variant `spott`, expected `spot` or `on-demand`",
                "unknown value spott, expected spot or on-demand",
            ),
            ("must be 30 characters", "must be 30 characters"),
        ] {
            assert_eq!(plain(message), text);
        }
    }
}
