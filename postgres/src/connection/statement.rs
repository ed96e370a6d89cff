//! Statements: alone, or many under way at once.

use std::io;

use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use super::{Connection, Frame};
use crate::error::{Error, ServerError};

/// A row's values as text, `None` for null.
pub type Row = Vec<Option<String>>;

/// More rows than any question of ours can have for an answer.
const ROWS_MAX: usize = 1 << 16;

impl Connection {
    /// Runs statements without parameters and answers the rows of all of them. Given up half
    /// way, the connection can only be closed.
    ///
    /// # Errors
    /// The server refused one; of several in one text none has an effect then.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        self.stage_query(sql)?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let frame = self.read().await?;
            match frame.tag {
                b'D' if rows.len() == ROWS_MAX => {
                    return Err(Error::Protocol("an answer of too many rows"));
                }
                b'D' => rows.push(parse_row(&frame.body)?),
                b'E' => refused = Some(ServerError::parse(&frame.body)),
                b'Z' => return refused.map_or(Ok(rows), |error| Err(Error::Server(error))),
                b'T' | b'C' | b'I' => {}
                _ => return Err(Error::Protocol("an unexpected message in an answer")),
            }
        }
    }

    pub(crate) fn stage_query(&mut self, sql: &str) -> Result<(), Error> {
        frontend::query(sql, self.outgoing()).map_err(unsendable)
    }

    /// Begins to follow a slot: afterwards both sides send `CopyData`.
    pub(crate) async fn start_copy_both(&mut self, sql: &str) -> Result<(), Error> {
        self.stage_query(sql)?;
        let mut refused = None;
        loop {
            let frame = self.read().await?;
            match frame.tag {
                b'W' => return Ok(()),
                b'E' => refused = Some(ServerError::parse(&frame.body)),
                b'Z' => {
                    let error = refused.map_or(Error::Protocol("no stream"), Error::Server);
                    return Err(error);
                }
                _ => return Err(Error::Protocol("an unexpected message before a stream")),
            }
        }
    }

    /// Stages the preparation of a statement, whose parameters have the types that the server
    /// infers.
    pub(crate) fn stage_prepare(&mut self, name: &str, sql: &str) -> Result<(), Error> {
        frontend::parse(name, sql, [], self.outgoing()).map_err(unsendable)
    }

    /// Stages a statement's run with these parameters, as text.
    pub(crate) fn stage_run(
        &mut self,
        name: &str,
        parameters: &[Option<String>],
    ) -> Result<(), Error> {
        frontend::bind(
            "",
            name,
            [],
            parameters,
            |parameter, buffer| match parameter {
                Some(text) => {
                    buffer.extend_from_slice(text.as_bytes());
                    Ok(IsNull::No)
                }
                None => Ok(IsNull::Yes),
            },
            [],
            self.outgoing(),
        )
        .map_err(|_| Error::Protocol("a statement that cannot be sent"))?;
        frontend::execute("", 0, self.outgoing()).map_err(unsendable)
    }

    /// Ends what is staged as one unit: after a refusal the rest of it is skipped.
    pub(crate) fn stage_sync(&mut self) {
        frontend::sync(self.outgoing());
    }

    /// Reads the answers of one unit: how many rows each run touched.
    pub(crate) async fn finish_unit(&mut self) -> Result<Vec<u64>, Error> {
        let mut touched = Vec::new();
        let mut refused = None;
        loop {
            let frame = self.read().await?;
            match frame.tag {
                b'C' => touched.push(rows_touched(&frame)),
                b'E' => refused = Some(ServerError::parse(&frame.body)),
                b'Z' => return refused.map_or(Ok(touched), |error| Err(Error::Server(error))),
                // Parsed, bound, no data, rows and their description, empty.
                b'1' | b'2' | b'n' | b'D' | b'T' | b'I' => {}
                _ => return Err(Error::Protocol("an unexpected message in an answer")),
            }
        }
    }
}

/// The number at the end of `INSERT 0 1`, `UPDATE 3`.
fn rows_touched(frame: &Frame) -> u64 {
    let tag = frame.body.strip_suffix(b"\0").unwrap_or(&frame.body);
    let last = tag.rsplit(|byte| *byte == b' ').next().unwrap_or(b"");
    std::str::from_utf8(last)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn parse_row(body: &[u8]) -> Result<Row, Error> {
    const BAD: Error = Error::Protocol("a row that does not add up");
    let (count, mut rest) = body.split_first_chunk().ok_or(BAD)?;
    let mut row = Row::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk().ok_or(BAD)?;
        let length = i32::from_be_bytes(*length);
        if length < 0 {
            row.push(None);
            rest = after;
            continue;
        }
        let (text, after) = after.split_at_checked(length as usize).ok_or(BAD)?;
        row.push(Some(String::from_utf8_lossy(text).into_owned()));
        rest = after;
    }
    if rest.is_empty() { Ok(row) } else { Err(BAD) }
}

fn unsendable(_: io::Error) -> Error {
    Error::Protocol("a statement that cannot be sent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_broken_ones_refused() {
        let row = parse_row(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff").unwrap();
        assert_eq!(row, [Some("a".to_owned()), None]);
        for bad in [&b""[..], b"\0\x01", b"\0\x01\0\0\0\x02a", b"\0\0x"] {
            assert!(parse_row(bad).is_err(), "{bad:?}");
        }
    }
}
