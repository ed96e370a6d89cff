//! A sink against a real PostgreSQL.

use syncline_postgres::{
    Address, Connection, Error, Event, Lsn, Outcome, Refusal, Row, Sink, SinkSettings, SinkTable,
    Source, SourceSettings, Table, Write, WriteOperation,
};

use crate::cluster::{Cluster, value};
use crate::run;

fn settings(address: &Address, origin: &str, deleted: Option<&str>) -> SinkSettings {
    SinkSettings {
        address: address.clone(),
        consumer: "crm".to_owned(),
        shard: 0,
        origin: origin.to_owned(),
        applied: "syncline_applied".parse().unwrap(),
        tables: vec![SinkTable {
            name: "contacts".parse().unwrap(),
            key: "id".to_owned(),
            deleted: deleted.map(str::to_owned),
        }],
    }
}

fn upsert(seq: u64, key: &str, data: &str) -> Write {
    Write {
        seq,
        table: "contacts".parse().unwrap(),
        key: key.to_owned(),
        operation: WriteOperation::Upsert,
        data: data.to_owned(),
    }
}

fn delete(seq: u64, key: &str) -> Write {
    Write {
        operation: WriteOperation::Delete,
        ..upsert(seq, key, "{}")
    }
}

async fn contacts(address: &Address) -> Connection {
    let mut sql = Connection::open(address).await.unwrap();
    sql.query(
        "CREATE TABLE contacts (id bigint PRIMARY KEY, name varchar(5) NOT NULL, score numeric,
            tags text[], extra jsonb, raw bytea, at timestamptz)",
    )
    .await
    .unwrap();
    sql
}

async fn rows(sql: &mut Connection, columns: &str) -> Vec<Vec<String>> {
    let select = format!("SELECT {columns} FROM contacts ORDER BY id");
    let rows: Vec<Row> = sql.query(&select).await.unwrap();
    let text = |value: Option<String>| value.unwrap_or_else(|| "NULL".to_owned());
    rows.into_iter()
        .map(|row| row.into_iter().map(text).collect())
        .collect()
}

