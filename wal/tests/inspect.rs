//! A look into a data directory tells what is there and changes nothing.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use support::*;
use syncline_wal::checkpoint::CheckpointWriter;
use syncline_wal::inspect::{InspectError, dump, stat, verify};
use syncline_wal::sim::{SimFaults, SimLoss, SimStorage};
use syncline_wal::{DataDir, LogOptions, Lsn, NewDataDir, SUPERBLOCK_FILE, SegmentNumber, Storage};

/// A data directory of two sealed logs, the first with a released segment and a checkpoint.
fn data() -> (SimStorage, Vec<Entry>) {
    let storage = SimStorage::new().sub("data");
    let new = NewDataDir {
        instance: INSTANCE,
        hash_key: [1; 16],
    };
    let mut dir = DataDir::open(storage.clone(), &new).unwrap();
    let staged = dir.stage_layout(2).unwrap();
    let mut entries = Vec::new();
    for shard in 0..2 {
        let log = staged.layout().log(shard);
        let folder = dir.log_folder(log);
        let options = LogOptions { log, ..options() };
        let mut driver = Driver::open_with(folder.clone(), options, Lsn::ZERO).unwrap();
        driver.fill_segments(4);
        if shard == 0 {
            let writer =
                CheckpointWriter::create(folder, log, INSTANCE, driver.log.durable(), WALL_MS);
            writer.unwrap().finish().unwrap();
            driver.log.release(SegmentNumber(2)).unwrap();
        }
        driver.settle().unwrap();
        if shard == 0 {
            let released = 32 * 1024..64 * 1024;
            entries = driver.entries.clone();
            entries.retain(|entry| !released.contains(&entry.0.get()));
        }
    }
    dir.commit_layout(staged).unwrap();
    dir.close().unwrap();
    (storage, entries)
}

#[test]
fn stat_lists_logs_and_segments() {
    let (storage, _) = data();
    storage.sub("log-0007-0000").create_dir().unwrap();
    let found = stat(&storage).unwrap();
    assert_eq!(found.superblock.unwrap().instance, INSTANCE);
    assert_eq!(
        found.logs.iter().map(|log| log.in_use).collect::<Vec<_>>(),
        [true, true, false]
    );
    let log = &found.logs[0];
    assert!(log.watermark.is_some());
    let released: Vec<_> = log
        .segments
        .iter()
        .map(|segment| segment.released)
        .collect();
    assert_eq!(released, [false, true, false, false, false]);
    assert_eq!(log.segments[1].file_bytes, 4096);
    assert_eq!(log.segments[2].head.unwrap().number, SegmentNumber(3));
    assert!(log.segments[4].head.is_err(), "a spare has no header");
}

#[test]
fn verify_finds_a_sound_directory_sound() {
    let (storage, entries) = data();
    let verdicts = verify(&storage).unwrap();
    assert_eq!(verdicts.len(), 2);
    for verdict in &verdicts {
        assert!(verdict.is_sound() && verdict.sealed, "{verdict:?}");
    }
    assert_eq!(verdicts[0].frames, entries.len() as u64);
    assert_eq!(verdicts[0].checkpoints.len(), 1);
}

#[test]
fn verify_lists_the_damage_of_every_segment() {
    let (storage, _) = data();
    let folder = storage.sub("log-0001-0000");
    folder.flip("0000000001.seg", 5000, 1);
    folder.flip("0000000003.seg", 5000, 1);
    folder.flip("0000000001.ckpt", 20, 1);
    let verdicts = verify(&storage).unwrap();
    let files: Vec<_> = verdicts[0]
        .damage
        .iter()
        .map(|damage| damage.path.file_name().unwrap())
        .collect();
    assert_eq!(files, ["0000000001.seg", "0000000003.seg"]);
    assert!(verdicts[0].checkpoints[0].1.is_err());
    assert!(verdicts[1].is_sound());
}

#[test]
fn a_torn_tail_is_told_and_left_in_place() {
    let (storage, _) = data();
    let folder = storage.sub("log-0001-0001");
    let options = LogOptions {
        log: syncline_wal::LogId {
            generation: 1,
            shard: 1,
        },
        ..options()
    };
    let mut driver = Driver::open_with(folder.clone(), options, Lsn::ZERO).unwrap();
    driver.append(&payload(1, 2000)).unwrap();
    storage.set_faults(SimFaults {
        crash_at_op: Some(1),
        ..SimFaults::default()
    });
    driver.commit_all().unwrap_err();
    // The cut of the released segment, and the first sector of the block.
    storage.crash(SimLoss::Keep(0b11));
    for _ in 0..2 {
        let verdict = verify(&storage).unwrap().swap_remove(1);
        assert!(verdict.is_sound());
        assert!(verdict.torn.is_some() && !verdict.sealed, "{verdict:?}");
    }
}

#[test]
fn dump_shows_the_live_frames_from_a_position_on() {
    let (storage, entries) = data();
    let log = syncline_wal::LogId {
        generation: 1,
        shard: 0,
    };
    for from in [0, entries.len() / 2] {
        let mut shown = Vec::new();
        let position = if from == 0 {
            Lsn::ZERO
        } else {
            entries[from].0
        };
        dump(&storage, log, position, |lsn, kind, bytes| {
            shown.push((lsn, kind, bytes.to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(shown, entries[from..]);
    }
}

#[test]
fn nothing_is_changed_by_looking() {
    let (storage, _) = data();
    storage.set_faults(SimFaults::default());
    let unsynced = storage.unsynced();
    stat(&storage).unwrap();
    verify(&storage).unwrap();
    assert_eq!(storage.counts().writes, 0);
    assert_eq!(storage.unsynced(), unsynced);
}

#[test]
fn without_a_superblock_there_is_nothing_to_verify() {
    let (storage, _) = data();
    storage.remove(SUPERBLOCK_FILE).unwrap();
    assert!(matches!(
        verify(&storage),
        Err(InspectError::NoSuperblock { .. })
    ));
    assert!(stat(&storage).unwrap().superblock.is_none());
}
