//! The frames encoding: length-prefixed, CRC-checked, many events each.
//!
//! Layout (little-endian), specified in `docs/design/ingest-protocol.md`:
//! ```text
//!  0 magic u8   1 version u8   2 kind u8   3 flags u8   4 len u32
//!  8 seq u64   16 count u32   20 crc32c u32 of bytes 0..20 and the payload   24 payload
//! ```

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::EVENT_BYTES_MAX;

/// First byte of every frame. It occurs nowhere in UTF-8, begins no TLS record and no HTTP
/// request, so one byte tells the encodings apart.
pub const MAGIC: u8 = 0xF5;
/// The version spoken here.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// Bytes before each event in an EVENTS payload: its length.
pub const EVENT_PREFIX_BYTES: usize = size_of::<U32>();
/// Largest payload: one event of the largest size.
pub const PAYLOAD_BYTES_MAX: usize = EVENT_BYTES_MAX + EVENT_PREFIX_BYTES;
/// Largest frame.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

const CRC_AT: usize = HEADER_BYTES - size_of::<U32>();
const _: () = assert!(HEADER_BYTES == 24 && PAYLOAD_BYTES_MAX < u32::MAX as usize);

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: u8,
    version: u8,
    kind: u8,
    flags: u8,
    len: U32,
    seq: U64,
    count: U32,
    crc: U32,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Client: who it is; JSON.
    Hello = 1,
    /// Server: where to go on; `seq` is the last number; JSON.
    Welcome = 2,
    /// Client: `count` events numbered from `seq`.
    Events = 3,
    /// Server: everything up to `seq` is settled; no payload.
    Ack = 4,
    /// Server: event `seq` was not taken; JSON.
    Reject = 5,
    /// Server: the session ends; `seq` is the number due, or 0; JSON.
    Error = 6,
    /// Server: `seq` bytes of EVENTS frames in all may be sent in this session; no payload.
    Credit = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Events,
            4 => Kind::Ack,
            5 => Kind::Reject,
            6 => Kind::Error,
            7 => Kind::Credit,
            _ => return None,
        })
    }
}

/// One whole frame whose CRC is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it says.
    pub kind: Kind,
    /// A number or an amount, by kind.
    pub seq: u64,
    /// Events in the payload; 0 for other kinds.
    pub count: u32,
    /// The frame as it came, header first.
    pub bytes: &'a [u8],
}

/// Why bytes are no frame. Nothing of a bad frame is used, and the stream cannot be followed
/// past it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The first byte is another.
    #[error("magic byte is {0:#04x}, not 0xf5")]
    Magic(u8),
    /// A version that this side does not speak.
    #[error("version {0} is not spoken here, version 1 is")]
    Version(u8),
    /// No such kind.
    #[error("kind {0} is unknown")]
    Kind(u8),
    /// Reserved flags are set.
    #[error("flags {0:#04x} are reserved")]
    Flags(u8),
    /// Longer than any frame may be.
    #[error("payload of {0} bytes exceeds {PAYLOAD_BYTES_MAX}")]
    TooLong(u32),
    /// The bytes changed on their way.
    #[error("crc32c is {computed:#010x}, the header says {stored:#010x}")]
    Crc {
        /// In the header.
        stored: u32,
        /// Of the bytes received.
        computed: u32,
    },
    /// The events' lengths do not add up to the payload, or their number to the header's.
    #[error("count and lengths of the events do not fit the payload")]
    Events,
    /// A kind that this side never receives, or not now.
    #[error("a frame of this kind is not expected here")]
    Unexpected,
}

impl<'a> Frame<'a> {
    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The events of an EVENTS frame.
    ///
    /// # Errors
    /// [`BadFrame::Events`] unless exactly `count` ≥ 1 events fill the payload.
    pub fn events(&self) -> Result<Events<'a>, BadFrame> {
        let events = Events {
            rest: self.payload(),
        };
        let mut walk = events.clone();
        let count = (&mut walk).count();
        let fits = walk.rest.is_empty() && count > 0 && count as u64 == u64::from(self.count);
        if fits {
            Ok(events)
        } else {
            Err(BadFrame::Events)
        }
    }
}

/// The events of one frame, in order.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Events<'a> {
    type Item = &'a [u8];

    /// Stops, with bytes left over, where a length leads past the end.
    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.rest.split_first_chunk::<EVENT_PREFIX_BYTES>()?;
        let (event, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.rest = rest;
        Some(event)
    }
}

/// Cuts a stream into frames. A frame that lies whole in the bytes just read is not copied; the
/// buffer for one that does not grows with the bytes that come, not with the length it claims.
#[derive(Debug, Default)]
pub struct FrameReader {
    partial: Vec<u8>,
    spent: bool,
}

