//! Walks as they lie on disk: one small file, replaced whole.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use engine::view::{JobState, WalkExample, WalkPurpose, WalkRequest, WalkTally, WalkView};
use serde::{Deserialize, Serialize};

use super::super::durable_file;

/// Its version; newer ones are refused unchanged.
const VERSION: u32 = 1;
/// Walks told of, those that ended included; each is some kilobytes.
pub(super) const KEPT_MAX: usize = 64;
/// Each with a hundred examples and as many fields.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A walk, and where it goes on after a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) id: String,
    pub(super) purpose: Purpose,
    pub(super) account: String,
    pub(super) object: String,
    pub(super) share: f64,
    pub(super) sample: f64,
    pub(super) repair: bool,
    pub(super) repairs_max: u64,
    pub(super) absent_max: f64,
    pub(super) cause: String,
    pub(super) state: State,
    pub(super) phase: Phase,
    /// Where the account's list goes on.
    pub(super) cursor: Option<KeptCursor>,
    /// Behind which row of System A's it goes on.
    pub(super) row: Option<String>,
    pub(super) tally: Tally,
    pub(super) started_at: i64,
    pub(super) ended_at: Option<i64>,
    pub(super) detail: Option<String>,
    /// Why it makes no call just now.
    #[serde(skip)]
    pub(super) waits_for: Option<String>,
    /// It has to be walked once more: changes were missed again meanwhile.
    #[serde(default)]
    pub(super) again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Purpose {
    Resync,
    Backfill,
    Reconcile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Running,
    Done,
    Cancelled,
    Failed,
}

/// What a walk does, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The account's list is read.
    Listing,
    /// Links that were not listed are looked at.
    Absent,
    /// System A's rows are read.
    Rows,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptCursor {
    pub(super) from_ms: i64,
    pub(super) after_id: Option<String>,
}

/// What was found, in records; the members are those of [`WalkTally`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tally {
    pub(super) listed: u64,
    pub(super) rows: u64,
    pub(super) taken: u64,
    pub(super) equal: u64,
    pub(super) missing_here: u64,
    pub(super) missing_there: u64,
    pub(super) unlinked: u64,
    pub(super) missing_row: u64,
    pub(super) differs: u64,
    pub(super) waits: u64,
    pub(super) held: u64,
    pub(super) repaired: u64,
    pub(super) fields: BTreeMap<String, u64>,
    pub(super) examples: Vec<Example>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Example {
    pub(super) cause: Cause,
    pub(super) record_id: Option<String>,
    pub(super) remote_id: Option<String>,
    pub(super) fields: Vec<String>,
}

/// Why a record is not equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    MissingHere,
    MissingThere,
    Unlinked,
    MissingRow,
    Differs,
    Waits,
    Held,
}

/// Where walks are kept.
#[derive(Debug)]
pub(super) struct WalkFile {
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    walks: Vec<Kept>,
}

impl WalkFile {
    /// What earlier runs left.
    ///
    /// # Errors
    /// When it is there and is not understood.
    pub(super) fn load(data_dir: &Path) -> io::Result<(WalkFile, Vec<Kept>)> {
        let path = data_dir.join("walks.json");
        let walks = match durable_file::read(&path, FILE_BYTES_MAX)? {
            None => Vec::new(),
            Some(bytes) => {
                serde_json::from_slice::<File>(&bytes)
                    .ok()
                    .filter(|file| file.version == VERSION)
                    .ok_or_else(|| io::Error::other("damaged, or of a newer version"))?
                    .walks
            }
        };
        Ok((WalkFile { path }, walks))
    }

    /// Replaces what is on disk; it is there for good when this returns.
    ///
    /// # Errors
    /// The disk refuses; the file is as it was.
    pub(super) fn write(&self, walks: Vec<Kept>) -> io::Result<()> {
        let version = VERSION;
        let text = serde_json::to_vec(&File { version, walks }).expect("texts and numbers");
        durable_file::replace(&self.path, &text)
    }
}

impl Kept {
    pub(super) fn new(id: String, request: WalkRequest, now_ms: i64) -> Kept {
        Kept {
            id,
            purpose: request.purpose.into(),
            account: request.provider,
            object: request.object,
            share: request.share,
            sample: request.sample,
            repair: request.repair,
            repairs_max: request.repairs_max,
            absent_max: request.absent_max,
            cause: request.cause,
            state: State::Running,
            phase: Phase::Listing,
            cursor: None,
            row: None,
            tally: Tally::default(),
            started_at: now_ms,
            ended_at: None,
            detail: None,
            waits_for: None,
            again: false,
        }
    }

