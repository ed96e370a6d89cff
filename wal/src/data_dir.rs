//! The data directory: one process at a time, its identity, and its logs by generation.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::storage::Storage;
use crate::superblock::{Layout, SUPERBLOCK, SUPERBLOCK_FILE, Superblock};
use crate::two_slots::TwoSlots;
use crate::{InstanceId, LogId};

/// The file that the process holds locked.
pub const LOCK_FILE: &str = "lock";

/// A data directory, held by this process alone.
pub struct DataDir<S: Storage> {
    storage: S,
    slots: TwoSlots<S::File>,
    superblock: Superblock,
    opened: Opened,
    _lock: S::Lock,
}

/// What a new data directory gets: all of it random.
#[derive(Clone, Copy)]
pub struct NewDataDir {
    /// Its identity.
    pub instance: InstanceId,
    /// The key under which record ids are hashed.
    pub hash_key: [u8; 16],
}

/// What opening found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The directory was new.
    pub created: bool,
    /// The run before was closed.
    pub was_clean: bool,
    /// One slot of the superblock does not verify; nothing was cleared away because of it.
    pub slot_damaged: bool,
}

/// A layout whose logs are being written; nothing refers to it until it is committed. Dropped,
/// it is cleared away at the next start.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a staged layout counts once it is committed"]
pub struct StagedLayout {
    layout: Layout,
}

/// Why a data directory is not opened, or not changed.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another process has it. Nothing was touched.
    #[error("{path} is in use by another process")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer build wrote it. Nothing was changed.
    #[error("{path} has format {found}, newer than this build reads")]
    NewerFormat {
        /// The superblock.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The superblock is damaged, or there are logs without one. Nothing was changed.
    #[error("{path} is damaged or missing")]
    Damaged {
        /// The superblock.
        path: PathBuf,
    },
    /// There were as many layouts as can be counted. Nothing was changed.
    #[error("the logs cannot be laid out once more")]
    GenerationsExhausted,
    /// The disk refused. What was asked may be done in part; opening again clears that up.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
}

impl<S: Storage> DataDir<S> {
    /// Opens the data directory for this process alone, creating it with `new` when there is
    /// none; counts the run, and clears away the logs of layouts that were never committed or
    /// are given up.
    ///
    /// # Errors
    /// When another process has it, when it is damaged or of a newer format, when the disk
    /// refuses.
    pub fn open(storage: S, new: &NewDataDir) -> Result<DataDir<S>, DataDirError> {
        storage
            .create_dir()
            .map_err(failed(&storage, "create", ""))?;
        let lock = storage
            .lock(LOCK_FILE)
            .map_err(|source| match source.kind() {
                io::ErrorKind::WouldBlock => DataDirError::InUse {
                    path: storage.path(""),
                },
                _ => failed(&storage, "lock", LOCK_FILE)(source),
            })?;
        let (slots, mut superblock, opened) = read_or_create(&storage, new)?;
        superblock.run_epoch = superblock.run_epoch.saturating_add(1);
        superblock.clean = false;
        let mut dir = DataDir {
            storage,
            slots,
            superblock,
            opened,
            _lock: lock,
        };
        dir.write_superblock()?;
        // With one slot lost the other may be older, and what it does not know may be live.
        if !opened.slot_damaged {
            dir.clear_other_layouts()?;
        }
        Ok(dir)
    }

    /// Starts another layout of `shards` logs. The caller creates them, fills them, and commits
    /// the layout.
    ///
    /// # Errors
    /// When the disk refuses; the layout in use is not touched.
    pub fn stage_layout(&mut self, shards: u16) -> Result<StagedLayout, DataDirError> {
        assert!(shards > 0, "a layout has a shard");
        let generation = self.superblock.layout.map_or(0, |layout| layout.generation);
        let generation = generation
            .checked_add(1)
            .ok_or(DataDirError::GenerationsExhausted)?;
        // What an attempt before this one left must not look like logs of this one.
        self.remove_logs(|log| log.generation == generation)?;
        let layout = Layout { generation, shards };
        for shard in 0..shards {
            let name = LogId { generation, shard }.dir_name();
            let folder = self.storage.sub(&name);
            folder
                .create_dir()
                .map_err(failed(&self.storage, "create", &name))?;
        }
        Ok(StagedLayout { layout })
    }

    /// Makes the staged layout the one in use, at once and durably. Its logs hold, durably, all
    /// that the ones before held.
    ///
    /// # Errors
    /// When the disk refuses: which layout holds is then known when the directory is opened
    /// again, and either is whole.
    pub fn commit_layout(&mut self, staged: StagedLayout) -> Result<(), DataDirError> {
        self.superblock.layout = Some(staged.layout);
        self.write_superblock()?;
        // Both slots, before anything is acknowledged in the new logs: should one be damaged,
        // the other must not lead back.
        self.write_superblock()
    }

