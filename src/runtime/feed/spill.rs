//! Changes that wait on disk for one consumer, so that they hold nobody else back.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes that one consumer's changes take at most; beyond it they wait in their queue, as those of
/// a consumer that is there.
pub(super) const SPILL_BYTES_MAX: u64 = 1 << 30;
/// What stands before the changes: where the first that is not acknowledged begins.
const HEADER_BYTES: u64 = 8;
/// Before each change: its length, and the low half of its hash.
const FRAME_BYTES: u64 = 8;
/// An event has at most a megabyte, and a change little more than its event.
const CHANGE_BYTES_MAX: u32 = 4 << 20;
/// Only the account that runs the engine reads it.
const OWNER_ONLY: u32 = 0o600;

/// One consumer's changes, in the order in which they were offered.
///
/// | bytes | |
/// | --- | --- |
/// | 8 | where the first change begins that is not acknowledged, little-endian |
/// | 4, 4, n | of each change: its length, the low half of its XXH3, its JSON behind the opening brace |
#[derive(Debug)]
pub(super) struct Spill {
    path: PathBuf,
    /// Made with the first change.
    file: Option<File>,
    acked: u64,
    end: u64,
    /// Changes that are not acknowledged.
    count: usize,
}

impl Spill {
    /// What a data directory keeps for the consumer of this name. What a crash tore was never taken
    /// for kept, and is cut.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn open(data_dir: &Path, consumer: &str) -> io::Result<Spill> {
        let name = format!("spill-{:016x}.log", xxh3_64(consumer.as_bytes()));
        let mut spill = Spill {
            path: data_dir.join(name),
            file: None,
            acked: HEADER_BYTES,
            end: HEADER_BYTES,
            count: 0,
        };
        let file = match File::options().read(true).write(true).open(&spill.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(spill),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let mut header = [0; HEADER_BYTES as usize];
        if length >= HEADER_BYTES {
            file.read_exact_at(&mut header, 0)?;
        }
        spill.file = Some(file);
        let acked = u64::from_le_bytes(header).max(HEADER_BYTES);
        while let Some((_, next)) = spill.read_within(spill.end, length)? {
            spill.count += usize::from(spill.end >= acked);
            spill.end = next;
        }
        // The header of a file that was just emptied may be the older one.
        spill.acked = acked.min(spill.end);
        if let Some(file) = spill.file.as_ref().filter(|_| spill.end < length) {
            let bytes = length - spill.end;
            tracing::warn!(
                consumer,
                bytes,
                "what a crash left of changes for a consumer is cut"
            );
            file.set_len(spill.end)?;
        }
        Ok(spill)
    }

