//! A folder's names: as shown, and as a power cut leaves them.

use std::collections::BTreeMap;

#[derive(Clone, Default)]
pub(super) struct SimDir {
    pub(super) shown: BTreeMap<String, u64>,
    pub(super) durable: BTreeMap<String, u64>,
    pending: Vec<DirChange>,
}

/// One unsynced change of a folder; a rename is both halves at once.
#[derive(Clone)]
struct DirChange {
    removes: Option<String>,
    adds: Option<(String, u64)>,
}

impl SimDir {
    pub(super) fn change(&mut self, removes: Option<&str>, adds: Option<(&str, u64)>) {
        let change = DirChange {
            removes: removes.map(str::to_owned),
            adds: adds.map(|(name, inode)| (name.to_owned(), inode)),
        };
        change.apply(&mut self.shown);
        self.pending.push(change);
    }

    /// How many changes a power cut decides about.
    pub(super) fn unsynced(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn sync(&mut self) {
        self.pending.clear();
        self.durable.clone_from(&self.shown);
    }

    pub(super) fn crash(&mut self, mut keeps: impl FnMut() -> bool) {
        for change in std::mem::take(&mut self.pending) {
            if keeps() {
                change.apply(&mut self.durable);
            }
        }
        self.shown.clone_from(&self.durable);
    }
}

impl DirChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        if let Some(name) = &self.removes {
            names.remove(name);
        }
        if let Some((name, inode)) = &self.adds {
            names.insert(name.clone(), *inode);
        }
    }
}
