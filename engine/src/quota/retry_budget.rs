//! How many of an account's calls may be retries while first attempts wait.

/// First attempts that earn one retry: one call in ten.
const FIRSTS_PER_RETRY: i64 = 9;
/// Retries that may be saved up: a batch of failures is not spread over minutes, and what a
/// quiet hour earned is not spent at once on a provider that is just failing.
const SAVED_MAX: i64 = 10;

/// Lets retries take a tenth of the calls while first attempts wait, and all when none do.
///
/// In any run of calls made while first attempts waited, retries are at most a tenth, and
/// ten that were saved up before. What a call carries many of is counted one by one. Ask before each
/// operation is taken out; tell it of each call. What is looked at and not called earns nothing.
#[derive(Debug, Default, Clone)]
pub struct RetryBudget {
    /// In first attempts, up to `SAVED_MAX` times `FIRSTS_PER_RETRY`. Below zero, first attempts
    /// that earned a retry did not leave after it had gone.
    saved: i64,
}

/// What the operations of a call count for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// Those that were never called before.
    pub firsts: u32,
    /// Retries taken while first attempts waited. One that nobody waited behind costs nothing.
    pub retries: u32,
}

impl Attempts {
    /// One operation, taken while first attempts waited or not.
    #[must_use]
    pub fn one(retry: bool, first_attempts_wait: bool) -> Self {
        Self {
            firsts: u32::from(!retry),
            retries: u32::from(retry && first_attempts_wait),
        }
    }

    /// These as well.
    pub fn join(&mut self, others: Self) {
        self.firsts += others.firsts;
        self.retries += others.retries;
    }

    fn earned(self) -> i64 {
        i64::from(self.firsts) - i64::from(self.retries) * FIRSTS_PER_RETRY
    }
}

impl RetryBudget {
    /// Whether the next operation may be a retry, when so many of the call being filled are.
    #[must_use]
    pub fn allows_retry(&self, first_attempts_wait: bool, taken: u32) -> bool {
        !first_attempts_wait || self.saved >= FIRSTS_PER_RETRY * (i64::from(taken) + 1)
    }

    /// A call is on its way.
    pub fn on_call(&mut self, carries: Attempts) {
        self.saved = (self.saved + carries.earned()).min(SAVED_MAX * FIRSTS_PER_RETRY);
    }

    /// It did not leave after all.
    pub fn on_call_taken_back(&mut self, carried: Attempts) {
        self.saved = (self.saved - carried.earned()).min(SAVED_MAX * FIRSTS_PER_RETRY);
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
            let retry = budget.allows_retry(firsts_wait, 0);
            budget.on_call(Attempts::one(retry, firsts_wait));
            retries += usize::from(retry);
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

    #[test]
    fn a_call_of_many_takes_no_more_retries_than_are_saved() {
        let mut budget = RetryBudget::default();
        budget.on_call(Attempts {
            firsts: 27,
            retries: 0,
        });
        assert!(budget.allows_retry(true, 2));
        assert!(!budget.allows_retry(true, 3));
    }

    #[test]
    fn calls_that_do_not_leave_earn_nothing_and_cost_nothing() {
        let mut budget = RetryBudget::default();
        let first = Attempts::one(false, true);
        for _ in 0..100 {
            budget.on_call(first);
            budget.on_call_taken_back(first);
        }
        assert!(!budget.allows_retry(true, 0));
        assert_eq!(calls(&mut budget, 9, true), 0);
        let retry = Attempts::one(true, true);
        budget.on_call(retry);
        budget.on_call_taken_back(retry);
        assert!(budget.allows_retry(true, 0));
        // Spent before what earned it came back: it is owed.
        budget.on_call(retry);
        (0..5).for_each(|_| budget.on_call_taken_back(first));
        assert_eq!(calls(&mut budget, 14, true), 0);
        assert!(budget.allows_retry(true, 0));
    }

    proptest! {
        #[test]
        fn no_run_of_calls_holds_more_retries_than_a_tenth_and_what_was_saved(
            wishes in proptest::collection::vec(any::<bool>(), 1..400),
            quiet in 0..300_u32,
        ) {
            let mut budget = RetryBudget::default();
            for _ in 0..quiet {
                budget.on_call(Attempts::one(false, true));
            }
            let mut retries = Vec::new();
            for wants_retry in wishes {
                let retry = wants_retry && budget.allows_retry(true, 0);
                budget.on_call(Attempts::one(retry, true));
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
