use std::time::Duration;

use super::*;

/// PRODUCT's printed example.
const EXAMPLE: &str = include_str!("../../docs/samples/full.toml");
const SMALLEST: &str = include_str!("../../docs/samples/smallest.toml");
const TWO_ACCOUNTS: &str = include_str!("../../docs/samples/two-accounts.toml");

fn read(text: &str) -> Result<Settings, Problems> {
    Settings::read(&Source::new("a.toml", text))
}

/// The problems of `text`, one a line.
fn problems(text: &str) -> String {
    read(text).expect_err("expected problems").one_liners()
}

const ACCOUNT: &str = "[providers.crm]\ntype = \"rest\"\nbase_url = \"http://127.0.0.1:9100\"\n";

#[test]
fn the_printed_example_is_valid() {
    let samples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/samples"));
    let source = Source::new("a.toml", EXAMPLE).in_folder(samples);
    let read = Settings::read(&source);
    assert!(read.is_ok(), "{}", read.unwrap_err().one_liners());
}

#[test]
fn the_other_samples_are_valid() {
    for sample in [SMALLEST, TWO_ACCOUNTS] {
        let read = read(sample);
        assert!(read.is_ok(), "{}", read.unwrap_err().one_liners());
    }
}

#[test]
fn the_documentation_shows_valid_settings() {
    let page = include_str!("../../docs/configuration.md");
    let blocks: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        assert!(read(block).is_ok(), "{block}");
    }
}

#[test]
fn an_empty_file_gives_the_stated_defaults() {
    let settings = read("").unwrap();
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.listen.tcp.to_string(), "127.0.0.1:7400");
    assert_eq!(settings.listen.http.to_string(), "127.0.0.1:7401");
    assert_eq!(settings.wal.durability, Durability::Fsync);
    assert_eq!(settings.server.dedup_window, Duration::from_secs(3600));

    let settings = read(ACCOUNT).unwrap();
    let account = &settings.provider("crm").unwrap().account;
    assert!(account.fold);
    assert_eq!(account.max_in_flight.get(), 32);
    assert_eq!(account.timeout, Duration::from_secs(30));
    assert_eq!(account.retry.max_attempts.get(), 12);
    assert_eq!(account.retry.max_age, Duration::from_secs(86_400));
    assert_eq!(account.breaker.failure_threshold.get(), 5);
}

#[test]
fn an_account_reads_as_written() {
    let settings = read(TWO_ACCOUNTS).unwrap();
    let names: Vec<&str> = settings
        .providers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        ["sales", "billing"],
        "in the file's order, not the alphabet's"
    );
    let sales = settings.provider("sales").unwrap();
    let second = LimitKind::Sliding(Duration::from_secs(1));
    let hundred_a_second = LimitSettings::new("burst", 100.try_into().unwrap(), second);
    assert_eq!(sales.limits[0], hundred_a_second);
    let AuthSettings::Bearer { token } = &sales.auth else {
        panic!("{:?}", sales.auth)
    };
    assert_eq!(token.to_string(), "env:SALES_TOKEN");
    let target = &settings.object("contact").unwrap().to[0].1;
    assert_eq!(target.fields[1].convert, ["trim", "lowercase"]);
}

#[test]
fn every_problem_is_told_at_once_and_in_place() {
    let text = format!(
        "[shards]\ncount = 0\n\n[wal]\ndurability = \"maybe\"\n\n{ACCOUNT}timeout = 30\n\n\
         [objects.contact.to.nobody]\nfields = [{{ local = \"a\", remote = \"A\", x = 1 }}]\n\n\
         [servers]\n"
    );
    let found = problems(&text);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 6, "{found}");
    assert!(
        lines[0].starts_with("a.toml:2:9: ") && lines[0].contains("zero"),
        "{found}"
    );
    assert!(
        lines[1].starts_with("a.toml:5:14: ") && lines[1].contains("`fsync`"),
        "{found}"
    );
    assert!(
        lines[2].starts_with("a.toml:10:11: ") && lines[2].contains("\"30s\""),
        "{found}"
    );
    assert!(
        lines[3].starts_with("a.toml:12:1: ") && lines[3].contains("nobody"),
        "{found}"
    );
    assert!(
        lines[4].starts_with("a.toml:13:") && lines[4].contains("unknown field"),
        "{found}"
    );
    assert!(
        lines[5].starts_with("a.toml:15:2: ") && lines[5].contains("servers"),
        "{found}"
    );
}

