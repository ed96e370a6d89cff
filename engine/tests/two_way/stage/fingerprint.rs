//! What a stage's future depends on, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use syncline_engine::event::TargetAction;
use syncline_engine::event::codec::{self, AcceptedEvent};
use syncline_engine::id::OperationId;
use syncline_engine::json::{RawValue, canonical_hash};
use syncline_engine::record::Progress;

use super::frames::{Frames, StateText};
use super::{Call, Stage};

impl Stage {
    /// Two stages with one picture go on alike, whatever happens next.
    ///
    /// What a shard has in memory is what its log says: replay makes it from that. Of the log only
    /// this can still be felt: each record's newest state, the operations that have not ended, in
    /// the order of their lanes, and the calls that have left. Numbers count by their order. Where
    /// something lies in the log, and how operations came to their end, nobody asks.
    ///
    /// Without `deletes` nobody asks either when the account was seen and written: only what is
    /// told of a delete, and what a list shows, is held against that. `values` are those that a
    /// field may have, as JSON texts.
    pub(crate) fn picture(&mut self, deletes: bool, values: &[String]) -> String {
        let mut text = format!("{} {}\n", self.now_ms, self.ahead_ms);
        for (side, store) in &self.stores {
            writeln!(text, "{side} {}", store.contents()).unwrap();
        }
        let mut notices: Vec<String> = self.notices.iter().map(|it| format!("{it:?}")).collect();
        notices.sort_unstable();
        writeln!(text, "{notices:?}").unwrap();
        let hashes = values.iter().map(|value| {
            let hash = canonical_hash(RawValue::new(value));
            (hash.to_string(), value.clone())
        });
        let hashes: BTreeMap<String, String> = hashes.collect();
        for at in 0..self.shards.len() {
            self.write_shard(at, deletes, &hashes, &mut text);
        }
        text
    }

    fn write_shard(
        &mut self,
        at: usize,
        deletes: bool,
        hashes: &BTreeMap<String, String>,
        text: &mut String,
    ) {
        let log = &mut self.logs[at];
        let open = self.shards[at].operations(log, |_| true, usize::MAX);
        let log = &self.logs[at];
        let mut lanes: Vec<_> = open
            .iter()
            .map(|it| {
                let event = log.event(it.id.record.0, it.id.seq.0);
                let (place, frame) = event.expect("an operation is in the log");
                let event = codec::decode(&frame.payload).unwrap();
                (it.id.record, it.account.as_str(), place, event, it)
            })
            .collect();
        lanes.sort_unstable_by_key(|(record, account, place, ..)| (*record, *account, *place));
        let observed = lanes
            .iter()
            .map(|(_, account, _, event, _)| (event, account));
        let observed =
            observed.filter(|(event, account)| event.action_at(account) == TargetAction::Observe);
        let felt = Felt {
            log,
            open: open.iter().map(|it| it.id.seq.0 >> 2).collect(),
            said: observed
                .map(|(event, _)| (event.operation_seq, said_ms(event)))
                .collect(),
            deletes,
            hashes,
        };
        for (record, state) in log.states(log.len()) {
            write!(text, "{record} ").unwrap();
            felt.write_state(state, text);
            text.push('\n');
        }
        for (record, account, _, event, standing) in &lanes {
            let told = &event.event;
            let extras: Vec<_> = told.extras.iter().map(|it| (&it.name, it.value)).collect();
            writeln!(
                text,
                "{record:?} {account} {:?} {:?} {:?} {:?} {:?} {} {:?} {:?} {:?} {:?}",
                felt.number(event.operation_seq),
                told.operation,
                event.action_at(account),
                told.data.map(|data| data.text()),
                told.remote_id,
                said_ms(event),
                extras,
                told.record_id,
                standing.state,
                standing.reason,
            )
            .unwrap();
        }
        let calls = self.calls.iter().filter(|call| call.shard == at);
        let mut calls: Vec<String> = calls.map(|it| felt.call(it)).collect();
        calls.sort_unstable();
        writeln!(text, "{calls:?}").unwrap();
        let answers = self.answers.iter().filter(|(call, _)| call.shard == at);
        let mut answers: Vec<String> = answers
            .map(|(call, reply)| {
                let body = String::from_utf8_lossy(&reply.body);
                format!("{} {} {body}", felt.call(call), reply.status)
            })
            .collect();
        answers.sort_unstable();
        writeln!(text, "{answers:?}").unwrap();
    }
}

