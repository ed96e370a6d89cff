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
        Stage::with(name, database, || Provider::start(&[]))
    }

    fn with(name: &str, database: &str, provider: impl FnOnce() -> Provider) -> Option<Stage> {
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
            provider: provider(),
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
        let account = Config::new().account("crm", &self.provider.url(), "");
        account.shards(2).with(&self.tables(direction))
    }

    /// The sections that say which tables are System A's.
    fn tables(&self, direction: &str) -> String {
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
        format!(
            "[system_a.postgres]\nurl = \"file:{}\"\nslot = \"{}\"\n\
             [objects.contact]\ndirection = \"{direction}\"\n\
             source = {{ table = \"public.contacts\", key = \"id\" }}\n",
            file.display(),
            self.database.database,
        )
    }

    /// A CRM in place of the plain account.
    fn crm(&self) -> Config {
        self.crm_and(&self.tables("both"), "")
    }

    /// The same, where either side marks what is deleted.
    fn crm_with_soft_deletes(&self) -> Config {
        let tables = self.tables("both").replace(
            "key = \"id\" }",
            "key = \"id\", deleted = \"gone_at\" }\ndeletes = \"soft\"",
        );
        self.crm_and(&tables, "deleted = { remote = \"is_gone\" }\n")
    }

    fn crm_and(&self, tables: &str, more: &str) -> Config {
        let account = format!(
            "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\nsettle = \"300ms\"\n\
             poll = {{ interval = \"500ms\" }}\n\
             auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n",
            self.provider.url()
        );
        let mapping = "[objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"key\"\n";
        let fields = "fields = [{ local = \"name\", remote = \"lastname\" }, { local = \"city\", remote = \"city\" }]\n";
        let config = Config::new().shards(2).with(&account);
        config
            .with(tables)
            .with(&format!("{mapping}{more}{fields}"))
    }

    /// What the CRM has of a contact of System A's.
    fn in_crm(&self, id: &str) -> Option<Value> {
        let records = self.provider.records();
        records.get(&format!("contacts/{id}")).cloned()
    }

    /// The first column of the first row.
    fn value(&self, query: &str) -> Option<String> {
        block_on(async {
            let connection = Connection::open(&self.database).await;
            let mut connection = connection.expect("the server runs");
            let value = cluster::value(&mut connection, query).await;
            connection.close().await;
            value
        })
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

#[test]
fn what_a_crm_changes_is_in_the_table_and_our_own_write_does_not_come_back() {
    let crm = || Provider::start_as("hubspot", &["--token", "t-1", "--key", "contacts.key"]);
    let Some(stage) = Stage::with("what_a_crm_changes", "sink_of_a_crm", crm) else {
        return;
    };
    stage.sql(TABLE);
    let mut node = Node::start(stage.crm());

    let fields = json!({"lastname": "Lovelace", "city": "London"});
    let made = stage.provider.make("contacts", &fields);
    let row = format!("SELECT name || ', ' || city FROM contacts WHERE id = 'crm:{made}'");
    until("the row is there", || {
        (stage.value(&row)? == "Lovelace, London").then_some(())
    });
    node.kill();
    node.restart();
    assert!(node.drain().is_empty());
    let writes = || {
        let calls = stage.provider.journal();
        let writes = calls.into_iter().filter(|call| {
            call.is_write() && !call.path.contains("/search") && !call.path.contains("/batch/read")
        });
        writes.map(|call| call.body.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(writes(), Vec::<String>::new());

    // System A's own change of that row goes there, once, and nothing of it returns.
    stage.sql(&format!(
        "UPDATE contacts SET city = 'Paris' WHERE id = 'crm:{made}'"
    ));
    until("the CRM has it", || {
        (writes().iter().any(|body| body.contains("Paris"))).then_some(())
    });
    assert!(node.drain().is_empty());
    assert_eq!(writes().len(), 1, "{:?}", writes());
    assert_eq!(stage.value(&row).as_deref(), Some("Lovelace, Paris"));
}

#[test]
fn with_soft_deletes_both_sides_mark_what_either_deletes_and_nobody_removes_it() {
    let crm = || Provider::start_as("hubspot", &["--token", "t-1", "--key", "contacts.key"]);
    let Some(stage) = Stage::with("with_soft_deletes", "soft", crm) else {
        return;
    };
    stage.sql(
        "CREATE TABLE contacts (id text PRIMARY KEY, name text, city text, gone_at timestamptz);
         ALTER TABLE contacts REPLICA IDENTITY FULL;
         INSERT INTO contacts VALUES ('c-1', 'Ada', 'London', NULL), ('c-0', 'Old', NULL, now())",
    );
    let mut node = Node::start(stage.crm_with_soft_deletes());
    let mark = || stage.in_crm("c-1").map(|fields| fields["is_gone"].clone());
    until("the row is there", || stage.in_crm("c-1"));
    stage.sql("UPDATE contacts SET gone_at = now() WHERE id = 'c-1'");
    until("the CRM's record is marked", || {
        (mark()? == json!("true")).then_some(())
    });
    node.kill();
    node.restart();
    assert!(node.drain().is_empty());

    let id = stage.provider.ids()["contacts/c-1"].clone();
    let edit = |fields: Value| {
        let edit = json!({"object": "contacts", "operation": "update", "id": id, "fields": fields});
        stage.provider.edit(&edit)
    };
    let gone = || {
        let row = "SELECT (gone_at IS NOT NULL)::text FROM contacts WHERE id = 'c-1'";
        stage.value(row)
    };
    edit(json!({"is_gone": "false"}));
    until("the row is back", || (gone()? == "false").then_some(()));
    edit(json!({"is_gone": "true", "city": "Rome"}));
    until("the row is marked", || (gone()? == "true").then_some(()));
    stage.sql("UPDATE contacts SET gone_at = NULL, name = 'Bea' WHERE id = 'c-1'");
    until("the CRM's record is back", || {
        let fields = stage.in_crm("c-1")?;
        (fields["is_gone"] == "false" && fields["lastname"] == "Bea").then_some(())
    });
    assert!(node.drain().is_empty());
    let calls = stage.provider.journal();
    assert!(calls.iter().all(|call| call.method != "DELETE"));
    assert!(calls.iter().all(|call| !call.path.ends_with("/archive")));
    assert_eq!(
        stage.provider.records().len(),
        1,
        "a row that was marked from the beginning"
    );
}

#[test]
fn rows_that_nobody_told_are_found_by_a_walk() {
    let crm = || Provider::start_as("hubspot", &["--token", "t-1", "--key", "contacts.key"]);
    let Some(stage) = Stage::with("rows_that_nobody_told", "walked", crm) else {
        return;
    };
    stage.sql(TABLE);
    stage.sql("INSERT INTO contacts VALUES ('c-1', 'Ada', 'London')");
    let mut node = Node::start(stage.crm());
    until("the row of the snapshot is there", || stage.in_crm("c-1"));
    assert!(node.drain().is_empty());
    node.kill();
    // Written as if by us, which the source passes over.
    stage.sql(
        "SELECT pg_replication_origin_create('walked_sink')
            WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'walked_sink')",
    );
    stage.sql(
        "SELECT pg_replication_origin_session_setup('walked_sink');
         INSERT INTO contacts VALUES ('c-2', 'Bob', 'Rome');
         UPDATE contacts SET city = 'Paris' WHERE id = 'c-1'",
    );
    node.restart();
    let walk = |path: &str, more: &str| {
        let body = format!("{{\"provider\":\"crm\",\"object\":\"contact\"{more}}}");
        let begun = node.post(path, body);
        assert_eq!(begun.status, 202, "{}", begun.json());
        let id = begun.json()["id"].as_str().expect("an id").to_owned();
        until("the walk ends", || {
            let walk = node.get(&format!("/v1/walks/{id}")).json();
            (walk["state"] != "running").then_some(walk)
        })
    };
    let filled = walk("/v1/backfill", "");
    assert_eq!(
        (&filled["state"], &filled["rows"]),
        (&json!("done"), &json!(2)),
        "{filled}"
    );
    until("the row that was never told is there", || {
        stage.in_crm("c-2")
    });
    let city = |id: &str| stage.in_crm(id).map(|fields| fields["city"].clone());
    assert_eq!(
        city("c-1"),
        Some(json!("London")),
        "a record that is known is passed over"
    );
    assert!(node.drain().is_empty());

    // The account's list lags behind its records.
    let found = until("the account lists both records", || {
        let found = walk("/v1/reconcile", "");
        (found["report"]["missing_there"] == 0).then_some(found)
    });
    assert_eq!(found["report"]["differs"], 1, "{found}");
    assert_eq!(found["report"]["fields"], json!({"/city": 1}), "{found}");
    let repaired = walk("/v1/reconcile", ",\"repair\":true");
    assert_eq!(repaired["report"]["repaired"], 1, "{repaired}");
    until("the CRM has the row's city", || {
        (city("c-1")? == "Paris").then_some(())
    });
    assert!(node.drain().is_empty());
}
