//! Reads a file line by line, whatever its lines are.

use std::io::{self, BufRead, BufReader, Read};

use net::ingest::EVENT_BYTES_MAX;

/// Knows where each line stands, and keeps at most one event's bytes of it.
pub(super) struct LineReader<R> {
    input: BufReader<R>,
    text: Vec<u8>,
    line: u64,
    offset: u64,
}

/// One line without its end; lines count from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Text {
        line: u64,
        /// Where the next line begins.
        end_offset: u64,
        text: &'a [u8],
    },
    /// More than an event may have.
    TooLong { line: u64 },
    /// Nothing but white space.
    Blank,
}

impl<R: Read> LineReader<R> {
    pub(super) fn new(input: R) -> Self {
        LineReader {
            input: BufReader::with_capacity(READ_BYTES, input),
            text: Vec::new(),
            line: 0,
            offset: 0,
        }
    }

    /// Whether something was read that was not given out.
    pub(super) fn has_buffered(&self) -> bool {
        !self.input.buffer().is_empty()
    }

    /// The next line; the last one may lack its end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.text.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let bytes = match self.input.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                break;
            }
            any = true;
            let end = bytes.iter().position(|b| *b == b'\n');
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            too_long |= self.text.len() + piece.len() > EVENT_BYTES_MAX;
            if !too_long {
                self.text.extend_from_slice(piece);
            }
            let used = piece.len() + usize::from(end.is_some());
            self.offset += used as u64;
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.line += 1;
        let text = self.text.trim_ascii();
        Ok(Some(if too_long {
            Line::TooLong { line: self.line }
        } else if text.is_empty() {
            Line::Blank
        } else {
            Line::Text {
                line: self.line,
                end_offset: self.offset,
                text,
            }
        }))
    }
}

/// One read of the file; a thousand events of common size.
const READ_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers_and_places() {
        let long = "x".repeat(EVENT_BYTES_MAX + 1);
        let file = format!("a\n\n  \r\nbb\r\n{long}\n{}\nlast", &long[1..]);
        let mut reader = LineReader::new(file.as_bytes());
        let mut found = Vec::new();
        while let Some(line) = reader.next().unwrap() {
            found.push(match line {
                Line::Text {
                    line,
                    end_offset,
                    text,
                } => format!("{line}@{end_offset}:{}", text.len()),
                Line::TooLong { line } => format!("{line} too long"),
                Line::Blank => "blank".to_owned(),
            });
        }
        let after_long = 11 + EVENT_BYTES_MAX + 2;
        let after_largest = after_long + EVENT_BYTES_MAX + 1;
        assert_eq!(
            found,
            [
                "1@2:1".to_owned(),
                "blank".to_owned(),
                "blank".to_owned(),
                "4@11:2".to_owned(),
                "5 too long".to_owned(),
                format!("6@{after_largest}:{EVENT_BYTES_MAX}"),
                format!("7@{}:4", after_largest + 4),
            ]
        );
    }
}
