//! What System A said while something else was on its way to it, or before it had heard that.

use std::sync::Arc;

use super::absorb::{Behind, Derived, base_of, conflicts_result, ended};
use super::item::Item;
use super::telling::Source;
use super::{Observation, SYSTEM_A, Shard};
use crate::event::Operation;
use crate::event::codec::AcceptedEvent;
use crate::journal::Journal;
use crate::merge::{Conflict, Fields, Rivals, Winner};
use crate::state::{Reason, State};
use crate::time::Now;

/// What stands of fields that crossed.
#[derive(Debug, Default)]
struct Standing {
    /// System A's own.
    ours: Fields,
    /// What it was told.
    theirs: Fields,
    /// Of each of these: pointer, account, and when it was changed there, ms since the epoch.
    sources: Vec<(String, String, i64)>,
}

impl<T> Shard<T> {
    /// Compares what System A said with what was on its way to it then. Whoever would end up with
    /// something else is told what stands.
    pub(super) fn compare_told(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
        item: &mut Item,
    ) {
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(event.accepted_at_ms);
        let said_at = self.said(now, event);
        self.said.forget(said_at.seq);
        let mut stands = Standing::default();
        let mut crossed = Vec::new();
        let said = event.event.data.map(Fields::of).unwrap_or_default();
        let object = item.object().to_owned();
        let Ok(behind) = self.behind_of(journal, item, SYSTEM_A) else {
            return ended(item, State::Failed, Some(Reason::Damaged));
        };
        let base = base_of(item, SYSTEM_A).clone();
        let told = base.told();
        if event.event.operation == Operation::Delete {
            let there = told.crossing(said_at);
            self.tell_gone(now, journal, item, &behind, there);
            return ended(item, State::Synced, None);
        }
        let makes = matches!(event.event.operation, Operation::Create | Operation::Upsert);
        // It made the record again, and was told to delete the one before.
        let deleted_at_ms = told.was_deleted(said_at).filter(|_| makes);
        let made_again = deleted_at_ms.is_some_and(|at_ms| changed_at_ms >= at_ms);
        if made_again {
            base_of(item, SYSTEM_A).told_mut().make_again();
        } else if deleted_at_ms.is_some() {
            // By the times it says it did so before that, as the accounts take it. Whether it really
            // has none any more is not asked: clocks may be wrong.
            let there = said.iter().map(|(pointer, _)| pointer);
            self.tell_gone(now, journal, item, &behind, there);
            return ended(item, State::Synced, None);
        }
        for (pointer, value) in said.iter() {
            // What comes after it, from either side, has the last word.
            let mut later = behind.changes.iter();
            if behind.deletes || later.any(|change| change.fields.touches(pointer)) {
                continue;
            }
            let Some(heard) = told.get(pointer) else {
                if made_again || told.was_remade(said_at) {
                    stands.ours.set(pointer, value);
                }
                continue;
            };
            // What it had heard before it said this, it said knowing that.
            if heard.value == value || !heard.crossed(said_at) {
                continue;
            }
            if heard.was_known(said_at) {
                // It had heard that, and said this. Then it was told what stood before this.
                stands.ours.set(pointer, value);
                continue;
            }
            let policy = self
                .plan_of(&heard.origin)
                .and_then(|plan| plan.two_way.get(&object).map(|it| it.conflicts.clone()))
                .unwrap_or_default();
            let winner = policy.decide(&Rivals {
                field: pointer,
                base: "null",
                ours: value,
                ours_at_ms: changed_at_ms,
                theirs: &heard.value,
                theirs_at_ms: heard.changed_at_ms,
            });
            let winner = match winner {
                Winner::Provider => winner,
                // Both have crossed already: there is nobody left for an undecided one to wait at.
                Winner::SystemA | Winner::Undecided => Winner::SystemA,
            };
            self.observe(Observation::Conflict {
                account: heard.origin.as_str().into(),
                winner,
            });
            crossed.push(Conflict {
                field: pointer.to_owned(),
                ours: value.to_owned(),
                theirs: heard.value.clone(),
                winner,
            });
            if winner == Winner::SystemA {
                stands.ours.set(pointer, value);
            } else {
                stands.theirs.set(pointer, &heard.value);
                let source = (
                    pointer.to_owned(),
                    heard.origin.clone(),
                    heard.changed_at_ms,
                );
                stands.sources.push(source);
            }
        }
        if !crossed.is_empty() {
            item.progress.result = conflicts_result(crossed);
        }
        let takers = self.takers(&object);
        self.tell_what_stands(now, journal, item, (&stands, changed_at_ms), &takers);
        ended(item, State::Synced, None);
    }

