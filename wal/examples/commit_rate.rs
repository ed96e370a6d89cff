//! Commits per second and bytes per second of a folder's disk, and the cost of an append.
//!
//! `cargo run --release -p syncline-wal --example commit_rate -- DIR [SECONDS]`
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use syncline_wal::sim::SimStorage;
use syncline_wal::{
    AppendError, Class, CommitMethod, Disk, Durability, FrameKind, InstanceId, Log, LogId,
    LogLimits, LogOptions, Lsn, OpenMode, Storage, writer_thread,
};

const KIND: FrameKind = FrameKind(1);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .unwrap_or_else(|| "wal-commit-rate".to_owned());
    let seconds = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    append_cost()?;
    for method in [CommitMethod::Uring, CommitMethod::Pwritev2] {
        for bytes in [4096, 64 * 1024, 1024 * 1024] {
            commit_rate(
                Path::new(&folder),
                method,
                bytes,
                Duration::from_secs_f64(seconds),
            )?;
        }
    }
    Ok(())
}

fn options(durability: Durability) -> LogOptions {
    LogOptions {
        log: LogId {
            generation: 1,
            shard: 0,
        },
        instance: InstanceId([1; 16]),
        mode: OpenMode::Create,
        durability,
        limits: LogLimits::default(),
        salt_seed: 1,
    }
}

/// Frames of 450 bytes into memory, committed now and then by a disk that costs nothing.
fn append_cost() -> Result<(), Box<dyn Error>> {
    let storage = SimStorage::new();
    let (mut log, mut writer, _) =
        Log::open(storage, options(Durability::Fsync), Lsn::ZERO, |_, _, _| {
            Ok(())
        })?;
    let payload = [7; 450];
    let mut times = Vec::new();
    for _ in 0..40 {
        while writer.maintain(1 << 20)?.more {}
        let start = Instant::now();
        for _ in 0..2000 {
            log.append(Class::Outcome, KIND, &[&payload[..40], &payload[40..]])?;
        }
        times.push(start.elapsed().as_nanos() / 2000);
        let start = Instant::now();
        let block = log.take_block(1).ok_or("frames wait")?;
        let taken = start.elapsed();
        let bytes = block.bytes();
        log.on_committed(writer.commit(block))?;
        if times.len() == 20 {
            println!("take_block of {bytes} bytes: {taken:?}");
        }
    }
    times.sort_unstable();
    println!(
        "append of 450 bytes: {} ns (median of 40 x 2000)",
        times[times.len() / 2]
    );
    Ok(())
}

/// One block after the other, each of `bytes`, for as long as said.
fn commit_rate(
    folder: &Path,
    method: CommitMethod,
    bytes: usize,
    time: Duration,
) -> Result<(), Box<dyn Error>> {
    let storage = Disk::new(&folder.join(format!("{method:?}-{bytes}")), method);
    let (mut log, writer, _) = Log::open(
        storage.clone(),
        options(Durability::Fsync),
        Lsn::ZERO,
        |_, _, _| Ok(()),
    )?;
    let answered = Arc::new(AtomicBool::new(false));
    let (shard, flag) = (thread::current(), Arc::clone(&answered));
    let mut handle = writer_thread::spawn(writer, "writer", move || {
        flag.store(true, Ordering::Release);
        shard.unpark();
    })?;
    // One block: its header and the frames' headers count.
    let payload = vec![7; (bytes - 64 - 24).min(512 * 1024)];
    let frames = bytes.div_ceil(payload.len() + 100);
    let mut waits = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        for _ in 0..frames {
            while let Err(error) = log.append(Class::Intake, KIND, &[&payload]) {
                if error != AppendError::Full {
                    return Err(error.into());
                }
                thread::park_timeout(Duration::from_millis(1));
            }
        }
        while let Some(block) = log.take_block(1) {
            let submitted = Instant::now();
            handle.submit(block);
            let answer = loop {
                if let Some(answer) = handle.poll_answer() {
                    break answer;
                }
                thread::park_timeout(Duration::from_millis(1));
            };
            log.on_committed(answer)?;
            waits.push(submitted.elapsed());
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
    println!(
        "{method:?} {:>5} KiB: {:>6.0} commits/s {:>6.1} MB/s, p50 {:?} p99 {:?} max {:?}",
        bytes / 1024,
        waits.len() as f64 / elapsed,
        waits.len() as f64 * bytes as f64 / elapsed / 1e6,
        at(0.5),
        at(0.99),
        at(1.0),
    );
    handle.stop();
    drop(log);
    let start = Instant::now();
    let (_, _, report) = Log::open(
        storage.clone(),
        options(Durability::Fsync),
        Lsn::ZERO,
        |_, _, _| Ok(()),
    )?;
    let rate = report.bytes_verified as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!(
        "    opened again: {} MB at {rate:.0} MB/s",
        report.bytes_verified / 1_000_000
    );
    for name in storage.list()? {
        storage.remove(&name)?;
    }
    Ok(storage.remove_dir()?)
}
