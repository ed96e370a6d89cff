//! A part of all records, chosen by a hash of their ids.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// A part of all records, from none to all; one that takes part stays in when it grows.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(f64);

impl Share {
    /// Every record.
    pub const ALL: Share = Share(1.0);

    /// From 0 to 1.
    pub fn new(share: f64) -> Option<Share> {
        (0.0..=1.0).contains(&share).then_some(Share(share))
    }

    /// Whether a record takes part.
    pub fn holds(self, record_id: &str) -> bool {
        let below = self.below();
        below.is_none_or(|below| xxh3_64(record_id.as_bytes()) < below)
    }

    /// Hashes below this take part; `None`: all of them do.
    pub(super) fn below(self) -> Option<u64> {
        // 2^64 itself does not fit; a share of one is everybody.
        (self.0 < 1.0).then_some((self.0 * 18_446_744_073_709_551_616.0) as u64)
    }
}

impl Default for Share {
    fn default() -> Share {
        Share::ALL
    }
}

impl TryFrom<f64> for Share {
    type Error = &'static str;

    fn try_from(share: f64) -> Result<Share, &'static str> {
        Share::new(share).ok_or("expected a share from 0 to 1")
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> f64 {
        share.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_holds_its_part_and_what_is_in_stays_in() {
        let ids: Vec<String> = (0..10_000).map(|n| format!("c-{n}")).collect();
        let part = |share: f64| -> Vec<&String> {
            let share = Share::new(share).unwrap();
            ids.iter().filter(|id| share.holds(id)).collect()
        };
        assert_eq!(part(0.0).len(), 0);
        assert_eq!(part(1.0).len(), ids.len());
        let (tenth, fifth) = (part(0.1), part(0.2));
        assert!((900..1_100).contains(&tenth.len()), "{}", tenth.len());
        assert!(tenth.iter().all(|id| fifth.contains(id)));
        assert_eq!(Share::new(1.1), None);
        assert_eq!(Share::new(f64::NAN), None);
    }
}
