//! Shipped definitions against the simulated accounts: each verdict is held against what the account
//! really did. And definitions with a bug planted in them, each of which that check must catch.

use std::time::Duration;

use bytes::Bytes;
use engine::provider::{
    BatchItem, BatchItemRef, BatchVerdict, BodyEnd, CallKind, Definition, Field, Reply,
    ReplyHeaders, Request, Subject, Verdict, shipped,
};
use mock::{Account, AccountConfig, Answer, ProviderKind};
use serde_json::{Value, json};

/// What differs between the two providers.
#[derive(Clone, Copy)]
struct Names {
    id: &'static str,
    kind: ProviderKind,
    object: &'static str,
    field: &'static str,
    /// A field that reads do not show by themselves.
    custom: &'static str,
}

const HUBSPOT: Names = Names {
    id: "hubspot",
    kind: ProviderKind::HubSpot,
    object: "contacts",
    field: "lastname",
    custom: "visits",
};

const SALESFORCE: Names = Names {
    id: "salesforce",
    kind: ProviderKind::Salesforce,
    object: "Contact",
    field: "LastName",
    custom: "Visits__c",
};

/// An account, and the definition by which it is called.
struct Rig {
    names: Names,
    definition: Definition,
    account: Account,
    now: Duration,
}

/// What the definition made of an answer, where that is not what happened.
type Wrong = String;

/// A record as it is sent: its key, its remote id, the fields' values as JSON.
#[derive(Clone, Copy)]
struct Sent<'a> {
    key: &'a str,
    remote_id: Option<&'a str>,
    fields: &'a [Field<'a>],
}

impl Rig {
    fn new(names: Names, text: &str) -> Result<Rig, Wrong> {
        let definition = Definition::parse(text).map_err(|error| error.to_string())?;
        let mut config = AccountConfig {
            provider: names.kind,
            epoch: Duration::from_secs(1_795_168_800),
            seed: 11,
            ..AccountConfig::default()
        };
        config.credentials.tokens.push("t-1".to_owned());
        Ok(Rig {
            names,
            definition,
            account: Account::new(config),
            now: Duration::ZERO,
        })
    }

    fn faults(&mut self, spec: &str) {
        let spec = spec.parse().expect("faults as the mock spells them");
        self.account.replace_faults(&spec);
    }

    fn ask(&mut self, request: &Request) -> Reply {
        // Out of every window: what the account limits is not what is checked here.
        self.now += Duration::from_secs(30);
        let asked = mock::Request {
            method: request.method.as_str().parse().expect("a method of HTTP"),
            target: &request.path_and_query,
            idempotency_key: None,
            body: request.body.clone(),
        };
        let mut headers = http::HeaderMap::new();
        let bearer = "Bearer t-1".parse().expect("a header's value");
        headers.insert(http::header::AUTHORIZATION, bearer);
        let Answer::Reply(reply) = self.account.handle_with(self.now, &asked, headers) else {
            panic!("no fault here resets");
        };
        let mut kept = ReplyHeaders::default();
        for name in self.definition.kept_headers() {
            if let Some(value) = reply.header(name) {
                kept.keep(name, value);
            }
        }
        Reply {
            status: reply.status,
            retry_after: reply.retry_after_s.map(|seconds| seconds.to_string()),
            date: None,
            headers: kept,
            body: reply.body,
            body_end: BodyEnd::Complete,
        }
    }

