//! A delivery is believed by its signature and its age, and by nothing else.

use proptest::prelude::*;
use syncline_engine::provider::{Definition, Delivery, Unproven, WebhookDefinition};

use super::{definition, headers, post, shipped_definition};

const EVENT: &str = "[webhook.event]\nobject = { at = \"/o\", table = { c = \"contacts\" } }\n\
                     kind = { at = \"/k\", table = { u = \"changed\" } }\nid = \"/id\"\n";
const NOW_MS: i64 = 1_795_168_800_000;

fn signed_by(signature: &str) -> Definition {
    definition(&format!(
        "[webhook]\n[[webhook.signatures]]\nname = \"s\"\n{signature}\n{EVENT}"
    ))
}

fn check(
    definition: &Definition,
    secrets: &[&str],
    delivery: &Delivery<'_>,
) -> Result<(), Unproven> {
    let webhook = definition.webhook().unwrap();
    webhook.verify(None, secrets, None, NOW_MS, delivery)
}

/// One vector as a delivery: method, URL, headers, body.
struct Vector {
    version: &'static str,
    method: &'static str,
    uri: &'static str,
    timestamp: &'static str,
    body: &'static str,
    signature: &'static str,
}

const SECRET: &str = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy";
const URI: &str = "https://www.example.com/webhook_uri";

/// HubSpot/hubspot-api-nodejs test/unit/signature.spec.ts at 395cd9bf3 and
/// HubSpot/hubspot-api-python tests/spec/utils/test_signature.py at a2a528a9, both Apache-2.0.
const VECTORS: [Vector; 6] = [
    Vector {
        version: "v1",
        method: "POST",
        uri: URI,
        timestamp: "",
        body: r#"[{"eventId":1,"subscriptionId":12345,"portalId":62515,"occurredAt":1564113600000,"subscriptionType":"contact.creation","attemptNumber":0,"objectId":123,"changeSource":"CRM","changeFlag":"NEW","appId":54321}]"#,
        signature: "232db2615f3d666fe21a8ec971ac7b5402d33b9a925784df3ca654d05f4817de",
    },
    Vector {
        version: "v1",
        method: "POST",
        uri: URI,
        timestamp: "",
        body: "{'example_field':'example_value'}",
        signature: "69fc6631a867edd4f9e9e627fc5c1148e3fbdd8b21837b6d2b8901c1fa57f750",
    },
    Vector {
        version: "v2",
        method: "GET",
        uri: URI,
        timestamp: "",
        body: "",
        signature: "eee2dddcc73c94d699f5e395f4b9d454a069a6855fbfa152e91e88823087200e",
    },
    Vector {
        version: "v2",
        method: "POST",
        uri: URI,
        timestamp: "",
        body: r#"{"example_field":"example_value"}"#,
        signature: "9569219f8ba981ffa6f6f16aa0f48637d35d728c7e4d93d0d52efaa512af7900",
    },
    Vector {
        version: "v2",
        method: "POST",
        uri: URI,
        timestamp: "",
        body: "{'example_field':'example_value'}",
        signature: "4fe4e3a7d3cf09db53be39d0a58130e2aaba074ec123a9e355b876a689a1c383",
    },
    Vector {
        version: "v3",
        method: "POST",
        uri: URI,
        timestamp: "1693657560000",
        body: "{'example_field':'example_value'}",
        signature: "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y=",
    },
];

/// The parts of a delivery that are signed, and its signature.
#[derive(Clone)]
struct Parts {
    secret: Vec<u8>,
    method: Vec<u8>,
    uri: Vec<u8>,
    timestamp: Vec<u8>,
    body: Vec<u8>,
    signature: Vec<u8>,
}

impl Parts {
    fn of(vector: &Vector) -> Parts {
        Parts {
            secret: SECRET.into(),
            method: vector.method.into(),
            uri: vector.uri.into(),
            timestamp: vector.timestamp.into(),
            body: vector.body.into(),
            signature: vector.signature.into(),
        }
    }

    fn verify(&self, webhook: &WebhookDefinition, version: &str) -> Result<(), Unproven> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = match version {
            "v3" => "x-hubspot-signature-v3",
            _ => "x-hubspot-signature",
        };
        let mut headers = vec![(name.to_owned(), text(&self.signature))];
        if version == "v3" {
            headers.push(("x-hubspot-request-timestamp".into(), text(&self.timestamp)));
        }
        let (method, uri) = (text(&self.method), text(&self.uri));
        let delivery = Delivery {
            method: &method,
            uri: &uri,
            headers: &headers,
            body: &self.body,
        };
        let now_ms = 1_693_657_560_000 + 299_000;
        webhook.verify(
            Some(version),
            &[text(&self.secret)],
            None,
            now_ms,
            &delivery,
        )
    }
}

