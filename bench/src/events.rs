//! The events that are sent: rendered once, two fields patched per event.

use std::fmt::{self, Display, Formatter, Write as _};
use std::str::FromStr;

/// CRM-shaped UPSERT, UPDATE and CREATE events of one size over a fixed set of records.
///
/// Event `n` of a seed is always the same bytes. Each carries a revision of its own, so that no
/// two events of a record say the same.
#[derive(Debug)]
pub(crate) struct EventPool {
    /// One event per record, end to end.
    rendered: Vec<u8>,
    records: u64,
    event_bytes: usize,
    mix: Mix,
    seed: u64,
}

impl EventPool {
    /// # Errors
    /// `event_bytes` is too small for the fields of an event.
    pub(crate) fn render(
        records: u64,
        event_bytes: usize,
        mix: Mix,
        seed: u64,
    ) -> Result<EventPool, TooSmall> {
        let mut rendered = String::new();
        for record in 0..records {
            let dice = mixed(seed ^ record.rotate_left(32));
            let (first, last) = NAMES[dice as usize % NAMES.len()];
            let start = rendered.len();
            write!(
                rendered,
                "{BEFORE_OPERATION}UPSERT{BEFORE_RECORD}r-{record:08}{BEFORE_REVISION}0000000000\
                 \",\"first_name\":\"{first}\",\"last_name\":\"{last}\",\
                 \"email\":\"r-{record:08}@example.com\",\"status\":\"active\",\
                 \"score\":{},\"note\":\"",
                dice % 1000,
            )
            .expect("a String takes every write");
            let end = "\"}}";
            let padding = (start + event_bytes)
                .checked_sub(rendered.len() + end.len())
                .ok_or(TooSmall { event_bytes })?;
            rendered.extend(std::iter::repeat_n('x', padding));
            rendered.push_str(end);
        }
        Ok(EventPool {
            rendered: rendered.into_bytes(),
            records,
            event_bytes,
            mix,
            seed,
        })
    }

    /// Size of every event.
    pub(crate) fn event_bytes(&self) -> usize {
        self.event_bytes
    }

    /// Appends event `n`.
    pub(crate) fn write(&self, n: u64, out: &mut Vec<u8>) {
        let dice = mixed(self.seed.wrapping_add(n));
        let record = (dice % self.records) as usize;
        let start = out.len();
        out.extend_from_slice(&self.rendered[record * self.event_bytes..][..self.event_bytes]);
        let event = &mut out[start..];
        event[OPERATION_AT..][..6].copy_from_slice(self.mix.pick(dice >> 32));
        let mut rest = n;
        for digit in event[REVISION_AT..][..10].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// The configured account that every event is for.
pub(crate) const ACCOUNT: &str = "sink";

const BEFORE_OPERATION: &str = "{\"operation\":\"";
const BEFORE_RECORD: &str = "\",\"provider\":\"sink\",\"object\":\"contact\",\"record_id\":\"";
const BEFORE_REVISION: &str = "\",\"data\":{\"revision\":\"";
const OPERATION_AT: usize = BEFORE_OPERATION.len();
const REVISION_AT: usize = OPERATION_AT
    + "UPSERT".len()
    + BEFORE_RECORD.len()
    + "r-00000000".len()
    + BEFORE_REVISION.len();

const NAMES: [(&str, &str); 4] = [
    ("Ada", "Lovelace"),
    ("Grace", "Hopper"),
    ("Barbara", "Liskov"),
    ("Edsger", "Dijkstra"),
];

/// The events do not fit the size asked for.
#[derive(Debug, thiserror::Error)]
#[error("an event of {event_bytes} bytes has no room for its fields; 300 has")]
pub(crate) struct TooSmall {
    event_bytes: usize,
}

/// How often each operation occurs, by weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    create: u64,
    upsert: u64,
    update: u64,
}

impl Mix {
    fn pick(self, dice: u64) -> &'static [u8; 6] {
        let at = dice % (self.create + self.upsert + self.update);
        if at < self.create {
            b"CREATE"
        } else if at < self.create + self.upsert {
            b"UPSERT"
        } else {
            b"UPDATE"
        }
    }
}

impl Display for Mix {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Mix {
            create,
            upsert,
            update,
        } = self;
        write!(f, "create={create},upsert={upsert},update={update}")
    }
}

impl FromStr for Mix {
    type Err = String;

    /// `upsert` alone, or weights: `create=1,upsert=8,update=1`.
    fn from_str(text: &str) -> Result<Mix, String> {
        let mut mix = Mix {
            create: 0,
            upsert: 0,
            update: 0,
        };
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight: u32 = weight
                .parse()
                .map_err(|_| format!("`{weight}` is no weight"))?;
            let slot = match name {
                "create" => &mut mix.create,
                "upsert" => &mut mix.upsert,
                "update" => &mut mix.update,
                _ => return Err(format!("`{name}` is none of create, upsert, update")),
            };
            *slot = u64::from(weight);
        }
        if mix.create + mix.upsert + mix.update == 0 {
            return Err("every weight is 0".to_owned());
        }
        Ok(mix)
    }
}

/// SplitMix64's output function: neighbours in, unrelated numbers out.
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    fn pool(mix: &str, seed: u64) -> EventPool {
        EventPool::render(50, 400, mix.parse().unwrap(), seed).unwrap()
    }

    fn event(pool: &EventPool, n: u64) -> Value {
        let mut bytes = Vec::new();
        pool.write(n, &mut bytes);
        assert_eq!(bytes.len(), 400);
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn every_event_has_the_size_and_a_revision_of_its_own() {
        let pool = pool("upsert", 7);
        for n in [0, 1, 99, 1_234_567_890] {
            let event = event(&pool, n);
            assert_eq!(event["operation"], "UPSERT");
            assert_eq!(event["provider"], ACCOUNT);
            assert_eq!(event["data"]["revision"], format!("{n:010}"));
            let id = event["record_id"].as_str().unwrap();
            assert_eq!(event["data"]["email"], format!("{id}@example.com"));
        }
    }

    #[test]
    fn a_seed_gives_the_same_events_again_and_another_seed_others() {
        let ids = |seed| {
            let pool = pool("upsert", seed);
            (0..20)
                .map(|n| event(&pool, n)["record_id"].to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
    }

    #[test]
    fn the_mix_is_kept_by_weight() {
        let pool = pool("create=1,upsert=2,update=1", 3);
        let mut seen = BTreeMap::new();
        for n in 0..4000 {
            *seen
                .entry(event(&pool, n)["operation"].to_string())
                .or_insert(0) += 1;
        }
        assert!((800..1200).contains(&seen["\"CREATE\""]), "{seen:?}");
        assert!((1700..2300).contains(&seen["\"UPSERT\""]), "{seen:?}");
        assert!((800..1200).contains(&seen["\"UPDATE\""]), "{seen:?}");
    }

    #[test]
    fn a_mix_without_weight_and_an_event_without_room_are_refused() {
        assert!("delete=1".parse::<Mix>().is_err());
        assert!("upsert=0".parse::<Mix>().is_err());
        assert!(EventPool::render(1, 100, "upsert".parse().unwrap(), 0).is_err());
    }
}
