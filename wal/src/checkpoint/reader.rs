//! Loads the newest checkpoint that verifies.

use std::io;
use std::path::PathBuf;

use zerocopy::FromBytes;

use super::{
    CheckpointError, CheckpointFault, CheckpointHead, FOOTER_BYTES, FOOTER_KIND, Footer,
    HEADER_BYTES, HeaderFault, SECTION_BYTES_MAX, SECTION_HEADER_BYTES, SectionHeader, file_name,
    parse_file_name, section_crc,
};
use crate::page::{PAGE_BYTES, Pages};
use crate::storage::{Access, File, Storage};
use crate::{InstanceId, LogId};

/// What one read asks for: a whole section wherever it begins in its first page, and more.
const READ_BYTES: usize = 2 * SECTION_BYTES_MAX;

const _: () = assert!(READ_BYTES >= SECTION_BYTES_MAX + SECTION_HEADER_BYTES + PAGE_BYTES);

/// What a load found.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The newest checkpoint that verifies and what was made of it; none when there is none.
    pub checkpoint: Option<(CheckpointHead, T)>,
    /// Newer ones that do not verify.
    pub damaged: Vec<(PathBuf, CheckpointFault)>,
}

/// Takes in the sections of a checkpoint.
pub trait CheckpointVisit: Sized {
    /// The next section, verified.
    ///
    /// # Errors
    /// When the section makes no sense: the checkpoint counts as damaged.
    fn section(&mut self, kind: u16, bytes: &[u8]) -> Result<(), crate::VisitError>;
}

/// Loads the newest checkpoint of the log that verifies, falling back by a generation when it
/// must. `begin` makes what takes the sections in; when a checkpoint turns out damaged, that is
/// dropped and another is made.
///
/// # Errors
/// When there are checkpoints and none verifies, when one is of a newer format, when the disk
/// refuses. Nothing is ever changed.
pub fn load_newest<S: Storage, T: CheckpointVisit>(
    storage: &S,
    log: LogId,
    instance: InstanceId,
    begin: impl Fn() -> T,
) -> Result<Loaded<T>, CheckpointError> {
    let mut loaded = Loaded {
        checkpoint: None,
        damaged: Vec::new(),
    };
    for number in numbers(storage)? {
        let is_ours = |head: &CheckpointHead| head.log == log && head.instance == instance;
        match load(storage, number, is_ours, &begin) {
            Ok(checkpoint) => {
                loaded.checkpoint = Some(checkpoint);
                return Ok(loaded);
            }
            Err(LoadError::Fault(fault)) => {
                loaded
                    .damaged
                    .push((storage.path(&file_name(number)), fault));
            }
            Err(LoadError::Fatal(error)) => return Err(error),
        }
    }
    if loaded.damaged.is_empty() {
        return Ok(loaded);
    }
    let (path, fault) = loaded.damaged.swap_remove(0);
    Err(CheckpointError::NoneValid { path, fault })
}

/// Gives the damaged checkpoints that a load passed over another name, for a person to look at.
/// Until then each takes the place of one that verifies when the next is written.
///
/// # Errors
/// When the disk refuses; what has not got its other name is passed over again.
pub fn set_aside<S: Storage>(
    storage: &S,
    damaged: &[(PathBuf, CheckpointFault)],
) -> Result<(), CheckpointError> {
    for (path, _) in damaged {
        let failed = |source| CheckpointError::Io {
            operation: "rename",
            path: path.clone(),
            source,
        };
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        storage
            .rename(name, &format!("{name}.damaged"))
            .map_err(failed)?;
        storage.sync_dir().map_err(failed)?;
    }
    Ok(())
}

/// Verifies every checkpoint in the folder, newest first.
///
/// # Errors
/// When one is of a newer format or the disk refuses; damage is in the list.
#[expect(
    clippy::type_complexity,
    reason = "a list of files, each with its verdict"
)]
pub fn verify<S: Storage>(
    storage: &S,
) -> Result<Vec<(PathBuf, Result<CheckpointHead, CheckpointFault>)>, CheckpointError> {
    let mut verdicts = Vec::new();
    for number in numbers(storage)? {
        let verdict = match load(storage, number, |_| true, || Ignored) {
            Ok((head, _)) => Ok(head),
            Err(LoadError::Fault(fault)) => Err(fault),
            Err(LoadError::Fatal(error)) => return Err(error),
        };
        verdicts.push((storage.path(&file_name(number)), verdict));
    }
    Ok(verdicts)
}

/// What a checkpoint's header says; none when that is damaged.
pub(super) fn read_head<S: Storage>(
    storage: &S,
    number: u64,
) -> io::Result<Option<CheckpointHead>> {
    let mut stream = Stream::open(storage, number)?;
    let header = stream.bytes(0, HEADER_BYTES)?;
    Ok(header.and_then(|bytes| CheckpointHead::parse(bytes).ok()))
}