    fn subject<'a>(&self, sent: Sent<'a>) -> Subject<'a> {
        Subject {
            object: self.names.object,
            record_id: sent.key,
            remote_id: sent.remote_id,
            fields: sent.fields,
        }
    }

    fn call(&mut self, kind: CallKind, sent: Sent<'_>) -> Result<(Verdict, Bytes), Wrong> {
        let request = self.definition.render(kind, &self.subject(sent));
        let reply = self.ask(&request.map_err(|error| error.to_string())?);
        let now = "2026-11-21T10:00:00Z".parse().expect("an instant");
        let verdict = self.definition.classify(kind, sent.key, &reply, now);
        Ok((verdict, reply.body))
    }

    fn batch(&mut self, kind: CallKind, sent: &[Sent<'_>]) -> Result<Vec<Verdict>, Wrong> {
        let group = self.definition.batch_group(kind, self.names.object);
        let group = group.ok_or("no batch takes it")?;
        let subjects = sent.iter().map(|sent| self.subject(*sent));
        let items: Vec<BatchItem<'_>> = subjects
            .map(|subject| BatchItem { kind, subject })
            .collect();
        let request = self.definition.render_batch(group, &items);
        let reply = self.ask(&request.map_err(|error| error.to_string())?);
        let refs: Vec<BatchItemRef<'_>> = sent
            .iter()
            .map(|sent| BatchItemRef {
                kind,
                record_id: sent.key,
                remote_id: sent.remote_id,
            })
            .collect();
        let now = "2026-11-21T10:00:00Z".parse().expect("an instant");
        Ok(
            match self.definition.classify_batch(group, &refs, &reply, now) {
                BatchVerdict::Items(verdicts) => verdicts,
                BatchVerdict::Whole(verdict) => vec![verdict; sent.len()],
                BatchVerdict::Split { detail } => vec![Verdict::Permanent { detail }; sent.len()],
            },
        )
    }

    /// The live record with this key: its id and its fields.
    fn record(&self, key: &str) -> Option<(String, Value)> {
        let mut records = self.account.records();
        let found = records.find(|(_, _, record)| record.external_id.as_deref() == Some(key));
        found.map(|(_, id, record)| (id.to_string(), json!(record.fields)))
    }

    /// A write that is called done was done, to that record and with that id; one that is not was
    /// not, unless nobody knows.
    fn holds(&self, sent: Sent<'_>, verdict: &Verdict, refused_as: &str) -> Result<(), Wrong> {
        let record = self.record(sent.key);
        let value: Option<Value> = sent
            .fields
            .iter()
            .find(|field| field.name == self.names.field)
            .and_then(|field| serde_json::from_str(field.value).ok());
        let written = record.as_ref().is_some_and(|(_, fields)| {
            value.is_some() && fields.get(self.names.field) == value.as_ref()
        });
        let key = sent.key;
        match verdict {
            Verdict::Done { remote_id, .. } => {
                let id = record.map(|(id, _)| id);
                let names_it = remote_id.is_none() || *remote_id == id;
                if written && names_it {
                    return Ok(());
                }
                Err(format!(
                    "{key} is called done as {remote_id:?}; there is {id:?}"
                ))
            }
            Verdict::Unknown { .. } if refused_as == "unknown" => Ok(()),
            _ if written => Err(format!(
                "{key} was written and is called {}",
                verdict.class()
            )),
            _ => is(verdict, refused_as),
        }
    }
}

fn is(verdict: &Verdict, class: &str) -> Result<(), Wrong> {
    if verdict.class() == class {
        return Ok(());
    }
    Err(format!("{verdict:?} is no {class}"))
}

