//! A data directory belongs to one process and changes its layout at once or not at all.
#![allow(clippy::unwrap_used, reason = "a test")]

use syncline_wal::sim::{SimFaults, SimLoss, SimStorage};
use syncline_wal::{
    CommitMethod, DataDir, DataDirError, Disk, InstanceId, NewDataDir, SUPERBLOCK_FILE, Storage,
};

const NEW: NewDataDir = NewDataDir {
    instance: InstanceId([7; 16]),
    hash_key: [8; 16],
};
const OTHER: NewDataDir = NewDataDir {
    instance: InstanceId([1; 16]),
    hash_key: [2; 16],
};

fn storage() -> SimStorage {
    SimStorage::new().sub("data")
}

fn open(storage: &SimStorage) -> DataDir<SimStorage> {
    DataDir::open(storage.clone(), &OTHER).unwrap()
}

fn error<S: Storage>(result: Result<DataDir<S>, DataDirError>) -> DataDirError {
    result.err().expect("it is refused")
}

/// A directory with one committed layout of two logs, a file in each.
fn with_layout(storage: &SimStorage) {
    let mut dir = DataDir::open(storage.clone(), &NEW).unwrap();
    let staged = dir.stage_layout(2).unwrap();
    for shard in 0..2 {
        let folder = dir.log_folder(staged.layout().log(shard));
        folder.create("some", false).unwrap();
        folder.sync_dir().unwrap();
    }
    dir.commit_layout(staged).unwrap();
    dir.close().unwrap();
}

#[test]
fn the_identity_is_drawn_once_and_runs_are_counted() {
    let storage = storage();
    let dir = DataDir::open(storage.clone(), &NEW).unwrap();
    assert!(dir.opened().created);
    assert_eq!(dir.superblock().run_epoch, 1);
    drop(dir);
    let dir = open(&storage);
    assert!(!dir.opened().created);
    assert_eq!(dir.superblock().instance, NEW.instance);
    assert_eq!(dir.superblock().hash_key, NEW.hash_key);
    assert_eq!(dir.superblock().run_epoch, 2);
}

#[test]
fn a_run_is_clean_only_when_it_was_closed() {
    let storage = storage();
    open(&storage).close().unwrap();
    let dir = open(&storage);
    assert!(dir.opened().was_clean);
    drop(dir);
    assert!(!open(&storage).opened().was_clean);
}

#[test]
fn a_second_process_is_refused_and_touches_nothing() {
    let storage = storage();
    let dir = open(&storage);
    let before = storage.contents(SUPERBLOCK_FILE);
    let refused = error(DataDir::open(storage.clone(), &NEW));
    assert!(matches!(refused, DataDirError::InUse { .. }), "{refused:?}");
    assert_eq!(storage.contents(SUPERBLOCK_FILE), before);
    drop(dir);
    open(&storage);
}

#[test]
fn the_lock_holds_on_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(&folder.path().join("a/b"), CommitMethod::Pwritev2);
    let dir = DataDir::open(disk.clone(), &NEW).unwrap();
    let refused = error(DataDir::open(disk.clone(), &NEW));
    assert!(matches!(refused, DataDirError::InUse { .. }), "{refused:?}");
    drop(dir);
    DataDir::open(disk, &NEW).unwrap();
}

#[test]
fn a_layout_that_was_not_committed_is_cleared_away() {
    let storage = storage();
    with_layout(&storage);
    let mut dir = open(&storage);
    let staged = dir.stage_layout(3).unwrap();
    dir.log_folder(staged.layout().log(2))
        .create("half", false)
        .unwrap();
    drop(dir);
    let dir = open(&storage);
    assert_eq!(dir.layout().unwrap().shards, 2);
    let names = storage.list().unwrap();
    assert_eq!(names, ["log-0001-0000", "log-0001-0001", "superblock"]);
    assert_eq!(
        dir.log_folder(dir.layout().unwrap().log(1)).list().unwrap(),
        ["some"]
    );
}

#[test]
fn a_committed_layout_replaces_the_one_before() {
    let storage = storage();
    with_layout(&storage);
    let mut dir = open(&storage);
    let staged = dir.stage_layout(1).unwrap();
    dir.commit_layout(staged).unwrap();
    dir.clear_other_layouts().unwrap();
    drop(dir);
    let dir = open(&storage);
    assert_eq!(dir.layout().unwrap().generation, 2);
    assert_eq!(storage.list().unwrap(), ["log-0002-0000", "superblock"]);
}

