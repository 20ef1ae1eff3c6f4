//! Preparing a machine that waits for its job.
//!
//! EBS copies a block of a new volume from the image's snapshot when the block is read for the first time, which is slow. The
//! boot has read the blocks of the system; this reads those of GitHub's runner. A volume keeps its blocks while its machine is
//! stopped.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::fs;
use tokio::io::AsyncReadExt;

/// How many bytes are read at once. When the job arrives, at most one such read is still to finish.
const PIECE: usize = 1 << 20;

/// The regular files below a folder, and how many files and folders could not be read.
struct Files {
    paths: Vec<PathBuf>,
    unreadable: Unreadable,
}

#[derive(Default)]
struct Unreadable {
    number: usize,
    first: Option<String>,
}

impl Unreadable {
    fn add(&mut self, path: &Path, error: &io::Error) {
        self.number += 1;
        self.first.get_or_insert_with(|| format!("{}: {error}", path.display()));
    }
}

/// What a preparation has read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// Reads all files below the runner's folder once. Ends early if it is dropped.
///
/// # Errors
/// If the folder cannot be listed. Files and folders below it that cannot be read are skipped.
pub(crate) async fn read_all(folder: &Path) -> anyhow::Result<Read> {
    Ok(read(files_below(folder).await?).await)
}

async fn read(files: Files) -> Read {
    let Files { paths, mut unreadable } = files;
    let mut read = Read { files: 0, bytes: 0 };
    let mut piece = vec![0; PIECE];
    for path in paths {
        match read_file(&path, &mut piece).await {
            Ok(bytes) => {
                read.files += 1;
                read.bytes += bytes;
            }
            Err(error) => unreadable.add(&path, &error),
        }
    }
    if let Some(first) = unreadable.first {
        tracing::warn!("the preparation skips {} unreadable files or folders; the first: {first}", unreadable.number);
    }
    read
}

async fn read_file(path: &Path, piece: &mut [u8]) -> io::Result<u64> {
    let mut file = fs::File::open(path).await?;
    let mut bytes = 0;
    loop {
        match file.read(piece).await? {
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}

/// Follows no links, which may lead out of the folder, and skips what is no regular file: opening a pipe could wait for ever.
async fn files_below(folder: &Path) -> anyhow::Result<Files> {
    let mut files = Files { paths: Vec::new(), unreadable: Unreadable::default() };
    let mut folders = Vec::new();
    list(folder, &mut folders, &mut files.paths).await.with_context(|| format!("cannot list {}", folder.display()))?;
    while let Some(folder) = folders.pop() {
        if let Err(error) = list(&folder, &mut folders, &mut files.paths).await {
            files.unreadable.add(&folder, &error);
        }
    }
    Ok(files)
}

/// Adds what a folder contains.
async fn list(folder: &Path, folders: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let kind = entry.file_type().await?;
        if kind.is_dir() {
            folders.push(entry.path());
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use tempfile::{TempDir, tempdir};

    /// A folder with three files, of which one is larger than a piece.
    fn folder() -> (TempDir, u64) {
        let folder = tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("bin/deep")).unwrap();
        let files = [("run.sh", 3), ("bin/listener", PIECE + 1), ("bin/deep/library", PIECE)];
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), vec![1; bytes]).unwrap();
        }
        (folder, files.iter().map(|(_, bytes)| *bytes as u64).sum())
    }

    #[tokio::test]
    async fn every_file_of_the_folder_is_read_to_its_end() {
        let (folder, bytes) = folder();
        assert_eq!(read_all(folder.path()).await.unwrap(), Read { files: 3, bytes });
    }

    #[tokio::test]
    async fn links_and_pipes_are_not_followed() {
        let ((folder, bytes), (other, _)) = (folder(), folder());
        symlink(other.path(), folder.path().join("folder")).unwrap();
        symlink(other.path().join("run.sh"), folder.path().join("file")).unwrap();
        symlink(folder.path(), folder.path().join("bin/loop")).unwrap();
        assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
        assert_eq!(read_all(folder.path()).await.unwrap(), Read { files: 3, bytes });
    }

    #[tokio::test]
    async fn an_unreadable_file_is_skipped_and_the_folder_itself_is_not() {
        let (folder, bytes) = folder();
        let files = files_below(folder.path()).await.unwrap();
        // Permissions do not stop the root user, so the file vanishes.
        std::fs::remove_file(folder.path().join("run.sh")).unwrap();
        assert_eq!(read(files).await, Read { files: 2, bytes: bytes - 3 });
        assert!(read_all(&folder.path().join("missing")).await.is_err());
    }
}
