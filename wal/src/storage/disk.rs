//! A folder of the real file system.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FlockOperation};

use super::{Access, File, Storage, sys};
use crate::page::PAGE_BYTES;

/// How a commit reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMethod {
    /// One io_uring write with `RWF_DSYNC`.
    Uring,
    /// One `pwritev2` with `RWF_DSYNC`; where the file system knows no such flag, `pwrite` and
    /// `fdatasync`.
    Pwritev2,
}

/// A folder of the real file system.
#[derive(Clone, Debug)]
pub struct Disk {
    root: Arc<PathBuf>,
    method: CommitMethod,
    /// Ask for `O_DIRECT` at all.
    direct: bool,
}

impl Disk {
    /// The folder `root`, commits by `method`.
    #[must_use]
    pub fn new(root: &Path, method: CommitMethod) -> Disk {
        Disk {
            root: Arc::new(root.to_owned()),
            method,
            direct: true,
        }
    }

    /// The same folder, all reads and writes through the page cache: what happens anyway where
    /// the file system refuses `O_DIRECT`.
    #[must_use]
    pub fn buffered(self) -> Disk {
        Disk {
            direct: false,
            ..self
        }
    }

    /// The folder `root`, commits by io_uring where the kernel permits it (containers often
    /// forbid it), by `pwritev2` elsewhere.
    #[must_use]
    pub fn probe(root: &Path) -> Disk {
        let method = if sys::ring_permitted() {
            CommitMethod::Uring
        } else {
            CommitMethod::Pwritev2
        };
        Disk::new(root, method)
    }

    /// How commits reach the disk.
    #[must_use]
    pub fn method(&self) -> CommitMethod {
        self.method
    }

    fn file(&self, inner: fs::File, direct: bool) -> DiskFile {
        DiskFile {
            inner,
            method: self.method,
            direct,
            dsync_refused: false,
        }
    }

    /// Opens with `O_DIRECT`, or without where the file system refuses it (tmpfs before 6.6).
    fn open_direct(
        &self,
        path: &Path,
        options: &mut fs::OpenOptions,
    ) -> io::Result<(fs::File, bool)> {
        if !self.direct {
            return Ok((options.open(path)?, false));
        }
        match options.custom_flags(libc::O_DIRECT).open(path) {
            Ok(inner) => Ok((inner, true)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // The refused open may have created the file already.
                let inner = options.custom_flags(0).create_new(false).open(path)?;
                Ok((inner, false))
            }
            Err(error) => Err(error),
        }
    }
}

impl Storage for Disk {
    type File = DiskFile;
    type Lock = DiskLock;

    fn sub(&self, name: &str) -> Disk {
        Disk {
            root: Arc::new(self.root.join(name)),
            ..*self
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn create_dir(&self) -> io::Result<()> {
        if self.root.is_dir() {
            return sync_parent(&self.root);
        }
        if let Some(parent) = self
            .root
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            Disk {
                root: Arc::new(parent.to_owned()),
                ..*self
            }
            .create_dir()?;
        }
        match fs::create_dir(&*self.root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => sync_parent(&self.root),
        }
    }

    fn remove_dir(&self) -> io::Result<()> {
        fs::remove_dir(&*self.root)?;
        sync_parent(&self.root)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&*self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str, direct: bool) -> io::Result<DiskFile> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let path = self.path(name);
        if !direct {
            return Ok(self.file(options.open(path)?, false));
        }
        if path.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (inner, direct) = self.open_direct(&path, options.create(true))?;
        Ok(self.file(inner, direct))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<DiskFile> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        let path = self.path(name);
        let (inner, direct) = match access {
            Access::Read => self.open_direct(&path, &mut options)?,
            Access::ReadCached => (options.open(path)?, false),
            Access::Write { direct: true } => self.open_direct(&path, options.write(true))?,
            Access::Write { direct: false } => (options.write(true).open(path)?, false),
        };
        Ok(self.file(inner, direct))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        fs::File::open(&*self.root)?.sync_all()
    }

