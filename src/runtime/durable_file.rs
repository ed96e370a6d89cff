//! Small files beside the logs: replaced whole, or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Only the account that runs the engine reads it.
const OWNER_ONLY: u32 = 0o600;

/// Replaces a file: after a crash it is the old one or the new one, and once this returns the new
/// one stays.
///
/// # Errors
/// When the disk refuses; the old file is as it was, unless only the last sync failed.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(OWNER_ONLY)
        .open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The file's bytes; `None` when there is none.
///
/// # Errors
/// When it is there and cannot be read, or is larger than `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(found) if found.len() > bytes_max => Err(io::Error::other(format!(
            "expected at most {bytes_max} bytes, found {}",
            found.len()
        ))),
        Ok(_) => fs::read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_an_absent_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        assert_eq!(read(&path, 9).unwrap(), None);
        replace(&path, b"a longer text").unwrap();
        replace(&path, b"short").unwrap();
        assert_eq!(read(&path, 9).unwrap().unwrap(), b"short");
        assert!(read(&path, 4).is_err(), "over its bound");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
