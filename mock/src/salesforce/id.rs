//! Record ids: 15 characters that tell case apart, and three more that make up for it.

use std::fmt;

/// A record's id: the object's key prefix, and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SalesforceId {
    prefix: [u8; 3],
    serial: u64,
}

/// Digits of the number, in the order that ids of real accounts count.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The characters of the suffix, each for five bits.
const SUFFIX: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// Where ids stand that other accounts do not have: pod and reserved characters after the prefix.
const POD: &[u8; 3] = b"5e0";

impl SalesforceId {
    pub(crate) fn new(prefix: [u8; 3], serial: u64) -> Self {
        Self { prefix, serial }
    }

    pub(crate) fn prefix(self) -> [u8; 3] {
        self.prefix
    }

    pub(crate) fn serial(self) -> u64 {
        self.serial
    }

    /// Reads an id of 15 or 18 characters; `None` when it is none of this account.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let short = bytes.get(..15)?;
        if !(bytes.len() == 15 || bytes.len() == 18 && bytes.get(15..)? == suffix(short)) {
            return None;
        }
        let prefix = short.first_chunk::<3>().copied()?;
        if short.get(3..6)? != POD {
            return None;
        }
        let mut serial = 0_u64;
        for byte in short.get(6..)? {
            let digit = DIGITS.iter().position(|known| known == byte)?;
            serial = serial * 62 + digit as u64;
        }
        Some(Self { prefix, serial })
    }

    /// The form without the suffix, as error messages have it.
    pub(crate) fn short(self) -> String {
        let mut text = self.to_string();
        text.truncate(15);
        text
    }
}

impl fmt::Display for SalesforceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; 15];
        text[..3].copy_from_slice(&self.prefix);
        text[3..6].copy_from_slice(POD);
        let mut rest = self.serial;
        for place in text[6..].iter_mut().rev() {
            *place = DIGITS[(rest % 62) as usize];
            rest /= 62;
        }
        let suffix = suffix(&text);
        for byte in text.iter().chain(&suffix) {
            write!(f, "{}", *byte as char)?;
        }
        Ok(())
    }
}

/// One character for each five of the id: a bit for each capital, the first the lowest.
fn suffix(short: &[u8]) -> [u8; 3] {
    let mut suffix = [b'A'; 3];
    for (place, five) in suffix.iter_mut().zip(short.chunks(5)) {
        let capitals = five.iter().enumerate();
        let bits = capitals
            .filter(|(_, byte)| byte.is_ascii_uppercase())
            .fold(0, |bits, (at, _)| bits | 1 << at);
        *place = SUFFIX[bits];
    }
    suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_is_that_of_recorded_ids() {
        for id in [
            "003q000000KvQ1tAAF",
            "003q000000KvQ2DAAV",
            "003q000000KwYFaAAN",
            "a00D0000008pQRAIA2",
            "001D000000JliSTIAZ",
            "00BD0000005WcCNMA0",
        ] {
            let (short, long) = id.split_at(15);
            assert_eq!(suffix(short.as_bytes()), *long.as_bytes(), "{id}");
        }
    }

    #[test]
    fn an_id_is_read_with_and_without_its_suffix_and_in_its_own_case_alone() {
        for serial in [1, 61, 62, 1_000_000, 62_u64.pow(9) - 1] {
            let id = SalesforceId::new(*b"003", serial);
            let text = id.to_string();
            assert_eq!(text.len(), 18);
            assert_eq!(SalesforceId::parse(&text), Some(id));
            assert_eq!(SalesforceId::parse(&id.short()), Some(id));
        }
        let id = SalesforceId::new(*b"003", 40).to_string();
        for other in ["", "003", &id[..17], &id.to_lowercase(), "0035e0000000é01"] {
            assert_eq!(SalesforceId::parse(other), None, "{other}");
        }
    }
}
