//! Deliveries of a simulated portal through the real program: taken once, over a kill, behind a
//! URL that is not the node's own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};

use serde_json::json;
use syncline_tests::process::{Config, Lines, Node, PATIENCE, Running, program, request};

const SECRET: &str = "the app's own secret";

#[test]
fn a_signed_delivery_is_taken_once_also_after_a_kill_and_a_changed_one_never() {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let public_url = format!("http://{}", proxy.local_addr().expect("it is bound"));
    let seen = capture(proxy);
    let portal = Portal::start(&format!("{public_url}/v1/webhooks/crm"));

    let folder = tempfile::tempdir().expect("a folder for secrets");
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        write_secret(&path, text);
        format!("file:{}", path.display())
    };
    let account = format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"http://{}\"\n\
         [providers.crm.auth]\nkind = \"bearer\"\ntoken = \"{}\"\n\
         [providers.crm.webhook]\nsecret = \"{}\"\nformer_secrets = [\"{}\"]\n\
         [objects.contact]\ndirection = \"in\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n\
         fields = [{{ local = \"last_name\", remote = \"lastname\" }}]\n",
        portal.addr,
        secret("token", "pat-1"),
        secret("new", "another secret"),
        secret("old", SECRET),
    );
    let config = Config::new().public_url(&public_url).with(&account);
    let mut node = Node::start(config);

    let edit = json!({ "object": "contacts", "operation": "create", "fields": { "lastname": "Lovelace" } });
    portal.edit(&edit);
    let delivery = seen.recv_timeout(PATIENCE).expect("the portal delivers");
    let status = |bytes: &[u8], node: &Node| send(node.http(), bytes);
    assert_eq!(status(&delivery, &node), 200);
    assert_eq!(counted(&node, "taken"), 1);
    assert_eq!(status(&delivery, &node), 200);
    assert_eq!(counted(&node, "duplicate"), 1);

    node.kill();
    node.restart();
    assert_eq!(status(&delivery, &node), 200);
    assert_eq!(
        (counted(&node, "taken"), counted(&node, "duplicate")),
        (0, 1)
    );

    // One byte of the value, then of the signature, then another account's path.
    let text = String::from_utf8(delivery.clone()).expect("text");
    let changed = text.replace("Lovelace", "Lovelase");
    assert_ne!(changed, text);
    assert_eq!(status(changed.as_bytes(), &node), 401);
    let forged = text.replace("x-hubspot-signature-v3: ", "x-hubspot-signature-v3: A");
    assert_ne!(forged, text);
    assert_eq!(status(forged.as_bytes(), &node), 401);
    let other = text.replace("/v1/webhooks/crm", "/v1/webhooks/other");
    assert_eq!(status(other.as_bytes(), &node), 404);
    let elsewhere = text.replace("/v1/webhooks/crm", "/v1/webhooks/crm?x=1");
    assert_eq!(status(elsewhere.as_bytes(), &node), 401);
    assert_eq!((counted(&node, "taken"), counted(&node, "forged")), (0, 3));
}

