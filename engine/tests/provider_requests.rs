//! The shipped definition asks as documented, and an account can change each request.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serde_json::json;
use syncline_engine::provider::{
    CallKind, Definition, DefinitionError, Field, RenderError, RestSettings, Subject,
    TemplateError, shipped, shipped_ids,
};

const FIELDS: &[Field<'static>] = &[
    Field {
        name: "id",
        value: "\"c/42\"",
    },
    Field {
        name: "email",
        value: "\"ada@example.com\"",
    },
    Field {
        name: "score",
        value: "1.50",
    },
    Field {
        name: "phone",
        value: "null",
    },
];

const SUBJECT: Subject<'static> = Subject {
    object: "contact",
    record_id: "c/42",
    remote_id: Some("00 7"),
    fields: FIELDS,
};

fn rest() -> Definition {
    Definition::parse(shipped("rest").unwrap()).unwrap()
}

fn rendered(definition: &Definition, kind: CallKind) -> (String, String) {
    let request = definition.render(kind, &SUBJECT).unwrap();
    assert_eq!(request.kind, kind);
    let line = format!("{} {}", request.method.as_str(), request.path_and_query);
    (line, String::from_utf8(request.body.to_vec()).unwrap())
}

#[test]
fn every_shipped_definition_compiles_under_its_own_name() {
    for id in shipped_ids() {
        assert_eq!(Definition::parse(shipped(id).unwrap()).unwrap().id(), id);
    }
    assert!(shipped("no such").is_none());
}

