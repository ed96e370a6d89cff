//! Changes as providers tell them: deliveries believed or not, lists read to their end.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod events;
mod lists;
mod proof;
mod shipped;
mod walk;

use bytes::Bytes;
use syncline_engine::provider::{BodyEnd, Definition, Delivery, Reply, ReplyHeaders};

/// A definition with nothing but these blocks.
fn definition(blocks: &str) -> Definition {
    let head = "[provider]\nid = \"x\"\nformat = 1\n[operations]\n\
                [objects.contact]\nremote = \"contacts\"\n[objects.deal]\nremote = \"deals\"\n";
    Definition::parse(&format!("{head}{blocks}")).unwrap()
}

fn shipped_definition(id: &str) -> Definition {
    Definition::parse(syncline_engine::provider::shipped(id).unwrap()).unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn post<'a>(uri: &'a str, headers: &'a [(String, String)], body: &'a [u8]) -> Delivery<'a> {
    Delivery {
        method: "POST",
        uri,
        headers,
        body,
    }
}

fn reply(status: u16, body: impl ToString) -> Reply {
    Reply {
        status,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::from(body.to_string()),
        body_end: BodyEnd::Complete,
    }
}
