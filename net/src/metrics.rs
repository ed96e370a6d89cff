//! Counters and histograms that threads write without contention, and a scrape adds up.
//!
//! Each thread owns one set of cells and is their only writer, so that counting
//! is a load and a store, without a lock prefix or a shared cache line. What is
//! a level rather than a count (open operations, dead letters, breakers, limits)
//! is not kept here: a scrape asks the engine for it. Labels are accounts,
//! operations and closed lists; never a record.

mod cells;
mod histogram;
mod inbound;
mod text;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use engine::event::Operation;
use engine::merge::Winner;
use engine::refusal::Code;
use engine::state::{CallClass, State};
use engine::view::{AccountStatus, BreakerState, ConsumerView};

pub use inbound::{PollResult, WebhookResult};

use cells::{Cells, Layout};
use histogram::{HistogramKind, Totals};
use text::TextWriter;

/// All metrics of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// In the order of their labels; the layout has places for more.
    accounts: RwLock<Vec<String>>,
    accounts_max: usize,
    layout: Layout,
    /// One a thread that ever wrote. Those whose writer is gone are written on
    /// by the next one, so their number is that of threads at once.
    cells: Mutex<Vec<Arc<Cells>>>,
}

/// One thread's hold on its own cells.
#[derive(Debug)]
pub struct MetricsWriter {
    cells: Arc<Cells>,
    layout: Layout,
}

/// An account's place among the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccountLabel(usize);

/// Accounts that come while the process runs and are counted at once: some 20 KiB a thread.
pub const ADDED_ACCOUNTS_MAX: usize = 64;

impl Metrics {
    /// Metrics whose `provider` label takes these names.
    pub fn new(accounts: Vec<String>) -> Metrics {
        let accounts_max = accounts.len() + ADDED_ACCOUNTS_MAX;
        let layout = Layout::new(accounts_max);
        Metrics {
            shared: Arc::new(Shared {
                accounts: RwLock::new(accounts),
                accounts_max,
                layout,
                cells: Mutex::default(),
            }),
        }
    }

    /// The label of an account; `None` for a name that is not known.
    pub fn account(&self, name: &str) -> Option<AccountLabel> {
        let accounts = self.accounts();
        let at = accounts.iter().position(|known| known == name);
        at.map(AccountLabel)
    }

    /// The label of an account that came while the process runs; `None` beyond
    /// [`ADDED_ACCOUNTS_MAX`] of them: it is counted from the next start on.
    pub fn add_account(&self, name: &str) -> Option<AccountLabel> {
        let mut accounts = self
            .shared
            .accounts
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let known = accounts.iter().position(|known| known == name);
        let at = match known {
            Some(at) => at,
            None if accounts.len() < self.shared.accounts_max => {
                accounts.push(name.to_owned());
                accounts.len() - 1
            }
            None => return None,
        };
        Some(AccountLabel(at))
    }

    /// A writer for the calling thread.
    pub fn writer(&self) -> MetricsWriter {
        let layout = self.shared.layout;
        let mut all = self.all_cells();
        // `get_mut` also orders the former writer's stores before ours.
        let free = all
            .iter_mut()
            .position(|cells| Arc::get_mut(cells).is_some());
        let cells = match free {
            Some(at) => Arc::clone(&all[at]),
            None => {
                let cells = Arc::new(Cells::new(&layout));
                all.push(Arc::clone(&cells));
                cells
            }
        };
        MetricsWriter { cells, layout }
    }

    /// Everything in Prometheus' text format; `levels` and `consumers` are what the engine says now.
    pub fn render(&self, levels: &[AccountStatus], consumers: &[ConsumerView]) -> String {
        let mut totals = vec![0u64; self.shared.layout.len()];
        for cells in self.all_cells().iter() {
            cells.add_to(&mut totals);
        }
        let mut text = TextWriter::default();
        self.render_counters(&totals, &mut text);
        self.render_inbound(&totals, &mut text);
        self.render_histograms(&totals, &mut text);
        render_levels(levels, &mut text);
        render_consumers(consumers, &mut text);
        text.finish()
    }

