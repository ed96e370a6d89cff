//! Spare segments: filled with zeros and durable before the log needs them.
//!
//! A write into space that holds data costs about half of one that must allocate or convert
//! extents (measured on ext4), and it never finds the disk full.

use std::io;

use crate::SegmentNumber;
use crate::log::WriteFailed;
use crate::options::LogLimits;
use crate::page::{PAGE_BYTES, Pages};
use crate::space::{Spare, SpareShelf};
use crate::storage::{File, Storage, is_full};
use crate::writer::Maintained;

/// A new segment takes at most this part of what is free.
const FREE_SHARE: u64 = 8;

/// The largest single write of zeros.
const ZERO_WRITE_BYTES: usize = 1024 * 1024;

pub(crate) struct SparePreparation<F> {
    /// The number of the next segment to prepare, or in preparation.
    next: SegmentNumber,
    current: Option<Preparing<F>>,
    /// Allocated with the first spare; only ever read, so the kernel shares one zero page.
    zeros: Option<Pages>,
}

struct Preparing<F> {
    file: F,
    bytes: u64,
    done: u64,
}

/// The size of the next segment on a disk with `free` bytes; none when it is full.
pub(crate) fn spare_bytes(limits: &LogLimits, free: u64) -> Option<u64> {
    let usable = free.saturating_sub(limits.free_bytes_min);
    let page = PAGE_BYTES as u64;
    let share = usable / FREE_SHARE / page * page;
    let bytes = limits
        .segment_bytes
        .min(share)
        .max(limits.segment_bytes_min);
    (bytes <= usable).then_some(bytes)
}

impl<F: File> SparePreparation<F> {
    pub(crate) fn new(next: SegmentNumber) -> SparePreparation<F> {
        SparePreparation {
            next,
            current: None,
            zeros: None,
        }
    }

    pub(crate) fn is_wanted(&self, limits: &LogLimits, shelf: &SpareShelf) -> bool {
        shelf.lock().is_short(limits)
    }

    /// Writes at most `bytes_max` zeros of the next spare.
    pub(crate) fn step<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        limits: &LogLimits,
        shelf: &SpareShelf,
        bytes_max: usize,
    ) -> Result<Maintained, WriteFailed> {
        if self.current.is_none() && !self.is_wanted(limits, shelf) {
            return Ok(Maintained::default());
        }
        match self.advance(storage, limits, bytes_max) {
            Ok(None) => Ok(Maintained {
                more: self.current.is_some(),
                space_added: false,
            }),
            Ok(Some(spare)) => {
                let mut shelf_now = shelf.lock();
                shelf_now.spares.push_back(spare);
                shelf_now.disk_full = false;
                drop(shelf_now);
                Ok(Maintained {
                    more: self.is_wanted(limits, shelf),
                    space_added: true,
                })
            }
            // Nothing of the log is in this file yet: giving it up harms nothing.
            Err(error) if is_full(&error) => {
                shelf.lock().disk_full = true;
                self.give_up(storage)?;
                Ok(Maintained::default())
            }
            Err(source) => {
                let path = storage.path(&self.next.preparing_name());
                Err(WriteFailed::Io {
                    operation: "prepare",
                    path,
                    source,
                })
            }
        }
    }

    /// Prepares a whole spare at once, also on a disk that is nearly full.
    pub(crate) fn prepare_now<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        limits: &LogLimits,
    ) -> io::Result<Spare> {
        loop {
            if let Some(spare) = self.advance(storage, limits, ZERO_WRITE_BYTES)? {
                return Ok(spare);
            }
        }
    }

    fn advance<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        limits: &LogLimits,
        bytes_max: usize,
    ) -> io::Result<Option<Spare>> {
        let Some(preparing) = &mut self.current else {
            let bytes = spare_bytes(limits, storage.free_space()?)
                .ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
            let file = storage.create(&self.next.preparing_name(), true)?;
            self.current = Some(Preparing {
                file,
                bytes,
                done: 0,
            });
            return Ok(None);
        };
        if preparing.done < preparing.bytes {
            let left = (preparing.bytes - preparing.done) as usize;
            let page_max = (bytes_max / PAGE_BYTES * PAGE_BYTES).max(PAGE_BYTES);
            let bytes = left.min(page_max).min(ZERO_WRITE_BYTES);
            let zeros = self
                .zeros
                .get_or_insert_with(|| Pages::zeroed(ZERO_WRITE_BYTES));
            preparing
                .file
                .write(preparing.done, &zeros.as_bytes()[..bytes])?;
            preparing.done += bytes as u64;
            return Ok(None);
        }
        preparing.file.sync()?;
        storage.rename(&self.next.preparing_name(), &self.next.file_name())?;
        storage.sync_dir()?;
        let spare = Spare {
            number: self.next,
            bytes: preparing.bytes,
        };
        self.current = None;
        self.next = self.next.next();
        Ok(Some(spare))
    }

    fn give_up<S: Storage<File = F>>(&mut self, storage: &S) -> Result<(), WriteFailed> {
        let name = self.next.preparing_name();
        let failed = |source| WriteFailed::Io {
            operation: "remove",
            path: storage.path(&name),
            source,
        };
        if self.current.take().is_some() || storage.list().map_err(failed)?.contains(&name) {
            storage.remove(&name).map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn segments_shrink_with_the_disk_down_to_the_stated_minimum() {
        let limits = LogLimits::default();
        let check =
            |free: u64, expected| assert_eq!(spare_bytes(&limits, free), expected, "{free}");
        check(u64::MAX / 2, Some(64 * MIB));
        check(32 * MIB + 512 * MIB, Some(64 * MIB));
        check(32 * MIB + 80 * MIB, Some(10 * MIB));
        check(32 * MIB + 2 * MIB, Some(2 * MIB));
        check(32 * MIB + 2 * MIB - 1, None);
        check(0, None);
    }
}