struct Ignored;

impl CheckpointVisit for Ignored {
    fn section(&mut self, _kind: u16, _bytes: &[u8]) -> Result<(), crate::VisitError> {
        Ok(())
    }
}

enum LoadError {
    /// This checkpoint does not count.
    Fault(CheckpointFault),
    /// None can be looked at.
    Fatal(CheckpointError),
}

/// The finished checkpoints, newest first.
fn numbers<S: Storage>(storage: &S) -> Result<Vec<u64>, CheckpointError> {
    let names = storage.list().map_err(|source| CheckpointError::Io {
        operation: "list",
        path: storage.path(""),
        source,
    })?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| parse_file_name(name))
        .collect();
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    Ok(numbers)
}

fn load<S: Storage, T: CheckpointVisit>(
    storage: &S,
    number: u64,
    is_ours: impl Fn(&CheckpointHead) -> bool,
    begin: impl Fn() -> T,
) -> Result<(CheckpointHead, T), LoadError> {
    let path = storage.path(&file_name(number));
    let io = |source| {
        LoadError::Fatal(CheckpointError::Io {
            operation: "read",
            path: path.clone(),
            source,
        })
    };
    let damaged = |offset| LoadError::Fault(CheckpointFault::Damaged { offset });
    let mut stream = Stream::open(storage, number).map_err(io)?;
    let header = stream.bytes(0, HEADER_BYTES).map_err(io)?;
    let head = match header.map(CheckpointHead::parse) {
        Some(Ok(head)) if head.number == number && is_ours(&head) => head,
        Some(Err(HeaderFault::Version(found))) => {
            return Err(LoadError::Fatal(CheckpointError::NewerFormat {
                path,
                found,
            }));
        }
        _ => return Err(LoadError::Fault(CheckpointFault::Header)),
    };
    let mut value = begin();
    let mut offset = HEADER_BYTES as u64;
    let mut sections = 0;
    loop {
        let header = stream.bytes(offset, SECTION_HEADER_BYTES).map_err(io)?;
        let header = header.and_then(|bytes| SectionHeader::read_from_bytes(bytes).ok());
        let header = header.ok_or_else(|| damaged(offset))?;
        let (kind, len) = (header.kind.get(), header.len.get() as usize);
        if len > SECTION_BYTES_MAX || header.reserved.get() != 0 {
            return Err(damaged(offset));
        }
        let body = stream
            .bytes(offset + SECTION_HEADER_BYTES as u64, len)
            .map_err(io)?;
        let body = body.ok_or_else(|| damaged(offset))?;
        if section_crc(number, offset, kind, &[body]) != header.crc.get() {
            return Err(damaged(offset));
        }
        if kind == FOOTER_KIND {
            let end = offset + (SECTION_HEADER_BYTES + FOOTER_BYTES) as u64;
            let footer = Footer::read_from_bytes(body).map_err(|_| damaged(offset))?;
            let whole = footer.sections.get() == sections
                && footer.file_bytes.get() == end
                && stream.file_bytes == end;
            return if whole {
                Ok((head, value))
            } else {
                Err(damaged(offset))
            };
        }
        value
            .section(kind, body)
            .map_err(|source| LoadError::Fault(CheckpointFault::Refused { offset, source }))?;
        sections += 1;
        offset += (SECTION_HEADER_BYTES + len) as u64;
    }
}

/// Reads a file from front to back in large aligned pieces.
struct Stream<F: File> {
    file: F,
    file_bytes: u64,
    pages: Pages,
    start: u64,
    filled: usize,
}

impl<F: File> Stream<F> {
    fn open<S: Storage<File = F>>(storage: &S, number: u64) -> io::Result<Stream<F>> {
        let file = storage.open(&file_name(number), Access::Read)?;
        file.settle()?;
        let file_bytes = file.len()?;
        let capacity = file_bytes.min(READ_BYTES as u64) as usize;
        Ok(Stream {
            file,
            file_bytes,
            pages: Pages::zeroed(capacity),
            start: 0,
            filled: 0,
        })
    }

    /// The bytes at the offset; none when the file ends before.
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if offset + len as u64 > self.file_bytes {
            return Ok(None);
        }
        let end = offset + len as u64;
        if offset < self.start || end > self.start + self.filled as u64 {
            self.start = offset - offset % PAGE_BYTES as u64;
            self.filled = 0;
            self.filled = self.file.read(self.start, self.pages.as_bytes_mut())?;
        }
        let from = (offset - self.start) as usize;
        Ok(self.pages.as_bytes()[..self.filled].get(from..from + len))
    }
}
