//! A small file of two pages written in turn: a torn write leaves the page written before it.

use std::io;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::page::{PAGE_BYTES, Pages};
use crate::segment::SEQ_MAX;
use crate::storage::{Access, File, Storage};

/// The whole file.
pub(crate) const TWO_SLOTS_BYTES: u64 = 2 * PAGE_BYTES as u64;

/// What a slot has besides the envelope.
pub(crate) const SLOT_BODY_BYTES: usize = CRC_AT - BODY_AT;

const BODY_AT: usize = size_of::<Envelope>();
const CRC_AT: usize = PAGE_BYTES - 4;

/// What a slot begins with, in every version of every such file.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Envelope {
    magic: [u8; 8],
    version: U32,
    /// Whose file it is, where there are several.
    owner: U32,
    /// Counts the writes; the higher one holds.
    seq: U64,
}

/// Which file it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotFormat {
    pub(crate) name: &'static str,
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
}

/// An open file of two slots.
pub(crate) struct TwoSlots<F: File> {
    file: F,
    format: SlotFormat,
    owner: u32,
    seq: u64,
    page: Pages,
}

/// What reading such a file found.
pub(crate) struct SlotsRead<F: File> {
    pub(crate) slots: TwoSlots<F>,
    /// The newer body that verifies.
    pub(crate) newest: Option<Vec<u8>>,
    /// A slot does not verify: a write was torn, or the medium damaged it.
    pub(crate) damaged: bool,
    /// A slot is of this newer format.
    pub(crate) newer: Option<u32>,
    /// The file has its length.
    pub(crate) whole: bool,
}

enum SlotFault {
    Damaged,
    Version(u32),
}

impl<F: File> TwoSlots<F> {
    /// Creates the file with `body` in both slots, whole or not at all.
    pub(crate) fn create<S: Storage<File = F>>(
        storage: &S,
        format: SlotFormat,
        owner: u32,
        body: &[u8],
    ) -> io::Result<TwoSlots<F>> {
        let preparing = format!("{}.new", format.name);
        if storage.list()?.contains(&preparing) {
            storage.remove(&preparing)?;
        }
        let file = storage.create(&preparing, true)?;
        let mut slots = TwoSlots {
            file,
            format,
            owner,
            seq: 0,
            page: Pages::zeroed(PAGE_BYTES),
        };
        slots.write(body)?;
        slots.write(body)?;
        storage.rename(&preparing, format.name)?;
        storage.sync_dir()?;
        Ok(slots)
    }

    /// Reads the file as the medium has it.
    pub(crate) fn open<S: Storage<File = F>>(
        storage: &S,
        format: SlotFormat,
        owner: u32,
    ) -> io::Result<SlotsRead<F>> {
        let file = storage.open(format.name, Access::Write { direct: true })?;
        file.settle()?;
        SlotsRead::of(file, format, owner)
    }

    /// Writes `body` to the older slot; durable on return.
    pub(crate) fn write(&mut self, body: &[u8]) -> io::Result<()> {
        assert!(body.len() <= SLOT_BODY_BYTES, "a body fits its slot");
        self.seq += 1;
        let page = self.page.as_bytes_mut();
        page.fill(0);
        let envelope = Envelope {
            magic: self.format.magic,
            version: U32::new(self.format.version),
            owner: U32::new(self.owner),
            seq: U64::new(self.seq),
        };
        page[..BODY_AT].copy_from_slice(envelope.as_bytes());
        page[BODY_AT..BODY_AT + body.len()].copy_from_slice(body);
        let crc = crc32c::crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let slot = self.seq % 2;
        self.file
            .write_durable(slot * PAGE_BYTES as u64, self.page.as_bytes())
    }
}

