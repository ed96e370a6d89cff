//! The log beside a plain list of what was appended.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use proptest::prelude::*;
use support::*;
use syncline_wal::sim::{SimLoss, SimStorage};
use syncline_wal::{AppendError, Class, Lsn};

#[derive(Clone, Debug)]
enum Step {
    Append { bytes: usize, outcome: bool },
    Commit,
    Maintain,
    Seal,
    Read(prop::sample::Index),
    ReleaseOldest,
    Reopen,
    PowerCut(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..10_001, any::<bool>()).prop_map(|(bytes, outcome)| Step::Append { bytes, outcome }),
        12 => (0usize..300, any::<bool>()).prop_map(|(bytes, outcome)| Step::Append { bytes, outcome }),
        8 => Just(Step::Commit),
        4 => Just(Step::Maintain),
        2 => Just(Step::Seal),
        6 => any::<prop::sample::Index>().prop_map(Step::Read),
        1 => Just(Step::ReleaseOldest),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::PowerCut),
    ]
}

struct Model {
    storage: SimStorage,
    driver: Option<Driver<SimStorage>>,
    floor: Lsn,
    appended: usize,
}

impl Model {
    fn driver(&mut self) -> &mut Driver<SimStorage> {
        self.driver.as_mut().unwrap()
    }

    fn reopen(&mut self, cut: Option<u64>) {
        let before = self.driver.take().unwrap();
        let durable = before.log.durable();
        drop(before.log);
        match cut {
            Some(seed) => self.storage.crash(SimLoss::Random { seed, keep: 128 }),
            None => self.storage.restart(),
        }
        let after = Driver::open_with(self.storage.clone(), options(), self.floor).unwrap();
        let floor = self.floor;
        let live = || before.entries.iter().filter(|entry| entry.0 >= floor);
        let kept = live().take_while(|entry| entry.0 < durable).count();
        // Nothing was being written: exactly what was committed is there.
        assert_eq!(after.entries.len(), kept);
        assert!(after.entries.iter().eq(live().take(kept)));
        assert!(after.log.durable() >= durable);
        self.driver = Some(after);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append { bytes, outcome } => {
                let payload = payload(self.appended, bytes);
                self.appended += 1;
                let class = if outcome {
                    Class::Outcome
                } else {
                    Class::Intake
                };
                let last = self
                    .driver()
                    .entries
                    .last()
                    .map_or(Lsn::ZERO, |entry| entry.0);
                match self.driver().append_as(class, &payload) {
                    Ok(lsn) => assert!(lsn > last && lsn >= self.driver().log.durable()),
                    Err(error) => assert_eq!(error, AppendError::Full),
                }
            }
            Step::Commit => {
                self.driver().commit_one().unwrap();
            }
            Step::Maintain => self.driver().maintain().unwrap(),
            Step::Seal => {
                self.driver().log.seal();
                self.driver().commit_all().unwrap();
                let driver = self.driver();
                assert_eq!(driver.log.durable(), driver.log.end());
            }
            Step::Read(index) => {
                let floor = self.floor;
                let driver = self.driver();
                let live: Vec<_> = driver
                    .entries
                    .iter()
                    .filter(|entry| entry.0 >= floor)
                    .collect();
                if !live.is_empty() {
                    let (lsn, kind, payload) = live[index.index(live.len())].clone();
                    let mut out = Vec::new();
                    assert_eq!(driver.log.read(lsn, &mut out).unwrap(), kind);
                    assert_eq!(out, payload);
                }
            }
            Step::ReleaseOldest => {
                let segments: Vec<_> = self.driver().log.segments().take(2).collect();
                if segments.len() == 2 && segments[0].sealed {
                    // A segment released before the restart may still be there and go once more.
                    self.floor = self.floor.max(segments[1].base);
                    self.driver().log.release(segments[0].number).unwrap();
                    self.driver().commit_all().unwrap();
                }
            }
            Step::Reopen => self.reopen(None),
            Step::PowerCut(seed) => self.reopen(Some(seed)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_the_list_holds(steps in prop::collection::vec(step(), 1..150)) {
        let storage = sim();
        let driver = Driver::open(storage.clone()).unwrap();
        let mut model = Model { storage, driver: Some(driver), floor: Lsn::ZERO, appended: 0 };
        for step in steps {
            model.take(step);
        }
        model.reopen(None);
    }
}
