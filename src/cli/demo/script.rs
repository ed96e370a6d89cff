//! What goes wrong in a demo, and when: drawn from the seed.

use std::time::Duration;

use super::dice::Dice;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scene {
    /// Since the stream began.
    pub(super) at: Duration,
    pub(super) act: Act,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// The engine gets SIGKILL and is started again.
    Kill,
    /// These faults lie over an account's standing ones.
    Faults {
        account: usize,
        length: Duration,
        faults: &'static str,
        told: &'static str,
    },
}

/// What the accounts do all the time.
pub(super) const STANDING_FAULTS: &str = "latency=15ms,jitter=20ms,5xx=0.02,5xx_after=0.01,\
     reset_before=0.01,reset_after=0.01,429=0.002,garbage=0.005,poison=bad-";

/// What they do once the faults are turned off: a refusal for good is no fault of the account.
pub(super) const NO_FAULTS: &str = "latency=15ms,jitter=20ms,5xx=0,5xx_after=0,\
     reset_before=0,reset_after=0,429=0,garbage=0,poison=bad-";

/// Kills, spread over the stream, and three windows of trouble.
pub(super) fn scenes(seed: u64, duration: Duration) -> Vec<Scene> {
    let mut dice = Dice::new(seed ^ 0x5ce4e5);
    let mut part = |from: u32, to: u32| {
        let permille = from + dice.below(u64::from(to - from)) as u32;
        duration * permille / 1_000
    };
    let mut scenes = vec![
        Scene {
            at: part(150, 250),
            act: Act::Kill,
        },
        Scene {
            at: part(300, 360),
            act: Act::Faults {
                account: 0,
                length: (duration / 6).max(Duration::from_secs(3)),
                faults: "5xx=1",
                told: "an outage: every call gets 5xx",
            },
        },
        // While the outage lasts: the engine comes back with a backlog and an open breaker.
        Scene {
            at: part(380, 440),
            act: Act::Kill,
        },
        Scene {
            at: part(600, 660),
            act: Act::Faults {
                account: 1,
                length: Duration::from_secs(1),
                faults: "429=1",
                told: "another client uses up the quota: every call gets 429",
            },
        },
        Scene {
            at: part(700, 740),
            act: Act::Faults {
                account: 0,
                length: duration / 10,
                faults: "reset_after=0.2,reset_before=0.2",
                told: "a flaky network: two of five connections are reset",
            },
        },
        Scene {
            at: part(760, 800),
            act: Act::Kill,
        },
    ];
    scenes.sort_by_key(|scene| scene.at);
    scenes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_one_that_a_simulated_account_knows() {
        for faults in [STANDING_FAULTS, NO_FAULTS] {
            assert!(faults.parse::<mock::FaultSpec>().is_ok(), "{faults}");
            assert!(faults.contains(&format!(
                "poison={}",
                super::super::workload::REFUSED_PREFIX
            )));
        }
        for scene in scenes(1, Duration::from_secs(30)) {
            if let Act::Faults { faults, .. } = scene.act {
                assert!(faults.parse::<mock::FaultSpec>().is_ok(), "{faults}");
            }
        }
    }

    #[test]
    fn all_of_it_happens_while_events_stream() {
        let duration = Duration::from_secs(30);
        for seed in 0..50 {
            let scenes = scenes(seed, duration);
            assert!(scenes.iter().all(|scene| scene.at < duration));
            assert_eq!(
                scenes.iter().filter(|scene| scene.act == Act::Kill).count(),
                3
            );
        }
    }
}
