//! A checkpoint counts whole or not at all, and the one before it stays.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use support::*;
use syncline_wal::checkpoint::{
    CheckpointError, CheckpointVisit, CheckpointWriter, Finished, Loaded, SECTION_BYTES_MAX,
    load_newest, set_aside, verify,
};
use syncline_wal::sim::{SimFaults, SimLoss, SimStorage};
use syncline_wal::{CommitMethod, Disk, Lsn, Storage, VisitError};

/// The sections as they came.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sections(Vec<(u16, Vec<u8>)>);

impl CheckpointVisit for Sections {
    fn section(&mut self, kind: u16, bytes: &[u8]) -> Result<(), VisitError> {
        if kind == 666 {
            return Err("no such section".into());
        }
        self.0.push((kind, bytes.to_vec()));
        Ok(())
    }
}

fn write<S: Storage>(
    storage: &S,
    covers: u64,
    sections: &[(u16, &[u8])],
) -> Result<Finished, CheckpointError> {
    let mut writer =
        CheckpointWriter::create(storage.clone(), LOG, INSTANCE, Lsn::new(covers), WALL_MS)?;
    for (kind, bytes) in sections {
        writer.section(*kind, &[bytes])?;
    }
    writer.finish()
}

fn load<S: Storage>(storage: &S) -> Result<Loaded<Sections>, CheckpointError> {
    load_newest(storage, LOG, INSTANCE, Sections::default)
}

fn covers<S: Storage>(storage: &S) -> Option<u64> {
    load(storage)
        .unwrap()
        .checkpoint
        .map(|(head, _)| head.covers.get())
}

fn storage() -> SimStorage {
    SimStorage::new()
}

#[test]
fn sections_come_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), CommitMethod::Pwritev2);
    let large = payload(3, SECTION_BYTES_MAX);
    let sections: [(u16, &[u8]); 5] = [(1, b"one"), (2, b""), (1, &large), (9, &large), (3, b"x")];
    write(&disk, 4096, &sections).unwrap();
    let (head, found) = load(&disk).unwrap().checkpoint.unwrap();
    assert_eq!(
        (head.number, head.covers, head.wall_ms),
        (1, Lsn::new(4096), WALL_MS)
    );
    let expected: Vec<_> = sections
        .iter()
        .map(|(kind, bytes)| (*kind, bytes.to_vec()))
        .collect();
    assert_eq!(found.0, expected);
}

#[test]
fn the_bytes_of_a_checkpoint_are_fixed() {
    let storage = storage();
    write(&storage, 0x1000, &[(5, b"hello")]).unwrap();
    let bytes = storage.contents("0000000001.ckpt").unwrap();
    let mut expected = b"SYNCLCKP".to_vec();
    expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 1, 0]);
    expected.extend_from_slice(b"instance-of-test");
    for word in [1, 0x1000, WALL_MS] {
        expected.extend_from_slice(&word.to_le_bytes());
    }
    expected.extend_from_slice(&[0; 4]);
    expected.extend_from_slice(&HEADER_CRC);
    expected.extend_from_slice(&[5, 0, 0, 0, 5, 0, 0, 0]);
    expected.extend_from_slice(&SECTION_CRC);
    expected.extend_from_slice(b"hello");
    expected.extend_from_slice(&[0xFF, 0xFF, 0, 0, 16, 0, 0, 0]);
    expected.extend_from_slice(&FOOTER_CRC);
    expected.extend_from_slice(&1u64.to_le_bytes());
    expected.extend_from_slice(&109u64.to_le_bytes());
    assert_eq!(bytes, expected);
}

// Computed by another implementation of CRC-32C from the table in the design page.
const HEADER_CRC: [u8; 4] = [138, 7, 239, 246];
const SECTION_CRC: [u8; 4] = [189, 249, 230, 246];
const FOOTER_CRC: [u8; 4] = [17, 124, 230, 218];

