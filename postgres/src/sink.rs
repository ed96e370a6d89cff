//! A writer into tables: in order, at most once per number, under a replication origin of its
//! own so that a source can tell its writes from others.

mod parameter;
mod statement;

use std::collections::HashMap;

use statement::{Shape, Target};

use crate::address::Address;
use crate::catalog::text;
use crate::connection::Connection;
use crate::error::{Error, ServerError};
use crate::table::{TableName, check_name, literal};

/// What is written where, and as whom.
#[derive(Debug, Clone)]
pub struct SinkSettings {
    /// Where. The role needs to write the tables, to create `applied` if it is missing, and to
    /// run the functions `pg_replication_origin_create` and `pg_replication_origin_session_setup`.
    pub address: Address,
    /// Whose numbers the writes have.
    pub consumer: String,
    /// Which of its shards; each has its own numbers and its own sink.
    pub shard: u32,
    /// The replication origin, made if there is none. One sink at a time can use it.
    pub origin: String,
    /// The table that keeps how far each consumer and shard has come.
    pub applied: TableName,
    /// The tables that are written.
    pub tables: Vec<SinkTable>,
}

/// A table that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkTable {
    /// Which.
    pub name: TableName,
    /// Its key, a column with a unique index of its own.
    pub key: String,
    /// A column that marks a row as deleted instead of deleting it: a boolean, or the time.
    pub deleted: Option<String>,
}

/// A change to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Its number within consumer and shard. They rise, with or without gaps.
    pub seq: u64,
    /// Which of the tables.
    pub table: TableName,
    /// The row's key as text.
    pub key: String,
    /// What to do.
    pub operation: WriteOperation,
    /// A JSON object with the columns to set, of an upsert.
    pub data: String,
}

/// What to do with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteOperation {
    /// Set the columns named, in a new row if there is none of this key. Others stay.
    Upsert,
    /// Remove the row, or mark it.
    Delete,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed.
    Applied,
    /// It was committed or refused before.
    AlreadyApplied,
    /// It cannot be written and was passed over; its number counts as done.
    Refused(Refusal),
}

/// Why a write cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The table is none of the sink's.
    #[error("table {0} is not written by this sink")]
    UnknownTable(TableName),
    /// The table has no such column, or it is generated.
    #[error("the table has no column {0} that can be written")]
    UnknownColumn(String),
    /// The data is no JSON object.
    #[error("the data is no JSON object")]
    NotAnObject,
    /// A column for bytes is not given as base 64.
    #[error("column {0} takes base 64")]
    NotBase64(String),
    /// The server refused the row.
    #[error("{0}")]
    Server(ServerError),
}

/// Writes into tables over one connection.
#[derive(Debug)]
pub struct Sink {
    settings: SinkSettings,
    connection: Connection,
    targets: HashMap<TableName, Target>,
    /// The last number that is done.
    applied: u64,
    prepared: HashMap<Shape, String>,
    /// Names given to statements so far: none is given twice, so that a statement of which it
    /// is not known whether it was prepared does no harm.
    statements: u64,
}

/// A write as the server gets it.
#[derive(Debug)]
struct Rendered {
    seq: u64,
    shape: Shape,
    parameters: Vec<Option<String>>,
}

/// Writes in one transaction at most: what is staged at once stays within some megabytes, and
/// rows are not locked for long.
pub const WRITES_MAX: usize = 1000;

/// Statements kept prepared; then all are given up. Each distinct set of columns needs one.
const PREPARED_MAX: usize = 512;

impl Sink {
    /// Connects, makes what is missing, and reads how far the consumer has come.
    ///
    /// # Errors
    /// See [`Error`]. Table and origin may have been made.
    pub async fn open(settings: SinkSettings) -> Result<Sink, Error> {
        check_name("origin", &settings.origin)?;
        let mut connection = Connection::open(&settings.address).await?;
        take_origin(&mut connection, &settings.origin).await?;
        let applied = read_applied(&mut connection, &settings).await?;
        let mut sink = Sink {
            settings,
            connection,
            targets: HashMap::new(),
            applied,
            prepared: HashMap::new(),
            statements: 0,
        };
        sink.look_at_tables().await?;
        Ok(sink)
    }