#[test]
fn a_broken_line_of_toml_is_told_in_place() {
    let found = problems("[server\ndata_dir = \"x\"\n");
    assert!(found.starts_with("a.toml:1:"), "{found}");
}

#[test]
fn what_one_section_takes_wrong_is_refused() {
    let limit = |keys: &str| format!("{ACCOUNT}[[providers.crm.limits]]\nname = \"a\"\n{keys}\n");
    let auth = |keys: &str| format!("{ACCOUNT}[providers.crm.auth]\n{keys}\n");
    let field = |keys: &str| format!("{ACCOUNT}[objects.c.to.crm]\nfields = [{keys}]\n");
    let matched = |keys: &str, of: &str| {
        format!(
            "{ACCOUNT}{of}\n[objects.c.to.crm]\nmatch = [{keys}]\nfields = [{{ local = \"a\", remote = \"A\" }}]\n"
        )
    };
    let soft = |of: &str, more: &str| {
        format!(
            "{ACCOUNT}[objects.c]\ndeletes = \"soft\"\n{of}\n[objects.c.to.crm]\n{more}\nfields = [{{ local = \"a\", remote = \"A\" }}]\n"
        )
    };
    let searched = "rest.match = \"GET /{object}?{match|query}\"";
    for (text, says) in [
        (soft("", ""), "there is no `deleted`: the field"),
        (
            soft(
                "source = { table = \"t\", key = \"id\" }",
                "deleted = { remote = \"Gone\" }",
            ),
            "there is no `deleted`: the column",
        ),
        (
            soft("", "deleted = { remote = \"A\" }"),
            "is mapped as well",
        ),
        (
            soft("", "deleted = { remote = \"Gone\", value = false }"),
            "is what marks a record",
        ),
        (matched("\"a\"", ""), "cannot be searched"),
        (matched("\"b\"", searched), "`b` is the `local` of none"),
        (matched("[]", searched), "1 to 8 fields"),
        (matched("\"a\"", searched), "needs `external_id`"),
        (
            "[server]\ndata_dri = \"x\"\n".to_owned(),
            "unknown field `data_dri`",
        ),
        ("[listen]\ntcp = \"nowhere\"\n".to_owned(), "socket address"),
        (
            "[listen]\nhttp = \"0.0.0.0:7401\"\n".to_owned(),
            "off loopback without TLS and keys",
        ),
        (
            "[listen]\nhttp = \"127.0.0.1:7400\"\n".to_owned(),
            "taken by another listener",
        ),
        (
            "[wal]\nsegment_bytes = \"1KiB\"\n".to_owned(),
            "\"2MiB\" to \"4GiB\"",
        ),
        ("[memory]\nmax = \"lots\"\n".to_owned(), "a size such as"),
        ("[shards]\nring_capacity = 3\n".to_owned(), "expected 64 to"),
        (
            "[providers.crm]\ntype = \"rest\"\n".to_owned(),
            "needs a `base_url`",
        ),
        (
            "[providers.crm]\ntype = \"unheard_of\"\n".to_owned(),
            "not available",
        ),
        (
            "[providers.\"a b\"]\ntype = \"rest\"\nbase_url = \"http://h\"\n".to_owned(),
            "letters",
        ),
        (
            limit("kind = \"daily\"\nlimit = 1\nwindow = \"1d\""),
            "unknown limit kind \"daily\"",
        ),
        (
            limit("kind = \"sliding\"\nlimit = 0\nwindow = \"1s\""),
            "zero",
        ),
        (limit("kind = \"sliding\"\nlimit = 1"), "needs a `window`"),
        (
            limit("kind = \"sliding\"\nlimit = 1\nwindow = \"0s\""),
            "above zero",
        ),
        (
            limit("kind = \"sliding\"\nlimit = 1\nwindow = \"1s\"\nburst = 2"),
            "takes no `burst`",
        ),
        (
            limit("kind = \"concurrency\"\nlimit = 1\nwindow = \"1s\""),
            "takes no `window`",
        ),
        (
            limit("kind = \"fixed\"\nlimit = 1\nwindow = \"1d\"\ntimezone = \"Mars/Olympus\""),
            "unknown time zone",
        ),
        (
            limit("kind = \"cost\"\nlimit = 9\nwindow = \"1s\"\ncosts = { lookup = 10 }"),
            "never has the 10 tokens",
        ),
        (
            limit(
                "kind = \"concurrency\"\nlimit = 1\n[[providers.crm.limits]]\nname = \"a\"\nkind = \"concurrency\"\nlimit = 2",
            ),
            "a second limit named \"a\"",
        ),
        (auth("kind = \"magic\""), "unknown auth kind"),
        (auth("kind = \"bearer\""), "needs `token`"),
        (
            auth("kind = \"none\"\ntoken = \"env:T\""),
            "takes no `token`",
        ),
        (
            auth("kind = \"bearer\"\ntoken = \"literal\""),
            "may not stand in the file",
        ),
        (
            format!("{ACCOUNT}[providers.crm.retry]\nbase_delay = \"2m\"\n"),
            "shorter than `base_delay`",
        ),
        (
            format!("{ACCOUNT}[providers.crm.weights]\ntenants = {{ acme = 101 }}\n"),
            "a weight is at most 100",
        ),
        (
            format!("{ACCOUNT}[providers.crm.weights]\nobjects = {{ contact = 0 }}\n"),
            "nonzero",
        ),
        (field("{ remote = \"A\" }"), "`local` is missing"),
        (
            field("{ local = \"a\", remote = \"A\", constant = 1 }"),
            "only `remote` may stand beside it",
        ),
        (
            field("{ local = \"a\", remote = \"A\" }, { local = \"b\", remote = \"A\" }"),
            "another field is this one",
        ),
        (
            field("{ local = \"a\", remote = \"A\", convert = \"lowercase\" }"),
            "a.toml:5:50: `lowercase` loses something: say `lossy = true`",
        ),
        (
            field(
                "{ local = \"a\", remote = \"A\", convert = [\"trim\", \"rot13\"], lossy = true }",
            ),
            "a.toml:5:59: unknown converter",
        ),
        (
            field("{ local = \"a\", remote = \"A\", values = { x = \"1\", y = \"1\" } }"),
            "one to one",
        ),
        (
            field("{ local = \"a\", remote = \"A\", default = 2026-11-20 }"),
            "put a date in quotes",
        ),
        (
            "[[rules]]\nprovider = \"x\"\naction = \"skip\"\n".to_owned(),
            "`x` is no account",
        ),
        (
            "[[rules]]\naction = \"skip\"\npriority = 11\n".to_owned(),
            "1 to 10",
        ),
    ] {
        let found = problems(&text);
        assert!(found.contains(says), "expected {says:?} in:\n{found}");
    }
}

