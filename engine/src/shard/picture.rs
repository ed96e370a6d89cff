//! All that is held of one record: its links, what the sides agreed on, what is on its way.

use super::Shard;
use super::query::Standing;
use crate::journal::Journal;
use crate::lane;
use crate::merge::Base;
use crate::operation_slab::OpIndex;
use crate::record::{Link, RecordState, TargetState};

/// Open operations told of one side, the oldest; their number is exact beyond it.
const OPEN_TOLD_MAX: usize = 100;

/// A record as the log and the index hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPicture {
    /// Local object.
    pub object: String,
    /// System A's key.
    pub record_id: String,
    /// The record of System A's that it is, where this is an account's own id of one.
    pub alias_of: Option<String>,
    /// System A, where it is told of the record, and every account that took it, by name.
    pub sides: Vec<SidePicture>,
}

/// A record at one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidePicture {
    /// The account's name, or `system_a`.
    pub account: String,
    /// Whether and as what it exists there.
    pub link: Link,
    /// What both sides agreed on, where changes of the account are taken.
    pub base: Option<Box<Base>>,
    /// Operations that are not final, oldest first; at most a hundred of them.
    pub open: Vec<Standing>,
    /// How many there are.
    pub open_count: usize,
    /// When something was last heard of the record here, ms since the epoch; 0: never.
    pub updated_at_ms: i64,
}

impl<T> Shard<T> {
    /// What is held of a record; `None` when nothing is known of it here.
    pub fn picture(
        &mut self,
        journal: &mut impl Journal,
        object: &str,
        record_id: &str,
    ) -> Option<RecordPicture> {
        let record = self.settings.hash_key.record(object, record_id);
        let state = self.states_of(journal, record, object, record_id);
        let mut sides = Vec::new();
        let mut alias_of = None;
        if let Some(mut state) = state {
            state.leave_out_drops();
            let RecordState {
                targets,
                alias_of: of,
                ..
            } = state;
            alias_of = of;
            sides.extend(targets.into_iter().map(SidePicture::of));
        }
        let slab = &self.index.slab;
        let waiting: Vec<(String, Vec<OpIndex>)> = lane::lanes(slab, self.index.lanes_of(record))
            .map(|lane| {
                let target = usize::from(lane.target(slab).0);
                let ops = lane.iter(slab).collect();
                (self.accounts[target].name.to_string(), ops)
            })
            .collect();
        for (account, ops) in waiting {
            self.lay_open(journal, (object, record_id), account, &ops, &mut sides);
        }
        sides.sort_by(|a, b| a.account.cmp(&b.account));
        let known = !sides.is_empty() || alias_of.is_some();
        known.then(|| RecordPicture {
            object: object.to_owned(),
            record_id: record_id.to_owned(),
            alias_of,
            sides,
        })
    }

    /// Adds a lane's operations to the side that they are for.
    fn lay_open(
        &mut self,
        journal: &mut impl Journal,
        (object, record_id): (&str, &str),
        account: String,
        ops: &[OpIndex],
        sides: &mut Vec<SidePicture>,
    ) {
        let told = ops.iter().take(OPEN_TOLD_MAX);
        let told: Vec<Standing> = told
            .filter_map(|&op| self.open_standing(journal, op))
            // The lane of another record may lie under the same tag.
            .filter(|standing| standing.object == object && standing.record_id == record_id)
            .collect();
        if told.is_empty() {
            return;
        }
        let at = sides.iter().position(|side| side.account == account);
        let at = at.unwrap_or_else(|| {
            sides.push(SidePicture::of(TargetState::new(&account)));
            sides.len() - 1
        });
        let side = &mut sides[at];
        side.open_count = ops.len();
        let newest = told.iter().map(|standing| standing.updated_at_ms).max();
        side.updated_at_ms = side.updated_at_ms.max(newest.unwrap_or_default());
        side.open = told;
    }
}

impl SidePicture {
    fn of(target: TargetState) -> Self {
        let last = target.last.as_ref();
        Self {
            updated_at_ms: last.map_or(0, |last| last.updated_at_ms),
            account: target.account,
            link: target.link,
            base: target.base,
            open: Vec::new(),
            open_count: 0,
        }
    }
}
