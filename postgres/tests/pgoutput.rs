//! The decoder of `pgoutput`: golden bytes, and no bytes that it cannot bear.

use proptest::prelude::*;
use syncline_postgres::pgoutput::{
    Message, Old, Relation, RelationColumn, ReplicaIdentity, Tuple, Value,
};
use syncline_postgres::{DecodeError, Lsn};

/// What PostgreSQL 15.18 sent, with `proto_version '1'` and `messages 'true'`, for
///
/// ```sql
/// -- under the replication origin syncline
/// INSERT INTO contacts VALUES (1, 'Ada', 'ok', repeat('x', 3000));   -- its row left out below
/// -- under none
/// BEGIN; UPDATE contacts SET name = NULL; UPDATE contacts SET id = 2; DELETE FROM contacts;
/// INSERT INTO whole VALUES (7, 1.5); UPDATE whole SET n = 2; DELETE FROM whole;
/// TRUNCATE contacts, whole RESTART IDENTITY CASCADE;
/// SELECT pg_logical_emit_message(true, 'app', 'hi'); COMMIT;
/// ```
const RECORDED: [(&str, &str); 16] = [
    (
        "42000000000152faa0000303c52094f26c000002db",
        "begin 0/152FAA0 at 848570120204908 of 731",
    ),
    ("4f000000000000000073796e636c696e6500", "origin syncline"),
    (
        "59000040017075626c6963006d6f6f6400",
        "type 16385 public.mood",
    ),
    (
        "52000040057075626c696300636f6e7461637473006400040169640000000014ffffffff006e616d650000\
         000019ffffffff006d0000004001ffffffff006269670000000019ffffffff",
        "relation 16389 public.contacts Default: *id 20, name 25, m 16385, big 25",
    ),
    (
        "4300000000000152faa0000000000152fae8000303c52094f26c",
        "commit 0/152FAA0 until 0/152FAE8",
    ),
    (
        "55000040054e00047400000001316e74000000026f6b75",
        "update 16389: 1 null ok unchanged",
    ),
    (
        "55000040054b00047400000001316e6e6e4e00047400000001326e74000000026f6b75",
        "update 16389 key (1 null null null): 2 null ok unchanged",
    ),
    (
        "44000040054b00047400000001326e6e6e",
        "delete 16389 key (2 null null null)",
    ),
    (
        "520000400c7075626c69630077686f6c65006600020169640000000017ffffffff016e00000006a4000600\
         06",
        "relation 16396 public.whole Full: *id 23, *n 1700",
    ),
    (
        "490000400c4e00027400000001377400000004312e3530",
        "insert 16396: 7 1.50",
    ),
    (
        "550000400c4f00027400000001377400000004312e35304e00027400000001377400000004322e3030",
        "update 16396 all (7 1.50): 7 2.00",
    ),
    (
        "440000400c4f00027400000001377400000004322e3030",
        "delete 16396 all (7 2.00)",
    ),
    (
        "540000000203000040050000400c",
        "truncate [16389, 16396] true true",
    ),
    (
        "4d010000000001530c6861707000000000026869",
        "message true 0/1530C68 app hi",
    ),
    (
        "420000000001530c68000303c5209926df000002dc",
        "begin 0/1530C68 at 848570120480479 of 732",
    ),
    (
        "43000000000001530c680000000001530e10000303c5209926df",
        "commit 0/1530C68 until 0/1530E10",
    ),
];

#[test]
fn what_a_server_sent_is_read_as_it_was_meant() {
    for (hex, expected) in RECORDED {
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(told(&message), expected, "{hex}");
        for cut in 0..bytes.len() {
            assert!(
                Message::decode(&bytes[..cut]).is_err(),
                "{hex} cut at {cut}"
            );
        }
    }
}

