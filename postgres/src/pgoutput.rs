//! Messages of the output plugin `pgoutput`, version 1 of its protocol: the protocol's chapter
//! "Logical Replication Message Formats".
//!
//! Version 1 tells a transaction when it has been committed, never before: the server spills
//! large ones to its own disk, nothing has to be taken back here, and memory stays small.

use crate::lsn::Lsn;
use crate::reader::{DecodeError, Reader};

/// A message. Names and values are borrowed from its bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<'a> {
    /// A transaction begins.
    Begin {
        /// Where its commit record lies: the transactions of a stream rise by it.
        commit_lsn: Lsn,
        /// When it was committed, microseconds since 2000.
        committed_at_us: i64,
        /// Its number.
        xid: u32,
    },
    /// All of the transaction has been told.
    Commit {
        /// Where its commit record lies.
        commit_lsn: Lsn,
        /// Where the record ends: confirming this confirms the transaction.
        end_lsn: Lsn,
        /// When it was committed, microseconds since 2000.
        committed_at_us: i64,
    },
    /// The transaction was written under this replication origin.
    Origin {
        /// Its position there.
        lsn: Lsn,
        /// The origin's name.
        name: &'a str,
    },
    /// How the rows of a table look from here on.
    Relation(Relation),
    /// The name of a type that is not built in.
    Type {
        /// Its number.
        oid: u32,
        /// Its schema, empty for `pg_catalog`.
        schema: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A new row.
    Insert {
        /// The table's number.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A changed row.
    Update {
        /// The table's number.
        relation: u32,
        /// What is told of the row before.
        old: Option<Old<'a>>,
        /// The row now.
        new: Tuple<'a>,
    },
    /// A row is gone.
    Delete {
        /// The table's number.
        relation: u32,
        /// What is told of it.
        old: Old<'a>,
    },
    /// Tables were emptied.
    Truncate {
        /// Their numbers.
        relations: Vec<u32>,
        /// Whether tables that reference them were, too.
        cascade: bool,
        /// Whether their sequences start over.
        restart_identity: bool,
    },
    /// A message that an application put into the log.
    Logical {
        /// Whether it belongs to the transaction.
        transactional: bool,
        /// Its position.
        lsn: Lsn,
        /// Whose it is.
        prefix: &'a str,
        /// What it says.
        content: &'a [u8],
    },
}

/// A table as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its number.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What is told of rows before their change.
    pub identity: ReplicaIdentity,
    /// In the order of the rows' values.
    pub columns: Vec<RelationColumn>,
}

/// A column as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Its name.
    pub name: String,
    /// Whether it is part of the replica identity.
    pub in_identity: bool,
    /// The number of its type.
    pub type_oid: u32,
    /// The type's modifier, -1 for none.
    pub type_modifier: i32,
}

/// `REPLICA IDENTITY` of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing: the server refuses updates and deletes of a published table.
    Nothing,
    /// All columns.
    Full,
    /// The columns of a unique index.
    Index,
}

/// What is told of a row before its change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Old<'a> {
    /// The columns of the replica identity; the others stand as null.
    Key(Tuple<'a>),
    /// All columns.
    Full(Tuple<'a>),
}

/// A row's values, known to be well formed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuple<'a> {
    columns: u16,
    bytes: &'a [u8],
}

