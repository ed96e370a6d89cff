//! The first load of records beside live changes: what anybody said of a record already wins.

use super::dispatch::CALL_ROOM;
use super::query::record_id;
use super::{CommandReply, EventBatch, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::id::RecordHash;
use crate::journal::{AppendError, Class, Journal, Kind};
use crate::record::Link;
use crate::time::Now;

impl<T> Shard<T> {
    /// Takes these events, each of a record of which its targets know nothing yet; the others are
    /// passed over. Whether a target knows a record and that it is told of it now is one decision,
    /// so that what is read from System A never comes behind a change of it that was taken
    /// meanwhile.
    pub(super) fn fill(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        events: &EventBatch,
    ) -> CommandReply {
        let mut done = 0;
        let mut through = 0;
        for payload in events.iter() {
            if journal.room(Class::Intake) < CALL_ROOM {
                return CommandReply::Partly { through, done };
            }
            let event = codec::decode(payload).ok();
            if let Some(event) = event.filter(|event| self.is_news(journal, event)) {
                match journal.append(Class::Intake, Kind::Event, &[payload]) {
                    Ok(at) => {
                        self.index.note_object(&event.event.object);
                        self.queue_targets(now, at, &event);
                        done += 1;
                    }
                    Err(AppendError::TooLarge) => {}
                    Err(AppendError::Full | AppendError::DiskFull) => {
                        return CommandReply::Partly { through, done };
                    }
                    Err(AppendError::Poisoned) => return CommandReply::Unavailable,
                }
            }
            through += 1;
        }
        CommandReply::Partly { through, done }
    }

    /// Whether no target of an event was ever told of its record, or is about to be.
    fn is_news(&self, journal: &mut impl Journal, event: &AcceptedEvent<'_>) -> bool {
        let (object, id) = (&*event.event.object, record_id(event));
        let record = RecordHash(event.record_hash);
        let state = self.states_of(journal, record, object, id);
        event.targets.iter().all(|target| {
            let known = state.as_ref().and_then(|state| state.target(target.name));
            let known =
                known.is_some_and(|known| known.link != Link::Unlinked || known.last.is_some());
            !known && !self.waits_for(object, id, target.name)
        })
    }
}
