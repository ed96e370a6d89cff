//! Rows in the text form of COPY: the manual's page on COPY, section "Text Format".

use crate::pgoutput::Value;

/// A row taken apart. One is used for many rows, so that its space is.
#[derive(Debug, Default)]
pub(crate) struct CopyRow {
    /// The values without escapes, one behind the other.
    bytes: Vec<u8>,
    /// Where each ends, `None` for null.
    ends: Vec<Option<usize>>,
}

impl CopyRow {
    /// Takes a row apart, with or without its line's end.
    pub(crate) fn parse(&mut self, line: &[u8]) {
        self.bytes.clear();
        self.ends.clear();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        for field in line.split(|byte| *byte == b'\t') {
            if field == b"\\N" {
                self.ends.push(None);
                continue;
            }
            self.unescape(field);
            self.ends.push(Some(self.bytes.len()));
        }
    }

    /// The values of the row.
    pub(crate) fn values(&self) -> Vec<Value<'_>> {
        let mut start = 0;
        let value = |end: &Option<usize>| match *end {
            None => Value::Null,
            Some(end) => Value::Text(&self.bytes[std::mem::replace(&mut start, end)..end]),
        };
        self.ends.iter().map(value).collect()
    }

    fn unescape(&mut self, field: &[u8]) {
        let mut bytes = field.iter().copied();
        while let Some(byte) = bytes.next() {
            let plain = match byte {
                b'\\' => match bytes.next() {
                    Some(b'b') => 0x08,
                    Some(b'f') => 0x0C,
                    Some(b'n') => b'\n',
                    Some(b'r') => b'\r',
                    Some(b't') => b'\t',
                    Some(b'v') => 0x0B,
                    Some(other) => other,
                    None => b'\\',
                },
                byte => byte,
            };
            self.bytes.push(plain);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_null_and_escapes_are_told_apart() {
        let mut row = CopyRow::default();
        row.parse(b"1\t\\N\t\ta\\tb\\\\N\\\n\n");
        let expected = [
            Value::Text(b"1"),
            Value::Null,
            Value::Text(b""),
            Value::Text(b"a\tb\\N\n"),
        ];
        assert_eq!(row.values(), expected);
        row.parse(b"\\\\N");
        assert_eq!(row.values(), [Value::Text(b"\\N")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_line_is_taken_apart(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut row = CopyRow::default();
            row.parse(&line);
            let without_end = line.strip_suffix(b"\n").unwrap_or(&line);
            let tabs = without_end.iter().filter(|byte| **byte == b'\t').count();
            prop_assert_eq!(row.values().len(), tabs + 1);
        }
    }
}