    fn lock(&self, name: &str) -> io::Result<DiskLock> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path(name))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(DiskLock { _file: file })
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&*self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// An advisory lock on a file, released by the kernel with the process.
#[derive(Debug)]
pub struct DiskLock {
    _file: fs::File,
}

/// An open file of the real file system.
#[derive(Debug)]
pub struct DiskFile {
    inner: fs::File,
    method: CommitMethod,
    direct: bool,
    /// The file system does not know `RWF_DSYNC`.
    dsync_refused: bool,
}

impl DiskFile {
    /// Whether reads and writes pass by the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }
}

impl File for DiskFile {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.inner.write_at(&bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_durable(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.dsync_refused {
            let written = match self.method {
                CommitMethod::Uring => sys::ring_write_dsync(&self.inner, offset, bytes),
                CommitMethod::Pwritev2 => sys::pwrite_dsync(&self.inner, offset, bytes),
            };
            match written {
                Ok(written) if written == bytes.len() => return Ok(()),
                // The rest could be written again, but whether the part is durable is unknown.
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if is_unsupported(&error) => self.dsync_refused = true,
                Err(error) => return Err(error),
            }
        }
        self.write(offset, bytes)?;
        self.inner.sync_data()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.inner.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => {
                    done += read;
                    // A part of a page is the end of the file; direct I/O cannot ask behind it.
                    if self.direct && !read.is_multiple_of(PAGE_BYTES) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync_all()
    }

    fn settle(&self) -> io::Result<()> {
        self.inner.sync_all()?;
        if !self.direct {
            rustix::fs::fadvise(&self.inner, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.metadata()?.len())
    }
}

/// The flag or the operation is unknown here, so nothing was written.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

fn sync_parent(dir: &Path) -> io::Result<()> {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => fs::File::open(".")?.sync_all(),
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(disk: &Disk) {
        let mut file = disk.create("f", true).unwrap();
        let pages = crate::page::Pages::zeroed(2 * PAGE_BYTES);
        file.write(0, pages.as_bytes()).unwrap();
        let mut page = crate::page::Pages::zeroed(PAGE_BYTES);
        page.as_bytes_mut().fill(7);
        file.write_durable(PAGE_BYTES as u64, page.as_bytes())
            .unwrap();
        file.settle().unwrap();
        let mut read = crate::page::Pages::zeroed(3 * PAGE_BYTES);
        assert_eq!(file.read(0, read.as_bytes_mut()).unwrap(), 2 * PAGE_BYTES);
        assert!(read.as_bytes()[..PAGE_BYTES].iter().all(|byte| *byte == 0));
        assert!(
            read.as_bytes()[PAGE_BYTES..2 * PAGE_BYTES]
                .iter()
                .all(|byte| *byte == 7)
        );
        let exists = disk.create("f", true).err().unwrap();
        assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
        disk.remove("f").unwrap();
    }

    #[test]
    fn files_are_the_same_direct_and_through_the_cache() {
        for method in [CommitMethod::Uring, CommitMethod::Pwritev2] {
            if method == CommitMethod::Uring && !sys::ring_permitted() {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            check(&Disk::new(folder.path(), method));
            check(&Disk::new(folder.path(), method).buffered());
        }
    }

    #[test]
    fn without_the_flag_a_write_and_a_sync_do() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path(), CommitMethod::Pwritev2);
        let mut file = disk.create("f", false).unwrap();
        file.dsync_refused = true;
        file.write_durable(10, b"bytes").unwrap();
        assert_eq!(fs::read(folder.path().join("f")).unwrap()[10..], *b"bytes");
    }

    #[test]
    fn a_file_cut_inside_a_page_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path(), CommitMethod::Pwritev2);
        disk.create("f", false)
            .unwrap()
            .write(0, &[1; 5000])
            .unwrap();
        let file = disk.open("f", Access::Read).unwrap();
        let mut pages = crate::page::Pages::zeroed(4 * PAGE_BYTES);
        assert_eq!(file.read(0, pages.as_bytes_mut()).unwrap(), 5000);
    }
}
