//! Who set which link: a small file beside the logs.

use std::io;
use std::path::{Path, PathBuf};

use engine::refusal::{Code, Refusal};
use engine::view::LinkChange;
use serde::{Deserialize, Serialize};

use crate::runtime::durable_file;

/// Changes kept, the newest.
const CHANGES_KEPT: usize = 1_000;
/// Its version; newer ones are refused unchanged.
const VERSION: u32 = 1;
/// A thousand changes of ids of 512 bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The newest links that operators set.
#[derive(Debug)]
pub(crate) struct LinkAudit {
    path: PathBuf,
    changes: Vec<Kept>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    changes: Vec<Kept>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    at: i64,
    by: String,
    object: String,
    record_id: String,
    provider: String,
    old: Option<String>,
    new: Option<String>,
}

impl LinkAudit {
    /// What earlier runs left.
    ///
    /// # Errors
    /// When it is there and is not understood.
    pub(crate) fn load(data_dir: &Path) -> io::Result<LinkAudit> {
        let path = data_dir.join("link-audit.json");
        let changes = match durable_file::read(&path, FILE_BYTES_MAX)? {
            None => Vec::new(),
            Some(bytes) => {
                serde_json::from_slice::<File>(&bytes)
                    .ok()
                    .filter(|file| file.version == VERSION)
                    .ok_or_else(|| io::Error::other("damaged, or of a newer version"))?
                    .changes
            }
        };
        Ok(LinkAudit { path, changes })
    }

    /// Keeps a change that is in force already.
    ///
    /// # Errors
    /// The disk refuses: the link is set, and the log has who did.
    pub(crate) fn note(&mut self, change: LinkChange) -> Result<(), Refusal> {
        tracing::info!(
            by = change.by,
            object = change.object,
            record_id = change.record_id,
            provider = change.provider,
            old = change.old,
            new = change.new,
            "a link was set by hand"
        );
        self.changes.push(Kept {
            at: change.at,
            by: change.by,
            object: change.object,
            record_id: change.record_id,
            provider: change.provider,
            old: change.old,
            new: change.new,
        });
        let surplus = self.changes.len().saturating_sub(CHANGES_KEPT);
        self.changes.drain(..surplus);
        let file = File {
            version: VERSION,
            changes: self.changes.clone(),
        };
        let text = serde_json::to_vec(&file).expect("texts and numbers");
        durable_file::replace(&self.path, &text).map_err(|error| {
            tracing::error!(%error, "the audit of links cannot be written");
            Refusal::new(
                Code::DiskFull,
                "the link is set; its audit cannot be written",
            )
        })
    }

    /// All that is kept, the newest first.
    pub(crate) fn changes(&self) -> Vec<LinkChange> {
        let changes = self.changes.iter().rev().cloned();
        let change = |kept: Kept| LinkChange {
            at: kept.at,
            by: kept.by,
            object: kept.object,
            record_id: kept.record_id,
            provider: kept.provider,
            old: kept.old,
            new: kept.new,
        };
        changes.map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(at: i64) -> LinkChange {
        LinkChange {
            at,
            by: "ops".to_owned(),
            object: "contact".to_owned(),
            record_id: "c-1".to_owned(),
            provider: "crm".to_owned(),
            old: None,
            new: Some("r-1".to_owned()),
        }
    }

    #[test]
    fn the_newest_changes_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut audit = LinkAudit::load(folder.path()).unwrap();
        for at in 0..CHANGES_KEPT as i64 + 2 {
            // The disk is asked for the last ones only, the rest is bookkeeping.
            match at {
                at if at < CHANGES_KEPT as i64 => audit.changes.push(Kept {
                    at,
                    by: String::new(),
                    object: String::new(),
                    record_id: String::new(),
                    provider: String::new(),
                    old: None,
                    new: None,
                }),
                at => audit.note(change(at)).unwrap(),
            }
        }
        let audit = LinkAudit::load(folder.path()).unwrap();
        let changes = audit.changes();
        assert_eq!(changes.len(), CHANGES_KEPT);
        assert_eq!(changes[0], change(CHANGES_KEPT as i64 + 1));
    }
}
