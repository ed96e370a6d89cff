//! The port to the disk: what the log asks of a file system, and no more.

pub mod disk;
mod sys;

use std::io;
use std::path::PathBuf;

/// For which use a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read what is on the disk, past the page cache where the file system allows it.
    Read,
    /// To read through the page cache, which may hold bytes from before a direct write.
    ReadCached,
    /// To read and write; `direct` passes by the page cache where the file system allows it.
    /// Offsets, lengths and memory are then multiples of [`PAGE_BYTES`](crate::PAGE_BYTES).
    Write {
        /// Pass by the page cache.
        direct: bool,
    },
}

/// A folder on a disk. A clone is another handle to the same folder.
///
/// Names are plain file names. An error says that the operation may have happened in part, or
/// not at all; none is retried.
pub trait Storage: Clone + Send + 'static {
    /// An open file.
    type File: File;
    /// Holds a lock until it is dropped or the process ends.
    type Lock: Send + 'static;

    /// The folder `name` within this one; it need not exist.
    fn sub(&self, name: &str) -> Self;

    /// Where `name` is, for messages.
    fn path(&self, name: &str) -> PathBuf;

    /// Makes this folder durable, with its parents; fine when it is there already.
    ///
    /// # Errors
    /// As the file system reports.
    fn create_dir(&self) -> io::Result<()>;

    /// Removes this empty folder, durably.
    ///
    /// # Errors
    /// As the file system reports.
    fn remove_dir(&self) -> io::Result<()>;

    /// The names in this folder, sorted; empty when the folder is missing.
    ///
    /// # Errors
    /// As the file system reports.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates the file `name`. It lasts once it is synced and so is the folder.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the file system reports.
    fn create(&self, name: &str, direct: bool) -> io::Result<Self::File>;

    /// Opens the file `name`.
    ///
    /// # Errors
    /// `NotFound`, or as the file system reports.
    fn open(&self, name: &str, access: Access) -> io::Result<Self::File>;

    /// Gives the file another name, replacing what had it; lasts once the folder is synced.
    ///
    /// # Errors
    /// As the file system reports.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the file `name`; lasts once the folder is synced.
    ///
    /// # Errors
    /// As the file system reports.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in this folder durable.
    ///
    /// # Errors
    /// As the file system reports.
    fn sync_dir(&self) -> io::Result<()>;

    /// Takes the lock `name`, creating its file; never waits.
    ///
    /// # Errors
    /// `WouldBlock` when another holds it, or as the file system reports.
    fn lock(&self, name: &str) -> io::Result<Self::Lock>;

    /// Free bytes on the disk of this folder.
    ///
    /// # Errors
    /// As the file system reports.
    fn free_space(&self) -> io::Result<u64>;
}

/// An open file.
pub trait File: Send + 'static {
    /// Writes all of `bytes`; durable after the next [`File::sync`].
    ///
    /// # Errors
    /// As the file system reports; a short write is one.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes all of `bytes`, durable on return: one operation, not a write and a sync.
    ///
    /// # Errors
    /// As the file system reports; a short write is one. The bytes on disk are then unknown.
    fn write_durable(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `buf` from `offset`; fewer bytes only where the file ends.
    ///
    /// # Errors
    /// As the file system reports.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// As the file system reports. Never to be called again on this file then: the kernel tells
    /// of a failed write-back once and forgets the pages.
    fn sync(&self) -> io::Result<()>;

    /// Writes back what is dirty and forgets what is cached, so that the next reads tell what
    /// the medium holds.
    ///
    /// # Errors
    /// As the file system reports.
    fn settle(&self) -> io::Result<()>;

    /// Cuts the file or extends it with zeros.
    ///
    /// # Errors
    /// As the file system reports.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// The file's length.
    ///
    /// # Errors
    /// As the file system reports.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As the file system reports.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Whether the error says that the disk, or our share of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
