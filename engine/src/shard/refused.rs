//! Objects that an account may not write: their records wait, and one of them asks now and then.
//!
//! What a provider refuses for the account's rights or set-up it would refuse for every record of
//! the object, so one asks for all. Kept in memory alone: after a restart the first call meets the
//! refusal again.

use std::time::Duration;

use super::Shard;
use super::item::Item;
use crate::entry::HoldScope;
use crate::id::{OperationSeq, RecordHash};
use crate::operation_slab::{OpFlags, OpState, Target};
use crate::provider::{PauseScope, Verdict};
use crate::state::Reason;
use crate::time::Now;

/// As often as an account asks whose credentials are refused.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Objects of all accounts that are remembered as refused. Beyond it each record asks for itself.
const REFUSED_MAX: usize = 1024;

/// An object that an account may not write at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedObject {
    /// The account.
    pub account: String,
    /// Local object.
    pub object: String,
    /// The first refusal, ms since the epoch.
    pub since_ms: i64,
    /// The provider is asked again then, ms since the epoch.
    pub asks_again_ms: i64,
    /// The provider's words.
    pub detail: String,
}

/// All of them, of one shard.
#[derive(Debug, Default)]
pub(super) struct RefusedObjects {
    refused: Vec<Refused>,
}

#[derive(Debug)]
struct Refused {
    target: Target,
    object: Box<str>,
    asker: Asker,
    since_ms: i64,
    asks_again_ms: i64,
    detail: String,
}

/// A record by the front operation of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) record: RecordHash,
    pub(super) front: OperationSeq,
}

impl RefusedObjects {
    /// A record was refused for the whole object; whether it is the one to ask again.
    fn refuse(
        &mut self,
        now_ms: i64,
        (target, object): (Target, &str),
        asker: Asker,
        detail: &str,
    ) -> bool {
        let asks_again_ms = now_ms.saturating_add(ASK_AGAIN.as_millis() as i64);
        match self.find(target, object) {
            Some(at) if self.refused[at].asker == asker => {
                self.refused[at].asks_again_ms = asks_again_ms;
                detail.clone_into(&mut self.refused[at].detail);
                true
            }
            Some(_) => false,
            None => {
                if self.refused.len() < REFUSED_MAX {
                    self.refused.push(Refused {
                        target,
                        object: object.into(),
                        asker,
                        since_ms: now_ms,
                        asks_again_ms,
                        detail: detail.to_owned(),
                    });
                }
                true
            }
        }
    }

    /// The one that asks got another answer, or will not ask any more; whether the others go on.
    fn end(&mut self, target: Target, object: &str, asker: Asker) -> bool {
        let found = self.find(target, object);
        let ended = found.filter(|&at| self.refused[at].asker == asker);
        ended.map(|at| self.refused.swap_remove(at)).is_some()
    }

    /// An operator's word, or other settings: what falls under it is asked anew. Those that were to
    /// ask.
    fn lift(&mut self, lifted: impl Fn(Target, &str) -> bool) -> Vec<(Target, Asker)> {
        let gone = self
            .refused
            .extract_if(.., |refused| lifted(refused.target, &refused.object));
        gone.map(|refused| (refused.target, refused.asker))
            .collect()
    }

    /// Whether a record waits for another to ask.
    fn holds_back(&self, target: Target, object: &str, record: Asker) -> bool {
        let found = self.find(target, object);
        found.is_some_and(|at| self.refused[at].asker != record)
    }

    fn find(&self, target: Target, object: &str) -> Option<usize> {
        let mut refused = self.refused.iter();
        refused.position(|refused| refused.target == target && *refused.object == *object)
    }
}

