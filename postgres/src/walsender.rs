//! What a walsender and its follower say to each other within `CopyData`: the protocol's
//! chapter "Streaming Replication Protocol".

use bytes::{BufMut as _, BytesMut};

use crate::lsn::Lsn;
use crate::reader::{DecodeError, Reader};

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromServer<'a> {
    /// A message of the output plugin.
    Data(&'a [u8]),
    /// That it is alive.
    KeepAlive {
        /// All that was committed before this has been sent.
        sent_up_to: Lsn,
        /// Whether it wants a word at once.
        reply_wanted: bool,
    },
}

/// How far we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusUpdate {
    pub(crate) received: Lsn,
    /// The server forgets what lies before.
    pub(crate) durable: Lsn,
    pub(crate) now_us: i64,
    pub(crate) reply_wanted: bool,
}

/// Position, end of the log and time, which stand before every message of the plugin.
pub(crate) const DATA_HEADER_BYTES: usize = 1 + 3 * 8;

impl<'a> FromServer<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<FromServer<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            b'w' => {
                reader.take(DATA_HEADER_BYTES - 1)?;
                Ok(FromServer::Data(reader.rest()))
            }
            b'k' => {
                let sent_up_to = reader.lsn()?;
                reader.u64()?;
                let reply_wanted = reader.u8()? != 0;
                reader.end()?;
                Ok(FromServer::KeepAlive {
                    sent_up_to,
                    reply_wanted,
                })
            }
            tag => Err(DecodeError::Tag(tag)),
        }
    }
}

impl StatusUpdate {
    /// Stages it as a whole message.
    pub(crate) fn write(self, out: &mut BytesMut) {
        const BODY_BYTES: u32 = 1 + 4 * 8 + 1;
        out.reserve(5 + BODY_BYTES as usize);
        out.put_u8(b'd');
        out.put_u32(4 + BODY_BYTES);
        out.put_u8(b'r');
        out.put_u64(self.received.0);
        out.put_u64(self.durable.0);
        // Applied: nothing waits for it, and it may not be behind.
        out.put_u64(self.durable.0);
        out.put_i64(self.now_us);
        out.put_u8(u8::from(self.reply_wanted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_messages_are_read() {
        let data = [&b"w"[..], &[0; 24], b"B..."].concat();
        assert_eq!(FromServer::decode(&data), Ok(FromServer::Data(b"B...")));
        let alive = [&b"k"[..], &0x16_0000_0001_u64.to_be_bytes(), &[0; 8], &[1]].concat();
        assert_eq!(
            FromServer::decode(&alive),
            Ok(FromServer::KeepAlive {
                sent_up_to: Lsn(0x16_0000_0001),
                reply_wanted: true
            })
        );
        for end in 0..alive.len() {
            assert_eq!(FromServer::decode(&alive[..end]), Err(DecodeError::Short));
        }
        assert_eq!(FromServer::decode(b"x"), Err(DecodeError::Tag(b'x')));
    }

    #[test]
    fn a_status_update_has_its_bytes() {
        let mut out = BytesMut::new();
        let update = StatusUpdate {
            received: Lsn(2),
            durable: Lsn(1),
            now_us: 3,
            reply_wanted: true,
        };
        update.write(&mut out);
        let number = |value: u64| value.to_be_bytes();
        let expected = [
            &b"d\0\0\0\x26r"[..],
            &number(2),
            &number(1),
            &number(1),
            &number(3),
            b"\x01",
        ];
        assert_eq!(out, expected.concat());
    }
}
