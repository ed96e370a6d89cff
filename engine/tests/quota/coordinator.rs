//! What the coordinator promises, message by message.

use std::time::Duration;

use syncline_engine::quota::{
    AccountId, AccountLimits, AccountView, Coordinator, CostClass, Ended, FromShard, Gate,
    HoldReason, LeaseId, Limit, LimitsError, Policy, RecoveredLease, ShardId, Start, ToShard,
    Trouble,
};
use syncline_engine::time::{Mono, Now, WallMs};

use crate::simulation::{MS, SECOND, WALL_AT_ZERO_MS, account};
use crate::{bucket, fixed, limit, sliding};

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);
const ACCOUNT: AccountId = AccountId(0);

fn at(nanos: u64) -> Now {
    Now {
        mono: Mono(nanos),
        wall: WallMs(WALL_AT_ZERO_MS + (nanos / MS) as i64),
    }
}

/// A coordinator and the time, which passes as told and stops at each deadline on the way.
struct Rig {
    coordinator: Coordinator,
    now: u64,
}

impl Rig {
    fn new(limits: AccountLimits) -> Self {
        Self::at(SECOND, limits)
    }

    fn at(now: u64, limits: AccountLimits) -> Self {
        let start = Start {
            now: at(now),
            shards: 2,
            last_lease: LeaseId(0),
            seed: 1,
        };
        let coordinator = Coordinator::new(start, vec![limits]).expect("valid limits");
        Self { coordinator, now }
    }

    fn connected(limits: AccountLimits) -> Self {
        let mut rig = Self::new(limits);
        rig.tell(A, FromShard::Connected);
        rig.tell(B, FromShard::Connected);
        rig
    }

    fn tell(&mut self, from: ShardId, message: FromShard) -> Vec<(ShardId, ToShard)> {
        self.coordinator.handle(at(self.now), from, message);
        self.poll()
    }

    fn want(&mut self, from: ShardId, permits: u32) -> Vec<(ShardId, ToShard)> {
        self.tell(
            from,
            FromShard::Want {
                account: ACCOUNT,
                class: CostClass::ANY,
                urgent: 0,
                permits,
                records: permits,
                slots: permits,
                seen: LeaseId(u64::MAX),
            },
        )
    }

    fn completed(&mut self, from: ShardId, lease: LeaseId, count: u32, completed_at: u64) {
        let completed_at = Mono(completed_at);
        let ended = Ended::Answered;
        self.tell(
            from,
            FromShard::Completed {
                account: ACCOUNT,
                lease,
                count,
                completed_at,
                ended,
            },
        );
    }

    fn fail(&mut self, from: ShardId, trouble: Trouble, probe: bool) -> Vec<(ShardId, ToShard)> {
        self.tell(
            from,
            FromShard::Trouble {
                account: ACCOUNT,
                trouble,
                probe,
                last_success: None,
            },
        )
    }

    fn pass(&mut self, nanos: u64) -> Vec<(ShardId, ToShard)> {
        let end = self.now + nanos;
        let mut told = Vec::new();
        while let Some(deadline) = self.coordinator.next_deadline() {
            if deadline.0 > end {
                break;
            }
            assert!(
                deadline.0 >= self.now,
                "a deadline in the past is a busy loop"
            );
            self.now = deadline.0;
            self.coordinator.tick(at(self.now));
            told.extend(self.poll());
            assert_ne!(self.coordinator.next_deadline(), Some(deadline));
        }
        self.now = end;
        self.coordinator.tick(at(self.now));
        told.extend(self.poll());
        told
    }

    fn poll(&mut self) -> Vec<(ShardId, ToShard)> {
        std::iter::from_fn(|| self.coordinator.poll()).collect()
    }

    fn view(&mut self) -> AccountView {
        self.coordinator
            .views(at(self.now))
            .next()
            .expect("one account")
    }

    fn available(&mut self) -> i64 {
        self.view().limits[0].available
    }
}

fn leases(told: &[(ShardId, ToShard)]) -> Vec<(ShardId, LeaseId, u32)> {
    let grants = told.iter().filter_map(|(shard, message)| match message {
        ToShard::Grant { lease, permits, .. } => Some((*shard, *lease, *permits)),
        _ => None,
    });
    grants.collect()
}

