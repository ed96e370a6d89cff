//! System A is a PostgreSQL: what its tables say reaches an account, through restarts and kills.

extern crate postgres as syncline_postgres;

#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the connector's own tests use the rest of it"
)]
#[path = "../../postgres/tests/server/cluster.rs"]
mod cluster;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use cluster::Cluster;
use postgres::{Address, Connection, Host};
use serde_json::{Value, json};

use syncline_tests::process::{Config, Node, Provider, Violations, until};
use tempfile::TempDir;

/// A table of contacts in a database of its own, and a node that follows it.
struct Stage {
    cluster: Arc<Cluster>,
    database: Address,
    provider: Provider,
    folder: TempDir,
}

impl Stage {
    fn new(name: &str, database: &str) -> Option<Stage> {
        let cluster = match Cluster::shared() {
            Ok(cluster) => cluster,
            Err(unavailable) => {
                unavailable.skip(name);
                return None;
            }
        };
        let database = block_on(cluster.database(database));
        Some(Stage {
            cluster,
            database,
            provider: Provider::start(&[]),
            folder: tempfile::tempdir().expect("a folder"),
        })
    }

    fn sql(&self, statements: &str) {
        block_on(async {
            let mut connection = Connection::open(&self.database)
                .await
                .expect("the server runs");
            connection.query(statements).await.expect("it is SQL");
            connection.close().await;
        });
    }

    fn config(&self, direction: &str) -> Config {
        let Host::Socket(folder) = &self.database.host else {
            panic!("the cluster is reached by its socket");
        };
        let url = format!(
            "postgres://postgres@localhost:{}/{}?host={}",
            self.database.port,
            self.database.database,
            folder.display()
        );
        let file = self.folder.path().join("url");
        fs::write(&file, url).expect("our folder");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our file");
        Config::new()
            .shards(2)
            .account("crm", &self.provider.url(), "")
            .with(&format!(
                "[system_a.postgres]\nurl = \"file:{}\"\nslot = \"{}\"\n\
                 [objects.contact]\ndirection = \"{direction}\"\n\
                 source = {{ table = \"public.contacts\", key = \"id\" }}\n",
                file.display(),
                self.database.database,
            ))
    }

    /// What the account has of a contact.
    fn there(&self, id: &str) -> Option<Value> {
        let records = self.provider.records();
        records.get(&format!("contact/{id}")).cloned()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an event loop")
        .block_on(future)
}

const TABLE: &str = "CREATE TABLE contacts (id text PRIMARY KEY, name text, city text);
     ALTER TABLE contacts REPLICA IDENTITY FULL";

#[test]
fn rows_that_are_there_and_rows_that_change_reach_the_account() {
    let Some(stage) = Stage::new("rows_that_are_there", "rows") else {
        return;
    };
    stage.sql(TABLE);
    stage.sql("INSERT INTO contacts VALUES ('c-1', 'Ada', 'London'), ('c-2', 'Bob', NULL)");
    let node = Node::start(stage.config("out"));
    until("the rows of the snapshot are there", || {
        (stage.there("c-1")? == json!({"name": "Ada", "city": "London"})).then_some(())?;
        stage.there("c-2").map(drop)
    });
    stage.sql(
        "UPDATE contacts SET city = 'Paris' WHERE id = 'c-1';
         INSERT INTO contacts VALUES ('c-3', 'Grace', 'New York');
         DELETE FROM contacts WHERE id = 'c-2'",
    );
    until("all three changes are there", || {
        let moved = stage.there("c-1")? == json!({"name": "Ada", "city": "Paris"});
        (moved && stage.there("c-2").is_none()).then_some(())?;
        stage.there("c-3").map(drop)
    });
    let calls = stage.provider.journal();
    let update = calls
        .iter()
        .rfind(|call| call.path.ends_with("/c-1") || call.method == "PATCH");
    let body = update.expect("there was an update").body.to_string();
    assert!(body.contains("Paris") && !body.contains("Ada"), "{body}");
    assert!(node.drain().is_empty());
}

#[test]
fn kills_lose_no_row_and_keep_their_order() {
    let Some(stage) = Stage::new("kills_lose_no_row", "kills") else {
        return;
    };
    stage.sql(TABLE);
    let mut node = Node::start(stage.config("out"));
    for round in 0..5 {
        let rows: Vec<String> = (0..100)
            .map(|n| format!("('c-{}', 'n{round}', NULL)", n % 40 + n / 40 * 100))
            .collect();
        for row in rows {
            stage.sql(&format!(
                "INSERT INTO contacts VALUES {row} ON CONFLICT (id) DO UPDATE SET name = excluded.name"
            ));
        }
        node.kill();
        node.restart();
    }
    stage.sql("UPDATE contacts SET city = 'end'");
    let ids: Vec<String> = (0..100)
        .map(|n| format!("c-{}", n % 40 + n / 40 * 100))
        .collect();
    until("the account has what the table has", || {
        let records = stage.provider.records();
        ids.iter()
            .all(|id| {
                records.get(&format!("contact/{id}")) == Some(&json!({"name": "n4", "city": "end"}))
            })
            .then_some(())
    });
    assert_eq!(stage.provider.violations(), Violations::default());
    drop(stage.cluster);
}