#[test]
fn a_mapping_for_an_account_of_the_api_is_told_where_it_belongs() {
    let text = format!("{ACCOUNT}[objects.c.to.later]\nremote = \"C\"\n");
    let found = read(&text).expect_err("`later` is no account of the file");
    let shown = found.rendered(false);
    assert!(
        shown.contains("`mappings` of POST /v1/providers"),
        "{shown}"
    );
}

#[test]
fn insecure_has_to_be_spelt_out() {
    let settings = read("[listen]\nhttp = \"0.0.0.0:7401\"\ninsecure = true\n").unwrap();
    assert!(!settings.listen.http.ip().is_loopback());
}

#[test]
fn no_form_of_an_error_shows_a_secret() {
    for key in [
        "token = \"s3cret\"",
        "token = \"s3cret\", bogus = 1",
        "value = \"s3cret\"",
    ] {
        let text = format!(
            "[providers.crm]\ntype = \"rest\"\nbase_url = \"http://h\"\n\
             auth = {{ kind = \"bearer\", {key} }}\n"
        );
        let found = read(&text).unwrap_err();
        for shown in [
            found.one_liners(),
            found.rendered(false),
            found.to_json().to_string(),
        ] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}

#[test]
fn a_person_sees_the_line_and_the_mark() {
    let found = read("[wal]\ndurability = \"maybe\"\n").unwrap_err();
    let shown = found.rendered(false);
    assert!(
        shown.contains("durability = \"maybe\"") && shown.contains("a.toml:2:14"),
        "{shown}"
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let source = Source::new("a.toml", ACCOUNT).with_environment(
        [
            ("SYNCLINE__SHARDS__COUNT", "3"),
            ("SYNCLINE__WAL__DURABILITY", "os"),
            ("SYNCLINE__PROVIDERS__CRM__BASE_URL", "http://127.0.0.1:1"),
            ("SYNCLINE__PROVIDERS__CRM__RETRY__MAX_ATTEMPTS", "2"),
            ("SYNCLINE__MEMORY", "{ max = \"1GiB\" }"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let settings = Settings::read(&source).unwrap();
    assert_eq!(settings.shards.count.unwrap().get(), 3);
    assert_eq!(settings.wal.durability, Durability::Os);
    assert_eq!(settings.memory.max, ByteSize::mebibytes(1024));
    let account = &settings.provider("crm").unwrap().account;
    assert_eq!(account.base_url.as_deref(), Some("http://127.0.0.1:1"));
    assert_eq!(account.retry.max_attempts.get(), 2);
}

#[test]
fn a_wrong_variable_is_named() {
    let source = Source::new("a.toml", "").with_environment([
        ("SYNCLINE__SHARDS__COUNT".to_owned(), "many".to_owned()),
        ("SYNCLINE__SHARDS__COUTN".to_owned(), "1".to_owned()),
        ("SYNCLINE__".to_owned(), "1".to_owned()),
    ]);
    let found = Settings::read(&source).unwrap_err().one_liners();
    assert!(
        found.contains("SYNCLINE__: expected a name such as"),
        "{found}"
    );
    assert!(
        found.contains("SYNCLINE__SHARDS__COUNT: ") || found.contains("COUTN"),
        "{found}"
    );
}

const TWO_WAYS: &str = "[providers.crm]\ntype = \"rest\"\nbase_url = \"http://127.0.0.1:9100\"\n\
    [system_a]\n[objects.contact]\ndirection = \"both\"\n\
    to.crm.remote = \"contact\"\n";

#[test]
fn a_conflict_can_be_decided_by_an_expression() {
    use engine::merge::{Rivals, Winner};

    let text = format!(
        "{TWO_WAYS}conflict.default.cel = 'change.theirs == null ? \"system_a\" : \"provider\"'\n\
         conflict.fields.email = \"manual\"\n"
    );
    let settings = read(&text).unwrap();
    let conflict = settings.objects[0].1.record.conflict.as_ref();
    let policy = conflict.unwrap().policy().unwrap();
    for (field, theirs, winner) in [
        ("/name", "null", Winner::SystemA),
        ("/name", "\"Ada\"", Winner::Provider),
        ("/email", "null", Winner::Undecided),
    ] {
        let rivals = Rivals {
            field,
            base: "null",
            ours: "1",
            ours_at_ms: 1,
            theirs,
            theirs_at_ms: 2,
        };
        assert_eq!(policy.decide(&rivals), winner, "{field} {theirs}");
    }
}

#[test]
fn an_account_that_marks_what_is_deleted_says_by_which_field() {
    let text = format!(
        "{ACCOUNT}[objects.c]\ndeletes = \"soft\"\n[objects.c.to.crm]\n\
         deleted = {{ remote = \"Status\", value = \"gone\", otherwise = \"live\" }}\n\
         fields = [{{ local = \"a\", remote = \"A\" }}]\n"
    );
    let settings = read(&text).unwrap();
    let (_, target) = &settings.objects[0].1.to[0];
    let mapping = engine::mapping::Mapping::compile("c", &target.mapping("c")).unwrap();
    let mark = mapping.deletion_mark().unwrap();
    assert_eq!(mark.fields(), r#"{"Status":"gone"}"#);
    assert_eq!(mark.lifted_in("{}"), r#"{"Status":"live"}"#);
}

#[test]
fn an_expression_that_cannot_decide_a_conflict_is_refused_in_place() {
    for (expression, expected) in [
        ("change.theirs ==", "a.toml:9:"),
        ("stranger > 1", "stranger"),
    ] {
        let found = problems(&format!(
            "{TWO_WAYS}conflict.default = \"manual\"\nconflict.fields.email = {{ cel = '{expression}' }}\n"
        ));
        assert!(found.contains(expected), "{expression}: {found}");
    }
}