impl<T> Shard<T> {
    /// Objects that accounts may not write at present, as far as this shard was told.
    pub fn refused_objects(&self) -> impl Iterator<Item = RefusedObject> + '_ {
        let refused = self.refused.refused.iter();
        refused.map(|refused| RefusedObject {
            account: self.accounts[usize::from(refused.target.0)]
                .name
                .to_string(),
            object: refused.object.to_string(),
            since_ms: refused.since_ms,
            asks_again_ms: refused.asks_again_ms,
            detail: refused.detail.clone(),
        })
    }

    pub(super) fn refused_object(&self, account: &str, object: &str) -> Option<RefusedObject> {
        let mut refused = self.refused_objects();
        refused.find(|refused| refused.account == account && refused.object == object)
    }

    pub(super) fn is_held_back(&self, target: Target, object: &str, record: Asker) -> bool {
        self.refused.holds_back(target, object, record)
    }

    /// Draws what follows for the object from the outcome of one of its records.
    pub(super) fn judge_object(
        &mut self,
        now: Now,
        target: Target,
        item: &mut Item,
        verdict: &Verdict,
    ) {
        let asker = item.asker();
        match verdict {
            Verdict::Permission {
                pause: PauseScope::Object,
                detail,
            } => {
                let now_ms = now.wall.0;
                let whose = (target, item.object());
                if self.refused.refuse(now_ms, whose, asker, detail) {
                    item.progress.reason = Some(Reason::Paused);
                    item.progress.due_ms = now_ms.saturating_add(ASK_AGAIN.as_millis() as i64);
                }
            }
            verdict if verdict.says_nothing_about_record() => {}
            _ => self.release_object(target, item.object(), asker),
        }
    }

    /// Lets the records of an object go on if it was this one that asked for them.
    pub(super) fn release_object(&mut self, target: Target, object: &str, asker: Asker) {
        if self.refused.end(target, object, asker) {
            self.index.release_paused(target);
        }
    }

    /// Asks anew for what an operator resumes.
    pub(super) fn resume_objects(&mut self, scope: &HoldScope) {
        if scope.record_id.is_some() {
            return;
        }
        let accounts = &self.accounts;
        let askers = self.refused.lift(|target, object| {
            let account = &*accounts[usize::from(target.0)].name;
            scope.covers(account, object, "")
        });
        self.hurry(askers);
    }

    /// Asks anew for what an account could not do with other settings.
    pub(super) fn retry_objects(&mut self, target: Target) {
        let askers = self.refused.lift(|refused, _| refused == target);
        self.hurry(askers);
        self.index.release_paused(target);
    }

    /// Lets those that wait to ask again do so now.
    fn hurry(&mut self, askers: Vec<(Target, Asker)>) {
        for (target, Asker { record, front }) in askers {
            let Some(op) = self.index.find(record, front, target) else {
                continue;
            };
            if self.index.slab[op].state() == OpState::Backoff {
                self.index.unschedule(op);
                self.index.slab[op].set_flags(OpFlags::HURRIED);
                self.index.make_ready(op);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRM: Target = Target(0);
    const OTHER: Target = Target(1);

    fn asker(record: u64) -> Asker {
        Asker {
            record: RecordHash(record),
            front: OperationSeq(record),
        }
    }

    #[test]
    fn the_first_record_refused_asks_for_its_object_at_its_account() {
        let mut refused = RefusedObjects::default();
        assert!(refused.refuse(1_000, (CRM, "contact"), asker(1), "no"));
        assert!(!refused.refuse(1_001, (CRM, "contact"), asker(2), "no"));
        assert!(refused.holds_back(CRM, "contact", asker(2)));
        assert!(!refused.holds_back(CRM, "contact", asker(1)));
        assert!(!refused.holds_back(CRM, "deal", asker(2)));
        assert!(!refused.holds_back(OTHER, "contact", asker(2)));
        assert!(refused.refuse(61_000, (CRM, "contact"), asker(1), "still no"));
        let known = &refused.refused[0];
        assert_eq!((known.since_ms, known.asks_again_ms), (1_000, 121_000));
        assert_eq!(known.detail, "still no");
    }

    #[test]
    fn another_answer_to_the_one_that_asks_releases_the_others() {
        let mut refused = RefusedObjects::default();
        refused.refuse(1_000, (CRM, "contact"), asker(1), "no");
        assert!(!refused.end(CRM, "contact", asker(2)), "it did not ask");
        assert!(refused.end(CRM, "contact", asker(1)));
        assert!(!refused.holds_back(CRM, "contact", asker(2)));
        refused.refuse(1_000, (CRM, "deal"), asker(1), "no");
        let lifted = refused.lift(|target, object| (target, object) == (CRM, "deal"));
        assert_eq!(lifted, [(CRM, asker(1))]);
        assert!(!refused.holds_back(CRM, "deal", asker(2)));
    }

    #[test]
    fn beyond_the_bound_each_record_asks_for_itself() {
        let mut refused = RefusedObjects::default();
        for object in 0..REFUSED_MAX {
            refused.refuse(0, (CRM, &object.to_string()), asker(1), "no");
        }
        assert!(refused.refuse(0, (CRM, "contact"), asker(2), "no"));
        assert!(refused.refuse(0, (CRM, "contact"), asker(3), "no"));
        assert_eq!(refused.refused.len(), REFUSED_MAX);
    }
}
