//! What `drover` prints, without what differs from run to run.

/// A line without what differs from run to run: numbers, ids, column widths, and durations in one unit or two.
pub(crate) fn normalized(line: &str) -> String {
    let mut plain = String::new();
    for word in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
        let own = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let is_id = own.len() >= 8 && own.contains(|c: char| c.is_ascii_digit());
        match is_id && own.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            true => plain += &format!("ID{}", &word[own.len()..]),
            false => plain += word,
        }
    }
    let mut digits = String::new();
    for c in plain.chars() {
        match c.is_ascii_digit() {
            true if digits.ends_with('N') => {}
            true => digits.push('N'),
            false => digits.push(c),
        }
    }
    let words: Vec<&str> = digits.split_whitespace().collect();
    words.join(" ").replace("Nm Ns", "Ns").replace("Nh Nm", "Ns").replace("Nm", "Ns")
}