/// A value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// Stored out of line and not changed, so not told.
    Unchanged,
    /// As the type's output function writes it.
    Text(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// The bytes are none. No bytes make this panic, and it allocates in proportion to them.
    pub fn decode(bytes: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = Message::read(&mut reader)?;
        reader.end()?;
        Ok(message)
    }

    fn read(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
        Ok(match reader.u8()? {
            b'B' => Message::Begin {
                commit_lsn: reader.lsn()?,
                committed_at_us: reader.u64()?.cast_signed(),
                xid: reader.u32()?,
            },
            b'C' => {
                // Flags, none in use.
                reader.u8()?;
                Message::Commit {
                    commit_lsn: reader.lsn()?,
                    end_lsn: reader.lsn()?,
                    committed_at_us: reader.u64()?.cast_signed(),
                }
            }
            b'O' => Message::Origin {
                lsn: reader.lsn()?,
                name: reader.text()?,
            },
            b'R' => Message::Relation(Relation::read(reader)?),
            b'Y' => Message::Type {
                oid: reader.u32()?,
                schema: reader.text()?,
                name: reader.text()?,
            },
            b'I' => {
                let relation = reader.u32()?;
                match reader.u8()? {
                    b'N' => Message::Insert {
                        relation,
                        new: Tuple::read(reader)?,
                    },
                    _ => return Err(DecodeError::Field("the tuple's mark")),
                }
            }
            b'U' => Message::read_update(reader)?,
            b'D' => {
                let relation = reader.u32()?;
                let mark = reader.u8()?;
                Message::Delete {
                    relation,
                    old: Old::read(mark, reader)?,
                }
            }
            b'T' => {
                let count = reader.u32()?;
                let options = reader.u8()?;
                let relations = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
                Message::Truncate {
                    relations,
                    cascade: options & 1 != 0,
                    restart_identity: options & 2 != 0,
                }
            }
            b'M' => {
                let transactional = reader.u8()? & 1 != 0;
                let (lsn, prefix) = (reader.lsn()?, reader.text()?);
                let length = reader.u32()? as usize;
                Message::Logical {
                    transactional,
                    lsn,
                    prefix,
                    content: reader.take(length)?,
                }
            }
            tag => return Err(DecodeError::Tag(tag)),
        })
    }

    fn read_update(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let relation = reader.u32()?;
        let mark = reader.u8()?;
        let old = match mark {
            b'N' => None,
            mark => {
                let old = Old::read(mark, reader)?;
                if reader.u8()? != b'N' {
                    return Err(DecodeError::Field("the tuple's mark"));
                }
                Some(old)
            }
        };
        Ok(Message::Update {
            relation,
            old,
            new: Tuple::read(reader)?,
        })
    }
}

impl Relation {
    /// Whether updates and deletes of its rows can be told.
    pub fn has_identity(&self) -> bool {
        let mut columns = self.columns.iter();
        self.identity == ReplicaIdentity::Full || columns.any(|column| column.in_identity)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Relation, DecodeError> {
        let oid = reader.u32()?;
        let schema = match reader.text()? {
            "" => "pg_catalog",
            schema => schema,
        };
        let name = reader.text()?;
        let identity = match reader.u8()? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            _ => return Err(DecodeError::Field("the replica identity")),
        };
        let mut columns = Vec::new();
        for _ in 0..reader.u16()? {
            columns.push(RelationColumn {
                in_identity: reader.u8()? & 1 != 0,
                name: reader.text()?.to_owned(),
                type_oid: reader.u32()?,
                type_modifier: reader.u32()?.cast_signed(),
            });
        }
        Ok(Relation {
            oid,
            schema: schema.to_owned(),
            name: name.to_owned(),
            identity,
            columns,
        })
    }
}

impl<'a> Old<'a> {
    fn read(mark: u8, reader: &mut Reader<'a>) -> Result<Old<'a>, DecodeError> {
        match mark {
            b'K' => Ok(Old::Key(Tuple::read(reader)?)),
            b'O' => Ok(Old::Full(Tuple::read(reader)?)),
            _ => Err(DecodeError::Field("the old tuple's mark")),
        }
    }

    /// The values, whichever are told.
    pub fn tuple(self) -> Tuple<'a> {
        match self {
            Old::Key(tuple) | Old::Full(tuple) => tuple,
        }
    }
}

impl<'a> Tuple<'a> {
    /// How many values it has.
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// Whether it has none, as rows of a table without columns.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// Its values in the order of the relation's columns.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.columns).map(move |_| {
            Value::read(&mut reader).expect("a tuple is read to its end before it is made")
        })
    }

    fn read(reader: &mut Reader<'a>) -> Result<Tuple<'a>, DecodeError> {
        let columns = reader.u16()?;
        let whole = reader.rest();
        for _ in 0..columns {
            Value::read(reader)?;
        }
        let length = whole.len() - reader.rest().len();
        Ok(Tuple {
            columns,
            bytes: &whole[..length],
        })
    }
}

impl<'a> Value<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Value<'a>, DecodeError> {
        match reader.u8()? {
            b'n' => Ok(Value::Null),
            b'u' => Ok(Value::Unchanged),
            b't' => {
                let length = reader.u32()? as usize;
                Ok(Value::Text(reader.take(length)?))
            }
            // Binary values come only to who asks for them.
            _ => Err(DecodeError::Field("the value's mark")),
        }
    }
}
