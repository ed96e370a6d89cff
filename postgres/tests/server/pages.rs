//! Tables read page by page, from a real PostgreSQL.

use serde_json::{Value, json};
use syncline_postgres::{Connection, Pages, Table};

use crate::cluster::Cluster;
use crate::run;

fn table(name: &str) -> Table {
    Table {
        name: name.parse().unwrap(),
        key: "id".to_owned(),
        columns: None,
    }
}

#[test]
fn a_table_is_read_in_the_order_of_its_key_and_goes_on_behind_any_row() {
    run("a_table_is_read_in_the_order_of_its_key", async {
        let cluster = Cluster::shared()?;
        let database = cluster.database("pages").await;
        let mut sql = Connection::open(&database).await.unwrap();
        sql.query(
            "CREATE TABLE numbered (id int PRIMARY KEY, name text, at timestamptz);
             INSERT INTO numbered SELECT n, E'it''s\\ttab ' || n, '2026-11-20 10:00+01' FROM generate_series(1, 25) n",
        )
        .await
        .unwrap();
        let mut pages = Pages::open(&database, &table("numbered"), None)
            .await
            .unwrap();
        let mut keys: Vec<String> = Vec::new();
        let first = loop {
            let page = pages.next(10).await.unwrap();
            assert_eq!(page.unreadable, []);
            keys.extend(page.rows.iter().map(|row| row.key.clone()));
            if page.is_last {
                break page.rows[0].clone();
            }
        };
        let expected: Vec<String> = (1..=25).map(|n: i32| n.to_string()).collect();
        assert_eq!(keys, expected, "by number, not by text");
        assert_eq!(pages.after(), Some("25"));
        assert_eq!(
            serde_json::from_str::<Value>(&first.data).unwrap(),
            json!({"id": 21, "name": "it's\ttab 21", "at": "2026-11-20T09:00:00Z"})
        );
        let mut rest = Pages::open(&database, &table("numbered"), Some("23".to_owned()))
            .await
            .unwrap();
        let rest = rest.next(100).await.unwrap();
        assert_eq!((rest.rows.len(), rest.is_last), (2, true));
        assert!(
            Pages::open(&database, &table("nowhere"), None)
                .await
                .is_err()
        );
        Ok(())
    });
}