/// Everything that a definition has to understand.
fn check(names: Names, text: &str) -> Result<(), Wrong> {
    let mut rig = Rig::new(names, text)?;
    let texts: Vec<String> = (0..8).map(|n| format!("\"N{n}\"")).collect();
    let named = |n: usize| {
        [Field {
            name: names.field,
            value: texts[n].as_str(),
        }]
    };
    let fields: Vec<[Field<'_>; 1]> = (0..8).map(named).collect();
    let bad = [Field {
        name: "Bad name",
        value: "1",
    }];
    let sent = |key: &'static str, n: usize| Sent {
        key,
        remote_id: None,
        fields: &fields[n],
    };

    // Many at once, one of them bad; each result belongs to its record, in whatever order.
    let mut many = ["c-0", "c-1", "c-2", "c-3"]
        .map(|key| sent(key, 0))
        .to_vec();
    for (n, sent) in many.iter_mut().enumerate() {
        sent.fields = &fields[n];
    }
    many[2].fields = &bad;
    let verdicts = rig.batch(CallKind::Create, &many)?;
    for (sent, verdict) in many.iter().zip(&verdicts) {
        rig.holds(*sent, verdict, "permanent")?;
    }
    let done = verdicts.iter().filter(|verdict| verdict.class() == "done");
    if done.count() != 3 {
        return Err(format!("three of four are done: {verdicts:?}"));
    }

    // The same for changes, by the provider's own ids.
    let ids: Vec<String> = ["c-0", "c-1", "c-3"]
        .iter()
        .filter_map(|key| Some(rig.record(key)?.0))
        .collect();
    let change = |key: &'static str, at: usize, n: usize| Sent {
        key,
        remote_id: Some(ids[at].as_str()),
        fields: &fields[n],
    };
    let mut changes = [
        change("c-0", 0, 4),
        change("c-1", 1, 5),
        change("c-3", 2, 6),
    ];
    changes[1].fields = &bad;
    let verdicts = rig.batch(CallKind::Update, &changes)?;
    for (sent, verdict) in changes.iter().zip(&verdicts) {
        rig.holds(*sent, verdict, "permanent")?;
    }
    is(&verdicts[0], "done")?;
    let upserts = [sent("c-0", 1), sent("c-9", 2)];
    for (sent, verdict) in upserts.iter().zip(rig.batch(CallKind::Upsert, &upserts)?) {
        rig.holds(*sent, &verdict, "done")?;
    }

    // Who is asked for is found, who is not there is not.
    let asked = [sent("nobody", 0), sent("c-1", 0), sent("c-0", 0)];
    let found = rig.batch(CallKind::Lookup, &asked)?;
    is(&found[0], "absent")?;
    for (sent, verdict) in asked[1..].iter().zip(&found[1..]) {
        let id = rig.record(sent.key).map(|(id, _)| id);
        if !matches!(verdict, Verdict::Found { remote_id } if Some(remote_id) == id.as_ref()) {
            return Err(format!("{verdict:?} of {} is not {id:?}", sent.key));
        }
    }

    // A create that may have been made is never one to be made again.
    for fault in ["5xx_after=1", "5xx=1"] {
        rig.faults(fault);
        is(&rig.call(CallKind::Create, sent("c-5", 5))?.0, "unknown")?;
        for verdict in rig.batch(CallKind::Create, &[sent("c-6", 6), sent("c-7", 7)])? {
            is(&verdict, "unknown")?;
        }
        rig.faults("");
    }

    // Of a key that is taken it is known whose it is.
    let (taken, _) = rig.call(CallKind::Create, sent("c-1", 1))?;
    let owner = rig.record("c-1").map(|(id, _)| id);
    let named = match &taken {
        // An id may come with 15 characters, which the full one begins with.
        Verdict::Duplicate {
            remote_id: Some(id),
            ..
        } => owner.is_some_and(|own| own.starts_with(id)),
        _ => false,
    };
    if !named {
        return Err(format!("a taken key is {taken:?}"));
    }

    // What was asked for is shown.
    let custom = [
        fields[1][0],
        Field {
            name: names.custom,
            value: "\"7\"",
        },
    ];
    let written = Sent {
        fields: &custom,
        ..changes[1]
    };
    is(&rig.call(CallKind::Update, written)?.0, "done")?;
    let (read, body) = rig.call(CallKind::Read, written)?;
    is(&read, "done")?;
    let shown = rig
        .definition
        .record_in(&body)
        .map(|(record, _)| record.to_owned());
    let shown: Value = serde_json::from_str(&shown.unwrap_or_default()).unwrap_or_default();
    if shown[names.custom] != "7" {
        return Err(format!("{} is read as {shown}", names.custom));
    }

    // Refusals for a while say nothing of the record.
    let mut refused = vec![
        ("lock=1", "contention"),
        ("429=1", "throttled"),
        ("daily=1", "quota_exhausted"),
    ];
    if names.kind == ProviderKind::HubSpot {
        refused.extend([
            ("forbid=contacts", "permission"),
            ("maintenance=1", "maintenance"),
        ]);
    } else {
        refused.push(("401=1", "unauthorized"));
    }
    for (fault, class) in refused {
        rig.faults(fault);
        if fault == "lock=1" {
            is(&rig.batch(CallKind::Update, &[written])?[0], class)?;
        }
        is(&rig.call(CallKind::Update, written)?.0, class)
            .map_err(|wrong| format!("{fault}: {wrong}"))?;
        rig.faults("");
    }

    // A record that is gone is that, and a delete of it is done.
    is(&rig.call(CallKind::Delete, changes[2])?.0, "done")?;
    if rig.record("c-3").is_some() {
        return Err("a delete that is called done left the record".to_owned());
    }
    is(&rig.call(CallKind::Update, changes[2])?.0, "gone")?;
    is(&rig.call(CallKind::Delete, changes[2])?.0, "done")
}