    pub(super) fn view(&self) -> WalkView {
        WalkView {
            id: self.id.clone(),
            request: self.request(),
            state: match self.state {
                State::Running => JobState::Running,
                State::Done => JobState::Done,
                State::Cancelled => JobState::Cancelled,
                State::Failed => JobState::Failed,
            },
            phase: match self.phase {
                Phase::Listing => "listing",
                Phase::Absent => "absent",
                Phase::Rows => "rows",
            },
            tally: self.tally.view(),
            started_at: self.started_at,
            ended_at: self.ended_at,
            detail: self.detail.clone(),
            waits_for: self.waits_for.clone(),
        }
    }

    /// What was asked for.
    pub(super) fn request(&self) -> WalkRequest {
        WalkRequest {
            purpose: self.purpose.into(),
            provider: self.account.clone(),
            object: self.object.clone(),
            share: self.share,
            sample: self.sample,
            repair: self.repair,
            repairs_max: self.repairs_max,
            absent_max: self.absent_max,
            cause: self.cause.clone(),
        }
    }
}

impl Tally {
    fn view(&self) -> WalkTally {
        WalkTally {
            listed: self.listed,
            rows: self.rows,
            taken: self.taken,
            equal: self.equal,
            missing_here: self.missing_here,
            missing_there: self.missing_there,
            unlinked: self.unlinked,
            missing_row: self.missing_row,
            differs: self.differs,
            waits: self.waits,
            held: self.held,
            repaired: self.repaired,
            fields: self.fields.clone(),
            examples: self.examples.iter().map(Example::view).collect(),
        }
    }
}

impl Example {
    fn view(&self) -> WalkExample {
        WalkExample {
            cause: match self.cause {
                Cause::MissingHere => "missing_here",
                Cause::MissingThere => "missing_there",
                Cause::Unlinked => "unlinked",
                Cause::MissingRow => "missing_row",
                Cause::Differs => "differs",
                Cause::Waits => "waits",
                Cause::Held => "held",
            },
            record_id: self.record_id.clone(),
            remote_id: self.remote_id.clone(),
            fields: self.fields.clone(),
        }
    }
}

impl From<WalkPurpose> for Purpose {
    fn from(purpose: WalkPurpose) -> Purpose {
        match purpose {
            WalkPurpose::Resync => Purpose::Resync,
            WalkPurpose::Backfill => Purpose::Backfill,
            WalkPurpose::Reconcile => Purpose::Reconcile,
        }
    }
}

impl From<Purpose> for WalkPurpose {
    fn from(purpose: Purpose) -> WalkPurpose {
        match purpose {
            Purpose::Resync => WalkPurpose::Resync,
            Purpose::Backfill => WalkPurpose::Backfill,
            Purpose::Reconcile => WalkPurpose::Reconcile,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> WalkRequest {
        WalkRequest {
            purpose: WalkPurpose::Reconcile,
            provider: "crm".to_owned(),
            object: "contact".to_owned(),
            share: 0.5,
            sample: 1.0,
            repair: true,
            repairs_max: 7,
            absent_max: 0.2,
            cause: "asked for".to_owned(),
        }
    }

    #[test]
    fn a_walk_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (file, walks) = WalkFile::load(folder.path()).unwrap();
        assert_eq!(walks, []);
        let mut walk = Kept::new("a".to_owned(), request(), 5);
        walk.cursor = Some(KeptCursor {
            from_ms: 9,
            after_id: Some("r-1".to_owned()),
        });
        walk.tally.examples.push(Example {
            cause: Cause::Held,
            record_id: None,
            remote_id: Some("r-1".to_owned()),
            fields: vec!["/name".to_owned()],
        });
        file.write(vec![walk.clone()]).unwrap();
        let (_, walks) = WalkFile::load(folder.path()).unwrap();
        assert_eq!(walks, [walk.clone()]);
        assert_eq!(walks[0].view().request, request());
        assert_eq!(walk.view().tally.examples[0].cause, "held");
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused_and_not_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "[]", r#"{"version":2,"walks":[]}"#] {
            std::fs::write(folder.path().join("walks.json"), text).unwrap();
            assert!(WalkFile::load(folder.path()).is_err(), "{text}");
        }
    }
}