#[test]
fn named_columns_are_set_and_others_stay() {
    run("named_columns_are_set_and_others_stay", async {
        let cluster = Cluster::shared()?;
        let address = cluster.database("upserts").await;
        let mut sql = contacts(&address).await;
        let mut sink = Sink::open(settings(&address, "upserts", None))
            .await
            .unwrap();
        let outcomes = sink
            .apply(&[
                upsert(
                    1,
                    "1",
                    r#"{"name":"Ada","score":12345678901234567890.5,"tags":["a,b",null],
                        "extra":{"k":[1]},"raw":"AP8=","at":"2026-11-20T10:00:00.123Z"}"#,
                ),
                // Without the column that may not be null.
                upsert(2, "1", r#"{"score":null}"#),
                upsert(3, "2", r#"{"name":"Eve","score":7}"#),
                upsert(4, "2", r#"{"score":8}"#),
                upsert(5, "3", r#"{"name":"Bob"}"#),
                delete(6, "3"),
                delete(7, "99"),
            ])
            .await
            .unwrap();
        assert!(
            outcomes.iter().all(|outcome| *outcome == Outcome::Applied),
            "{outcomes:?}"
        );
        let all = "id, name, score, tags, extra, raw, at";
        assert_eq!(
            rows(&mut sql, all).await,
            [
                [
                    "1",
                    "Ada",
                    "NULL",
                    "{\"a,b\",NULL}",
                    "{\"k\": [1]}",
                    "\\x00ff",
                    "2026-11-20 10:00:00.123+00"
                ],
                ["2", "Eve", "8", "NULL", "NULL", "NULL", "NULL"],
            ]
        );
        assert_eq!(sink.applied(), 7);
        Ok(())
    });
}

#[test]
fn a_refused_row_harms_no_other_and_is_not_tried_again() {
    run(
        "a_refused_row_harms_no_other_and_is_not_tried_again",
        async {
            let cluster = Cluster::shared()?;
            let address = cluster.database("refusals").await;
            let mut sql = contacts(&address).await;
            let mut sink = Sink::open(settings(&address, "refusals", None))
                .await
                .unwrap();
            let writes = [
                upsert(1, "1", r#"{"name":"Ada"}"#),
                upsert(2, "x", r#"{"name":"Eve"}"#),
                upsert(3, "2", r#"{"name":"too long"}"#),
                upsert(4, "3", r#"{"score":1}"#),
                upsert(5, "1", r#"{"mail":"a@b"}"#),
                upsert(6, "1", r#"{"score":"many"}"#),
                upsert(7, "1", r#"{"name":"a\u0000b"}"#),
                upsert(8, "1", r#"{"score":5}"#),
                upsert(9, "4", r#"{"score":5}"#),
            ];
            let outcomes = sink.apply(&writes).await.unwrap();
            let codes: Vec<String> = outcomes
                .iter()
                .map(|outcome| match outcome {
                    Outcome::Refused(Refusal::Server(error)) => error.code.clone(),
                    Outcome::Refused(refusal) => refusal.to_string(),
                    other => format!("{other:?}"),
                })
                .collect();
            let unknown = "the table has no column mail that can be written";
            assert_eq!(
                codes,
                [
                    "Applied", "22P02", "22001", "23502", unknown, "22P02", "22021", "Applied",
                    "23502"
                ]
            );
            assert_eq!(rows(&mut sql, "id, name, score").await, [["1", "Ada", "5"]]);
            assert_eq!(sink.applied(), 9);
            let again = sink.apply(&writes).await.unwrap();
            assert!(
                again
                    .iter()
                    .all(|outcome| *outcome == Outcome::AlreadyApplied)
            );

            // A column that comes later is found.
            sql.query("ALTER TABLE contacts ADD COLUMN mail text")
                .await
                .unwrap();
            let outcomes = sink
                .apply(&[upsert(10, "1", r#"{"mail":"a@b"}"#)])
                .await
                .unwrap();
            assert_eq!(outcomes, [Outcome::Applied]);
            // One that goes is told per row, then known.
            sql.query("ALTER TABLE contacts DROP COLUMN mail")
                .await
                .unwrap();
            for seq in [11, 12] {
                let outcomes = sink
                    .apply(&[upsert(seq, "1", r#"{"mail":"c@d"}"#)])
                    .await
                    .unwrap();
                assert!(
                    matches!(outcomes[..], [Outcome::Refused(_)]),
                    "{outcomes:?}"
                );
            }
            Ok(())
        },
    );
}

#[test]
fn what_is_delivered_again_is_written_once() {
    run("what_is_delivered_again_is_written_once", async {
        let cluster = Cluster::shared()?;
        let address = cluster.database("once").await;
        let mut sql = contacts(&address).await;
        sql.query(
            "CREATE TABLE audit (n serial); CREATE FUNCTION note() RETURNS trigger AS
            'BEGIN INSERT INTO audit DEFAULT VALUES; RETURN NULL; END' LANGUAGE plpgsql;
            CREATE TRIGGER note AFTER INSERT OR UPDATE ON contacts
            FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await
        .unwrap();
        let writes: Vec<Write> = (1..=2500)
            .map(|seq| {
                upsert(
                    seq,
                    &(seq % 100).to_string(),
                    &format!(r#"{{"name":"n","score":{seq}}}"#),
                )
            })
            .collect();
        let mut sink = Sink::open(settings(&address, "once", None)).await.unwrap();
        sink.apply(&writes[..1200]).await.unwrap();
        // Killed; what it had written is not known to whoever comes next.
        drop(sink);
        let mut sink = loop {
            match Sink::open(settings(&address, "once", None)).await {
                Ok(sink) => break sink,
                Err(error) if error.is_transient() => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(sink.applied(), 1200);
        let outcomes = sink.apply(&writes).await.unwrap();
        let again = outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::AlreadyApplied);
        assert_eq!(again.count(), 1200);
        let written = value(&mut sql, "SELECT count(*) FROM audit").await;
        assert_eq!(written.as_deref(), Some("2500"));
        Ok(())
    });
}

#[test]
fn a_second_sink_of_the_same_consumer_is_noticed_before_it_writes() {
    run(
        "a_second_sink_of_the_same_consumer_is_noticed_before_it_writes",
        async {
            let cluster = Cluster::shared()?;
            let address = cluster.database("fenced").await;
            let mut sql = contacts(&address).await;
            let mut first = Sink::open(settings(&address, "fenced_1", None))
                .await
                .unwrap();
            // The same origin cannot be taken twice at all.
            let error = Sink::open(settings(&address, "fenced_1", None))
                .await
                .unwrap_err();
            assert!(error.is_transient(), "{error}");
            let mut second = Sink::open(settings(&address, "fenced_2", None))
                .await
                .unwrap();
            second
                .apply(&[upsert(1, "1", r#"{"name":"new"}"#)])
                .await
                .unwrap();
            let error = first
                .apply(&[upsert(1, "1", r#"{"name":"old"}"#)])
                .await
                .unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Fenced {
                        expected: 0,
                        found: 1,
                        ..
                    }
                ),
                "{error}"
            );
            assert_eq!(rows(&mut sql, "name").await, [["new"]]);
            Ok(())
        },
    );
}

#[test]
fn rows_can_be_marked_as_deleted_and_come_back() {
    run("rows_can_be_marked_as_deleted_and_come_back", async {
        let cluster = Cluster::shared()?;
        let address = cluster.database("marks").await;
        let mut sql = contacts(&address).await;
        sql.query("ALTER TABLE contacts ADD COLUMN gone timestamptz")
            .await
            .unwrap();
        let mut sink = Sink::open(settings(&address, "marks", Some("gone")))
            .await
            .unwrap();
        sink.apply(&[upsert(1, "1", r#"{"name":"Ada"}"#), delete(2, "1")])
            .await
            .unwrap();
        assert_eq!(rows(&mut sql, "name, gone IS NULL").await, [["Ada", "f"]]);
        sink.apply(&[upsert(3, "1", r#"{"score":1}"#)])
            .await
            .unwrap();
        assert_eq!(rows(&mut sql, "name, gone IS NULL").await, [["Ada", "t"]]);
        Ok(())
    });
}

#[test]
fn tables_that_cannot_be_written_are_refused_at_the_start() {
    run(
        "tables_that_cannot_be_written_are_refused_at_the_start",
        async {
            let cluster = Cluster::shared()?;
            let address = cluster.database("unfit").await;
            let mut sql = Connection::open(&address).await.unwrap();
            let open = async || {
                Sink::open(settings(&address, "unfit", None))
                    .await
                    .unwrap_err()
            };
            assert!(matches!(open().await, Error::NoColumn { .. }));
            sql.query("CREATE TABLE contacts (id int, UNIQUE (id) DEFERRABLE)")
                .await
                .unwrap();
            sql.query("ALTER TABLE contacts DROP CONSTRAINT contacts_id_key")
                .await
                .unwrap();
            let mut error = open().await;
            while error.is_transient() {
                error = open().await;
            }
            assert!(matches!(error, Error::KeyNotUnique { .. }), "{error}");
            Ok(())
        },
    );
}

#[test]
fn our_own_writes_do_not_come_back_as_changes() {
    run("our_own_writes_do_not_come_back_as_changes", async {
        let cluster = Cluster::shared()?;
        let address = cluster.database("echo").await;
        let mut sql = contacts(&address).await;
        let source_settings = SourceSettings {
            address: address.clone(),
            slot: "echo".to_owned(),
            publication: "echo".to_owned(),
            tables: vec![Table {
                name: "contacts".parse().unwrap(),
                key: "id".to_owned(),
                columns: None,
            }],
            own_origins: vec!["echo".to_owned()],
        };
        let mut source = Source::open(source_settings).await.unwrap();
        let mut sink = Sink::open(settings(&address, "echo", None)).await.unwrap();
        loop {
            if let Event::SnapshotEnded { lsn } = source.next().await.unwrap() {
                source.confirm(lsn).await.unwrap();
                break;
            }
        }
        let ours = [
            upsert(1, "1", r#"{"name":"ours"}"#),
            upsert(2, "2", r#"{"name":"ours"}"#),
        ];
        sink.apply(&ours).await.unwrap();
        sql.query("UPDATE contacts SET name = 'their' WHERE id = 1")
            .await
            .unwrap();
        // Refused and rolled back, then a write alone: still ours.
        let ours = [upsert(3, "x", "{}"), upsert(4, "2", r#"{"name":"again"}"#)];
        sink.apply(&ours).await.unwrap();
        sql.query("UPDATE contacts SET score = 1 WHERE id = 2")
            .await
            .unwrap();
        let mut told = Vec::new();
        let mut last = Lsn::default();
        while told.len() < 2 {
            match source.next().await.unwrap() {
                Event::Change(change) => told.push((change.key, change.data)),
                Event::Committed { lsn } => last = lsn,
                other => panic!("unexpected: {other:?}"),
            }
        }
        assert!(last > Lsn::default());
        assert_eq!(told[0].0, "1");
        assert!(told[0].1.contains(r#""name":"their""#), "{}", told[0].1);
        assert!(
            told[1].1.contains(r#""name":"again","score":1"#),
            "{}",
            told[1].1
        );
        Ok(())
    });
}
