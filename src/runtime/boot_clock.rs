//! Since when the machine runs, by the wall clock as it was first seen in this boot.

use std::io;
use std::path::Path;

use engine::time::Now;
use serde::{Deserialize, Serialize};

use super::durable_file;

const FILE: &str = "boot.json";
const FILE_BYTES_MAX: u64 = 4096;

/// What is kept from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Which boot.
    boot: u64,
    /// What the wall clock showed when it began, ms since the epoch.
    booted_at_ms: i64,
}

/// What the wall clock showed when this boot began: the same for all runs of a data directory within
/// a boot, however often the wall clock was set between.
///
/// A file that is damaged counts as one of another boot.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) fn booted_at_ms(data_dir: &Path, boot: u64, now: Now) -> io::Result<i64> {
    let path = data_dir.join(FILE);
    let read = durable_file::read(&path, FILE_BYTES_MAX)?;
    let kept: Option<Kept> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(kept) = kept.filter(|kept| kept.boot == boot) {
        return Ok(kept.booted_at_ms);
    }
    let uptime_ms = (now.mono.0 / 1_000_000) as i64;
    let kept = Kept {
        boot,
        booted_at_ms: now.wall.0.saturating_sub(uptime_ms),
    };
    let bytes = serde_json::to_vec(&kept).map_err(io::Error::other)?;
    durable_file::replace(&path, &bytes)?;
    Ok(kept.booted_at_ms)
}

#[cfg(test)]
mod tests {
    use engine::time::{Mono, WallMs};

    use super::*;

    fn now(mono_ms: u64, wall_ms: i64) -> Now {
        Now {
            mono: Mono(mono_ms * 1_000_000),
            wall: WallMs(wall_ms),
        }
    }

    #[test]
    fn a_clock_set_between_two_runs_of_a_boot_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |boot, now| booted_at_ms(folder.path(), boot, now).unwrap();
        assert_eq!(at(1, now(100, 5_100)), 5_000);
        assert_eq!(at(1, now(200, 9_999_200)), 5_000);
        assert_eq!(at(2, now(50, 9_000)), 8_950, "another boot");
        std::fs::write(folder.path().join(FILE), b"{").unwrap();
        assert_eq!(at(2, now(60, 9_000)), 8_940, "damaged");
    }
}