impl FrameReader {
    /// The next whole frame; takes what it uses from `input`, all of it when there is none.
    ///
    /// # Errors
    /// The stream is of no use any more.
    pub fn next<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'r>>, BadFrame> {
        if self.spent {
            self.spent = false;
            self.partial.clear();
            self.partial.shrink_to(PARTIAL_BYTES_KEPT);
        }
        if self.partial.is_empty() {
            if let Some(total) = frame_bytes(input)?
                && let Some((frame, rest)) = input.split_at_checked(total)
            {
                *input = rest;
                return check(frame).map(Some);
            }
            self.partial.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        }
        if !self.fill(HEADER_BYTES, input) {
            // Told by the first wrong byte, without waiting for the rest of a header.
            return frame_bytes(&self.partial).map(|_| None);
        }
        let total = frame_bytes(&self.partial)?.expect("the header is whole");
        if !self.fill(total, input) {
            return Ok(None);
        }
        self.spent = true;
        check(&self.partial).map(Some)
    }

    /// Whether a frame has begun and not ended.
    pub fn is_mid_frame(&self) -> bool {
        !self.spent && !self.partial.is_empty()
    }

    /// Moves bytes from `input` until `partial` has `target`.
    fn fill(&mut self, target: usize, input: &mut &[u8]) -> bool {
        let missing = target.saturating_sub(self.partial.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(taken);
        *input = rest;
        self.partial.len() >= target
    }
}

/// What the buffer of a partial frame keeps between frames: a frame of the size our client sends.
const PARTIAL_BYTES_KEPT: usize = 64 << 10;

/// Size of the frame that begins here, `None` while its header is not whole.
fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
    let bad = |at: usize, ok: fn(u8) -> bool, error: fn(u8) -> BadFrame| match bytes.get(at) {
        Some(&byte) if !ok(byte) => Err(error(byte)),
        _ => Ok(()),
    };
    bad(0, |b| b == MAGIC, BadFrame::Magic)?;
    bad(1, |b| b == VERSION, BadFrame::Version)?;
    bad(2, |b| Kind::from_byte(b).is_some(), BadFrame::Kind)?;
    bad(3, |b| b == 0, BadFrame::Flags)?;
    let Ok((header, _)) = Header::ref_from_prefix(bytes) else {
        return Ok(None);
    };
    let len = header.len.get();
    if len as usize > PAYLOAD_BYTES_MAX {
        return Err(BadFrame::TooLong(len));
    }
    Ok(Some(HEADER_BYTES + len as usize))
}

/// A whole frame, if its CRC is right.
fn check(bytes: &[u8]) -> Result<Frame<'_>, BadFrame> {
    let (header, payload) = Header::ref_from_prefix(bytes).expect("a whole frame has a header");
    let computed = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), payload);
    let stored = header.crc.get();
    if computed != stored {
        return Err(BadFrame::Crc { stored, computed });
    }
    Ok(Frame {
        kind: Kind::from_byte(header.kind).ok_or(BadFrame::Kind(header.kind))?,
        seq: header.seq.get(),
        count: header.count.get(),
        bytes,
    })
}

/// Appends one frame to `out`; `payload` appends the payload.
pub fn write_frame(
    out: &mut Vec<u8>,
    kind: Kind,
    seq: u64,
    count: u32,
    payload: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    payload(out);
    seal(&mut out[start..], kind, seq, count);
}

/// Writes the header before a payload that is in its place.
fn seal(frame: &mut [u8], kind: Kind, seq: u64, count: u32) {
    let (head, payload) = frame.split_at_mut(HEADER_BYTES);
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX,
        "the writer keeps the bound"
    );
    let mut header = Header {
        magic: MAGIC,
        version: VERSION,
        kind: kind as u8,
        flags: 0,
        len: U32::new(payload.len() as u32),
        seq: U64::new(seq),
        count: U32::new(count),
        crc: U32::new(0),
    };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header.as_bytes()[..CRC_AT]), payload);
    header.crc = U32::new(crc);
    head.copy_from_slice(header.as_bytes());
}

/// Collects events for one EVENTS frame.
#[derive(Debug)]
pub struct EventsBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl Default for EventsBuilder {
    fn default() -> Self {
        EventsBuilder {
            bytes: vec![0; HEADER_BYTES],
            count: 0,
        }
    }
}

