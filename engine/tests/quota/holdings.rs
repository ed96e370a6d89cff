//! What a shard may do with what it holds.

use std::sync::Arc;
use std::time::Duration;

use syncline_engine::quota::{
    AccountId, CallEnd, CostClass, CostClasses, Ended, FromShard, Gate, HoldReason, Holdings,
    LeaseId, Permit, Refusal, ToShard, Trouble, Verdict, Waiting,
};
use syncline_engine::time::Mono;

const ACCOUNT: AccountId = AccountId(3);

fn ms(ms: u64) -> Mono {
    Mono(ms * 1_000_000)
}

/// A shard that knows one account, its gate open.
fn shard(unlimited: bool) -> Holdings {
    let mut holdings = Holdings::new();
    assert_eq!(holdings.poll(), Some(FromShard::Connected));
    let limits = [crate::sliding(100, 1)];
    let told = ToShard::Account {
        account: ACCOUNT,
        name: "salesforce".into(),
        unlimited,
        classes: Arc::new(CostClasses::compile(if unlimited { &[] } else { &limits })),
        call_timeout: Duration::from_secs(30),
        lease_memory: Duration::from_secs(92),
    };
    assert_eq!(holdings.handle(told), None);
    set_gate(&mut holdings, Gate::Open);
    holdings
}

fn set_gate(holdings: &mut Holdings, gate: Gate) {
    let account = ACCOUNT;
    assert_eq!(holdings.handle(ToShard::Gate { account, gate }), None);
}

fn grant_slots(holdings: &mut Holdings, slots: u32) {
    let account = ACCOUNT;
    assert_eq!(
        holdings.handle(ToShard::GrantSlots { account, slots }),
        None
    );
}

/// A lease that is in the log already.
fn lease(holdings: &mut Holdings, lease: u64, permits: u32, usable_until: Mono) {
    let lease = LeaseId(lease);
    let grant = ToShard::Grant {
        account: ACCOUNT,
        class: CostClass::ANY,
        lease,
        permits,
        usable_until,
    };
    let taken = holdings.handle(grant).expect("a lease to log");
    assert_eq!((taken.lease, taken.permits), (lease, permits));
    assert_eq!(taken.forget_at, Mono(usable_until.0 + 92_000_000_000));
    holdings.on_durable(ACCOUNT, lease);
}

fn demand(holdings: &mut Holdings, calls: u32) {
    let waiting = Waiting {
        calls,
        urgent: 0,
        records: calls,
    };
    holdings.demand(ACCOUNT, CostClass::ANY, waiting);
}

fn end_turn(holdings: &mut Holdings, now: Mono) -> Vec<FromShard> {
    holdings.end_turn(now);
    std::iter::from_fn(|| holdings.poll()).collect()
}

fn spend(holdings: &mut Holdings, now: Mono) -> Permit {
    holdings
        .try_spend(now, ACCOUNT, CostClass::ANY)
        .expect("a permit")
}

fn ended(at: Mono, verdict: Verdict) -> CallEnd {
    CallEnd {
        at,
        ended: Ended::Answered,
        verdict,
    }
}

fn unspent(lease: u64, count: u32) -> FromShard {
    FromShard::Unspent {
        account: ACCOUNT,
        lease: LeaseId(lease),
        count,
    }
}

#[test]
fn no_permit_is_spent_before_its_lease_is_durable_or_after_it_ends() {
    let mut holdings = shard(false);
    grant_slots(&mut holdings, 5);
    demand(&mut holdings, 9);
    let grant = ToShard::Grant {
        account: ACCOUNT,
        class: CostClass::ANY,
        lease: LeaseId(1),
        permits: 2,
        usable_until: ms(2000),
    };
    assert!(holdings.handle(grant).is_some());
    assert_eq!(
        holdings.try_spend(ms(1), ACCOUNT, CostClass::ANY),
        Err(Refusal::Permits)
    );
    holdings.on_durable(ACCOUNT, LeaseId(1));
    let permit = spend(&mut holdings, ms(2000));
    let late = Mono(ms(2000).0 + 1);
    assert_eq!(
        holdings.try_spend(late, ACCOUNT, CostClass::ANY),
        Err(Refusal::Permits)
    );
    assert!(end_turn(&mut holdings, late).contains(&unspent(1, 1)));
    holdings.complete(permit, ended(late, Verdict::Healthy));
    let completed = FromShard::Completed {
        account: ACCOUNT,
        lease: LeaseId(1),
        count: 1,
        completed_at: late,
        ended: Ended::Answered,
    };
    assert!(end_turn(&mut holdings, late).contains(&completed));
}

#[test]
fn calls_that_ended_in_one_turn_are_reported_together_at_their_latest() {
    let mut holdings = shard(false);
    grant_slots(&mut holdings, 5);
    demand(&mut holdings, 3);
    lease(&mut holdings, 1, 3, ms(2000));
    let permits: Vec<Permit> = (0..3).map(|_| spend(&mut holdings, ms(1))).collect();
    for (permit, at) in permits.into_iter().zip([30, 50, 40]) {
        holdings.complete(permit, ended(ms(at), Verdict::Healthy));
    }
    let reports = end_turn(&mut holdings, ms(60));
    let completed: Vec<_> = reports
        .iter()
        .filter_map(|report| match report {
            FromShard::Completed {
                count,
                completed_at,
                ..
            } => Some((*count, *completed_at)),
            _ => None,
        })
        .collect();
    assert_eq!(completed, [(3, ms(50))]);
}