#[test]
fn of_two_contacts_that_were_merged_system_a_is_told_which_is_left() {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let public_url = format!("http://{}", proxy.local_addr().expect("it is bound"));
    let seen = capture(proxy);
    let portal = Portal::start(&format!("{public_url}/v1/webhooks/crm"));
    let folder = tempfile::tempdir().expect("a folder for secrets");
    let secret = folder.path().join("secret");
    write_secret(&secret, SECRET);
    let account = format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"http://{}\"\nsettle = \"200ms\"\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf pat-1\" }}\n\
         [providers.crm.webhook]\nsecret = \"file:{}\"\n\
         [objects.contact]\ndirection = \"both\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n\
         fields = [{{ local = \"last_name\", remote = \"lastname\" }},\n\
         {{ local = \"city\", remote = \"city\" }}]\n",
        portal.addr,
        secret.display(),
    );
    let node = Node::start(
        Config::new()
            .public_url(&public_url)
            .shards(2)
            .with(&account),
    );
    let mut lines = Lines::connect(node.tcp());
    lines.send("{\"subscribe\":{\"consumer\":\"billing\",\"objects\":[\"contact\"]}}\n");
    let mut told = |edit: serde_json::Value| {
        portal.edit(&edit);
        let delivery = seen.recv_timeout(PATIENCE).expect("the portal delivers");
        assert_eq!(send(node.http(), &delivery), 200);
        let change = lines.next_message().expect("the subscription goes on")["change"].clone();
        lines.send(format!("{{\"ack\":{{\"seq\":{}}}}}\n", change["seq"]));
        change
    };
    let create = |fields: serde_json::Value| json!({ "object": "contacts", "operation": "create", "fields": fields });
    let ada = told(create(json!({ "lastname": "Lovelace" })));
    let again = told(create(json!({ "lastname": "King", "city": "London" })));
    let (stays, ends) = (&ada["remote_id"], &again["remote_id"]);
    let first =
        told(json!({ "object": "contacts", "operation": "merge", "id": ends, "into": stays }));
    let second = lines.next_message().expect("the subscription goes on")["change"].clone();
    let deleted = [&first, &second]
        .into_iter()
        .find(|change| change["operation"] == "DELETE");
    let deleted = deleted.unwrap_or_else(|| panic!("{first} {second}"));
    assert_eq!(deleted["record_id"], again["record_id"]);
    assert_eq!(deleted["merged_into"], ada["record_id"]);
    let changed = [&first, &second]
        .into_iter()
        .find(|change| change["operation"] == "UPDATE");
    let changed = changed.unwrap_or_else(|| panic!("{first} {second}"));
    assert_eq!(changed["record_id"], ada["record_id"]);
    assert_eq!(changed["data"], json!({ "city": "London" }));
}

/// A simulated portal that notifies.
struct Portal {
    _running: Running,
    addr: SocketAddr,
}

impl Portal {
    fn start(webhook: &str) -> Portal {
        let mut command = Command::new(program());
        command.args(["mock", "hubspot", "--listen", "127.0.0.1:0"]);
        command.args(["--webhook", webhook, "--client-secret", SECRET]);
        let mut running = Running::start(&mut command);
        let line = running.next_line();
        let addr = line.trim().strip_prefix("listening http://");
        let addr = addr.and_then(|addr| addr.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("{line:?} names no address"));
        Portal {
            _running: running,
            addr,
        }
    }

    fn edit(&self, edit: &serde_json::Value) {
        let body = edit.to_string();
        let answer = request(self.addr, "POST", "/__mock/edit", body.as_bytes());
        assert_eq!(answer.map(|answer| answer.status), Some(200));
    }
}

/// Stands at the public URL: answers every request and hands it on as it came.
fn capture(listener: TcpListener) -> Receiver<Vec<u8>> {
    let (send, seen) = sync_channel(16);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let Some(request) = read_request(&mut stream) else {
                continue;
            };
            drop(
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                ),
            );
            if send.send(request).is_err() {
                return;
            }
        }
    });
    seen
}

fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_it = name.eq_ignore_ascii_case("content-length");
            is_it.then(|| value.trim().parse::<usize>().ok()).flatten()
        });
        if body.len() >= length.unwrap_or(0) {
            return Some(bytes);
        }
    }
}

/// Sends a request byte for byte; the status of the answer.
fn send(at: SocketAddr, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(at).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request).expect("the node reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("the node answers");
    let status = std::str::from_utf8(&answer[9..]).expect("a status line");
    status.parse().expect("a status")
}

fn counted(node: &Node, result: &str) -> u64 {
    let series = format!("syncline_webhooks_total{{provider=\"crm\",result=\"{result}\"}} ");
    let text = String::from_utf8(node.get("/metrics").body).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.map_or(0, |count| count.parse().expect("a count"))
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).expect("the folder is ours");
    let owner_only = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, owner_only).expect("the file is ours");
}
