//! Colours on terminals: the results of checks, errors, next steps and headers of tables. The printer removes them where there
//! is no terminal, and on request.

use anstyle::{AnsiColor, Style};

const FAIL: Style = AnsiColor::Red.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const OK: Style = AnsiColor::Green.on_default();
const NEXT: Style = AnsiColor::Cyan.on_default();
const HEADER: Style = Style::new().bold();

/// What separates a message from the operator's next step.
const ARROW: &str = " -> ";

/// The text with colours.
pub(crate) fn paint(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> String {
    if is_header(line) {
        return styled(HEADER, line.trim_end_matches('\n')) + "\n";
    }
    let marks = [
        ("FAIL  ", FAIL),
        ("drover: ", FAIL),
        ("error: ", FAIL),
        ("warn  ", WARN),
        ("warning: ", WARN),
        ("  ok    ", OK),
    ];
    let mark = marks.into_iter().find(|(mark, _)| line.starts_with(mark));
    // A value of `drover pools diff`, before and afterwards.
    if line.starts_with("  - ") || line.starts_with("  + ") {
        let style = if line.starts_with("  - ") { FAIL } else { OK };
        return styled(style, line.trim_end_matches('\n')) + "\n";
    }
    let (mark, rest) = match mark {
        Some((mark, style)) => (styled(style, mark), &line[mark.len()..]),
        None => (String::new(), line),
    };
    match rest.split_once(ARROW) {
        Some((message, next)) => {
            let (next, end) = next.strip_suffix('\n').map_or((next, ""), |next| (next, "\n"));
            format!("{mark}{message}{ARROW}{}{end}", styled(NEXT, next))
        }
        None => format!("{mark}{rest}"),
    }
}

/// Whether the line is the header of a table, which is all in capitals.
fn is_header(line: &str) -> bool {
    line.starts_with(' ')
        && line.contains(char::is_uppercase)
        && !line.contains(|c: char| c.is_lowercase() || c.is_ascii_digit())
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_the_text_is_the_same() {
        let text = " POOL   LIVE/MAX\n linux  1/2\nFAIL  key: denied -> log in\nwarn  x: y\n  ok    clock  fine\nplain\nno newline";
        let painted = paint(text);
        assert_ne!(painted, text);
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), text);
        assert!(painted.contains("\u{1b}[36mlog in\u{1b}[0m\n"), "{painted:?}");
    }
}
