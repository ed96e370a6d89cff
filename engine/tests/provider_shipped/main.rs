//! The definitions that ship: requests as the vendors document them, recorded replies classified
//! as they say.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod hubspot;
mod outreach;
mod pipedrive;
mod salesforce;
mod support;

use syncline_engine::provider::{CallKind, lint, shipped, shipped_ids};

use support::{definition, now, reply};

#[test]
fn every_shipped_definition_is_without_fault() {
    let ids: Vec<_> = shipped_ids().collect();
    assert_eq!(
        ids,
        ["hubspot", "outreach", "pipedrive", "rest", "salesforce"]
    );
    for id in ids {
        assert_eq!(lint(shipped(id).unwrap()), [], "{id}");
    }
}

#[test]
fn every_definition_but_plain_rest_names_its_host_or_leaves_it_to_the_account() {
    let hosts: Vec<_> = shipped_ids()
        .map(|id| (id, definition(id).base_url().map(str::to_owned)))
        .collect();
    let hosts: Vec<_> = hosts
        .iter()
        .map(|(id, host)| (*id, host.as_deref()))
        .collect();
    assert_eq!(
        hosts,
        [
            ("hubspot", Some("https://api.hubapi.com")),
            ("outreach", Some("https://api.outreach.io")),
            ("pipedrive", Some("https://api.pipedrive.com")),
            ("rest", None),
            ("salesforce", None),
        ]
    );
}

#[test]
fn replies_tell_of_the_limits() {
    let read_of = |id: &str, kind: CallKind, headers: &[(&str, &str)]| {
        let mut reply = reply(200, "{}");
        for (name, value) in headers {
            reply.headers.keep(name, value);
        }
        let definition = definition(id);
        let readings = definition.observe(kind, &reply, now());
        readings
            .iter()
            .map(|reading| {
                (
                    reading.limit.to_owned(),
                    reading.used,
                    reading.remaining,
                    reading.max,
                    reading
                        .window
                        .or(reading.resets_in)
                        .map(|window| window.as_secs()),
                )
            })
            .collect::<Vec<_>>()
    };
    let read = |id: &str, headers: &[(&str, &str)]| read_of(id, CallKind::Update, headers);
    let row = |limit: &str, used, remaining, max, seconds| {
        (limit.to_owned(), used, remaining, max, seconds)
    };
    assert_eq!(
        read("salesforce", &[("sforce-limit-info", "api-usage=22/15000")]),
        [row("daily", Some(22), None, Some(15_000), None)]
    );
    assert_eq!(
        read(
            "salesforce",
            &[("sforce-limit-info", "api-usage=22/15000, api-bursts=1/750")]
        )[1],
        row("bursts", Some(1), None, Some(750), None)
    );
    assert_eq!(
        read(
            "hubspot",
            &[
                ("x-hubspot-ratelimit-max", "110"),
                ("x-hubspot-ratelimit-remaining", "108"),
                ("x-hubspot-ratelimit-interval-milliseconds", "10000"),
            ]
        ),
        [row("burst", None, Some(108), Some(110), Some(10))]
    );
    assert_eq!(
        read(
            "outreach",
            &[
                ("x-ratelimit-remaining", "9"),
                ("x-ratelimit-reset", "1795255290")
            ]
        ),
        [row("hourly", None, Some(9), None, Some(90))]
    );
    // The same header is about another limit in the reply to a search.
    let headers = [("x-ratelimit-limit", "10"), ("x-ratelimit-remaining", "9")];
    for (kind, limit) in [(CallKind::Lookup, "search"), (CallKind::Update, "burst")] {
        assert_eq!(
            read_of("pipedrive", kind, &headers),
            [row(limit, None, Some(9), Some(10), None)]
        );
    }
    assert_eq!(read("salesforce", &[("sforce-limit-info", "soon")]), []);
    assert_eq!(read("rest", &[("x-ratelimit-remaining", "9")]), []);
}

#[test]
fn contacts_have_a_mapping_without_any_configuration() {
    for (id, remote, last_name) in [
        ("salesforce", "Contact", "LastName"),
        ("hubspot", "contacts", "lastname"),
        ("pipedrive", "persons", "last_name"),
    ] {
        let definition = definition(id);
        let mapping = definition.default_mapping("contact").unwrap();
        assert_eq!(mapping.remote, remote);
        assert!(
            mapping
                .fields
                .iter()
                .any(|field| field.local == "last_name" && field.remote == last_name)
        );
        assert_eq!(definition.default_mapping("invoice"), None);
    }
    assert_eq!(definition("rest").default_mapping("contact"), None);
}
