//! From the plugin's messages to events. Knows no socket.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::change::{Change, Drift, DriftKind, Event, Operation, Unreadable};
use crate::clock::unix_ms;
use crate::error::Error;
use crate::followed::{Followed, Written, drift};
use crate::json::Kind;
use crate::lsn::Lsn;
use crate::pgoutput::{Message, Old, Relation, Tuple};
use crate::table::Table;

/// The state between messages: the tables as they look now, and the transaction being told.
#[derive(Debug)]
pub(super) struct Transactions {
    tables: Vec<Table>,
    own_origins: Vec<String>,
    /// How each table of `tables` looked last, by any account.
    seen: Vec<Option<Relation>>,
    /// By the table's number; `None` are tables that nobody asked for.
    followed: HashMap<u32, Option<Followed>>,
    open: Option<Open>,
    /// The last row that was told, so that it is not told again after a reconnection.
    told: (Lsn, u64),
}

#[derive(Debug)]
struct Open {
    commit_lsn: Lsn,
    changed_at_ms: i64,
    xid: u32,
    /// Rows so far, of all tables, so that a row's number depends on nothing but the log.
    rows: u64,
    /// Written by ourselves: not told.
    own: bool,
    /// Whether any event came of it.
    told_any: bool,
}

/// What a message came to, beside the events.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing more.
    Within,
    /// A table's look has to be taken in, once its types are known.
    Relation(Relation),
    /// The transaction is over.
    Committed {
        end_lsn: Lsn,
        /// Whether any event came of it.
        told_any: bool,
    },
}

impl Transactions {
    pub(super) fn new(tables: Vec<Table>, own_origins: Vec<String>) -> Transactions {
        Transactions {
            seen: vec![None; tables.len()],
            tables,
            own_origins,
            followed: HashMap::new(),
            open: None,
            told: (Lsn::default(), 0),
        }
    }

    /// Whether a transaction has begun and not ended.
    pub(super) fn is_within(&self) -> bool {
        self.open.is_some()
    }

    /// A new stream begins: its server tells every table's look again.
    pub(super) fn restart(&mut self) {
        self.open = None;
        self.followed.clear();
    }

    /// Takes a table's look in from the catalog; it answers how it differs from what was known.
    pub(super) fn observe(&mut self, at: usize, relation: Relation) -> Vec<Drift> {
        let drifts = drift(&self.tables[at], self.seen[at].as_ref(), &relation);
        self.seen[at] = Some(relation);
        drifts
    }

    /// Takes a table's look in from the stream.
    pub(super) fn install(
        &mut self,
        relation: Relation,
        user_kinds: &HashMap<u32, Kind>,
        events: &mut VecDeque<Event>,
    ) {
        let is_it = |table: &Table| {
            table.name.schema() == relation.schema && table.name.name() == relation.name
        };
        let oid = relation.oid;
        let Some(at) = self.tables.iter().position(is_it) else {
            self.followed.insert(oid, None);
            return;
        };
        let followed = Followed::new(&self.tables[at], &relation, user_kinds);
        self.followed.insert(oid, Some(followed));
        events.extend(self.observe(at, relation).into_iter().map(Event::Drift));
    }

