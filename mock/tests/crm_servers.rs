//! Each CRM account behind a real socket.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use syncline_mock::{AccountConfig, Credentials, ProviderKind, Server, ServerConfig, ServerHandle};

/// Long enough that only a server that hangs runs into it.
const PATIENCE: Duration = Duration::from_secs(20);

const TOKEN: &str = "t-1";

fn start(provider: ProviderKind, webhook: Option<String>) -> ServerHandle {
    let credentials = Credentials {
        tokens: vec![TOKEN.into()],
        client_secret: Some("secret".into()),
        ..Credentials::default()
    };
    let account = AccountConfig {
        provider,
        credentials,
        webhook,
        ..AccountConfig::default()
    };
    Server::start(ServerConfig {
        account,
        ..ServerConfig::default()
    })
    .unwrap()
}

/// Head in lower case and body of one message.
fn receive(stream: &mut BufReader<TcpStream>) -> (String, Vec<u8>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).map_or(0, |rest| {
        rest.split("\r\n").next().unwrap().parse().unwrap()
    });
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

fn call(server: &ServerHandle, line: &str, kind: &str, body: &str) -> (u16, String, Value) {
    let stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = BufReader::new(stream);
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: mock\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let (head, body) = receive(&mut stream);
    let status = head[9..12].parse().unwrap();
    (
        status,
        head,
        serde_json::from_slice(&body).unwrap_or_default(),
    )
}

fn page(server: &ServerHandle, name: &str) -> Value {
    call(server, &format!("GET /__mock/{name}"), "-", "").2
}

#[test]
fn salesforce_hands_out_a_session_and_counts_the_calls_of_the_day() {
    let server = start(ProviderKind::Salesforce, None);
    let form = "grant_type=client_credentials&client_id=app&client_secret=secret";
    let kind = "application/x-www-form-urlencoded";
    let (status, _, minted) = call(&server, "POST /services/oauth2/token", kind, form);
    assert_eq!(
        (status, &minted["instance_url"]),
        (200, &json!(server.base_url()))
    );
    let rows = json!({"records": [
        {"attributes": {"type": "Contact"}, "External_Id__c": "c-1", "LastName": "A"},
        {"attributes": {"type": "Contact"}, "External_Id__c": "c-2"},
    ]});
    let line = "PATCH /services/data/v62.0/composite/sobjects/Contact/External_Id__c";
    let (status, head, rows) = call(&server, line, "application/json", &rows.to_string());
    assert_eq!(status, 200);
    assert!(
        head.contains("sforce-limit-info: api-usage=1/100000\r\n"),
        "{head}"
    );
    assert_eq!(
        (&rows[0]["success"], &rows[1]["success"]),
        (&json!(true), &json!(false))
    );
    let records = page(&server, "records");
    assert_eq!(
        records["records"],
        json!([{
            "object": "Contact", "id": rows[0]["id"], "external_id": "c-1",
            "fields": {"External_Id__c": "c-1", "LastName": "A"},
        }])
    );
    let calls = page(&server, "journal");
    assert_eq!(calls["calls"][1]["records"], 2);
}

#[test]
fn hubspot_notifies_of_changes_under_a_signature() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
    let server = start(ProviderKind::HubSpot, Some(hook));
    let body = json!({"properties": {"external_id": "c-1"}}).to_string();
    let line = "POST /crm/v3/objects/contacts";
    let (status, head, shown) = call(&server, line, "application/json", &body);
    assert_eq!(status, 201);
    assert!(
        head.contains("x-hubspot-ratelimit-remaining: 189\r\n"),
        "{head}"
    );

    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = BufReader::new(stream);
    let (head, body) = receive(&mut stream);
    assert!(head.starts_with("post /hook?a=b http/1.1\r\n"), "{head}");
    assert!(head.contains("x-hubspot-signature-v3: "), "{head}");
    let events: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        events[0]["objectId"].to_string(),
        shown["id"].as_str().unwrap()
    );
    stream
        .get_mut()
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    drop(stream);
    let taken = json!({"waiting": 0, "sent": 1, "acknowledged": 2, "given_up": 0});
    while page(&server, "webhooks") != taken {
        std::thread::yield_now();
    }

    let edit = json!({"object": "contacts", "operation": "delete", "id": shown["id"]});
    let line = "POST /__mock/edit";
    let (status, _, edited) = call(&server, line, "application/json", &edit.to_string());
    assert_eq!((status, &edited["id"]), (200, &shown["id"]));
    assert_eq!(page(&server, "records"), json!({"records": []}));
    assert_eq!(
        call(&server, line, "application/json", &edit.to_string()).0,
        400
    );
}

#[test]
fn outreach_asks_for_its_content_type_and_tells_what_is_left_of_the_hour() {
    let server = start(ProviderKind::Outreach, None);
    let body = json!({"data": {"type": "prospect", "attributes": {"firstName": "Ada"}}});
    let line = "POST /api/v2/prospects";
    let (status, _, _) = call(&server, line, "application/json", &body.to_string());
    assert_eq!(status, 415);
    let kind = "application/vnd.api+json";
    let (status, head, shown) = call(&server, line, kind, &body.to_string());
    assert_eq!((status, &shown["data"]["id"]), (201, &json!(1)));
    assert!(
        head.contains("content-type: application/vnd.api+json\r\n"),
        "{head}"
    );
    assert!(head.contains("x-ratelimit-remaining: 9998\r\n"), "{head}");
    let link = shown["data"]["links"]["self"].as_str().unwrap();
    assert!(link.starts_with(&server.base_url()), "{link}");
}

#[test]
fn pipedrive_takes_payment_in_tokens() {
    let server = start(ProviderKind::Pipedrive, None);
    let body = json!({"name": "Ada", "custom_fields": {"external_id": "c-1"}}).to_string();
    let line = "POST /api/v2/persons";
    let (status, head, shown) = call(&server, line, "application/json", &body);
    assert_eq!((status, &shown["data"]["id"]), (200, &json!(1)));
    assert!(
        head.contains("x-daily-ratelimit-token-remaining: 29995\r\n"),
        "{head}"
    );
    assert_eq!(page(&server, "records")["records"][0]["external_id"], "c-1");
    let (status, ..) = call(&server, "POST /__mock/expire", "-", "");
    assert_eq!(status, 204);
    let (status, ..) = call(&server, "GET /__mock/expire", "-", "");
    assert_eq!(status, 405);
}
