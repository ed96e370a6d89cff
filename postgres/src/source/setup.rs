//! Publication, slot and snapshot: what has to be there before changes can be followed.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Confirmation, Phase, Snapshot, Source, SourceSettings, Transactions};
use crate::catalog::{self, CatalogTable, text};
use crate::change::{DriftKind, Event};
use crate::connection::{Connection, Purpose};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::table::{NAME_BYTES_MAX, TableName, check_name, literal, quoted};

/// Ends the name of the slot that lives as long as its snapshot.
const SNAPSHOT_SUFFIX: &str = "_snapshot";

/// How often the server hears of us if its own patience allows it.
const REPORT_INTERVAL_MAX: Duration = Duration::from_secs(10);

const REPORT_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What the server says of itself.
struct Server {
    system_id: String,
    report_interval: Duration,
}

pub(super) async fn open(settings: SourceSettings) -> Result<Source, Error> {
    check(&settings)?;
    let mut connection = Connection::open_for(&settings.address, Purpose::Replication).await?;
    let server = identify(&mut connection).await?;

    let mut tables = Vec::new();
    for table in &settings.tables {
        tables.push(catalog::table(&mut connection, &table.name).await?);
    }
    let mut transactions = Transactions::new(settings.tables.clone(), settings.own_origins.clone());
    let mut pending = VecDeque::new();
    for (at, table) in tables.iter_mut().enumerate() {
        match table {
            Some(seen) => {
                let drifts = transactions.observe(at, seen.relation.clone());
                pending.extend(drifts.into_iter().map(Event::Drift));
                // Publishing it would make the server refuse updates by everybody.
                if !seen.relation.has_identity() {
                    *table = None;
                }
            }
            None => pending.push_back(transactions.drift_of(at, DriftKind::TableMissing)),
        }
    }

    // Before the slot: a slot that is older than its publication cannot be decoded.
    let added = publish(&mut connection, &settings, &tables).await?;
    let phase = if slot_is_there(&mut connection, &settings).await? {
        let drifts = added.into_iter();
        pending.extend(drifts.map(|at| transactions.drift_of(at, DriftKind::TableAdded)));
        start(&mut connection, &settings, Lsn::default()).await?;
        Phase::Streaming
    } else {
        let snapshot = take_snapshot(&mut connection, &settings, &tables).await?;
        Phase::Snapshot(Box::new(snapshot))
    };
    Ok(Source {
        settings,
        connection,
        system_id: server.system_id,
        phase,
        transactions,
        pending,
        unresolved: None,
        progress: Confirmation::default(),
        report_interval: server.report_interval,
        heard: true,
    })
}

/// Makes the snapshot's slot permanent under its own name: from now on a start goes on from
/// where it was confirmed, and before it began anew.
pub(super) async fn keep_slot(
    connection: &mut Connection,
    settings: &SourceSettings,
) -> Result<(), Error> {
    let temporary = literal(&snapshot_slot(settings));
    let copy = format!(
        "SELECT pg_catalog.pg_copy_logical_replication_slot({temporary}, {}, false)",
        literal(&settings.slot)
    );
    let doing = Error::setup("making the replication slot permanent");
    connection.query(&copy).await.map_err(doing)?;
    let drop = format!("SELECT pg_catalog.pg_drop_replication_slot({temporary})");
    let doing = Error::setup("dropping the snapshot's replication slot");
    connection.query(&drop).await.map_err(doing)?;
    Ok(())
}

/// Begins the stream: at `from`, or at the slot's own position if that is later.
pub(super) async fn start(
    connection: &mut Connection,
    settings: &SourceSettings,
    from: Lsn,
) -> Result<(), Error> {
    let sql = format!(
        "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {})",
        quoted(&settings.slot),
        literal(&quoted(&settings.publication)),
    );
    let doing = Error::setup("starting the replication");
    connection.start_copy_both(&sql).await.map_err(doing)
}

fn check(settings: &SourceSettings) -> Result<(), Error> {
    let slot = &settings.slot;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let bad = |what, value: &str, reason| Error::Setting {
        what,
        value: value.to_owned(),
        reason,
    };
    check_name("slot", slot)?;
    if !slot.chars().all(fits) {
        return Err(bad("slot", slot, "only a-z, 0-9 and _ are allowed"));
    }
    if slot.len() + SNAPSHOT_SUFFIX.len() > NAME_BYTES_MAX {
        return Err(bad("slot", slot, "it is longer than 54 bytes"));
    }
    check_name("publication", &settings.publication)?;
    if settings.publication.contains('\\') {
        return Err(bad(
            "publication",
            &settings.publication,
            "it holds a backslash",
        ));
    }
    for table in &settings.tables {
        check_name("key column", &table.key)?;
    }
    Ok(())
}

