//! Which log of which data directory.

use std::fmt;

/// One log: a shard of a log generation. Changing the number of shards starts a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Counts how often the logs were laid out anew.
    pub generation: u16,
    /// The shard's number within the generation.
    pub shard: u16,
}

impl LogId {
    pub(crate) const fn get(self) -> u32 {
        ((self.generation as u32) << 16) | self.shard as u32
    }

    pub(crate) const fn from_raw(raw: u32) -> LogId {
        LogId {
            generation: (raw >> 16) as u16,
            shard: raw as u16,
        }
    }

    /// The name of the log's folder in the data directory.
    #[must_use]
    pub fn dir_name(self) -> String {
        format!("log-{:04}-{:04}", self.generation, self.shard)
    }

    /// The inverse of [`LogId::dir_name`].
    #[must_use]
    pub fn parse_dir_name(name: &str) -> Option<LogId> {
        let (generation, shard) = name.strip_prefix("log-")?.split_once('-')?;
        let id = LogId {
            generation: generation.parse().ok()?,
            shard: shard.parse().ok()?,
        };
        (id.dir_name() == name).then_some(id)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.generation, self.shard)
    }
}

/// Tells one data directory from every other: 16 random bytes, drawn when it was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(pub [u8; 16]);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_name_round_trips() {
        let id = LogId {
            generation: 3,
            shard: 12,
        };
        assert_eq!(id.dir_name(), "log-0003-0012");
        assert_eq!(LogId::parse_dir_name("log-0003-0012"), Some(id));
        assert_eq!(LogId::from_raw(id.get()), id);
    }

    #[test]
    fn another_spelling_of_the_folder_name_is_not_ours() {
        for name in ["log-3-12", "log-0003", "log-0003-0012.bak", "log-0003-+012"] {
            assert_eq!(LogId::parse_dir_name(name), None, "{name}");
        }
    }
}
