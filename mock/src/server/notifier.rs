//! Sends an account's notifications.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::books::Books;
use crate::webhook::{Delivered, Delivery};

/// How long a caller may take to answer (HubSpot and Outreach both give 5 s).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends one notification and tells the account how it ended.
pub(super) async fn deliver(books: Arc<Books>, delivery: Delivery) {
    let id = delivery.id;
    let sent = tokio::time::timeout(ANSWER_TIMEOUT, send(delivery)).await;
    let outcome = match sent {
        Ok(Some(status)) => Delivered::Answered(status),
        Ok(None) | Err(_) => Delivered::Unreachable,
    };
    books.with_account(|now, account| account.delivered(now, id, outcome));
}

/// The status answered; `None` when nobody answers at that URL.
async fn send(delivery: Delivery) -> Option<u16> {
    let uri: http::Uri = delivery.url.parse().ok()?;
    let authority = uri.authority()?.clone();
    let port = authority.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((authority.host(), port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = http::Request::post(path).header("host", authority.as_str());
    for (name, value) in delivery.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::<Bytes>::new(delivery.body)).ok()?;
    let exchange = async {
        let answer = sender.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        // Read to its end, so that the caller sees an orderly close.
        answer.into_body().collect().await.ok()?;
        drop(sender);
        Some(status)
    };
    let (status, ended) = tokio::join!(exchange, connection);
    ended.ok().and(status)
}
