//! Memory aligned for direct I/O.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// The unit of all writes: what direct I/O accepts on every disk we know (512 or 4096).
pub const PAGE_BYTES: usize = 4096;

/// One aligned page.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
pub(crate) struct Page([u8; PAGE_BYTES]);

/// A buffer aligned to [`PAGE_BYTES`], its length a multiple of it.
pub(crate) struct Pages(Vec<Page>);

impl Pages {
    /// Zeroed pages for at least `bytes`; the memory is touched only when used.
    pub(crate) fn zeroed(bytes: usize) -> Pages {
        let count = bytes.div_ceil(PAGE_BYTES);
        Pages(Page::new_vec_zeroed(count).expect("a bounded buffer fits memory"))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_slice().as_bytes()
    }

    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_slice().as_mut_bytes()
    }
}

/// `bytes` rounded up to whole pages.
pub(crate) const fn page_align(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_aligned_and_zero() {
        let pages = Pages::zeroed(5000);
        assert_eq!(pages.as_bytes().len(), 8192);
        assert_eq!(pages.as_bytes().as_ptr().addr() % PAGE_BYTES, 0);
        assert!(pages.as_bytes().iter().all(|byte| *byte == 0));
    }
}
