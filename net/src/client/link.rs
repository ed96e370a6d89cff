//! One connection of a client: encodes events, decodes answers, never blocks in only one of both.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::{Encoding, Options, Reject, SEND_BYTES};
use crate::ingest::frame::{EventsBuilder, FrameReader, Kind, write_frame};
use crate::ingest::line::{Line, LineReader};
use crate::ingest::{AckBody, Answer, ErrorBody, RejectBody, WelcomeBody};

/// A socket in non-blocking mode and what is on its way through it.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    encoder: Encoder,
    decoder: Decoder,
    out: Vec<u8>,
    /// How much of `out` is written.
    written: usize,
    scratch: Box<[u8]>,
}

#[derive(Debug)]
enum Encoder {
    Lines,
    Frames {
        builder: EventsBuilder,
        /// Bytes of EVENTS frames that may be sent in this session, and that were.
        credit: u64,
        sent: u64,
    },
}

#[derive(Debug)]
enum Decoder {
    /// Nothing came yet.
    Undecided,
    Lines(LineReader),
    Frames(FrameReader),
}

/// One message of the server.
#[derive(Debug)]
pub(super) enum Heard {
    Welcome(u64),
    Ack(u64),
    /// With whether it is worth another try.
    Reject(Reject, bool),
    Error(ServerError),
}

/// The last word of the server.
#[derive(Debug)]
pub(super) struct ServerError {
    pub(super) code: String,
    pub(super) detail: Option<String>,
    pub(super) retry: bool,
}

#[derive(Debug)]
pub(super) enum LinkError {
    Io(io::Error),
    Protocol(String),
    Told(ServerError),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        LinkError::Io(error)
    }
}

