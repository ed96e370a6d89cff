//! A writer into tables: in order, at most once per number, under a replication origin of its
//! own so that a source can tell its writes from others.

mod parameter;
mod statement;

use std::collections::HashMap;
use std::iter::repeat_n;

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
    /// It was committed before, or refused and passed over.
    AlreadyApplied,
    /// It cannot be written.
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

/// What became of a transaction. Unless it is `All`, nothing was written.
#[derive(Debug)]
enum Written {
    All,
    /// One of its writes was refused.
    Refused {
        at: usize,
        error: Box<ServerError>,
    },
    /// At its end, so it is not known for which of its writes.
    RefusedByOne,
}

/// The names of the statements, or the write whose statement was refused.
type Prepared = Result<Vec<String>, (usize, Box<ServerError>)>;

/// Writes in one transaction at most: rows are not locked for long.
pub const WRITES_MAX: usize = 1000;

/// Data of one transaction at most, unless a single write has more: it is staged at once.
const WRITES_BYTES_MAX: usize = 8 << 20;

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
    /// The answer ends early with a row that is refused: once that is noted durably, the rest is
    /// to be given again. Its number counts as done with the next one that is. Must not be given
    /// up half way.
    ///
    /// # Errors
    /// The connection broke, the server cannot write now, or another sink has taken over. Those
    /// before may have been written; open a new sink and give it all of them again.
    pub async fn apply(&mut self, writes: &[Write]) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::with_capacity(writes.len());
        let mut rest = writes;
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(chunk_length(rest));
            let answered = outcomes.len() + chunk.len();
            self.apply_chunk(chunk, &mut outcomes).await?;
            if outcomes.len() < answered || matches!(outcomes.last(), Some(Outcome::Refused(_))) {
                break;
            }
            rest = behind;
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
        let done = writes.partition_point(|write| write.seq <= self.applied);
        outcomes.extend(repeat_n(Outcome::AlreadyApplied, done));
        let mut fresh = &writes[done..];
        // Of the write behind the last of `fresh`.
        let mut refusal = None;
        let mut looked = false;
        while !fresh.is_empty() {
            let (rendered, unwritable) = self.render(fresh);
            if matches!(unwritable, Some(Refusal::UnknownColumn(_))) && !looked {
                // It may have come since we looked.
                self.look_at_tables().await?;
                looked = true;
                continue;
            }
            fresh = &fresh[..rendered.len()];
            refusal = unwritable.or(refusal);
            match self.write(&rendered).await? {
                Written::All => break,
                // Statements may have been made for a table as it was.
                Written::Refused { error, .. } if error.is_about_the_table() && !looked => {
                    self.look_at_tables().await?;
                    looked = true;
                }
                Written::Refused { at, error } => {
                    fresh = &fresh[..at];
                    refusal = Some(Refusal::Server(*error));
                }
                Written::RefusedByOne => {
                    fresh = &fresh[..fresh.len() / 2];
                    refusal = None;
                }
            }
        }
        outcomes.extend(fresh.iter().map(|_| Outcome::Applied));
        outcomes.extend(refusal.map(Outcome::Refused));
        Ok(())
    }

    /// One transaction: the writes, and the number up to which all is done.
    async fn write(&mut self, rendered: &[Rendered]) -> Result<Written, Error> {
        let Some(last) = rendered.last().map(|last| last.seq) else {
            return Ok(Written::All);
        };
        let names = match self.prepare(rendered).await? {
            Ok(names) => names,
            Err((at, error)) => return refused(at, error),
        };
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
        let unit = connection.finish_unit().await?;
        let advanced = unit.touched.get(1).copied();
        if unit.refused.is_some() || advanced != Some(1) {
            connection.query("ROLLBACK").await?;
        }
        match (unit.refused, advanced) {
            (Some(error), None) => Err(Error::Server(error)),
            (Some(error), Some(1)) => refused(unit.touched.len() - 2, error),
            (None, Some(1)) => match self.connection.query("COMMIT").await {
                Ok(_) => {
                    self.applied = last;
                    Ok(Written::All)
                }
                // A constraint that is checked at the end.
                Err(Error::Server(error)) if rendered.len() == 1 => refused(0, error),
                Err(Error::Server(error)) if error.is_about_the_row() => Ok(Written::RefusedByOne),
                Err(error) => Err(error),
            },
            (_, _) => Err(self.fenced().await?),
        }
    }

    /// Prepares the statements that are missing and answers the names of all, or the first
    /// write whose statement is refused.
    async fn prepare(&mut self, rendered: &[Rendered]) -> Result<Prepared, Error> {
        if self.prepared.len() > PREPARED_MAX {
            self.forget_statements().await?;
        }
        // With the first write that needs it.
        let mut fresh: Vec<(usize, Shape)> = Vec::new();
        let mut names = Vec::with_capacity(rendered.len());
        for (at, rendered) in rendered.iter().enumerate() {
            let shape = &rendered.shape;
            let name = match self.prepared.get(shape) {
                Some(name) => name.clone(),
                None => {
                    self.statements += 1;
                    let name = format!("s{}", self.statements);
                    let target = self.targets.get(&shape.table);
                    let sql = target.expect("rendered for this table").sql(shape);
                    self.connection.stage_prepare(&name, &sql)?;
                    self.prepared.insert(shape.clone(), name.clone());
                    fresh.push((at, shape.clone()));
                    name
                }
            };
            names.push(name);
        }
        if fresh.is_empty() {
            return Ok(Ok(names));
        }
        self.connection.stage_sync();
        let unit = self.connection.finish_unit().await?;
        for (_, unprepared) in fresh.iter().skip(unit.parsed) {
            self.prepared.remove(unprepared);
        }
        match (unit.refused, fresh.get(unit.parsed)) {
            (None, _) => Ok(Ok(names)),
            (Some(error), Some((at, _))) => Ok(Err((*at, error))),
            (Some(error), None) => Err(Error::Server(error)),
        }
    }

    /// Up to the first that cannot be written.
    fn render(&self, writes: &[Write]) -> (Vec<Rendered>, Option<Refusal>) {
        let mut rendered = Vec::with_capacity(writes.len());
        for write in writes {
            let Some(target) = self.targets.get(&write.table) else {
                return (rendered, Some(Refusal::UnknownTable(write.table.clone())));
            };
            match target.render(write) {
                Ok((shape, parameters)) => rendered.push(Rendered {
                    seq: write.seq,
                    shape,
                    parameters,
                }),
                Err(refusal) => return (rendered, Some(refusal)),
            }
        }
        (rendered, None)
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

/// How many of these go into one transaction: at least one.
fn chunk_length(writes: &[Write]) -> usize {
    let mut bytes = 0;
    let fits = |write: &&Write| {
        bytes += write.key.len() + write.data.len();
        bytes <= WRITES_BYTES_MAX
    };
    writes
        .iter()
        .take(WRITES_MAX)
        .take_while(fits)
        .count()
        .max(1)
}

/// A refusal, if it says something about the row; else the error it is.
fn refused(at: usize, error: Box<ServerError>) -> Result<Written, Error> {
    if error.is_about_the_row() {
        Ok(Written::Refused { at, error })
    } else {
        Err(Error::Server(error))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_bounded_by_number_and_by_size() {
        let write = |bytes| Write {
            seq: 1,
            table: "t".parse().unwrap(),
            key: String::new(),
            operation: WriteOperation::Upsert,
            data: "x".repeat(bytes),
        };
        let length = |bytes, writes| chunk_length(&vec![write(bytes); writes]);
        assert_eq!(length(1, 3), 3);
        assert_eq!(length(1, WRITES_MAX + 1), WRITES_MAX);
        assert_eq!(length(1 << 20, 20), 8);
        assert_eq!(length(WRITES_BYTES_MAX + 1, 2), 1);
    }
}
