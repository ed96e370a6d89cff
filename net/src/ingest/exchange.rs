//! What both encodings share: numbers, batches, acknowledgements and the end of a session.

use std::sync::Arc;

use engine::refusal::{Code, Refusal};

use super::answer::{AckBody, Answer, ErrorBody, RejectBody, WelcomeBody, write_json};
use super::frame::{self, Kind};
use super::in_flight::InFlight;
use super::intake::{BatchId, Greeting, Intake, Producer, SessionId, Settled, Welcome};
use super::line::{Hello, Subscribe};
use super::numbering::{Numbering, Place};
use super::session::SessionLimits;
use crate::subscription::Subscription;

/// The state of one session behind its encoding.
#[derive(Debug)]
pub(crate) struct Exchange {
    id: SessionId,
    limits: SessionLimits,
    encoding: Encoding,
    /// `None` until the intake has welcomed the session.
    producer: Option<Producer>,
    /// The key of the hello, for a subscription behind it.
    key: Option<String>,
    subscribable: bool,
    numbering: Numbering,
    batch: OpenBatch,
    /// The open batch could not be handed over; nothing is staged until it is.
    busy: bool,
    in_flight: InFlight,
    window: Window,
    acks: Acks,
    phase: Phase,
    out: Vec<u8>,
    /// Bytes taken by the driver and not written yet.
    writing_bytes: usize,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Lines,
    Frames,
}

/// Events staged since the last dispatch.
#[derive(Debug, Default)]
struct OpenBatch {
    /// Highest number staged or refused; `None`: there is nothing to hand over.
    last_seq: Option<u64>,
    refused: Vec<(u64, Code)>,
    bytes: u64,
}

/// Bytes of events received and not settled. All counts run from the session's start, so that a
/// credit is a total and cannot drift.
#[derive(Debug, Default)]
struct Window {
    received: u64,
    freed: u64,
    /// The credit last told to the client; frames only.
    granted: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Acks {
    settled: u64,
    told: u64,
    /// The client sent something that is covered already, and may have missed the ack.
    again: bool,
}

#[derive(Debug)]
enum Phase {
    Open,
    /// The client subscribed: nothing more is read, and the rest is not this session's.
    Leaving(Subscription),
    /// Nothing more is read; what is in flight is acknowledged, then the farewell follows.
    Ending(Vec<u8>),
    /// The farewell, if any, is the last thing to be written.
    Over,
}

/// What a hello led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeted {
    Yes,
    /// To be said again later.
    Later,
    No,
}

impl Exchange {
    pub(crate) fn new(id: SessionId, limits: SessionLimits) -> Self {
        Exchange {
            id,
            limits,
            encoding: Encoding::Lines,
            producer: None,
            key: None,
            subscribable: false,
            numbering: Numbering::default(),
            batch: OpenBatch::default(),
            busy: false,
            in_flight: InFlight::default(),
            window: Window::default(),
            acks: Acks::default(),
            phase: Phase::Open,
            out: Vec::new(),
            writing_bytes: 0,
        }
    }

    pub(crate) fn speak(&mut self, encoding: Encoding) {
        self.encoding = encoding;
    }

    pub(crate) fn allow_subscriptions(&mut self) {
        self.subscribable = true;
    }

