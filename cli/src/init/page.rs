//! What the pages of `drover init` look like. `maud` escapes every word in them.

use axum::response::Html;
use maud::{Markup, html};
use platform::github::Manifest;

use crate::doctor::app::EVENT;
use crate::output::printable;
use crate::web::document;

const STYLE: &str = include_str!("page.css");

/// A page that says something.
pub(super) fn page(title: &str, body: &Markup) -> Html<String> {
    document(title, STYLE, &html! {}, body)
}

/// One that only says how it went.
pub(super) fn words(title: &str, says: &str) -> Html<String> {
    page(title, &html! { h1 { (title) } p { (printable(says)) } })
}

/// What goes to GitHub at `form`, and the button.
pub(super) fn first(manifest: &Manifest, permissions: &[(&str, &str, &str)], form: &str, json: &str) -> Markup {
    html! {
        h1 { "A GitHub App for Drover" }
        p {
            "Your browser goes to GitHub with the following, and GitHub asks you to agree. The private key goes from GitHub to \
             AWS Secrets Manager, and onto no disk here."
        }
        h2 { (printable(&manifest.name)) }
        p { "Told of " code { (EVENT) } " at " code { (printable(&manifest.hook_attributes.url)) } "." }
        div.wide {
            table {
                thead { tr { th { "permission" } th { "level" } th { "why" } } }
                @for (name, level, why) in permissions {
                    tr { td { (name) } td { (level) } td { (why) } }
                }
            }
        }
        form method="post" action=(form) {
            input type="hidden" name="manifest" value=(json);
            p { button { "Create it on GitHub" } }
        }
    }
}