async fn identify(connection: &mut Connection) -> Result<Server, Error> {
    let rows = connection.query("IDENTIFY_SYSTEM").await?;
    let row = rows
        .first()
        .ok_or(Error::Protocol("a system without identity"))?;
    let system_id = text(row, 0)?.to_owned();
    let mut report_interval = REPORT_INTERVAL_MAX;
    let settings = "SELECT name, setting FROM pg_catalog.pg_settings
        WHERE name IN ('wal_level', 'wal_sender_timeout')";
    for row in connection.query(settings).await? {
        match (text(&row, 0)?, text(&row, 1)?) {
            ("wal_level", "logical") => {}
            ("wal_level", level) => {
                return Err(Error::WalLevel {
                    found: level.to_owned(),
                });
            }
            // In milliseconds; 0 is endless patience.
            (_, timeout) => match timeout.parse() {
                Ok(0) | Err(_) => {}
                Ok(timeout_ms) => {
                    report_interval = (Duration::from_millis(timeout_ms) / 4)
                        .clamp(REPORT_INTERVAL_MIN, REPORT_INTERVAL_MAX);
                }
            },
        }
    }
    Ok(Server {
        system_id,
        report_interval,
    })
}

/// Makes the publication or adds what it lacks; answers which tables an old one lacked.
async fn publish(
    connection: &mut Connection,
    settings: &SourceSettings,
    tables: &[Option<CatalogTable>],
) -> Result<Vec<usize>, Error> {
    let present = |at: &usize| tables[*at].is_some();
    let mut missing: Vec<usize> = (0..tables.len()).filter(present).collect();
    if missing.is_empty() {
        return Err(Error::NoTables);
    }
    let name = literal(&settings.publication);
    let sql = format!("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {name}");
    let exists = !connection.query(&sql).await?.is_empty();
    if exists {
        let sql = format!(
            "SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables
            WHERE pubname = {name}"
        );
        for row in connection.query(&sql).await? {
            let published = TableName::new(text(&row, 0)?, text(&row, 1)?)?;
            missing.retain(|at| settings.tables[*at].name != published);
        }
        if missing.is_empty() {
            return Ok(missing);
        }
    }
    let names = missing.iter().map(|at| settings.tables[*at].name.quoted());
    let names = names.collect::<Vec<_>>().join(", ");
    let publication = quoted(&settings.publication);
    let sql = if exists {
        format!("ALTER PUBLICATION {publication} ADD TABLE {names}")
    } else {
        // Rows of partitions are told as rows of their table, as the snapshot reads them.
        format!(
            "CREATE PUBLICATION {publication} FOR TABLE {names}
            WITH (publish_via_partition_root = true)"
        )
    };
    let doing = Error::setup("publishing the tables");
    connection.query(&sql).await.map_err(doing)?;
    Ok(if exists { missing } else { Vec::new() })
}

/// Whether there is a slot to go on with.
async fn slot_is_there(
    connection: &mut Connection,
    settings: &SourceSettings,
) -> Result<bool, Error> {
    let sql = format!(
        "SELECT coalesce(plugin, ''), coalesce(database = current_database(), false),
            coalesce(wal_status, '')
        FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        literal(&settings.slot)
    );
    let rows = connection.query(&sql).await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    let slot = settings.slot.clone();
    let unusable = |reason| Error::SlotUnusable {
        slot: settings.slot.clone(),
        reason,
    };
    match (text(row, 0)?, text(row, 1)?, text(row, 2)?) {
        (_, _, "lost") => Err(Error::SlotLost { slot }),
        ("pgoutput", "t", _) => Ok(true),
        ("pgoutput", _, _) => Err(unusable("it belongs to another database")),
        _ => Err(unusable("it is not of the plugin pgoutput")),
    }
}

/// Makes a temporary slot and opens a transaction that sees what was there at its beginning.
async fn take_snapshot(
    connection: &mut Connection,
    settings: &SourceSettings,
    tables: &[Option<CatalogTable>],
) -> Result<Snapshot, Error> {
    let create = format!(
        "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT",
        quoted(&snapshot_slot(settings))
    );
    let doing = Error::setup("making a replication slot");
    let rows = connection.query(&create).await.map_err(doing)?;
    let row = rows
        .first()
        .ok_or(Error::Protocol("a slot without a position"))?;
    let lsn = text(row, 1)?
        .parse()
        .map_err(|_| Error::Protocol("a slot without a position"))?;
    let exported = text(row, 2)?;

    let mut reader = Connection::open(&settings.address).await?;
    let begin = format!(
        // A policy that hides rows is an error, not a snapshot without them.
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {};
        SET LOCAL row_security = off",
        literal(exported)
    );
    let doing = Error::setup("reading at the slot's snapshot");
    reader.query(&begin).await.map_err(doing)?;
    let mut present = Vec::new();
    for (table, seen) in settings.tables.iter().zip(tables) {
        if seen.is_some() {
            // Again, now within the snapshot: it may have changed since.
            if let Some(seen) = catalog::table(&mut reader, &table.name).await? {
                let kinds = catalog::user_kinds(&mut reader, &seen.relation).await?;
                present.push((table, seen, kinds));
            }
        }
    }
    Snapshot::new(reader, lsn, present).await
}

fn snapshot_slot(settings: &SourceSettings) -> String {
    format!("{}{SNAPSHOT_SUFFIX}", settings.slot)
}
