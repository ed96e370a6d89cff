//! What a log promises, on every storage.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};

use support::*;
use syncline_wal::sim::SimStorage;
use syncline_wal::{
    AppendError, Class, CommitMethod, Disk, Durability, FrameKind, Log, LogOptions, Lsn, OpenError,
    OpenMode, ReadError, ReleaseError, SegmentNumber, Storage,
};

/// A place for one log; the folder of a real disk goes with it.
trait Place {
    type Storage: Storage;
    fn storage(&self) -> Self::Storage;
}

struct Simulated(SimStorage);

impl Place for Simulated {
    type Storage = SimStorage;
    fn storage(&self) -> SimStorage {
        self.0.clone()
    }
}

struct Buffered(tempfile::TempDir);

impl Place for Buffered {
    type Storage = Disk;
    fn storage(&self) -> Disk {
        Disk::new(self.0.path(), CommitMethod::Pwritev2)
            .buffered()
            .sub("log-0001-0000")
    }
}

struct Real(tempfile::TempDir, CommitMethod);

impl Place for Real {
    type Storage = Disk;
    fn storage(&self) -> Disk {
        Disk::new(self.0.path(), self.1).sub("log-0001-0000")
    }
}

/// Each promise holds on each storage.
macro_rules! on_every_storage {
    ($($name:ident)*) => {
        mod simulated {
            $(#[test] fn $name() { super::$name(&super::Simulated(super::sim())); })*
        }
        mod uring {
            $(#[test] fn $name() {
                let dir = tempfile::tempdir().unwrap();
                // Where the kernel forbids io_uring there is nothing to test here.
                if syncline_wal::Disk::probe(dir.path()).method() == super::CommitMethod::Uring {
                    super::$name(&super::Real(dir, super::CommitMethod::Uring));
                }
            })*
        }
        mod buffered {
            $(#[test] fn $name() {
                super::$name(&super::Buffered(tempfile::tempdir().unwrap()));
            })*
        }
        mod pwritev2 {
            $(#[test] fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(&super::Real(dir, super::CommitMethod::Pwritev2));
            })*
        }
    };
}

on_every_storage! {
    a_frame_is_durable_once_its_block_is_committed
    frames_read_back_staged_committed_and_from_disk
    everything_appended_is_replayed_after_a_restart
    replay_starts_where_it_is_told
    a_log_goes_on_in_the_same_segment_after_a_restart
    only_one_block_is_out_at_a_time
    frames_appended_during_a_commit_share_the_next
    a_frame_above_the_block_size_gets_its_own_block
    a_frame_above_the_bound_is_refused
    too_much_staged_is_refused_and_outcomes_have_more_room
    a_seal_makes_a_clean_end_and_is_not_repeated
    a_released_segment_is_deleted_and_the_log_opens_without_it
    a_segment_released_ahead_of_others_keeps_its_header
    a_sealed_segment_is_walked_frame_by_frame
    commits_without_sync_are_replayed_when_only_the_process_died
    a_missing_log_is_not_created_unless_asked
    a_log_of_another_shard_is_refused
    segments_tell_their_bounds_and_times
    the_tail_cache_wraps_without_mixing_frames
}

fn open<P: Place>(place: &P) -> Driver<P::Storage> {
    Driver::open(place.storage()).unwrap()
}

fn a_frame_is_durable_once_its_block_is_committed(place: &impl Place) {
    let mut driver = open(place);
    let lsn = driver.append(b"one").unwrap();
    assert!(lsn >= driver.log.durable());
    let block = driver.log.take_block(WALL_MS).unwrap();
    assert!(lsn >= driver.log.durable());
    let committed = driver.writer.commit(block).unwrap();
    let durable = driver.log.on_committed(Ok(committed)).unwrap();
    assert!(lsn < durable);
    assert_eq!(durable, driver.log.durable());
    assert_eq!(durable, driver.log.end());
}

