//! Changes of accounts, written into System A's tables.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use engine::json::RawObject;
use engine::provider::{BodyEnd, NoReply, NotSent, Reply, ReplyHeaders, SendFailure};
use postgres::{Outcome, Sink, SinkSettings, TableName, Write, WriteOperation};
use tokio::sync::{mpsc, oneshot, watch};

use super::{ChangeJson, RETRY_MAX, RETRY_MIN, Written};

/// Changes written in one transaction at most.
const BATCH_MAX: usize = 256;
/// Changes offered and not written; each is an open call of the account `system_a`, whose slots
/// bound them further.
const OFFERS_MAX: usize = 4096;

/// Where shards offer changes.
#[derive(Debug)]
pub(crate) struct Tables {
    offers: mpsc::Sender<Offer>,
    taken: Mutex<Option<mpsc::Receiver<Offer>>>,
    settings: SinkSettings,
    by_object: BTreeMap<String, TableName>,
}

#[derive(Debug)]
struct Offer {
    change: ChangeJson,
    written: oneshot::Sender<Written>,
}

impl Tables {
    pub(super) fn new(settings: SinkSettings, by_object: BTreeMap<String, TableName>) -> Tables {
        let (offers, taken) = mpsc::channel(OFFERS_MAX);
        Tables {
            offers,
            taken: Mutex::new(Some(taken)),
            settings,
            by_object,
        }
    }

    /// Writes a change; answers when it is committed.
    pub(crate) async fn write(&self, change: ChangeJson) -> Written {
        let (written, answer) = oneshot::channel();
        let offer = Offer { change, written };
        if self.offers.send(offer).await.is_err() {
            return Err(not_sent());
        }
        answer.await.unwrap_or_else(|_| Err(not_sent()))
    }

    /// Writes what is offered until told to stop.
    pub(super) async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let taken = self.taken.lock();
        let taken = taken.unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut offers) = taken else { return };
        let mut sink: Option<Sink> = None;
        let mut delay = RETRY_MIN;
        let mut batch: Vec<Offer> = Vec::new();
        loop {
            batch.clear();
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                count = offers.recv_many(&mut batch, BATCH_MAX) => if count == 0 { break },
            }
            let open = match sink.take() {
                Some(open) => Ok(open),
                None => Sink::open(self.settings.clone()).await,
            };
            let done = match open {
                Ok(mut open) => {
                    let done = self.write_batch(&mut open, &batch).await;
                    sink = done.is_ok().then_some(open);
                    done
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(replies) => {
                    delay = RETRY_MIN;
                    for (offer, reply) in batch.drain(..).zip(replies) {
                        // The shard that asked may be gone.
                        drop(offer.written.send(reply));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "System A's tables cannot be written; tried again");
                    for offer in batch.drain(..) {
                        drop(offer.written.send(Err(unclear(&error))));
                    }
                    let pause = tokio::time::sleep(delay);
                    tokio::select! {
                        _ = stopped.wait_for(|stop| *stop) => break,
                        () = pause => {}
                    }
                    delay = (delay * 2).min(RETRY_MAX);
                }
            }
        }
        if let Some(sink) = sink {
            sink.close().await;
        }
    }

    async fn write_batch(
        &self,
        sink: &mut Sink,
        batch: &[Offer],
    ) -> Result<Vec<Written>, postgres::Error> {
        let first = sink.applied() + 1;
        let mut writes = Vec::with_capacity(batch.len());
        let mut replies: Vec<Option<Written>> = Vec::with_capacity(batch.len());
        for (offer, seq) in batch.iter().zip(first..) {
            match self.write_of(seq, &offer.change) {
                Ok(write) => {
                    writes.push(write);
                    replies.push(None);
                }
                Err(detail) => replies.push(Some(Ok(reply(422, detail)))),
            }
        }
        let mut outcomes = Vec::with_capacity(writes.len());
        while outcomes.len() < writes.len() {
            // It stops behind a refusal, and where a transaction would grow too large.
            let more = sink.apply(&writes[outcomes.len()..]).await?;
            if more.is_empty() {
                break;
            }
            outcomes.extend(more);
        }
        let mut outcomes = outcomes.into_iter();
        let answered = replies.into_iter().map(|answer| {
            answer.unwrap_or_else(|| match outcomes.next() {
                Some(Outcome::Applied | Outcome::AlreadyApplied) => Ok(reply(200, "")),
                Some(Outcome::Refused(refusal)) => Ok(reply(422, &refusal.to_string())),
                None => Err(not_sent()),
            })
        });
        Ok(answered.collect())
    }

    fn write_of(&self, seq: u64, change: &ChangeJson) -> Result<Write, &'static str> {
        let text = std::str::from_utf8(change).map_err(|_| "not UTF-8")?;
        let change = RawObject::new(text).ok_or("no object")?;
        let member = |name: &str| change.get(name).and_then(|value| value.as_text());
        let object = member("object").ok_or("no object name")?;
        let table = self
            .by_object
            .get(&*object)
            .ok_or("no table of this object")?;
        let operation = match member("operation").as_deref() {
            Some("DELETE") => WriteOperation::Delete,
            _ => WriteOperation::Upsert,
        };
        let data = change.get("data").map_or("{}", |data| data.text());
        Ok(Write {
            seq,
            table: table.clone(),
            key: member("record_id").ok_or("no record id")?.into_owned(),
            operation,
            data: data.to_owned(),
        })
    }
}

fn reply(status: u16, detail: &str) -> Reply {
    let body = if detail.is_empty() {
        Bytes::new()
    } else {
        Bytes::from(serde_json::json!({ "error": detail }).to_string())
    };
    Reply {
        status,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body,
        body_end: BodyEnd::Complete,
    }
}

fn not_sent() -> SendFailure {
    SendFailure::BeforeSent {
        cause: NotSent::Connect,
        detail: "System A's database is not being written".to_owned(),
    }
}

/// A commit whose answer was lost may have taken place.
fn unclear(error: &postgres::Error) -> SendFailure {
    SendFailure::AfterSent {
        cause: NoReply::Closed,
        detail: error.to_string(),
    }
}
