//! A PostgreSQL and two CRMs side by side: people edit in all three, the node is killed now and then,
//! and in the end all three show the same.
//!
//! `SYNCLINE_SECONDS=600 cargo test -p syncline-tests --test three_systems -- --nocapture` is the
//! long run.

extern crate postgres as syncline_postgres;

#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the connector's own tests use the rest of it"
)]
#[path = "../../postgres/tests/server/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use cluster::Cluster;
use postgres::{Address, Connection, Host};
use serde_json::{Value, json};

use syncline_tests::process::{
    Config, Dice, Node, PATIENCE, Provider, Violations, request, until, wait,
};

/// Between two edits.
const PACE: Duration = Duration::from_millis(40);
/// From one kill to the next.
const KILL_EVERY: Duration = Duration::from_secs(20);
const RECORDS_MAX: usize = 200;
/// Longer than an account's index lags and a list's interval together: what is to come has come.
const QUIET: Duration = Duration::from_secs(6);

const OBJECTS: &str = r#"
[objects.contact]
direction = "both"
source = { table = "public.contacts", key = "id" }
[objects.contact.to.salesforce]
remote = "Contact"
external_id = "External_Id__c"
fields = [
  { local = "last_name", remote = "LastName" },
  { local = "title", remote = "Title" },
  { local = "phone", remote = "Phone" },
]
[objects.contact.to.hubspot]
remote = "contacts"
external_id = "external_id"
fields = [
  { local = "last_name", remote = "lastname" },
  { local = "title", remote = "jobtitle" },
  { local = "phone", remote = "phone" },
]
"#;

const LOCAL: [&str; 3] = ["last_name", "title", "phone"];

/// A CRM, and what its people call things there.
struct Crm {
    name: &'static str,
    object: &'static str,
    key: &'static str,
    fields: [&'static str; 3],
    provider: Provider,
}

impl Crm {
    fn at(&self) -> SocketAddr {
        let url = self.provider.url();
        let at = url.trim_start_matches("http://").parse();
        at.expect("an address")
    }

    /// Its live contacts: id, our key, fields under our names.
    fn contacts(&self) -> Vec<(String, String, Row)> {
        let shown = request(self.at(), "GET", "/__mock/records", b"");
        let shown = shown.expect("it answers").json();
        let records = shown["records"].as_array().expect("a list").iter();
        records
            .filter(|record| record["object"] == self.object)
            .map(|record| {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let fields = &record["fields"];
                let row = self.fields.map(|name| text(&fields[name]));
                let id = text(&record["id"]).unwrap_or_default();
                let key = text(&fields[self.key]).filter(|key| !key.is_empty());
                let key = key.unwrap_or_else(|| format!("{}:{id}", self.name));
                (id, key, row)
            })
            .collect()
    }

    fn edit(&self, edit: &Value) {
        // Two people may have had the same record in hand: then one finds it gone.
        drop(request(
            self.at(),
            "POST",
            "/__mock/edit",
            edit.to_string().as_bytes(),
        ));
    }
}

/// The fields of [`LOCAL`]; an empty text is none.
type Row = [Option<String>; 3];

fn rows(crm: &Crm) -> BTreeMap<String, Row> {
    let contacts = crm.contacts().into_iter();
    contacts
        .map(|(_, key, row)| {
            (
                key,
                row.map(|value| value.filter(|value| !value.is_empty())),
            )
        })
        .collect()
}

/// System A.
struct Tables {
    database: Address,
}

impl Tables {
    fn query(&self, statements: &str) -> Vec<Vec<Option<String>>> {
        let event_loop = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("an event loop");
        event_loop.block_on(async {
            let mut connection = Connection::open(&self.database)
                .await
                .expect("the server runs");
            let rows = connection.query(statements).await.expect("it is SQL");
            connection.close().await;
            rows.into_iter()
                .map(|row| row.into_iter().collect())
                .collect()
        })
    }

