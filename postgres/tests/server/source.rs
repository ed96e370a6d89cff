//! A source against a real PostgreSQL.

use std::time::Duration;

use serde_json::{Value, json};
use syncline_postgres::{
    Address, Change, Connection, DriftKind, Event, Lsn, Operation, Source, SourceSettings, Table,
    Unreadable,
};

use crate::cluster::{Cluster, value};
use crate::{PATIENCE, run};

pub(crate) fn settings(address: &Address, slot: &str, tables: &[&str]) -> SourceSettings {
    let table = |name: &&str| Table {
        name: name.parse().unwrap(),
        key: "id".to_owned(),
        columns: None,
    };
    SourceSettings {
        address: address.clone(),
        slot: slot.to_owned(),
        publication: format!("{slot}_pub"),
        tables: tables.iter().map(table).collect(),
        own_origins: vec!["syncline".to_owned()],
    }
}

async fn next(source: &mut Source) -> Event {
    let event = tokio::time::timeout(PATIENCE, source.next()).await;
    event.expect("an event comes").unwrap()
}

/// Takes the snapshot, confirms it, and answers its rows.
async fn through_snapshot(source: &mut Source) -> Vec<Change> {
    assert!(matches!(next(source).await, Event::SnapshotStarted { .. }));
    let mut rows = Vec::new();
    loop {
        match next(source).await {
            Event::Change(change) => rows.push(change),
            Event::SnapshotEnded { lsn } => {
                source.confirm(lsn).await.unwrap();
                return rows;
            }
            other => panic!("not of a snapshot: {other:?}"),
        }
    }
}

/// Takes one transaction's events, without confirming it.
async fn transaction(source: &mut Source) -> (Vec<Event>, Lsn) {
    let mut events = Vec::new();
    loop {
        match next(source).await {
            Event::Committed { lsn } => return (events, lsn),
            event => events.push(event),
        }
    }
}

fn changes(events: Vec<Event>) -> Vec<(Operation, Value, Option<Value>)> {
    let parse = |text: &String| serde_json::from_str(text).unwrap();
    events
        .iter()
        .map(|event| match event {
            Event::Change(change) => (
                change.operation,
                parse(&change.data),
                change.before.as_ref().map(parse),
            ),
            other => panic!("no change: {other:?}"),
        })
        .collect()
}

pub(crate) async fn contacts(address: &Address) -> Connection {
    let mut sql = Connection::open(address).await.unwrap();
    let table = "CREATE TABLE contacts (id bigint PRIMARY KEY, name text, score int)";
    sql.query(table).await.unwrap();
    sql
}

#[test]
fn rows_before_and_after_the_start_are_told_once_and_in_order() {
    run(
        "rows_before_and_after_the_start_are_told_once_and_in_order",
        async {
            let cluster = Cluster::shared()?;
            let address = cluster.database("ordered").await;
            let mut sql = contacts(&address).await;
            sql.query("INSERT INTO contacts VALUES (1, 'Ada', 10), (2, 'tab\there', NULL)")
                .await
                .unwrap();
            let mut source = Source::open(settings(&address, "ordered", &["contacts"]))
                .await
                .unwrap();
            // After the slot, so not in the snapshot although that is read later.
            sql.query("INSERT INTO contacts VALUES (3, 'Eve', 1)")
                .await
                .unwrap();
            let rows = through_snapshot(&mut source).await;
            let rows: Vec<(String, Value)> = rows
                .into_iter()
                .map(|row| (row.key, serde_json::from_str(&row.data).unwrap()))
                .collect();
            assert_eq!(
                rows,
                [
                    ("1".to_owned(), json!({"id": 1, "name": "Ada", "score": 10})),
                    (
                        "2".to_owned(),
                        json!({"id": 2, "name": "tab\there", "score": null})
                    ),
                ]
            );
            let (events, _) = transaction(&mut source).await;
            let row = json!({"id": 3, "name": "Eve", "score": 1});
            assert_eq!(changes(events), [(Operation::Insert, row, None)]);

            sql.query(
                "BEGIN; UPDATE contacts SET score = 11 WHERE id = 1;
            DELETE FROM contacts WHERE id = 2; UPDATE contacts SET id = 4 WHERE id = 3; COMMIT",
            )
            .await
            .unwrap();
            let (events, _) = transaction(&mut source).await;
            assert_eq!(
                changes(events),
                [
                    (
                        Operation::Update,
                        json!({"id": 1, "name": "Ada", "score": 11}),
                        None
                    ),
                    (Operation::Delete, json!({"id": 2}), None),
                    (Operation::Delete, json!({"id": 3}), None),
                    (
                        Operation::Insert,
                        json!({"id": 4, "name": "Eve", "score": 1}),
                        None
                    ),
                ]
            );
            sql.query("TRUNCATE contacts").await.unwrap();
            let (events, _) = transaction(&mut source).await;
            let [Event::Truncated { table, .. }] = &events[..] else {
                panic!("not a truncation: {events:?}");
            };
            assert_eq!(&**table, "public.contacts");
            Ok(())
        },
    );
}

