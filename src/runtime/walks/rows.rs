//! System A's own rows, where it is a database: compared, or told to an account that lacks them.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::event::{Surface, parse};
use engine::json::{ObjectWriter, Scratch};
use engine::refusal::Refusal;
use engine::shard::EventBatch;
use postgres::{Address, Pages, Table, TableRow};

use super::super::clock;
use super::super::postgres::Followed;
use super::super::router::Router;

/// Rows read, compared or told at once.
pub(super) const ROWS_AT_ONCE: usize = 500;
/// The priority of what a walk tells: behind all that is live.
const PRIORITY: &str = "10";

/// The tables that objects lie in.
#[derive(Debug)]
pub(crate) struct RowTables {
    pub(crate) address: Address,
    /// By object.
    pub(crate) tables: BTreeMap<String, (Table, Followed)>,
}

impl RowTables {
    pub(super) fn has(&self, object: &str) -> bool {
        self.tables.contains_key(object)
    }

    /// The rows of an object behind a key.
    pub(super) async fn open(
        &self,
        object: &str,
        after: Option<String>,
    ) -> Result<Option<Pages>, postgres::Error> {
        let Some((table, _)) = self.tables.get(object) else {
            return Ok(None);
        };
        Pages::open(&self.address, table, after).await.map(Some)
    }

    /// The rows of records that are not deleted, without what marks them.
    pub(super) fn kept(&self, object: &str, rows: &[TableRow]) -> Vec<TableRow> {
        let held = self.tables.get(object).map(|(_, held)| held);
        let is_deleted = |row: &TableRow| held.is_some_and(|held| held.is_deleted(&row.data));
        let kept = rows.iter().filter(|row| !is_deleted(row));
        kept.map(|row| TableRow {
            data: match held {
                Some(held) => held.without_mark(&row.data),
                None => row.data.clone(),
            },
            ..row.clone()
        })
        .collect()
    }
}

/// Events that say to one account what rows are.
pub(super) struct RowEvents {
    /// By shard.
    pub(super) batches: Vec<EventBatch>,
    /// Refused by a rule or a schema.
    pub(super) refused: u64,
}

impl RowEvents {
    /// One UPSERT a row, routed as any event of a producer.
    pub(super) fn of(router: &Router, account: &str, object: &str, rows: &[TableRow]) -> RowEvents {
        let mut events = RowEvents {
            batches: (0..router.shards).map(|_| EventBatch::default()).collect(),
            refused: 0,
        };
        let routes = router.routes();
        let mut scratch = Scratch::new();
        for row in rows {
            let text = event(account, object, row);
            let taken: Result<(), Refusal> = router.with_defaults(|defaults| {
                let event = parse(&text, &mut scratch, defaults, Surface::Http)?;
                let mut routed = router.route(&routes, event, None, None, clock::now().wall.0)?;
                router.decide(&routes, &mut routed)?;
                events.batches[routed.shard].push_with(|out| routed.event.encode_into(out));
                Ok(())
            });
            if let Err(refusal) = taken {
                events.refused += 1;
                tracing::debug!(object, record_id = row.key, %refusal, "a row is not taken");
            }
        }
        events
    }
}

fn event(account: &str, object: &str, row: &TableRow) -> Vec<u8> {
    let mut out = Vec::new();
    let mut event = ObjectWriter::open(&mut out);
    event.text("operation", "UPSERT");
    event.text("provider", account);
    event.text("object", object);
    event.text("record_id", &row.key);
    event.raw("data", &row.data);
    event.raw("priority", PRIORITY);
    event.close();
    out
}

/// Rows by the shard that owns their records, each with its place.
pub(super) fn by_shard(
    shards: usize,
    owner_of: impl Fn(&str) -> usize,
    rows: &[TableRow],
) -> Vec<Vec<usize>> {
    let mut places = vec![Vec::new(); shards];
    for (at, row) in rows.iter().enumerate() {
        places[owner_of(&row.key)].push(at);
    }
    places
}

/// The names that many queries carry.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) account: Arc<str>,
    pub(super) object: Arc<str>,
}
