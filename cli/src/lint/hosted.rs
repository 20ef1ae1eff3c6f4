//! Labels and groups of runners that Drover does not launch: GitHub's, and those that the operator declares.

use super::pattern::Pattern;

/// Whether these labels, or a group without labels, may be those of such a runner.
pub(super) fn may_be(labels: &[Pattern], group: Option<&Pattern>, declared: &[String]) -> bool {
    match labels {
        [] => group.is_some_and(|group| is_declared(group, declared)),
        [label] => is_declared(label, declared) || is_standard(label),
        _ => labels.iter().all(|label| is_declared(label, declared)),
    }
}

fn is_declared(label: &Pattern, declared: &[String]) -> bool {
    declared.iter().any(|declared| match label.known() {
        Some(label) => fits(&declared.to_lowercase(), &label.trim().to_lowercase()),
        None if declared.contains('*') => {
            let (before, _) = declared.split_once('*').unwrap_or_default();
            let (before, known) = (before.to_lowercase(), label.beginning().to_lowercase());
            known.starts_with(&before) || before.starts_with(&known)
        }
        None => label.may_be(declared),
    })
}

/// Whether the text is this pattern, in which `*` is any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// GitHub's own labels: a system, a version, and an architecture or size, such as `ubuntu-24.04-arm` and `macos-15-xlarge`.
/// The versions are not listed, because GitHub adds and removes them all the time.
fn is_standard(label: &Pattern) -> bool {
    const SYSTEMS: [&str; 3] = ["ubuntu-", "windows-", "macos-"];
    let Some(text) = label.known() else {
        let beginning = label.beginning().trim_start().to_lowercase();
        return SYSTEMS.iter().any(|system| beginning.starts_with(system) || system.starts_with(&beginning));
    };
    let text = text.trim().to_lowercase();
    let Some(rest) = SYSTEMS.iter().find_map(|system| text.strip_prefix(system)) else { return false };
    let (version, variant) = rest.split_once('-').map_or((rest, None), |(version, variant)| (version, Some(variant)));
    let is_number =
        version.starts_with(|c: char| c.is_ascii_digit()) && version.chars().all(|c| c.is_ascii_digit() || c == '.');
    let is_variant = |variant: &str| {
        matches!(variant, "arm" | "intel" | "large" | "xlarge")
            || variant.strip_prefix("vs").is_some_and(|year| year.bytes().all(|byte| byte.is_ascii_digit()))
    };
    (is_number || matches!(version, "latest" | "slim")) && variant.is_none_or(is_variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn githubs_labels_are_known_and_those_of_larger_runners_must_be_declared() {
        let hosted = |label: &str, declared: &[&str]| {
            let declared: Vec<String> = declared.iter().map(|it| (*it).to_owned()).collect();
            may_be(&[Pattern::from(label)], None, &declared)
        };
        for label in ["ubuntu-latest", "Ubuntu-24.04-arm", "ubuntu-slim", "macos-15-xlarge", "windows-2025-vs2026"] {
            assert!(hosted(label, &[]), "{label}");
        }
        for label in ["ubuntu-gpu-t4", "linux-16-core", "ubuntu-", "ubuntu-24.04-8core", "self-hosted", "macos"] {
            assert!(!hosted(label, &[]), "{label}");
            assert!(hosted(label, &[&label.to_uppercase()]), "{label}");
        }
        assert!(hosted("linux-16-core", &["linux-*-core"]) && !hosted("linux-16", &["linux-*-core"]));
        assert!(hosted("runs-on=1/runner=2cpu", &["runs-on=*"]) && !hosted("x", &["*y*"]));
        assert!(
            may_be(&[], Some(&Pattern::from("Big")), &["big".to_owned()]) && !may_be(&[], None, &["big".to_owned()])
        );
        assert!(!may_be(&[Pattern::from("self-hosted"), Pattern::from("ubuntu-latest")], None, &[]));
    }
}
