//! Writes that are open now, by record: two at a time for one record is an overlap.

use std::collections::BTreeMap;

/// How many open writes each record has.
#[derive(Debug, Default)]
pub(crate) struct OpenWrites {
    open: BTreeMap<RecordKey, u32>,
    overlaps: u64,
}

/// A record by its external id, or by its id when the account knows no other name for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordKey {
    object: String,
    name: RecordName,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum RecordName {
    ExternalId(String),
    Id(String),
}

impl RecordKey {
    pub(crate) fn by_external_id(object: &str, external_id: &str) -> Self {
        Self {
            object: object.to_owned(),
            name: RecordName::ExternalId(external_id.to_owned()),
        }
    }

    pub(crate) fn by_id(object: &str, id: &str) -> Self {
        Self {
            object: object.to_owned(),
            name: RecordName::Id(id.to_owned()),
        }
    }

    /// The external id, when the record has one.
    pub(crate) fn external_id(&self) -> Option<&str> {
        match &self.name {
            RecordName::ExternalId(external_id) => Some(external_id),
            RecordName::Id(_) => None,
        }
    }
}

impl OpenWrites {
    pub(crate) fn open(&mut self, keys: &[RecordKey]) {
        for key in keys {
            match self.open.get_mut(key) {
                Some(count) => {
                    *count += 1;
                    self.overlaps += 1;
                }
                None => {
                    self.open.insert(key.clone(), 1);
                }
            }
        }
    }

    pub(crate) fn close(&mut self, keys: &[RecordKey]) {
        for key in keys {
            let Some(count) = self.open.get_mut(key) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.open.remove(key);
            }
        }
    }

    /// Writes that began while another to the same record was open.
    pub(crate) fn overlaps(&self) -> u64 {
        self.overlaps
    }
}
