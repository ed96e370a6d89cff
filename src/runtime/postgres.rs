//! PostgreSQL as System A: its tables are followed, and written.

mod followed;
mod source;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::provider::{Reply, SendFailure};
use postgres::{Address, SinkSettings, SinkTable, SourceSettings, Table, TableName};
use tokio::sync::watch;

use super::StartError;
use super::backend::Node;
use super::walks::RowTables;
use crate::settings::{PostgresSettings, Settings};

pub(crate) use followed::Followed;
pub(crate) use tables::Tables;

/// First wait before a connection is tried again; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The table that keeps how far the sink has come.
const APPLIED: &str = "public.syncline_applied";

/// The database that is System A.
#[derive(Debug)]
pub(crate) struct Database {
    source: SourceSettings,
    /// What each of the source's tables holds.
    held: Vec<Followed>,
    tables: Option<Arc<Tables>>,
}

impl Database {
    /// What the settings say of it; `None`: System A is none.
    ///
    /// # Errors
    /// A secret, an address or a table's name that cannot be used.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Database>, StartError> {
        let system_a = settings.system_a.as_ref();
        let Some(postgres) = system_a.and_then(|system_a| system_a.postgres.as_ref()) else {
            return Ok(None);
        };
        let wrong = |error: &dyn std::error::Error| {
            StartError::config("system_a.postgres", error.to_string())
        };
        let url = postgres.url.resolve().map_err(|error| wrong(&error))?;
        let address = Address::from_url(url.expose()).map_err(|error| wrong(&error))?;
        let mut followed = Vec::new();
        let mut written = Vec::new();
        let mut held = Vec::new();
        for (object, wanted) in &settings.objects {
            let Some(source) = &wanted.record.source else {
                continue;
            };
            let name: TableName = source.table.parse().map_err(|error| wrong(&error))?;
            held.push(Followed {
                table: name.to_string(),
                object: object.clone(),
                mark: source.deleted.clone(),
            });
            followed.push(Table {
                name: name.clone(),
                key: source.key.clone(),
                columns: None,
            });
            if wanted.record.direction != crate::settings::Direction::Out {
                written.push((
                    object.clone(),
                    SinkTable {
                        name,
                        key: source.key.clone(),
                        deleted: source.deleted.clone(),
                    },
                ));
            }
        }
        let tables = (!written.is_empty()).then(|| sink(postgres, address.clone(), written));
        let tables = tables.transpose().map_err(|error| wrong(&error))?;
        let source = SourceSettings {
            address,
            slot: postgres.slot.clone(),
            publication: postgres.publication.clone(),
            tables: followed,
            own_origins: vec![origin(postgres)],
        };
        Ok(Some(Database {
            source,
            held,
            tables: tables.map(Arc::new),
        }))
    }

    /// The tables that hold the objects.
    pub(crate) fn rows(&self) -> RowTables {
        let tables = self.source.tables.iter().zip(&self.held);
        RowTables {
            address: self.source.address.clone(),
            tables: tables
                .map(|(table, held)| (held.object.clone(), (table.clone(), held.clone())))
                .collect(),
        }
    }

    /// Where changes for System A are written.
    pub(crate) fn tables(&self) -> Option<Arc<Tables>> {
        self.tables.clone()
    }

    /// Follows and writes until told to stop.
    pub(crate) async fn run(self, node: Arc<Node>, stopped: watch::Receiver<bool>) {
        if let Some(tables) = self.tables {
            tokio::spawn(tables.run(stopped.clone()));
        }
        source::follow(self.source, self.held, node, stopped).await;
    }
}

fn origin(postgres: &PostgresSettings) -> String {
    format!("{}_sink", postgres.slot)
}

fn sink(
    postgres: &PostgresSettings,
    address: Address,
    written: Vec<(String, SinkTable)>,
) -> Result<Tables, postgres::Error> {
    let by_object = written
        .iter()
        .map(|(object, table)| (object.clone(), table.name.clone()))
        .collect();
    let settings = SinkSettings {
        address,
        consumer: postgres.slot.clone(),
        shard: 0,
        origin: origin(postgres),
        applied: APPLIED.parse()?,
        tables: written.into_iter().map(|(_, table)| table).collect(),
    };
    Ok(Tables::new(settings, by_object))
}

/// What a shard's call for System A comes to.
pub(crate) type Written = Result<Reply, SendFailure>;

/// A change as a shard offers it.
pub(crate) type ChangeJson = Bytes;
