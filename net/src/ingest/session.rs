//! One connection's protocol, without I/O.

use engine::refusal::{Code, Refusal};

use super::EVENT_BYTES_MAX;
use super::exchange::{Encoding, Exchange, Greeted};
use super::frame::{BadFrame, FRAME_BYTES_MAX, Frame, FrameReader, Kind, MAGIC};
use super::intake::{Intake, SessionId, Settled};
use super::line::{self, ControlLine, Hello, Line, LineReader};
use super::seq_member::SeqMember;
use crate::subscription::Subscription;

/// The protocol of one connection: bytes in, bytes out.
///
/// - `handle_*` takes what happened: bytes, the client's half-close, a settled batch, a fence.
/// - [`Session::resume`] goes on after a pause: rings were full, a hello had to wait, or the
///   client did not read.
/// - [`Session::take_output`] gives what is to be written, [`Session::handle_written`] confirms it.
/// - [`Session::wants_read`] and [`Session::is_over`] tell the driver what to do next.
/// - A client that subscribes leaves: once everything is written, [`Session::take_subscriber`]
///   says what to hand over together with the socket.
#[derive(Debug)]
pub struct Session {
    wire: Wire,
    exchange: Exchange,
    /// Bytes read and not looked at, while the session is paused; at most one line or frame and
    /// one read.
    held: Vec<u8>,
    /// The client has closed its side.
    half_closed: bool,
    /// Lines or frames handled, to tell progress from a trickle.
    messages: u64,
}

/// Bounds of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Bytes of events received and not settled; beyond it nothing is read. Lines may exceed it
    /// by one read. At least one frame of the largest size.
    pub unacked_bytes_max: u64,
    /// Batches dispatched and not settled.
    pub unacked_batches_max: usize,
    /// Bytes of answers not written; beyond it nothing is read. May be exceeded by the answers
    /// to what is in flight.
    pub output_bytes_max: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits {
            // 20,000 events of 400 bytes: 20 ms of a client sending a million a second, several
            // times a commit on the disks this runs on.
            unacked_bytes_max: 8 << 20,
            unacked_batches_max: 1024,
            output_bytes_max: 256 << 10,
        }
    }
}

#[derive(Debug)]
enum Wire {
    /// Nothing was received yet.
    Undecided,
    Lines(LineReader),
    Frames(FrameReader),
}

impl Session {
    /// A session to which nothing has happened.
    pub fn new(id: SessionId, limits: SessionLimits) -> Session {
        let limits = SessionLimits {
            unacked_bytes_max: limits.unacked_bytes_max.max(FRAME_BYTES_MAX as u64),
            ..limits
        };
        Session {
            wire: Wire::Undecided,
            exchange: Exchange::new(id, limits),
            held: Vec::new(),
            half_closed: false,
            messages: 0,
        }
    }

    /// Lets a client subscribe.
    #[must_use]
    pub fn with_subscriptions(mut self) -> Session {
        self.exchange.allow_subscriptions();
        self
    }

    /// Takes the bytes of one read, and dispatches what they held as one batch. After the end of
    /// the session bytes are dropped.
    pub fn handle_bytes<I: Intake>(&mut self, intake: &mut I, bytes: &[u8]) {
        if !self.is_open() {
            return;
        }
        if self.is_paused() {
            // Only a driver that reads although it was asked not to comes here.
            self.held.extend_from_slice(bytes);
        } else {
            self.advance(intake, bytes);
        }
    }

    /// The client has closed its side: what it began and did not end is no event; the rest is
    /// acknowledged, then the session is over.
    pub fn handle_half_close(&mut self) {
        self.half_closed = true;
        if self.held.is_empty() {
            self.exchange.end_silently();
            self.exchange.conclude();
        }
    }

    /// A batch of this session is settled.
    pub fn handle_settled(&mut self, settled: Settled) {
        self.exchange.settle(settled);
    }

    /// A newer hello took this session's producer.
    pub fn handle_fenced(&mut self) {
        self.held = Vec::new();
        self.exchange.fence();
    }

    /// The client took longer than it may; `detail` says for what.
    pub fn handle_timeout(&mut self, detail: &str) {
        self.held = Vec::new();
        self.exchange.end_as("timeout", detail);
        self.exchange.conclude();
    }

    /// The engine stops: nothing more is taken, what was taken is acknowledged.
    pub fn handle_stop(&mut self) {
        self.held = Vec::new();
        self.exchange.end_silently();
        self.exchange.conclude();
    }

    /// The connection broke: the session is over without another word. What it dispatched
    /// settles as usual.
    pub fn handle_broken(&mut self) {
        self.held = Vec::new();
        self.exchange.abandon();
    }

