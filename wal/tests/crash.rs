//! After a crash at any instant the log is a gap-free prefix that holds all that was durable.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use support::*;
use syncline_wal::sim::{SimFaults, SimLoss, SimStorage};
use syncline_wal::{Class, Durability, LogOptions, Lsn, OpenError, SegmentNumber, WriteFailed};

/// What a run had done when it ended.
#[derive(Clone, Default)]
struct Run {
    /// In order; those that were appended and never committed too.
    appended: Vec<Entry>,
    durable: Lsn,
    /// What lives and must be replayed starts here.
    floor: Lsn,
    finished: bool,
}

/// Fills three segments, releases one of them, seals; until the power goes.
fn run(storage: &SimStorage, options: &LogOptions, run: &mut Run) {
    let opened = Driver::open_with(storage.clone(), options.clone(), run.floor);
    let mut driver = match opened {
        Ok(driver) => driver,
        Err(error) => {
            assert!(
                storage.is_crashed(),
                "only a crash keeps a log closed: {error:?}"
            );
            return;
        }
    };
    check_replay(&driver.entries, run, "at the start");
    run.appended = driver.entries.clone();
    let result = work(&mut driver, run);
    run.appended = driver.entries;
    match result {
        Ok(()) => run.finished = true,
        Err(_) => assert!(storage.is_crashed(), "only a crash stops the run"),
    }
}

fn work(driver: &mut Driver<SimStorage>, run: &mut Run) -> Result<(), WriteFailed> {
    let done = |driver: &Driver<SimStorage>, run: &mut Run| run.durable = driver.log.durable();
    for n in 0..9 {
        for part in 0..2 {
            driver
                .append_as(Class::Outcome, &payload(n, 100 + n * 500 + part))
                .unwrap();
        }
        driver.commit_one()?;
        done(driver, run);
        if n % 4 == 1 {
            driver.log.seal();
        }
        driver.commit_all()?;
        done(driver, run);
        driver.maintain()?;
    }
    let oldest: Vec<_> = driver.log.segments().take(2).collect();
    assert!(oldest[0].sealed, "the work fills a segment");
    run.floor = oldest[1].base;
    driver.log.release(oldest[0].number).unwrap();
    driver.log.seal();
    driver.commit_all()?;
    done(driver, run);
    driver.maintain()
}

/// What was replayed is a prefix of what was appended, and all that was durable is in it.
fn check_replay(replayed: &[Entry], run: &Run, what: &str) {
    let live: Vec<&Entry> = run
        .appended
        .iter()
        .filter(|entry| entry.0 >= run.floor)
        .collect();
    let durable = live.iter().filter(|entry| entry.0 < run.durable).count();
    let given: Vec<&Entry> = replayed
        .iter()
        .filter(|entry| entry.0 >= run.floor)
        .collect();
    assert!(
        given.len() >= durable,
        "{what}: {} of {durable} durable frames",
        given.len()
    );
    assert!(
        given.len() <= live.len(),
        "{what}: more frames than were appended"
    );
    for (got, put) in given.iter().zip(&live) {
        assert_eq!(got, put, "{what}");
    }
}

/// Every choice of what survives when there are few pieces, some when there are many.
fn losses(unsynced: usize, seed: u64) -> Vec<SimLoss> {
    if unsynced <= 8 {
        return (0..1 << unsynced).map(SimLoss::Keep).collect();
    }
    let mut losses: Vec<_> = [20, 128, 235]
        .into_iter()
        .flat_map(|keep| {
            (0..5).map(move |n| SimLoss::Random {
                seed: seed * 100 + n + u64::from(keep),
                keep,
            })
        })
        .collect();
    losses.extend([SimLoss::All, SimLoss::Nothing]);
    losses
}

/// A storage whose power went at the given operation of the run; none when the run is shorter.
fn crashed_at(at: u64, options: &LogOptions) -> Option<(SimStorage, Run)> {
    let storage = sim();
    storage.set_faults(SimFaults {
        crash_at_op: Some(at),
        ..SimFaults::default()
    });
    let mut state = Run::default();
    run(&storage, options, &mut state);
    (!state.finished).then_some((storage, state))
}

