//! Deliveries reach the node byte for byte, and what it says of them reaches the provider.

#[path = "http/fake.rs"]
#[expect(dead_code, reason = "each test uses its part")]
mod fake;

use engine::refusal::Code;
use engine::view::Scope;
use fake::Server;
use syncline_net::http::WEBHOOK_BYTES_MAX;

const PATH: &str = "/v1/webhooks/crm";

#[test]
fn a_delivery_arrives_as_it_was_sent_and_is_answered_with_the_status_of_the_provider() {
    let server = Server::start();
    let body = "[ {\"a\":1.10 , \"b\":\"\\u00e4\"}\r\n]";
    let headers = "X-Signature: abc=\r\nX-Signature: def\r\nContent-Type: text/plain\r\n";
    let path = "/v1/webhooks/crm?portal=7&x=%20";
    let answer = server.ask("POST", path, headers, body);
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    let node = server.node.lock().unwrap();
    let delivery = &node.delivered[0];
    assert_eq!(delivery.body, body);
    assert_eq!(delivery.method, "POST");
    assert_eq!(delivery.path_and_query, path);
    assert_eq!(delivery.host, server.address.to_string());
    let signatures: Vec<_> = delivery
        .headers
        .iter()
        .filter(|(name, _)| name == "x-signature")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(signatures, ["abc=", "def"]);
}

#[test]
fn a_delivery_needs_no_key_and_everything_else_still_does() {
    let server = Server::start();
    let scope = Some(Scope::Admin);
    server.node.lock().unwrap().keys.insert("k".into(), scope);
    assert_eq!(server.post(PATH, "{}").status, 202);
    assert_eq!(server.post("/v1/pause", "{}").status, 401);
    assert_eq!(server.get(PATH).status, 401);
}

#[test]
fn what_the_node_refuses_is_told_with_its_status() {
    let server = Server::start();
    for (code, status) in [
        (Code::Unauthorized, 401),
        (Code::RateLimited, 429),
        (Code::Malformed, 400),
        (Code::Overloaded, 503),
        (Code::DiskFull, 507),
    ] {
        server.node.lock().unwrap().undeliverable = Some(code);
        let answer = server.post(PATH, "{}");
        assert_eq!(answer.status, status);
        let kind = format!("urn:syncline:problem:{}", code.as_str());
        assert_eq!(answer.json()["type"], kind);
    }
    assert_eq!(server.post("/v1/webhooks/other", "{}").status, 404);
    assert_eq!(server.get("/v1/webhooks/crm").status, 405);
}

#[test]
fn a_delivery_over_its_bound_is_refused_and_its_sender_sees_that() {
    let server = Server::start();
    let fits = " ".repeat(WEBHOOK_BYTES_MAX);
    assert_eq!(server.post(PATH, &fits).status, 202);
    assert_eq!(server.post(PATH, &format!("{fits} ")).status, 413);
    // More than lies in the buffers between the two, of a length that is told or not.
    let far_over = fits.repeat(12);
    assert_eq!(server.post(PATH, &far_over).status, 413);
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{far_over}\r\n0\r\n\r\n",
        server.address,
        far_over.len(),
    );
    assert_eq!(server.raw(&chunked).status, 413);
    let node = server.node.lock().unwrap();
    assert_eq!((node.delivered.len(), node.too_large), (1, 3));
}