fn permits(told: &[(ShardId, ToShard)], to: ShardId) -> u32 {
    let leases = leases(told);
    leases
        .iter()
        .filter(|(shard, ..)| *shard == to)
        .map(|(.., permits)| permits)
        .sum()
}

fn gates(told: &[(ShardId, ToShard)], to: ShardId) -> Vec<Gate> {
    let gates = told.iter().filter_map(|(shard, message)| match message {
        ToShard::Gate { gate, .. } if *shard == to => Some(*gate),
        _ => None,
    });
    gates.collect()
}

fn recovered(permits: u32, usable_until: u64) -> RecoveredLease {
    RecoveredLease {
        account: "salesforce".to_owned(),
        label: String::new(),
        permits,
        usable_until: Mono(usable_until),
        wall_until: at(usable_until).wall,
        ended_by: None,
        same_boot: true,
    }
}

#[test]
fn a_shard_that_connects_is_told_every_account_and_its_gate() {
    let mut rig = Rig::new(account(vec![sliding(10, 1)]));
    assert_eq!(rig.want(A, 5), [], "nothing for a shard that is not there");
    let told = rig.tell(A, FromShard::Connected);
    let [
        (
            A,
            ToShard::Account {
                name, unlimited, ..
            },
        ),
        (A, ToShard::Gate { gate, .. }),
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(
        (&**name, *unlimited, *gate),
        ("salesforce", false, Gate::Open)
    );
    rig.fail(A, Trouble::Unauthorized, false);
    let told = rig.tell(B, FromShard::Connected);
    assert!(matches!(
        gates(&told, B)[..],
        [Gate::Held {
            reason: HoldReason::Unauthorized,
            ..
        }]
    ));
}

#[test]
fn demand_of_one_turn_is_weighed_together() {
    let mut rig = Rig::connected(account(vec![sliding(100, 1)]));
    for (shard, permits) in [(A, 1000), (B, 30)] {
        let want = FromShard::Want {
            account: ACCOUNT,
            class: CostClass::ANY,
            urgent: 0,
            permits,
            records: permits,
            slots: 0,
            seen: LeaseId(0),
        };
        rig.coordinator.handle(at(rig.now), shard, want);
    }
    let told = rig.poll();
    assert_eq!((permits(&told, A), permits(&told, B)), (70, 30));
}

#[test]
fn grants_on_their_way_are_not_granted_again() {
    let mut rig = Rig::connected(account(vec![sliding(100, 1)]));
    let lease = leases(&rig.want(A, 10))[0].1;
    let mut want = |permits, seen| {
        let told = rig.tell(
            A,
            FromShard::Want {
                account: ACCOUNT,
                class: CostClass::ANY,
                urgent: 0,
                permits,
                records: 0,
                slots: 0,
                seen,
            },
        );
        super::coordinator::permits(&told, A)
    };
    assert_eq!(
        want(12, LeaseId(0)),
        2,
        "ten of the twelve are on their way"
    );
    assert_eq!(want(5, LeaseId(lease.0 + 1)), 5, "both were seen");
}

#[test]
fn a_token_comes_back_a_window_after_its_call_has_ended() {
    let mut rig = Rig::connected(account(vec![sliding(2, 1)]));
    let lease = leases(&rig.want(A, 2))[0].1;
    assert_eq!(permits(&rig.want(A, 1), A), 0);
    let ended = rig.now + 300 * MS;
    rig.pass(400 * MS);
    rig.completed(A, lease, 1, ended);
    let unspent = FromShard::Unspent {
        account: ACCOUNT,
        lease,
        count: 1,
    };
    assert_eq!(
        permits(&rig.tell(A, unspent), A),
        1,
        "never sent: back at once"
    );
    rig.want(A, 1);
    assert_eq!(leases(&rig.pass(900 * MS)), []);
    assert_eq!(permits(&rig.pass(3 * MS), A), 1);
}

#[test]
fn the_lease_of_a_silent_shard_comes_back_when_its_calls_have_surely_ended() {
    let mut rig = Rig::connected(account(vec![sliding(10, 1)]));
    let granted = rig.now;
    let lease = leases(&rig.want(A, 10))[0].1;
    rig.tell(A, FromShard::Connected);
    rig.want(B, 10);
    // Two seconds of lease, two of call, two on the wire, one of window.
    rig.pass(6999 * MS);
    assert_eq!(rig.available(), 0);
    assert_eq!(permits(&rig.pass(4 * MS), B), 10);
    // A report that comes still later is counted once more, to be safe.
    rig.completed(A, lease, 4, granted + SECOND);
    rig.pass(SECOND / 100);
    rig.completed(A, lease, 4, rig.now);
    assert_eq!(rig.available(), -4);
    assert_eq!(rig.view().limits[0].restoring, 4);
}

#[test]
fn slots_of_a_lost_shard_stay_out_until_its_calls_have_surely_ended() {
    let mut limits = account(vec![]);
    limits.max_in_flight = 4;
    let mut rig = Rig::connected(limits);
    rig.want(A, 4);
    assert_eq!(rig.view().slots_held, 4);
    rig.tell(A, FromShard::Connected);
    rig.want(B, 4);
    rig.pass(3999 * MS);
    assert_eq!(rig.view().slots_held, 0);
    rig.pass(MS);
    assert_eq!(rig.view().slots_held, 4);
}

#[test]
fn a_recall_that_crosses_a_return_costs_no_slot() {
    let mut limits = account(vec![]);
    limits.max_in_flight = 8;
    let mut rig = Rig::connected(limits);
    rig.want(A, 8);
    let told = rig.want(B, 8);
    let recall = ToShard::Recall {
        account: ACCOUNT,
        keep: 4,
    };
    assert_eq!(told, [(A, recall)]);
    // A has returned six of its own accord before it reads the recall: keeping two is within it.
    let returned = FromShard::ReturnSlots {
        account: ACCOUNT,
        slots: 6,
    };
    let told = rig.tell(A, returned);
    let granted: Vec<_> = told
        .iter()
        .filter_map(|(shard, message)| match message {
            ToShard::GrantSlots { slots, .. } => Some((*shard, *slots)),
            _ => None,
        })
        .collect();
    assert_eq!(granted, [(A, 2), (B, 4)]);
    assert_eq!(rig.view().slots_held, 8);
}

#[test]
fn an_account_without_windows_needs_no_permits() {
    let concurrency = limit("c", Policy::Concurrency { limit: 3 });
    let mut rig = Rig::new(account(vec![concurrency]));
    let told = rig.tell(A, FromShard::Connected);
    assert!(matches!(
        told[0].1,
        ToShard::Account {
            unlimited: true,
            ..
        }
    ));
    let slots = ToShard::GrantSlots {
        account: ACCOUNT,
        slots: 3,
    };
    assert_eq!(rig.want(A, 10), [(A, slots)]);
}

#[test]
fn exactly_one_shard_probes_an_account_that_was_held() {
    let mut rig = Rig::connected(account(vec![sliding(10, 1)]));
    rig.want(A, 5);
    rig.want(B, 5);
    for _ in 0..4 {
        rig.fail(A, Trouble::Unreachable, false);
    }
    let told = rig.fail(B, Trouble::Failing, false);
    for shard in [A, B] {
        assert!(matches!(gates(&told, shard)[..], [Gate::Held { .. }]));
    }
    let lease = leases(&rig.want(A, 1));
    assert_eq!(lease, [], "nothing is lent while held");
    // The first lease is never reported here; the hold is over long before it is given up.
    rig.tell(
        A,
        FromShard::Unspent {
            account: ACCOUNT,
            lease: LeaseId(1),
            count: 5,
        },
    );
    let Gate::Held { until, .. } = rig.view().gate else {
        panic!("held");
    };
    let told = rig.pass(until.0 - rig.now);
    let probes = |told: &[_]| {
        gates(told, A).contains(&Gate::Probe) as u8 + gates(told, B).contains(&Gate::Probe) as u8
    };
    assert_eq!(probes(&told), 1, "{told:?}");
    let [(prober, ..)] = leases(&told)[..] else {
        panic!("one permit for the probe: {told:?}");
    };
    let told = rig.fail(prober, Trouble::Unreachable, true);
    assert!(matches!(gates(&told, prober)[..], [Gate::Held { .. }]));
    let Gate::Held { until, .. } = rig.view().gate else {
        panic!("held again");
    };
    let told = rig.pass(until.0 - rig.now);
    assert_eq!(probes(&told), 1, "{told:?}");
    assert_ne!(
        leases(&told)[0].0,
        prober,
        "the other one, in case the first is stuck"
    );
    let told = rig.pass(7 * SECOND);
    assert_eq!(leases(&told)[0].0, prober, "no report: back to the first");
    assert_eq!(gates(&told, prober), [Gate::Probe]);
    let healthy = FromShard::Healthy {
        account: ACCOUNT,
        probe: true,
    };
    let told = rig.tell(prober, healthy);
    assert_eq!(
        (gates(&told, A), gates(&told, B)),
        (vec![Gate::Open], vec![Gate::Open])
    );
}

/// A shard gives back in each turn what it cannot use. When the permit of a probe came a turn
/// before the word to probe, it went back, and the account stood still until the probe was given
/// up, a call's time-out later.
#[test]
fn the_gate_is_told_before_the_permits_it_lets_use() {
    let mut rig = Rig::connected(account(vec![sliding(10, 1)]));
    rig.want(A, 5);
    for _ in 0..5 {
        rig.fail(A, Trouble::Unreachable, false);
    }
    let lease = LeaseId(1);
    let count = 5;
    rig.tell(
        A,
        FromShard::Unspent {
            account: ACCOUNT,
            lease,
            count,
        },
    );
    rig.want(A, 5);
    let gate_then_grant = |told: &[(ShardId, ToShard)]| {
        let to_a = told.iter().filter(|(to, _)| *to == A);
        let kinds = to_a.filter_map(|(_, message)| match message {
            ToShard::Gate { gate, .. } => Some(format!("{gate:?}")),
            ToShard::Grant { permits, .. } => Some(permits.to_string()),
            _ => None,
        });
        kinds.collect::<Vec<_>>()
    };
    let Gate::Held { until, .. } = rig.view().gate else {
        panic!("held");
    };
    let told = rig.pass(until.0 - rig.now);
    assert_eq!(gate_then_grant(&told), ["Probe", "1"]);
    let told = rig.tell(
        A,
        FromShard::Healthy {
            account: ACCOUNT,
            probe: true,
        },
    );
    assert_eq!(gate_then_grant(&told), ["Open", "4"]);
}

#[test]
fn a_pause_holds_all_shards_until_its_end() {
    let mut rig = Rig::connected(account(vec![sliding(10, 1)]));
    let until = Mono(rig.now + 5 * SECOND);
    let told = rig.fail(A, Trouble::Throttled { until: Some(until) }, false);
    let reason = HoldReason::Throttled;
    assert_eq!(gates(&told, B), [Gate::Held { until, reason }]);
    assert_eq!(leases(&rig.want(A, 1)), []);
    assert_eq!(rig.pass(5 * SECOND - 1), []);
    let told = rig.pass(1);
    assert_eq!((permits(&told, A), gates(&told, B)), (1, vec![Gate::Open]));
}

#[test]
fn a_success_of_another_shard_breaks_a_row_of_troubles() {
    let mut rig = Rig::connected(account(vec![]));
    for _ in 0..20 {
        let told = rig.fail(A, Trouble::Failing, false);
        // B says so each time it is asked, which it is again after each of its answers.
        if gates(&told, B).contains(&Gate::Suspect) {
            let healthy = FromShard::Healthy {
                account: ACCOUNT,
                probe: false,
            };
            assert_eq!(gates(&rig.tell(B, healthy), B), [Gate::Open]);
        }
    }
    assert_eq!(rig.view().gate, Gate::Open);
}

#[test]
fn after_a_restart_every_lease_counts_as_spent_at_its_latest() {
    let mut rig = Rig::at(100 * SECOND, account(vec![sliding(10, 60)]));
    // Over since 50 s: +2 s of call, +2 s on the wire, +60 s. The other may have been spent
    // until the crash just now.
    let leases = [recovered(6, 50 * SECOND), recovered(3, 101 * SECOND)];
    rig.coordinator.restore(at(rig.now), &leases);
    assert_eq!(rig.available(), 1);
    rig.tell(A, FromShard::Connected);
    assert_eq!(permits(&rig.want(A, 10), A), 1);
    assert_eq!(permits(&rig.pass(14 * SECOND), A), 0);
    assert_eq!(permits(&rig.pass(SECOND), A), 6);
    assert_eq!(permits(&rig.pass(46 * SECOND), A), 0);
    assert_eq!(permits(&rig.pass(2 * SECOND), A), 3);
}

#[test]
fn after_a_reboot_short_windows_start_spent_and_long_ones_age_by_the_wall_clock() {
    let old = |permits| RecoveredLease {
        same_boot: false,
        // 20 minutes ago by the wall, on a clock that has started over since.
        wall_until: WallMs(at(SECOND).wall.0 - 1_200_000),
        ..recovered(permits, 9000 * SECOND)
    };
    let mut rig = Rig::new(account(vec![
        sliding(10, 60),
        sliding(100, 3600),
        bucket(50, 1, 60),
    ]));
    rig.coordinator.restore(at(rig.now), &[old(8)]);
    let available: Vec<i64> = rig
        .view()
        .limits
        .iter()
        .map(|limit| limit.available)
        .collect();
    assert_eq!(available, [2, 92, 42]);
    rig.pass(63 * SECOND);
    assert_eq!(rig.available(), 10);
    // 3600 s less 20 minutes, plus a minute for the clock, a call, the wire and the rounding.
    rig.pass(2400 * SECOND);
    assert_eq!(rig.view().limits[1].available, 92);
    rig.pass(SECOND * 15);
    assert_eq!(rig.view().limits[1].available, 100);
}

#[test]
fn more_leases_than_the_limit_holds_cost_no_more_than_the_limit() {
    for limit in [sliding(10, 60), bucket(10, 10, 60), fixed(10, 60, 0)] {
        let mut rig = Rig::at(100 * SECOND, account(vec![limit]));
        rig.coordinator
            .restore(at(rig.now), &vec![recovered(7, 99 * SECOND); 9]);
        assert_eq!(rig.available(), 0);
        rig.pass(63 * SECOND);
        assert_eq!(rig.available(), 10);
    }
}

#[test]
fn a_limit_changed_at_run_time_keeps_what_was_spent() {
    let mut rig = Rig::connected(account(vec![sliding(10, 60)]));
    rig.want(A, 8);
    let change = |rig: &mut Rig, limits| {
        let now = at(rig.now);
        rig.coordinator
            .reconfigure(now, vec![account(limits)])
            .expect("valid limits");
        rig.poll()
    };
    let window = Duration::from_secs(60);
    let minute = |limit| Limit::new("10/60s", Policy::Sliding { limit, window });
    change(&mut rig, vec![minute(20)]);
    assert_eq!(rig.available(), 12);
    change(&mut rig, vec![minute(5)]);
    assert_eq!(rig.available(), -3);
    change(&mut rig, vec![minute(5), sliding(100, 3600)]);
    assert_eq!(
        rig.view().limits[1].available,
        92,
        "a new limit finds them as well"
    );
    let now = at(rig.now);
    rig.coordinator
        .reconfigure(now, vec![])
        .expect("no account is fine");
    let gone = ToShard::AccountGone { account: ACCOUNT };
    assert_eq!(rig.poll(), [(A, gone.clone()), (B, gone)]);
    let told = change(&mut rig, vec![minute(5), sliding(100, 3600)]);
    assert!(matches!(
        told[0],
        (
            A,
            ToShard::Account {
                account: ACCOUNT,
                ..
            }
        )
    ));
    assert_eq!(
        rig.available(),
        -3,
        "what was spent is not forgotten meanwhile"
    );
}

#[test]
fn settings_that_cannot_be_kept_change_nothing() {
    let mut rig = Rig::connected(account(vec![sliding(10, 60)]));
    let twice = vec![account(vec![]), account(vec![])];
    let now = at(rig.now);
    let refused = rig.coordinator.reconfigure(now, twice);
    assert!(matches!(refused, Err(LimitsError::Duplicate { .. })));
    let refused = rig
        .coordinator
        .reconfigure(now, vec![account(vec![sliding(0, 1)])]);
    assert!(matches!(refused, Err(LimitsError::Zero { .. })));
    assert_eq!(rig.poll(), []);
    assert_eq!(rig.available(), 10);
}

#[test]
fn reports_about_nothing_known_are_harmless() {
    let mut rig = Rig::connected(account(vec![sliding(10, 1)]));
    let account = AccountId(7);
    let slots = 3;
    rig.tell(A, FromShard::ReturnSlots { account, slots });
    rig.tell(
        A,
        FromShard::ReturnSlots {
            account: ACCOUNT,
            slots,
        },
    );
    rig.tell(ShardId(900), FromShard::Connected);
    let (lease, count) = (LeaseId(99), u32::MAX);
    let unspent = FromShard::Unspent {
        account: ACCOUNT,
        lease,
        count,
    };
    rig.tell(B, unspent);
    assert_eq!(rig.available(), 10);
}
