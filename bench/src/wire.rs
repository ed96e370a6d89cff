//! The encodings that events are sent in, without I/O.

mod frames;
mod http;
mod lines;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use self::frames::Frames;
use self::http::Http;
use self::lines::Lines;

/// How events travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Binary frames over TCP
    Frames,
    /// NDJSON over TCP
    Lines,
    /// POST /v1/sync
    Http,
}

/// The client's side of one connection's protocol.
#[derive(Debug)]
pub(crate) enum Wire {
    Frames(Frames),
    Lines(Lines),
    Http(Http),
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Events may be sent.
    Welcome,
    /// Every event up to this number is durable or was refused.
    Settled { seq: u64 },
    /// So many of the events about to be settled were refused.
    Refused { count: u64, code: String },
    /// More may be sent.
    Credit,
}

/// The connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the server ended the session: {0}")]
    Ended(String),
    #[error("the server answered with something else: {0}")]
    Garbled(String),
}

impl Wire {
    /// A connection that settles `batch` events per request, where there are requests.
    pub(crate) fn new(encoding: Encoding, host: &str, batch: usize) -> Wire {
        match encoding {
            Encoding::Frames => Wire::Frames(Frames::default()),
            Encoding::Lines => Wire::Lines(Lines::default()),
            Encoding::Http => Wire::Http(Http::new(host, batch)),
        }
    }

    /// What is said first, and whether an answer to it comes before events may be sent.
    pub(crate) fn hello(&self, producer: &str, out: &mut Vec<u8>) -> bool {
        match self {
            Wire::Frames(_) => frames::write_hello(producer, out),
            Wire::Lines(_) => lines::write_hello(producer, out),
            Wire::Http(_) => return false,
        }
        true
    }

    /// How many events of this size may be sent now.
    pub(crate) fn room(&self, event_bytes: usize) -> usize {
        match self {
            Wire::Frames(frames) => frames.room(event_bytes),
            Wire::Lines(_) => usize::MAX,
            Wire::Http(http) => http.room(),
        }
    }

    /// Appends `count` events numbered from `first_seq`; `write` appends one.
    pub(crate) fn put(
        &mut self,
        first_seq: u64,
        count: usize,
        event_bytes: usize,
        write: impl FnMut(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        match self {
            Wire::Frames(frames) => frames.put(first_seq, count, write, out),
            Wire::Lines(_) => lines::put(count, write, out),
            Wire::Http(http) => http.put(count, event_bytes, write, out),
        }
    }

    /// Takes what was read, and tells `on_answer` what it says.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        on_answer: impl FnMut(Answer),
    ) -> Result<(), WireError> {
        match self {
            Wire::Frames(frames) => frames.read(bytes, on_answer),
            Wire::Lines(lines) => lines.read(bytes, on_answer),
            Wire::Http(http) => http.read(bytes, on_answer),
        }
    }
}