    fn rows(&self) -> BTreeMap<String, Row> {
        let rows = self.query("SELECT id, last_name, title, phone FROM contacts");
        rows.into_iter()
            .map(|row| {
                let mut values = row.into_iter();
                let id = values.next().flatten().expect("the key is not null");
                let row = LOCAL.map(|_| values.next().flatten().filter(|value| !value.is_empty()));
                (id, row)
            })
            .collect()
    }
}

fn url_of(database: &Address) -> String {
    let Host::Socket(folder) = &database.host else {
        panic!("the cluster is reached by its socket");
    };
    format!(
        "postgres://postgres@localhost:{}/{}?host={}",
        database.port,
        database.database,
        folder.display()
    )
}

fn account(crm: &Crm, token: &str) -> String {
    format!(
        "[providers.{0}]\ntype = \"{0}\"\nbase_url = \"{1}\"\nsettle = \"500ms\"\n\
         poll = {{ interval = \"500ms\" }}\n\
         [providers.{0}.auth]\nkind = \"bearer\"\ntoken = \"exec:echo {token}\"\n",
        crm.name,
        crm.provider.url()
    )
}

/// What people did.
#[derive(Debug, Default)]
struct Tally {
    edits: u64,
    kills: u64,
}

struct Stage {
    tables: Tables,
    crms: [Crm; 2],
    dice: Dice,
    tally: Tally,
}

impl Stage {
    fn one_in(&mut self, of: u64) -> bool {
        self.dice.below(of) == 0
    }

    fn edit(&mut self) {
        self.tally.edits += 1;
        let value = format!("v{}", self.tally.edits);
        let field = self.dice.below(3) as usize;
        match self.dice.below(3) {
            0 => self.edit_table(field, &value),
            at => self.edit_crm(at as usize - 1, field, &value),
        }
    }

    fn edit_table(&mut self, field: usize, value: &str) {
        let known: Vec<String> = self.tables.rows().into_keys().collect();
        if known.is_empty() || (known.len() < RECORDS_MAX && self.one_in(4)) {
            let id = format!("c-{}", self.tally.edits);
            let insert = format!("INSERT INTO contacts VALUES ('{id}', '{value}', NULL, NULL)");
            self.tables.query(&insert);
            return;
        }
        let id = &known[self.dice.below(known.len() as u64) as usize];
        if self.one_in(25) {
            let delete = format!("DELETE FROM contacts WHERE id = '{id}'");
            self.tables.query(&delete);
        } else {
            let update = format!(
                "UPDATE contacts SET {} = '{value}' WHERE id = '{id}'",
                LOCAL[field]
            );
            self.tables.query(&update);
        }
    }

    fn edit_crm(&mut self, at: usize, field: usize, value: &str) {
        let known = self.crms[at].contacts();
        let makes = known.is_empty() || (known.len() < RECORDS_MAX && self.one_in(10));
        // What is archived in the other CRM is told by webhook, and listed every quarter of an hour.
        let deletes = !makes && self.crms[at].name == "salesforce" && self.one_in(12);
        let crm = &self.crms[at];
        if makes {
            crm.edit(&json!({ "object": crm.object, "operation": "create",
                "fields": { crm.fields[0]: value } }));
            return;
        }
        let (id, _, _) = &known[self.dice.below(known.len() as u64) as usize];
        let edit = if deletes {
            json!({ "object": crm.object, "operation": "delete", "id": id })
        } else {
            json!({ "object": crm.object, "operation": "update", "id": id,
                "fields": { crm.fields[field]: value } })
        };
        crm.edit(&edit);
    }

    /// What is not the same everywhere, and not held by something that an operator sees.
    fn differences(&self, listed: &[String]) -> Vec<String> {
        let here = self.tables.rows();
        let mut found = Vec::new();
        for crm in &self.crms {
            let there = rows(crm);
            let keys = here
                .keys()
                .chain(there.keys().filter(|key| !here.contains_key(*key)));
            for key in keys.filter(|key| !listed.contains(key)) {
                if here.get(key) != there.get(key) {
                    let (a, b) = (here.get(key), there.get(key));
                    found.push(format!("{key}: here {a:?}, {} {b:?}", crm.name));
                }
            }
        }
        found
    }

