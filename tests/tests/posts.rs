//! System A is told by signed posts, which it verifies as Standard Webhooks 1.0 says.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;
use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, PATIENCE, Provider};

/// The secret, as its owner keeps it.
const KEY: &[u8] = b"thirty-two bytes of a shared key";
/// How far a post's time may be off: what the specification's libraries allow.
const TOLERANCE_S: u64 = 5 * 60;

/// A post, and the connection that waits for its answer.
struct Post {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    stream: TcpStream,
}

impl Post {
    /// The message's id, if the signature over the raw body is the owner's.
    fn verified_id(&self) -> String {
        let header = |name: &str| {
            self.headers
                .get(name)
                .unwrap_or_else(|| panic!("no {name}"))
        };
        let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
        let at_s: u64 = at.parse().expect("seconds");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        assert!(now.as_secs().abs_diff(at_s) <= TOLERANCE_S, "{at_s}");
        let mut signed = format!("{id}.{at}.").into_bytes();
        signed.extend_from_slice(&self.body);
        let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
        let is_ours = header("webhook-signature").split(' ').any(|signature| {
            let encoded = signature.strip_prefix("v1,");
            let bytes = encoded.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
            bytes.is_some_and(|bytes| hmac::verify(&key, &signed, &bytes).is_ok())
        });
        assert!(is_ours, "{:?}", self.headers);
        let mut changed = signed;
        changed[0] ^= 1;
        let encoded = header("webhook-signature").trim_start_matches("v1,");
        let bytes = BASE64_STANDARD.decode(encoded).expect("base64");
        assert!(hmac::verify(&key, &changed, &bytes).is_err());
        id.clone()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a change is JSON")
    }

    fn answer(mut self, status: &str) {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        // Whoever asked may have been killed.
        drop(self.stream.write_all(answer.as_bytes()));
    }
}

/// System A's listener, and what is posted to it.
fn system_a() -> (SocketAddr, Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("it is bound");
    let (posts, seen) = sync_channel(16);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let posts: SyncSender<Post> = posts.clone();
            std::thread::spawn(move || read(stream).map(|post| posts.send(post)));
        }
    });
    (at, seen)
}

fn read(mut stream: TcpStream) -> Option<Post> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&part[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let headers: BTreeMap<String, String> = lines
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length: usize = headers.get("content-length")?.parse().ok()?;
        let body = &bytes[end + 4..];
        if body.len() >= length {
            let body = body.to_vec();
            return Some(Post {
                headers,
                body,
                stream,
            });
        }
    }
}

#[test]
fn posts_are_signed_and_come_again_under_their_id_until_they_are_taken() {
    let (at, posts) = system_a();
    let folder = tempfile::tempdir().expect("a folder for the secret");
    let secret = folder.path().join("secret");
    let written = format!("whsec_{}", BASE64_STANDARD.encode(KEY));
    std::fs::write(&secret, written).expect("the folder is ours");
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&secret, owner_only).expect("the file is ours");
    let provider = Provider::start_as("hubspot", &["--token", "t-1"]);
    let config = Config::new().shards(2).with(&format!(
        "[system_a]\nurl = \"http://{at}/changes\"\nsecret = \"file:{}\"\n\
         retry = {{ base_delay = \"20ms\", max_delay = \"200ms\" }}\n\
         [providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\n\
         poll = {{ interval = \"200ms\" }}\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
         [objects.contact]\ndirection = \"in\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\n\
         fields = [{{ local = \"last_name\", remote = \"lastname\" }}]\n",
        secret.display(),
        provider.url()
    ));
    let mut node = Node::start(config);
    let next = || posts.recv_timeout(PATIENCE).expect("a post");

    let made = provider.make("contacts", &json!({ "lastname": "Lovelace" }));
    let first = next();
    let id = first.verified_id();
    let change = first.json();
    assert_eq!(change["record_id"], format!("crm:{made}"), "{change}");
    assert_eq!(change["data"], json!({ "last_name": "Lovelace" }));
    first.answer("500 Internal Server Error");
    let again = next();
    assert_eq!(
        (again.verified_id(), again.json()),
        (id.clone(), change.clone())
    );

    // Killed while System A has it and has not answered: it comes once more, under the same id.
    node.kill();
    again.answer("200 OK");
    node.restart();
    let third = next();
    assert_eq!((third.verified_id(), third.json()), (id.clone(), change));
    third.answer("204 No Content");
    assert!(node.drain().is_empty());

    let other = provider.make("contacts", &json!({ "lastname": "Byron" }));
    let post = next();
    assert_ne!(post.verified_id(), id);
    assert_eq!(post.json()["record_id"], format!("crm:{other}"));
    post.answer("200 OK");
    assert!(node.drain().is_empty());
    assert!(
        posts.try_recv().is_err(),
        "what was taken is not posted again"
    );
}