impl Link {
    /// Connects, says hello and waits for the welcome; returns its number.
    pub(super) fn open(options: &Options) -> Result<(Link, u64), LinkError> {
        let stream = connect(&options.addr, options.connect_timeout)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut link = Link {
            stream,
            encoder: match options.encoding {
                Encoding::Lines => Encoder::Lines,
                Encoding::Frames => Encoder::Frames {
                    builder: EventsBuilder::default(),
                    credit: 0,
                    sent: 0,
                },
            },
            decoder: Decoder::Undecided,
            out: Vec::new(),
            written: 0,
            scratch: vec![0; SEND_BYTES].into_boxed_slice(),
        };
        link.say_hello(options);
        let deadline = Instant::now() + options.connect_timeout;
        let mut heard = VecDeque::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no welcome came").into());
            }
            let result = link.exchange(Some(left), &mut heard);
            match heard.pop_front() {
                Some(Heard::Welcome(last_seq)) => return Ok((link, last_seq)),
                Some(Heard::Error(error)) => return Err(LinkError::Told(error)),
                Some(other) => {
                    return Err(LinkError::Protocol(format!("{other:?} before the welcome")));
                }
                None => result?,
            }
        }
    }

    fn say_hello(&mut self, options: &Options) {
        let mut hello = json!({ "producer": options.producer });
        if let Some(key) = &options.key {
            hello["key"] = json!(key);
        }
        match self.encoder {
            Encoder::Lines => {
                self.out
                    .extend_from_slice(json!({ "hello": hello }).to_string().as_bytes());
                self.out.push(b'\n');
            }
            Encoder::Frames { .. } => write_frame(&mut self.out, Kind::Hello, 0, 0, |payload| {
                payload.extend_from_slice(hello.to_string().as_bytes());
            }),
        }
    }

    /// Whether more may be encoded before some of it is written.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() - self.written < OUT_BYTES_MAX
    }

    pub(super) fn has_unwritten(&self) -> bool {
        self.written < self.out.len()
    }

    /// Encodes some of `events`, numbered from `first_seq`; returns how many. None when the
    /// server's credit is used up.
    pub(super) fn write_events<'e>(
        &mut self,
        first_seq: u64,
        events: impl Iterator<Item = &'e [u8]>,
    ) -> usize {
        match &mut self.encoder {
            Encoder::Lines => {
                let (before, mut count) = (self.out.len(), 0);
                for event in events {
                    self.out.extend_from_slice(event);
                    self.out.push(b'\n');
                    count += 1;
                    if self.out.len() - before >= SEND_BYTES {
                        break;
                    }
                }
                count
            }
            Encoder::Frames {
                builder,
                credit,
                sent,
            } => {
                let left = *credit - *sent;
                for event in events {
                    let frame_bytes = builder.frame_bytes() + 4 + event.len();
                    let fits = frame_bytes as u64 <= left
                        && (builder.count() == 0 || frame_bytes <= SEND_BYTES);
                    if !fits || !builder.try_push(event) {
                        break;
                    }
                }
                let count = builder.count() as usize;
                if count > 0 {
                    *sent += builder.frame_bytes() as u64;
                    builder.finish(first_seq, &mut self.out);
                }
                count
            }
        }
    }

    /// Writes and reads what can be; when that is nothing, waits up to `wait` for one of both.
    pub(super) fn exchange(
        &mut self,
        wait: Option<Duration>,
        heard: &mut VecDeque<Heard>,
    ) -> Result<(), LinkError> {
        let moved = self.write()? | self.read(heard)?;
        let Some(wait) = wait else { return Ok(()) };
        if moved || !heard.is_empty() {
            return Ok(());
        }
        self.wait(wait)?;
        self.write()?;
        self.read(heard)?;
        Ok(())
    }

    fn wait(&self, wait: Duration) -> io::Result<()> {
        let mut interest = PollFlags::IN;
        if self.has_unwritten() {
            interest |= PollFlags::OUT;
        }
        let timeout = Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: wait.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.stream, interest)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether anything was written.
    fn write(&mut self) -> io::Result<bool> {
        let before = self.written;
        while self.has_unwritten() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if is_not_now(&error) => break,
                // The server may have said why before it closed: reading comes first.
                Err(error) if is_closed(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let moved = self.written > before;
        if !self.has_unwritten() {
            self.out.clear();
            self.written = 0;
        }
        Ok(moved)
    }

    /// Whether anything was read.
    fn read(&mut self, heard: &mut VecDeque<Heard>) -> Result<bool, LinkError> {
        let mut moved = false;
        loop {
            let mut scratch = std::mem::take(&mut self.scratch);
            let result = self.stream.read(&mut scratch);
            let decoded = match result {
                Ok(count) => self.decode(&scratch[..count], heard),
                Err(_) => Ok(()),
            };
            self.scratch = scratch;
            decoded?;
            match result {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => moved = true,
                Err(error) if is_not_now(&error) => return Ok(moved),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn decode(&mut self, bytes: &[u8], heard: &mut VecDeque<Heard>) -> Result<(), LinkError> {
        let mut input = bytes;
        if let (Decoder::Undecided, Some(first)) = (&self.decoder, input.first()) {
            // A server that lets nobody in says so as a line, whatever the client speaks.
            self.decoder = match self.encoder {
                Encoder::Frames { .. } if *first != b'{' => Decoder::Frames(FrameReader::default()),
                _ => Decoder::Lines(LineReader::new(ANSWER_BYTES_MAX)),
            };
        }
        match &mut self.decoder {
            Decoder::Undecided => Ok(()),
            Decoder::Lines(reader) => {
                while let Some(line) = reader.next(&mut input) {
                    let Line::Text(text) = line else {
                        return Err(LinkError::Protocol("a line too long".to_owned()));
                    };
                    heard.push_back(hear(parse(text)?));
                }
                Ok(())
            }
            Decoder::Frames(reader) => loop {
                let frame = match reader.next(&mut input) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return Ok(()),
                    Err(bad) => return Err(LinkError::Protocol(bad.to_string())),
                };
                let payload = frame.payload();
                let answer = match frame.kind {
                    Kind::Welcome => {
                        let body: WelcomeBody<'_> = parse(payload)?;
                        grant(&mut self.encoder, body.credit.unwrap_or(0));
                        Answer::Welcome(body)
                    }
                    Kind::Ack => Answer::Ack(AckBody { seq: frame.seq }),
                    Kind::Reject => Answer::Reject(parse::<RejectBody<'_>>(payload)?),
                    Kind::Error => Answer::Error(parse::<ErrorBody<'_>>(payload)?),
                    Kind::Credit => {
                        grant(&mut self.encoder, frame.seq);
                        continue;
                    }
                    Kind::Hello | Kind::Events => {
                        return Err(LinkError::Protocol("a client's frame".to_owned()));
                    }
                };
                heard.push_back(hear(answer));
            },
        }
    }
}

/// Encoded bytes kept before they are written.
const OUT_BYTES_MAX: usize = 4 * SEND_BYTES;

/// Longest answer read; details are short.
const ANSWER_BYTES_MAX: usize = 64 << 10;

fn connect(addr: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{addr} has no address"));
    for addr in addr.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn grant(encoder: &mut Encoder, total: u64) {
    if let Encoder::Frames { credit, .. } = encoder {
        *credit = total.max(*credit);
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(text: &'a [u8]) -> Result<T, LinkError> {
    serde_json::from_slice(text).map_err(|error| LinkError::Protocol(error.to_string()))
}

fn hear(answer: Answer<'_>) -> Heard {
    match answer {
        Answer::Welcome(body) => Heard::Welcome(body.last_seq),
        Answer::Ack(body) => Heard::Ack(body.seq),
        Answer::Reject(body) => Heard::Reject(
            Reject {
                seq: body.seq,
                code: body.code.into_owned(),
                detail: body.detail.into_owned(),
                pointer: body.pointer.map(Into::into),
            },
            body.retry,
        ),
        Answer::Error(body) => Heard::Error(ServerError {
            code: body.code.into_owned(),
            detail: body.detail.map(Into::into),
            retry: body.retry,
        }),
    }
}