    /// The last number that is done, 0 for none.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Writes these in order, [`WRITES_MAX`] to a transaction, and answers what became of each.
    /// A row that is refused harms no other. Must not be given up half way.
    ///
    /// # Errors
    /// The connection broke, the server cannot write now, or another sink has taken over. Those
    /// before may have been written; open a new sink and give it all of them again.
    pub async fn apply(&mut self, writes: &[Write]) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for writes in writes.chunks(WRITES_MAX) {
            self.apply_chunk(writes, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    /// Closes the connection, which frees the origin.
    pub async fn close(self) {
        self.connection.close().await;
    }

    async fn apply_chunk(
        &mut self,
        writes: &[Write],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Error> {
        let unknown_column =
            |result: &Result<Rendered, Refusal>| matches!(result, Err(Refusal::UnknownColumn(_)));
        let before = self.applied;
        let fresh: Vec<&Write> = writes.iter().filter(|write| write.seq > before).collect();
        let Some(last) = fresh.iter().map(|write| write.seq).max() else {
            outcomes.extend(writes.iter().map(|_| Outcome::AlreadyApplied));
            return Ok(());
        };
        let mut rendered: Vec<_> = fresh.iter().map(|write| self.render(write)).collect();
        if rendered.iter().any(unknown_column) {
            // It may have come since we looked.
            self.look_at_tables().await?;
            rendered = fresh.iter().map(|write| self.render(write)).collect();
        }
        let good: Vec<&Rendered> = rendered.iter().flatten().collect();
        let mut refused = HashMap::new();
        match self.write(&good, last).await {
            Ok(()) => {}
            Err(Error::Server(error)) if error.is_about_the_row() => {
                refused = self.write_singly(&good, last).await?;
            }
            Err(error) => return Err(error),
        }
        let mut rendered = rendered.into_iter();
        let mut outcome = |write: &Write| {
            if write.seq <= before {
                return Outcome::AlreadyApplied;
            }
            match rendered.next().expect("one for each that is fresh") {
                Err(refusal) => Outcome::Refused(refusal),
                Ok(rendered) => match refused.remove(&rendered.seq) {
                    Some(error) => Outcome::Refused(Refusal::Server(error)),
                    None => Outcome::Applied,
                },
            }
        };
        outcomes.extend(writes.iter().map(&mut outcome));
        Ok(())
    }

    /// Each in a transaction of its own, so that it is known which are refused.
    async fn write_singly(
        &mut self,
        rendered: &[&Rendered],
        last: u64,
    ) -> Result<HashMap<u64, ServerError>, Error> {
        let mut refused = HashMap::new();
        for one in rendered {
            match self.write(&[one], one.seq).await {
                Ok(()) => {}
                Err(Error::Server(error)) if error.is_about_the_row() => {
                    refused.insert(one.seq, *error);
                }
                Err(error) => return Err(error),
            }
        }
        if self.applied < last {
            self.write(&[], last).await?;
        }
        // A table may have changed its look, which a statement prepared before does not know.
        self.look_at_tables().await?;
        Ok(refused)
    }

    /// One transaction: the writes, and the number up to which all is done.
    async fn write(&mut self, rendered: &[&Rendered], last: u64) -> Result<(), Error> {
        let mut names = Vec::with_capacity(rendered.len());
        self.prepare(rendered, &mut names).await?;
        let connection = &mut self.connection;
        connection.stage_prepare("", "BEGIN")?;
        connection.stage_run("", &[])?;
        let advance = format!(
            "UPDATE {} SET seq = $1 WHERE consumer = $2 AND shard = $3 AND seq = $4",
            self.settings.applied.quoted()
        );
        connection.stage_prepare("", &advance)?;
        let place = [
            Some(last.to_string()),
            Some(self.settings.consumer.clone()),
            Some(self.settings.shard.to_string()),
            Some(self.applied.to_string()),
        ];
        connection.stage_run("", &place)?;
        for (rendered, name) in rendered.iter().zip(&names) {
            connection.stage_run(name, &rendered.parameters)?;
        }
        connection.stage_sync();
        let written = match connection.finish_unit().await {
            Ok(touched) if touched.get(1) == Some(&1) => connection.query("COMMIT").await.map(drop),
            Ok(_) => {
                connection.query("ROLLBACK").await?;
                return Err(self.fenced().await?);
            }
            Err(Error::Server(error)) => {
                connection.query("ROLLBACK").await?;
                Err(Error::Server(error))
            }
            Err(error) => Err(error),
        };
        if written.is_ok() {
            self.applied = last;
        }
        written
    }

    /// Prepares the statements that are missing, and answers the names of all.
    async fn prepare(
        &mut self,
        rendered: &[&Rendered],
        names: &mut Vec<String>,
    ) -> Result<(), Error> {
        if self.prepared.len() > PREPARED_MAX {
            self.forget_statements().await?;
        }
        let mut fresh = HashMap::new();
        for rendered in rendered {
            let shape = &rendered.shape;
            if let Some(name) = self.prepared.get(shape).or_else(|| fresh.get(shape)) {
                names.push(name.clone());
                continue;
            }
            self.statements += 1;
            let name = format!("s{}", self.statements);
            let target = self
                .targets
                .get(&shape.table)
                .expect("rendered for this table");
            self.connection.stage_prepare(&name, &target.sql(shape))?;
            names.push(name.clone());
            fresh.insert(shape.clone(), name);
        }
        if !fresh.is_empty() {
            self.connection.stage_sync();
            self.connection.finish_unit().await?;
            self.prepared.extend(fresh);
        }
        Ok(())
    }

    fn render(&self, write: &Write) -> Result<Rendered, Refusal> {
        let target = self.targets.get(&write.table);
        let target = target.ok_or_else(|| Refusal::UnknownTable(write.table.clone()))?;
        let (shape, parameters) = target.render(write)?;
        Ok(Rendered {
            seq: write.seq,
            shape,
            parameters,
        })
    }

    async fn look_at_tables(&mut self) -> Result<(), Error> {
        self.forget_statements().await?;
        let mut targets = HashMap::new();
        for table in &self.settings.tables {
            let target = Target::read(&mut self.connection, table).await?;
            targets.insert(table.name.clone(), target);
        }
        self.targets = targets;
        Ok(())
    }

    async fn forget_statements(&mut self) -> Result<(), Error> {
        if !self.prepared.is_empty() {
            self.connection.query("DEALLOCATE ALL").await?;
            self.prepared.clear();
        }
        Ok(())
    }

    async fn fenced(&mut self) -> Result<Error, Error> {
        let found = read_applied(&mut self.connection, &self.settings).await?;
        Ok(Error::Fenced {
            consumer: self.settings.consumer.clone(),
            shard: self.settings.shard,
            expected: self.applied,
            found,
        })
    }
}

/// Marks all that this connection writes, from now on.
async fn take_origin(connection: &mut Connection, origin: &str) -> Result<(), Error> {
    let name = literal(origin);
    let create = format!(
        "SELECT pg_catalog.pg_replication_origin_create({name})
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = {name})"
    );
    match connection.query(&create).await {
        Ok(_) => {}
        // Another sink was faster.
        Err(Error::Server(error)) if error.code == "23505" || error.code == "42710" => {}
        Err(error) => return Err(Error::setup("making a replication origin")(error)),
    }
    let set = format!("SELECT pg_catalog.pg_replication_origin_session_setup({name})");
    let doing = Error::setup("taking the replication origin");
    connection.query(&set).await.map_err(doing)?;
    Ok(())
}

/// How far this consumer and shard have come; makes the table and the row if they are missing.
async fn read_applied(connection: &mut Connection, settings: &SinkSettings) -> Result<u64, Error> {
    let table = settings.applied.quoted();
    let exists = format!("SELECT to_regclass({}) IS NOT NULL", literal(&table));
    let rows = connection.query(&exists).await?;
    let row = rows
        .first()
        .ok_or(Error::Protocol("an answer without a row"))?;
    if text(row, 0)? != "t" {
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {table} (consumer text NOT NULL, shard bigint NOT NULL,
            seq bigint NOT NULL, PRIMARY KEY (consumer, shard))"
        );
        match connection.query(&create).await {
            Ok(_) => {}
            // Another sink made it at the same time.
            Err(Error::Server(error)) if error.code == "23505" || error.code == "42P07" => {}
            Err(error) => return Err(Error::setup("making the table of positions")(error)),
        }
    }
    let (consumer, shard) = (literal(&settings.consumer), settings.shard);
    let insert = format!(
        "INSERT INTO {table} (consumer, shard, seq) VALUES ({consumer}, {shard}, 0)
        ON CONFLICT (consumer, shard) DO NOTHING"
    );
    let doing = Error::setup("writing the table of positions");
    connection.query(&insert).await.map_err(doing)?;
    let select = format!("SELECT seq FROM {table} WHERE consumer = {consumer} AND shard = {shard}");
    let doing = Error::setup("reading the table of positions");
    let rows = connection.query(&select).await.map_err(doing)?;
    let row = rows
        .first()
        .ok_or(Error::Protocol("a position that is gone"))?;
    let bad = |_| Error::Protocol("a position that is none");
    text(row, 0)?.parse().map_err(bad)
}