fn frames_read_back_staged_committed_and_from_disk(place: &impl Place) {
    let mut driver = open(place);
    driver.append(b"").unwrap();
    driver.append(b"staged").unwrap();
    driver.assert_reads();
    let block = driver.log.take_block(WALL_MS).unwrap();
    driver.assert_reads();
    let committed = driver.writer.commit(block).unwrap();
    driver.log.on_committed(Ok(committed)).unwrap();
    driver.assert_reads();
    driver.fill_segments(5);
    driver.assert_reads();
}

fn everything_appended_is_replayed_after_a_restart(place: &impl Place) {
    let mut driver = open(place);
    driver.fill_segments(4);
    driver.settle().unwrap();
    let written = driver.entries.clone();
    drop(driver);
    let mut driver = open(place);
    assert_eq!(driver.entries, written);
    assert_eq!(driver.report.torn, None);
    driver.assert_reads();
}

fn replay_starts_where_it_is_told(place: &impl Place) {
    let mut driver = open(place);
    driver.fill_segments(4);
    driver.settle().unwrap();
    let written = driver.entries.clone();
    drop(driver);
    for at in [1, written.len() / 2, written.len() - 1] {
        let from = written[at].0;
        let driver = Driver::open_with(place.storage(), options(), from).unwrap();
        assert_eq!(driver.entries, written[at..]);
    }
    let end = open(place).log.end();
    let driver = Driver::open_with(place.storage(), options(), end).unwrap();
    assert_eq!(driver.entries, []);
    let beyond = Lsn::new(end.get() + 8);
    let error = Driver::open_with(place.storage(), options(), beyond)
        .err()
        .unwrap();
    assert!(
        matches!(error, OpenError::ReplayBeyondEnd { .. }),
        "{error:?}"
    );
}

fn a_log_goes_on_in_the_same_segment_after_a_restart(place: &impl Place) {
    let mut written = Vec::new();
    for round in 0..4 {
        let mut driver = open(place);
        assert_eq!(driver.entries, written);
        driver.append(&payload(round, 300)).unwrap();
        driver.commit_all().unwrap();
        assert_eq!(driver.log.segments().count(), 1);
        written = driver.entries;
    }
}

fn only_one_block_is_out_at_a_time(place: &impl Place) {
    let mut driver = open(place);
    driver.append(b"one").unwrap();
    let block = driver.log.take_block(WALL_MS).unwrap();
    driver.append(b"two").unwrap();
    assert!(driver.log.take_block(WALL_MS).is_none());
    let committed = driver.writer.commit(block).unwrap();
    driver.log.on_committed(Ok(committed)).unwrap();
    assert!(driver.log.take_block(WALL_MS).is_some());
}

fn frames_appended_during_a_commit_share_the_next(place: &impl Place) {
    let mut driver = open(place);
    driver.append(b"one").unwrap();
    let block = driver.log.take_block(WALL_MS).unwrap();
    for n in 0..5 {
        driver.append(&payload(n, 100)).unwrap();
    }
    let committed = driver.writer.commit(block).unwrap();
    driver.log.on_committed(Ok(committed)).unwrap();
    assert!(driver.commit_one().unwrap());
    assert!(!driver.commit_one().unwrap());
    assert_eq!(driver.log.durable(), driver.log.end());
}

fn a_frame_above_the_block_size_gets_its_own_block(place: &impl Place) {
    let mut driver = open(place);
    driver.maintain().unwrap();
    driver.append(b"small").unwrap();
    driver.append(&payload(1, 10_000)).unwrap();
    driver.append(b"small again").unwrap();
    assert!(driver.commit_one().unwrap());
    let block = driver.log.take_block(WALL_MS).unwrap();
    assert_eq!(block.bytes(), 12 * 1024);
    let committed = driver.writer.commit(block).unwrap();
    driver.log.on_committed(Ok(committed)).unwrap();
    driver.commit_all().unwrap();
    driver.assert_reads();
}