#[test]
fn a_crash_at_any_operation_loses_nothing_durable() {
    let mut torn = 0;
    let mut states = 0;
    for at in 1.. {
        let Some((storage, state)) = crashed_at(at, &options()) else {
            break;
        };
        for loss in losses(storage.unsynced(), at) {
            let storage = storage.snapshot();
            storage.crash(loss);
            let what = format!("operation {at}, {loss:?}");
            let driver = Driver::open_with(storage.clone(), options(), state.floor)
                .unwrap_or_else(|error| panic!("{what}: {error:?}"));
            check_replay(&driver.entries, &state, &what);
            torn += usize::from(driver.report.torn.is_some());
            let first = driver.entries.clone();
            drop(driver);
            // Opening is idempotent, also when the power goes right after it.
            storage.crash(SimLoss::All);
            let again = Driver::open_with(storage, options(), state.floor).unwrap();
            assert_eq!(again.entries, first, "{what}");
            states += 1;
        }
    }
    assert!(
        torn > 50,
        "torn tails are among the states: {torn} of {states}"
    );
}

#[test]
fn the_log_goes_on_after_any_crash() {
    for at in 1.. {
        let Some((storage, mut state)) = crashed_at(at, &options()) else {
            break;
        };
        storage.crash(SimLoss::Random {
            seed: at,
            keep: 128,
        });
        // The next run checks what it finds, then does all the work again.
        run(&storage, &options(), &mut state);
        assert!(state.finished, "operation {at}");
        let driver = Driver::open_with(storage, options(), state.floor).unwrap();
        check_replay(&driver.entries, &state, "at the end");
        assert!(driver.report.sealed);
    }
}

#[test]
fn a_crash_during_recovery_changes_nothing_about_what_is_recovered() {
    for at in (1..).step_by(3) {
        let Some((storage, state)) = crashed_at(at, &options()) else {
            break;
        };
        storage.crash(SimLoss::Random {
            seed: at,
            keep: 100,
        });
        let reference = Driver::open_with(storage.snapshot(), options(), state.floor).unwrap();
        for inner in 1.. {
            let storage = storage.snapshot();
            storage.set_faults(SimFaults {
                crash_at_op: Some(inner),
                ..SimFaults::default()
            });
            let opened = Driver::open_with(storage.clone(), options(), state.floor);
            if opened.is_ok() {
                break;
            }
            for loss in losses(storage.unsynced().min(9), inner) {
                let storage = storage.snapshot();
                storage.crash(loss);
                let driver = Driver::open_with(storage, options(), state.floor).unwrap();
                assert_eq!(driver.entries, reference.entries, "{at}, {inner}, {loss:?}");
            }
        }
    }
}

#[test]
fn without_sync_a_power_cut_leaves_a_prefix_and_what_was_sealed() {
    let options = LogOptions {
        durability: Durability::Os,
        ..options()
    };
    for at in 1.. {
        let Some((storage, mut state)) = crashed_at(at, &options) else {
            break;
        };
        // Commits do not survive a power cut here, but order does.
        state.durable = Lsn::ZERO;
        for seed in 0..8 {
            let storage = storage.snapshot();
            storage.crash(SimLoss::Random {
                seed: at * 8 + seed,
                keep: 170,
            });
            match Driver::open_with(storage, options.clone(), state.floor) {
                Ok(driver) => check_replay(&driver.entries, &state, "after a power cut"),
                // Replay may start behind what is left.
                Err(OpenError::ReplayBeyondEnd { .. }) => {}
                Err(error) => panic!("operation {at}, seed {seed}: {error:?}"),
            }
        }
    }
}

