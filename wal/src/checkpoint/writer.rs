//! Writes a checkpoint, section by section.

use std::io;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::reader::read_head;
use super::{
    CHECKPOINTS_KEPT, CheckpointError, CheckpointHead, FOOTER_KIND, Footer, SECTION_BYTES_MAX,
    SECTION_HEADER_BYTES, SectionHeader, WRITING_SUFFIX, file_name, parse_file_name, section_crc,
};
use crate::storage::{File, Storage};
use crate::{InstanceId, LogId, Lsn};

/// Collected before it is written.
const BUFFER_BYTES: usize = 1024 * 1024;

/// A checkpoint being written. Dropped unfinished, it never counts.
pub struct CheckpointWriter<S: Storage> {
    storage: S,
    head: CheckpointHead,
    file: S::File,
    buffer: Vec<u8>,
    /// What of the file is written.
    written: u64,
    sections: u64,
    /// Finished ones, oldest first.
    before: Vec<u64>,
}

/// A checkpoint that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What it says of itself.
    pub head: CheckpointHead,
    /// The log from here on is needed: by this checkpoint, or by the one kept before it.
    pub keep_from: Lsn,
    /// Its length.
    pub bytes: u64,
}

impl<S: Storage> CheckpointWriter<S> {
    /// Begins a checkpoint that holds the effect of every frame below `covers`, all of them
    /// durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn create(
        storage: S,
        log: LogId,
        instance: InstanceId,
        covers: Lsn,
        wall_ms: u64,
    ) -> Result<CheckpointWriter<S>, CheckpointError> {
        let failed = |operation, name: &str| {
            let path = storage.path(name);
            move |source| CheckpointError::Io {
                operation,
                path,
                source,
            }
        };
        let names = storage.list().map_err(failed("list", ""))?;
        for name in names.iter().filter(|name| name.ends_with(WRITING_SUFFIX)) {
            storage.remove(name).map_err(failed("remove", name))?;
        }
        let mut before: Vec<u64> = names
            .iter()
            .filter_map(|name| parse_file_name(name))
            .collect();
        before.sort_unstable();
        let number = before.last().map_or(1, |newest| newest + 1);
        let head = CheckpointHead {
            log,
            instance,
            number,
            covers,
            wall_ms,
        };
        let name = format!("{}.new", file_name(number));
        let file = storage
            .create(&name, false)
            .map_err(failed("create", &name))?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + SECTION_HEADER_BYTES);
        buffer.extend_from_slice(&head.encode());
        Ok(CheckpointWriter {
            storage,
            head,
            file,
            buffer,
            written: 0,
            sections: 0,
            before,
        })
    }

    /// Appends a section of at most [`SECTION_BYTES_MAX`] bytes; `kind` is the caller's, below
    /// `u16::MAX`. Any number of sections may have the same kind.
    ///
    /// # Errors
    /// When the section is not allowed, or the disk refuses; the checkpoint is then to be
    /// dropped.
    pub fn section(&mut self, kind: u16, parts: &[&[u8]]) -> Result<(), CheckpointError> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        if bytes > SECTION_BYTES_MAX || kind == FOOTER_KIND {
            return Err(CheckpointError::Section { kind, bytes });
        }
        self.sections += 1;
        self.put(kind, parts)
    }

    /// Completes the checkpoint and makes it count; removes those older than the one before.
    ///
    /// # Errors
    /// When the disk refuses. It counts or not, whole in either case.
    pub fn finish(mut self) -> Result<Finished, CheckpointError> {
        let bytes = self.position() + (SECTION_HEADER_BYTES + size_of::<Footer>()) as u64;
        let footer = Footer {
            sections: U64::new(self.sections),
            file_bytes: U64::new(bytes),
        };
        self.put(FOOTER_KIND, &[footer.as_bytes()])?;
        self.flush()?;
        let name = file_name(self.head.number);
        let writing = format!("{name}.new");
        self.file.sync().map_err(self.failed("sync", &writing))?;
        self.storage
            .rename(&writing, &name)
            .map_err(self.failed("rename", &writing))?;
        self.storage
            .sync_dir()
            .map_err(self.failed("sync the folder of", &name))?;
        let kept_before = self
            .before
            .split_off(self.before.len().saturating_sub(CHECKPOINTS_KEPT - 1));
        for number in &self.before {
            let name = file_name(*number);
            self.storage
                .remove(&name)
                .map_err(self.failed("remove", &name))?;
        }
        let mut keep_from = self.head.covers;
        for number in kept_before {
            keep_from = keep_from.min(self.covers_of(number)?);
        }
        Ok(Finished {
            head: self.head,
            keep_from,
            bytes,
        })
    }

    /// What a kept checkpoint covers. One with a damaged header is of no use: nothing is kept
    /// for it.
    fn covers_of(&self, number: u64) -> Result<Lsn, CheckpointError> {
        let name = file_name(number);
        let head = read_head(&self.storage, number).map_err(self.failed("read", &name))?;
        Ok(head.map_or(self.head.covers, |head| head.covers))
    }

    fn put(&mut self, kind: u16, parts: &[&[u8]]) -> Result<(), CheckpointError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let header = SectionHeader {
            kind: U16::new(kind),
            reserved: U16::ZERO,
            len: U32::new(len as u32),
            crc: U32::new(section_crc(self.head.number, self.position(), kind, parts)),
        };
        self.buffer.extend_from_slice(header.as_bytes());
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        let name = format!("{}.new", file_name(self.head.number));
        let done = self.file.write(self.written, &self.buffer);
        done.map_err(self.failed("write", &name))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn failed(
        &self,
        operation: &'static str,
        name: &str,
    ) -> impl FnOnce(io::Error) -> CheckpointError + use<S> {
        let path = self.storage.path(name);
        move |source| CheckpointError::Io {
            operation,
            path,
            source,
        }
    }
}