    /// Takes a message.
    pub(super) fn handle(
        &mut self,
        message: Message<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<Progress, Error> {
        match message {
            Message::Begin {
                commit_lsn,
                committed_at_us,
                xid,
            } => {
                if self.open.is_some() {
                    return Err(Error::Protocol("a transaction within a transaction"));
                }
                self.open = Some(Open {
                    commit_lsn,
                    changed_at_ms: unix_ms(committed_at_us),
                    xid,
                    rows: 0,
                    own: false,
                    told_any: false,
                });
            }
            Message::Commit { end_lsn, .. } => {
                let open = self.open.take().ok_or(OUTSIDE)?;
                return Ok(Progress::Committed {
                    end_lsn,
                    told_any: open.told_any,
                });
            }
            Message::Origin { name, .. } => {
                let own = self.own_origins.iter().any(|own| own == name);
                self.open.as_mut().ok_or(OUTSIDE)?.own |= own;
            }
            Message::Relation(relation) => return Ok(Progress::Relation(relation)),
            Message::Insert { relation, new } => {
                self.row(relation, events, |followed| {
                    let written = followed.write(new, None::<Tuple<'_>>)?;
                    Ok(vec![Told::new(Operation::Insert, written)])
                })?;
            }
            Message::Update { relation, old, new } => {
                self.row(relation, events, |followed| update(followed, old, new))?;
            }
            Message::Delete { relation, old } => {
                self.row(relation, events, |followed| delete(followed, old))?;
            }
            Message::Truncate { relations, .. } => {
                for relation in relations {
                    self.truncate(relation, events)?;
                }
            }
            // Types are asked of the catalog, other applications' messages are not for us.
            Message::Type { .. } | Message::Logical { .. } => {}
        }
        Ok(Progress::Within)
    }

    /// Takes a row that was too large to be kept.
    pub(super) fn too_large(
        &mut self,
        relation: u32,
        bytes: usize,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Error> {
        self.row(relation, events, |_| Err(Unreadable::TooLarge { bytes }))
    }

    fn row(
        &mut self,
        relation: u32,
        events: &mut VecDeque<Event>,
        read: impl FnOnce(&Followed) -> Result<Vec<Told>, Unreadable>,
    ) -> Result<(), Error> {
        let Some((table, open)) = self.next_row(relation)? else {
            return Ok(());
        };
        let (lsn, row) = (open.commit_lsn, open.rows);
        match read(table) {
            Ok(told) => events.extend(told.into_iter().map(|told| {
                Event::Change(Change {
                    table: Arc::clone(table.name()),
                    key: told.written.key,
                    operation: told.operation,
                    data: told.written.data,
                    before: told.before,
                    unchanged: told.written.unchanged,
                    changed_at_ms: open.changed_at_ms,
                    lsn,
                    row,
                    xid: open.xid,
                })
            })),
            Err(reason) => events.push_back(Event::Unreadable {
                table: Arc::clone(table.name()),
                lsn,
                row,
                reason,
            }),
        }
        Ok(())
    }

    fn truncate(&mut self, relation: u32, events: &mut VecDeque<Event>) -> Result<(), Error> {
        if let Some((table, open)) = self.next_row(relation)? {
            events.push_back(Event::Truncated {
                table: Arc::clone(table.name()),
                lsn: open.commit_lsn,
                row: open.rows,
                changed_at_ms: open.changed_at_ms,
            });
        }
        Ok(())
    }

    /// Counts a row, and answers its table if it has to be told.
    fn next_row(&mut self, relation: u32) -> Result<Option<(&Followed, &Open)>, Error> {
        let open = self.open.as_mut().ok_or(OUTSIDE)?;
        open.rows = open.rows.saturating_add(1);
        let followed = self.followed.get(&relation);
        let followed = followed.ok_or(Error::Protocol("a row of a table never described"))?;
        let Some(followed) = followed else {
            return Ok(None);
        };
        if open.own {
            return Ok(None);
        }
        open.told_any = true;
        let place = (open.commit_lsn, open.rows);
        if place <= self.told {
            return Ok(None);
        }
        self.told = place;
        Ok(Some((followed, open)))
    }

    /// A table that was added to what is followed, or does not exist.
    pub(super) fn drift_of(&self, at: usize, kind: DriftKind) -> Event {
        Event::Drift(Drift {
            table: self.tables[at].name.to_string().into(),
            kind,
        })
    }
}

const OUTSIDE: Error = Error::Protocol("a change outside a transaction");

/// A change of a row before it has its place.
struct Told {
    operation: Operation,
    written: Written,
    before: Option<String>,
}

impl Told {
    fn new(operation: Operation, written: Written) -> Told {
        Told {
            operation,
            written,
            before: None,
        }
    }
}

fn update(
    followed: &Followed,
    old: Option<Old<'_>>,
    new: Tuple<'_>,
) -> Result<Vec<Told>, Unreadable> {
    let (before, written) = match old {
        Some(Old::Full(old)) => {
            let before = followed.write(old, None::<Tuple<'_>>)?;
            (Some(before), followed.write(new, Some(old))?)
        }
        // Told when the replica identity changed. Without the key in it, it says nothing of that.
        Some(Old::Key(old)) => (
            followed.write_key(old).ok(),
            followed.write(new, None::<Tuple<'_>>)?,
        ),
        None => (None, followed.write(new, None::<Tuple<'_>>)?),
    };
    let full = matches!(old, Some(Old::Full(_)));
    Ok(match before {
        Some(before) if before.key != written.key => {
            let old = old.expect("a row before comes from an old tuple").tuple();
            let key_alone = followed.write_key(old).unwrap_or(Written {
                key: before.key.clone(),
                data: "{}".to_owned(),
                unchanged: Vec::new(),
            });
            vec![
                Told {
                    operation: Operation::Delete,
                    written: key_alone,
                    before: full.then_some(before.data),
                },
                Told::new(Operation::Insert, written),
            ]
        }
        before => vec![Told {
            operation: Operation::Update,
            written,
            before: before.filter(|_| full).map(|before| before.data),
        }],
    })
}

fn delete(followed: &Followed, old: Old<'_>) -> Result<Vec<Told>, Unreadable> {
    let before = match old {
        Old::Full(old) => Some(followed.write(old, None::<Tuple<'_>>)?.data),
        Old::Key(_) => None,
    };
    Ok(vec![Told {
        operation: Operation::Delete,
        written: followed.write_key(old.tuple())?,
        before,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `public.t (id bigint, name text)`, number 5, identified by `id` or by all columns.
    fn relation(identity: u8) -> Vec<u8> {
        let full = u8::from(identity == b'f');
        let columns = [
            &[1][..],
            b"id\0\0\0\0\x14\xff\xff\xff\xff",
            &[full],
            b"name\0\0\0\0\x19\xff\xff\xff\xff",
        ];
        [
            b"R\0\0\0\x05public\0t\0",
            &[identity][..],
            b"\0\x02",
            &columns.concat(),
        ]
        .concat()
    }

    fn begin(commit_lsn: u64) -> Vec<u8> {
        [&b"B"[..], &commit_lsn.to_be_bytes(), &[0; 8], &[0, 0, 0, 9]].concat()
    }

    fn commit(end_lsn: u64) -> Vec<u8> {
        [&b"C\0"[..], &[0; 8], &end_lsn.to_be_bytes(), &[0; 8]].concat()
    }

    fn tuple(mark: u8, values: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = vec![mark, 0, values.len() as u8];
        for value in values {
            match value {
                None => bytes.push(b'n'),
                Some("<same>") => bytes.push(b'u'),
                Some(text) => {
                    bytes.push(b't');
                    bytes.extend((text.len() as u32).to_be_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
        }
        bytes
    }

    fn message(tag: u8, tuples: &[Vec<u8>]) -> Vec<u8> {
        [&[tag, 0, 0, 0, 5], &tuples.concat()[..]].concat()
    }

    struct Told {
        transactions: Transactions,
        events: VecDeque<Event>,
    }

    impl Told {
        fn new() -> Told {
            let table = Table {
                name: "t".parse().unwrap(),
                key: "id".to_owned(),
                columns: None,
            };
            Told {
                transactions: Transactions::new(vec![table], vec!["own".to_owned()]),
                events: VecDeque::new(),
            }
        }

        fn feed(&mut self, bytes: &[u8]) -> Progress {
            let message = Message::decode(bytes).unwrap();
            match self.transactions.handle(message, &mut self.events).unwrap() {
                Progress::Relation(relation) => {
                    let kinds = HashMap::new();
                    self.transactions
                        .install(relation, &kinds, &mut self.events);
                    Progress::Within
                }
                progress => progress,
            }
        }

        fn changes(&mut self) -> Vec<(Operation, String, Option<String>)> {
            let change = |event| match event {
                Event::Change(change) => (change.operation, change.data, change.before),
                other => panic!("no change: {other:?}"),
            };
            self.events.drain(..).map(change).collect()
        }
    }

    #[test]
    fn with_a_full_identity_the_row_before_is_told() {
        let mut told = Told::new();
        told.feed(&begin(100));
        told.feed(&relation(b'f'));
        let old = tuple(b'O', &[Some("1"), Some("a")]);
        told.feed(&message(
            b'U',
            &[old.clone(), tuple(b'N', &[Some("1"), Some("<same>")])],
        ));
        told.feed(&message(b'D', &[old]));
        let row = || r#"{"id":1,"name":"a"}"#.to_owned();
        assert_eq!(
            told.changes(),
            [
                (Operation::Update, row(), Some(row())),
                (Operation::Delete, r#"{"id":1}"#.to_owned(), Some(row())),
            ]
        );
    }

    #[test]
    fn a_changed_key_is_a_delete_and_an_insert() {
        let mut told = Told::new();
        told.feed(&begin(100));
        told.feed(&relation(b'd'));
        let old = tuple(b'K', &[Some("1"), None]);
        told.feed(&message(b'U', &[old, tuple(b'N', &[Some("2"), Some("a")])]));
        let ids: Vec<String> = told
            .events
            .iter()
            .map(|event| match event {
                Event::Change(change) => change.id(),
                other => panic!("no change: {other:?}"),
            })
            .collect();
        assert_eq!(ids, ["0/64-1d", "0/64-1"]);
        assert_eq!(
            told.changes(),
            [
                (Operation::Delete, r#"{"id":1}"#.to_owned(), None),
                (Operation::Insert, r#"{"id":2,"name":"a"}"#.to_owned(), None),
            ]
        );
    }

    #[test]
    fn our_own_transactions_are_not_told() {
        let mut told = Told::new();
        told.feed(&begin(100));
        told.feed(b"O\0\0\0\0\0\0\0\0own\0");
        told.feed(&relation(b'd'));
        told.feed(&message(b'I', &[tuple(b'N', &[Some("1"), None])]));
        let over = told.feed(&commit(110));
        assert_eq!(
            over,
            Progress::Committed {
                end_lsn: Lsn(110),
                told_any: false
            }
        );
        told.feed(&begin(120));
        told.feed(b"O\0\0\0\0\0\0\0\0another\0");
        told.feed(&message(b'I', &[tuple(b'N', &[Some("2"), None])]));
        assert_eq!(told.changes().len(), 1);
    }

    #[test]
    fn what_was_told_before_a_reconnection_is_not_told_again() {
        let mut told = Told::new();
        let insert = |id| message(b'I', &[tuple(b'N', &[Some(id), None])]);
        told.feed(&begin(100));
        told.feed(&relation(b'd'));
        told.feed(&insert("1"));
        told.feed(&insert("2"));
        assert_eq!(told.changes().len(), 2);
        told.transactions.restart();
        told.feed(&begin(100));
        told.feed(&relation(b'd'));
        for id in ["1", "2", "3"] {
            told.feed(&insert(id));
        }
        let data = r#"{"id":3,"name":null}"#.to_owned();
        assert_eq!(told.changes(), [(Operation::Insert, data, None)]);
        let over = told.feed(&commit(110));
        assert!(matches!(over, Progress::Committed { told_any: true, .. }));
    }

    #[test]
    fn tables_nobody_asked_for_are_passed_over() {
        let mut told = Told::new();
        told.feed(&begin(100));
        told.feed(b"R\0\0\0\x05public\0other\0d\0\0");
        told.feed(&message(b'I', &[tuple(b'N', &[])]));
        told.feed(b"T\0\0\0\x01\0\0\0\0\x05");
        assert!(told.events.is_empty());
    }

    #[test]
    fn messages_out_of_turn_are_refused() {
        let mut told = Told::new();
        let mut refused = |bytes: &[u8]| {
            let message = Message::decode(bytes).unwrap();
            told.transactions.handle(message, &mut told.events).is_err()
        };
        let insert = message(b'I', &[tuple(b'N', &[])]);
        assert!(refused(&insert));
        assert!(refused(&commit(1)));
        assert!(!refused(&begin(1)));
        assert!(refused(&insert));
        assert!(refused(&begin(2)));
    }

    #[test]
    fn a_row_too_large_is_told_as_such() {
        let mut told = Told::new();
        told.feed(&begin(100));
        told.feed(&relation(b'd'));
        told.transactions
            .too_large(5, 1 << 30, &mut told.events)
            .unwrap();
        assert!(matches!(
            told.events.pop_front(),
            Some(Event::Unreadable {
                row: 1,
                reason: Unreadable::TooLarge { .. },
                ..
            })
        ));
    }
}
