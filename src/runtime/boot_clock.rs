//! A clock that nobody sets: the boot-time clock, from a beginning that is kept from run to run.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::time::Now;
use serde::{Deserialize, Serialize};

use super::{clock, durable_file};

const FILE: &str = "boot.json";
const FILE_BYTES_MAX: u64 = 4096;
/// How often the wall clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A wall clock that moved less against the boot-time clock was not set, but follows its source.
const SET_MIN_MS: u64 = 50;

/// What is kept from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Which boot.
    boot: u64,
    /// When it began, ms since the epoch by the steady clock.
    booted_at_ms: i64,
    /// By how much the wall clock is ahead of the steady one, ms.
    wall_ahead_ms: i64,
}

/// The steady clock of a data directory. It shows what the wall clock showed at the first start, and
/// goes on by the boot-time clock, however often the wall clock is set; over a boot of the machine by
/// the wall clock, as if that had not been set meanwhile.
#[derive(Debug)]
pub(crate) struct BootClock {
    path: PathBuf,
    kept: Kept,
}

impl BootClock {
    /// Goes on from what the last run left. A file that is damaged counts as none.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn open(data_dir: &Path, boot: u64, now: Now) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let read = durable_file::read(&path, FILE_BYTES_MAX)?;
        let before: Option<Kept> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(kept) = before.filter(|kept| kept.boot == boot) {
            return Ok(Self { path, kept });
        }
        let wall_ahead_ms = before.map_or(0, |before| before.wall_ahead_ms);
        let kept = Kept {
            boot,
            booted_at_ms: now
                .wall
                .0
                .saturating_sub(wall_ahead_ms)
                .saturating_sub(uptime_ms(now)),
            wall_ahead_ms,
        };
        let clock = Self { path, kept };
        clock.save()?;
        Ok(clock)
    }

    /// When this boot began, ms since the epoch by the steady clock.
    pub(crate) fn booted_at_ms(&self) -> i64 {
        self.kept.booted_at_ms
    }

    /// Looks at the wall clock for as long as the process runs.
    pub(crate) async fn watch(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(error) = self.look(clock::now()) {
                tracing::warn!(path = %self.path.display(), %error, "that the clock was set is not kept");
            }
        }
    }

    fn look(&mut self, now: Now) -> io::Result<()> {
        let steady_ms = self.kept.booted_at_ms.saturating_add(uptime_ms(now));
        let ahead_ms = now.wall.0.saturating_sub(steady_ms);
        if ahead_ms.abs_diff(self.kept.wall_ahead_ms) < SET_MIN_MS {
            return Ok(());
        }
        self.kept.wall_ahead_ms = ahead_ms;
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&self.kept).map_err(io::Error::other)?;
        durable_file::replace(&self.path, &bytes)
    }
}

fn uptime_ms(now: Now) -> i64 {
    (now.mono.0 / 1_000_000) as i64
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
    fn a_wall_clock_that_is_set_moves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let open = |boot, now| BootClock::open(folder.path(), boot, now).unwrap();
        let mut first = open(1, now(100, 5_100));
        assert_eq!(first.booted_at_ms(), 5_000);
        first.look(now(200, 9_200)).unwrap();
        assert_eq!(open(1, now(300, 9_300)).booted_at_ms(), 5_000, "same boot");
        let second = open(2, now(10, 9_500));
        assert_eq!(second.booted_at_ms(), 5_490, "4,000 ms are taken off");
        std::fs::write(folder.path().join(FILE), b"{").unwrap();
        assert_eq!(open(2, now(60, 9_000)).booted_at_ms(), 8_940, "damaged");
    }
}
