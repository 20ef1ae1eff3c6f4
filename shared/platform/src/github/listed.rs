//! Items of lists, each read on its own: one item of an unknown form must not hide the others.

use serde::Deserialize;
use serde_json::Value;

/// An item of a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Listed<T> {
    Readable(T),
    /// An item whose form is unknown.
    Unreadable(Value),
}

/// The readable items, and how many others there are.
pub(super) fn readable<T>(items: Vec<Listed<T>>) -> (Vec<T>, usize) {
    let mut readable = Vec::with_capacity(items.len());
    let mut unreadable = 0;
    for item in items {
        match item {
            Listed::Readable(item) => readable.push(item),
            Listed::Unreadable(_) => unreadable += 1,
        }
    }
    (readable, unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_of_an_unknown_form_does_not_hide_the_others() {
        #[derive(Debug, Deserialize, PartialEq)]
        struct Numbered {
            id: u64,
        }
        let items: Vec<Listed<Numbered>> =
            serde_json::from_str(r#"[{"id": 1}, {"id": null}, null, {"id": 2}]"#).unwrap();
        assert_eq!(readable(items), (vec![Numbered { id: 1 }, Numbered { id: 2 }], 2));
    }
}
