//! The simulated disk behind a switch for the planted bugs that live in an I/O layer.

use std::io;
use std::path::PathBuf;

use wal::sim::{SimFile, SimLock, SimStorage};
use wal::storage::Access;
use wal::{File, Storage};

use super::mutants::Mutant;

/// A folder of the simulated disk.
#[derive(Clone)]
pub(super) struct Medium {
    disk: SimStorage,
    mutant: Option<Mutant>,
}

impl Medium {
    /// The disk, with a planted bug or without.
    #[must_use]
    pub(super) fn new(disk: SimStorage, mutant: Option<Mutant>) -> Self {
        Self { disk, mutant }
    }

    /// The disk beneath.
    #[must_use]
    pub(super) fn disk(&self) -> &SimStorage {
        &self.disk
    }

    fn file(&self, file: SimFile) -> MediumFile {
        MediumFile {
            file,
            mutant: self.mutant,
        }
    }
}

impl Storage for Medium {
    type File = MediumFile;
    type Lock = SimLock;

    fn sub(&self, name: &str) -> Self {
        Self {
            disk: self.disk.sub(name),
            mutant: self.mutant,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }

    fn create_dir(&self) -> io::Result<()> {
        self.disk.create_dir()
    }

    fn remove_dir(&self) -> io::Result<()> {
        self.disk.remove_dir()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str, direct: bool) -> io::Result<MediumFile> {
        Ok(self.file(self.disk.create(name, direct)?))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<MediumFile> {
        Ok(self.file(self.disk.open(name, access)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.mutant == Some(Mutant::NoFolderSync) {
            Ok(())
        } else {
            self.disk.sync_dir()
        }
    }

    fn lock(&self, name: &str) -> io::Result<SimLock> {
        self.disk.lock(name)
    }

    fn free_space(&self) -> io::Result<u64> {
        self.disk.free_space()
    }
}

/// An open file.
pub(super) struct MediumFile {
    file: SimFile,
    mutant: Option<Mutant>,
}

impl File for MediumFile {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write(offset, bytes)
    }

    fn write_durable(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self.mutant {
            Some(Mutant::RetriedSync) => {
                self.file.write(offset, bytes)?;
                // The kernel reports a failed write-back once; the second sync succeeds.
                self.file.sync().or_else(|_| self.file.sync())
            }
            Some(Mutant::UnsyncedWrite) => self.file.write(offset, bytes),
            _ => self.file.write_durable(offset, bytes),
        }
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(offset, buf)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn settle(&self) -> io::Result<()> {
        self.file.settle()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
