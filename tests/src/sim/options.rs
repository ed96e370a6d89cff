//! What a seed makes of the world: sizes, limits, and which faults may strike.

use std::time::Duration;

use super::dice::Dice;
use super::isolation;
use super::mutants::Mutant;
use super::sets::SetsOptions;
use super::sets::mapping::MappingSet;
use super::two_way::options::{Policy, TwoWayOptions};

/// Runs one way out of a thousand in which fields are mapped and rules decide.
const SETS: u32 = 667;

/// Of those in which changes come back.
const MAPPED_BACK: u32 = 333;
/// Runs out of a thousand that go both ways with deletes, in which accounts mark what is deleted.
const MARKED: u32 = 400;

/// Everything that is decided before the first event, all of it from the seed.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed itself.
    pub seed: u64,
    /// A bug planted on purpose.
    pub mutant: Option<Mutant>,
    /// Shards of the first run.
    pub shards: u16,
    /// Provider accounts.
    pub accounts: Vec<AccountOptions>,
    /// Clients that stream events.
    pub producers: usize,
    /// Events each of them sends.
    pub events: u64,
    /// Record ids in use: few, so that records are busy.
    pub records: u64,
    /// Time over which the clients send, and faults strike.
    pub busy: Duration,
    /// Percentage of events that go to every account.
    pub fan_out: u32,
    /// Commands an operator gives.
    pub commands: u32,
    /// Checkpoints taken.
    pub checkpoints: u32,
    /// Compactions begun.
    pub relocations: u32,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Changes come back, and how.
    pub two_way: Option<TwoWayOptions>,
    /// Fields are mapped, and rules decide.
    pub sets: Option<SetsOptions>,
    /// Fields are mapped where changes come back.
    pub mapped_back: Option<MappingSet>,
    /// Run twice, with the first account ill and without, and compared.
    pub pair: bool,
    /// The first account fails until all is healed.
    pub ill: bool,
}

/// One simulated account.
#[derive(Debug, Clone)]
pub struct AccountOptions {
    /// Its name.
    pub name: String,
    /// It is System A, which is told what the accounts changed.
    pub system_a: bool,
    /// `n` calls in any window of so many ms.
    pub limits: Vec<(u32, u64)>,
    /// Windows that begin at a time of day.
    pub fixed: Option<FixedWindow>,
    /// Calls that come back one by one.
    pub bucket: Option<Bucket>,
    /// Calls open at a time.
    pub max_in_flight: u32,
    /// Time-out of a call.
    pub timeout: Duration,
    /// Latency of every answer, ms, and its jitter.
    pub latency_ms: (u64, u64),
    /// Attempts before an operation fails.
    pub max_attempts: u16,
    /// Its clock against ours, in millionths.
    pub skew_ppm: i32,
    /// Waiting changes of a record share a call.
    pub fold: bool,
    /// Records in a call at most.
    pub batch_max: usize,
}

/// So many calls from one multiple of a window to the next, on the account's own wall clock.
#[derive(Debug, Clone, Copy)]
pub struct FixedWindow {
    /// Calls in it.
    pub limit: u32,
    /// Its length.
    pub window_ms: u64,
    /// What its zone is before UTC, in seconds.
    pub zone_s: i32,
    /// What its clock is before a right one, in ms.
    pub ahead_ms: i64,
}

/// Up to so many calls at once, and so many more in each period.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// What it holds.
    pub burst: u32,
    /// Calls that come back in a period, evenly.
    pub refill: u32,
    /// The period.
    pub period_ms: u64,
}