#[test]
fn after_a_crash_at_any_step_one_layout_holds_whole() {
    let mut outcomes = [0; 2];
    for at in 1.. {
        for loss in [
            SimLoss::All,
            SimLoss::Nothing,
            SimLoss::Keep(0x55),
            SimLoss::Keep(0xAA),
        ] {
            let storage = storage();
            with_layout(&storage);
            storage.set_faults(SimFaults {
                crash_at_op: Some(at),
                ..SimFaults::default()
            });
            let change = || -> Result<(), DataDirError> {
                let mut dir = DataDir::open(storage.clone(), &OTHER)?;
                let staged = dir.stage_layout(1)?;
                dir.commit_layout(staged)?;
                dir.clear_other_layouts()?;
                dir.close()
            };
            if change().is_ok() {
                assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
                return;
            }
            storage.crash(loss);
            let dir = open(&storage);
            let layout = dir.layout().unwrap();
            outcomes[usize::from(layout.generation) - 1] += 1;
            if layout.generation == 1 {
                let folder = dir.log_folder(layout.log(1));
                assert_eq!(folder.list().unwrap(), ["some"], "op {at} {loss:?}");
            }
        }
    }
}

#[test]
fn any_flipped_byte_of_the_superblock_leaves_the_layout_and_the_logs() {
    let storage = storage();
    with_layout(&storage);
    open(&storage).close().unwrap();
    for at in 0..8192 {
        let damaged = storage.snapshot();
        assert!(damaged.flip(SUPERBLOCK_FILE, at, 0x04));
        let dir = open(&damaged);
        assert!(dir.opened().slot_damaged);
        assert_eq!(dir.layout().unwrap().shards, 2);
        assert_eq!(dir.superblock().instance, NEW.instance);
    }
}

#[test]
fn a_damaged_or_missing_superblock_is_refused_and_the_logs_stay() {
    let storage = storage();
    with_layout(&storage);
    let both = storage.snapshot();
    both.flip(SUPERBLOCK_FILE, 0, 1);
    both.flip(SUPERBLOCK_FILE, 4096, 1);
    let cut = storage.snapshot();
    cut.overwrite(
        SUPERBLOCK_FILE,
        cut.contents(SUPERBLOCK_FILE).unwrap()[..4096].to_vec(),
    );
    let missing = storage.snapshot();
    missing.remove(SUPERBLOCK_FILE).unwrap();
    for damaged in [both, cut, missing] {
        let before = damaged.contents(SUPERBLOCK_FILE);
        let refused = error(DataDir::open(damaged.clone(), &NEW));
        assert!(
            matches!(refused, DataDirError::Damaged { .. }),
            "{refused:?}"
        );
        assert_eq!(damaged.contents(SUPERBLOCK_FILE), before);
        assert_eq!(damaged.sub("log-0001-0000").list().unwrap(), ["some"]);
    }
}

#[test]
fn a_newer_format_is_refused_unchanged() {
    let storage = storage();
    with_layout(&storage);
    let mut bytes = storage.contents(SUPERBLOCK_FILE).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..4092]).to_le_bytes();
    bytes[4092..4096].copy_from_slice(&crc);
    storage.overwrite(SUPERBLOCK_FILE, bytes.clone());
    let refused = error(DataDir::open(storage.clone(), &NEW));
    assert!(
        matches!(refused, DataDirError::NewerFormat { found: 9, .. }),
        "{refused:?}"
    );
    assert_eq!(storage.contents(SUPERBLOCK_FILE), Some(bytes));
}

#[test]
fn either_slot_alone_tells_a_layout_just_committed() {
    for slot in [0, 4096] {
        let storage = storage();
        with_layout(&storage);
        let mut dir = open(&storage);
        let staged = dir.stage_layout(1).unwrap();
        dir.commit_layout(staged).unwrap();
        drop(dir);
        storage.flip(SUPERBLOCK_FILE, slot, 1);
        let dir = open(&storage);
        assert_eq!(dir.layout().unwrap().generation, 2);
        assert!(
            storage
                .list()
                .unwrap()
                .contains(&"log-0001-0000".to_owned()),
            "nothing cleared"
        );
    }
}