#[test]
fn permits_nothing_waits_for_go_back_soon_and_slots_later() {
    let mut holdings = shard(false);
    grant_slots(&mut holdings, 4);
    demand(&mut holdings, 4);
    lease(&mut holdings, 1, 4, ms(2000));
    end_turn(&mut holdings, ms(0));
    demand(&mut holdings, 1);
    end_turn(&mut holdings, ms(1));
    assert_eq!(holdings.next_deadline(), Some(ms(21)));
    assert!(end_turn(&mut holdings, ms(21)).contains(&unspent(1, 3)));
    demand(&mut holdings, 0);
    end_turn(&mut holdings, ms(22));
    assert!(end_turn(&mut holdings, ms(42)).contains(&unspent(1, 1)));
    let slots = |slots| FromShard::ReturnSlots {
        account: ACCOUNT,
        slots,
    };
    assert!(end_turn(&mut holdings, ms(1001)).contains(&slots(4)));
}

#[test]
fn recalled_slots_go_back_as_their_calls_end() {
    let mut holdings = shard(true);
    grant_slots(&mut holdings, 3);
    demand(&mut holdings, 9);
    let first = spend(&mut holdings, ms(1));
    let second = spend(&mut holdings, ms(1));
    let recall = ToShard::Recall {
        account: ACCOUNT,
        keep: 1,
    };
    holdings.handle(recall);
    assert_eq!(
        holdings.try_spend(ms(2), ACCOUNT, CostClass::ANY),
        Err(Refusal::Slots)
    );
    let returned = |holdings: &mut Holdings| {
        let reports = end_turn(holdings, ms(3));
        let slots = reports.iter().filter_map(|report| match report {
            FromShard::ReturnSlots { slots, .. } => Some(*slots),
            _ => None,
        });
        slots.sum::<u32>()
    };
    assert_eq!(returned(&mut holdings), 1, "the one that is free");
    holdings.complete(first, ended(ms(3), Verdict::Healthy));
    assert_eq!(returned(&mut holdings), 1);
    holdings.complete(second, ended(ms(3), Verdict::Healthy));
    assert_eq!(returned(&mut holdings), 0, "one may stay");
    let permit = spend(&mut holdings, ms(4));
    holdings.cancel(permit);
}

#[test]
fn a_held_account_gets_its_permits_back_and_a_probe_is_one_call() {
    let mut holdings = shard(false);
    grant_slots(&mut holdings, 4);
    demand(&mut holdings, 4);
    lease(&mut holdings, 1, 4, ms(2000));
    let held = Gate::Held {
        until: ms(500),
        reason: HoldReason::Unreachable,
    };
    set_gate(&mut holdings, held);
    assert_eq!(
        holdings.try_spend(ms(1), ACCOUNT, CostClass::ANY),
        Err(Refusal::Held(held))
    );
    assert!(end_turn(&mut holdings, ms(1)).contains(&unspent(1, 4)));
    lease(&mut holdings, 2, 1, ms(2500));
    set_gate(&mut holdings, Gate::Probe);
    let probe = spend(&mut holdings, ms(501));
    assert_eq!(
        holdings.try_spend(ms(501), ACCOUNT, CostClass::ANY),
        Err(Refusal::Held(Gate::Probe))
    );
    holdings.complete(probe, ended(ms(502), Verdict::Trouble(Trouble::Failing)));
    let failed = FromShard::Trouble {
        account: ACCOUNT,
        trouble: Trouble::Failing,
        probe: true,
        last_success: None,
    };
    assert!(end_turn(&mut holdings, ms(502)).contains(&failed));
}

#[test]
fn a_probe_without_demand_is_given_back() {
    let mut holdings = shard(true);
    grant_slots(&mut holdings, 1);
    set_gate(&mut holdings, Gate::Probe);
    let unused = FromShard::ProbeUnused { account: ACCOUNT };
    assert!(end_turn(&mut holdings, ms(1)).contains(&unused));
    assert!(!end_turn(&mut holdings, ms(2)).contains(&unused), "once");
}

#[test]
fn a_success_is_reported_once_when_asked_for_and_told_with_the_next_trouble() {
    let mut holdings = shard(true);
    grant_slots(&mut holdings, 9);
    demand(&mut holdings, 9);
    let healthy = FromShard::Healthy {
        account: ACCOUNT,
        probe: false,
    };
    let trouble = |last_success| FromShard::Trouble {
        account: ACCOUNT,
        trouble: Trouble::Failing,
        probe: false,
        last_success,
    };
    let mut call = |gate: Option<Gate>, verdict| {
        if let Some(gate) = gate {
            set_gate(&mut holdings, gate);
        }
        let permit = spend(&mut holdings, ms(1));
        holdings.complete(permit, ended(ms(2), verdict));
        end_turn(&mut holdings, ms(2))
    };
    let failing = Verdict::Trouble(Trouble::Failing);
    assert!(
        !call(None, Verdict::Healthy).contains(&healthy),
        "nobody asked"
    );
    assert!(call(None, failing).contains(&trouble(Some(ms(2)))));
    assert!(call(Some(Gate::Suspect), Verdict::Healthy).contains(&healthy));
    assert!(!call(None, Verdict::Healthy).contains(&healthy));
}

