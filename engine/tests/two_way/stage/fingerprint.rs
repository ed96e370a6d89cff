//! What a stage's future depends on, as one number.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use syncline_engine::event::codec;
use syncline_engine::id::OperationId;
use syncline_engine::journal::Kind;
use syncline_engine::record::{Progress, StateFrame, TargetState};
use xxhash_rust::xxh3::xxh3_128;

use super::{Call, Frames, Stage};

impl Stage {
    /// Two stages with one fingerprint go on alike, whatever happens next.
    ///
    /// What a shard has in memory is what its log says: replay makes it from that. Of the log only
    /// this can still be felt: each record's newest state, the operations that have not ended, in
    /// the order of their lanes, and the calls that have left. Numbers count by their order. Where
    /// something lies in the log, and how operations came to their end, nobody asks.
    pub(crate) fn fingerprint(&mut self) -> u128 {
        let mut text = format!("{} {}\n", self.now_ms, self.ahead_ms);
        for (side, store) in &self.stores {
            writeln!(text, "{side} {}", store.contents()).unwrap();
        }
        let mut notices: Vec<String> = self.notices.iter().map(|it| format!("{it:?}")).collect();
        notices.sort_unstable();
        writeln!(text, "{notices:?}").unwrap();
        for at in 0..self.shards.len() {
            self.write_shard(at, &mut text);
        }
        xxh3_128(text.as_bytes())
    }

    fn write_shard(&mut self, at: usize, text: &mut String) {
        let log = &mut self.logs[at];
        let open = self.shards[at].operations(log, |_| true, usize::MAX);
        let log = &self.logs[at];
        let mut events = BTreeMap::new();
        let mut states = BTreeMap::new();
        for (place, (kind, payload)) in log.0.iter().enumerate() {
            match kind {
                Kind::Event => {
                    let event = codec::decode(payload).unwrap();
                    for target in event.targets.iter() {
                        let id = (event.record_hash, event.operation_seq, target.name);
                        events.insert(id, place);
                    }
                }
                Kind::State => {
                    let frame = StateFrame::decode(payload).unwrap();
                    states.insert(frame.record, place);
                }
                _ => {}
            }
        }
        let numbers: BTreeSet<u64> = open.iter().map(|it| it.id.seq.0 >> 2).collect();
        let number = |seq: u64| {
            let rank = numbers.iter().position(|number| *number == seq >> 2);
            (rank, seq & 3)
        };
        for (record, place) in &states {
            writeln!(text, "{record} {}", state(log, *place, &number)).unwrap();
        }
        let mut lanes: Vec<_> = open
            .iter()
            .map(|it| {
                let id = (it.id.record.0, it.id.seq.0, it.account.as_str());
                (it.id.record, &it.account, events[&id], it)
            })
            .collect();
        lanes.sort_unstable_by_key(|(record, account, place, _)| (*record, *account, *place));
        for (record, account, place, standing) in lanes {
            let event = codec::decode(&log.0[place].1).unwrap();
            let told = &event.event;
            let extras: Vec<_> = told.extras.iter().map(|it| (&it.name, it.value)).collect();
            writeln!(
                text,
                "{record:?} {account} {:?} {:?} {:?} {:?} {:?} {:?} {} {:?} {:?} {:?} {:?}",
                number(event.operation_seq),
                told.operation,
                event.action_at(account),
                told.data.map(|data| data.text()),
                told.remote_id,
                told.changed_at_ms,
                event.accepted_at_ms,
                extras,
                told.record_id,
                standing.state,
                standing.reason,
            )
            .unwrap();
        }
        let calls = self.calls.iter().filter(|call| call.shard == at);
        let mut calls: Vec<String> = calls.map(|it| call(log, it, &number)).collect();
        calls.sort_unstable();
        writeln!(text, "{calls:?}").unwrap();
    }
}

/// A call, with what was known of its record when it left.
fn call(log: &Frames, call: &Call, number: &dyn Fn(u64) -> (Option<usize>, u64)) -> String {
    let request = &call.request;
    let id: OperationId = request.request_id.parse().unwrap();
    let mut before = log.0[..call.left_at].iter().enumerate().rev();
    let known = before.find(|(_, (kind, payload))| {
        *kind == Kind::State && StateFrame::decode(payload).unwrap().record == id.record.0
    });
    format!(
        "{} {} {} {} {:?} {:?} {} {}",
        call.account,
        request.kind,
        request.path_and_query,
        String::from_utf8_lossy(&request.body),
        id.record,
        number(id.seq.0),
        call.left_ms,
        known.map_or(String::new(), |(place, _)| state(log, place, number)),
    )
}

/// The state frame at a place of the log, but for what only an operator is shown.
fn state(log: &Frames, place: usize, number: &dyn Fn(u64) -> (Option<usize>, u64)) -> String {
    let frame = StateFrame::decode(&log.0[place].1).unwrap();
    let mut text = String::new();
    for mut record in frame.records {
        record.targets.sort_by(|a, b| a.account.cmp(&b.account));
        let (id, alias) = (&record.record_id, &record.alias_of);
        write!(text, "{} {id} {alias:?}", record.object).unwrap();
        for target in &record.targets {
            let TargetState {
                account,
                link,
                undelivered,
                last,
                base,
            } = target;
            let last = last.as_ref().map(|last| progress(last, number));
            write!(
                text,
                "; {account} {link:?} {undelivered:?} {base:?} {last:?}"
            )
            .unwrap();
        }
    }
    counted(&text, number)
}

/// The text with each newest operation that System A cannot have known given by the open ones up to
/// it: with those it is compared, and with later ones.
fn counted(text: &str, number: &dyn Fn(u64) -> (Option<usize>, u64)) -> String {
    const NEWEST: &str = "newest: ";
    let mut parts = text.split(NEWEST);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap();
        let newest: u64 = part[..end].parse().unwrap();
        let open = (0..=newest >> 2).filter(|seq| number(seq << 2).0.is_some());
        write!(out, "{NEWEST}{}{}", open.count(), &part[end..]).unwrap();
    }
    out
}

fn progress(last: &Progress, number: &dyn Fn(u64) -> (Option<usize>, u64)) -> String {
    if last.state.is_final() {
        return format!("{:?} {:?}", last.state, last.reason);
    }
    let classes: Vec<_> = last.attempts.iter().map(|attempt| attempt.class).collect();
    format!(
        "{:?} {} {:?} {:?} {:?} {} {} {} {} {} {classes:?}",
        number(last.seq.0),
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