#[test]
fn two_generations_are_kept_and_the_log_behind_the_older() {
    let storage = storage();
    for (round, keep_from) in [(1, 8), (2, 8), (3, 16), (4, 24)] {
        let finished = write(&storage, round * 8, &[(1, b"x")]).unwrap();
        assert_eq!(finished.keep_from, Lsn::new(keep_from));
    }
    assert_eq!(
        storage.list().unwrap(),
        ["0000000003.ckpt", "0000000004.ckpt"]
    );
    assert_eq!(covers(&storage), Some(32));
}

#[test]
fn an_unfinished_checkpoint_does_not_count_and_is_cleared_by_the_next() {
    let storage = storage();
    write(&storage, 8, &[]).unwrap();
    let create = || CheckpointWriter::create(storage.clone(), LOG, INSTANCE, Lsn::new(16), 0);
    drop(create().unwrap());
    assert_eq!(covers(&storage), Some(8));
    create().unwrap().finish().unwrap();
    assert_eq!(
        storage.list().unwrap(),
        ["0000000001.ckpt", "0000000002.ckpt"]
    );
}

#[test]
fn a_section_above_the_bound_is_refused() {
    let mut writer = CheckpointWriter::create(storage(), LOG, INSTANCE, Lsn::new(8), 0).unwrap();
    let large = vec![0; SECTION_BYTES_MAX];
    assert!(matches!(
        writer.section(1, &[&large, b"x"]),
        Err(CheckpointError::Section { .. })
    ));
    assert!(matches!(
        writer.section(u16::MAX, &[]),
        Err(CheckpointError::Section { .. })
    ));
}

#[test]
fn every_flip_and_every_cut_of_the_newest_falls_back_a_generation() {
    let storage = storage();
    write(&storage, 8, &[(1, b"old")]).unwrap();
    write(
        &storage,
        16,
        &[(1, b"new"), (2, &payload(1, 300)), (1, b"new")],
    )
    .unwrap();
    let name = "0000000002.ckpt";
    let bytes = storage.contents(name).unwrap();
    let check = |damaged: Vec<u8>, what: String| {
        let copy = storage.snapshot();
        copy.overwrite(name, damaged);
        let loaded = load(&copy).unwrap();
        assert_eq!(loaded.damaged.len(), 1, "{what}");
        let (head, sections) = loaded.checkpoint.unwrap();
        assert_eq!(head.covers, Lsn::new(8), "{what}");
        assert_eq!(sections.0, [(1, b"old".to_vec())], "{what}");
    };
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(damaged, format!("bit {bit}"));
    }
    for cut in 0..bytes.len() {
        check(bytes[..cut].to_vec(), format!("cut at {cut}"));
    }
    check([bytes.as_slice(), b"x"].concat(), "a byte more".to_owned());
    // The two sections of the same bytes, each at the other's place, and one left out.
    let old = storage.contents("0000000001.ckpt").unwrap();
    check(old, "the older one under the name of the newer".to_owned());
}

#[test]
fn a_refused_section_falls_back_and_without_another_it_is_an_error() {
    let storage = storage();
    write(&storage, 8, &[(666, b"")]).unwrap();
    assert!(matches!(
        load(&storage),
        Err(CheckpointError::NoneValid { .. })
    ));
    write(&storage, 16, &[(1, b"good")]).unwrap();
    write(&storage, 24, &[(666, b"")]).unwrap();
    let loaded = load(&storage).unwrap();
    assert_eq!(loaded.damaged.len(), 1);
    assert_eq!(loaded.checkpoint.unwrap().0.covers, Lsn::new(16));
}