#[test]
fn an_account_that_is_gone_is_forgotten_when_its_last_call_has_ended() {
    let mut holdings = shard(false);
    grant_slots(&mut holdings, 2);
    demand(&mut holdings, 2);
    lease(&mut holdings, 1, 2, ms(2000));
    let permit = spend(&mut holdings, ms(1));
    holdings.handle(ToShard::AccountGone { account: ACCOUNT });
    demand(&mut holdings, 5);
    assert_eq!(
        holdings.try_spend(ms(1), ACCOUNT, CostClass::ANY),
        Err(Refusal::Unknown)
    );
    assert!(end_turn(&mut holdings, ms(1)).contains(&unspent(1, 1)));
    holdings.complete(permit, ended(ms(9), Verdict::Healthy));
    let reports = end_turn(&mut holdings, ms(9));
    let all = FromShard::ReturnSlots {
        account: ACCOUNT,
        slots: 1,
    };
    assert!(reports.contains(&all), "{reports:?}");
    assert_eq!(holdings.gate(ACCOUNT), None);
}

/// A shard of an account that counts searches in a window of their own.
fn with_searches(first: Option<Holdings>) -> (Holdings, CostClass, CostClass) {
    let mut search = crate::sliding(5, 1);
    search.weights.only = vec!["search".to_owned()];
    let classes = Arc::new(CostClasses::compile(&[search, crate::sliding(100, 1)]));
    let mut holdings = first.unwrap_or_else(|| shard(false));
    let told = ToShard::Account {
        account: ACCOUNT,
        name: "salesforce".into(),
        unlimited: false,
        classes: Arc::clone(&classes),
        call_timeout: Duration::from_secs(30),
        lease_memory: Duration::from_secs(92),
    };
    assert_eq!(holdings.handle(told), None);
    (
        holdings,
        classes.class_of(&["search"]),
        classes.class_of(&["update"]),
    )
}

#[test]
fn a_permit_of_one_class_pays_for_no_call_of_another() {
    let (mut holdings, search, update) = with_searches(None);
    grant_slots(&mut holdings, 4);
    for class in [search, update] {
        let waiting = Waiting {
            calls: 2,
            urgent: 1,
            records: 2,
        };
        holdings.demand(ACCOUNT, class, waiting);
    }
    let wanted: Vec<_> = end_turn(&mut holdings, ms(1))
        .into_iter()
        .filter_map(|report| match report {
            FromShard::Want {
                class,
                permits,
                urgent,
                ..
            } => Some((class, permits, urgent)),
            _ => None,
        })
        .collect();
    assert_eq!(wanted.len(), 2);
    assert!(wanted.contains(&(search, 2, 1)) && wanted.contains(&(update, 2, 1)));
    let grant = ToShard::Grant {
        account: ACCOUNT,
        class: update,
        lease: LeaseId(1),
        permits: 1,
        usable_until: ms(2000),
    };
    let taken = holdings.handle(grant).expect("a lease to log");
    assert_eq!(taken.label, "-", "a call without any tag that counts");
    holdings.on_durable(ACCOUNT, LeaseId(1));
    let refused = holdings.try_spend(ms(2), ACCOUNT, search);
    assert_eq!(refused, Err(Refusal::Permits));
    let permit = holdings
        .try_spend(ms(2), ACCOUNT, update)
        .expect("a permit");
    holdings.cancel(permit);
}

#[test]
fn permits_of_a_class_that_is_gone_go_back() {
    let (mut holdings, ..) = with_searches(None);
    let plain = Arc::new(CostClasses::compile(&[crate::sliding(100, 1)]));
    let (_, search, update) = with_searches(Some(shard(false)));
    let class = if search == CostClass::ANY {
        update
    } else {
        search
    };
    let waiting = Waiting {
        calls: 9,
        ..Waiting::default()
    };
    holdings.demand(ACCOUNT, class, waiting);
    let grant = ToShard::Grant {
        account: ACCOUNT,
        class,
        lease: LeaseId(1),
        permits: 3,
        usable_until: ms(2000),
    };
    assert!(holdings.handle(grant).is_some());
    let changed = ToShard::Account {
        account: ACCOUNT,
        name: "salesforce".into(),
        unlimited: false,
        classes: plain,
        call_timeout: Duration::from_secs(30),
        lease_memory: Duration::from_secs(92),
    };
    assert_eq!(holdings.handle(changed), None);
    assert!(end_turn(&mut holdings, ms(1)).contains(&unspent(1, 3)));
}