    /// A record is gone everywhere but at System A, which has these fields of it.
    fn tell_gone<'f>(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        item: &Item,
        behind: &Behind,
        there: impl Iterator<Item = &'f str>,
    ) {
        if behind.deletes {
            return;
        }
        if !behind.remade {
            return self.tell_own(now, journal, item, (Operation::Delete, None));
        }
        let mut left = Fields::default();
        // It made the record again since, and what it says then is all there is of it.
        for pointer in there {
            let mut later = behind.changes.iter();
            if !later.any(|change| change.fields.touches(pointer)) {
                left.set(pointer, "null");
            }
        }
        if !left.is_empty() {
            let data = left.to_json();
            self.tell_own(now, journal, item, (Operation::Update, Some(&data)));
        }
    }

    /// Tells System A once more what it did itself.
    fn tell_own(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        item: &Item,
        (operation, data): (Operation, Option<&str>),
    ) {
        let derived = Derived {
            record: item.record,
            object: item.object(),
            record_id: item.record_id(),
            seq: self.number_of_outcome(item),
            operation,
            data,
            changed_at_ms: item.lead.changed_at_ms,
            origin: SYSTEM_A,
            remote_id: None,
            sources: &[],
            merged_into: None,
            targets: &[SYSTEM_A.into()],
        };
        self.log_derived(now, journal, &derived);
    }

    /// One change for System A, of all that stands, and one for the accounts, of what they lost:
    /// each lane takes one.
    fn tell_what_stands(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        item: &Item,
        (stands, changed_at_ms): (&Standing, i64),
        takers: &[Arc<str>],
    ) {
        let mut here = stands.ours.clone();
        here.lay(&stands.theirs);
        if here.is_empty() {
            return;
        }
        let sources: Vec<Source<'_>> = stands
            .sources
            .iter()
            .map(|(field, origin, at_ms)| Source {
                field,
                origin,
                changed_at_ms: *at_ms,
            })
            .collect();
        let theirs_at_ms = sources.iter().map(|source| source.changed_at_ms).max();
        let theirs_at_ms = theirs_at_ms.unwrap_or(i64::MIN);
        let first = sources.first().map(|source| source.origin);
        let only = first.filter(|first| sources.iter().all(|source| source.origin == *first));
        let remote_id = only
            .and_then(|origin| item.states[0].target(origin))
            .and_then(|target| target.link.remote_id());
        let of_accounts = Derived {
            record: item.record,
            object: item.object(),
            record_id: item.record_id(),
            seq: self.number_of_outcome(item),
            operation: Operation::Update,
            data: Some(&stands.theirs.to_json()),
            changed_at_ms: theirs_at_ms,
            origin: only.unwrap_or(SYSTEM_A),
            remote_id,
            sources: if only.is_some() { &[] } else { &sources },
            merged_into: None,
            targets: takers,
        };
        let for_system_a = Derived {
            data: Some(&here.to_json()),
            targets: &[SYSTEM_A.into()],
            ..of_accounts
        };
        let for_system_a = if stands.ours.is_empty() {
            for_system_a
        } else {
            Derived {
                changed_at_ms: theirs_at_ms.max(changed_at_ms),
                origin: SYSTEM_A,
                remote_id: None,
                sources: &sources,
                ..for_system_a
            }
        };
        self.log_derived(now, journal, &for_system_a);
        if !stands.theirs.is_empty() {
            self.log_derived(now, journal, &of_accounts);
        }
    }

    /// The accounts that may have taken what System A said. Its event may not name them any more:
    /// compaction keeps of one what is open. Whoever has what stands already is not called.
    fn takers(&self, object: &str) -> Vec<Arc<str>> {
        let accounts = self.accounts.iter().filter(|account| {
            let plan = account.plan.as_ref();
            plan.is_some_and(|plan| plan.two_way.contains_key(object))
        });
        accounts.map(|account| account.name.clone()).collect()
    }
}
