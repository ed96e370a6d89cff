//! A definition's faults are found before anything is sent, and named with their line.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use syncline_engine::provider::{
    BatchItemRef, BatchVerdict, BodyEnd, CallKind, Definition, Reply, ReplyHeaders, SCHEMA,
    Verdict, lint, shipped, shipped_ids,
};

const HEAD: &str = "[provider]\nid = \"x\"\nformat = 1\n";

/// A file's findings as `line key: reason`.
fn findings(text: &str) -> Vec<String> {
    let findings = lint(text);
    let lines = findings.iter();
    lines
        .map(|found| format!("{} {}: {}", found.line, found.key, found.reason))
        .collect()
}

fn check(body: &str, expected: &[&str]) {
    let found = findings(&format!("{HEAD}{body}"));
    assert_eq!(found.len(), expected.len(), "{body}\n{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn an_operation_that_cannot_work_is_named_with_its_line() {
    check(
        "[operations.match]\nidempotent = true\nmethod = \"GET\"\npath = \"/?{match|query}\"\nid = \"/id\"\n",
        &["7 operations.match.path: a match needs an `id` in a list"],
    );
    check(
        "[operations.match]\nidempotent = true\nmethod = \"GET\"\npath = \"/all\"\nid = \"/0/id\"\n",
        &["7 operations.match.path: a match request must name its record"],
    );
    check(
        "[operations.update]\nidempotent = true\nmethod = \"PATCH\"\npath = \"/{objekt}\"\n",
        &["7 operations.update.path: unknown placeholder `{objekt}`"],
    );
    check(
        "[operations.create]\nidempotent = false\nmethod = \"PUSH\"\npath = \"/x\"\nbody = { \"$fields\" = true, a = \"{item}\" }\nid = \"id\"\non_unknown = \"retry\"\n",
        &[
            "6 operations.create.method: unknown method `PUSH`",
            "8 operations.create.body: `{item}` has no value here",
            "9 operations.create.id: `id` is not a JSON pointer",
            "10 operations.create.on_unknown: `on_unknown = \"retry\"` needs `idempotent = true`",
        ],
    );
    check(
        "[operations.create]\nidempotent = true\nmethod = \"POST\"\npath = \"/x\"\nbody = { \"$fields\" = true }\non_unknown = \"upsert\"\n",
        &[
            "9 operations.create.on_unknown: `on_unknown = \"upsert\"` is for a create",
            "9 operations.create.on_unknown: `operations.upsert` is missing",
        ],
    );
    check(
        "[operations.lookup]\nidempotent = true\nmethod = \"GET\"\npath = \"/{record_id}\"\nid = \"/id\"\n",
        &["7 operations.lookup.path: a lookup needs `absent` statuses"],
    );
    check(
        "[operations.update]\nidempotent = true\nmethod = \"PUT\"\npath = \"/{remote_id}\"\nbody = { a = 1 }\n",
        &["8 operations.update.body: a update writes the record's fields"],
    );
    check(
        "[operations.delete]\nidempotent = true\nmethod = \"DELETE\"\npath = \"/{object}\"\nabsent = [404]\n",
        &[
            "7 operations.delete.path: a delete request must name its record",
            "8 operations.delete.absent: `absent` has no meaning here",
        ],
    );
    check(
        "[operations.delete]\nidempotent = true\nmethod = \"DELETE\"\n",
        &["4 operations.delete: give either"],
    );
}

const UPSERT: &str = "[operations.upsert]\nidempotent = true\nmethod = \"PUT\"\npath = \"/{record_id}\"\nbody = { \"$fields\" = true }\n";

#[test]
fn a_batch_that_would_mix_up_its_records_is_named_with_its_line() {
    let batch = |rest: &str| {
        format!("{UPSERT}[batch.b]\ntakes = [\"upsert\"]\nmethod = \"POST\"\npath = \"/b\"\n{rest}")
    };
    let each = "body = { \"$each\" = { k = \"{record_id}\", \"$fields\" = true } }\n";
    let results = "results = { at = \"\", by = [\"position\"], status = \"/s\" }\n";
    check(
        &batch(&format!(
            "{each}max_items = 10\nunique_by = \"record_id\"\n{results}"
        )),
        &[],
    );
    check(
        &batch(&format!("{each}max_items = 10\n{results}")),
        &["9 batch.b: a batch of upsert needs `unique_by`"],
    );
    check(
        &batch(&format!(
            "{each}max_items = 10\nunique_by = \"email\"\n{results}"
        )),
        &["15 batch.b.unique_by: `email` is no key of a record"],
    );
    check(
        &batch(&format!(
            "max_items = 10\nunique_by = \"record_id\"\n{results}"
        )),
        &["9 batch.b: a batch's request needs `$each`"],
    );
    check(
        &batch(&format!(
            "{each}max_items = 0\nunique_by = \"record_id\"\n{results}"
        )),
        &[
            "9 batch.b.default_items: 0 is out of range",
            "14 batch.b.max_items: 0 is out of range",
        ],
    );
    check(
        &batch(&format!(
            "{each}max_items = 10\nunique_by = \"record_id\"\nresults = {{ at = \"/r\" }}\n"
        )),
        &["16 batch.b.results: `results` needs `all = true`, or `at` and `by`"],
    );
    check(
        &batch(&format!(
            "{each}max_items = 10\nunique_by = \"record_id\"\nresults = {{ at = \"/r\", by = [\"record_id:/k\"] }}\n"
        )),
        &["16 batch.b.results: `results` needs `status`, `ok` or `errors`"],
    );
    check(
        &batch(&format!(
            "{each}max_items = 10\nunique_by = \"record_id\"\nresults = {{ at = \"/r\", by = [\"trace:/t\"], status = \"/s\" }}\n"
        )),
        &["9 batch.b: `trace:` needs `{item}`"],
    );
    check(
        &batch(&format!(
            "{each}max_items = 10\nunique_by = \"record_id\"\nresults = {{ at = \"/r\", by = [\"key:/t\"], status = \"/s\" }}\n"
        )),
        &["16 batch.b.results.by: `key:/t` is not `position`"],
    );
    check(
        &batch(&format!(
            "{each}max_items = 10\nunique_by = \"record_id\"\n{results}[batch.c]\ntakes = [\"upsert\", \"create\"]\nmethod = \"POST\"\npath = \"/c\"\n{each}max_items = 1\nunique_by = \"record_id\"\n{results}"
        )),
        &[
            "18 batch.c.takes: another batch takes upsert already",
            "18 batch.c.takes: a batch takes create only if there is an [operations.create]",
        ],
    );
}

#[test]
fn look_ups_share_a_call_among_themselves_and_say_what_is_not_there() {
    let lookup = "[operations.lookup]\nidempotent = true\nmethod = \"GET\"\npath = \"/{record_id}\"\nid = \"/id\"\nabsent = [404]\n";
    let batch = |takes: &str, results: &str| {
        format!(
            "{UPSERT}{lookup}[batch.b]\ntakes = {takes}\nmethod = \"GET\"\npath = \"/?k={{record_ids|quoted}}\"\nmax_items = 10\nunique_by = \"record_id\"\nresults = {{ at = \"/r\", by = [\"record_id:/k\"], {results} }}\n"
        )
    };
    let takes = "[\"lookup\"]";
    check(&batch(takes, "id = \"/id\", missing = \"absent\""), &[]);
    check(
        &batch(takes, "missing = \"absent\""),
        &["21 batch.b.results.id: a lookup operation needs `id`"],
    );
    check(
        &batch(takes, "id = \"/id\""),
        &["21 batch.b.results: `results` needs"],
    );
    check(
        &batch(
            "[\"lookup\", \"upsert\"]",
            "id = \"/id\", missing = \"absent\"",
        ),
        &[
            "15 batch.b: a upsert writes the record's fields",
            "16 batch.b.takes: a batch takes some of create",
        ],
    );
    check(
        &batch("[\"upsert\"]", "status = \"/s\", missing = \"absent\"").replace(
            "method = \"GET\"\npath = \"/?",
            "method = \"POST\"\nbody = { l = { \"$each\" = { \"$fields\" = true } } }\npath = \"/?",
        ),
        &["22 batch.b.results.missing: `missing` has no meaning here"],
    );
}

#[test]
fn a_rule_or_limit_that_means_nothing_is_named_with_its_line() {
    check(
        "[operations]\n[[errors]]\nclass = \"permanent\"\n[[errors]]\nstatus = 404\nclass = \"gone\"\nlimit = \"daily\"\n[[errors]]\nstatus = [\"4xx\"]\nclass = \"throttled\"\nlimit = \"daily\"\ndelay = \"soon\"\n",
        &[
            "5 errors[0]: a rule needs a condition",
            "10 errors[1].limit: `limit` has no meaning here",
            "10 errors[1].limit: there is no limit named `daily`",
            "12 errors[2].status: `4xx` is not a status",
            "14 errors[2].limit: there is no limit named `daily`",
            "15 errors[2].delay: `soon` is not a duration",
        ],
    );
    check(
        "[operations]\n[[limits]]\nname = \"a\"\nkind = \"sliding\"\nlimit = 5\n[[limits]]\nname = \"a\"\nkind = \"concurrency\"\nlimit = 5\nwindow = \"1s\"\nobserve = [{ header = \"X-Left\", pattern = \"{left}\" }]\n",
        &[
            "5 limits[0].window: `window` is missing",
            "10 limits[1].name: `a` is there twice",
            "13 limits[1].window: `window` has no meaning here",
            "14 limits[1].observe[0].header: `X-Left` is not a header name",
            "14 limits[1].observe[0].pattern: unknown placeholder `{left}`",
        ],
    );
    let limits: String = (0..17)
        .map(|at| format!("[[limits]]\nname = \"l{at}\"\nkind = \"concurrency\"\nlimit = 1\nobserve = [{{ header = \"x-{at}\", pattern = \"{{used}}\" }}]\n"))
        .collect();
    check(
        &format!("[operations]\n{limits}"),
        &["5 limits: more than 16 reply headers"],
    );
}

#[test]
fn a_file_of_another_shape_has_one_finding_at_its_place() {
    check("[operations.merge]\n", &["4 : unknown field `merge`"]);
    check(
        "[operations]\n[auth]\nkinds = [\"password\"]\n",
        &["6 : unknown variant `password`"],
    );
    check("[operations\n", &["4 : "]);
    assert!(
        findings("[provider]\nid = \"x\"\nformat = 2\n[operations]\n")[0]
            .starts_with("3 provider.format: definition format 2")
    );
    assert!(findings("")[0].starts_with("1 : missing field"));
    for (block, expected) in [
        ("base_url = \"ftp://x\"\n", "4 provider.base_url: "),
        ("root = \"/x/\"\n", "4 provider.root: "),
        ("root = \"/{api_version}\"\n", "3 provider.api_version: "),
        ("headers = { host = \"x\" }\n", "4 provider.headers.host: "),
    ] {
        let found = findings(&format!("{HEAD}{block}[operations]\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&expected[1..]), "{found:?}");
    }
}

fn schema() -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap()
}

fn json(text: &str) -> Value {
    toml::from_str(text).unwrap()
}

#[test]
fn shipped_definitions_have_the_shape_that_the_schema_says() {
    let schema = schema();
    for id in shipped_ids() {
        let file = json(shipped(id).unwrap());
        let errors: Vec<_> = schema
            .iter_errors(&file)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(errors, [] as [String; 0], "{id}");
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = schema();
    for bad in [
        "[operations]\n",
        "[provider]\nid = \"x\"\nformat = 2\n[operations]\n",
        "[provider]\nid = \"x\"\nformat = 1\n[operations.merge]\n",
        "[provider]\nid = \"x\"\nformat = 1\n[operations.read]\nidempotent = true\n",
        "[provider]\nid = \"x\"\nformat = 1\n[operations]\n[[errors]]\nclass = \"permanent\"\n",
        "[provider]\nid = \"x\"\nformat = 1\n[operations]\n[[errors]]\nstatus = 404\nclass = \"fine\"\n",
        "[provider]\nid = \"x\"\nformat = 1\n[operations]\n[[limits]]\nname = \"x\"\nkind = \"sliding\"\nlimits = 1\n",
    ] {
        assert!(!schema.is_valid(&json(bad)), "{bad}");
        assert_ne!(lint(bad), [], "{bad}");
    }
}

/// Every key of the format, once.
const EVERYTHING: &str = r#"
[provider]
id = "everything"
format = 1
base_url = "https://api.example.com"
api_version = "v2"
root = "/api/{api_version}"
roots = { v1 = "/old" }
headers = { accept = "application/json" }

[auth]
kinds = ["jwt_bearer"]
header = "x-key"
scheme = "Token"
token_url = "/token"
audience = "https://login.example.com"
lifetime = "1h"
refresh_ahead = "5m"
mint_interval = "60s"
rotates_refresh_token = true

[[limits]]
name = "day"
kind = "fixed"
limit = 1000
window = "24h"
timezone = "+02:00"
scope = "account"
operations = ["create"]
costs = { create = 2 }
reserve_percent = 5
observe = [{ header = "x-left", pattern = "{remaining}" }]

[[limits]]
name = "bucket"
kind = "token_bucket"
limit = 10
window = "1s"
burst = 20

[fields]
null = "empty_text"
values = "text"

[objects.contact]
remote = "contacts"
type = "contact"
external_id = "key"
lookup = true
wrap = { emails = ["{value}"] }
fields = [
  { local = "a", remote = "a", required = true, default = "1", convert = ["number"] },
  { local = "b", remote = "b", values = { x = "y" } },
  { local = "c", remote = "c", reference = "account" },
  { local = "d", remote = "d", convert = ["trim"], lossy = true },
  { remote = "e", constant = 1 },
]

[operations.create]
method = "POST"
path = "/{object}"
body = { "$fields" = true }
ok = { at = "/ok", is = true }
id = "/id"
id_missing = "unlinked"
created = "/new"
idempotent = false
on_unknown = "lookup"

[operations.upsert]
batch = "b"
idempotent = true

[operations.update]
method = "PATCH"
path = "/{object}/{remote_id}"
body = { "$fields" = true }
gone = [404]
idempotent = true

[operations.delete]
method = "DELETE"
path = "/{object}/{remote_id}"
idempotent = true

[operations.read]
method = "GET"
path = "/{object}/{remote_id}"
idempotent = true
record = "/data"
key = "own_key"
whole = true

[operations.match]
method = "POST"
path = "/{object}/find"
body = { all = { "$match" = { name = "{field}", is = "{value}" } } }
id = "/items/0/id"
idempotent = true

[operations.lookup]
method = "GET"
path = "/{object}?key={record_id}"
id = "/items/0/id"
many = "/items/1/id"
absent = [404]
idempotent = true
tags = ["search"]
endpoint = "search"

[batch.b]
takes = ["upsert"]
method = "POST"
path = "/{object}/batch"
body = { items = { "$each" = { k = "{record_id}", t = "{item}", "$fields" = true } } }
max_items = 100
default_items = 50
max_bytes = 100000
same = ["object"]
unique_by = "record_id"
unique_ignores_case = true

[batch.b.results]
at = "/items"
by = ["trace:/t"]
status = "/status"
ok = { at = "/ok", is = true }
id = "/id"
id_missing = "record_id"
created = "/new"
error = { code = "/code", message = ["/m", "/n"], policy = "/p" }
errors = { at = "/errors", by = ["trace:/t"], error = { code = "/code" } }
empty = "transient"

[batch.l]
takes = ["lookup"]
method = "GET"
path = "/{object}?keys={record_ids|quoted}"
max_items = 100
unique_by = "record_id"
results = { at = "/items", by = ["record_id:/k"], id = "/id", missing = "absent" }

[batch.d]
takes = ["delete"]
method = "POST"
path = "/{object}/delete"
body = { ids = "{remote_ids}" }
max_items = 2
unique_by = "remote_id"
results = { all = true }

[error]
code = "/code"
message = "/message"
policy = "/policy"

[[errors]]
status = [429, "500-599"]
code = "X"
message = ["a", "b"]
policy = "P"
header = { name = "x-left", is = "0" }
operations = ["create"]
of = ["call", "batch", "item"]
class = "throttled"
limit = "day"
delay = "10s"
delay_header = "x-left"

[[errors]]
code = "D"
class = "duplicate"
remote_id = "id: {id}"

[[errors]]
code = "P"
class = "permission"
pause = "account"

[webhook]
ack = 204
account = "/portal"
events = "/events"

[[webhook.signatures]]
name = "v1"
kind = "hmac_sha256"
header = "x-signature"
prefix = "sha256="
encoding = "hex"
message = "{method}{uri}{header:x-id}{timestamp}{body}"
timestamp = { header = "x-time", unit = "s", tolerance = "10m" }

[webhook.event]
object = { at = ["/type"], table = { "contact.*" = "contacts" } }
kind = { at = "/type", table = { "*.merged" = "merged" } }
id = "/id"
merged = { into = "/into", from = ["/from"] }
occurred_at = "/at"
unit = "ms"
delivery_id = ["header:x-id", "/id"]
fields = "/record"
complete = true
version = "/version"

[poll.all]
interval = "60s"
pace = "250ms"
counts_as = "match"
overlap = "2m"
reach = "30d"
method = "POST"
path = "/{object}/search"
body = { since = "{from|ms}", fields = "{fields}", limit = "{size}", page = "{page?}" }
modified = "changed"
fields = ["key"]
objects = { contacts = { modified = "touched", fields = ["merged"] } }
size = 100
cap = 1000
records = "/items"
record = "/fields"
drop = ["links"]
id = "/id"
modified_at = "/fields/{modified}"
unit = "iso"
version = "/version"
deleted = { at = "/gone", is = true }
merged_into = "/into"
page = { token = "/next" }

[poll.all.ties]
first = "0"
body = { at = "{from|ms}", after = "{after_id}", page = "{page?}" }

[poll.deletes]
interval = "15m"
span = "60s"
method = "GET"
path = "/{object}/deleted"
query = { start = "{from}", end = "{to}" }
long = { path = "/all", body = { asked = "{request}" } }
records = ["/items", "/all/items"]
id = "/id"
modified_at = "/at"
tells = "deleted"
next_from = "/covered"
earliest = "/earliest"

[poll.archive]
interval = "15m"
method = "GET"
path = "/{object}/archive"
query = { limit = "{size}" }
size = 100
scan = true
records = "/items"
id = "/id"
modified_at = "/at"
tells = "deleted"
page = { url = "/next" }
"#;

#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    assert_eq!(lint(EVERYTHING), []);
    let file = json(EVERYTHING);
    let errors: Vec<_> = schema()
        .iter_errors(&file)
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors, [] as [String; 0]);
    let mut used = BTreeSet::new();
    keys(&file, &mut used);
    let mut known = BTreeSet::new();
    properties(&serde_json::from_str(SCHEMA).unwrap(), &mut known);
    // It stands in place of `fields`.
    known.remove("property");
    known.remove("value");
    let unused: Vec<_> = known.difference(&used).collect();
    assert_eq!(
        unused,
        [] as [&String; 0],
        "a key of the schema that EVERYTHING does not try"
    );
}

/// All member names.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            into.insert(name.clone());
            keys(value, into);
        }),
        Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

