//! How far each list of an account was read: one small file, replaced whole.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use engine::provider::Cursor;
use serde::{Deserialize, Serialize};

use crate::runtime::durable_file;

/// Its version; newer ones are refused unchanged.
const VERSION: u32 = 1;
/// Ten thousand lists with ids of 512 bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The cursors of one account's lists.
#[derive(Debug)]
pub(crate) struct CursorFile {
    path: PathBuf,
    kept: Kept,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// By the name of the list and the object's remote name.
    lists: BTreeMap<String, BTreeMap<String, KeptCursor>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptCursor {
    from_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after_id: Option<String>,
}

impl CursorFile {
    /// What earlier runs left.
    ///
    /// # Errors
    /// When it is there and is not understood: to begin anew from now would lose changes.
    pub(crate) fn load(data_dir: &Path, account: &str) -> io::Result<CursorFile> {
        let path = data_dir.join(format!("cursors-{account}.json"));
        let kept = match durable_file::read(&path, FILE_BYTES_MAX)? {
            None => Kept {
                version: VERSION,
                lists: BTreeMap::new(),
            },
            Some(bytes) => serde_json::from_slice::<Kept>(&bytes)
                .ok()
                .filter(|kept| kept.version == VERSION)
                .ok_or_else(|| io::Error::other("damaged, or of a newer version"))?,
        };
        Ok(CursorFile { path, kept })
    }

    /// How far a list was read.
    pub(crate) fn cursor(&self, feed: &str, object: &str) -> Option<Cursor> {
        let kept = self.kept.lists.get(feed)?.get(object)?;
        Some(Cursor {
            from_ms: kept.from_ms,
            after_id: kept.after_id.clone(),
        })
    }

    /// The file with another cursor, to be written where a disk may be waited for; `None` when it
    /// says so already.
    pub(crate) fn with(&self, feed: &str, object: &str, cursor: &Cursor) -> Option<CursorFile> {
        let new = KeptCursor {
            from_ms: cursor.from_ms,
            after_id: cursor.after_id.clone(),
        };
        let mut kept = self.kept.clone();
        let list = kept.lists.entry(feed.to_owned()).or_default();
        if list.get(object) == Some(&new) {
            return None;
        }
        list.insert(object.to_owned(), new);
        let path = self.path.clone();
        Some(CursorFile { path, kept })
    }

    /// Replaces what is on disk; it is there for good when this returns.
    ///
    /// # Errors
    /// When the disk refuses; the file has the former cursors.
    pub(crate) fn write(self) -> io::Result<CursorFile> {
        let text = serde_json::to_vec(&self.kept).expect("maps of texts and numbers");
        durable_file::replace(&self.path, &text)?;
        Ok(self)
    }

    /// Where it is, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = CursorFile::load(folder.path(), "crm").unwrap();
        assert_eq!(file.cursor("changes", "contacts"), None);
        let cursor = |from_ms, after_id: Option<&str>| Cursor {
            from_ms,
            after_id: after_id.map(str::to_owned),
        };
        for (object, cursor) in [
            ("contacts", cursor(7, None)),
            ("deals", cursor(8, Some("x"))),
            ("contacts", cursor(9, None)),
        ] {
            let next = file.with("changes", object, &cursor).unwrap();
            file = next.write().unwrap();
            assert!(file.with("changes", object, &cursor).is_none());
        }

        let file = CursorFile::load(folder.path(), "crm").unwrap();
        assert_eq!(file.cursor("changes", "contacts"), Some(cursor(9, None)));
        assert_eq!(file.cursor("changes", "deals"), Some(cursor(8, Some("x"))));
        assert_eq!(file.cursor("deletes", "deals"), None);
        let other = CursorFile::load(folder.path(), "other").unwrap();
        assert_eq!(other.cursor("changes", "contacts"), None);
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused_and_not_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", r#"{"version":2,"lists":{}}"#] {
            std::fs::write(folder.path().join("cursors-crm.json"), text).unwrap();
            assert!(CursorFile::load(folder.path(), "crm").is_err(), "{text}");
        }
    }
}