    fn render_counters(&self, totals: &[u64], text: &mut TextWriter) {
        let layout = &self.shared.layout;
        let accounts = self.accounts();
        let mut metric = text.counter("syncline_events_accepted_total", "Events taken, durable");
        metric.sample(&[], totals[layout.accepted()]);
        let mut metric = text.counter("syncline_events_rejected_total", "Events refused");
        for code in Code::ALL {
            metric.sample_above_zero(&[("code", code.as_str())], totals[layout.rejected(*code)]);
        }
        let mut metric = text.counter(
            "syncline_operations_total",
            "Operations that reached a final state",
        );
        for (at, provider) in accounts.iter().enumerate() {
            for operation in Operation::ALL {
                for outcome in cells::OUTCOMES {
                    let labels = [
                        ("provider", provider.as_str()),
                        ("operation", operation.as_str()),
                        ("outcome", outcome.as_str()),
                    ];
                    let cell = layout.operation(AccountLabel(at), operation, outcome);
                    metric.sample_above_zero(&labels, cell.map_or(0, |cell| totals[cell]));
                }
            }
        }
        let mut metric = text.counter("syncline_calls_total", "Calls to providers");
        for (at, provider) in accounts.iter().enumerate() {
            for class in CallClass::ALL {
                let labels = [("provider", provider.as_str()), ("class", class.as_str())];
                let count = totals[layout.call(AccountLabel(at), class)];
                metric.sample_above_zero(&labels, count);
            }
        }
    }

    fn render_inbound(&self, totals: &[u64], text: &mut TextWriter) {
        let layout = &self.shared.layout;
        let accounts = self.accounts();
        let mut metric = text.counter("syncline_webhooks_total", "Deliveries of providers");
        for (at, provider) in accounts.iter().enumerate() {
            for result in WebhookResult::ALL {
                let labels = [("provider", provider.as_str()), ("result", result.as_str())];
                let count = totals[layout.webhook(AccountLabel(at), result)];
                metric.sample_above_zero(&labels, count);
            }
        }
        let mut metric = text.counter("syncline_polls_total", "Requests for changes");
        for (at, provider) in accounts.iter().enumerate() {
            for result in PollResult::ALL {
                let labels = [("provider", provider.as_str()), ("result", result.as_str())];
                let count = totals[layout.poll(AccountLabel(at), result)];
                metric.sample_above_zero(&labels, count);
            }
        }
        let help = "Fields that both sides had changed";
        let mut metric = text.counter("syncline_conflicts_total", help);
        for (at, provider) in accounts.iter().enumerate() {
            for winner in cells::WINNERS {
                let labels = [("provider", provider.as_str()), ("winner", winner.as_str())];
                let count = totals[layout.conflict(AccountLabel(at), winner)];
                metric.sample_above_zero(&labels, count);
            }
        }
    }

    fn render_histograms(&self, totals: &[u64], text: &mut TextWriter) {
        for kind in HistogramKind::ALL {
            let cells = self.shared.layout.histogram(kind);
            text.histogram(kind.name(), kind.help(), &Totals::of(kind, &totals[cells]));
        }
    }