#[test]
fn without_sync_the_end_of_the_process_loses_nothing() {
    let options = LogOptions {
        durability: Durability::Os,
        ..options()
    };
    for at in 1.. {
        let Some((storage, state)) = crashed_at(at, &options) else {
            break;
        };
        storage.crash(SimLoss::Nothing);
        let driver = Driver::open_with(storage, options.clone(), state.floor).unwrap();
        check_replay(&driver.entries, &state, "after the end of the process");
    }
}

#[test]
fn a_torn_tail_is_cut_reported_and_the_next_segment_tells_where() {
    let storage = sim();
    let mut driver = Driver::open(storage.clone()).unwrap();
    driver.append(b"durable").unwrap();
    driver.commit_all().unwrap();
    driver.maintain().unwrap();
    let end = driver.log.durable();
    driver.append(&payload(1, 3000)).unwrap();
    storage.set_faults(SimFaults {
        crash_at_op: Some(1),
        ..SimFaults::default()
    });
    driver.commit_all().unwrap_err();
    // The first sector with the header, and one in the middle.
    storage.crash(SimLoss::Keep(0b1001));

    let driver = Driver::open(storage.clone()).unwrap();
    let torn = driver.report.torn.clone().unwrap();
    assert_eq!(torn.lsn, end);
    assert_eq!(torn.path.file_name().unwrap(), "0000000001.seg");
    assert_eq!(torn.offset, end.get());
    assert_eq!(driver.entries.len(), 1);
    assert_eq!(driver.log.segments().count(), 2);
    drop(driver);

    // Once cut, it stays cut and is no news.
    let driver = Driver::open(storage).unwrap();
    assert_eq!(driver.report.torn, None);
    assert_eq!(driver.entries.len(), 1);
    assert_eq!(
        driver.log.segments().next_back().unwrap().number,
        SegmentNumber(2)
    );
}

#[test]
fn a_crash_between_a_segments_header_and_the_watermark_is_made_good() {
    let storage = sim();
    let mut driver = Driver::open(storage.clone()).unwrap();
    driver.fill_segments(1);
    driver.maintain().unwrap();
    // Until the next block is the first of segment 2.
    while driver.log.segments().count() == 1 {
        let before = storage.snapshot();
        let entries = driver.entries.clone();
        driver.append_as(Class::Outcome, &payload(1, 3000)).unwrap();
        driver.commit_all().unwrap();
        if driver.log.segments().count() == 2 {
            // The same again, and the power goes after the header (operation 1).
            let mut driver = Driver::open(before.clone()).unwrap();
            assert_eq!(driver.entries, entries);
            driver.append_as(Class::Outcome, &payload(1, 3000)).unwrap();
            before.set_faults(SimFaults {
                crash_at_op: Some(2),
                ..SimFaults::default()
            });
            driver.commit_all().unwrap_err();
            before.crash(SimLoss::All);

            let mut driver = Driver::open(before.clone()).unwrap();
            assert_eq!(driver.entries, entries);
            driver.append_as(Class::Outcome, b"in segment 2").unwrap();
            driver.commit_all().unwrap();
            let floor = driver.log.segments().nth(1).unwrap().base;
            driver.log.release(SegmentNumber(1)).unwrap();
            driver.settle().unwrap();
            drop(driver);
            syncline_wal::Storage::remove(&before, "0000000002.seg").unwrap();
            let error = Driver::open_with(before, options(), floor).err().unwrap();
            assert!(matches!(error, OpenError::Corrupt(_)), "{error:?}");
            return;
        }
    }
    panic!("the first segment never filled");
}

#[test]
fn runs_are_the_same_for_the_same_choices() {
    let trace = |at| {
        let (storage, _) = crashed_at(at, &options()).unwrap();
        storage.crash(SimLoss::Random { seed: at, keep: 99 });
        let names = syncline_wal::Storage::list(&storage).unwrap();
        names
            .into_iter()
            .map(|name| (storage.contents(&name), name))
            .collect::<Vec<_>>()
    };
    for at in [5, 20, 40] {
        assert_eq!(trace(at), trace(at));
    }
}
