//! What a shard's index amounts to, read from its checkpoint parts, in one canonical order.

use std::collections::{BTreeMap, BTreeSet};

use engine::codec::{Damaged, Decoder};
use engine::shard::CheckpointPart;

const GENERAL: u16 = u16::MAX;

/// One operation: place of its event, its number, priority, class, marks and flow.
pub(super) type OpDump = (u64, u32, u8, u8, u8, u16);

/// One record: place of its state, and its lanes by account.
pub(super) type RecordDump = (u64, BTreeMap<String, Vec<OpDump>>);

/// A shard's index.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct IndexDump {
    /// By virtual shard and tag.
    pub(super) records: BTreeMap<(u16, u64), RecordDump>,
    /// Dead letters: record, account, operation.
    pub(super) dead: BTreeSet<(u64, String, OpDump)>,
    holds: BTreeSet<(Option<String>, Option<String>, Option<String>)>,
    producers: BTreeMap<u64, (u64, Vec<u64>)>,
    /// Permits by account that count as spent after a crash.
    leased: BTreeMap<String, u64>,
    /// Learned sizes of limits, as they are encoded.
    learned: Vec<Vec<u8>>,
}

impl IndexDump {
    /// Reads every part.
    pub(super) fn read<'a>(
        parts: impl IntoIterator<Item = &'a CheckpointPart>,
    ) -> Result<Self, Damaged> {
        let mut dump = Self::default();
        for part in parts {
            let mut d = Decoder::new(&part.bytes);
            d.u8("version")?;
            let number = d.u16("part")?;
            d.u64("seen to")?;
            if number == GENERAL {
                dump.general(&mut d)?
            } else {
                dump.vshard(number, &mut d)?
            }
        }
        Ok(dump)
    }

    fn general(&mut self, d: &mut Decoder<'_>) -> Result<(), Damaged> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        for _ in 0..d.u32("holds")? {
            let provider = owned(d.optional_text("provider")?);
            let object = owned(d.optional_text("object")?);
            self.holds
                .insert((provider, object, owned(d.optional_text("record")?)));
        }
        for _ in 0..d.u32("producers")? {
            let (producer, base) = (d.u64("producer")?, d.u64("base")?);
            let mut above = Vec::new();
            for _ in 0..d.u32("above")? {
                above.push(d.u64("seq")?);
            }
            self.producers.insert(producer, (base, above));
        }
        for _ in 0..d.u32("leases")? {
            let account = d.text("account")?.to_owned();
            d.u64("lease")?;
            *self.leased.entry(account).or_default() += u64::from(d.u32("permits")?);
            d.u64("until")?;
            d.i64("until, wall")?;
            d.u64("boot")?;
            d.text("label")?;
            d.u64("ended by")?;
        }
        for _ in 0..d.u32("learned")? {
            self.learned.push(d.bytes("learned")?.to_vec());
        }
        Ok(())
    }

    fn vshard(&mut self, vshard: u16, d: &mut Decoder<'_>) -> Result<(), Damaged> {
        let mut accounts = Vec::new();
        for _ in 0..d.u16("accounts")? {
            accounts.push(d.text("account")?.to_owned());
        }
        let name = |at: u16| accounts.get(usize::from(at)).cloned().unwrap_or_default();
        for _ in 0..d.u64("records")? {
            let tag = d.u64("tag")?;
            let state = d.u64("state")?;
            let mut lanes: BTreeMap<String, Vec<OpDump>> = BTreeMap::new();
            for _ in 0..d.u16("lanes")? {
                for _ in 0..d.u32("operations")? {
                    let (account, op) = operation(d)?;
                    lanes.entry(name(account)).or_default().push(op);
                }
            }
            self.records.insert((vshard, tag), (state, lanes));
        }
        for _ in 0..d.u32("dead")? {
            let record = d.u64("record")?;
            let (account, op) = operation(d)?;
            self.dead.insert((record, name(account), op));
        }
        Ok(())
    }

    /// The first difference, in words.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        for (record, mine) in &self.records {
            match other.records.get(record) {
                Some(theirs) if theirs == mine => {}
                theirs => return Some(format!("record {record:x?}: {mine:?} against {theirs:?}")),
            }
        }
        if let Some(record) = other
            .records
            .keys()
            .find(|record| !self.records.contains_key(*record))
        {
            return Some(format!("record {record:x?} is in the second only"));
        }
        if self.dead != other.dead {
            return Some(format!(
                "dead letters: {:?} against {:?}",
                self.dead, other.dead
            ));
        }
        if self.holds != other.holds {
            return Some(format!("holds: {:?} against {:?}", self.holds, other.holds));
        }
        if self.producers != other.producers {
            return Some(format!(
                "producers: {:?} against {:?}",
                self.producers, other.producers
            ));
        }
        if self.learned != other.learned {
            return Some(format!(
                "learned: {:?} against {:?}",
                self.learned, other.learned
            ));
        }
        (self.leased != other.leased)
            .then(|| format!("leases: {:?} against {:?}", self.leased, other.leased))
    }
}

fn operation(d: &mut Decoder<'_>) -> Result<(u16, OpDump), Damaged> {
    let place = d.u64("event")?;
    let account = d.u16("target")?;
    let number = d.u32("sequence")?;
    Ok((
        account,
        (
            place,
            number,
            d.u8("priority")?,
            d.u8("class")?,
            d.u8("flags")?,
            d.u16("flow")?,
        ),
    ))
}