    fn accounts(&self) -> Vec<String> {
        let accounts = self.shared.accounts.read();
        accounts.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn all_cells(&self) -> MutexGuard<'_, Vec<Arc<Cells>>> {
        // The list is whole at every instant: a panic elsewhere harms nothing.
        self.shared
            .cells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetricsWriter {
    /// `count` events were taken.
    pub fn events_accepted(&mut self, count: u64) {
        self.cells.add(self.layout.accepted(), count);
    }

    /// `count` events were refused.
    pub fn events_rejected(&mut self, code: Code, count: u64) {
        self.cells.add(self.layout.rejected(code), count);
    }

    /// `count` operations reached the final state `outcome` at an account. Open
    /// states are levels and count for nothing here.
    pub fn operations(
        &mut self,
        account: AccountLabel,
        operation: Operation,
        outcome: State,
        count: u64,
    ) {
        if let Some(cell) = self.layout.operation(account, operation, outcome) {
            self.cells.add(cell, count);
        }
    }

    /// A call ended after `took`, having carried `records`.
    pub fn call(
        &mut self,
        account: AccountLabel,
        class: CallClass,
        took: Duration,
        records: usize,
    ) {
        self.cells.add(self.layout.call(account, class), 1);
        self.observe(HistogramKind::Call, nanos(took));
        self.observe(HistogramKind::RecordsPerCall, records as u64);
    }

    /// A delivery of an account ended so.
    pub fn webhook(&mut self, account: AccountLabel, result: WebhookResult) {
        self.cells.add(self.layout.webhook(account, result), 1);
    }

    /// An account was asked for changes, and it ended so.
    pub fn poll(&mut self, account: AccountLabel, result: PollResult) {
        self.cells.add(self.layout.poll(account, result), 1);
    }

    /// A field that both sides had changed ended so.
    pub fn conflict(&mut self, account: AccountLabel, winner: Winner) {
        self.cells.add(self.layout.conflict(account, winner), 1);
    }

    /// From acceptance to the provider's answer that settled it.
    pub fn end_to_end(&mut self, took: Duration) {
        self.observe(HistogramKind::EndToEnd, nanos(took));
    }

    /// One write of the log, synced.
    pub fn wal_commit(&mut self, took: Duration) {
        self.observe(HistogramKind::WalCommit, nanos(took));
    }

    fn observe(&mut self, kind: HistogramKind, value: u64) {
        let cells = self.layout.histogram(kind);
        self.cells.add(cells.start + kind.bucket(value), 1);
        self.cells.add(cells.end - 1, value);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn render_levels(levels: &[AccountStatus], text: &mut TextWriter) {
    let mut metric = text.gauge("syncline_operations_open", "Operations that are not final");
    for level in levels {
        for (state, count) in level.open.by_state() {
            let labels = [
                ("provider", level.account.name.as_str()),
                ("state", state.as_str()),
            ];
            metric.sample(&labels, count);
        }
    }
    let mut metric = text.gauge(
        "syncline_limit_used_ratio",
        "Used share of a provider's limit, 0 to 1",
    );
    for level in levels {
        for limit in &level.limits {
            let labels = [
                ("provider", level.account.name.as_str()),
                ("limit", limit.name.as_str()),
            ];
            metric.sample(&labels, limit.used_ratio());
        }
    }
    let mut metric = text.gauge(
        "syncline_limit_used_up_timestamp_seconds",
        "When nothing is left of a limit at the present pace",
    );
    for level in levels {
        for limit in &level.limits {
            let labels = [
                ("provider", level.account.name.as_str()),
                ("limit", limit.name.as_str()),
            ];
            if let Some(at) = limit.used_up_at {
                metric.sample(&labels, at as f64 / 1000.0);
            }
        }
    }
    let mut metric = text.gauge(
        "syncline_backlog_drained_timestamp_seconds",
        "When nothing waits any more at the present pace",
    );
    for level in levels {
        if let Some(at) = level.outlook.drained_at {
            metric.sample(&[("provider", &level.account.name)], at as f64 / 1000.0);
        }
    }
    let mut metric = text.gauge("syncline_dead_letters", "Operations given up");
    for level in levels {
        metric.sample(&[("provider", &level.account.name)], level.dead_letters);
    }
    let mut metric = text.gauge("syncline_breaker_state", "0 closed, 1 half-open, 2 open");
    for level in levels {
        let state = match level.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        metric.sample(&[("provider", &level.account.name)], state);
    }
}

fn render_consumers(consumers: &[ConsumerView], text: &mut TextWriter) {
    let help = "Changes that a consumer has not acknowledged";
    let mut metric = text.gauge("syncline_consumer_unacked", help);
    for consumer in consumers {
        let labels = [("consumer", consumer.name.as_str())];
        metric.sample(&labels, consumer.unacked as u64);
    }
    let mut metric = text.gauge("syncline_consumer_connected", "1 while it is connected");
    for consumer in consumers {
        let labels = [("consumer", consumer.name.as_str())];
        metric.sample(&labels, u64::from(consumer.connected));
    }
    let help = "Since when a consumer lacks a change, 0 if it lacks none";
    let mut metric = text.gauge("syncline_consumer_lag_seconds", help);
    for consumer in consumers {
        let labels = [("consumer", consumer.name.as_str())];
        metric.sample(&labels, consumer.lag_ms as f64 / 1000.0);
    }
}

#[cfg(test)]
mod tests;
