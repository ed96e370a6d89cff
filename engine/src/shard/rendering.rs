//! By what an account's calls are rendered, run after run.
//!
//! A call that was under way when the engine stopped goes again under its idempotency key, and must
//! then be the same call. Where the account's definition or mappings are others by then it is not,
//! and takes the next key; so the engine has to know in which runs that began.

use serde::{Deserialize, Serialize};

use crate::id::OperationSeq;

/// Runs kept. An operation that stayed open through more of them may get a key that it had before.
const RUNS_MAX: usize = 1_000;

/// What is kept of an account, on disk before the first call that goes by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rendering {
    /// Of the definition and the mappings that are in force.
    digest: u64,
    /// Others were in force before in the same run.
    mixed: bool,
    /// The runs in which others came into force than those of the runs before, oldest first.
    renewed: Vec<u64>,
}

impl Rendering {
    /// Of an account that nothing is known of.
    #[must_use]
    pub fn new(digest: u64) -> Self {
        Self {
            digest,
            mixed: false,
            renewed: Vec::new(),
        }
    }

    /// A run begins with what has this digest.
    pub fn begin(&mut self, run: u64, digest: u64) {
        if self.digest != digest || self.mixed {
            self.renew(run);
        }
        (self.digest, self.mixed) = (digest, false);
    }

    /// Calls of this run go by what has this digest from here on.
    pub fn change(&mut self, run: u64, digest: u64) {
        if self.digest == digest {
            return;
        }
        // How calls of this run end is heard; those of the runs before may go again now.
        if self.renewed.last() != Some(&run) {
            self.renew(run);
        }
        (self.digest, self.mixed) = (digest, true);
    }

    /// Operations below each of these may have gone out otherwise than they would now, and nobody
    /// knows.
    #[must_use]
    pub fn renewed(&self) -> Vec<OperationSeq> {
        let runs = self.renewed.iter().copied();
        runs.map(OperationSeq::first_of_run).collect()
    }

    fn renew(&mut self, run: u64) {
        self.renewed.push(run);
        let many = self.renewed.len().saturating_sub(RUNS_MAX);
        self.renewed.drain(..many);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_of(runs: &[u64]) -> Vec<OperationSeq> {
        let runs = runs.iter().copied();
        runs.map(OperationSeq::first_of_run).collect()
    }

    #[test]
    fn a_run_that_begins_with_other_mappings_than_were_in_force_is_remembered() {
        let mut rendering = Rendering::new(7);
        for (run, digest, renewed) in [
            (1, 7, &[][..]),
            (2, 7, &[]),
            (3, 8, &[3]),
            (4, 8, &[3]),
            (5, 7, &[3, 5]),
        ] {
            rendering.begin(run, digest);
            assert_eq!(rendering.renewed(), first_of(renewed), "run {run}");
        }
    }

    #[test]
    fn what_changes_while_the_engine_runs_counts_for_the_runs_before_and_for_this_one_at_the_next_start()
     {
        let mut rendering = Rendering::new(7);
        rendering.begin(1, 7);
        rendering.change(1, 7);
        assert_eq!(rendering.renewed(), []);
        rendering.change(1, 8);
        rendering.change(1, 9);
        assert_eq!(rendering.renewed(), first_of(&[1]));
        // Calls of any of them may have been cut off.
        rendering.begin(2, 9);
        assert_eq!(rendering.renewed(), first_of(&[1, 2]));
        rendering.begin(3, 9);
        assert_eq!(rendering.renewed(), first_of(&[1, 2]));
        rendering.change(3, 8);
        rendering.change(3, 9);
        rendering.begin(4, 9);
        assert_eq!(rendering.renewed(), first_of(&[1, 2, 3, 4]));
    }
}
