//! What is told to System A by HTTP: signed, in order, again until it is taken.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider};

/// Takes posts on one connection after the other, answers each with the next status, and tells of it.
fn receiver(statuses: &'static [u16]) -> (SocketAddr, Receiver<(String, Value)>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (told, posts) = channel();
    thread::spawn(move || {
        let mut statuses = statuses.iter().copied();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            let mut chunk = [0; 4096];
            let (head, body) = loop {
                let read = stream.read(&mut chunk).unwrap();
                bytes.extend_from_slice(&chunk[..read]);
                let text = String::from_utf8_lossy(&bytes).to_lowercase();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let length = head.split("content-length: ").nth(1).unwrap();
                let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
                if body.len() >= length {
                    let body = bytes[bytes.len() - length..].to_vec();
                    break (head.to_owned(), serde_json::from_slice(&body).unwrap());
                }
            };
            let status = statuses.next().unwrap_or(204);
            let answer =
                format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
            told.send((head, body)).unwrap();
        }
    });
    (at, posts)
}

#[test]
fn system_a_is_told_of_a_change_of_its_own_that_crossed_another_until_it_takes_it() {
    let provider = Provider::start(&[]);
    let (at, _posts) = receiver(&[503, 204]);
    let config = Config::new()
        .account("crm", &provider.url(), "")
        .with(&format!(
            "[objects.contact]\ndirection = \"both\"\n\
         [system_a]\nurl = \"http://{at}/changes\"\n"
        ));
    let node = Node::start(config);
    let event = json!({"operation": "UPSERT", "object": "contact", "record_id": "c-1",
        "data": {"name": "Ada"}});
    assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
    assert!(node.drain().is_empty());
    assert_eq!(provider.records()["contact/c-1"], json!({"name": "Ada"}));
    // Saying it again says nothing new: no call.
    let calls = provider.journal().len();
    assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
    assert!(node.drain().is_empty());
    assert_eq!(provider.journal().len(), calls);
    let status = node.get("/v1/sync/status/c-1").json();
    assert_eq!(status["providers"][0]["reason"], "unchanged", "{status}");
}