/// Chances are per thousand, counts are of the whole run; 0 is off.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The process dies; the cache of the disk stays.
    pub kills: u32,
    /// The power goes.
    pub power_cuts: u32,
    /// Of all crashes, those in the middle of a disk operation.
    pub cut_in_write: u32,
    /// Crashes while recovering.
    pub crash_in_recovery: u32,
    /// Failed writes and syncs.
    pub failed_writes: u32,
    /// Times at which the disk is full for a while.
    pub disk_full: u32,
    /// Reads of the log that fail.
    pub failed_reads: u32,
    /// Bits flipped at rest; the run ends when the damage is detected.
    pub bit_flips: u32,
    /// The newest checkpoint is gone at a restart.
    pub lost_checkpoints: u32,
    /// Steps of the wall clock.
    pub clock_steps: u32,
    /// A shard stands still for up to ten seconds.
    pub stalls: u32,
    /// A commit takes up to three seconds.
    pub slow_commits: u32,
    /// Windows of trouble at a provider.
    pub outages: u32,
    /// Refused connections.
    pub refused: u32,
    /// Requests that never arrive.
    pub lost_requests: u32,
    /// Answers that never arrive.
    pub lost_answers: u32,
    /// Resets before the call is applied.
    pub reset_before: u32,
    /// Resets after it.
    pub reset_after: u32,
    /// 5xx, nothing applied.
    pub server_error: u32,
    /// 5xx after the call was applied.
    pub server_error_after: u32,
    /// 429 without cause.
    pub throttled: u32,
    /// 429, since the day's calls are spent.
    pub day_spent: u32,
    /// 401.
    pub unauthorized: u32,
    /// A page of HTML.
    pub garbage: u32,
    /// Answers that take seconds.
    pub slow: u32,
    /// Records of a batch: applied and not told of.
    pub item_missing: u32,
    /// Neither applied nor told of.
    pub item_lost: u32,
    /// Refused, the others taken.
    pub item_refused: u32,
    /// Failed, the others taken.
    pub item_failed: u32,
    /// Locked by somebody else.
    pub locked: u32,
    /// Answers to batches that tell of no record.
    pub empty: u32,
    /// Answers to batches in another order.
    pub shuffled: u32,
    /// Look-ups do not see records for so many ms.
    pub stale_ms: u64,
    /// Times at which one record is refused.
    pub poisons: u32,
    /// Acknowledgements that a client never gets.
    pub lost_acks: u32,
    /// Events that are no events.
    pub bad_events: u32,
}

