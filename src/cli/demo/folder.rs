//! The folder a demo plays in.

use std::io;
use std::path::{Path, PathBuf};

/// A folder of this process alone. It stays unless it is removed, so that a failure can be looked at.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Under `target` where there is one, as in a clone; else where the system keeps temporary files.
    pub(super) fn create() -> io::Result<Folder> {
        let here = std::env::current_dir()?.join("target");
        let base = if here.is_dir() {
            here
        } else {
            std::env::temp_dir()
        };
        let path = base.join(format!("syncline-demo-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Folder { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn remove(self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!(
                "syncline: {} could not be removed: {error}",
                self.path.display()
            );
        }
    }
}