/// When an event was said, ms since the epoch. Nothing is accepted before that in these runs.
fn said_ms(event: &AcceptedEvent<'_>) -> i64 {
    event.event.changed_at_ms.unwrap_or(event.accepted_at_ms)
}

impl Call {
    /// What it says, with times in ms since the epoch.
    pub(crate) fn body(&self) -> String {
        let body = String::from_utf8_lossy(&self.request.body);
        replaced(&body, "\"changed_at\":\"", '"', |at| {
            let at: jiff::Timestamp = at.parse().unwrap();
            at.as_millisecond().to_string()
        })
    }
}

/// What can still be felt of a log.
struct Felt<'s> {
    log: &'s Frames,
    /// Operations that have not ended, by number.
    open: BTreeSet<u64>,
    /// What System A said and is to be compared with what it heard: the operation, and when, ms since
    /// the epoch.
    said: Vec<(u64, i64)>,
    deletes: bool,
    /// Values by their hashes, both as texts.
    hashes: &'s BTreeMap<String, String>,
}

impl Felt<'_> {
    /// An operation by its place among the open ones, with what is derived of it.
    fn number(&self, seq: u64) -> (Option<usize>, u64) {
        let rank = self.open.iter().position(|number| *number == seq >> 2);
        (rank, seq & 3)
    }

    /// A call, with what was known of its record when it left.
    fn call(&self, call: &Call) -> String {
        let request = &call.request;
        let id: OperationId = request.request_id.parse().unwrap();
        let known = self.log.states(call.left_at);
        let mut text = format!(
            "{} {} {} {} {:?} {:?} {:?} ",
            call.account,
            request.kind,
            request.path_and_query,
            call.body(),
            id.record,
            self.number(id.seq.0),
            self.deletes.then_some(call.left_ms),
        );
        if let Some(state) = known.get(&id.record.0) {
            self.write_state(state, &mut text);
        }
        text
    }

    /// What a state frame says, but for what only an operator is shown.
    fn write_state(&self, state: &StateText, text: &mut String) {
        for record in &state.records {
            text.push_str(&record.name);
            for target in &record.targets {
                let base = self.base(&target.base);
                let last = target.last.as_ref().map(|last| self.progress(last));
                write!(text, "; {} {base} {last:?}", target.link).unwrap();
            }
        }
    }

    /// What was agreed on, but for what nobody asks.
    fn base(&self, text: &str) -> String {
        // What System A heard is compared with what it says: what waits, and all that comes.
        let text = replaced(text, "Heard { at_ms: ", ',', |at_ms| {
            let at_ms = at_ms.parse().unwrap();
            let before = self.said.iter().filter(|(_, said_ms)| *said_ms <= at_ms);
            before.count().to_string()
        });
        let text = replaced(&text, "newest: ", ' ', |newest| {
            let newest = newest.parse().unwrap();
            let before = self.said.iter().filter(|(seq, _)| *seq <= newest);
            before.count().to_string()
        });
        // Runs are shorter than the time after which a value that comes back is a new one.
        let text = replaced(&text, "Return { value: ", '}', |back| {
            let mut words = back.split(", ");
            let (hash, count) = (words.next().unwrap(), words.next().unwrap());
            let value = self.hashes.get(hash).map_or(hash, String::as_str);
            format!("{value} {count}")
        });
        // No value is another's spelling.
        let mut text = replaced(&text, "unconfirmed: {", '}', |_| String::new());
        if !self.deletes {
            for (name, end) in [("written_ms: ", ','), ("seen_ms: ", ' ')] {
                text = replaced(&text, name, end, |_| String::new());
            }
        }
        text
    }

    fn progress(&self, last: &Progress) -> String {
        if last.state.is_final() {
            return "ended".to_owned();
        }
        let classes: Vec<_> = last.attempts.iter().map(|attempt| attempt.class).collect();
        format!(
            "{:?} {} {:?} {:?} {:?} {} {} {} {} {} {classes:?}",
            self.number(last.seq.0),
            last.operation,
            last.state,
            last.reason,
            last.resume,
            last.burnt,
            last.first_attempt_ms,
            last.unknown_since_ms,
            last.due_ms,
            last.folded,
        )
    }
}

/// The text with what stands between `from` and the next `to` said otherwise, wherever it does.
fn replaced(text: &str, from: &str, to: char, with: impl Fn(&str) -> String) -> String {
    let mut parts = text.split(from);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (said, after) = part.split_at(part.find(to).unwrap());
        write!(out, "{from}{}{after}", with(said)).unwrap();
    }
    out
}