#[test]
fn the_vendors_vectors_verify_and_fail_with_any_byte_of_any_part_changed() {
    let definition = shipped_definition("hubspot");
    let webhook = definition.webhook().unwrap();
    for vector in &VECTORS {
        let right = Parts::of(vector);
        assert_eq!(right.verify(webhook, vector.version), Ok(()));
        type Part = (&'static str, fn(&mut Parts) -> &mut Vec<u8>);
        let mut signed: Vec<Part> = vec![
            ("secret", |parts| &mut parts.secret),
            ("body", |parts| &mut parts.body),
            ("signature", |parts| &mut parts.signature),
        ];
        if vector.version != "v1" {
            signed.push(("method", |parts| &mut parts.method));
            signed.push(("uri", |parts| &mut parts.uri));
        }
        if vector.version == "v3" {
            signed.push(("timestamp", |parts| &mut parts.timestamp));
        }
        for (name, part) in signed {
            for at in 0..part(&mut right.clone()).len() {
                for bit in [0x01, 0x20] {
                    let mut wrong = right.clone();
                    part(&mut wrong)[at] ^= bit;
                    let verified = wrong.verify(webhook, vector.version);
                    assert!(verified.is_err(), "{} {name} {at}", vector.version);
                }
            }
            let mut longer = right.clone();
            part(&mut longer).push(b'a');
            assert!(longer.verify(webhook, vector.version).is_err(), "{name}");
            let mut shorter = right.clone();
            if part(&mut shorter).pop().is_some() {
                assert!(shorter.verify(webhook, vector.version).is_err(), "{name}");
            }
        }
    }
}

#[test]
fn only_the_chosen_signature_is_believed() {
    let definition = shipped_definition("hubspot");
    let webhook = definition.webhook().unwrap();
    assert_eq!(webhook.signatures().collect::<Vec<_>>(), ["v3", "v2", "v1"]);
    // An old delivery, whose better signature was stripped off.
    let vector = &VECTORS[1];
    let headers = headers(&[("x-hubspot-signature", vector.signature)]);
    let delivery = post(URI, &headers, vector.body.as_bytes());
    let verified = webhook.verify(None, &[SECRET], None, NOW_MS, &delivery);
    assert_eq!(verified, Err(Unproven::Unsigned));
    let verified = webhook.verify(Some("v1"), &[SECRET], None, NOW_MS, &delivery);
    assert_eq!(verified, Ok(()));
    let verified = webhook.verify(Some("v9"), &[SECRET], None, NOW_MS, &delivery);
    assert_eq!(verified, Err(Unproven::Unsigned));
}

#[test]
fn a_delivery_is_fresh_within_its_tolerance_both_ways() {
    let definition = shipped_definition("hubspot");
    let webhook = definition.webhook().unwrap();
    let vector = &VECTORS[5];
    let signed_ms = 1_693_657_560_000_i64;
    let headers = headers(&[
        ("x-hubspot-signature-v3", vector.signature),
        ("x-hubspot-request-timestamp", vector.timestamp),
    ]);
    let delivery = post(URI, &headers, vector.body.as_bytes());
    for (late_ms, expected) in [
        (0, Ok(())),
        (300_000, Ok(())),
        (300_001, Err(Unproven::Stale)),
        (-300_000, Ok(())),
        (-300_001, Err(Unproven::Stale)),
    ] {
        let verified = webhook.verify(None, &[SECRET], None, signed_ms + late_ms, &delivery);
        assert_eq!(verified, expected, "{late_ms}");
    }
}

#[test]
fn any_of_several_secrets_will_do_while_they_are_rotated() {
    let definition = shipped_definition("hubspot");
    let webhook = definition.webhook().unwrap();
    let vector = &VECTORS[3];
    let headers = headers(&[("x-hubspot-signature", vector.signature)]);
    let delivery = post(URI, &headers, vector.body.as_bytes());
    let verify = |secrets: &[&str]| webhook.verify(Some("v2"), secrets, None, NOW_MS, &delivery);
    assert_eq!(verify(&["new", SECRET]), Ok(()));
    assert_eq!(verify(&[SECRET, "new"]), Ok(()));
    assert_eq!(verify(&["new", "newer"]), Err(Unproven::Forged));
    assert_eq!(verify(&[]), Err(Unproven::Forged));
}

#[test]
fn a_token_and_basic_credentials_are_compared_whole() {
    let token = signed_by("kind = \"token\"\nheader = \"x-token\"");
    let with = |value: &str| headers(&[("x-token", value)]);
    let verify = |value: &str| check(&token, &["s3cret"], &post(URI, &with(value), b"{}"));
    assert_eq!(verify("s3cret"), Ok(()));
    for wrong in ["", "s3cre", "s3cret ", "S3cret", "s3cretx"] {
        assert_eq!(verify(wrong), Err(Unproven::Forged), "{wrong:?}");
    }

    let basic = signed_by("kind = \"basic\"\nheader = \"authorization\"");
    // RFC 7617, section 2.
    let with = |value: &str| headers(&[("authorization", value)]);
    let verify = |value: &str| {
        let secrets = ["Aladdin:open sesame"];
        check(&basic, &secrets, &post(URI, &with(value), b"{}"))
    };
    assert_eq!(verify("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Ok(()));
    assert_eq!(verify("Basic QWxhZGRpbjpvcGVu"), Err(Unproven::Forged));
    assert_eq!(
        verify("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        Err(Unproven::Forged)
    );
}

#[test]
fn a_message_of_several_headers_and_a_prefix_verifies() {
    // The shape of Standard Webhooks; the hash by an independent tool:
    // printf 'm1.1795168800.{}' | openssl dgst -sha256 -hmac key -binary | base64
    let definition = signed_by(
        "kind = \"hmac_sha256\"\nheader = \"webhook-signature\"\nprefix = \"v1,\"\n\
         encoding = \"base64\"\nmessage = \"{header:webhook-id}.{timestamp}.{body}\"\n\
         timestamp = { header = \"webhook-timestamp\", unit = \"s\" }",
    );
    let headers = headers(&[
        ("webhook-id", "m1"),
        ("webhook-timestamp", "1795168800"),
        (
            "webhook-signature",
            "v1,T+qHEX4TQx9xbdvcHTEo/rG3F9NB81CVJL3XnY4sVA0=",
        ),
    ]);
    assert_eq!(
        check(&definition, &["key"], &post(URI, &headers, b"{}")),
        Ok(())
    );
    // The same key as the specification writes keys.
    let delivery = post(URI, &headers, b"{}");
    assert_eq!(check(&definition, &["whsec_a2V5"], &delivery), Ok(()));
    let unsigned = &headers[1..];
    let verified = check(&definition, &["key"], &post(URI, unsigned, b"{}"));
    assert_eq!(verified, Err(Unproven::Unsigned));
}

#[test]
fn a_signature_that_is_there_twice_is_none() {
    let definition = signed_by("kind = \"token\"\nheader = \"x-token\"");
    let headers = headers(&[("x-token", "wrong"), ("x-token", "s3cret")]);
    let verified = check(&definition, &["s3cret"], &post(URI, &headers, b"{}"));
    assert_eq!(verified, Err(Unproven::Unsigned));
}

#[test]
fn a_delivery_for_another_account_of_the_same_application_is_not_this_ones() {
    let definition = definition(&format!(
        "[webhook]\naccount = \"/portal\"\n[[webhook.signatures]]\nname = \"s\"\n\
         kind = \"token\"\nheader = \"x-token\"\n{EVENT}"
    ));
    let webhook = definition.webhook().unwrap();
    assert!(webhook.names_account());
    let headers = headers(&[("x-token", "t")]);
    let verify = |body: &str, account| {
        let delivery = post(URI, &headers, body.as_bytes());
        webhook.verify(None, &["t"], account, NOW_MS, &delivery)
    };
    let other = Err(Unproven::OtherAccount);
    assert_eq!(verify(r#"[{"portal":7},{"portal":7}]"#, Some("7")), Ok(()));
    assert_eq!(verify(r#"[{"portal":7},{"portal":8}]"#, Some("7")), other);
    assert_eq!(verify(r#"{"portal":"7"}"#, Some("7")), Ok(()));
    assert_eq!(verify("{}", Some("7")), other);
    assert_eq!(verify("not json", Some("7")), other);
    assert_eq!(verify("{}", None), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_arrives_unsigned_is_refused_without_harm(
        method in "[A-Z]{0,6}", uri in "\\PC{0,40}", signature in "\\PC{0,60}",
        timestamp in "[0-9+-]{0,20}", body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let definition = shipped_definition("hubspot");
        let webhook = definition.webhook().unwrap();
        let headers = headers(&[
            ("x-hubspot-signature-v3", &signature),
            ("x-hubspot-signature", &signature),
            ("x-hubspot-request-timestamp", &timestamp),
        ]);
        let delivery = Delivery { method: &method, uri: &uri, headers: &headers, body: &body };
        for version in webhook.signatures() {
            prop_assert!(webhook.verify(Some(version), &[SECRET], None, NOW_MS, &delivery).is_err());
        }
    }
}
