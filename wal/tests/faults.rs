//! Errors of the disk: final where they must be, healed where they can be.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use support::*;
use syncline_wal::sim::{SimFaults, SimStorage};
use syncline_wal::{
    AppendError, Class, Durability, LogOptions, Lsn, OpenError, Space, WriteFailed,
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

#[test]
fn a_failed_write_poisons_the_log_for_good() {
    for errno in [EIO, ENOSPC, EDQUOT] {
        for nth in 1..12 {
            check_poison(
                &options(),
                SimFaults {
                    fail_write_at: Some((nth, errno)),
                    ..SimFaults::default()
                },
            );
        }
    }
}

#[test]
fn a_failed_sync_poisons_the_log_for_good() {
    let options = LogOptions {
        durability: Durability::Os,
        ..options()
    };
    let mut poisoned = 0;
    for errno in [EIO, ENOSPC, EDQUOT] {
        for nth in 1..8 {
            let faults = SimFaults {
                fail_sync_at: Some((nth, errno)),
                ..SimFaults::default()
            };
            poisoned += usize::from(check_poison(&options, faults));
        }
    }
    assert!(poisoned > 0);
}

/// Works until the fault strikes; nothing is acknowledged after it, and all before is kept.
fn check_poison(options: &LogOptions, faults: SimFaults) -> bool {
    let storage = sim();
    let mut driver = Driver::open_with(storage.clone(), options.clone(), Lsn::ZERO).unwrap();
    driver.maintain().unwrap();
    storage.set_faults(faults.clone());
    let mut failed = false;
    for n in 0..20 {
        if driver.append_as(Class::Outcome, &payload(n, 2500)).is_err() {
            break;
        }
        driver.log.seal();
        // Preparing a spare may fail too; a full disk is no failure there.
        if driver.commit_all().is_err() || driver.maintain().is_err() {
            failed = true;
            break;
        }
    }
    if !failed {
        return false;
    }
    let durable = driver.log.durable();
    assert!(
        matches!(driver.writer.maintain(1 << 20), Err(WriteFailed::Poisoned)),
        "{faults:?}"
    );
    if !driver.log.is_poisoned() {
        // The failure was in maintenance: the log hears of it.
        driver
            .log
            .on_committed(Err(WriteFailed::Poisoned))
            .unwrap_err();
    }
    assert_eq!(driver.append(b"x"), Err(AppendError::Poisoned));
    driver.log.seal();
    assert!(driver.log.take_block(WALL_MS).is_none());
    assert_eq!(driver.log.durable(), durable);
    let written = driver.entries.clone();
    drop(driver);

    storage.restart();
    let driver = Driver::open_with(storage, options.clone(), Lsn::ZERO).unwrap();
    let kept = driver.entries.len();
    assert_eq!(driver.entries, written[..kept], "{faults:?}");
    // Without sync an acknowledgement outlives the process, not an error of the disk.
    if options.durability == Durability::Fsync {
        let acknowledged = written.iter().filter(|entry| entry.0 < durable).count();
        assert!(kept >= acknowledged, "{faults:?}");
    }
    true
}

#[test]
fn a_failed_sync_is_not_believed_although_the_cache_shows_the_bytes() {
    let options = LogOptions {
        durability: Durability::Os,
        ..options()
    };
    let storage = sim();
    let mut driver = Driver::open_with(storage.clone(), options.clone(), Lsn::ZERO).unwrap();
    driver.append(b"sealed").unwrap();
    driver.settle().unwrap();
    driver.append(b"only in the cache").unwrap();
    driver.commit_all().unwrap();
    storage.set_faults(SimFaults {
        fail_sync_at: Some((1, ENOSPC)),
        ..SimFaults::default()
    });
    driver.log.seal();
    driver.commit_all().unwrap_err();
    drop(driver);
    storage.restart();
    // The kernel marked the pages clean: a cached read shows them, the medium never got them.
    let driver = Driver::open_with(storage, options, Lsn::ZERO).unwrap();
    assert_eq!(driver.entries.len(), 1);
}

#[test]
fn a_full_disk_closes_intake_keeps_outcomes_going_and_opens_by_itself() {
    let storage = sim();
    let mut driver = Driver::open(storage.clone()).unwrap();
    driver.maintain().unwrap();
    let full = |segments: u64| SimFaults {
        capacity_bytes: Some(8192 + segments * 32 * 1024 + 100),
        ..SimFaults::default()
    };
    storage.set_faults(full(3));
    let bytes = payload(1, 1000);
    let refused = loop {
        match driver.append(&bytes) {
            Ok(_) => driver.commit_all().unwrap(),
            Err(AppendError::Full) => {}
            Err(error) => break error,
        }
        driver.maintain().unwrap();
    };
    assert_eq!(refused, AppendError::DiskFull);
    assert_eq!(driver.log.space(), Space::IntakeClosed);
    let outcome = driver.append_as(Class::Outcome, b"delivered").unwrap();
    driver.commit_all().unwrap();
    assert!(driver.log.durable() > outcome);
    driver.maintain().unwrap();
    assert_eq!(driver.append(&bytes), Err(AppendError::DiskFull));

    storage.set_faults(full(5));
    driver.maintain().unwrap();
    assert_eq!(driver.log.space(), Space::Open);
    driver.append(&bytes).unwrap();
    driver.commit_all().unwrap();
    driver.assert_reads();
}

#[test]
fn releasing_a_segment_makes_room_on_a_full_disk() {
    let storage = sim();
    let mut driver = Driver::open(storage.clone()).unwrap();
    driver.maintain().unwrap();
    storage.set_faults(SimFaults {
        capacity_bytes: Some(8192 + 3 * 32 * 1024),
        ..SimFaults::default()
    });
    let bytes = payload(1, 1000);
    while driver.append(&bytes) != Err(AppendError::DiskFull) {
        driver.commit_all().unwrap();
        driver.maintain().unwrap();
    }
    let first = driver.log.segments().next().unwrap();
    driver.log.release(first.number).unwrap();
    driver.commit_all().unwrap();
    driver.maintain().unwrap();
    assert_eq!(driver.log.space(), Space::Open);
    driver.append(&bytes).unwrap();
}

#[test]
fn a_disk_that_fills_while_a_spare_is_prepared_harms_nothing() {
    let storage = sim();
    let mut driver = Driver::open(storage.clone()).unwrap();
    storage.set_faults(SimFaults {
        fail_write_at: Some((1, ENOSPC)),
        ..SimFaults::default()
    });
    driver.append(b"before").unwrap();
    driver.maintain().unwrap();
    driver.commit_all().unwrap();
    driver.maintain().unwrap();
    let written = driver.entries.clone();
    drop(driver);
    assert_eq!(Driver::open(storage).unwrap().entries, written);
}

#[test]
fn an_error_while_reading_keeps_the_log_closed_and_is_no_end_of_file() {
    let storage = sim();
    let mut driver = Driver::open(storage.clone()).unwrap();
    driver.fill_segments(3);
    driver.settle().unwrap();
    let written = driver.entries.clone();
    drop(driver);
    for nth in 1.. {
        storage.set_faults(SimFaults {
            fail_read_at: Some((nth, EIO)),
            ..SimFaults::default()
        });
        match Driver::open(storage.clone()) {
            Ok(_) => {
                assert!(storage.counts().reads < nth);
                break;
            }
            Err(error) => assert!(matches!(error, OpenError::Io { .. }), "{error:?}"),
        }
    }
    storage.set_faults(SimFaults::default());
    assert_eq!(Driver::open(storage).unwrap().entries, written);
}

#[test]
fn a_read_error_is_told_and_the_log_goes_on() {
    let storage = sim();
    let mut driver = Driver::open(storage.clone()).unwrap();
    driver.fill_segments(8);
    let oldest = driver.entries[0].0;
    storage.set_faults(SimFaults {
        fail_read_at: Some((1, EIO)),
        ..SimFaults::default()
    });
    let error = driver.log.read(oldest, &mut Vec::new()).unwrap_err();
    assert!(
        matches!(error, syncline_wal::ReadError::Io { .. }),
        "{error:?}"
    );
    driver.assert_reads();
    driver.append(b"x").unwrap();
    driver.commit_all().unwrap();
}

#[test]
fn a_visitor_may_refuse_a_frame_and_nothing_changes() {
    let storage = sim();
    let mut driver = Driver::open(storage.clone()).unwrap();
    driver.append(b"x").unwrap();
    driver.settle().unwrap();
    drop(driver);
    let files = |storage: &SimStorage| {
        let names = syncline_wal::Storage::list(storage).unwrap();
        names
            .into_iter()
            .map(|name| storage.contents(&name))
            .collect::<Vec<_>>()
    };
    let before = files(&storage);
    let refused = syncline_wal::Log::open(storage.clone(), options(), Lsn::ZERO, |_, _, _| {
        Err("unknown kind".into())
    });
    assert!(matches!(refused.err(), Some(OpenError::Visit { .. })));
    assert!(files(&storage) == before);
}