fn a_frame_above_the_bound_is_refused(place: &impl Place) {
    let mut driver = open(place);
    let refused = driver.append(&[0; 10_001]);
    assert_eq!(
        refused,
        Err(AppendError::TooLarge {
            payload_bytes: 10_001
        })
    );
    assert_eq!(driver.log.staged_bytes(), 0);
}

fn too_much_staged_is_refused_and_outcomes_have_more_room(place: &impl Place) {
    let mut driver = open(place);
    driver.maintain().unwrap();
    let bytes = payload(0, 2000);
    while driver.append(&bytes).is_ok() {}
    assert_eq!(driver.append(&bytes), Err(AppendError::Full));
    assert!(driver.log.staged_bytes() <= 32 * 1024);
    driver.append_as(Class::Outcome, &bytes).unwrap();
    driver.commit_all().unwrap();
    driver.maintain().unwrap();
    driver.append(&bytes).unwrap();
    driver.commit_all().unwrap();
    driver.assert_reads();
}

fn a_seal_makes_a_clean_end_and_is_not_repeated(place: &impl Place) {
    let mut driver = open(place);
    driver.append(b"one").unwrap();
    driver.commit_all().unwrap();
    driver.log.seal();
    assert!(driver.commit_one().unwrap());
    driver.log.seal();
    assert!(!driver.commit_one().unwrap());
    drop(driver);
    let mut driver = open(place);
    assert!(driver.report.sealed);
    driver.log.seal();
    assert!(!driver.commit_one().unwrap());
    driver.append(b"two").unwrap();
    driver.commit_all().unwrap();
    drop(driver);
    assert!(!open(place).report.sealed);
}

fn a_released_segment_is_deleted_and_the_log_opens_without_it(place: &impl Place) {
    let mut driver = open(place);
    driver.fill_segments(4);
    let segments: Vec<_> = driver.log.segments().collect();
    assert_eq!(
        driver.log.release(segments[3].number),
        Err(ReleaseError::NotSealed(SegmentNumber(4)))
    );
    driver.log.release(segments[0].number).unwrap();
    assert_eq!(
        driver.log.release(segments[0].number),
        Err(ReleaseError::Unknown(SegmentNumber(1)))
    );
    driver.commit_all().unwrap();
    driver.maintain().unwrap();
    assert!(
        !place
            .storage()
            .list()
            .unwrap()
            .contains(&"0000000001.seg".to_owned())
    );
    let gone = driver.entries[0].0;
    assert!(matches!(
        driver.log.read(gone, &mut Vec::new()),
        Err(ReadError::NoFrame { .. })
    ));
    let live: Vec<_> = driver
        .entries
        .iter()
        .filter(|entry| entry.0 >= segments[1].base)
        .cloned()
        .collect();
    drop(driver);

    let error = Driver::open(place.storage()).err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::Corrupt(_) | OpenError::ReplayReleased { .. }
        ),
        "{error:?}"
    );
    let driver = Driver::open_with(place.storage(), options(), segments[1].base).unwrap();
    assert_eq!(driver.entries, live);
}

fn a_segment_released_ahead_of_others_keeps_its_header(place: &impl Place) {
    let mut driver = open(place);
    driver.fill_segments(5);
    driver.log.release(SegmentNumber(2)).unwrap();
    driver.log.release(SegmentNumber(3)).unwrap();
    driver.settle().unwrap();
    let from = driver
        .log
        .segments()
        .find(|segment| segment.number.0 == 4)
        .unwrap()
        .base;
    drop(driver);
    let mut driver = Driver::open_with(place.storage(), options(), from).unwrap();
    assert_eq!(
        driver
            .log
            .segments()
            .map(|segment| segment.number.0)
            .collect::<Vec<_>>(),
        [1, 4, 5]
    );
    driver.log.release(SegmentNumber(1)).unwrap();
    driver.settle().unwrap();
    let names = place.storage().list().unwrap();
    let segments: Vec<_> = names.iter().filter(|name| name.ends_with(".seg")).collect();
    assert_eq!(segments[0], "0000000004.seg");
}

