//! Lists of changes, asked for page by page as the runtime's poller does.

use engine::provider::ChangeKind;
use engine::provider::{Cursor, Poll, PollFault, PollState, Reply, SendFailure, Step};
use engine::shard::ListUse;

use super::{Due, MS, US, World};
use crate::sim::ingest::Ticket;
use crate::sim::marks::Mark;
use crate::sim::node::Letter;
use crate::sim::two_way::inbound::Source;

const OBJECTS: [&str; 2] = ["contact", "company"];
/// Between two calls of a list.
const PACE: u64 = 10 * MS;
/// Longest sleep: the wall clock may step meanwhile.
const SLEEP_MAX_MS: i64 = 5_000;

/// One list of an account, and how far it was read.
#[derive(Debug)]
pub(super) struct List {
    pub(super) account: usize,
    state: PollState,
    /// The state once the page that is handed in is durable.
    next: Option<PollState>,
    /// As it lies on the disk.
    kept: Cursor,
    asked_ms: i64,
    /// True time at which the round began, ns.
    round_from: Option<u64>,
    failed: bool,
    /// All that could be listed before this true time was taken, ns.
    pub(super) read_to: u64,
}

impl List {
    fn new(account: usize, poll: Poll, from_ms: i64) -> Self {
        let cursor = Cursor {
            from_ms,
            after_id: None,
        };
        let interval = poll.interval();
        Self {
            account,
            state: PollState::new(poll, interval, cursor.clone()),
            next: None,
            kept: cursor,
            asked_ms: 0,
            round_from: None,
            failed: false,
            read_to: 0,
        }
    }

    /// The process starts: what it knew is what lies on the disk.
    fn begin_anew(&mut self) {
        let poll = self.state.poll().clone();
        let interval = poll.interval();
        self.state = PollState::new(poll, interval, self.kept.clone());
        self.next = None;
        self.round_from = None;
        self.failed = false;
    }
}

impl World {
    /// The lists of all accounts that have some.
    pub(super) fn make_lists(&self) -> Vec<List> {
        let mut lists = Vec::new();
        for (account, side) in self.sides.iter().enumerate() {
            if !side.options.lists() {
                continue;
            }
            for object in OBJECTS {
                let definition = &self.plans[account].definition;
                let poll = definition.poll("changes", object, std::iter::empty());
                let poll = poll.expect("the definition was given this list");
                lists.push(List::new(account, poll, self.provider_wall_ms(account)));
            }
        }
        lists
    }

    /// The engine is up: its lists are asked for again.
    pub(super) fn begin_lists(&mut self) {
        let life = self.life;
        for at in 0..self.lists.len() {
            self.lists[at].begin_anew();
            self.after(at as u64 * MS, Due::List { life, at });
        }
    }

    /// A list may be due.
    pub(super) fn ask_list(&mut self, at: usize) {
        let life = self.life;
        let now_ms = self.clock.now().wall.0;
        let now_ns = self.now_ns();
        let Some(node) = &self.node else { return };
        let shards = node.shards.len();
        let list = &mut self.lists[at];
        match list.state.next(now_ms) {
            Step::Wait(due_ms) => {
                if let Some(from) = list.round_from.filter(|_| !list.failed) {
                    list.read_to = list.read_to.max(from);
                    list.round_from = None;
                }
                let wait_ms = (due_ms - now_ms).clamp(1, SLEEP_MAX_MS).unsigned_abs();
                self.after(wait_ms * MS, Due::List { life, at });
            }
            Step::Gap(gap) => self.oracle.note(Err(format!(
                "a list has a gap, and should have none: {gap:?}"
            ))),
            Step::Call(request) => {
                list.failed = false;
                list.asked_ms = now_ms;
                list.round_from.get_or_insert(now_ns);
                let shard = list.account % shards;
                let account = self.plans[list.account].name.clone();
                let ticket = Ticket::Page { list: at };
                let endpoint = list.state.poll().endpoint().into();
                let letter = Letter::Fetch {
                    account,
                    list: ListUse::Poll,
                    endpoint,
                    request,
                    ticket,
                };
                self.after(
                    US,
                    Due::Deliver {
                        life,
                        shard,
                        letter,
                    },
                );
            }
        }
    }

    /// A page came, or did not.
    pub(super) fn page_came(&mut self, at: usize, result: Result<Reply, SendFailure>) {
        let now_ms = self.clock.now().wall.0;
        let list = &mut self.lists[at];
        let Ok(reply) = result else {
            return self.list_failed(at, None);
        };
        let progress = match list.state.take(now_ms, "", &reply) {
            Ok(progress) => progress,
            Err(fault) => return self.list_failed(at, Some(fault)),
        };
        self.marks.hit(Mark::Listed);
        let (account, asked_ms) = (list.account, list.asked_ms);
        list.next = Some(progress.next);
        if progress.changes.is_empty() {
            return self.page_taken(at, true);
        }
        let name = self.options.accounts[account].name.clone();
        for change in &progress.changes {
            let deleted = change.kind == ChangeKind::Deleted;
            let (object, id) = (&change.object, &change.remote_id);
            self.oracle.ledger.hear(&name, object, id, deleted);
            if let ChangeKind::Merged { into } = &change.kind {
                self.oracle.ledger.hear(&name, object, id, true);
                self.oracle.ledger.hear(&name, object, into, false);
            }
        }
        let scope = 2 * account as u64 + 2;
        let source = Source::Page(at);
        self.take_changes(&name, scope, &progress.changes, Some(asked_ms), source);
    }

    /// What a page told is durable, or was not taken.
    pub(super) fn page_taken(&mut self, at: usize, durable: bool) {
        let life = self.life;
        let list = &mut self.lists[at];
        let Some(next) = list.next.take() else { return };
        if !durable {
            return self.list_failed(at, None);
        }
        list.kept = next.cursor().clone();
        list.state = next;
        self.after(PACE, Due::List { life, at });
    }

    fn list_failed(&mut self, at: usize, fault: Option<PollFault>) {
        let (life, now_ms) = (self.life, self.clock.now().wall.0);
        let list = &mut self.lists[at];
        list.next = None;
        list.failed = true;
        // A round outlasts what the provider fails at: its first pages are as old as they are.
        let goes_on = matches!(
            fault,
            None | Some(PollFault::Status(408 | 425 | 429 | 500..=599))
        );
        if !goes_on {
            list.round_from = None;
        }
        list.state.failed(now_ms, fault);
        self.after(PACE, Due::List { life, at });
    }

    /// Whether every list was read to its end since the last change.
    pub(super) fn lists_are_read(&self) -> bool {
        let mut lists = self.lists.iter();
        lists.all(|list| list.read_to > self.sides[list.account].listed_ns)
    }
}
