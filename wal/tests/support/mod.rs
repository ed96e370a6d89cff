//! A log and its writer driven on one thread, and what was put into it.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test")]

use syncline_wal::sim::SimStorage;
use syncline_wal::{
    AppendError, Class, Durability, FrameKind, InstanceId, Log, LogId, LogLimits, LogOptions, Lsn,
    OpenError, OpenMode, RecoveryReport, Storage, WriteFailed, Writer,
};

pub(crate) const LOG: LogId = LogId {
    generation: 1,
    shard: 0,
};
pub(crate) const INSTANCE: InstanceId = InstanceId(*b"instance-of-test");
pub(crate) const KIND: FrameKind = FrameKind(1);
pub(crate) const WALL_MS: u64 = 1_700_000_000_000;

/// Small segments and caches, so that edges are near.
pub(crate) fn small_limits() -> LogLimits {
    LogLimits {
        segment_bytes: 32 * 1024,
        segment_bytes_min: 32 * 1024,
        payload_bytes_max: 10_000,
        block_bytes: 8 * 1024,
        staged_bytes_max: 32 * 1024,
        tail_cache_bytes: 16 * 1024,
        read_cache_bytes: 256 * 1024,
        outcome_reserve_bytes: 4 * 1024,
        free_bytes_min: 0,
    }
}

pub(crate) fn options() -> LogOptions {
    LogOptions {
        log: LOG,
        instance: INSTANCE,
        mode: OpenMode::Create,
        durability: Durability::Fsync,
        limits: small_limits(),
        salt_seed: 7,
    }
}

/// A frame as it was appended or replayed.
pub(crate) type Entry = (Lsn, FrameKind, Vec<u8>);

pub(crate) struct Driver<S: Storage> {
    pub(crate) log: Log<S>,
    pub(crate) writer: Writer<S>,
    pub(crate) report: RecoveryReport,
    /// What was replayed at the start, then what was appended.
    pub(crate) entries: Vec<Entry>,
}

impl<S: Storage> Driver<S> {
    pub(crate) fn open(storage: S) -> Result<Driver<S>, OpenError> {
        Driver::open_with(storage, options(), Lsn::ZERO)
    }

    pub(crate) fn open_with(
        storage: S,
        options: LogOptions,
        replay_from: Lsn,
    ) -> Result<Driver<S>, OpenError> {
        let mut entries: Vec<Entry> = Vec::new();
        let (log, writer, report) =
            Log::open(storage, options, replay_from, |lsn, kind, bytes| {
                entries.push((lsn, kind, bytes.to_vec()));
                Ok(())
            })?;
        Ok(Driver {
            log,
            writer,
            report,
            entries,
        })
    }

    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<Lsn, AppendError> {
        self.append_as(Class::Intake, payload)
    }

    pub(crate) fn append_as(&mut self, class: Class, payload: &[u8]) -> Result<Lsn, AppendError> {
        let lsn = self.log.append(class, KIND, &[payload])?;
        self.entries.push((lsn, KIND, payload.to_vec()));
        Ok(lsn)
    }

    /// Commits one block. False when there was none.
    pub(crate) fn commit_one(&mut self) -> Result<bool, WriteFailed> {
        let Some(block) = self.log.take_block(WALL_MS) else {
            return Ok(false);
        };
        match self.writer.commit(block) {
            Ok(committed) => {
                self.log
                    .on_committed(Ok(committed))
                    .expect("the log is not poisoned");
                Ok(true)
            }
            Err(error) => {
                self.log
                    .on_committed(Err(WriteFailed::Poisoned))
                    .unwrap_err();
                Err(error)
            }
        }
    }

    pub(crate) fn commit_all(&mut self) -> Result<(), WriteFailed> {
        while self.commit_one()? {}
        Ok(())
    }

    pub(crate) fn maintain(&mut self) -> Result<(), WriteFailed> {
        while self.writer.maintain(1 << 20)?.more {}
        Ok(())
    }

    /// Commits everything, seals, and prepares spares.
    pub(crate) fn settle(&mut self) -> Result<(), WriteFailed> {
        self.commit_all()?;
        self.log.seal();
        self.commit_all()?;
        self.maintain()
    }

    /// Appends and commits until the log has this many segments.
    pub(crate) fn fill_segments(&mut self, segments: usize) {
        let mut n = 0u32;
        while self.log.segments().count() < segments {
            let payload = payload(n as usize, 700 + (n as usize * 37) % 900);
            self.append(&payload).unwrap();
            self.commit_all().unwrap();
            self.maintain().unwrap();
            n += 1;
        }
    }

    /// Every entry reads back as it was put in.
    pub(crate) fn assert_reads(&mut self) {
        let mut out = Vec::new();
        for (lsn, kind, payload) in &self.entries {
            let read = self.log.read(*lsn, &mut out).unwrap_or_else(|error| {
                panic!("LSN {lsn}: {error:?}");
            });
            assert_eq!(read, *kind);
            assert_eq!(out, *payload, "LSN {lsn}");
        }
    }
}

/// Bytes that tell their number.
pub(crate) fn payload(n: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (n * 31 + at * 7) as u8).collect()
}

pub(crate) fn sim() -> SimStorage {
    SimStorage::new().sub("log-0001-0000")
}
