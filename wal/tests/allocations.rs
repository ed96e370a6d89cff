//! Appending, committing and reading allocate nothing once the log is warm.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use support::*;
use syncline_wal::{Class, CommitMethod, Disk, LogLimits, LogOptions, Lsn};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_log_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Disk::new(folder.path(), CommitMethod::Pwritev2);
    let limits = LogLimits {
        tail_cache_bytes: 64 * 1024,
        ..LogLimits::for_segment_bytes(8 << 20)
    };
    let options = LogOptions {
        limits,
        ..options()
    };
    let mut driver = Driver::open_with(storage, options, Lsn::ZERO).unwrap();
    driver.maintain().unwrap();
    let payload = payload(1, 450);
    let mut out = Vec::with_capacity(1000);
    let mut first = None;
    let mut round = |driver: &mut Driver<Disk>| {
        for _ in 0..10 {
            let lsn = driver.log.append(Class::Intake, KIND, &[&payload]).unwrap();
            let oldest = *first.get_or_insert(lsn);
            driver.log.read(lsn, &mut out).unwrap();
            if oldest < driver.log.durable() {
                driver.log.read(oldest, &mut out).unwrap();
            }
        }
        driver.commit_all().unwrap();
    };
    // The tables of blocks, chunks and files reach their sizes. The last read comes from disk.
    for _ in 0..600 {
        round(&mut driver);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..100 {
        round(&mut driver);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}
