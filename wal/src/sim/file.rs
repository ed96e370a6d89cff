//! An open file on a simulated disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{SIM_SECTOR_BYTES, SimDisk, Verdict, os_error};
use crate::storage::File;

/// An open file on a simulated disk.
pub struct SimFile {
    pub(super) disk: Arc<Mutex<SimDisk>>,
    pub(super) inode: u64,
    pub(super) boot: u64,
    pub(super) writable: bool,
}

impl SimFile {
    fn alive(&self) -> io::Result<MutexGuard<'_, SimDisk>> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk.alive()?;
        if disk.boot != self.boot {
            return Err(os_error(libc::EBADF));
        }
        Ok(disk)
    }

    fn put(&self, offset: u64, bytes: &[u8], durable: bool) -> io::Result<()> {
        let mut disk = self.alive()?;
        if !self.writable {
            return Err(os_error(libc::EBADF));
        }
        let verdict = disk.changing()?;
        disk.counts.writes += 1;
        let nth = disk.counts.writes;
        if let Some(capacity) = disk.faults.capacity_bytes {
            let held = disk
                .inodes
                .get(&self.inode)
                .map_or(0, |inode| inode.shown().len() as u64);
            let grows = (offset + bytes.len() as u64).saturating_sub(held);
            if grows > 0 && disk.used_bytes() + grows > capacity {
                return Err(os_error(libc::ENOSPC));
            }
        }
        let faults = disk.faults.clone();
        let Some(inode) = disk.inodes.get_mut(&self.inode) else {
            return Err(os_error(libc::EBADF));
        };
        if let Some((_, errno)) = faults.fail_write_at.filter(|(at, _)| *at == nth) {
            if durable {
                inode.write(offset, &bytes[..bytes.len().min(SIM_SECTOR_BYTES)]);
                inode.sync();
            }
            return Err(os_error(errno));
        }
        if faults.lose_write_at == Some(nth) {
            return Ok(());
        }
        let misdirected = faults.misdirect_write_at.filter(|(at, _)| *at == nth);
        inode.write(
            misdirected.map_or(offset, |(_, elsewhere)| elsewhere),
            bytes,
        );
        if durable && matches!(verdict, Verdict::Do) {
            inode.sync_last();
        }
        disk.outcome(&verdict)
    }
}

impl File for SimFile {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.put(offset, bytes, false)
    }

    fn write_durable(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.put(offset, bytes, true)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.alive()?;
        disk.counts.reads += 1;
        if let Some((_, errno)) = disk
            .faults
            .fail_read_at
            .filter(|(at, _)| *at == disk.counts.reads)
        {
            return Err(os_error(errno));
        }
        let Some(inode) = disk.inodes.get(&self.inode) else {
            return Err(os_error(libc::EBADF));
        };
        let shown = inode.shown();
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(shown.len());
        let bytes = &shown[start..(start + buf.len()).min(shown.len())];
        buf[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.alive()?;
        match disk.syncing() {
            Ok(verdict) => {
                disk.outcome(&verdict)?;
                if let Some(inode) = disk.inodes.get_mut(&self.inode) {
                    inode.sync();
                }
                Ok(())
            }
            Err(error) => {
                if !disk.crashed
                    && let Some(inode) = disk.inodes.get_mut(&self.inode)
                {
                    inode.fail_sync();
                }
                Err(error)
            }
        }
    }

    fn settle(&self) -> io::Result<()> {
        self.sync()?;
        let mut disk = self.alive()?;
        if let Some(inode) = disk.inodes.get_mut(&self.inode) {
            inode.forget_cache();
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.alive()?;
        let verdict = disk.changing()?;
        if let Some(inode) = disk.inodes.get_mut(&self.inode) {
            inode.set_len(bytes as usize);
        }
        disk.outcome(&verdict)
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.alive()?;
        Ok(disk
            .inodes
            .get(&self.inode)
            .map_or(0, |inode| inode.shown().len() as u64))
    }
}
