//! The two ways to a durable write in one operation, straight from the kernel.
//!
//! `libc` and not `rustix`: fault injection by preloading must see these calls.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

/// One operation is in flight at a time, per log and thread.
const RING_ENTRIES: u32 = 2;

thread_local! {
    // A ring belongs to the thread that submits (SINGLE_ISSUER); it is closed with the thread.
    static RING: RefCell<Option<IoUring>> = const { RefCell::new(None) };
}

/// `pwritev2(RWF_DSYNC)`: data and the metadata to find it are durable on return.
pub(super) fn pwrite_dsync(file: &fs::File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the vector points at `bytes`, which lives through the call; the kernel only reads
    // it. The descriptor is open while `file` is borrowed.
    let written = unsafe {
        libc::pwritev2(
            file.as_raw_fd(),
            &raw const vector,
            1,
            offset,
            libc::RWF_DSYNC,
        )
    };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// The same by io_uring, on this thread's ring.
pub(super) fn ring_write_dsync(file: &fs::File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    RING.with_borrow_mut(|slot| {
        let mut ring = match slot.take() {
            Some(ring) => ring,
            None => new_ring()?,
        };
        let (result, reusable) = ring_write(&mut ring, file, offset, bytes);
        if reusable {
            *slot = Some(ring);
        }
        result
    })
}

/// Whether the kernel lets this process use io_uring.
pub(super) fn ring_permitted() -> bool {
    new_ring().is_ok()
}

fn new_ring() -> io::Result<IoUring> {
    let tuned = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(RING_ENTRIES);
    // Kernels before 6.1 refuse the flags, not the ring.
    tuned.or_else(|_| IoUring::new(RING_ENTRIES))
}

/// The second value: no operation is left in the ring.
fn ring_write(
    ring: &mut IoUring,
    file: &fs::File,
    offset: u64,
    bytes: &[u8],
) -> (io::Result<usize>, bool) {
    let Ok(len) = u32::try_from(bytes.len()) else {
        return (Err(io::ErrorKind::InvalidInput.into()), true);
    };
    let write = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), len)
        .offset(offset)
        .rw_flags(libc::RWF_DSYNC)
        .build();
    // SAFETY: `bytes` and the descriptor outlive the operation: this function returns only after
    // its completion, or, when waiting itself fails, drops the ring with the operation in it.
    // The operation only reads the memory, and the log never reuses a block's memory after an
    // error.
    if unsafe { ring.submission().push(&write) }.is_err() {
        return (Err(io::ErrorKind::ResourceBusy.into()), false);
    }
    loop {
        let waited = ring.submit_and_wait(1);
        if let Some(done) = ring.completion().next() {
            let result = usize::try_from(done.result())
                .map_err(|_| io::Error::from_raw_os_error(-done.result()));
            return (result, true);
        }
        match waited {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(write: fn(&fs::File, u64, &[u8]) -> io::Result<usize>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[0; 8192]).unwrap();
        assert_eq!(write(file.as_file(), 4096, &[7; 4096]).unwrap(), 4096);
        let bytes = fs::read(file.path()).unwrap();
        assert!(bytes[..4096].iter().all(|byte| *byte == 0));
        assert!(bytes[4096..].iter().all(|byte| *byte == 7));

        let read_only = fs::File::open(file.path()).unwrap();
        let error = write(&read_only, 0, &[1; 4096]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn pwritev2_writes_at_the_offset_and_reports_errors() {
        check(pwrite_dsync);
    }

    #[test]
    fn the_ring_writes_at_the_offset_and_reports_errors() {
        if ring_permitted() {
            check(ring_write_dsync);
        }
    }
}
