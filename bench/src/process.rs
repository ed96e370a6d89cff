//! A child process, and what it used.

use std::fs;
use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A child that does not outlive its owner.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

/// What a process used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// Most resident memory so far.
    pub(crate) peak_rss_bytes: u64,
}

impl Process {
    pub(crate) fn new(child: Child) -> Process {
        Process { child }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn usage(&self) -> io::Result<Usage> {
        Usage::of(self.id())
    }

    /// Whether it ended, and how.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks it to end, and waits; `None`: it did not, and was killed.
    pub(crate) fn stop(mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(Some(status));
        }
        kill_process(pid(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            std::thread::sleep(STOP_POLL);
        }
        Ok(None)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const STOP_POLL: Duration = Duration::from_millis(10);

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

impl Usage {
    /// Of a live process.
    pub(crate) fn of(pid: u32) -> io::Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Usage::parse(&stat, &status).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(stat: &str, status: &str) -> Option<Usage> {
        // The second field is the name in parentheses and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let ticks = |field: Option<&str>| field?.parse::<u64>().ok();
        // utime and stime are fields 14 and 15; the first here is field 3.
        let user = ticks(fields.nth(11))?;
        let system = ticks(fields.next())?;
        let tick = Duration::from_millis(1000 / TICKS_PER_SECOND);
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak_kib: u64 = peak?.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Usage {
            user: tick * user as u32,
            system: tick * system as u32,
            peak_rss_bytes: peak_kib << 10,
        })
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.user + self.system
    }

    /// What was used since `before`; the peak stays the peak.
    pub(crate) fn since(&self, before: &Usage) -> Usage {
        Usage {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            peak_rss_bytes: self.peak_rss_bytes,
        }
    }
}

/// `USER_HZ`, which Linux fixes at 100 towards user space on x86-64 and arm64.
const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn usage_is_read_whatever_the_process_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 9 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        let usage = Usage::parse(stat, "Name:\ta) b\nVmHWM:\t    2048 kB\n").unwrap();
        assert_eq!(usage.user, Duration::from_millis(2500));
        assert_eq!(usage.system, Duration::from_millis(500));
        assert_eq!(usage.peak_rss_bytes, 2 << 20);
        assert_eq!(Usage::parse("7 (a) S 1", ""), None);
    }

    #[test]
    fn a_child_ends_when_asked_and_when_it_is_dropped() {
        let run = || {
            Process::new(
                Command::new("cat")
                    .stdin(std::process::Stdio::piped())
                    .spawn()
                    .unwrap(),
            )
        };
        let status = run().stop(Duration::from_secs(5)).unwrap();
        assert!(status.is_some_and(|status| !status.success()));
        let dropped = run();
        let id = dropped.id();
        drop(dropped);
        assert!(Usage::of(id).is_err());
    }
}
