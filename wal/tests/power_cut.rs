//! The power of a real file system is cut: ext4 on a loop device, shut down without flushing.
//! A command of its own, since it mounts a loop device and needs root, ext4 and mkfs.ext4:
//! `cargo test -p syncline-wal --test power_cut -- --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use support::*;
use syncline_wal::{Class, CommitMethod, Disk, LogLimits, LogOptions, Lsn, OpenMode, Storage};

/// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587D;
/// Neither the journal nor data is flushed: what the power takes with it.
const NO_LOG_FLUSH: u32 = 2;

fn run(command: &str, arguments: &[&str]) {
    let done = Command::new(command).args(arguments).output().unwrap();
    assert!(done.status.success(), "{command} {arguments:?}: {done:?}");
}

/// A mounted image; unmounted when dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(image: &Path, at: &'a Path) -> Mount<'a> {
        run(
            "mount",
            &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()],
        );
        Mount(at)
    }

    fn cut_power(&self) {
        let root = fs::File::open(self.0).unwrap();
        let flags = NO_LOG_FLUSH;
        // SAFETY: the request reads one u32, which lives through the call.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const flags) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        run("umount", &[self.0.to_str().unwrap()]);
    }
}

fn options(mode: OpenMode) -> LogOptions {
    let limits = LogLimits {
        segment_bytes: 2 << 20,
        outcome_reserve_bytes: 1 << 20,
        free_bytes_min: 0,
        ..LogLimits::default()
    };
    LogOptions {
        mode,
        limits,
        ..support::options()
    }
}

/// Appends until the disk is gone. Returns all that was appended, how much was durable, and
/// from where the log lives.
fn work(mut driver: Driver<Disk>, durable: &AtomicU64) -> (Vec<Entry>, Lsn) {
    let mut floor = Lsn::ZERO;
    for n in 0.. {
        let bytes = payload(n, 50 + (n * 977) % 20_000);
        match driver.append_as(Class::Outcome, &bytes) {
            Ok(_) | Err(syncline_wal::AppendError::Full) => {}
            Err(_) => break,
        }
        if n % 3 == 0 && driver.commit_all().is_err() {
            break;
        }
        durable.store(driver.log.durable().get(), Ordering::Release);
        if driver.maintain().is_err() {
            break;
        }
        let oldest: Vec<_> = driver.log.segments().take(4).collect();
        if oldest.len() == 4 {
            floor = oldest[1].base;
            driver.log.release(oldest[0].number).unwrap();
            driver.entries.retain(|entry| entry.0 >= floor);
        }
        if n % 50 == 0 {
            driver.log.seal();
        }
    }
    (driver.entries, floor)
}

fn check(method: CommitMethod, cycles: u64) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let at = folder.path().join("mount");
    fs::create_dir(&at).unwrap();
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    run("mkfs.ext4", &["-q", "-b", "4096", image.to_str().unwrap()]);
    let storage = Disk::new(&at, method).sub("log-0001-0000");
    let mut floor = Lsn::ZERO;
    let mut torn = 0;
    for cycle in 0..cycles {
        let mount = Mount::new(&image, &at);
        let mode = if cycle == 0 {
            OpenMode::Create
        } else {
            OpenMode::Existing
        };
        let driver = Driver::open_with(storage.clone(), options(mode), floor).unwrap();
        torn += u64::from(driver.report.torn.is_some());
        let started = driver.log.durable().get();
        let durable = Arc::new(AtomicU64::new(started));
        let known = Arc::clone(&durable);
        let worker = thread::spawn(move || work(driver, &known));
        // At another point of the work each time.
        while durable.load(Ordering::Acquire) < started + 100_000 + cycle * 77_000 {
            thread::yield_now();
        }
        mount.cut_power();
        let (appended, new_floor) = worker.join().unwrap();
        let durable = Lsn::new(durable.load(Ordering::Acquire));
        drop(mount);

        // The release of the last segment may be lost with its block.
        floor = floor.max(new_floor);
        let mount = Mount::new(&image, &at);
        let driver =
            Driver::open_with(storage.clone(), options(OpenMode::Existing), floor).unwrap();
        torn += u64::from(driver.report.torn.is_some());
        let live: Vec<_> = appended
            .into_iter()
            .filter(|entry| entry.0 >= floor)
            .collect();
        let acknowledged = live.iter().filter(|entry| entry.0 < durable).count();
        assert!(driver.entries.len() >= acknowledged, "cycle {cycle}");
        assert!(live.starts_with(&driver.entries), "cycle {cycle}");
        drop(driver);
        drop(mount);
    }
    println!("{method:?}: {cycles} power cuts, {torn} torn tails");
}

#[test]
fn nothing_acknowledged_is_lost_with_pwritev2() {
    check(CommitMethod::Pwritev2, 25);
}

#[test]
fn nothing_acknowledged_is_lost_with_io_uring() {
    check(CommitMethod::Uring, 25);
}
