//! Trouble of one account, or of one record, is not felt by others.

use std::collections::HashMap;
use std::time::Duration;

use syncline_engine::quota::{Limit, Policy};

use super::world::{MS, SECOND, World};

/// Calls that each account allows a second.
const LIMIT: u32 = 100;

fn limits() -> Vec<Limit> {
    let policy = Policy::Sliding {
        limit: LIMIT,
        window: Duration::from_secs(1),
    };
    vec![Limit::new("calls", policy)]
}

/// Events in an open loop, and when each record was sent first.
struct Load {
    world: World,
    sent: HashMap<String, u64>,
    next: usize,
}

impl Load {
    fn new(world: World) -> Self {
        Self {
            world,
            sent: HashMap::new(),
            next: 0,
        }
    }

    fn send(&mut self, account: usize, record: String) {
        let n = self.next;
        self.next += 1;
        let event = format!(
            r#"{{"operation":"UPSERT","object":"contact","record_id":"{record}","data":{{"n":{n}}}}}"#
        );
        self.world.submit_to(account, n % 2, &event);
        self.sent.entry(record).or_insert(self.world.now);
    }

    /// A fresh record for every account every so often, for a time; `beside` sends what it wants to.
    fn run(&mut self, accounts: usize, every: u64, span: u64, mut beside: impl FnMut(&mut Self)) {
        let end = self.world.now + span;
        while self.world.now < end {
            for account in 0..accounts {
                let record = format!("r-{}", self.next);
                self.send(account, record);
                beside(self);
            }
            self.world.run(every);
        }
    }

    /// The time within which 99 of 100 of an account's records arrived, the hot one aside.
    fn p99(&self, account: usize) -> u64 {
        let mut took: HashMap<&str, u64> = HashMap::new();
        let calls = self.world.seen.iter();
        for call in calls.filter(|c| c.account == account && c.status < 300 && c.of != HOT) {
            let took_ns = call.at - self.sent[&call.of];
            took.entry(&call.of).or_insert(took_ns);
        }
        let mut took: Vec<u64> = took.into_values().collect();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }

    fn calls_of(&self, account: usize) -> usize {
        let calls = self.world.seen.iter();
        calls.filter(|call| call.account == account).count()
    }
}

const HOT: &str = "hot";

#[test]
fn an_outage_costs_few_calls_and_no_other_account_feels_it() {
    let run = |outage: bool| {
        let mut load = Load::new(World::of_many(2, 2, limits()));
        if outage {
            load.world.fail(0, 31 * SECOND..91 * SECOND);
        }
        // 80 a second is 80 % of the limit.
        load.run(2, SECOND / 80, 150 * SECOND, |_| {});
        // What piled up in a minute drains with the fifth that is left.
        load.world.run(300 * SECOND);
        load
    };
    let (calm, rough) = (run(false), run(true));
    let records = rough.next / 2;
    let calls = rough.calls_of(0);
    let arrived = rough
        .world
        .seen
        .iter()
        .filter(|c| c.account == 0 && c.status < 300);
    assert_eq!(arrived.count(), records, "it recovers by itself");
    println!(
        "outage of 60 s at 80 %: {:.3} calls a record; p99 of the other account {} us, without \
         the outage {} us",
        calls as f64 / records as f64,
        rough.p99(1) / 1000,
        calm.p99(1) / 1000
    );
    assert!(calls * 10 <= records * 11, "{calls} calls for {records}");
    assert!(rough.p99(1) * 10 <= calm.p99(1) * 11);
    assert_eq!(rough.calls_of(1), calm.calls_of(1));
}

#[test]
fn a_hot_record_folds_and_delays_nobody() {
    let run = |hot: bool| {
        let mut load = Load::new(World::of_many(2, 1, limits()));
        load.run(1, SECOND / 40, 60 * SECOND, |load| {
            if hot {
                load.send(0, HOT.to_owned());
            } else {
                let record = format!("other-{}", load.next);
                load.send(0, record);
            }
        });
        load.world.run(5 * SECOND);
        load
    };
    let (even, hot) = (run(false), run(true));
    println!(
        "half of all traffic on one record: p99 of the others {} us, with as many fresh records \
         instead {} us",
        hot.p99(0) / 1000,
        even.p99(0) / 1000
    );
    assert!(hot.p99(0) * 10 <= even.p99(0) * 12);
}

#[test]
fn each_of_many_accounts_is_used_whatever_happens_to_another() {
    const ACCOUNTS: usize = 25;
    let mut load = Load::new(World::of_many(2, ACCOUNTS, limits()));
    let span = 20 * SECOND;
    load.world.fail(3, 6 * SECOND..u64::MAX);
    // Twice what they allow.
    load.run(ACCOUNTS, SECOND / 200, span, |_| {});
    let (from, end) = (2 * SECOND, load.world.now);
    let mut least = f64::MAX;
    for account in (0..ACCOUNTS).filter(|account| *account != 3) {
        let calls = load.world.seen.iter();
        let calls: Vec<u64> = calls
            .filter(|call| call.account == account && call.at >= from)
            .map(|call| call.at)
            .collect();
        // Between two calls at the same place of a window: whole laps of a window and a round trip.
        let lap = SECOND + load.world.round_trip;
        let laps = (end - from) / lap - 1;
        let last = calls[(laps * u64::from(LIMIT)) as usize];
        let used = (laps * lap) as f64 / (last - calls[0]) as f64;
        least = least.min(used);
    }
    println!(
        "25 accounts, one of them down: the least used of the others {:.2} % of what it allows",
        least * 100.0
    );
    assert!(least >= 0.99, "{least}");
    let down = load.world.seen.iter().filter(|call| call.account == 3);
    assert!(down.filter(|call| call.at > 6 * SECOND + 100 * MS).count() <= 10);
}