    fn writes(&self) -> usize {
        let journals = self.crms.iter().map(|crm| crm.provider.journal());
        journals
            .map(|calls| {
                calls
                    .iter()
                    .filter(|call| is_write(&call.path, &call.method))
                    .count()
            })
            .sum()
    }
}

/// Calls at each CRM by what they ask for, ids left out.
fn kinds(crms: &[Crm]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for crm in crms {
        for call in crm.provider.journal() {
            let ids = |part: &&str| !part.contains(|c: char| c.is_ascii_digit()) || part.len() < 3;
            let path: Vec<&str> = call.path.split('/').filter(ids).collect();
            let kind = format!(
                "{} {} {} {}",
                crm.name,
                call.method,
                path.join("/"),
                call.status
            );
            *kinds.entry(kind).or_default() += 1;
        }
    }
    kinds
}

/// Searches and batches of reads are asked for with POST.
fn is_write(path: &str, method: &str) -> bool {
    let reads = path.ends_with("/search")
        || path.ends_with("/batch/read")
        || (method == "POST" && path.contains("/composite/sobjects/"));
    method != "GET" && !reads
}

fn letters(node: &Node) -> Vec<Value> {
    let dead = node.get("/v1/dlq?limit=1000").json();
    dead["items"].as_array().expect("a list").clone()
}

/// What the node says of the first record that differs.
fn why(node: &Node, difference: &str) -> String {
    let record = difference.split(": here").next().unwrap_or_default();
    let told = [
        format!("/v1/explain/{record}?object=contact"),
        format!("/v1/records/{record}?object=contact"),
        format!("/v1/operations?record_id={record}&object=contact"),
        format!("/v1/dlq?record_id={record}"),
    ];
    told.map(|path| format!("{path}: {}", node.get(&path).json()))
        .join("\n")
}

/// How many letters of which kind.
fn causes(node: &Node) -> BTreeMap<String, usize> {
    let mut causes = BTreeMap::new();
    for letter in letters(node) {
        let (provider, code) = (&letter["provider"], &letter["code"]);
        *causes.entry(format!("{provider} {code}")).or_default() += 1;
    }
    causes
}

/// Records with something that an operator has to see to.
fn listed(node: &Node) -> Vec<String> {
    letters(node)
        .iter()
        // An edit that was lost to somebody's delete; the record is gone everywhere.
        .filter(|letter| letter["code"] != "gone")
        .filter_map(|letter| letter["record_id"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn three_systems_that_are_all_edited_show_the_same_in_the_end() {
    let cluster = match Cluster::shared() {
        Ok(cluster) => cluster,
        Err(unavailable) => return unavailable.skip("three_systems"),
    };
    let event_loop = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an event loop");
    let database = event_loop.block_on(cluster.database("three_systems"));
    let tables = Tables { database };
    tables.query(
        "CREATE TABLE contacts (id text PRIMARY KEY, last_name text, title text, phone text);
         ALTER TABLE contacts REPLICA IDENTITY FULL",
    );
    let crms = [
        Crm {
            name: "salesforce",
            object: "Contact",
            key: "External_Id__c",
            fields: ["LastName", "Title", "Phone"],
            provider: Provider::start_as("salesforce", &["--token", "t-1"]),
        },
        Crm {
            name: "hubspot",
            object: "contacts",
            key: "external_id",
            fields: ["lastname", "jobtitle", "phone"],
            provider: Provider::start_as(
                "hubspot",
                &["--token", "pat-1", "--key", "contacts.external_id"],
            ),
        },
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("url");
    fs::write(&file, url_of(&tables.database)).expect("our folder");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our file");
    let config = Config::new().shards(2).with(&format!(
        "[system_a.postgres]\nurl = \"file:{}\"\nslot = \"three_systems\"\n{}{}{OBJECTS}",
        file.display(),
        account(&crms[0], "t-1"),
        account(&crms[1], "pat-1"),
    ));
    let mut node = Node::start(config);
    let seconds = std::env::var("SYNCLINE_SECONDS").ok();
    let seconds = seconds
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(8);
    let seed = std::env::var("SYNCLINE_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut stage = Stage {
        tables,
        crms,
        dice: Dice::seeded(seed),
        tally: Tally::default(),
    };

    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let mut next_kill = begun + KILL_EVERY.min(Duration::from_secs(seconds) / 2);
    while Instant::now() < end {
        stage.edit();
        if Instant::now() >= next_kill {
            node.kill();
            node.restart();
            stage.tally.kills += 1;
            next_kill += KILL_EVERY;
        }
        wait(PACE);
    }

    let until_equal = Instant::now();
    loop {
        let different = stage.differences(&listed(&node));
        if different.is_empty() {
            break;
        }
        assert!(
            until_equal.elapsed() < PATIENCE,
            "{} after {:?}: {different:#?} {} {:#?}",
            different.len(),
            stage.tally,
            why(&node, &different[0]),
            kinds(&stage.crms),
        );
        wait(Duration::from_millis(200));
    }
    let took = until_equal.elapsed();
    // Nothing that comes back makes anything move any more.
    until("the writes have ended", || {
        let before = stage.writes();
        wait(QUIET);
        (stage.writes() == before).then_some(())
    });
    let different = stage.differences(&listed(&node));
    assert!(different.is_empty(), "{different:#?}");
    for crm in &stage.crms {
        assert_eq!(
            crm.provider.violations(),
            Violations::default(),
            "{}",
            crm.name
        );
    }
    println!(
        "{:?} in {seconds} s: equal {took:?} after the last, {} records, dead letters {:?}; \
         {} writing calls of {:#?}",
        stage.tally,
        stage.tables.rows().len(),
        causes(&node),
        stage.writes(),
        kinds(&stage.crms),
    );
}