impl<F: File> SlotsRead<F> {
    /// Reads an open file, for a look that changes nothing.
    pub(crate) fn of(file: F, format: SlotFormat, owner: u32) -> io::Result<SlotsRead<F>> {
        let whole = file.len()? == TWO_SLOTS_BYTES;
        let mut pages = Pages::zeroed(TWO_SLOTS_BYTES as usize);
        let got = file.read(0, pages.as_bytes_mut())?;
        let mut read = SlotsRead {
            slots: TwoSlots {
                file,
                format,
                owner,
                seq: 0,
                page: Pages::zeroed(PAGE_BYTES),
            },
            newest: None,
            damaged: false,
            newer: None,
            whole,
        };
        for page in pages.as_bytes()[..got].chunks_exact(PAGE_BYTES) {
            match parse(page, format, owner) {
                Ok((seq, body)) if seq > read.slots.seq => {
                    read.slots.seq = seq;
                    read.newest = Some(body.to_vec());
                }
                Ok(_) => {}
                Err(SlotFault::Damaged) => read.damaged = true,
                Err(SlotFault::Version(version)) => read.newer = Some(version),
            }
        }
        Ok(read)
    }
}

fn parse(page: &[u8], format: SlotFormat, owner: u32) -> Result<(u64, &[u8]), SlotFault> {
    let (envelope, _) = Envelope::read_from_prefix(page).map_err(|_| SlotFault::Damaged)?;
    let crc = crc32c::crc32c(&page[..CRC_AT]).to_le_bytes();
    if envelope.magic != format.magic || page[CRC_AT..] != crc {
        return Err(SlotFault::Damaged);
    }
    if envelope.version.get() != format.version {
        return Err(SlotFault::Version(envelope.version.get()));
    }
    if envelope.owner.get() != owner || envelope.seq.get() > SEQ_MAX {
        return Err(SlotFault::Damaged);
    }
    Ok((envelope.seq.get(), &page[BODY_AT..CRC_AT]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{SimFaults, SimLoss, SimStorage};

    const FORMAT: SlotFormat = SlotFormat {
        name: "slots",
        magic: *b"TESTSLOT",
        version: 3,
    };

    fn read(storage: &SimStorage) -> SlotsRead<<SimStorage as Storage>::File> {
        TwoSlots::open(storage, FORMAT, 9).unwrap()
    }

    fn created() -> SimStorage {
        let storage = SimStorage::new();
        TwoSlots::create(&storage, FORMAT, 9, b"old").unwrap();
        storage
    }

    #[test]
    fn the_bytes_of_the_envelope_are_fixed() {
        let storage = created();
        let bytes = storage.contents("slots").unwrap();
        // The second write, number 2, is in slot 0.
        let mut expected = b"TESTSLOT".to_vec();
        expected.extend_from_slice(&[3, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(b"old");
        assert_eq!(bytes[..expected.len()], expected);
        assert_eq!(bytes.len() as u64, TWO_SLOTS_BYTES);
    }

    #[test]
    fn a_torn_write_leaves_the_body_before_it() {
        for keep in 0..256 {
            let storage = created();
            let mut slots = read(&storage).slots;
            storage.set_faults(SimFaults {
                crash_at_op: Some(1),
                ..SimFaults::default()
            });
            slots.write(b"new").unwrap_err();
            storage.crash(SimLoss::Keep(keep));
            let body = read(&storage).newest.unwrap();
            // Whole only when the sectors that differ are there: first and last.
            let whole = keep & 0x81 == 0x81;
            assert_eq!(
                &body[..3],
                if whole { b"new" } else { b"old" },
                "{keep:08b}"
            );
        }
    }

    #[test]
    fn any_flipped_byte_leaves_the_other_slot() {
        let storage = created();
        read(&storage).slots.write(b"new").unwrap();
        for at in 0..TWO_SLOTS_BYTES {
            let damaged = storage.snapshot();
            damaged.flip("slots", at, 0x10);
            let found = read(&damaged);
            assert!(found.damaged || found.newer.is_some(), "byte {at}");
            let in_new = at >= PAGE_BYTES as u64;
            let expected: &[u8] = if in_new { b"old" } else { b"new" };
            assert_eq!(&found.newest.unwrap()[..3], expected, "byte {at}");
        }
    }

    #[test]
    fn the_file_of_another_owner_is_damage_and_a_newer_one_is_told() {
        let storage = created();
        let other = TwoSlots::open(&storage, FORMAT, 8).unwrap();
        assert!(other.newest.is_none() && other.damaged);
        let older = SlotFormat {
            version: 2,
            ..FORMAT
        };
        let newer = TwoSlots::open(&storage, older, 9).unwrap();
        assert_eq!(newer.newer, Some(3));
    }
}