    /// Whether everything in it is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.acked == self.end
    }

    /// How many changes are not acknowledged.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Where the first change begins that is not acknowledged.
    pub(super) fn first(&self) -> u64 {
        self.acked
    }

    /// Keeps changes behind the others; they are on disk when this returns. False: there is no room,
    /// and none was kept.
    ///
    /// # Errors
    /// The disk refuses; none was kept.
    pub(super) fn append(&mut self, changes: &[Bytes]) -> io::Result<bool> {
        let mut bytes = Vec::new();
        for change in changes {
            let length = u32::try_from(change.len()).unwrap_or(u32::MAX);
            if length > CHANGE_BYTES_MAX {
                return Ok(false);
            }
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&hash(change).to_le_bytes());
            bytes.extend_from_slice(change);
        }
        if self.end + bytes.len() as u64 > SPILL_BYTES_MAX {
            return Ok(false);
        }
        if self.file.is_none() {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            let file = options.mode(OWNER_ONLY).open(&self.path)?;
            file.write_all_at(&HEADER_BYTES.to_le_bytes(), 0)?;
            self.file = Some(file);
            let folder = self.path.parent().unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()?;
        }
        let file = self.file.as_ref().expect("it was just made");
        file.write_all_at(&bytes, self.end)?;
        file.sync_data()?;
        self.end += bytes.len() as u64;
        self.count += changes.len();
        Ok(true)
    }

    /// Whether a change begins there.
    pub(super) fn has(&self, at: u64) -> bool {
        at < self.end
    }

    /// The change that begins there, and where the next one does; `None` at the end.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub(super) fn read(&self, at: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
        if at >= self.end {
            return Ok(None);
        }
        let read = self.read_within(at, self.end)?;
        read.map_or_else(
            || Err(io::Error::other("a change is damaged")),
            |read| Ok(Some(read)),
        )
    }

    /// So many changes, all before this place, are acknowledged. A power loss may forget it: then some of it
    /// comes again.
    ///
    /// # Errors
    /// The disk refuses; after a restart these changes come again.
    pub(super) fn ack(&mut self, next: u64, count: usize) -> io::Result<()> {
        debug_assert!(self.acked <= next && next <= self.end);
        self.acked = next;
        self.count = self.count.saturating_sub(count);
        let Some(file) = &self.file else {
            return Ok(());
        };
        if self.acked == self.end {
            // A header that points behind a shorter file means its beginning.
            file.set_len(HEADER_BYTES)?;
            (self.acked, self.end) = (HEADER_BYTES, HEADER_BYTES);
        }
        file.write_all_at(&self.acked.to_le_bytes(), 0)
    }

    /// Forgets all of it.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        (self.acked, self.end, self.count) = (HEADER_BYTES, HEADER_BYTES, 0);
        match self.file.take() {
            Some(_) => fs::remove_file(&self.path),
            None => Ok(()),
        }
    }

    /// `None` where no whole change begins before `end`.
    fn read_within(&self, at: u64, end: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
        let Some(file) = self.file.as_ref().filter(|_| at + FRAME_BYTES <= end) else {
            return Ok(None);
        };
        let mut frame = [0; FRAME_BYTES as usize];
        file.read_exact_at(&mut frame, at)?;
        let [l0, l1, l2, l3, h0, h1, h2, h3] = frame;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let from = at + FRAME_BYTES;
        let next = from + u64::from(length);
        if length > CHANGE_BYTES_MAX || next > end {
            return Ok(None);
        }
        let mut change = vec![0; length as usize];
        file.read_exact_at(&mut change, from)?;
        let holds = hash(&change) == u32::from_le_bytes([h0, h1, h2, h3]);
        Ok(holds.then_some((change, next)))
    }
}

fn hash(change: &[u8]) -> u32 {
    xxh3_64(change) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(spill: &Spill) -> Vec<String> {
        let mut found = Vec::new();
        let mut at = spill.first();
        while let Some((change, next)) = spill.read(at).unwrap() {
            found.push(String::from_utf8(change).unwrap());
            at = next;
        }
        found
    }

    fn changes(texts: &[&str]) -> Vec<Bytes> {
        texts
            .iter()
            .map(|text| Bytes::copy_from_slice(text.as_bytes()))
            .collect()
    }

    #[test]
    fn changes_are_there_after_a_restart_but_for_those_that_were_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Spill::open(folder.path(), "billing/eu").unwrap();
        let mut spill = open();
        assert!(spill.is_empty());
        assert!(spill.append(&changes(&["a", "", "ccc"])).unwrap());
        let (_, next) = spill.read(spill.first()).unwrap().unwrap();
        spill.ack(next, 1).unwrap();
        let mut spill = open();
        assert_eq!(all(&spill), ["", "ccc"]);
        assert!(spill.append(&changes(&["d"])).unwrap());
        assert_eq!(all(&spill), ["", "ccc", "d"]);
        assert_eq!(spill.len(), 3);
        spill.ack(spill.end, 3).unwrap();
        assert!(spill.is_empty() && open().is_empty());
        assert!(spill.append(&changes(&["e"])).unwrap());
        assert_eq!(all(&open()), ["e"]);
        spill.remove().unwrap();
        assert!(open().is_empty());
    }

    #[test]
    fn a_torn_end_is_cut_at_any_byte_and_what_is_whole_before_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::open(folder.path(), "c").unwrap();
        spill.append(&changes(&["first"])).unwrap();
        let whole = spill.end;
        spill.append(&changes(&["second"])).unwrap();
        let bytes = fs::read(&spill.path).unwrap();
        for cut in whole..spill.end {
            fs::write(&spill.path, &bytes[..cut as usize]).unwrap();
            let mut again = Spill::open(folder.path(), "c").unwrap();
            assert_eq!(all(&again), ["first"], "{cut}");
            again.append(&changes(&["third"])).unwrap();
            assert_eq!(all(&again), ["first", "third"]);
        }
        let mut damaged = bytes.clone();
        damaged[whole as usize - 1] ^= 1;
        fs::write(&spill.path, &damaged).unwrap();
        assert_eq!(
            all(&Spill::open(folder.path(), "c").unwrap()),
            Vec::<String>::new()
        );
    }
}
