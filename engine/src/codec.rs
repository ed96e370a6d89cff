//! Little-endian, length-prefixed encoding of log entries: total on any input, panics on none.

use thiserror::Error;

/// Bytes of a log entry that do not decode.
///
/// The log's checksum has already passed when this is seen, so it means a newer
/// writer or a bug, never a torn write. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("entry does not decode at {what}, byte {offset}")]
pub struct Damaged {
    /// The part that was being read.
    pub what: &'static str,
    /// Offset into the entry's payload.
    pub offset: usize,
}

/// Appends fields to a buffer the caller owns and reuses.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// Starts appending at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.out.push(value);
        self
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.u64(value.cast_unsigned())
    }

    /// A length (u32) and the bytes.
    ///
    /// # Panics
    /// When `bytes` is longer than 4 GiB; events are capped at 1 MiB long before.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let len =
            u32::try_from(bytes.len()).expect("parts of an entry are bounded by the 1 MiB event");
        self.u32(len);
        self.out.extend_from_slice(bytes);
        self
    }

    /// Text, as [`Encoder::bytes`].
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Text that may be absent: a presence byte first.
    pub fn optional_text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.u8(1).text(text),
            None => self.u8(0),
        }
    }
}

/// Reads what an [`Encoder`] wrote.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Whether all bytes were read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offset == self.bytes.len()
    }

    /// The error for a value at the present place that is not understood.
    #[must_use]
    pub fn damaged(&self, what: &'static str) -> Damaged {
        Damaged {
            what,
            offset: self.offset,
        }
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Damaged> {
        Ok(self.take::<1>(what)?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Damaged> {
        Ok(u16::from_le_bytes(self.take(what)?))
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.take(what)?))
    }

    /// Eight bytes.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.take(what)?))
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, Damaged> {
        Ok(self.u64(what)?.cast_signed())
    }

    /// A length and that many bytes.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Damaged> {
        let len = self.u32(what)? as usize;
        let end = self
            .offset
            .checked_add(len)
            .filter(|&end| end <= self.bytes.len())
            .ok_or(self.damaged(what))?;
        let part = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(part)
    }

    /// Text; not UTF-8 is [`Damaged`].
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Damaged> {
        let before = self.offset;
        std::str::from_utf8(self.bytes(what)?).map_err(|_| Damaged {
            what,
            offset: before,
        })
    }

    /// Text that may be absent.
    pub fn optional_text(&mut self, what: &'static str) -> Result<Option<&'a str>, Damaged> {
        match self.u8(what)? {
            0 => Ok(None),
            1 => Ok(Some(self.text(what)?)),
            _ => Err(self.damaged(what)),
        }
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Damaged> {
        let part = self.bytes[self.offset..]
            .first_chunk::<N>()
            .ok_or(self.damaged(what))?;
        self.offset += N;
        Ok(*part)
    }
}
