//! How many of an account's calls may be retries while first attempts wait.

/// First attempts that earn one retry: one call in ten.
const FIRSTS_PER_RETRY: u32 = 9;
/// Retries that may be saved up: a batch of failures is not spread over minutes, and what a
/// quiet hour earned is not spent at once on a provider that is just failing.
const SAVED_MAX: u32 = 10;

/// Lets retries take a tenth of the calls while first attempts wait, and all when none do.
///
/// In any run of calls made while first attempts waited, retries are at most a tenth, and
/// ten that were saved up before. Ask before each call; tell it of each call.
#[derive(Debug, Default, Clone)]
pub struct RetryBudget {
    /// In first attempts, up to `SAVED_MAX` times `FIRSTS_PER_RETRY`.
    saved: u32,
}

impl RetryBudget {
    /// Whether the next call may be a retry.
    #[must_use]
    pub fn allows_retry(&self, first_attempts_wait: bool) -> bool {
        !first_attempts_wait || self.saved >= FIRSTS_PER_RETRY
    }

    /// A first attempt was called.
    pub fn on_first_attempt(&mut self) {
        self.saved = (self.saved + 1).min(SAVED_MAX * FIRSTS_PER_RETRY);
    }

    /// A retry was called. One that nobody waited behind costs nothing.
    pub fn on_retry(&mut self, first_attempts_wait: bool) {
        if first_attempts_wait {
            self.saved = self.saved.saturating_sub(FIRSTS_PER_RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Calls as dispatch would make them: retries whenever they are allowed.
    fn calls(budget: &mut RetryBudget, count: usize, firsts_wait: bool) -> usize {
        let mut retries = 0;
        for _ in 0..count {
            if budget.allows_retry(firsts_wait) {
                budget.on_retry(firsts_wait);
                retries += 1;
            } else {
                budget.on_first_attempt();
            }
        }
        retries
    }

    #[test]
    fn retries_take_a_tenth_while_first_attempts_wait() {
        let mut budget = RetryBudget::default();
        assert_eq!(calls(&mut budget, 1000, true), 100);
        assert_eq!(calls(&mut budget, 9, true), 0);
    }

    #[test]
    fn when_only_retries_wait_they_take_all() {
        let mut budget = RetryBudget::default();
        assert_eq!(calls(&mut budget, 50, false), 50);
        assert_eq!(calls(&mut budget, 100, true), 10, "and owe nothing for it");
    }

    proptest! {
        #[test]
        fn no_run_of_calls_holds_more_retries_than_a_tenth_and_what_was_saved(
            wishes in proptest::collection::vec(any::<bool>(), 1..400),
            quiet in 0..300_u32,
        ) {
            let mut budget = RetryBudget::default();
            for _ in 0..quiet {
                budget.on_first_attempt();
            }
            let mut retries = Vec::new();
            for wants_retry in wishes {
                let retry = wants_retry && budget.allows_retry(true);
                if retry {
                    budget.on_retry(true);
                } else {
                    budget.on_first_attempt();
                }
                retries.push(retry);
            }
            for from in 0..retries.len() {
                for to in from..retries.len() {
                    let run = &retries[from..=to];
                    let count = run.iter().filter(|retry| **retry).count();
                    prop_assert!(count <= run.len() / 10 + SAVED_MAX as usize);
                }
            }
        }
    }
}