    /// Removes the logs of all layouts but the one in use.
    ///
    /// # Errors
    /// When the disk refuses; the rest is removed at the next start.
    pub fn clear_other_layouts(&mut self) -> Result<(), DataDirError> {
        let current = self.superblock.layout.map_or(0, |layout| layout.generation);
        self.remove_logs(|log| log.generation != current)
    }

    /// Notes that the run ended in order: every log is sealed.
    ///
    /// # Errors
    /// When the disk refuses; the next start takes the run for unclean.
    pub fn close(mut self) -> Result<(), DataDirError> {
        self.superblock.clean = true;
        self.write_superblock()
    }

    /// What opening found.
    #[must_use]
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// What the superblock says.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The layout in use; none in a new directory.
    #[must_use]
    pub fn layout(&self) -> Option<Layout> {
        self.superblock.layout
    }

    /// The folder of a log.
    #[must_use]
    pub fn log_folder(&self, log: LogId) -> S {
        self.storage.sub(&log.dir_name())
    }

    /// The directory itself.
    #[must_use]
    pub fn storage(&self) -> &S {
        &self.storage
    }

    fn write_superblock(&mut self) -> Result<(), DataDirError> {
        let body = self.superblock.encode();
        self.slots
            .write(body.as_ref())
            .map_err(failed(&self.storage, "write", SUPERBLOCK_FILE))
    }

    fn remove_logs(&mut self, gone: impl Fn(LogId) -> bool) -> Result<(), DataDirError> {
        let names = self
            .storage
            .list()
            .map_err(failed(&self.storage, "list", ""))?;
        for name in names {
            if LogId::parse_dir_name(&name).is_some_and(&gone) {
                let failed = failed(&self.storage, "remove", &name);
                let folder = self.storage.sub(&name);
                for file in folder.list().map_err(&failed)? {
                    folder.remove(&file).map_err(&failed)?;
                }
                folder.remove_dir().map_err(&failed)?;
            }
        }
        Ok(())
    }
}

impl StagedLayout {
    /// The layout that is being written.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }
}

impl Layout {
    /// The log of a shard.
    #[must_use]
    pub fn log(&self, shard: u16) -> LogId {
        assert!(shard < self.shards, "the layout has the shard");
        LogId {
            generation: self.generation,
            shard,
        }
    }
}

type Read<S> = (TwoSlots<<S as Storage>::File>, Superblock, Opened);

fn read_or_create<S: Storage>(storage: &S, new: &NewDataDir) -> Result<Read<S>, DataDirError> {
    let path = storage.path(SUPERBLOCK_FILE);
    let names = storage.list().map_err(failed(storage, "list", ""))?;
    if !names.iter().any(|name| name == SUPERBLOCK_FILE) {
        // Logs without a superblock: it is lost, and with it which logs hold.
        if names
            .iter()
            .any(|name| LogId::parse_dir_name(name).is_some())
        {
            return Err(DataDirError::Damaged { path });
        }
        let superblock = Superblock {
            instance: new.instance,
            hash_key: new.hash_key,
            run_epoch: 0,
            layout: None,
            clean: true,
        };
        let slots = TwoSlots::create(storage, SUPERBLOCK, 0, superblock.encode().as_ref())
            .map_err(failed(storage, "create", SUPERBLOCK_FILE))?;
        let opened = Opened {
            created: true,
            was_clean: true,
            slot_damaged: false,
        };
        return Ok((slots, superblock, opened));
    }
    storage.sync_dir().map_err(failed(storage, "sync", ""))?;
    let read =
        TwoSlots::open(storage, SUPERBLOCK, 0).map_err(failed(storage, "read", SUPERBLOCK_FILE))?;
    if let Some(found) = read.newer {
        return Err(DataDirError::NewerFormat { path, found });
    }
    let newest = read
        .newest
        .as_deref()
        .and_then(Superblock::parse)
        .filter(|_| read.whole);
    let superblock = newest.ok_or(DataDirError::Damaged { path })?;
    let opened = Opened {
        created: false,
        was_clean: superblock.clean,
        slot_damaged: read.damaged,
    };
    Ok((read.slots, superblock, opened))
}

fn failed<S: Storage>(
    storage: &S,
    operation: &'static str,
    name: &str,
) -> impl Fn(io::Error) -> DataDirError {
    let path = storage.path(name);
    move |source| DataDirError::Io {
        operation,
        path: path.clone(),
        source,
    }
}