/// All names under `properties`.
fn properties(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            if name == "properties" {
                into.extend(value.as_object().unwrap().keys().cloned());
            }
            properties(value, into);
        }),
        Value::Array(items) => items.iter().for_each(|item| properties(item, into)),
        _ => {}
    }
}

/// The TOML of the guide, its blocks joined.
fn worked_example() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/providers.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```toml\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_worked_example_of_the_guide_works() {
    let text = worked_example();
    assert_eq!(lint(&text), []);
    let errors: Vec<_> = schema()
        .iter_errors(&json(&text))
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors, [] as [String; 0]);
    let definition = Definition::parse(&text).unwrap();
    assert_eq!(definition.id(), "zoho");

    // A reply in the shape that the vendor's SDK reads.
    let body = r#"{"data":[
        {"code":"SUCCESS","status":"success","action":"insert","details":{"id":"1"}},
        {"code":"DUPLICATE_DATA","status":"error","message":"duplicate data","details":{"api_name":"Email"}},
        {"code":"MANDATORY_NOT_FOUND","status":"error","message":"required field not found"}]}"#;
    let reply = Reply {
        status: 207,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::from_static(body.as_bytes()),
        body_end: BodyEnd::Complete,
    };
    let items = ["a", "b", "c"].map(|record_id| BatchItemRef {
        kind: CallKind::Upsert,
        record_id,
        remote_id: None,
    });
    let group = definition
        .batch_group(CallKind::Upsert, "Contacts")
        .unwrap();
    let now = "2026-11-21T10:00:00Z".parse().unwrap();
    let BatchVerdict::Items(verdicts) = definition.classify_batch(group, &items, &reply, now)
    else {
        panic!("no verdicts");
    };
    let classes: Vec<_> = verdicts.iter().map(Verdict::class).collect();
    assert_eq!(classes, ["done", "duplicate", "permanent"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_linted_without_harm(text in "\\PC{0,80}") {
        prop_assert!(!lint(&text).is_empty());
    }

    #[test]
    fn a_damaged_definition_is_linted_without_harm_and_compiles_only_without_findings(
        cut in 0usize..20_000, insert in "[\\[\\]{}=\"$/|?0-9a-z\n]{0,6}", id in 0usize..5,
    ) {
        let ids: Vec<_> = shipped_ids().collect();
        let text = shipped(ids[id]).unwrap();
        let at = (cut % text.len()..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let damaged = format!("{}{insert}{}", &text[..at], &text[at..]);
        prop_assert_eq!(lint(&damaged).is_empty(), Definition::parse(&damaged).is_ok());
    }
}
