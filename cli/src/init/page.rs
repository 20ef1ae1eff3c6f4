//! What the page of `drover init` looks like.

use axum::response::Html;

/// Text as part of a page, in an element or a quoted attribute.
pub(super) fn escaped(text: &str) -> String {
    let text = crate::output::printable(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// A page that says something.
pub(super) fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{}</title>\
         <style>{STYLE}</style><body>{body}</body></html>",
        escaped(title)
    ))
}

const STYLE: &str = include_str!("page.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escaped("<script>\"'&\u{202e}"), "&lt;script&gt;&quot;&#39;&amp;");
    }
}
