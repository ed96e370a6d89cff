//! Changes of System A's tables, taken as events.

use std::sync::Arc;

use bytes::Bytes;
use engine::refusal::Refusal;
use net::http::Backend;
use postgres::{Change, Event, Lsn, SourceSettings};
use tokio::sync::{mpsc, watch};

use super::followed::Followed;
use super::{RETRY_MAX, RETRY_MIN};
use crate::runtime::backend::Node;

/// Events of the source that wait for the log; beyond it the source is not read.
const EVENTS_MAX: usize = 1024;
/// Changes handed in at once.
const BATCH_MAX: usize = 256;

/// Follows the tables until told to stop. What cannot be cured by time ends it, and is logged.
pub(super) async fn follow(
    settings: SourceSettings,
    tables: Vec<Followed>,
    node: Arc<Node>,
    mut stopped: watch::Receiver<bool>,
) {
    if tables.is_empty() {
        return;
    }
    let (to_us, events) = mpsc::channel(EVENTS_MAX);
    let (confirmed, confirm) = watch::channel(Lsn::default());
    let taking = Taking {
        tables,
        node,
        confirmed,
    };
    let taking = tokio::spawn(taking.run(events));
    tokio::select! {
        ended = postgres::follow(settings, to_us, confirm) => if let Err(error) = ended {
            tracing::error!(%error, "System A's tables are not followed any more");
        },
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    taking.abort();
}

struct Taking {
    tables: Vec<Followed>,
    node: Arc<Node>,
    confirmed: watch::Sender<Lsn>,
}

impl Taking {
    async fn run(self, mut events: mpsc::Receiver<Event>) {
        let mut batch: Vec<Bytes> = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Change(change) => {
                    batch.extend(self.event(&change));
                    if batch.len() >= BATCH_MAX {
                        self.take(&mut batch).await;
                    }
                }
                Event::Committed { lsn } | Event::SnapshotEnded { lsn } => {
                    // Several small transactions share a commit of the log when they are there.
                    if events.is_empty() || batch.len() >= BATCH_MAX {
                        self.take(&mut batch).await;
                    }
                    if batch.is_empty() {
                        self.confirmed.send_replace(lsn);
                    }
                }
                Event::SnapshotStarted { lsn } => {
                    tracing::info!(lsn = %lsn, "all rows of System A's tables are read");
                }
                Event::Truncated { table, .. } => {
                    tracing::warn!(%table, "a table was emptied: no record is deleted for that");
                }
                Event::Unreadable {
                    table, lsn, reason, ..
                } => {
                    tracing::error!(%table, %lsn, %reason, "a row cannot be told and is left out");
                }
                Event::Drift(drift) => {
                    tracing::warn!(%drift, "a table is not as the settings expect");
                }
                Event::Interrupted { reason } => {
                    tracing::warn!(reason, "the connection to System A was lost; tried again");
                }
            }
        }
    }

    /// Hands events in until each is durable or refused for good.
    async fn take(&self, batch: &mut Vec<Bytes>) {
        let mut delay = RETRY_MIN;
        while !batch.is_empty() {
            let answers = self.node.submit(batch.clone()).await;
            let mut again = Vec::new();
            for (event, answer) in batch.drain(..).zip(answers) {
                match answer {
                    Ok(_) => {}
                    Err(refusal) if refusal.code.retry() => again.push(event),
                    Err(refusal) => refused(&refusal),
                }
            }
            *batch = again;
            if !batch.is_empty() {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_MAX);
            }
        }
    }

    /// A row's change as an event; none for a table that is no object's, or if nothing changed.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let mut tables = self.tables.iter();
        let table = tables.find(|table| *table.table == *change.table)?;
        table.event(change)
    }
}

fn refused(refusal: &Refusal) {
    tracing::warn!(
        code = refusal.code.as_str(),
        detail = %refusal,
        "a row's change is refused and left out"
    );
}
