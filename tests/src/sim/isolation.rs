//! The same run with one account ill and with all of them well: what the others get done.

use super::options::{Faults, Options};
use super::world::{Outcome, run_one};

/// Of what the others do while all are well, so many percent they do beside an ill one.
const GOODPUT_MIN: usize = 95;
/// Operations that may be under way at the one end and done at the other.
const UNDER_WAY: usize = 2;

/// What ails an account, as its model spells it.
const ILLS: [&str; 5] = ["5xx=1", "reset_before=1", "429=1", "daily=1", "401=1"];

/// What is wrong with the first account until all is healed.
pub(super) fn ill_of(seed: u64) -> &'static str {
    ILLS[(seed % ILLS.len() as u64) as usize]
}

/// Options of a run in which nothing else goes wrong.
pub(super) fn calm(options: Options) -> Options {
    Options {
        faults: Faults::default(),
        commands: 0,
        checkpoints: 0,
        relocations: 0,
        two_way: None,
        pair: true,
        ..options
    }
}

/// Runs both; the outcome is that of the one with the ill account.
pub(super) fn run(options: &Options, print: bool) -> Outcome {
    let with = |ill: bool| Options {
        pair: false,
        ill,
        ..options.clone()
    };
    let (well, mut beside) = (run_one(&with(false), false), run_one(&with(true), print));
    let mut others = options.accounts.iter().skip(1);
    let slowed = others.find_map(|account| {
        let done = |outcome: &Outcome| outcome.ended.get(&account.name).copied().unwrap_or(0);
        let (alone, beside) = (done(&well), done(&beside));
        let is_kept = (beside + UNDER_WAY) * 100 >= alone * GOODPUT_MIN;
        (!is_kept).then(|| {
            format!(
                "I23 {} ended {beside} operations beside an ill account, {alone} while it was well",
                account.name
            )
        })
    });
    beside.broken = slowed.or(well.broken).or(beside.broken);
    beside
}
