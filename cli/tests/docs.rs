//! The pool files in the documentation are pool files that `drover pools check` accepts.

use std::path::PathBuf;

use drover::pool_file::PoolFile;

/// Each page with the beginnings of the warnings that the parser gives for it; the page explains them.
const PAGES: [(&str, &[&str]); 2] = [("pools.md", &["pools \"x64\" and \"arm64\""]), ("shapes.md", &[])];

/// The `toml` code blocks of a page, each with the number of its first line.
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
            let file = PoolFile::parse(page, &block);
            assert!(file.errors.is_empty(), "docs/{page}, line {line}: {}", file.report().text);
            assert!(!file.pools.is_empty(), "docs/{page}, line {line}");
            warnings.extend(file.warnings.iter().map(ToString::to_string));
        }
        assert_eq!(warnings.len(), expected.len(), "docs/{page}: {warnings:?}");
        for (warning, about) in warnings.iter().zip(expected) {
            assert!(warning.contains(about), "docs/{page}: {warning}");
        }
    }
}
