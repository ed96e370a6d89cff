//! How many changes a second come out of PostgreSQL through the decoder.
//!
//! `cargo run --release -p syncline-postgres --example throughput -- postgres://... [ROWS]`
//!
//! Makes a table, a publication and a slot named `syncline_throughput` in that database, fills
//! the table in one transaction, reads the changes, and drops all of it. Then the same as a
//! snapshot.

use std::error::Error;
use std::time::Instant;

use syncline_postgres::{Address, Connection, Event, Source, SourceSettings, Table};

const NAME: &str = "syncline_throughput";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: throughput postgres://USER@HOST/DATABASE [ROWS]";
    let address = Address::from_url(&arguments.next().ok_or(usage)?)?;
    let rows: u64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(address, rows))
}

async fn measure(address: Address, rows: u64) -> Result<(), Box<dyn Error>> {
    let mut sql = Connection::open(&address).await?;
    clean_up(&mut sql).await;
    sql.query(&format!(
        "CREATE TABLE {NAME} (id bigint PRIMARY KEY, first_name text, last_name text, email text,
            status text, score numeric(10, 2), active boolean, updated_at timestamptz)"
    ))
    .await?;
    let settings = SourceSettings {
        address: address.clone(),
        slot: NAME.to_owned(),
        publication: NAME.to_owned(),
        tables: vec![Table {
            name: NAME.parse()?,
            key: "id".to_owned(),
            columns: None,
        }],
        own_origins: Vec::new(),
    };
    let mut source = Source::open(settings.clone()).await?;
    read_until(&mut source, |event| {
        matches!(event, Event::SnapshotEnded { .. })
    })
    .await?;
    sql.query(&format!(
        "INSERT INTO {NAME} SELECT n, 'First' || n, 'Last' || n, 'person' || n || '@example.com',
            'active', n % 1000 + 0.25, n % 2 = 0, now() FROM generate_series(1, {rows}) n"
    ))
    .await?;
    let started = Instant::now();
    let (changes, bytes) = read_until(&mut source, |event| {
        matches!(event, Event::Committed { .. })
    })
    .await?;
    report("stream", changes, bytes, started);
    source.close().await;
    clean_up_slot(&mut sql).await;

    let mut source = Source::open(settings).await?;
    let started = Instant::now();
    let (changes, bytes) = read_until(&mut source, |event| {
        matches!(event, Event::SnapshotEnded { .. })
    })
    .await?;
    report("snapshot", changes, bytes, started);
    source.close().await;
    clean_up_slot(&mut sql).await;
    clean_up(&mut sql).await;
    Ok(())
}

/// Reads to an event that ends a part, and confirms it; answers the changes and their JSON.
async fn read_until(
    source: &mut Source,
    is_end: impl Fn(&Event) -> bool,
) -> Result<(u64, usize), Box<dyn Error>> {
    let (mut changes, mut bytes) = (0, 0);
    loop {
        let event = source.next().await?;
        if let Event::SnapshotEnded { lsn } | Event::Committed { lsn } = &event {
            source.confirm(*lsn).await?;
        }
        if let Event::Change(change) = &event {
            changes += 1;
            bytes += change.data.len();
        }
        if is_end(&event) {
            return Ok((changes, bytes));
        }
    }
}

fn report(what: &str, changes: u64, bytes: usize, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{what}: {changes} changes in {seconds:.2} s, {:.0} a second, {:.1} MB/s of JSON",
        changes as f64 / seconds,
        bytes as f64 / 1e6 / seconds,
    );
}

/// Drops the slot as soon as its reader has gone.
async fn clean_up_slot(sql: &mut Connection) {
    let drop_slot = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
        WHERE slot_name = '{NAME}'"
    );
    while sql
        .query(&drop_slot)
        .await
        .is_err_and(|error| error.is_transient())
    {}
}

async fn clean_up(sql: &mut Connection) {
    clean_up_slot(sql).await;
    for statement in ["DROP PUBLICATION IF EXISTS", "DROP TABLE IF EXISTS"] {
        // What is left over is told by the statement that makes it.
        drop(sql.query(&format!("{statement} {NAME}")).await);
    }
}
