//! The pages of `drover init`. `maud` escapes all text.

use axum::response::Html;
use maud::{Markup, html};
use platform::github::Manifest;

use crate::output::printable;
use crate::permissions::{EVENT, Permission};
use crate::web::document;

const STYLE: &str = include_str!("page.css");

pub(super) fn page(title: &str, body: &Markup) -> Html<String> {
    document(title, STYLE, &html! {}, body)
}

/// A page that the browser loads again and again.
pub(super) fn reloading_page(title: &str, body: &Markup) -> Html<String> {
    document(title, STYLE, &html! { meta http-equiv="refresh" content="2"; }, body)
}

/// The link to the installation of an app that was created.
pub(super) fn install(owner: &str, url: &str) -> Markup {
    html! {
        h1 { "Install the app" }
        p { "GitHub has created the app, and its key is stored in AWS Secrets Manager." }
        p { a.button href=(url) target="_blank" rel="noopener" { "Install it on " (printable(owner)) } }
        p role="status" { "Choose the repositories to serve there. This page says when the app is installed." }
    }
}

/// A page with only a message.
pub(super) fn message_page(title: &str, message: &str) -> Html<String> {
    page(title, &html! { h1 { (title) } p { (printable(message)) } })
}

/// Asks for the number in the terminal.
pub(super) fn number_page(problem: Option<&str>) -> Html<String> {
    let title = "A GitHub App for Drover";
    let body = html! {
        h1 { (title) }
        p { "The terminal shows a number. It proves that you started this, and not another user of this machine." }
        @if let Some(problem) = problem {
            p { strong { (problem) } }
        }
        form method="post" action="/" {
            p { label { "Number in the terminal: " input type="text" name="number" inputmode="numeric" autocomplete="off" autofocus; } }
            p { button { "Continue" } }
        }
    };
    page(title, &body)
}

/// What the app will be, with a button that posts the manifest to GitHub.
pub(super) fn start(manifest: &Manifest, permissions: &[Permission], form_url: &str, json: &str) -> Markup {
    html! {
        h1 { "A GitHub App for Drover" }
        p {
            "Your browser sends this description to GitHub, and GitHub asks you to confirm it. The app's private key goes from \
             GitHub to AWS Secrets Manager. It is written to this machine's disk only with --save-key."
        }
        h2 { (printable(&manifest.name)) }
        p {
            "GitHub sends " code { (EVENT) } " events to " code { (printable(&manifest.hook_attributes.url)) } "."
        }
        div.wide {
            table {
                thead { tr { th { "Permission" } th { "Access" } th { "Purpose" } } }
                @for permission in permissions {
                    tr { td { (permission.name) } td { (permission.access) } td { (permission.purpose) } }
                }
                tr { td { "metadata" } td { "read" } td { "part of every app" } }
            }
        }
        form method="post" action=(form_url) {
            input type="hidden" name="manifest" value=(json);
            p { button { "Create the app on GitHub" } }
        }
    }
}