#[test]
fn a_full_identity_tells_the_row_before_and_what_is_stored_out_of_line() {
    run(
        "a_full_identity_tells_the_row_before_and_what_is_stored_out_of_line",
        async {
            let cluster = Cluster::shared()?;
            let address = cluster.database("toast").await;
            let mut sql = Connection::open(&address).await.unwrap();
            sql.query(
                "CREATE TABLE plain (id int PRIMARY KEY, n int, big text);
            CREATE TABLE whole (id int PRIMARY KEY, n int, big text);
            ALTER TABLE plain ALTER big SET STORAGE EXTERNAL;
            ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
            ALTER TABLE whole REPLICA IDENTITY FULL;
            INSERT INTO plain VALUES (1, 1, repeat('x', 9000));
            INSERT INTO whole VALUES (1, 1, repeat('x', 9000))",
            )
            .await
            .unwrap();
            let mut source = Source::open(settings(&address, "toast", &["plain", "whole"]))
                .await
                .unwrap();
            assert_eq!(through_snapshot(&mut source).await.len(), 2);
            let big = "x".repeat(9000);

            sql.query("UPDATE plain SET n = 2").await.unwrap();
            let (events, _) = transaction(&mut source).await;
            let [Event::Change(change)] = &events[..] else {
                panic!("not one change: {events:?}");
            };
            assert_eq!(change.unchanged, ["big".into()]);
            assert_eq!(change.data, r#"{"id":1,"n":2}"#);

            sql.query("UPDATE plain SET big = NULL").await.unwrap();
            let (events, _) = transaction(&mut source).await;
            let null = json!({"id": 1, "n": 2, "big": null});
            assert_eq!(changes(events), [(Operation::Update, null, None)]);

            sql.query("UPDATE whole SET n = 2; DELETE FROM whole")
                .await
                .unwrap();
            let (events, _) = transaction(&mut source).await;
            let row = |n: i32| json!({"id": 1, "n": n, "big": big});
            assert_eq!(
                changes(events),
                [
                    (Operation::Update, row(2), Some(row(1))),
                    (Operation::Delete, json!({"id": 1}), Some(row(2))),
                ]
            );
            Ok(())
        },
    );
}

#[test]
fn values_read_the_same_in_the_snapshot_and_in_the_stream() {
    run(
        "values_read_the_same_in_the_snapshot_and_in_the_stream",
        async {
            let cluster = Cluster::shared()?;
            let address = cluster.database("kinds").await;
            let mut sql = Connection::open(&address).await.unwrap();
            sql.query(
                r#"CREATE TYPE mood AS ENUM ('sad', 'ok');
            CREATE DOMAIN cents AS bigint;
            CREATE TABLE kinds (
                id uuid PRIMARY KEY, big bigint, amount numeric(30, 5), huge numeric, yes boolean,
                at timestamptz, local timestamp, day date, j json, jb jsonb, raw bytea, f float8,
                tags text[], grid int[], m mood, c cents, moods mood[], cs cents[], span interval,
                twice bigint GENERATED ALWAYS AS (big * 0) STORED);
            INSERT INTO kinds VALUES ('00000000-0000-0000-0000-000000000001',
                9007199254740993, 12345678901234567890.12345, 1e30, true,
                '2026-11-20 12:00:00.123+02', '2026-11-20 10:00:00', '2026-11-20',
                '{ "a" : [1, "x\n"] }', '{"b": 1.0}', '\x00ff', 0.1,
                '{a,"b,c",NULL}', '{{1,2},{3,4}}', 'ok', 7, '{sad,ok}', '{1,2}', '1 day 2 hours')"#,
            )
            .await
            .unwrap();
            // Whatever the database is set to.
            sql.query("ALTER DATABASE kinds SET DateStyle = 'SQL, DMY'")
                .await
                .unwrap();
            sql.query("ALTER DATABASE kinds SET TimeZone = 'Asia/Kolkata'")
                .await
                .unwrap();
            let mut source = Source::open(settings(&address, "kinds", &["kinds"]))
                .await
                .unwrap();
            let rows = through_snapshot(&mut source).await;
            let expected = concat!(
                r#"{"id":"00000000-0000-0000-0000-000000000001","big":9007199254740993,"#,
                r#""amount":12345678901234567890.12345,"huge":"1000000000000000000000000000000","#,
                r#""yes":true,"at":"2026-11-20T10:00:00.123Z","local":"2026-11-20T10:00:00","#,
                r#""day":"2026-11-20","j":{"a":[1,"x\n"]},"jb":{"b":1.0},"raw":"AP8=","f":0.1,"#,
                r#""tags":["a","b,c",null],"grid":[[1,2],[3,4]],"m":"ok","c":7,"#,
                r#""moods":["sad","ok"],"cs":[1,2],"span":"P1DT2H"}"#,
            );
            assert_eq!(rows[0].data, expected);
            sql.query("UPDATE kinds SET big = big").await.unwrap();
            let (events, _) = transaction(&mut source).await;
            let [Event::Change(change)] = &events[..] else {
                panic!("not one change: {events:?}");
            };
            assert_eq!(change.data, expected);
            Ok(())
        },
    );
}

#[test]
fn a_large_transaction_comes_whole_and_numbered() {
    run("a_large_transaction_comes_whole_and_numbered", async {
        let cluster = Cluster::shared()?;
        let address = cluster.database("large").await;
        let mut sql = contacts(&address).await;
        // Spilled to the server's disk before it is told.
        sql.query("ALTER ROLE postgres IN DATABASE large SET logical_decoding_work_mem = '64kB'")
            .await
            .unwrap();
        let mut source = Source::open(settings(&address, "large", &["contacts"]))
            .await
            .unwrap();
        assert!(through_snapshot(&mut source).await.is_empty());
        sql.query(
            "INSERT INTO contacts SELECT n, 'name ' || n, n FROM generate_series(1, 20000) n",
        )
        .await
        .unwrap();
        let (events, _) = transaction(&mut source).await;
        assert_eq!(events.len(), 20_000);
        for (at, event) in (1..).zip(&events) {
            let Event::Change(change) = event else {
                panic!("no change: {event:?}");
            };
            assert_eq!((change.row, &change.key), (at, &at.to_string()));
        }
        Ok(())
    });
}

#[test]
fn what_was_not_confirmed_is_told_again_and_what_was_is_not() {
    run(
        "what_was_not_confirmed_is_told_again_and_what_was_is_not",
        async {
            let cluster = Cluster::shared()?;
            let address = cluster.database("again").await;
            let mut sql = contacts(&address).await;
            let settings = settings(&address, "again", &["contacts"]);
            let mut source = Source::open(settings.clone()).await.unwrap();
            through_snapshot(&mut source).await;
            for id in 1..=3 {
                sql.query(&format!("INSERT INTO contacts VALUES ({id})"))
                    .await
                    .unwrap();
            }
            let (_, first) = transaction(&mut source).await;
            let (second, _) = transaction(&mut source).await;
            transaction(&mut source).await;
            source.confirm(first).await.unwrap();
            // Killed before the rest was confirmed.
            drop(source);
            let mut source = reopened(&settings).await;
            let (again, _) = transaction(&mut source).await;
            assert_eq!(again, second);
            let (third, lsn) = transaction(&mut source).await;
            assert_eq!(changes(third)[0].1["id"], 3);
            source.confirm(lsn).await.unwrap();
            source.close().await;
            let mut source = reopened(&settings).await;
            sql.query("INSERT INTO contacts VALUES (4)").await.unwrap();
            let (fourth, _) = transaction(&mut source).await;
            assert_eq!(changes(fourth)[0].1["id"], 4);
            let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = 'again'";
            assert_eq!(value(&mut sql, slots).await.as_deref(), Some("1"));
            let publications = "SELECT count(*) FROM pg_publication";
            assert_eq!(value(&mut sql, publications).await.as_deref(), Some("1"));
            Ok(())
        },
    );
}

/// Opens again; the server may still be busy noticing that the last reader has gone.
async fn reopened(settings: &SourceSettings) -> Source {
    loop {
        match Source::open(settings.clone()).await {
            Ok(source) => return source,
            Err(error) if error.is_transient() => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_snapshot_that_was_not_confirmed_begins_again() {
    run("a_snapshot_that_was_not_confirmed_begins_again", async {
        let cluster = Cluster::shared()?;
        let address = cluster.database("halfway").await;
        let mut sql = contacts(&address).await;
        sql.query("INSERT INTO contacts SELECT generate_series(1, 100)")
            .await
            .unwrap();
        let settings = settings(&address, "halfway", &["contacts"]);
        for rows_read in [0, 50, 101] {
            let mut source = reopened(&settings).await;
            assert!(matches!(
                next(&mut source).await,
                Event::SnapshotStarted { .. }
            ));
            for _ in 0..rows_read {
                next(&mut source).await;
            }
            drop(source);
            // What comes meanwhile is in the next snapshot.
            sql.query(&format!("INSERT INTO contacts VALUES (1000 + {rows_read})"))
                .await
                .unwrap();
        }
        let mut source = reopened(&settings).await;
        assert_eq!(through_snapshot(&mut source).await.len(), 103);
        drop(source);
        let mut source = reopened(&settings).await;
        assert!(!source.is_in_snapshot());
        sql.query("DELETE FROM contacts WHERE id = 1")
            .await
            .unwrap();
        let (events, _) = transaction(&mut source).await;
        assert_eq!(
            changes(events),
            [(Operation::Delete, json!({"id": 1}), None)]
        );
        Ok(())
    });
}

#[test]
fn tables_that_change_their_look_are_reported_and_the_stream_goes_on() {
    run(
        "tables_that_change_their_look_are_reported_and_the_stream_goes_on",
        async {
            let cluster = Cluster::shared()?;
            let address = cluster.database("drift").await;
            let mut sql = contacts(&address).await;
            sql.query("CREATE TABLE keyless (id int)").await.unwrap();
            let mut settings = settings(&address, "drift", &["contacts", "missing", "keyless"]);
            settings.tables[0].columns = Some(vec!["name".to_owned(), "score".to_owned()]);
            let mut source = Source::open(settings).await.unwrap();
            for expected in [
                "public.missing: the table does not exist",
                "public.keyless: the table has no replica identity",
            ] {
                let Event::Drift(drift) = next(&mut source).await else {
                    panic!("no drift");
                };
                assert_eq!(drift.to_string(), expected);
            }
            // Its own writers are not disturbed.
            let write = "INSERT INTO keyless VALUES (1); UPDATE keyless SET id = 2";
            sql.query(write).await.unwrap();
            through_snapshot(&mut source).await;

            sql.query(
                "ALTER TABLE contacts DROP COLUMN name, ADD COLUMN mail text,
                ALTER COLUMN score TYPE text;
            INSERT INTO contacts VALUES (1, '5', 'a@b')",
            )
            .await
            .unwrap();
            let (events, _) = transaction(&mut source).await;
            let mut drifts = Vec::new();
            let mut data = Vec::new();
            for event in events {
                match event {
                    Event::Drift(drift) => drifts.push(drift.kind),
                    Event::Change(change) => data.push(change.data),
                    other => panic!("unexpected: {other:?}"),
                }
            }
            assert_eq!(
                drifts,
                [
                    DriftKind::ColumnMissing("name".to_owned()),
                    DriftKind::ColumnRetyped("score".to_owned()),
                    DriftKind::ColumnAdded("mail".to_owned()),
                ]
            );
            assert_eq!(data, [r#"{"id":1,"score":"5"}"#]);

            sql.query("ALTER TABLE contacts RENAME id TO key; INSERT INTO contacts VALUES (2)")
                .await
                .unwrap();
            let (events, _) = transaction(&mut source).await;
            assert!(events.iter().any(|event| matches!(
                event,
                Event::Drift(drift) if drift.kind == DriftKind::KeyMissing("id".to_owned())
            )));
            assert!(matches!(
                events.last(),
                Some(Event::Unreadable {
                    reason: Unreadable::NoKey,
                    ..
                })
            ));
            sql.query("ALTER TABLE contacts RENAME key TO id; INSERT INTO contacts VALUES (3)")
                .await
                .unwrap();
            let (events, _) = transaction(&mut source).await;
            assert!(matches!(events.last(), Some(Event::Change(change)) if change.key == "3"));
            Ok(())
        },
    );
}

#[test]
fn rows_of_partitions_and_of_tables_added_later_are_told() {
    run(
        "rows_of_partitions_and_of_tables_added_later_are_told",
        async {
            let cluster = Cluster::shared()?;
            let address = cluster.database("parts").await;
            let mut sql = contacts(&address).await;
            sql.query(
                "CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
            CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10);
            INSERT INTO parted VALUES (1); INSERT INTO contacts VALUES (7)",
            )
            .await
            .unwrap();
            let mut source = Source::open(settings(&address, "parts", &["parted"]))
                .await
                .unwrap();
            let rows = through_snapshot(&mut source).await;
            assert_eq!(&*rows[0].table, "public.parted");
            source.close().await;
            let mut source = reopened(&settings(&address, "parts", &["parted", "contacts"])).await;
            assert!(matches!(
                next(&mut source).await,
                Event::Drift(drift) if drift.kind == DriftKind::TableAdded
            ));
            sql.query("INSERT INTO parted VALUES (2); INSERT INTO contacts VALUES (8)")
                .await
                .unwrap();
            let (events, _) = transaction(&mut source).await;
            let tables: Vec<String> = events
                .iter()
                .map(|event| match event {
                    Event::Change(change) => format!("{} {}", change.table, change.key),
                    other => panic!("no change: {other:?}"),
                })
                .collect();
            assert_eq!(tables, ["public.parted 2", "public.contacts 8"]);
            Ok(())
        },
    );
}

#[test]
fn an_idle_table_does_not_keep_the_servers_log() {
    run("an_idle_table_does_not_keep_the_servers_log", async {
        let cluster = Cluster::shared()?;
        let address = cluster.database("idle").await;
        let mut sql = contacts(&address).await;
        let mut source = Source::open(settings(&address, "idle", &["contacts"]))
            .await
            .unwrap();
        through_snapshot(&mut source).await;
        sql.query("CREATE TABLE other (id int); INSERT INTO other SELECT generate_series(1, 1000)")
            .await
            .unwrap();
        let end = value(&mut sql, "SELECT pg_current_wal_flush_lsn()")
            .await
            .unwrap();
        let end: Lsn = end.parse().unwrap();
        while source.durable() < end {
            source.report().await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(50), source.next()).await;
            assert!(
                waited.is_err(),
                "nothing is told of other tables: {waited:?}"
            );
        }
        // One change that nobody confirms holds it.
        sql.query("INSERT INTO contacts VALUES (1)").await.unwrap();
        let (_, lsn) = transaction(&mut source).await;
        sql.query("INSERT INTO other VALUES (1)").await.unwrap();
        for _ in 0..5 {
            source.report().await.unwrap();
            drop(tokio::time::timeout(Duration::from_millis(20), source.next()).await);
        }
        assert!(source.durable() < lsn);
        Ok(())
    });
}

#[test]
fn a_row_too_large_is_passed_over_with_a_word() {
    run("a_row_too_large_is_passed_over_with_a_word", async {
        let cluster = Cluster::shared()?;
        let address = cluster.database("huge").await;
        let mut sql = contacts(&address).await;
        let huge = "INSERT INTO contacts VALUES (1, repeat('x', 17 * 1024 * 1024))";
        sql.query(huge).await.unwrap();
        let mut source = Source::open(settings(&address, "huge", &["contacts"]))
            .await
            .unwrap();
        assert!(matches!(
            next(&mut source).await,
            Event::SnapshotStarted { .. }
        ));
        let is_too_large = |event: &Event| {
            matches!(
                event,
                Event::Unreadable {
                    reason: Unreadable::TooLarge { .. },
                    ..
                }
            )
        };
        assert!(is_too_large(&next(&mut source).await));
        let Event::SnapshotEnded { lsn } = next(&mut source).await else {
            panic!("the snapshot goes on");
        };
        source.confirm(lsn).await.unwrap();
        sql.query("DELETE FROM contacts").await.unwrap();
        sql.query(&format!("{huge}; INSERT INTO contacts VALUES (2)"))
            .await
            .unwrap();
        transaction(&mut source).await;
        let (events, _) = transaction(&mut source).await;
        assert!(is_too_large(&events[0]), "{:?}", events.len());
        assert!(
            matches!(&events[1], Event::Change(change) if change.key == "2" && change.row == 2)
        );
        Ok(())
    });
}