#[test]
fn shipped_definitions_understand_what_the_accounts_did() {
    for names in [HUBSPOT, SALESFORCE] {
        let text = shipped(names.id).expect("shipped");
        assert_eq!(check(names, text), Ok(()), "{}", names.id);
    }
}

/// A bug, where it is planted, and what stands there instead; `within` is the block's first line.
struct Planted {
    bug: &'static str,
    names: Names,
    within: &'static str,
    from: &'static str,
    to: &'static str,
}

const PLANTED: &[Planted] = &[
    Planted {
        bug: "results are taken in the order of the request where they come in any",
        names: HUBSPOT,
        within: "[batch.upsert.results]",
        from: "by = [\"trace:/objectWriteTraceId\", \"record_id:/properties/{external_id_field}\"]",
        to: "by = [\"position\"]",
    },
    Planted {
        bug: "refused rows of a batch of creates are not looked at",
        names: HUBSPOT,
        within: "[batch.create.results]",
        from: "by = [\"trace:/context/objectWriteTraceId\"]",
        to: "by = [\"remote_id:/context/objectWriteTraceId\"]",
    },
    Planted {
        bug: "the ids that a look-up does not find are given to the first records asked for",
        names: HUBSPOT,
        within: "[batch.lookup.results]",
        from: "by = [\"record_id:/properties/{external_id_field}\"]",
        to: "by = [\"position\"]",
    },
    Planted {
        bug: "a create is sent again after a 5xx",
        names: HUBSPOT,
        within: "[operations.create]",
        from: "idempotent = false\non_unknown = \"upsert\"",
        to: "idempotent = true",
    },
    Planted {
        bug: "a read asks for no fields",
        names: HUBSPOT,
        within: "[operations.read]",
        from: "?properties={field_names}",
        to: "",
    },
    Planted {
        bug: "a spent day is taken for a short pause",
        names: HUBSPOT,
        within: "policy = \"DAILY\"",
        from: "class = \"quota_exhausted\"",
        to: "class = \"throttled\"",
    },
    Planted {
        bug: "a lock is taken for a refusal for good",
        names: HUBSPOT,
        within: "status = 423",
        from: "class = \"contention\"\ndelay = \"2s\"",
        to: "class = \"permanent\"",
    },
    Planted {
        bug: "missing rights are taken for a bad record",
        names: HUBSPOT,
        within: "status = 403",
        from: "class = \"permission\"",
        to: "class = \"permanent\"",
    },
    Planted {
        bug: "a downtime is taken for a bad record",
        names: HUBSPOT,
        within: "status = 477",
        from: "class = \"maintenance\"\ndelay_header = \"retry-after\"",
        to: "class = \"permanent\"",
    },
    Planted {
        bug: "whose a taken key is, is not read",
        names: HUBSPOT,
        within: "message = [\"already exists\"",
        from: "\"{id} already has that value\"",
        to: "\"{id} has that value\"",
    },
    Planted {
        bug: "a 2xx with an error in it is taken for done",
        names: SALESFORCE,
        within: "[batch.update.results]",
        from: "ok = { at = \"/success\", is = true }",
        to: "ok = { at = \"/success\", is = false }",
    },
    Planted {
        bug: "a result is never taken for done",
        names: SALESFORCE,
        within: "[batch.create.results]",
        from: "ok = { at = \"/success\", is = true }",
        to: "ok = { at = \"/succeeded\", is = true }",
    },
    Planted {
        bug: "a create is sent again after a 5xx",
        names: SALESFORCE,
        within: "[operations.create]",
        from: "idempotent = false\non_unknown = \"upsert\"",
        to: "idempotent = true",
    },
    Planted {
        bug: "the type does not come with a record",
        names: SALESFORCE,
        within: "[batch.create]",
        from: "attributes = { type = \"{object}\" }, ",
        to: "",
    },
    Planted {
        bug: "too many calls at once are taken for a spent day",
        names: SALESFORCE,
        within: "code = \"REQUEST_LIMIT_EXCEEDED\"\nmessage = \"Concurrent\"",
        from: "class = \"throttled\"\nlimit = \"long_running\"",
        to: "class = \"quota_exhausted\"\nlimit = \"daily\"",
    },
    Planted {
        bug: "a spent day is taken for a bad record",
        names: SALESFORCE,
        within: "code = \"REQUEST_LIMIT_EXCEEDED\"  #",
        from: "class = \"quota_exhausted\"\nlimit = \"daily\"\ndelay = \"15m\"",
        to: "class = \"permanent\"",
    },
    Planted {
        bug: "a locked row is taken for a bad record",
        names: SALESFORCE,
        within: "code = \"UNABLE_TO_LOCK_ROW\"",
        from: "class = \"contention\"",
        to: "class = \"permanent\"",
    },
    Planted {
        bug: "an ended session is taken for a bad record",
        names: SALESFORCE,
        within: "code = \"INVALID_SESSION_ID\"",
        from: "class = \"unauthorized\"",
        to: "class = \"permanent\"",
    },
    Planted {
        bug: "a taken key is a refusal for good",
        names: SALESFORCE,
        within: "code = [\"DUPLICATE_VALUE\", \"DUPLICATES_DETECTED\"]",
        from: "class = \"duplicate\"\nremote_id = \"record with id: {id}\"",
        to: "class = \"permanent\"",
    },
    Planted {
        bug: "a look-up asks by another field",
        names: SALESFORCE,
        within: "[batch.lookup.results]",
        from: "by = [\"record_id:/{external_id_field}\"]",
        to: "by = [\"record_id:/Id\"]",
    },
];

impl Planted {
    /// The definition with the bug in it.
    fn text(&self) -> String {
        let text = shipped(self.names.id).expect("shipped");
        let at = text.find(self.within);
        let at = at.unwrap_or_else(|| panic!("{}: no {}", self.bug, self.within));
        let (before, rest) = text.split_at(at);
        let rest = without_remarks(rest);
        let planted = rest.replacen(self.from, self.to, 1);
        assert_ne!(planted, rest, "{}: no {:?}", self.bug, self.from);
        format!("{before}{planted}")
    }
}

/// Remarks at the ends of lines stand between what is replaced.
fn without_remarks(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once("   #") {
        Some((line, _)) => line.trim_end(),
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_bug_planted_in_a_definition_is_caught() {
    let escaped: Vec<&str> = PLANTED
        .iter()
        .filter(|planted| match check(planted.names, &planted.text()) {
            Ok(()) => true,
            Err(wrong) => {
                println!("{} {}: {wrong}", planted.names.id, planted.bug);
                false
            }
        })
        .map(|planted| planted.bug)
        .collect();
    assert!(escaped.is_empty(), "not caught: {escaped:#?}");
}