#[test]
fn plain_rest_asks_as_documented() {
    let fields = r#""email":"ada@example.com","score":1.50,"phone":null}"#;
    let rows = [
        (
            CallKind::Create,
            "POST /contact",
            format!(r#"{{"external_id":"c/42",{fields}"#),
        ),
        (
            CallKind::Upsert,
            "PUT /contact/external/c%2F42",
            format!("{{{fields}"),
        ),
        (
            CallKind::Update,
            "PATCH /contact/00%207",
            format!("{{{fields}"),
        ),
        (CallKind::Delete, "DELETE /contact/00%207", String::new()),
        (CallKind::Read, "GET /contact/00%207", String::new()),
        (
            CallKind::Lookup,
            "GET /contact?external_id=c%2F42",
            String::new(),
        ),
    ];
    for (kind, line, body) in rows {
        assert_eq!(rendered(&rest(), kind), (line.to_owned(), body), "{kind}");
    }
}

#[test]
fn only_a_create_is_not_idempotent() {
    for kind in CallKind::ALL {
        // Which fields an API takes as conditions, only an account can say.
        let Some(operation) = rest().operation(kind).cloned() else {
            assert_eq!(kind, CallKind::Match);
            continue;
        };
        assert_eq!(operation.idempotent(), kind != CallKind::Create, "{kind}");
    }
}

#[test]
fn the_same_subject_renders_the_same_bytes() {
    let once = rest().render(CallKind::Create, &SUBJECT).unwrap();
    let again = rest().render(CallKind::Create, &SUBJECT).unwrap();
    assert_eq!(once.digest(), again.digest());
}

#[test]
fn an_account_changes_single_requests() {
    let settings = RestSettings {
        create: Some("POST /v2/{object}s".to_owned()),
        create_body: Some(json!({"key": "{record_id}", "properties": {"$fields": true}})),
        delete: Some("POST /v2/{object}/archive".to_owned()),
        delete_body: Some(json!({"id": "{remote_id}"})),
        ..RestSettings::default()
    };
    let definition = rest().with_rest(&settings).unwrap();
    assert_eq!(
        rendered(&definition, CallKind::Create),
        (
            "POST /v2/contacts".to_owned(),
            r#"{"key":"c/42","properties":{"email":"ada@example.com","score":1.50,"phone":null}}"#
                .to_owned()
        )
    );
    assert_eq!(
        rendered(&definition, CallKind::Delete),
        (
            "POST /v2/contact/archive".to_owned(),
            r#"{"id":"00 7"}"#.to_owned()
        )
    );
    assert_eq!(
        rendered(&definition, CallKind::Update),
        rendered(&rest(), CallKind::Update)
    );
}

#[test]
fn a_setting_that_does_not_compile_is_named() {
    let set = |change: fn(&mut RestSettings)| {
        let mut settings = RestSettings::default();
        change(&mut settings);
        match rest().with_rest(&settings) {
            Err(DefinitionError::Template { key, source }) => (key, source),
            other => panic!("{other:?}"),
        }
    };
    type Row = (fn(&mut RestSettings), &'static str, TemplateError);
    let rows: [Row; 10] = [
        (
            |rest| rest.api_version = Some("v2".to_owned()),
            "rest.api_version",
            TemplateError::NotAVersion("v2".to_owned()),
        ),
        (
            |rest| rest.create = Some("/contact".to_owned()),
            "rest.create",
            TemplateError::NotMethodAndPath,
        ),
        (
            |rest| rest.create = Some("POST /{object}/{remote_id}".to_owned()),
            "rest.create",
            TemplateError::NoRemoteIdYet(CallKind::Create),
        ),
        (
            |rest| rest.delete = Some("DELETE /{object}".to_owned()),
            "rest.delete",
            TemplateError::NamesNoRecord(CallKind::Delete),
        ),
        (
            |rest| rest.lookup = Some("GET /{object}".to_owned()),
            "rest.lookup",
            TemplateError::NamesNoRecord(CallKind::Lookup),
        ),
        (
            |rest| rest.update = Some("HEAD /{remote_id}".to_owned()),
            "rest.update",
            TemplateError::UnknownMethod("HEAD".to_owned()),
        ),
        (
            |rest| rest.upsert_body = Some(json!("x")),
            "rest.upsert_body",
            TemplateError::BodyNotAnObject,
        ),
        (
            |rest| rest.read_body = Some(json!({})),
            "rest.read",
            TemplateError::BodyOnGet,
        ),
        (
            |rest| rest.id_at = Some("id".to_owned()),
            "rest.id_at",
            TemplateError::NotAPointer("id".to_owned()),
        ),
        (
            |rest| rest.found_at = Some(String::new()),
            "rest.found_at",
            TemplateError::NotAPointer(String::new()),
        ),
    ];
    for (change, key, error) in rows {
        assert_eq!(set(change), (key.to_owned(), error));
    }
}

#[test]
fn an_unknown_setting_is_refused() {
    let error = toml::from_str::<RestSettings>("creat = \"POST /x\"").unwrap_err();
    assert!(error.to_string().contains("creat"));
}

#[test]
fn a_definition_file_is_refused_with_its_place() {
    let key_of = |text: &str| match Definition::parse(text) {
        Err(DefinitionError::Template { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    let head = "[provider]\nid = \"x\"\nformat = 1\n";
    let operation = |kind: &str, rest: &str| {
        format!("{head}[operations.{kind}]\nidempotent = true\nmethod = \"GET\"\n{rest}")
    };
    assert_eq!(
        key_of(&operation("read", "path = \"{remote_id}\"")),
        "operations.read.path"
    );
    assert_eq!(
        key_of(&operation("read", "path = \"/{remote_id}\"\ngone = [200]")),
        "operations.read.gone"
    );
    assert_eq!(
        key_of(&operation("lookup", "path = \"/{record_id}\"")),
        "operations.lookup.path"
    );

    let error = Definition::parse("[provider]\nid = \"x\"\nformat = 2\n[operations]").unwrap_err();
    assert!(matches!(error, DefinitionError::Format { found: 2 }));
    let error = Definition::parse(&format!("{head}[operations.merge]")).unwrap_err();
    assert!(matches!(error, DefinitionError::Syntax(source) if source.span().is_some()));
}

#[test]
fn a_provider_without_an_operation_says_so_until_an_account_adds_it() {
    let definition = Definition::parse("[provider]\nid = \"x\"\nformat = 1\n[operations]").unwrap();
    assert_eq!(
        definition.render(CallKind::Read, &SUBJECT),
        Err(RenderError::NoOperation(CallKind::Read))
    );
    let settings = RestSettings {
        read: Some("GET /one/{remote_id}".to_owned()),
        ..RestSettings::default()
    };
    let definition = definition.with_rest(&settings).unwrap();
    assert_eq!(rendered(&definition, CallKind::Read).0, "GET /one/00%207");
}

#[test]
fn a_request_that_would_miss_its_record_is_not_rendered() {
    let unlinked = Subject {
        remote_id: None,
        ..SUBJECT
    };
    assert_eq!(
        rest().render(CallKind::Delete, &unlinked),
        Err(RenderError::NoRemoteId)
    );
    let parent = Subject {
        remote_id: Some(".."),
        ..SUBJECT
    };
    assert_eq!(
        rest().render(CallKind::Delete, &parent),
        Err(RenderError::UnsafePathPart {
            placeholder: "remote_id"
        })
    );
}