    /// Goes on where a pause stopped the session; does nothing while the cause lasts.
    pub fn resume<I: Intake>(&mut self, intake: &mut I) {
        if self.exchange.is_busy() {
            self.exchange.dispatch(intake);
            if self.exchange.is_busy() {
                return;
            }
            self.exchange.conclude();
        }
        if !self.held.is_empty() && !self.exchange.is_output_full() {
            let held = std::mem::take(&mut self.held);
            self.advance(intake, &held);
            if self.half_closed {
                self.handle_half_close();
            }
        }
    }

    /// Swaps the next bytes to write into `buffer`, whatever it held; `false`: nothing is to be
    /// written now. The driver writes all of them, calls [`Session::handle_written`], and asks
    /// again.
    pub fn take_output(&mut self, buffer: &mut Vec<u8>) -> bool {
        self.exchange.take_output(buffer)
    }

    /// The bytes last taken are written.
    pub fn handle_written(&mut self) {
        self.exchange.handle_written();
    }

    /// Whether the driver may read on. `false` is the backpressure of this protocol.
    pub fn wants_read(&self) -> bool {
        self.exchange.is_open()
            && !self.half_closed
            && self.held.is_empty()
            && !self.exchange.is_busy()
            && !self.exchange.is_output_full()
            && self.exchange.has_room()
    }

    /// Whether [`Session::resume`] is worth a try although nothing was written: rings were full,
    /// or a hello had to wait.
    pub fn needs_retry(&self) -> bool {
        self.exchange.is_busy() || !(self.held.is_empty() || self.exchange.is_output_full())
    }

    fn is_paused(&self) -> bool {
        self.exchange.is_busy() || !self.held.is_empty()
    }

    /// Everything is said and written: the driver closes the connection.
    pub fn is_over(&self) -> bool {
        self.exchange.is_over()
    }

    /// Whether the client subscribed, so that its socket is to be handed over once everything is
    /// written.
    pub fn is_leaving(&self) -> bool {
        self.exchange.is_leaving()
    }

    /// What goes with the socket of a client that subscribed: its wish, and what it sent behind
    /// it. The session is over.
    pub fn take_subscriber(&mut self) -> Option<(Subscription, Vec<u8>)> {
        let subscription = self.exchange.take_subscription()?;
        Some((subscription, std::mem::take(&mut self.held)))
    }

    /// Whether the session takes events, or may come to.
    pub fn is_open(&self) -> bool {
        self.exchange.is_open()
    }

    /// Whether the intake has welcomed the client.
    pub fn is_welcome(&self) -> bool {
        self.exchange.is_welcome()
    }

    /// Whether a line or a frame has begun and not ended.
    pub fn is_mid_message(&self) -> bool {
        match &self.wire {
            Wire::Undecided => false,
            Wire::Lines(reader) => reader.is_mid_line(),
            Wire::Frames(reader) => reader.is_mid_frame(),
        }
    }

    /// Whether nothing is on its way to the disk.
    pub fn is_quiet(&self) -> bool {
        self.exchange.is_quiet()
    }

    /// Whether answers wait for the client to read.
    pub fn has_unwritten(&self) -> bool {
        self.exchange.has_unwritten()
    }

    /// Lines or frames handled so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    fn advance<I: Intake>(&mut self, intake: &mut I, bytes: &[u8]) {
        let mut input = bytes;
        let exchange = &mut self.exchange;
        while exchange.is_open() {
            if exchange.is_output_full() {
                self.held.extend_from_slice(input);
                break;
            }
            let later: &[u8] = match &mut self.wire {
                Wire::Undecided => {
                    let Some(&first) = input.first() else { break };
                    self.wire = decide(exchange, first);
                    continue;
                }
                Wire::Lines(reader) => {
                    let Some(line) = reader.next(&mut input) else {
                        break;
                    };
                    self.messages += 1;
                    match line {
                        Line::Text(text) if take_line(exchange, intake, text) => text,
                        Line::Text(_) => continue,
                        Line::TooLong => {
                            take_long_line(exchange, intake);
                            continue;
                        }
                    }
                }
                Wire::Frames(reader) => match reader.next(&mut input) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        self.messages += 1;
                        if !take_frame(exchange, intake, &frame) {
                            continue;
                        }
                        frame.bytes
                    }
                    Err(bad) => {
                        end_at_bad_frame(exchange, bad);
                        continue;
                    }
                },
            };
            // The hello has to be said again: it and what follows wait.
            self.held.extend_from_slice(later);
            if matches!(self.wire, Wire::Lines(_)) {
                self.held.push(b'\n');
            }
            self.held.extend_from_slice(input);
            break;
        }
        if self.exchange.is_leaving() {
            self.held = input.to_vec();
        }
        self.exchange.dispatch(intake);
        self.exchange.conclude();
    }
}

