//! Between the shards, which offer changes, and System A's consumers, which acknowledge them.

mod consumer;
mod desk;
mod roster;
mod spill;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use engine::json::RawObject;
use engine::provider::{BodyEnd, NotSent, Reply, ReplyHeaders, SendFailure};
use engine::refusal::{Code, Refusal};
use engine::view::ConsumerView;
use net::subscription::{NeverSent, Over, Seat, Subscription, Taken};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use consumer::{Consumer, Next, Wish};
use roster::Roster;
use spill::Spill;

pub(crate) use desk::{Arrivals, Desk};

/// Consumers known by name at most; each holds a number for every offer that waits.
const CONSUMERS_MAX: usize = 256;
/// Between two writes of the roster for nothing but acks, which only a listing shows.
const ACKS_EVERY: Duration = Duration::from_secs(1);
/// Between two looks for consumers that are away, at most.
const ABSENT_LOOK: Duration = Duration::from_secs(1);
/// After a write that failed.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Every change that is on its way to System A, and everyone who has to have it.
///
/// What is offered at once is bounded where it is called: each offer is an open call of the
/// account `system_a`, and holds one of the slots that the coordinator grants it
/// (`max_in_flight`). Of one record there is never more than one.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    roster: Roster,
    data_dir: PathBuf,
    /// How long a consumer may be away before what waits for it goes to disk.
    absent_after: Duration,
    /// Held while the roster is written, so that an older one never replaces a newer one.
    writing: Mutex<()>,
    /// What the keeper is to write at once.
    urgent: Notify,
    /// What it may write later.
    acked: Notify,
}

#[derive(Debug, Default)]
struct State {
    consumers: BTreeMap<Arc<str>, Consumer>,
    offers: BTreeMap<OfferId, Offer>,
    last_offer: u64,
    last_seat: u64,
    /// Counts what has to be durable before a consumer is given more.
    version: u64,
    /// The version on disk.
    durable: u64,
    /// Objects of which changes wait and that nobody takes, told once each.
    unclaimed: BTreeSet<String>,
    stopped: bool,
}

/// Offers in the order of their arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OfferId(u64);

/// A change until everyone has it.
#[derive(Debug)]
struct Offer {
    object: String,
    /// The members of the change, as JSON behind an opening brace.
    change: Bytes,
    since: Instant,
    /// Consumers that have not acknowledged it.
    missing: usize,
    /// Some consumer has.
    arrived: bool,
    done: oneshot::Sender<Result<Reply, SendFailure>>,
}

impl Feed {
    /// The feed of a data directory, with the consumers it knows.
    ///
    /// # Errors
    /// When what it knows cannot be read.
    pub(crate) fn open(data_dir: &Path, absent_after: Duration) -> io::Result<Feed> {
        let roster = Roster::of(data_dir);
        let mut consumers = roster.read()?;
        for (name, consumer) in &mut consumers {
            consumer.keep_in(Spill::open(data_dir, name)?);
        }
        Ok(Feed {
            state: Mutex::new(State {
                consumers,
                ..State::default()
            }),
            roster,
            data_dir: data_dir.to_owned(),
            absent_after,
            writing: Mutex::default(),
            urgent: Notify::new(),
            acked: Notify::new(),
        })
    }

    /// Offers a change to all consumers that take its object, and waits until each of them has
    /// acknowledged it, however long that takes; while there is none, for one to come.
    pub(crate) async fn offer(&self, change: Bytes) -> Result<Reply, SendFailure> {
        let done = self.state().offer(change)?;
        done.await.unwrap_or_else(|_| Err(not_sent()))
    }

