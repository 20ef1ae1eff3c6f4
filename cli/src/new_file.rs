//! A file that has its name only once it is complete: a reader never finds a part of it, and a failure keeps the old one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::output::{Failure, cannot_write};

/// The new content of a file, beside it until [`NewFile::finish`]. Deleted if that does not happen.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    unfinished: PathBuf,
    file: File,
}

impl NewFile {
    /// # Errors
    /// A file cannot be created in the folder.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}.new", std::process::id()));
        let unfinished = PathBuf::from(unfinished);
        let file = File::create(&unfinished).map_err(|error| cannot_write(path, &error))?;
        Ok(Self { path: path.to_owned(), unfinished, file })
    }

    /// Writes the content, then replaces the file.
    ///
    /// # Errors
    /// One of both fails.
    pub(crate) fn finish(self, write: impl FnOnce(&File) -> io::Result<()>) -> Result<(), Failure> {
        let written = write(&self.file).and_then(|()| std::fs::rename(&self.unfinished, &self.path));
        written.map_err(|error| cannot_write(&self.path, &error))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It is gone if it was finished.
        let _ = std::fs::remove_file(&self.unfinished);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_keeps_its_content_until_the_new_one_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        std::fs::write(&path, "old").unwrap();
        let content = || std::fs::read_to_string(&path).unwrap();
        let failed = NewFile::create(&path).unwrap().finish(|mut file| {
            file.write_all(b"a part")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err() && content() == "old");
        NewFile::create(&path).unwrap().finish(|mut file| file.write_all(b"new")).unwrap();
        assert_eq!(content(), "new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}
