//! By what each account's calls are rendered, kept on disk over restarts: see [`Rendering`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use engine::id::OperationSeq;
use engine::shard::Rendering;
use serde::{Deserialize, Serialize};

use super::durable_file;

const FILE: &str = "renderings.json";
const FILE_BYTES_MAX: u64 = 16 << 20;
const VERSION: u32 = 1;

/// What is known, and where it is kept.
#[derive(Debug)]
pub(crate) struct Renderings {
    path: PathBuf,
    run: u64,
    kept: Mutex<File>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    accounts: BTreeMap<String, Rendering>,
}

impl Renderings {
    /// What earlier runs left, with what this one begins with: on disk when this returns.
    ///
    /// # Errors
    /// The file is there and is not understood, or the disk refuses.
    pub(crate) fn begin(
        data_dir: &Path,
        run: u64,
        digests: impl IntoIterator<Item = (String, u64)>,
    ) -> io::Result<Renderings> {
        let path = data_dir.join(FILE);
        let mut file = match durable_file::read(&path, FILE_BYTES_MAX)? {
            None => File {
                version: VERSION,
                accounts: BTreeMap::new(),
            },
            Some(bytes) => serde_json::from_slice::<File>(&bytes)
                .ok()
                .filter(|file| file.version == VERSION)
                .ok_or_else(|| {
                    io::Error::other(format!("{FILE}: damaged, or of a newer version"))
                })?,
        };
        let before = file.clone();
        for (name, digest) in digests {
            let account = file.accounts.entry(name);
            account
                .or_insert_with(|| Rendering::new(digest))
                .begin(run, digest);
        }
        let renderings = Renderings {
            path,
            run,
            kept: Mutex::new(file.clone()),
        };
        if file != before {
            renderings.write(&file)?;
        }
        Ok(renderings)
    }

    /// Numbers below which an account's operations may have gone out otherwise, and nobody knows.
    pub(crate) fn renewed(&self, account: &str) -> Vec<OperationSeq> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let account = kept.accounts.get(account);
        account.map_or_else(Vec::new, Rendering::renewed)
    }

    /// Says what calls are rendered by from here on; on disk when this returns, so it comes before
    /// the first of them.
    ///
    /// # Errors
    /// The disk refuses; nothing may be rendered by it.
    pub(crate) fn change(&self, account: &str, digest: u64) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = kept.clone();
        changed
            .accounts
            .entry(account.to_owned())
            .or_insert_with(|| Rendering::new(digest))
            .change(self.run, digest);
        if changed == *kept {
            return Ok(());
        }
        self.write(&changed)?;
        *kept = changed;
        Ok(())
    }

    fn write(&self, file: &File) -> io::Result<()> {
        let text = serde_json::to_vec(file).expect("texts and numbers");
        durable_file::replace(&self.path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(folder: &Path, run: u64, digest: u64) -> Renderings {
        Renderings::begin(folder, run, [("crm".to_owned(), digest)]).unwrap()
    }

    fn first_of(runs: &[u64]) -> Vec<OperationSeq> {
        let runs = runs.iter().copied();
        runs.map(OperationSeq::first_of_run).collect()
    }

    #[test]
    fn what_is_in_force_is_on_disk_before_it_is_gone_by() {
        let folder = tempfile::tempdir().unwrap();
        let first = begin(folder.path(), 1, 7);
        first.change("crm", 7).unwrap();
        assert_eq!(begin(folder.path(), 2, 7).renewed("crm"), []);
        let third = begin(folder.path(), 3, 8);
        assert_eq!(third.renewed("crm"), first_of(&[3]));
        third.change("crm", 9).unwrap();
        assert_eq!(begin(folder.path(), 4, 9).renewed("crm"), first_of(&[3, 4]));
    }

    #[test]
    fn an_account_that_is_away_for_a_run_is_not_forgotten_and_a_new_one_begins() {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), 1, 7);
        let away = Renderings::begin(folder.path(), 2, []).unwrap();
        away.change("new", 1).unwrap();
        assert_eq!(away.renewed("new"), []);
        assert_eq!(begin(folder.path(), 3, 8).renewed("crm"), first_of(&[3]));
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{}", r#"{"version":2,"accounts":{}}"#] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert!(Renderings::begin(folder.path(), 1, []).is_err(), "{text}");
        }
    }
}