#[test]
fn a_damaged_checkpoint_set_aside_does_not_push_out_the_one_that_was_used() {
    let storage = storage();
    write(&storage, 8, &[(1, b"good")]).unwrap();
    write(&storage, 16, &[(1, b"damaged")]).unwrap();
    storage.flip("0000000002.ckpt", 80, 1);
    let loaded = load(&storage).unwrap();
    set_aside(&storage, &loaded.damaged).unwrap();
    assert_eq!(
        storage.list().unwrap(),
        ["0000000001.ckpt", "0000000002.ckpt.damaged"]
    );
    let finished = write(&storage, 24, &[(1, b"next")]).unwrap();
    assert_eq!(finished.keep_from, Lsn::new(8));
    storage.flip("0000000002.ckpt", 80, 1);
    assert_eq!(covers(&storage), Some(8));
}

#[test]
fn the_checkpoint_of_another_log_does_not_count() {
    let storage = storage();
    write(&storage, 8, &[]).unwrap();
    let other = syncline_wal::LogId {
        generation: 1,
        shard: 9,
    };
    let loaded = load_newest(&storage, other, INSTANCE, Sections::default);
    assert!(matches!(loaded, Err(CheckpointError::NoneValid { .. })));
    assert!(load(&SimStorage::new()).unwrap().checkpoint.is_none());
}

#[test]
fn a_newer_format_is_refused_not_passed_over() {
    let storage = storage();
    write(&storage, 8, &[]).unwrap();
    write(&storage, 16, &[]).unwrap();
    let mut bytes = storage.contents("0000000002.ckpt").unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    storage.overwrite("0000000002.ckpt", bytes);
    assert!(matches!(
        load(&storage),
        Err(CheckpointError::NewerFormat { found: 2, .. })
    ));
}

#[test]
fn verify_tells_of_each_generation() {
    let storage = storage();
    write(&storage, 8, &[(1, b"x")]).unwrap();
    write(&storage, 16, &[(1, b"x")]).unwrap();
    storage.flip("0000000001.ckpt", 70, 1);
    let verdicts = verify(&storage).unwrap();
    assert!(verdicts[0].1.is_ok());
    assert!(verdicts[1].1.is_err());
}

#[test]
fn after_a_crash_at_any_step_the_old_or_the_new_one_loads_whole() {
    let mut newest = 0;
    for at in 1.. {
        for loss in (0..16).map(SimLoss::Keep).chain([SimLoss::Nothing]) {
            let storage = storage();
            write(&storage, 8, &[(1, b"first")]).unwrap();
            write(&storage, 16, &[(1, &payload(1, 900))]).unwrap();
            storage.set_faults(SimFaults {
                crash_at_op: Some(at),
                ..SimFaults::default()
            });
            if write(&storage, 24, &[(1, &payload(2, 900))]).is_ok() {
                assert!(newest > 0, "a crash behind the rename is among them");
                return;
            }
            storage.crash(loss);
            let loaded = load(&storage).unwrap();
            assert_eq!(loaded.damaged.len(), 0, "op {at} {loss:?}");
            let (head, sections) = loaded.checkpoint.unwrap();
            let round = head.covers.get() / 8 - 1;
            assert!(round == 1 || round == 2, "op {at} {loss:?}");
            assert_eq!(sections.0, [(1, payload(round as usize, 900))]);
            newest += round - 1;
        }
    }
}

#[test]
fn a_failed_write_or_sync_leaves_the_ones_before() {
    for nth in 1..4 {
        for faults in [
            SimFaults {
                fail_write_at: Some((nth, 28)),
                ..SimFaults::default()
            },
            SimFaults {
                fail_sync_at: Some((nth, 5)),
                ..SimFaults::default()
            },
        ] {
            let storage = storage();
            write(&storage, 8, &[(1, b"first")]).unwrap();
            storage.set_faults(faults.clone());
            let large = payload(1, 600_000);
            if write(&storage, 16, &[(1, &large), (2, &large), (3, &large)]).is_ok() {
                continue;
            }
            storage.restart();
            let found = covers(&storage);
            assert!(found == Some(8) || found == Some(16), "{faults:?}");
        }
    }
}