impl Options {
    /// What this seed stands for: in half of the runs changes come back, in a third fields are
    /// mapped and rules decide.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut options = Self::one_way(seed);
        let mut dice = Dice::stream(seed, "two way");
        if dice.chance(500) {
            options.go_both_ways(&mut dice);
            if Dice::stream(seed, "mapped or not").chance(MAPPED_BACK) {
                options.map_back();
            }
            let deletes = options.two_way.as_ref().is_some_and(|it| it.deletes);
            if deletes && Dice::stream(seed, "marked or gone").chance(MARKED) {
                options.mark_deletes();
            }
        } else if Dice::stream(seed, "sets or none").chance(SETS) {
            options.take_sets();
        }
        options
    }

    fn map_back(&mut self) {
        let mut dice = Dice::stream(self.seed, "mapped back");
        self.mapped_back = Some(SetsOptions::both_ways(&self.accounts, &mut dice));
    }

    /// The same run, with accounts that mark what is deleted.
    fn mark_deletes(&mut self) {
        if self.mapped_back.is_none() {
            self.map_back();
        }
        let mut dice = Dice::stream(self.seed, "marks");
        if let Some(set) = &mut self.mapped_back {
            SetsOptions::mark_deletes(set, &mut dice);
        }
    }

    /// Times that other mappings are given.
    pub(super) fn mapping_changes(&self) -> u32 {
        let sets = self.sets.as_ref();
        sets.map_or(0, |sets| sets.mappings.len() as u32 - 1)
    }

    /// Times that other rules are given.
    pub(super) fn rule_changes(&self) -> u32 {
        let sets = self.sets.as_ref();
        sets.map_or(0, |sets| sets.rules.len() as u32 - 1)
    }

    fn take_sets(&mut self) {
        let mut dice = Dice::stream(self.seed, "sets");
        self.sets = Some(SetsOptions::of_dice(&self.accounts, &mut dice));
    }

    /// Two runs in which nothing goes wrong but, in one of them, an account.
    #[must_use]
    pub fn pair_of_seed(seed: u64) -> Self {
        let mut options = isolation::calm(Self::one_way(seed));
        let mut dice = Dice::stream(seed, "pair");
        while options.accounts.len() < 2 {
            let next = AccountOptions::of_dice(options.accounts.len() as u64, true, &mut dice);
            options.accounts.push(next);
        }
        options
    }

    /// A run in which a planted bug can show.
    #[must_use]
    pub fn with_mutant(seed: u64, mutant: Mutant) -> Self {
        let mut options = Self::one_way(seed);
        if mutant == Mutant::HoldForAll {
            options = Self::pair_of_seed(seed);
        }
        if mutant.is_two_way() {
            options.go_both_ways(&mut Dice::stream(seed, "two way"));
        }
        if matches!(mutant, Mutant::OwnedTaken | Mutant::NotWrittenBack) {
            options.own_fields(Policy::Reverts);
        }
        if mutant.is_of_mapping_back() {
            options.map_back();
        }
        if mutant.is_of_merges() {
            options.merge();
        }
        if mutant.is_of_marks() {
            options.mark_deletes();
        }
        if mutant.is_of_sets() {
            options.take_sets();
        }
        options.mutant = Some(mutant);
        options
    }

    fn one_way(seed: u64) -> Self {
        let mut dice = Dice::stream(seed, "options");
        let accounts = dice.between(1, 3);
        let busy = Duration::from_millis(dice.between(3_000, 40_000));
        let mut faults = Faults::of_dice(&mut dice);
        let mut days = Dice::stream(seed, "days");
        if days.chance(500) {
            faults.day_spent = days.between(1, 40) as u32;
        }
        // Half the runs give up early, so that failed operations are common there.
        let patient = dice.chance(500);
        // Our wall clock may be an hour off for minutes, which no window of seconds can bear.
        let fixed = faults.clock_steps == 0;
        let mut limits = Dice::stream(seed, "limits");
        Self {
            seed,
            mutant: None,
            shards: dice.between(1, 4) as u16,
            accounts: (0..accounts)
                .map(|at| AccountOptions::of_dice(at, patient, &mut dice))
                .map(|account| account.limited(fixed, &mut limits))
                .collect(),
            producers: dice.between(1, 3) as usize,
            events: dice.between(20, 120),
            records: dice.between(1, 24),
            busy,
            fan_out: *dice.pick(&[0, 30, 100]),
            commands: if dice.chance(500) {
                dice.between(1, 12) as u32
            } else {
                0
            },
            checkpoints: if dice.chance(600) {
                dice.between(1, 8) as u32
            } else {
                0
            },
            relocations: if dice.chance(500) {
                dice.between(1, 4) as u32
            } else {
                0
            },
            segment_bytes: *dice.pick(&[256 << 10, 512 << 10, 1 << 20]),
            faults,
            two_way: None,
            sets: None,
            mapped_back: None,
            pair: false,
            ill: false,
        }
    }
}

impl AccountOptions {
    /// The same with limits of other kinds, if the dice say so.
    fn limited(self, fixed: bool, dice: &mut Dice) -> Self {
        let window = FixedWindow {
            limit: dice.between(5, 60) as u32,
            window_ms: 1_000 * dice.between(2, 20),
            zone_s: dice.between(0, 86_000) as i32 - 43_000,
            ahead_ms: dice.between(0, 1_800) as i64 - 900,
        };
        let fixed = (fixed && dice.chance(150)).then_some(window);
        // Full again within 48 s: what has to be remembered for more than a minute goes by our wall
        // clock after a boot, which may be an hour off.
        let bucket = Bucket {
            burst: dice.between(1, 16) as u32,
            refill: dice.between(1, 10) as u32,
            period_ms: dice.between(300, 3_000),
        };
        Self {
            // A right clock does not drift.
            skew_ppm: if fixed.is_some() { 0 } else { self.skew_ppm },
            fixed,
            bucket: dice.chance(150).then_some(bucket),
            ..self
        }
    }

    /// Whether permits are needed to call it.
    #[must_use]
    pub fn has_windows(&self) -> bool {
        !self.limits.is_empty() || self.fixed.is_some() || self.bucket.is_some()
    }

