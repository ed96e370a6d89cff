//! The known records of one virtual shard: where each one's state lies and what is queued for it.

mod slot;

use slot::Slot;
pub use slot::{Record, RecordTag};

use crate::operation_slab::{OpIndex, Position};

/// An open-addressing table of 16-byte slots, at most 32 bytes a known record.
///
/// Slots are filled by ordered linear probing: a tag's home is `tag × homes / 2⁴⁸`, which rises with
/// the tag, and every run of taken slots is kept sorted. So the whole table is in the order of tags:
/// a search for an unknown tag ends at the first larger one, growing is one pass in memory order, and
/// a sweep resumes at a tag, whatever came, went or grew since. Runs do not wrap around: those of the
/// last homes spill into a few slots past them.
///
/// Tags are 48 bits of a keyed hash, so two records may share one: `entry` means the first of them,
/// and whoever reads the record's frame and finds another record there looks at the `twins`.
#[derive(Debug, Default)]
pub struct RecordTable {
    slots: Vec<Slot>,
    homes: usize,
    len: usize,
}

impl RecordTable {
    /// Homes of the first allocation.
    const HOMES_MIN: usize = 8;
    /// Beyond this load, probing runs grow faster than memory shrinks: at 0.85 a search passes 3.8
    /// slots on average, at 0.9 it is 5.5.
    const LOAD_MAX_PERCENT: usize = 85;
    /// A growth by 1.45 leaves a load of 0.586, 27.3 bytes a record; doubling would leave 37.6.
    const GROWTH_PERCENT: usize = 145;
    /// Below this load the table is rebuilt smaller, so that 32 bytes hold after removals, too.
    const LOAD_MIN_PERCENT: usize = 54;
    /// The load after such a rebuild: between the two, far enough from both.
    const LOAD_REBUILT_PERCENT: usize = 69;

    /// An empty table without memory of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first record known by `tag`.
    pub fn find(&self, tag: RecordTag) -> Option<Record> {
        self.twins(tag).next()
    }

    /// All records known by `tag`; almost always one.
    pub fn twins(&self, tag: RecordTag) -> impl Iterator<Item = Record> {
        let from = self.locate(tag);
        let run = self.slots[from..].iter();
        run.take_while(move |slot| !slot.is_vacant() && slot.tag() == tag)
            .map(Slot::record)
    }

