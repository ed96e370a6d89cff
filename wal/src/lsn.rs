//! Positions in one shard's log.

use std::fmt;

/// The position of a frame in one shard's log: a byte address, a multiple of 8.
///
/// Addresses grow without reuse for the life of a log. They may skip only where a segment
/// ends: every address inside a segment is `base + offset in the file`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// No position. Address 0 lies in the header of the first segment, so no frame has it.
    pub const ZERO: Lsn = Lsn(0);

    /// The highest position: 48 bits of 8-byte units (2 PiB of log), what an index entry keeps.
    pub const MAX: Lsn = Lsn(((1 << 48) - 1) * 8);

    /// The position at byte address `bytes`.
    ///
    /// # Panics
    /// When `bytes` is not a multiple of 8 or lies above [`Lsn::MAX`].
    #[must_use]
    pub const fn new(bytes: u64) -> Lsn {
        match Lsn::checked(bytes) {
            Some(lsn) => lsn,
            None => panic!("an LSN is a multiple of 8 and fits 48 bits of 8-byte units"),
        }
    }

    /// As [`Lsn::new`], for an address that comes from outside.
    #[must_use]
    pub const fn checked(bytes: u64) -> Option<Lsn> {
        if bytes.is_multiple_of(8) && bytes <= Lsn::MAX.0 {
            Some(Lsn(bytes))
        } else {
            None
        }
    }

    /// The byte address.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position in 8-byte units: fits 48 bits, for an index entry.
    #[must_use]
    pub const fn packed(self) -> u64 {
        self.0 / 8
    }

    /// The inverse of [`Lsn::packed`].
    ///
    /// # Panics
    /// When `packed` does not fit 48 bits.
    #[must_use]
    pub const fn from_packed(packed: u64) -> Lsn {
        assert!(packed < 1 << 48, "a packed LSN fits 48 bits");
        Lsn(packed * 8)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packed_form_round_trips_at_both_ends() {
        for lsn in [Lsn::ZERO, Lsn::new(4160), Lsn::MAX] {
            assert_eq!(Lsn::from_packed(lsn.packed()), lsn);
        }
        assert_eq!(Lsn::MAX.packed(), (1 << 48) - 1);
    }

    #[test]
    fn an_unaligned_or_too_high_address_is_refused() {
        assert_eq!(Lsn::checked(4), None);
        assert_eq!(Lsn::checked(Lsn::MAX.get() + 8), None);
    }

    #[test]
    #[should_panic(expected = "multiple of 8")]
    fn an_unaligned_address_panics_where_we_made_it() {
        let _lsn = Lsn::new(3);
    }
}