fn told(message: &Message<'_>) -> String {
    let row = |tuple: &Tuple<'_>| {
        let value = |value| match value {
            Value::Null => "null".to_owned(),
            Value::Unchanged => "unchanged".to_owned(),
            Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        };
        tuple.values().map(value).collect::<Vec<_>>().join(" ")
    };
    let before = |old: &Old<'_>| match old {
        Old::Key(tuple) => format!("key ({})", row(tuple)),
        Old::Full(tuple) => format!("all ({})", row(tuple)),
    };
    match message {
        Message::Begin {
            commit_lsn,
            committed_at_us,
            xid,
        } => format!("begin {commit_lsn} at {committed_at_us} of {xid}"),
        Message::Commit {
            commit_lsn,
            end_lsn,
            ..
        } => format!("commit {commit_lsn} until {end_lsn}"),
        Message::Origin { name, .. } => format!("origin {name}"),
        Message::Relation(relation) => {
            let column = |column: &RelationColumn| {
                let mark = if column.in_identity { "*" } else { "" };
                format!("{mark}{} {}", column.name, column.type_oid)
            };
            let columns: Vec<String> = relation.columns.iter().map(column).collect();
            format!(
                "relation {} {}.{} {:?}: {}",
                relation.oid,
                relation.schema,
                relation.name,
                relation.identity,
                columns.join(", ")
            )
        }
        Message::Type { oid, schema, name } => format!("type {oid} {schema}.{name}"),
        Message::Insert { relation, new } => format!("insert {relation}: {}", row(new)),
        Message::Update { relation, old, new } => {
            let old = old.as_ref().map(|old| format!(" {}", before(old)));
            format!("update {relation}{}: {}", old.unwrap_or_default(), row(new))
        }
        Message::Delete { relation, old } => format!("delete {relation} {}", before(old)),
        Message::Truncate {
            relations,
            cascade,
            restart_identity,
        } => format!("truncate {relations:?} {cascade} {restart_identity}"),
        Message::Logical {
            transactional,
            lsn,
            prefix,
            content,
        } => {
            let content = String::from_utf8_lossy(content);
            format!("message {transactional} {lsn} {prefix} {content}")
        }
    }
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn values<'a>(tuple: &Tuple<'a>) -> Vec<Value<'a>> {
    tuple.values().collect()
}

#[test]
fn a_transactions_frame_is_read() {
    let begin = bytes(&[
        b"B",
        &0x16_B374_D848_u64.to_be_bytes(),
        &5_i64.to_be_bytes(),
        &[0, 0, 2, 0xE5],
    ]);
    assert_eq!(
        Message::decode(&begin),
        Ok(Message::Begin {
            commit_lsn: Lsn(0x16_B374_D848),
            committed_at_us: 5,
            xid: 741
        })
    );
    let commit = bytes(&[
        b"C\0",
        &7_u64.to_be_bytes(),
        &9_u64.to_be_bytes(),
        &(-1_i64).to_be_bytes(),
    ]);
    assert_eq!(
        Message::decode(&commit),
        Ok(Message::Commit {
            commit_lsn: Lsn(7),
            end_lsn: Lsn(9),
            committed_at_us: -1
        })
    );
    let origin = bytes(&[b"O", &7_u64.to_be_bytes(), b"syncline\0"]);
    assert_eq!(
        Message::decode(&origin),
        Ok(Message::Origin {
            lsn: Lsn(7),
            name: "syncline"
        })
    );
}

#[test]
fn a_relation_and_a_type_are_read() {
    let relation = b"R\0\0\x40\x01public\0contacts\0f\0\x02\
        \x01id\0\0\0\0\x14\xff\xff\xff\xff\
        \0email\0\0\0\x04\x13\0\0\0\x44";
    let column = |name: &str, in_identity, type_oid, type_modifier| RelationColumn {
        name: name.to_owned(),
        in_identity,
        type_oid,
        type_modifier,
    };
    assert_eq!(
        Message::decode(relation),
        Ok(Message::Relation(Relation {
            oid: 0x4001,
            schema: "public".to_owned(),
            name: "contacts".to_owned(),
            identity: ReplicaIdentity::Full,
            columns: vec![column("id", true, 20, -1), column("email", false, 1043, 68)],
        }))
    );
    assert_eq!(
        Message::decode(b"Y\0\0\x40\x05public\0mood\0"),
        Ok(Message::Type {
            oid: 0x4005,
            schema: "public",
            name: "mood"
        })
    );
}

