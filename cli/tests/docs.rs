//! The pool files in the documentation are pool files that `drover pools check` accepts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;

use drover::pool_file::PoolFile;

/// A page and what the parser may warn about in it: the page explains each of these warnings.
const PAGES: [(&str, &[&str]); 1] = [("pools.md", &["pools \"x64\" and \"arm64\""])];

/// The blocks of a page that begin with three backticks and `toml`, each with the line it begins on.
fn toml_blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line == "```toml" {
            let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            blocks.push((number + 1, block.join("\n")));
        }
    }
    blocks
}

#[test]
fn every_pool_file_in_the_documentation_is_accepted() {
    for (page, expected) in PAGES {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
        let blocks = toml_blocks(&std::fs::read_to_string(path).unwrap());
        assert!(!blocks.is_empty(), "docs/{page} has no block that begins with ```toml");
        let mut warnings = Vec::new();
        for (line, block) in blocks {
            let file = PoolFile::parse(&block);
            assert_eq!(file.errors, [""; 0], "docs/{page}, line {line}");
            assert!(!file.pools.is_empty(), "docs/{page}, line {line}");
            warnings.extend(file.warnings);
        }
        assert_eq!(warnings.len(), expected.len(), "docs/{page}: {warnings:?}");
        for (warning, about) in warnings.iter().zip(expected) {
            assert!(warning.contains(about), "docs/{page}: {warning}");
        }
    }
}