impl EventsBuilder {
    /// Adds an event; `false`: the frame is full, nothing was added. Every event of at most
    /// [`EVENT_BYTES_MAX`] fits into an empty frame.
    pub fn try_push(&mut self, event: &[u8]) -> bool {
        if self.bytes.len() + EVENT_PREFIX_BYTES + event.len() > FRAME_BYTES_MAX {
            return false;
        }
        self.bytes
            .extend_from_slice(&(event.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(event);
        self.count += 1;
        true
    }

    /// Events so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Size of the frame so far.
    pub fn frame_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the frame to `out` and starts the next one. Nothing happens without events.
    pub fn finish(&mut self, first_seq: u64, out: &mut Vec<u8>) {
        if self.count == 0 {
            return;
        }
        seal(&mut self.bytes, Kind::Events, first_seq, self.count);
        out.extend_from_slice(&self.bytes);
        self.bytes.truncate(HEADER_BYTES);
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events_frame(seq: u64, events: &[&[u8]]) -> Vec<u8> {
        let mut builder = EventsBuilder::default();
        for event in events {
            assert!(builder.try_push(event));
        }
        let mut out = Vec::new();
        builder.finish(seq, &mut out);
        out
    }

    /// Whether there is a whole frame.
    fn read_one(bytes: &[u8]) -> Result<bool, BadFrame> {
        let mut reader = FrameReader::default();
        let frame = reader.next(&mut &*bytes)?;
        Ok(frame.is_some())
    }

    #[test]
    fn an_event_of_the_largest_size_fits_and_one_byte_more_does_not() {
        let mut builder = EventsBuilder::default();
        assert!(builder.try_push(&vec![b'x'; EVENT_BYTES_MAX]));
        assert!(!builder.try_push(b""));
        let mut out = Vec::new();
        builder.finish(1, &mut out);
        assert_eq!(out.len(), FRAME_BYTES_MAX);
        assert!(!EventsBuilder::default().try_push(&vec![b'x'; EVENT_BYTES_MAX + 1]));
    }

    #[test]
    fn every_single_bit_flip_is_noticed() {
        let good = events_frame(9, &[b"{\"a\":1}", b"{}"]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // A flip in the length may make the frame wait for more, never pass.
            assert_ne!(read_one(&bad), Ok(true), "bit {bit}");
        }
    }

    #[test]
    fn a_wrong_start_is_told_by_its_first_wrong_byte() {
        assert_eq!(read_one(b"\xf5"), Ok(false));
        assert_eq!(read_one(b"G"), Err(BadFrame::Magic(b'G')));
        assert_eq!(read_one(b"\xf5\x02"), Err(BadFrame::Version(2)));
        assert_eq!(read_one(b"\xf5\x01\x09"), Err(BadFrame::Kind(9)));
        assert_eq!(read_one(b"\xf5\x01\x03\x80"), Err(BadFrame::Flags(0x80)));
        let mut reader = FrameReader::default();
        assert_eq!(reader.next(&mut &b"\xf5"[..]), Ok(None));
        assert_eq!(reader.next(&mut &b"\x07"[..]), Err(BadFrame::Version(7)));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut frame = events_frame(1, &[b"{}"]);
        frame[4..8].copy_from_slice(&(PAYLOAD_BYTES_MAX as u32).to_le_bytes());
        let mut reader = FrameReader::default();
        assert_eq!(reader.next(&mut &frame[..]), Ok(None));
        assert!(reader.partial.capacity() < 1024);
        frame[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read_one(&frame), Err(BadFrame::TooLong(u32::MAX)));
    }

    #[test]
    fn events_must_fill_the_payload_exactly() {
        let frame = |count: u32, payload: &[u8]| {
            let mut out = Vec::new();
            write_frame(&mut out, Kind::Events, 1, count, |p| {
                p.extend_from_slice(payload)
            });
            let mut reader = FrameReader::default();
            let events = reader.next(&mut &out[..]).unwrap().unwrap().events();
            events.map(|e| e.map(<[u8]>::to_vec).collect::<Vec<_>>())
        };
        assert_eq!(
            frame(2, b"\x01\0\0\0a\0\0\0\0"),
            Ok(vec![b"a".to_vec(), vec![]])
        );
        for (count, payload) in [
            (0, &b""[..]),
            (1, b""),
            (1, b"\x01\0\0\0a\0\0\0\0"),
            (3, b"\x01\0\0\0a\0\0\0\0"),
            (1, b"\x02\0\0\0a"),
            (1, b"\xff\xff\xff\xffa"),
            (1, b"\x01\0\0\0ab"),
        ] {
            assert_eq!(
                frame(count, payload),
                Err(BadFrame::Events),
                "{count} {payload:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn frames_come_out_as_they_went_in_wherever_the_stream_is_cut(
            batches in prop::collection::vec(
                (1u64..1 << 50, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)),
                1..5),
            step in 1usize..90,
        ) {
            let mut stream = Vec::new();
            let mut builder = EventsBuilder::default();
            for (seq, events) in &batches {
                for event in events {
                    prop_assert!(builder.try_push(event));
                }
                builder.finish(*seq, &mut stream);
            }
            let mut reader = FrameReader::default();
            let mut found = Vec::new();
            for mut piece in stream.chunks(step) {
                while let Some(frame) = reader.next(&mut piece).unwrap() {
                    let events = frame.events().unwrap().map(<[u8]>::to_vec).collect::<Vec<_>>();
                    found.push((frame.seq, events));
                }
            }
            prop_assert_eq!(found, batches);
            prop_assert!(!reader.is_mid_frame());
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
            if let Some(first) = bytes.first_mut() { *first = MAGIC; }
            let mut reader = FrameReader::default();
            for mut piece in bytes.chunks(step) {
                while let Ok(Some(frame)) = reader.next(&mut piece) {
                    frame.events().ok();
                }
            }
        }
    }
}