    /// The first record known by `tag`, or the place for it.
    pub fn entry(&mut self, tag: RecordTag) -> Entry<'_> {
        let index = self.locate(tag);
        let known = self
            .slots
            .get(index)
            .filter(|slot| !slot.is_vacant() && slot.tag() == tag);
        match known.map(Slot::record) {
            Some(record) => Entry {
                table: self,
                index,
                known: true,
                record,
            },
            None => Entry {
                table: self,
                index,
                known: false,
                record: Record::unknown(tag),
            },
        }
    }

    /// The place of this very record, one of several `twins`; `None` if it is not as `record` says.
    pub fn entry_of(&mut self, record: Record) -> Option<Entry<'_>> {
        let from = self.locate(record.tag);
        let twin = self.twins(record.tag).position(|twin| twin == record)?;
        Some(Entry {
            table: self,
            index: from + twin,
            known: true,
            record,
        })
    }

    /// The place for one more record by `tag`, whether or not others are known by it.
    pub fn entry_of_new_twin(&mut self, tag: RecordTag) -> Entry<'_> {
        let index = self.locate(tag);
        Entry {
            table: self,
            index,
            known: false,
            record: Record::unknown(tag),
        }
    }

    /// Forgets the first record known by `tag` and returns it.
    pub fn remove(&mut self, tag: RecordTag) -> Option<Record> {
        let mut entry = self.entry(tag);
        let record = entry.known.then_some(entry.record);
        entry.record = Record::unknown(tag);
        record
    }

    /// Records known.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All records in the order of their tags.
    pub fn iter(&self) -> impl Iterator<Item = Record> {
        self.slots
            .iter()
            .filter(|slot| !slot.is_vacant())
            .map(Slot::record)
    }

    /// The records from `tag` on, in the order of tags: a sweep in steps goes on at the last tag it
    /// saw, plus one, and sees every record exactly once that was there all the time.
    pub fn iter_from(&self, tag: RecordTag) -> impl Iterator<Item = Record> {
        let from = self.locate(tag);
        self.slots[from..]
            .iter()
            .filter(|slot| !slot.is_vacant())
            .map(Slot::record)
    }

    /// Heap memory held.
    pub fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    /// The first slot at or after the tag's home that is vacant or holds no smaller tag.
    fn locate(&self, tag: RecordTag) -> usize {
        let home = home(tag, self.homes);
        let ends = |slot: &Slot| slot.is_vacant() || slot.tag() >= tag;
        let passed = self.slots[home..].iter().position(ends);
        passed.map_or(self.slots.len(), |passed| home + passed)
    }

    fn insert(&mut self, index: usize, record: Record) {
        let mut index = index;
        if (self.len + 1) * 100 > self.homes * Self::LOAD_MAX_PERCENT {
            let grown = (self.homes * Self::GROWTH_PERCENT).div_ceil(100);
            self.rebuild(grown.max(Self::HOMES_MIN));
            index = self.locate(record.tag);
        }
        let end = match self.slots[index..].iter().position(Slot::is_vacant) {
            Some(shifted) => index + shifted,
            None => {
                push(&mut self.slots, Slot::VACANT, spill(self.homes));
                self.slots.len() - 1
            }
        };
        self.slots.copy_within(index..end, index + 1);
        self.slots[index] = Slot::from(record);
        self.len += 1;
    }

    fn remove_at(&mut self, index: usize) {
        let homes = self.homes;
        let run = self.slots[index + 1..].iter().enumerate();
        let shifted = run
            .take_while(|(offset, slot)| {
                !slot.is_vacant() && home(slot.tag(), homes) <= index + offset
            })
            .count();
        self.slots.copy_within(index + 1..=index + shifted, index);
        self.slots[index + shifted] = Slot::VACANT;
        self.len -= 1;
        let homes_min = self.len * 100 / Self::LOAD_REBUILT_PERCENT;
        if self.len * 100 < self.homes * Self::LOAD_MIN_PERCENT && homes_min >= Self::HOMES_MIN {
            self.rebuild(homes_min);
        }
    }

    /// Moves all records, in order, to a table of `homes`.
    fn rebuild(&mut self, homes: usize) {
        let spill = spill(homes);
        let mut slots = Vec::new();
        slots.reserve_exact(homes + spill);
        for slot in self.slots.iter().filter(|slot| !slot.is_vacant()) {
            let home = home(slot.tag(), homes);
            while slots.len() < home {
                slots.push(Slot::VACANT);
            }
            push(&mut slots, *slot, spill);
        }
        while slots.len() < homes {
            slots.push(Slot::VACANT);
        }
        self.slots = slots;
        self.homes = homes;
    }
}

/// One record of the table, or the place where it would be. What was set is kept when the entry is
/// dropped: a record with neither position nor lane is unknown and takes no slot.
#[derive(Debug)]
pub struct Entry<'t> {
    table: &'t mut RecordTable,
    index: usize,
    known: bool,
    record: Record,
}

impl Entry<'_> {
    /// Points the record at its newest state in the log.
    pub fn set_position(&mut self, position: Option<Position>) {
        self.record.position = position;
    }

    /// Sets the tail of the record's first lane.
    pub fn set_lane(&mut self, lane: Option<OpIndex>) {
        self.record.lane = lane;
    }

    /// The tail of the record's first lane, for the functions of `lane`.
    pub fn lane_mut(&mut self) -> &mut Option<OpIndex> {
        &mut self.record.lane
    }

    /// Where the record's newest state lies in the log.
    pub fn position(&self) -> Option<Position> {
        self.record.position
    }

    /// The tail of the record's first lane.
    pub fn lane(&self) -> Option<OpIndex> {
        self.record.lane
    }

    /// The record as it would be kept now.
    pub fn record(&self) -> Record {
        self.record
    }

    /// Whether the record was known when the entry was looked up.
    pub fn was_known(&self) -> bool {
        self.known
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let keep = self.record.position.is_some() || self.record.lane.is_some();
        match (self.known, keep) {
            (true, true) => self.table.slots[self.index] = Slot::from(self.record),
            (true, false) => self.table.remove_at(self.index),
            (false, true) => self.table.insert(self.index, self.record),
            (false, false) => {}
        }
    }
}

/// Fastrange: the tag scaled to the number of homes, which keeps the order of tags.
fn home(tag: RecordTag, homes: usize) -> usize {
    ((u128::from(tag.get()) * homes as u128) >> RecordTag::BITS) as usize
}

/// Slots past the last home, at first. At the maximal load a run reaches 64 slots past its home with
/// a probability below 10⁻⁸; small tables get along with fewer, or reallocate.
fn spill(homes: usize) -> usize {
    (homes / 16).clamp(4, 64)
}

/// Pushes without doubling the capacity.
fn push(slots: &mut Vec<Slot>, slot: Slot, spill: usize) {
    if slots.len() == slots.capacity() {
        slots.reserve_exact(spill);
    }
    slots.push(slot);
}