    fn of_dice(at: u64, patient: bool, dice: &mut Dice) -> Self {
        let mut limits = Vec::new();
        if dice.chance(600) {
            limits.push((dice.between(1, 40) as u32, dice.between(200, 3_000)));
        }
        if dice.chance(300) {
            limits.push((dice.between(20, 120) as u32, dice.between(5_000, 20_000)));
        }
        Self {
            name: ["alpha", "beta", "gamma"][at as usize].to_owned(),
            system_a: false,
            limits,
            fixed: None,
            bucket: None,
            max_in_flight: dice.between(1, 16) as u32,
            timeout: Duration::from_millis(dice.between(500, 5_000)),
            latency_ms: (dice.between(1, 60), dice.between(0, 100)),
            max_attempts: if patient {
                40
            } else {
                dice.between(2, 5) as u16
            },
            skew_ppm: dice.between(0, 800) as i32 - 400,
            fold: dice.chance(500),
            batch_max: if dice.chance(500) {
                dice.between(2, 30) as usize
            } else {
                1
            },
        }
    }
}

impl Faults {
    /// Swarm: every seed goes without a random half of the faults, so that no fault hides
    /// behind another.
    fn of_dice(dice: &mut Dice) -> Self {
        let mut faults = Self::default();
        let count = |most: u64, dice: &mut Dice| -> u32 {
            let value = dice.between(1, most) as u32;
            if dice.chance(500) { value } else { 0 }
        };
        if dice.chance(100) {
            return faults;
        }
        faults.kills = count(3, dice);
        faults.power_cuts = count(3, dice);
        faults.cut_in_write = count(1000, dice);
        faults.crash_in_recovery = count(300, dice);
        faults.failed_writes = count(2, dice);
        faults.disk_full = count(2, dice);
        faults.failed_reads = count(3, dice);
        faults.bit_flips = if dice.chance(100) { 1 } else { 0 };
        faults.lost_checkpoints = count(500, dice);
        faults.clock_steps = count(4, dice);
        faults.stalls = count(4, dice);
        faults.slow_commits = count(30, dice);
        faults.outages = count(3, dice);
        faults.refused = count(60, dice);
        faults.lost_requests = count(40, dice);
        faults.lost_answers = count(60, dice);
        faults.reset_before = count(60, dice);
        faults.reset_after = count(80, dice);
        faults.server_error = count(100, dice);
        faults.server_error_after = count(60, dice);
        faults.throttled = count(60, dice);
        faults.unauthorized = count(10, dice);
        faults.garbage = count(40, dice);
        faults.slow = count(40, dice);
        faults.item_missing = count(60, dice);
        faults.item_lost = count(60, dice);
        faults.item_refused = count(40, dice);
        faults.item_failed = count(60, dice);
        faults.locked = count(40, dice);
        faults.empty = count(40, dice);
        faults.shuffled = count(500, dice);
        faults.stale_ms = u64::from(count(4_000, dice));
        faults.poisons = count(3, dice);
        faults.lost_acks = count(100, dice);
        faults.bad_events = count(60, dice);
        faults
    }

    /// The faults of a provider as its model spells them.
    #[must_use]
    pub fn provider_spec(&self, account: &AccountOptions) -> String {
        let mut spec = format!(
            "latency={}ms,jitter={}ms",
            account.latency_ms.0, account.latency_ms.1
        );
        for (name, per_mille) in [
            ("reset_before", self.reset_before),
            ("reset_after", self.reset_after),
            ("5xx", self.server_error),
            ("5xx_after", self.server_error_after),
            ("429", self.throttled),
            ("daily", self.day_spent),
            ("401", self.unauthorized),
            ("garbage", self.garbage),
            ("slow", self.slow),
            ("item_missing", self.item_missing),
            ("item_lost", self.item_lost),
            ("item_4xx", self.item_refused),
            ("item_5xx", self.item_failed),
            ("lock", self.locked),
            ("empty", self.empty),
            ("shuffle", self.shuffled),
        ] {
            if per_mille > 0 {
                spec.push_str(&format!(",{name}={}", f64::from(per_mille) / 1000.0));
            }
        }
        if self.stale_ms > 0 {
            spec.push_str(&format!(",stale={}ms", self.stale_ms));
        }
        spec
    }
}