/// Tells the encoding by the first byte.
fn decide(exchange: &mut Exchange, first: u8) -> Wire {
    if first == MAGIC {
        exchange.speak(Encoding::Frames);
        return Wire::Frames(FrameReader::default());
    }
    // A first line that is text, but no JSON, is a bad line like any other. What is no text at
    // all, a TLS record for instance, is not answered line by line.
    if !first.is_ascii_graphic() && !first.is_ascii_whitespace() {
        exchange.end_with(
            Code::Malformed,
            "the first byte begins neither a line of JSON nor a frame",
        );
    }
    Wire::Lines(LineReader::new(EVENT_BYTES_MAX))
}

/// Handles one line; `true`: it is a hello that has to be said again later.
fn take_line<I: Intake>(exchange: &mut Exchange, intake: &mut I, text: &[u8]) -> bool {
    let text = line::trim(text);
    if text.is_empty() {
        return false;
    }
    match ControlLine::parse(text) {
        Some(ControlLine::Hello(hello)) => {
            let greeted = exchange.greet(intake, &hello);
            if greeted == Greeted::Yes {
                exchange.say_welcome();
            }
            return greeted == Greeted::Later;
        }
        Some(ControlLine::Subscribe(wish)) => {
            exchange.subscribe(&wish);
            return false;
        }
        Some(ControlLine::Malformed(fault)) => {
            exchange.end_with(Code::Malformed, &fault);
            return false;
        }
        None => {}
    }
    if !exchange.is_welcome() && !greet_anonymous(exchange, intake, text) {
        return false;
    }
    exchange.receive(text.len() + 1);
    match SeqMember::find(text) {
        SeqMember::Absent => exchange.take(intake, None, Ok(text)),
        SeqMember::Number(seq) => exchange.take(intake, Some(seq), Ok(text)),
        SeqMember::NotANumber => exchange.take(
            intake,
            None,
            Err(Refusal::at(
                Code::InvalidField,
                "/seq",
                "seq must be an unsigned integer",
            )),
        ),
    }
    false
}

fn take_long_line<I: Intake>(exchange: &mut Exchange, intake: &mut I) {
    if !exchange.is_welcome() && !greet_anonymous(exchange, intake, b"") {
        return;
    }
    let refusal = Refusal::new(Code::TooLarge, "an event may have 1 MiB");
    exchange.take(intake, None, Err(refusal));
}

/// Lets a client in that sends events without a hello.
fn greet_anonymous<I: Intake>(exchange: &mut Exchange, intake: &mut I, first: &[u8]) -> bool {
    if [&b" HTTP/1.1"[..], b" HTTP/1.0", b" HTTP/2.0"]
        .iter()
        .any(|v| first.ends_with(v))
    {
        exchange.end_with(
            Code::Malformed,
            "this port speaks the TCP protocol, not HTTP",
        );
        return false;
    }
    match exchange.greet(intake, &Hello::default()) {
        Greeted::Yes => true,
        Greeted::No => false,
        Greeted::Later => {
            // An anonymous session has no past that could be waited for.
            exchange.end_with(Code::Overloaded, "no session can be opened now");
            false
        }
    }
}

/// Handles one frame; `true`: it is a hello that has to be said again later.
fn take_frame<I: Intake>(exchange: &mut Exchange, intake: &mut I, frame: &Frame<'_>) -> bool {
    match frame.kind {
        Kind::Hello => match serde_json::from_slice::<Hello<'_>>(frame.payload()) {
            Ok(hello) => {
                let greeted = exchange.greet(intake, &hello);
                if greeted == Greeted::Yes {
                    exchange.say_welcome();
                }
                return greeted == Greeted::Later;
            }
            Err(fault) => exchange.end_with(Code::Malformed, &fault.to_string()),
        },
        Kind::Events if exchange.is_welcome() => take_events(exchange, intake, frame),
        _ => end_at_bad_frame(exchange, BadFrame::Unexpected),
    }
    false
}

fn take_events<I: Intake>(exchange: &mut Exchange, intake: &mut I, frame: &Frame<'_>) {
    if !exchange.receive(frame.bytes.len()) {
        return exchange.end_as("credit_exceeded", "more was sent than the credit allows");
    }
    let events = match frame.events() {
        Ok(events) => events,
        Err(bad) => return end_at_bad_frame(exchange, bad),
    };
    for (seq, event) in (frame.seq..).zip(events) {
        exchange.take(intake, Some(seq), Ok(event));
        if !exchange.is_open() {
            return;
        }
    }
}

fn end_at_bad_frame(exchange: &mut Exchange, bad: BadFrame) {
    exchange.end_as("bad_frame", &bad.to_string());
}
