//! One thread's cells, and which cell counts what.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::event::Operation;
use engine::merge::Winner;
use engine::refusal::Code;
use engine::state::{CallClass, State};

use super::AccountLabel;
use super::histogram::HistogramKind;
use super::inbound::{PollResult, WebhookResult};

/// The final states, which `outcome` takes.
pub(super) const OUTCOMES: [State; 5] = [
    State::Synced,
    State::Superseded,
    State::SkippedByRule,
    State::Failed,
    State::Dropped,
];

/// Who wins a conflict, which `winner` takes.
pub(super) const WINNERS: [Winner; 3] = [Winner::SystemA, Winner::Provider, Winner::Undecided];

/// Where each count stands among the cells: what concerns the node, then its
/// histograms, then the accounts one after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    accounts: usize,
}

const REJECTED: usize = 1;
const HISTOGRAMS: usize = REJECTED + Code::ALL.len();
const ACCOUNTS: usize = HISTOGRAMS + HistogramKind::CELLS_OF_ALL;
const CALLS: usize = Operation::ALL.len() * OUTCOMES.len();
const WEBHOOKS: usize = CALLS + CallClass::ALL.len();
const POLLS: usize = WEBHOOKS + WebhookResult::ALL.len();
const CONFLICTS: usize = POLLS + PollResult::ALL.len();
const CELLS_OF_ACCOUNT: usize = CONFLICTS + WINNERS.len();

impl Layout {
    pub(super) fn new(accounts: usize) -> Layout {
        Layout { accounts }
    }

    pub(super) fn len(&self) -> usize {
        ACCOUNTS + self.accounts * CELLS_OF_ACCOUNT
    }

    pub(super) fn accepted(&self) -> usize {
        0
    }

    pub(super) fn rejected(&self, code: Code) -> usize {
        REJECTED + code as usize
    }

    pub(super) fn histogram(&self, kind: HistogramKind) -> Range<usize> {
        let start = HISTOGRAMS + kind.first_cell();
        start..start + kind.cells()
    }

    pub(super) fn operation(
        &self,
        account: AccountLabel,
        operation: Operation,
        outcome: State,
    ) -> Option<usize> {
        let outcome = OUTCOMES.iter().position(|known| *known == outcome)?;
        Some(self.account(account) + operation as usize * OUTCOMES.len() + outcome)
    }

    pub(super) fn call(&self, account: AccountLabel, class: CallClass) -> usize {
        self.account(account) + CALLS + class as usize
    }

    pub(super) fn webhook(&self, account: AccountLabel, result: WebhookResult) -> usize {
        self.account(account) + WEBHOOKS + result as usize
    }

    pub(super) fn poll(&self, account: AccountLabel, result: PollResult) -> usize {
        self.account(account) + POLLS + result as usize
    }

    pub(super) fn conflict(&self, account: AccountLabel, winner: Winner) -> usize {
        let place = WINNERS.iter().position(|known| *known == winner);
        self.account(account) + CONFLICTS + place.expect("every winner is listed")
    }

    fn account(&self, account: AccountLabel) -> usize {
        assert!(
            account.0 < self.accounts,
            "a label is used with the metrics that gave it"
        );
        ACCOUNTS + account.0 * CELLS_OF_ACCOUNT
    }
}

/// Cells in whole pairs of cache lines (adjacent lines are fetched together),
/// so that no two threads' cells meet in one.
#[derive(Debug)]
pub(super) struct Cells(Box<[Line]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; CELLS_OF_LINE]);

const CELLS_OF_LINE: usize = 128 / size_of::<AtomicU64>();

impl Cells {
    pub(super) fn new(layout: &Layout) -> Cells {
        let lines = layout.len().div_ceil(CELLS_OF_LINE);
        Cells(std::iter::repeat_with(Line::default).take(lines).collect())
    }

    /// For the one thread that owns them: not atomic as a whole.
    pub(super) fn add(&self, cell: usize, count: u64) {
        let cell = &self.0[cell / CELLS_OF_LINE].0[cell % CELLS_OF_LINE];
        cell.store(
            cell.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    pub(super) fn add_to(&self, totals: &mut [u64]) {
        let cells = self.0.iter().flat_map(|line| &line.0);
        for (total, cell) in totals.iter_mut().zip(cells) {
            *total = total.wrapping_add(cell.load(Ordering::Relaxed));
        }
    }
}
