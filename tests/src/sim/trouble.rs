//! What must not be called: an account that asked for a pause, an account or endpoint that failed
//! five times in a row.
//!
//! Followed from what shards take in and what leaves them, beside the engine's own gates. The way
//! from a shard to the coordinator and to the others takes a while; what leaves meanwhile is not
//! held against anybody.

use std::collections::{BTreeMap, BTreeSet};

use engine::provider::{CallKind, Reply, Request, SendFailure};
use engine::quota::{AccountId, Gate, ToShard};

use super::fold::Broken;
use super::marks::{Mark, Marks};
use super::oracle::{is_day_spent, is_list};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Two words of at most 300 us, a turn of each side, and what is queued before them.
const TOLD_WITHIN: u64 = 20 * MS;
/// As the engine is set up here.
const FAILURES_IN_ROW: u32 = 5;
const OPEN_FOR: u64 = 2 * SECOND;

/// Accounts and endpoints that are not well, as seen from outside.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// By account: no call from the first instant until the second.
    pauses: BTreeMap<String, (u64, u64)>,
    rows: BTreeMap<Part, Row>,
    /// Accounts that the coordinator holds or has probed.
    shut: BTreeSet<AccountId>,
}

/// An account, or an endpoint of it.
type Part = (String, Option<String>);

/// Failures without a success between.
#[derive(Debug, Default)]
struct Row {
    failures: u32,
    /// When the first of them was taken in.
    since: u64,
    /// A success just before may reach the coordinator after the failures behind it: a row that
    /// begins so soon is not counted.
    last_success: u64,
    is_counted: bool,
    /// No call from the first instant until the second, when one probe at a time may go.
    held: Option<(u64, u64)>,
    probe_is_out: bool,
}

impl Troubles {
    /// The coordinator tells a shard something.
    pub(super) fn told(&mut self, word: &ToShard) {
        if let ToShard::Gate { account, gate } = word {
            match gate {
                Gate::Open | Gate::Suspect => self.shut.remove(account),
                Gate::Held { .. } | Gate::Probe => self.shut.insert(*account),
            };
        }
    }

    /// A call leaves.
    pub(super) fn call_leaves(
        &mut self,
        now: u64,
        account: &str,
        request: &Request,
    ) -> Result<(), Broken> {
        let within = |(from, until): (u64, u64)| (from..until).contains(&now);
        if self.pauses.get(account).copied().is_some_and(within) {
            return Err(format!(
                "I8 {account} is called within the pause it asked for"
            ));
        }
        // A list is of no endpoint that records are written at.
        let own = (!is_list(request)).then(|| endpoint(request));
        for part in [Some(None), own.map(Some)].into_iter().flatten() {
            let part = (account.to_owned(), part);
            let Some(row) = self.rows.get_mut(&part) else {
                continue;
            };
            let Some(held) = row.held else { continue };
            if within(held) {
                return Err(format!("I10 {part:?} is called while its breaker is open"));
            }
            let is_over = now >= held.0.max(held.1);
            if is_over && std::mem::replace(&mut row.probe_is_out, true) {
                return Err(format!("I10 {part:?} is probed twice at a time"));
            }
        }
        Ok(())
    }

    /// A call is over. A shard that stalls takes that in late.
    pub(super) fn call_is_over(&mut self, account: &str, request: &Request) {
        let own = (!is_list(request)).then(|| endpoint(request));
        for part in [Some(None), own.map(Some)].into_iter().flatten() {
            if let Some(row) = self.rows.get_mut(&(account.to_owned(), part)) {
                row.probe_is_out = false;
            }
        }
    }

    /// A shard takes in how a call ended.
    pub(super) fn call_ended(
        &mut self,
        now: u64,
        (id, account): (AccountId, &str),
        request: &Request,
        result: &Result<Reply, SendFailure>,
        marks: &mut Marks,
    ) {
        // What else was under way when a day's calls were spent says nothing new to an account
        // that is held already.
        if let Ok(reply) = result
            && reply.status == 429
            && !(is_day_spent(reply) && self.shut.contains(&id))
            && let Some(seconds) = reply
                .retry_after
                .as_ref()
                .and_then(|s| s.parse::<u64>().ok())
        {
            let until = now + seconds * SECOND;
            let pause = self.pauses.entry(account.to_owned());
            let pause = pause.or_insert((now + TOLD_WITHIN, until));
            if pause.1 <= now {
                *pause = (now + TOLD_WITHIN, until);
            }
            pause.1 = pause.1.max(until);
        }
        let refused = matches!(result, Err(SendFailure::BeforeSent { .. }));
        let status = result.as_ref().map_or(0, |reply| reply.status);
        let failed = matches!(status, 500 | 502 | 503 | 504)
            && result
                .as_ref()
                .is_ok_and(|reply| reply.retry_after.is_none());
        let whole = self.rows.entry((account.to_owned(), None)).or_default();
        whole.ended(now, refused, !refused);
        if is_list(request) {
            return;
        }
        let own = (account.to_owned(), Some(endpoint(request)));
        let own = self.rows.entry(own).or_default();
        own.ended(now, failed, !refused && !failed);
        if own.held.is_some_and(|(from, _)| from == now + TOLD_WITHIN) {
            marks.hit(Mark::EndpointHeld);
        }
    }

    /// The engine died: what it knew of all this is gone.
    pub(super) fn died(&mut self) {
        *self = Self::default();
    }
}

impl Row {
    /// `other`: an answer, or the lack of one, that says or may say otherwise.
    fn ended(&mut self, now: u64, failed: bool, other: bool) {
        self.probe_is_out = false;
        if other {
            (self.failures, self.last_success, self.held) = (0, now, None);
        } else if failed {
            if self.failures == 0 {
                self.since = now;
                self.is_counted = now >= self.last_success + TOLD_WITHIN;
            }
            self.failures += 1;
            if self.failures == FAILURES_IN_ROW && self.is_counted {
                // The hold begins with the last of the row, which is not before the first.
                self.held = Some((now + TOLD_WITHIN, self.since + OPEN_FOR));
            }
        }
    }
}

/// An object, and its reads apart.
fn endpoint(request: &Request) -> String {
    let path = request.path_and_query.split('?').next();
    let mut parts = path.unwrap_or_default().split('/');
    let object = parts.nth(1).unwrap_or_default();
    match request.kind {
        CallKind::Read => format!("{object} read"),
        _ => object.to_owned(),
    }
}