    /// Ends all offers as not sent and all subscriptions.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        for offer in std::mem::take(&mut state.offers).into_values() {
            // A shard that is gone needs no answer.
            drop(offer.done.send(Err(not_sent())));
        }
        for consumer in state.consumers.values_mut() {
            consumer.forget_offers();
            consumer.wake();
        }
    }

    /// Keeps what was acknowledged, and gives numbers back that were set aside and not used.
    ///
    /// # Errors
    /// The disk refused; the next start counts on from the numbers set aside.
    pub(crate) fn close(&self) -> io::Result<()> {
        debug_assert!(self.state().stopped, "nobody is given a number any more");
        self.write(Consumer::at_rest)
    }

    /// The consumers that are known.
    pub(crate) fn consumers(&self) -> Vec<ConsumerView> {
        let state = self.state();
        let consumers = state.consumers.iter();
        let lag = |consumer: &Consumer| {
            let spilled = consumer.spilled_since();
            let offered = || Some(state.offers.get(&consumer.oldest()?)?.since);
            Some(spilled.or_else(offered)?.elapsed())
        };
        consumers
            .map(|(name, consumer)| consumer.view(name, lag(consumer).unwrap_or_default()))
            .collect()
    }

    /// Forgets a consumer, for good once this returns; nothing waits for it any more.
    ///
    /// # Errors
    /// The disk refused: the consumer is gone, and may be known again after the next start.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Refusal> {
        {
            let mut state = self.state();
            let Some(mut consumer) = state.consumers.remove(name) else {
                return Ok(false);
            };
            state.version += 1;
            for id in consumer.forget_offers() {
                state.release(id, false);
            }
            consumer.wake();
            if let Err(error) = consumer.forget_spill() {
                tracing::warn!(consumer = name, %error, "its changes on disk cannot be removed");
            }
        }
        tracing::info!(consumer = name, "a consumer was removed");
        self.write(Consumer::ahead).map_err(|error| {
            tracing::error!(%error, "the consumers cannot be written");
            Refusal::new(Code::DiskFull, "the consumers cannot be written to disk")
        })?;
        Ok(true)
    }

    /// Writes the roster whenever something in it changed, until the runtime ends.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.urgent.notified() => {}
                () = async {
                    self.acked.notified().await;
                    tokio::time::sleep(ACKS_EVERY).await;
                } => {}
            }
            let feed = self.clone();
            let written = tokio::task::spawn_blocking(move || feed.write(Consumer::ahead)).await;
            if let Ok(Err(error)) = written {
                tracing::error!(%error, "the consumers cannot be written; none gets a new number");
                tokio::time::sleep(RETRY_EVERY).await;
                self.urgent.notify_one();
            }
        }
    }

    /// Keeps changes on disk for consumers that stay away, until the runtime ends.
    pub(crate) async fn watch_absent(self: Arc<Self>) {
        loop {
            tokio::time::sleep(ABSENT_LOOK.min(self.absent_after)).await;
            let feed = self.clone();
            // It waits for the disk, and others live on this thread.
            if let Err(error) = tokio::task::spawn_blocking(move || feed.spill_absent()).await {
                tracing::error!(%error, "changes for absent consumers are not kept on disk");
            }
        }
    }

    /// Moves what waits for absent consumers to disk, so that it holds nobody else back.
    fn spill_absent(&self) {
        let mut state = self.state();
        if state.stopped {
            return;
        }
        let State {
            consumers, offers, ..
        } = &mut *state;
        let mut released = Vec::new();
        for (name, consumer) in consumers {
            if !consumer.holds_others_back(self.absent_after) {
                continue;
            }
            let ids = consumer.offers();
            let changes = ids.iter().filter_map(|id| offers.get(id));
            let changes: Vec<Bytes> = changes.map(|offer| offer.change.clone()).collect();
            match consumer.spill(&changes) {
                Ok(true) => released.extend(ids),
                Ok(false) => {
                    tracing::warn!(
                        consumer = &**name,
                        "as much as may waits on disk for a consumer that is away: it holds others back"
                    );
                }
                Err(error) => {
                    tracing::error!(consumer = &**name, %error, "changes for a consumer that is away cannot be kept on disk");
                }
            }
        }
        for id in released {
            state.release(id, true);
        }
    }

    /// Makes the roster durable, with as many numbers set aside for each consumer as `numbers`
    /// says.
    fn write(&self, numbers: fn(&Consumer) -> u64) -> io::Result<()> {
        let _only_one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, text) = {
            let mut state = self.state();
            for consumer in state.consumers.values_mut() {
                consumer.promised = numbers(consumer);
            }
            (state.version, roster::encode(&state.consumers))
        };
        self.roster.replace(&text)?;
        let mut state = self.state();
        state.durable = version;
        for consumer in state.consumers.values_mut() {
            // One that came meanwhile was promised nothing.
            consumer.reserved = consumer.promised;
            consumer.wake();
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl net::subscription::Feed for Feed {
    fn subscribe(&self, subscription: &Subscription) -> Result<Seat, Refusal> {
        let mut state = self.state();
        let seat = state.subscribe(subscription)?;
        let consumer = state.consumers.get_mut(&seat.consumer);
        if let Some(consumer) = consumer.filter(|consumer| !consumer.has_spill()) {
            match Spill::open(&self.data_dir, &seat.consumer) {
                Ok(spill) => consumer.keep_in(spill),
                Err(error) => {
                    tracing::error!(consumer = &*seat.consumer, %error, "changes cannot be kept on disk for it");
                }
            }
        }
        if state.version > state.durable {
            self.urgent.notify_one();
        }
        Ok(seat)
    }

    fn take(&self, seat: &Seat, out: &mut Vec<u8>) -> Taken {
        let mut state = self.state();
        let State {
            consumers,
            offers,
            durable,
            stopped,
            ..
        } = &mut *state;
        if *stopped {
            return Taken::Over(Over::Stopping);
        }
        let Some(consumer) = consumers.get_mut(&seat.consumer) else {
            return Taken::Over(Over::Removed);
        };
        if !consumer.has_seat(seat) {
            return Taken::Over(Over::Replaced);
        }
        if consumer.since > *durable {
            return Taken::Nothing;
        }
        let before = out.len();
        while out.len() - before < net::subscription::OUTPUT_BYTES
            && let Some((seq, next)) = consumer.next()
        {
            match next {
                Next::Offer(id) => {
                    let offer = offers.get(&id).expect("an offer stays until it is taken");
                    write_line(out, seq, &offer.change);
                }
                Next::Spilled(change) => write_line(out, seq, &change),
            }
        }
        if consumer.wants_numbers() {
            self.urgent.notify_one();
        }
        if out.len() == before {
            Taken::Nothing
        } else {
            Taken::Changes
        }
    }

    fn ack(&self, seat: &Seat, seq: u64) -> Result<(), NeverSent> {
        let mut state = self.state();
        let Some(consumer) = state.consumers.get_mut(&seat.consumer) else {
            return Ok(());
        };
        if !consumer.has_seat(seat) {
            return Ok(());
        }
        let arrived = consumer.ack(seq)?;
        if !arrived.is_empty() {
            // The window may have been full.
            consumer.wake();
            self.acked.notify_one();
        }
        for id in arrived {
            state.release(id, true);
        }
        Ok(())
    }

    fn leave(&self, seat: &Seat) {
        let mut state = self.state();
        if let Some(consumer) = state.consumers.get_mut(&seat.consumer) {
            consumer.leave(seat);
        }
    }
}

impl State {
    fn offer(
        &mut self,
        change: Bytes,
    ) -> Result<oneshot::Receiver<Result<Reply, SendFailure>>, SendFailure> {
        if self.stopped {
            return Err(not_sent());
        }
        let text = std::str::from_utf8(&change).ok();
        let object = text
            .and_then(RawObject::new)
            .and_then(|change| change.get("object"))
            .and_then(|object| object.as_text());
        let Some(object) = object.map(|object| object.into_owned()) else {
            return Err(SendFailure::BeforeSent {
                cause: NotSent::Unsendable,
                detail: "the change names no object".to_owned(),
            });
        };
        self.last_offer += 1;
        let id = OfferId(self.last_offer);
        let takers = self.consumers.values_mut();
        let mut missing = 0;
        for consumer in takers.filter(|consumer| consumer.wish.takes(&object)) {
            consumer.expect(id);
            missing += 1;
        }
        if missing == 0 && self.unclaimed.insert(object.clone()) {
            tracing::warn!(
                object,
                "changes wait: no consumer has subscribed to this object"
            );
        }
        let (done, waiting) = oneshot::channel();
        let offer = Offer {
            object,
            change: change.slice(1..),
            since: Instant::now(),
            missing,
            arrived: false,
            done,
        };
        self.offers.insert(id, offer);
        Ok(waiting)
    }

    fn subscribe(&mut self, subscription: &Subscription) -> Result<Seat, Refusal> {
        if self.stopped {
            return Err(Refusal::new(Code::ShardDown, "the node is stopping"));
        }
        let name: Arc<str> = subscription.consumer.as_str().into();
        if !self.consumers.contains_key(&name) && self.consumers.len() >= CONSUMERS_MAX {
            let detail = "256 consumers are known; remove one that is not used any more";
            return Err(Refusal::new(Code::Overloaded, detail));
        }
        self.last_seat += 1;
        let seat = Seat {
            id: self.last_seat,
            consumer: name.clone(),
            wake: Arc::default(),
        };
        let wish = Wish::of(subscription.objects.as_deref());
        let known = self.consumers.get(&name);
        let former = known.map(|consumer| consumer.wish.clone());
        let consumer = self.consumers.entry(name).or_default();
        consumer.sit(seat.clone());
        if former.as_ref() == Some(&wish) {
            return Ok(seat);
        }
        self.version += 1;
        consumer.since = self.version;
        consumer.wish = wish;
        let mut unwanted = Vec::new();
        for (&id, offer) in &mut self.offers {
            let took = former
                .as_ref()
                .is_some_and(|wish| wish.takes(&offer.object));
            match (took, consumer.wish.takes(&offer.object)) {
                (false, true) => {
                    offer.missing += 1;
                    consumer.expect(id);
                }
                (true, false) => unwanted.push(id),
                (true, true) | (false, false) => {}
            }
        }
        unwanted.retain(|&id| consumer.forget(id));
        for id in unwanted {
            self.release(id, false);
        }
        Ok(seat)
    }

    /// One consumer needs an offer no more: it has it, or does not want it.
    fn release(&mut self, id: OfferId, arrived: bool) {
        let Some(offer) = self.offers.get_mut(&id) else {
            return;
        };
        offer.missing -= 1;
        offer.arrived |= arrived;
        if offer.missing == 0
            && offer.arrived
            && let Some(offer) = self.offers.remove(&id)
        {
            // A shard that is gone reads from its log what it has to offer again.
            drop(offer.done.send(Ok(taken())));
        }
    }
}

/// `change` begins behind its opening brace.
fn write_line(out: &mut Vec<u8>, seq: u64, change: &[u8]) {
    out.extend_from_slice(b"{\"change\":{\"seq\":");
    engine::json::write_integer(out, seq);
    out.push(b',');
    out.extend_from_slice(change);
    out.extend_from_slice(b"}\n");
}

fn taken() -> Reply {
    Reply {
        status: 200,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::new(),
        body_end: BodyEnd::Complete,
    }
}

fn not_sent() -> SendFailure {
    SendFailure::BeforeSent {
        cause: NotSent::Closed,
        detail: "the node stops before every consumer had it".to_owned(),
    }
}

#[cfg(test)]
mod tests;
