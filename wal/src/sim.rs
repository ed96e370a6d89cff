//! A disk in memory that loses, tears and damages on request, the same way for the same seed.
//!
//! A file has three images: what the medium holds, the writes that are still in the cache, and
//! what a cached read shows. A sync moves the second into the first; a failed sync drops the
//! second and leaves the third as it is, like the kernel does. [`SimStorage::crash`] is a power
//! cut: any part of the unsynced sectors and directory entries survives.

mod dir;
mod faults;
mod file;
mod inode;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::storage::{Access, Storage};
use dir::SimDir;
use faults::Coin;
pub use faults::{SimCounts, SimFaults, SimLoss};
pub use file::SimFile;
use inode::Inode;
pub use inode::SIM_SECTOR_BYTES;

/// A folder on a simulated disk; clones share the disk.
#[derive(Clone)]
pub struct SimStorage {
    disk: Arc<Mutex<SimDisk>>,
    dir: String,
}

#[derive(Clone, Default)]
struct SimDisk {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// By folder: what a look at it shows, and what a power cut leaves.
    dirs: BTreeMap<String, SimDir>,
    locks: BTreeSet<String>,
    faults: SimFaults,
    counts: SimCounts,
    crashed: bool,
    /// Told apart from handles opened before a crash.
    boot: u64,
}

impl SimStorage {
    /// An empty disk.
    #[must_use]
    pub fn new() -> SimStorage {
        let mut disk = SimDisk::default();
        disk.dirs.insert(String::new(), SimDir::default());
        SimStorage {
            disk: Arc::new(Mutex::new(disk)),
            dir: String::new(),
        }
    }

    /// Sets the faults to come and starts the counts anew.
    pub fn set_faults(&self, faults: SimFaults) {
        let mut disk = self.lock_disk();
        disk.faults = faults;
        disk.counts = SimCounts::default();
    }

    /// What was asked since the faults were last set.
    #[must_use]
    pub fn counts(&self) -> SimCounts {
        self.lock_disk().counts
    }

    /// Whether the power is gone.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.lock_disk().crashed
    }

    /// A deep copy: another disk with the same bytes, cached and durable.
    #[must_use]
    pub fn snapshot(&self) -> SimStorage {
        let disk = self.lock_disk().clone();
        SimStorage {
            disk: Arc::new(Mutex::new(disk)),
            dir: self.dir.clone(),
        }
    }

    /// How many sectors and directory changes a power cut now would decide about.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        let disk = self.lock_disk();
        let sectors: usize = disk.inodes.values().map(Inode::unsynced).sum();
        let names: usize = disk.dirs.values().map(SimDir::unsynced).sum();
        sectors + names
    }

    /// The power goes and comes back: locks are free, faults are gone, handles opened before
    /// are dead.
    pub fn crash(&self, loss: SimLoss) {
        let mut disk = self.lock_disk();
        let mut coin = Coin::new(loss);
        let SimDisk { inodes, dirs, .. } = &mut *disk;
        for inode in inodes.values_mut() {
            inode.crash(|| coin.keeps());
        }
        for dir in dirs.values_mut() {
            dir.crash(|| coin.keeps());
        }
        disk.reboot();
    }

    /// The process dies and starts again: the cache stays.
    pub fn restart(&self) {
        self.lock_disk().reboot();
    }

    /// What a cached read of the file shows.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.lock_disk();
        Some(disk.inode(&self.dir, name)?.shown().to_vec())
    }

    /// Replaces the file on the medium and in the cache, creating it: damage at rest.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.lock_disk();
        let inode = disk.next_inode;
        disk.next_inode += 1;
        disk.inodes.insert(inode, Inode::at_rest(bytes));
        let dir = disk.dirs.entry(self.dir.clone()).or_default();
        dir.shown.insert(name.to_owned(), inode);
        dir.durable.insert(name.to_owned(), inode);
    }

    /// Flips bits of one byte at rest. False when there is no such byte.
    pub fn flip(&self, name: &str, offset: u64, mask: u8) -> bool {
        let Some(mut bytes) = self.contents(name) else {
            return false;
        };
        let Some(byte) = bytes.get_mut(offset as usize) else {
            return false;
        };
        *byte ^= mask;
        self.overwrite(name, bytes);
        true
    }

    fn lock_disk(&self) -> MutexGuard<'_, SimDisk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SimStorage {
    fn default() -> SimStorage {
        SimStorage::new()
    }
}

/// What is left of an operation after the faults had their say.
enum Verdict {
    Do,
    /// The power goes in the middle of it.
    DoUnsynced,
}

impl SimDisk {
    fn reboot(&mut self) {
        self.locks.clear();
        self.faults = SimFaults::default();
        self.counts = SimCounts::default();
        self.crashed = false;
        self.boot += 1;
    }

    fn inode(&self, dir: &str, name: &str) -> Option<&Inode> {
        self.inodes.get(self.dirs.get(dir)?.shown.get(name)?)
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed {
            Err(os_error(libc::EIO))
        } else {
            Ok(())
        }
    }

    fn changing(&mut self) -> io::Result<Verdict> {
        self.alive()?;
        self.counts.ops += 1;
        if self.faults.crash_at_op == Some(self.counts.ops) {
            self.crashed = true;
            return Ok(Verdict::DoUnsynced);
        }
        Ok(Verdict::Do)
    }