    /// The client wants changes from here on.
    pub(crate) fn subscribe(&mut self, wish: &Subscribe<'_>) {
        if self.window.received > 0 || self.batch.last_seq.is_some() {
            return self.end_with(
                Code::Malformed,
                "subscribe comes first, or right behind the hello",
            );
        }
        if let Some((pointer, fault)) = wish.fault() {
            let refusal = Refusal::at(Code::InvalidField, pointer, fault);
            return self.end(&Answer::Error(ErrorBody::refused(&refusal)));
        }
        if !self.subscribable {
            return self.end_as("not_available", "this node has no changes to subscribe to");
        }
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Leaving(Subscription {
                consumer: wish.consumer.to_string(),
                objects: wish.objects.clone(),
                key: self.key.take(),
            });
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_))
    }

    pub(crate) fn take_subscription(&mut self) -> Option<Subscription> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Leaving(subscription) => Some(subscription),
            other => {
                self.phase = other;
                None
            }
        }
    }

    pub(crate) fn greet<I: Intake>(&mut self, intake: &mut I, hello: &Hello<'_>) -> Greeted {
        if self.producer.is_some() {
            self.end_with(Code::Malformed, "hello comes first, and once");
            return Greeted::No;
        }
        if let Some(fault) = hello.fault() {
            let refusal = Refusal::at(Code::InvalidField, "/hello/producer", fault);
            self.end(&Answer::Error(ErrorBody::refused(&refusal)));
            return Greeted::No;
        }
        let name = hello.producer.as_deref();
        match intake.hello(self.id, name, hello.key.as_deref()) {
            Greeting::Welcome(welcome) => {
                self.welcome(name, welcome);
                self.key = hello.key.as_deref().map(str::to_owned);
                Greeted::Yes
            }
            Greeting::Later => Greeted::Later,
            Greeting::Refused(refusal) => {
                self.end(&Answer::Error(ErrorBody::refused(&refusal)));
                Greeted::No
            }
        }
    }

    fn welcome(&mut self, name: Option<&str>, welcome: Welcome) {
        self.acks.settled = welcome.last_seq;
        self.acks.told = welcome.last_seq;
        self.numbering = Numbering::new(welcome);
        self.producer = Some(match name {
            Some(name) => Producer::Named(Arc::from(name)),
            None => Producer::Anonymous,
        });
        if self.encoding == Encoding::Frames {
            self.window.granted = self.limits.unacked_bytes_max;
        }
    }

    /// Answers a hello; a session that sent none gets no welcome.
    pub(crate) fn say_welcome(&mut self) {
        let name = match &self.producer {
            Some(Producer::Named(name)) => Some(Arc::clone(name)),
            _ => None,
        };
        let body = WelcomeBody {
            producer: name.as_deref().map(Into::into),
            last_seq: self.acks.told,
            credit: (self.encoding == Encoding::Frames).then_some(self.window.granted),
        };
        self.say(&Answer::Welcome(body));
    }

    /// Counts bytes of events against the window; `false`: the client had no credit for them.
    pub(crate) fn receive(&mut self, bytes: usize) -> bool {
        self.window.received += bytes as u64;
        self.batch.bytes += bytes as u64;
        self.encoding == Encoding::Lines || self.window.received <= self.window.granted
    }

    /// Takes the next event, or the refusal of one that could not even be read.
    pub(crate) fn take<I: Intake>(
        &mut self,
        intake: &mut I,
        explicit: Option<u64>,
        event: Result<&[u8], Refusal>,
    ) {
        let seq = match self.numbering.place(explicit) {
            Place::Fresh(seq) => seq,
            Place::Already(seq) => {
                self.batch.last_seq = Some(seq);
                return;
            }
            Place::Duplicate => {
                self.acks.again = true;
                return;
            }
            Place::Gap { expected } => return self.end_at_gap(expected),
        };
        let producer = self.producer.as_ref().expect("events follow the welcome");
        let Err(refusal) = event.and_then(|event| intake.stage(self.id, producer, seq, event))
        else {
            self.batch.last_seq = Some(seq);
            return;
        };
        let reject = Answer::Reject(RejectBody::new(seq, &refusal));
        if refusal.code.retry() {
            self.end(&reject);
        } else {
            self.say(&reject);
            self.batch.refused.push((seq, refusal.code));
            self.batch.last_seq = Some(seq);
        }
    }

    /// Hands over what was staged, if anything.
    pub(crate) fn dispatch<I: Intake>(&mut self, intake: &mut I) {
        let Some(last_seq) = self.batch.last_seq else {
            // Duplicates and blanks only.
            self.window.freed += std::mem::take(&mut self.batch.bytes);
            return;
        };
        match intake.dispatch(self.id, last_seq, &self.batch.refused) {
            Ok(id) => {
                self.in_flight.push(id, last_seq, self.batch.bytes);
                self.batch.last_seq = None;
                self.batch.refused.clear();
                self.batch.bytes = 0;
                self.busy = false;
            }
            Err(_) => self.busy = true,
        }
    }

    pub(crate) fn settle(&mut self, settled: Settled) {
        let Settled {
            batch,
            refusals,
            retry,
            ..
        } = settled;
        let not_taken = retry.as_ref().map_or(u64::MAX, |(seq, _)| *seq);
        if !self.note_settled(batch, retry) {
            return;
        }
        for (seq, refusal) in refusals.iter().filter(|(seq, _)| *seq < not_taken) {
            self.say(&Answer::Reject(RejectBody::new(*seq, refusal)));
        }
        while let Some(done) = self.in_flight.poll_done() {
            self.window.freed += done.bytes;
            let Some((seq, refusal)) = done.retry else {
                debug_assert!(done.last_seq >= self.acks.settled);
                self.acks.settled = done.last_seq;
                continue;
            };
            // Acks are cumulative: no later batch of this session can be acknowledged, so there
            // is nothing to wait for.
            self.acks.settled = self.acks.settled.max(seq - 1);
            let reject = self.encode(&Answer::Reject(RejectBody::new(seq, &refusal)));
            self.cut(reject);
            return;
        }
        self.conclude();
    }

    fn note_settled(&mut self, batch: BatchId, retry: Option<(u64, Refusal)>) -> bool {
        !matches!(self.phase, Phase::Over) && self.in_flight.settle(batch, retry)
    }

    /// Says goodbye once everything in flight is acknowledged.
    fn end(&mut self, farewell: &Answer<'_>) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Ending(self.encode(farewell));
        }
    }

    /// Ends with a code of the shared table.
    pub(crate) fn end_with(&mut self, code: Code, detail: &str) {
        self.end(&Answer::Error(ErrorBody {
            code: code.as_str().into(),
            detail: Some(detail.into()),
            retry: code.retry(),
            ..ErrorBody::default()
        }));
    }

    /// Ends with a code that concerns the session only.
    pub(crate) fn end_as(&mut self, code: &'static str, detail: &str) {
        self.end(&Answer::Error(ErrorBody {
            code: code.into(),
            detail: Some(detail.into()),
            ..ErrorBody::default()
        }));
    }

    fn end_at_gap(&mut self, expected: u64) {
        self.end(&Answer::Error(ErrorBody {
            code: "seq_gap".into(),
            expected: Some(expected),
            ..ErrorBody::default()
        }));
    }

    /// Ends without a word, once everything in flight is acknowledged.
    pub(crate) fn end_silently(&mut self) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Ending(Vec::new());
        }
    }

    /// A newer session of the producer took over: nothing of this one counts any more.
    pub(crate) fn fence(&mut self) {
        let farewell = self.encode(&Answer::Error(ErrorBody {
            code: "replaced".into(),
            ..ErrorBody::default()
        }));
        self.cut(farewell);
    }

    /// The connection is gone: nothing can be said any more.
    pub(crate) fn abandon(&mut self) {
        self.cut(Vec::new());
        self.out = Vec::new();
        self.writing_bytes = 0;
    }

    /// Ends at once; what is in flight is not waited for.
    fn cut(&mut self, farewell: Vec<u8>) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.phase = Phase::Ending(farewell);
        self.in_flight = InFlight::default();
        self.batch = OpenBatch::default();
        self.busy = false;
        self.conclude();
    }

    /// Closes an ending session that waits for nothing.
    pub(crate) fn conclude(&mut self) {
        if self.batch.last_seq.is_some() || !self.in_flight.is_empty() {
            return;
        }
        if let Phase::Ending(farewell) = &mut self.phase {
            let farewell = std::mem::take(farewell);
            self.phase = Phase::Over;
            self.say_due();
            self.out.extend_from_slice(&farewell);
        }
    }

    /// Swaps the bytes to be written next into `buffer`; `false`: there are none, or the last
    /// ones are not written yet.
    pub(crate) fn take_output(&mut self, buffer: &mut Vec<u8>) -> bool {
        if self.writing_bytes > 0 {
            return false;
        }
        if !matches!(self.phase, Phase::Over) {
            self.say_due();
        }
        if self.out.is_empty() {
            return false;
        }
        buffer.clear();
        // A burst of rejects must not keep its memory for the life of a quiet connection.
        buffer.shrink_to(OUTPUT_BYTES_KEPT);
        self.writing_bytes = self.out.len();
        std::mem::swap(&mut self.out, buffer);
        true
    }

    pub(crate) fn handle_written(&mut self) {
        self.writing_bytes = 0;
    }

    /// The cumulative ack and the credit, once per piece of output however many batches settled.
    fn say_due(&mut self) {
        let Acks {
            settled,
            told,
            again,
        } = self.acks;
        // With a batch in flight its ack will do.
        let repeat = again && settled > 0 && self.is_quiet();
        if settled > told || repeat {
            self.acks.told = settled;
            self.acks.again = false;
            self.say(&Answer::Ack(AckBody { seq: settled }));
        }
        let credit = self.window.freed + self.limits.unacked_bytes_max;
        let worth_a_frame = self.limits.unacked_bytes_max / CREDIT_PARTS;
        if self.encoding == Encoding::Frames
            && self.producer.is_some()
            && matches!(self.phase, Phase::Open)
            && credit >= self.window.granted + worth_a_frame
        {
            self.window.granted = credit;
            frame::write_frame(&mut self.out, Kind::Credit, credit, 0, |_| ());
        }
    }

    fn say(&mut self, answer: &Answer<'_>) {
        encode(self.encoding, answer, &mut self.out);
    }

    fn encode(&self, answer: &Answer<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(self.encoding, answer, &mut bytes);
        bytes
    }

    pub(crate) fn is_welcome(&self) -> bool {
        self.producer.is_some()
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Everything is said and written.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over) && self.out.is_empty() && self.writing_bytes == 0
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.batch.last_seq.is_none() && self.in_flight.is_empty()
    }

    pub(crate) fn has_unwritten(&self) -> bool {
        self.writing_bytes > 0 || !self.out.is_empty()
    }

    pub(crate) fn is_output_full(&self) -> bool {
        self.out.len() + self.writing_bytes >= self.limits.output_bytes_max
    }

    /// Whether the session may hold more that is not durable.
    pub(crate) fn has_room(&self) -> bool {
        self.window.received - self.window.freed < self.limits.unacked_bytes_max
            && self.in_flight.len() < self.limits.unacked_batches_max
    }
}

/// A credit is told when this part of the window has come free: rare frames, and a client that is
/// never kept waiting by a window that is nearly free.
const CREDIT_PARTS: u64 = 4;

/// What an output buffer keeps between pieces; several hundred acks.
const OUTPUT_BYTES_KEPT: usize = 16 << 10;

fn encode(encoding: Encoding, answer: &Answer<'_>, out: &mut Vec<u8>) {
    if encoding == Encoding::Lines {
        return answer.write_line(out);
    }
    match answer {
        Answer::Welcome(body) => {
            frame::write_frame(out, Kind::Welcome, body.last_seq, 0, |p| {
                write_json(body, p)
            });
        }
        Answer::Ack(body) => frame::write_frame(out, Kind::Ack, body.seq, 0, |_| ()),
        Answer::Reject(body) => {
            frame::write_frame(out, Kind::Reject, body.seq, 0, |p| write_json(body, p));
        }
        Answer::Error(body) => {
            let expected = body.expected.unwrap_or(0);
            frame::write_frame(out, Kind::Error, expected, 0, |p| write_json(body, p));
        }
    }
}