fn a_sealed_segment_is_walked_frame_by_frame(place: &impl Place) {
    let mut driver = open(place);
    driver.fill_segments(3);
    let segments: Vec<_> = driver.log.segments().collect();
    for segment in &segments[..2] {
        let mut scan = driver.log.scan(segment.number).unwrap();
        let mut found = Vec::new();
        while let Some(frame) = scan.next_frame().unwrap() {
            found.push((frame.lsn, frame.kind, frame.payload.to_vec()));
        }
        let expected: Vec<_> = driver
            .entries
            .iter()
            .filter(|entry| (segment.base..segment.end).contains(&entry.0))
            .cloned()
            .collect();
        assert_eq!(found, expected);
    }
    assert!(driver.log.scan(segments[2].number).is_err());
}

fn commits_without_sync_are_replayed_when_only_the_process_died(place: &impl Place) {
    let options = || LogOptions {
        durability: Durability::Os,
        ..options()
    };
    let mut driver = Driver::open_with(place.storage(), options(), Lsn::ZERO).unwrap();
    driver.fill_segments(3);
    let written = driver.entries.clone();
    drop(driver);
    let driver = Driver::open_with(place.storage(), options(), Lsn::ZERO).unwrap();
    assert_eq!(driver.entries, written);
}

fn a_missing_log_is_not_created_unless_asked(place: &impl Place) {
    let existing = LogOptions {
        mode: OpenMode::Existing,
        ..options()
    };
    let error = Driver::open_with(place.storage(), existing, Lsn::ZERO)
        .err()
        .unwrap();
    assert!(matches!(error, OpenError::NoLog { .. }), "{error:?}");
    assert_eq!(place.storage().list().unwrap(), [] as [&str; 0]);
}

fn a_log_of_another_shard_is_refused(place: &impl Place) {
    drop(open(place));
    let other = LogOptions {
        log: syncline_wal::LogId {
            generation: 1,
            shard: 1,
        },
        ..options()
    };
    assert!(Driver::open_with(place.storage(), other, Lsn::ZERO).is_err());
    let other = LogOptions {
        instance: syncline_wal::InstanceId([0; 16]),
        ..options()
    };
    assert!(Driver::open_with(place.storage(), other, Lsn::ZERO).is_err());
}

fn segments_tell_their_bounds_and_times(place: &impl Place) {
    let mut driver = open(place);
    driver.fill_segments(3);
    driver.settle().unwrap();
    let before: Vec<_> = driver.log.segments().collect();
    assert!(
        before
            .iter()
            .all(|segment| segment.first_wall_ms == WALL_MS)
    );
    assert_eq!(before.iter().filter(|segment| segment.sealed).count(), 2);
    let end = driver.log.end();
    drop(driver);
    let driver = Driver::open_with(place.storage(), options(), end).unwrap();
    assert_eq!(driver.log.segments().collect::<Vec<_>>(), before);
}

fn the_tail_cache_wraps_without_mixing_frames(place: &impl Place) {
    static ROUNDS: AtomicU32 = AtomicU32::new(0);
    ROUNDS.fetch_add(1, Ordering::Relaxed);
    let mut driver = open(place);
    for n in 0..400 {
        driver.append(&payload(n, (n * 97) % 3000)).unwrap();
        if n % 3 == 0 {
            driver.commit_one().unwrap();
            driver.maintain().unwrap();
        }
        if n % 50 == 0 {
            driver.assert_reads();
        }
    }
    driver.commit_all().unwrap();
    driver.assert_reads();
}

#[test]
fn a_kind_of_zero_is_a_mistake_of_the_caller() {
    let caught = std::panic::catch_unwind(|| {
        let (mut log, _writer, _report) =
            Log::open(sim(), options(), Lsn::ZERO, |_, _, _| Ok(())).unwrap();
        log.append(Class::Intake, FrameKind(0), &[b"x"])
    });
    assert!(caught.is_err());
}