#[test]
fn rows_are_read_with_null_and_unchanged_apart() {
    let insert = b"I\0\0\x40\x01N\0\x03t\0\0\0\x0242nt\0\0\0\0";
    let Ok(Message::Insert { relation, new }) = Message::decode(insert) else {
        panic!("not an insert");
    };
    assert_eq!((relation, new.len()), (0x4001, 3));
    assert_eq!(
        values(&new),
        [Value::Text(b"42"), Value::Null, Value::Text(b"")]
    );

    let update = b"U\0\0\x40\x01O\0\x01t\0\0\0\x01aN\0\x01u";
    let Ok(Message::Update { old, new, .. }) = Message::decode(update) else {
        panic!("not an update");
    };
    let Some(Old::Full(old)) = old else {
        panic!("not all of the row before");
    };
    assert_eq!(values(&old), [Value::Text(b"a")]);
    assert_eq!(values(&new), [Value::Unchanged]);

    let short = b"U\0\0\x40\x01N\0\0";
    assert!(matches!(
        Message::decode(short),
        Ok(Message::Update { old: None, new, .. }) if new.is_empty()
    ));

    let delete = b"D\0\0\x40\x01K\0\x01t\0\0\0\x017";
    let Ok(Message::Delete { old, .. }) = Message::decode(delete) else {
        panic!("not a delete");
    };
    assert!(matches!(old, Old::Key(_)));
    assert_eq!(values(&old.tuple()), [Value::Text(b"7")]);
}

#[test]
fn truncations_and_messages_of_applications_are_read() {
    assert_eq!(
        Message::decode(b"T\0\0\0\x02\x03\0\0\0\x01\0\0\0\x02"),
        Ok(Message::Truncate {
            relations: vec![1, 2],
            cascade: true,
            restart_identity: true
        })
    );
    assert_eq!(
        Message::decode(b"M\x01\0\0\0\0\0\0\0\x09app\0\0\0\0\x02hi"),
        Ok(Message::Logical {
            transactional: true,
            lsn: Lsn(9),
            prefix: "app",
            content: b"hi"
        })
    );
}

#[test]
fn broken_messages_are_refused() {
    let broken: [(&[u8], DecodeError); 8] = [
        (b"", DecodeError::Short),
        (b"?", DecodeError::Tag(b'?')),
        (b"O\0\0\0\0\0\0\0\0name without an end", DecodeError::Short),
        (b"Y\0\0\0\x01\xff\0\0", DecodeError::NotUtf8),
        (
            b"I\0\0\0\x01N\0\x01b\0\0\0\0",
            DecodeError::Field("the value's mark"),
        ),
        (b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff", DecodeError::Short),
        (b"I\0\0\0\x01N\0\x01nn", DecodeError::Long),
        (b"T\xff\xff\xff\xff\0\0\0\0\x01", DecodeError::Short),
    ];
    for (bytes, error) in broken {
        assert_eq!(Message::decode(bytes), Err(error), "{bytes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_the_decoder_panic(
        tag in prop::sample::select(b"BCORYIUDTM?".to_vec()),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [&[tag], &rest[..]].concat();
        if let Ok(Message::Insert { new, .. } | Message::Update { new, .. }) = Message::decode(&bytes) {
            prop_assert_eq!(new.values().count(), new.len());
        }
    }

    #[test]
    fn rows_come_out_as_they_went_in(
        row in prop::collection::vec(
            prop_oneof![
                Just(None),
                Just(Some(None)),
                prop::collection::vec(any::<u8>(), 0..20).prop_map(|text| Some(Some(text))),
            ],
            0..20,
        ),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = b"I\0\0\0\x01N".to_vec();
        bytes.extend((row.len() as u16).to_be_bytes());
        for value in &row {
            match value {
                None => bytes.push(b'n'),
                Some(None) => bytes.push(b'u'),
                Some(Some(text)) => {
                    bytes.push(b't');
                    bytes.extend((text.len() as u32).to_be_bytes());
                    bytes.extend(text);
                }
            }
        }
        let expected: Vec<Value<'_>> = row
            .iter()
            .map(|value| match value {
                None => Value::Null,
                Some(None) => Value::Unchanged,
                Some(Some(text)) => Value::Text(text),
            })
            .collect();
        let Ok(Message::Insert { new, .. }) = Message::decode(&bytes) else {
            panic!("not an insert");
        };
        prop_assert_eq!(values(&new), expected);
        let cut = cut.index(bytes.len());
        prop_assert!(Message::decode(&bytes[..cut]).is_err());
    }
}