    /// After an unsynced remainder was noted: the caller sees the power gone.
    fn outcome(&self, verdict: &Verdict) -> io::Result<()> {
        match verdict {
            Verdict::Do => Ok(()),
            Verdict::DoUnsynced => Err(os_error(libc::EIO)),
        }
    }

    fn syncing(&mut self) -> io::Result<Verdict> {
        let verdict = self.changing()?;
        self.counts.syncs += 1;
        match self.faults.fail_sync_at {
            Some((at, errno)) if at == self.counts.syncs => Err(os_error(errno)),
            _ => Ok(verdict),
        }
    }

    fn used_bytes(&self) -> u64 {
        let shown: BTreeSet<u64> = self
            .dirs
            .values()
            .flat_map(|dir| dir.shown.values().copied())
            .collect();
        shown
            .iter()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|i| i.shown().len() as u64)
            .sum()
    }
}

impl Storage for SimStorage {
    type File = SimFile;
    type Lock = SimLock;

    fn sub(&self, name: &str) -> SimStorage {
        let dir = if self.dir.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.dir)
        };
        SimStorage {
            disk: Arc::clone(&self.disk),
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(&self.dir).join(name)
    }

    // Folders are durable at once: the crate syncs the parent in the same call, and a lost
    // empty folder is created again.
    fn create_dir(&self) -> io::Result<()> {
        let mut disk = self.lock_disk();
        let verdict = disk.changing()?;
        disk.dirs.entry(self.dir.clone()).or_default();
        disk.outcome(&verdict)
    }

    fn remove_dir(&self) -> io::Result<()> {
        let mut disk = self.lock_disk();
        let verdict = disk.changing()?;
        match disk.dirs.get(&self.dir) {
            None => return Err(io::ErrorKind::NotFound.into()),
            Some(dir) if !dir.shown.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            Some(_) => disk.dirs.remove(&self.dir),
        };
        disk.outcome(&verdict)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let disk = self.lock_disk();
        disk.alive()?;
        let mut names: BTreeSet<String> = disk
            .dirs
            .get(&self.dir)
            .map(|dir| dir.shown.keys().cloned().collect())
            .unwrap_or_default();
        for dir in disk.dirs.keys().filter(|dir| **dir != self.dir) {
            let below = if self.dir.is_empty() {
                Some(dir.as_str())
            } else {
                dir.strip_prefix(&self.dir)
                    .and_then(|rest| rest.strip_prefix('/'))
            };
            if let Some(first) = below.and_then(|below| below.split('/').next()) {
                names.insert(first.to_owned());
            }
        }
        Ok(names.into_iter().collect())
    }

    fn create(&self, name: &str, _direct: bool) -> io::Result<SimFile> {
        let mut disk = self.lock_disk();
        let verdict = disk.changing()?;
        let inode = disk.next_inode;
        disk.next_inode += 1;
        let Some(dir) = disk.dirs.get_mut(&self.dir) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if dir.shown.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        dir.change(None, Some((name, inode)));
        disk.inodes.insert(inode, Inode::default());
        disk.outcome(&verdict)?;
        Ok(SimFile {
            disk: Arc::clone(&self.disk),
            inode,
            boot: disk.boot,
            writable: true,
        })
    }

    fn open(&self, name: &str, access: Access) -> io::Result<SimFile> {
        let disk = self.lock_disk();
        disk.alive()?;
        let inode = disk
            .dirs
            .get(&self.dir)
            .and_then(|dir| dir.shown.get(name))
            .copied();
        let Some(inode) = inode else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let writable = matches!(access, Access::Write { .. });
        Ok(SimFile {
            disk: Arc::clone(&self.disk),
            inode,
            boot: disk.boot,
            writable,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.lock_disk();
        let verdict = disk.changing()?;
        let Some(dir) = disk.dirs.get_mut(&self.dir) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let Some(inode) = dir.shown.get(from).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        dir.change(Some(from), Some((to, inode)));
        disk.outcome(&verdict)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock_disk();
        let verdict = disk.changing()?;
        let dir = disk
            .dirs
            .get_mut(&self.dir)
            .filter(|dir| dir.shown.contains_key(name));
        let Some(dir) = dir else {
            return Err(io::ErrorKind::NotFound.into());
        };
        dir.change(Some(name), None);
        disk.outcome(&verdict)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.lock_disk();
        let verdict = disk.syncing()?;
        disk.outcome(&verdict)?;
        if let Some(dir) = disk.dirs.get_mut(&self.dir) {
            dir.sync();
        }
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<SimLock> {
        let mut disk = self.lock_disk();
        disk.alive()?;
        let path = format!("{}/{name}", self.dir);
        if !disk.locks.insert(path.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(SimLock {
            disk: Arc::clone(&self.disk),
            path,
            boot: disk.boot,
        })
    }

    fn free_space(&self) -> io::Result<u64> {
        let disk = self.lock_disk();
        disk.alive()?;
        let capacity = disk.faults.capacity_bytes.unwrap_or(u64::MAX / 2);
        Ok(capacity.saturating_sub(disk.used_bytes()))
    }
}

/// A lock on a simulated disk.
pub struct SimLock {
    disk: Arc<Mutex<SimDisk>>,
    path: String,
    boot: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.boot == self.boot {
            disk.locks.remove(&self.path);
        }
    }
}

fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
