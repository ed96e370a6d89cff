use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use net::subscription::Feed as _;
use serde_json::Value;

use super::*;

type Offered<'f> = Pin<Box<dyn Future<Output = Result<Reply, SendFailure>> + 'f>>;

/// A feed of a folder of its own. Nothing is written but by `write` and `close`.
struct Bench {
    folder: tempfile::TempDir,
    feed: Feed,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let feed = Feed::open(folder.path(), Duration::ZERO).unwrap();
        Bench { folder, feed }
    }

    /// The process is killed and starts anew.
    fn crash(self) -> Bench {
        let feed = Feed::open(self.folder.path(), Duration::ZERO).unwrap();
        Bench { feed, ..self }
    }

    fn stop(self) -> Bench {
        self.feed.stop();
        self.feed.close().unwrap();
        self.crash()
    }

    /// What the keeper does once it is woken.
    fn write(&self) {
        self.feed.write(Consumer::ahead).unwrap();
    }

    fn subscribe(&self, consumer: &str, objects: &[&str]) -> Seat {
        let names: Vec<String> = objects.iter().map(|&name| name.to_owned()).collect();
        let subscription = Subscription {
            consumer: consumer.to_owned(),
            objects: (!names.is_empty()).then_some(names),
            key: None,
        };
        self.feed.subscribe(&subscription).unwrap()
    }

    /// Subscribes, and the roster is written.
    fn known(&self, consumer: &str, objects: &[&str]) -> Seat {
        let seat = self.subscribe(consumer, objects);
        self.write();
        seat
    }

    fn offer(&self, object: &str, record_id: &str) -> Offered<'_> {
        let change = format!(
            r#"{{"operation":"UPSERT","object":"{object}","record_id":"{record_id}","data":{{"a":1}}}}"#
        );
        let mut offered: Offered<'_> = Box::pin(self.feed.offer(change.into()));
        assert!(is_open(&mut offered));
        offered
    }

    /// All that the seat is given now: numbers and record ids.
    fn given(&self, seat: &Seat) -> Vec<(u64, String)> {
        let mut out = Vec::new();
        while self.feed.take(seat, &mut out) == Taken::Changes {}
        let text = String::from_utf8(out).unwrap();
        let changes = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let change = &line["change"];
            (
                change["seq"].as_u64().unwrap(),
                change["record_id"].as_str().unwrap().to_owned(),
            )
        });
        changes.collect()
    }

    fn records(&self, seat: &Seat) -> Vec<String> {
        self.given(seat).into_iter().map(|(_, id)| id).collect()
    }
}

fn poll(offered: &mut Offered<'_>) -> Poll<Result<Reply, SendFailure>> {
    offered
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

fn is_open(offered: &mut Offered<'_>) -> bool {
    poll(offered).is_pending()
}

fn has_arrived(offered: &mut Offered<'_>) -> bool {
    matches!(poll(offered), Poll::Ready(Ok(reply)) if reply.status == 200)
}

fn numbered(changes: &[(u64, &str)]) -> Vec<(u64, String)> {
    let changes = changes.iter();
    changes.map(|&(seq, id)| (seq, id.to_owned())).collect()
}

#[test]
fn a_change_is_told_as_the_contract_prints_it() {
    let bench = Bench::new();
    let seat = bench.known("billing", &["contact"]);
    let _offered = bench.offer("contact", "c-1");
    let mut out = Vec::new();
    assert_eq!(bench.feed.take(&seat, &mut out), Taken::Changes);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"change\":{\"seq\":1,\"operation\":\"UPSERT\",\"object\":\"contact\",\
         \"record_id\":\"c-1\",\"data\":{\"a\":1}}}\n"
    );
}

#[test]
fn a_change_stays_open_until_everyone_who_takes_it_has_it() {
    let bench = Bench::new();
    let billing = bench.known("billing", &["contact"]);
    let search = bench.known("search", &[]);
    let stock = bench.known("stock", &["item"]);
    let mut contact = bench.offer("contact", "c-1");
    let mut item = bench.offer("item", "i-1");
    assert_eq!(bench.records(&billing), ["c-1"]);
    assert_eq!(bench.records(&search), ["c-1", "i-1"]);
    assert_eq!(bench.records(&stock), ["i-1"]);
    bench.feed.ack(&billing, 1).unwrap();
    assert!(is_open(&mut contact));
    bench.feed.ack(&search, 2).unwrap();
    assert!(has_arrived(&mut contact));
    assert!(is_open(&mut item));
    bench.feed.ack(&stock, 1).unwrap();
    assert!(has_arrived(&mut item));
}

#[test]
fn changes_wait_for_a_first_consumer_and_for_one_that_is_away() {
    let bench = Bench::new();
    let mut first = bench.offer("contact", "c-1");
    let seat = bench.subscribe("billing", &[]);
    assert_eq!(bench.feed.take(&seat, &mut Vec::new()), Taken::Nothing);
    bench.write();
    assert_eq!(bench.given(&seat), numbered(&[(1, "c-1")]));
    bench.feed.leave(&seat);
    let mut second = bench.offer("contact", "c-2");
    assert!(is_open(&mut first) && is_open(&mut second));

    let seat = bench.subscribe("billing", &[]);
    assert_eq!(bench.given(&seat), numbered(&[(1, "c-1"), (2, "c-2")]));
    bench.feed.ack(&seat, 2).unwrap();
    assert!(has_arrived(&mut first) && has_arrived(&mut second));
}

#[test]
fn acks_are_cumulative_and_a_number_never_given_is_refused() {
    let bench = Bench::new();
    let seat = bench.known("billing", &[]);
    let mut offered: Vec<_> = (1..=3)
        .map(|n| bench.offer("contact", &n.to_string()))
        .collect();
    assert_eq!(bench.feed.ack(&seat, 1), Err(NeverSent { seq: 1, last: 0 }));
    assert_eq!(bench.given(&seat).len(), 3);
    bench.feed.ack(&seat, 2).unwrap();
    assert!(has_arrived(&mut offered[0]) && has_arrived(&mut offered[1]));
    bench.feed.ack(&seat, 1).unwrap();
    assert!(is_open(&mut offered[2]));
    assert_eq!(bench.feed.ack(&seat, 4), Err(NeverSent { seq: 4, last: 3 }));
    assert_eq!(bench.feed.consumers()[0].acked, 2);
    assert_eq!(bench.feed.consumers()[0].unacked, 1);
}

#[test]
fn no_more_than_the_window_is_given_without_an_ack() {
    let bench = Bench::new();
    let seat = bench.known("billing", &[]);
    let all = consumer::WINDOW_MAX + 10;
    let _offered: Vec<_> = (0..all)
        .map(|n| bench.offer("contact", &n.to_string()))
        .collect();
    assert_eq!(bench.given(&seat).len(), consumer::WINDOW_MAX);
    assert!(bench.given(&seat).is_empty());
    bench.feed.ack(&seat, 3).unwrap();
    let next = bench.given(&seat);
    let first_number = consumer::WINDOW_MAX as u64 + 1;
    assert_eq!((next.len(), next[0].0), (3, first_number));
    assert_eq!(next[0].1, consumer::WINDOW_MAX.to_string());
}

#[test]
fn a_newer_connection_ends_the_older_whose_acks_mean_nothing() {
    let bench = Bench::new();
    let old = bench.known("billing", &[]);
    let mut offered = bench.offer("contact", "c-1");
    assert_eq!(bench.records(&old), ["c-1"]);
    let new = bench.subscribe("billing", &[]);
    let over = Taken::Over(Over::Replaced);
    assert_eq!(bench.feed.take(&old, &mut Vec::new()), over);
    bench.feed.ack(&old, 1).unwrap();
    bench.feed.leave(&old);
    assert!(is_open(&mut offered));
    assert!(bench.feed.consumers()[0].connected);
    assert_eq!(bench.given(&new), numbered(&[(1, "c-1")]));
    bench.feed.ack(&new, 1).unwrap();
    assert!(has_arrived(&mut offered));
}

#[test]
fn other_objects_take_effect_for_what_waits() {
    let bench = Bench::new();
    let seat = bench.known("billing", &["contact", "deal"]);
    let mut contact = bench.offer("contact", "c-1");
    let mut item = bench.offer("item", "i-1");
    let mut deal = bench.offer("deal", "d-1");
    assert_eq!(bench.given(&seat), numbered(&[(1, "c-1"), (2, "d-1")]));

    let seat = bench.subscribe("billing", &["item", "deal"]);
    // Nothing under the new wish before it is on disk.
    assert_eq!(bench.feed.take(&seat, &mut Vec::new()), Taken::Nothing);
    bench.write();
    assert_eq!(bench.given(&seat), numbered(&[(2, "d-1"), (3, "i-1")]));
    bench.feed.ack(&seat, 3).unwrap();
    assert!(has_arrived(&mut item) && has_arrived(&mut deal));
    assert!(is_open(&mut contact), "nobody takes it, and nobody had it");
    let other = bench.known("search", &["contact"]);
    assert_eq!(bench.records(&other), ["c-1"]);
    bench.feed.ack(&other, 1).unwrap();
    assert!(has_arrived(&mut contact));
}

#[test]
fn a_removed_consumer_is_waited_for_no_more_also_after_a_restart() {
    let bench = Bench::new();
    let gone = bench.known("gone", &[]);
    let kept = bench.known("kept", &[]);
    let mut had = bench.offer("contact", "c-1");
    let mut had_not = bench.offer("contact", "c-2");
    assert_eq!(bench.given(&kept).len(), 2);
    bench.feed.ack(&kept, 1).unwrap();
    assert!(is_open(&mut had));
    assert_eq!(bench.feed.remove("gone"), Ok(true));
    assert!(has_arrived(&mut had));
    assert!(is_open(&mut had_not));
    let over = Taken::Over(Over::Removed);
    assert_eq!(bench.feed.take(&gone, &mut Vec::new()), over);
    assert_eq!(bench.feed.ack(&gone, 9), Ok(()));
    assert_eq!(bench.feed.remove("gone"), Ok(false));
    drop((had, had_not));

    let bench = bench.crash();
    let names: Vec<String> = bench.feed.consumers().into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["kept"]);
}

#[test]
fn after_a_crash_no_number_means_another_change() {
    let bench = Bench::new();
    let seat = bench.known("billing", &["contact"]);
    let offered: Vec<_> = (1..=9)
        .map(|n| bench.offer("contact", &n.to_string()))
        .collect();
    let before = bench.given(&seat);
    bench.feed.ack(&seat, 4).unwrap();
    drop(offered);

    let bench = bench.crash();
    // It is known before it is back, with what it takes.
    let mut again = bench.offer("contact", "5");
    let _other = bench.offer("item", "i");
    assert_eq!(bench.feed.consumers()[0].unacked, 1);
    let seat = bench.subscribe("billing", &["contact"]);
    assert!(bench.given(&seat).is_empty(), "no number is set aside yet");
    // An ack from before, late: what it meant comes again under another number.
    bench.feed.ack(&seat, 9).unwrap();
    bench.write();
    let after = bench.given(&seat);
    assert_eq!(after.len(), 1);
    assert!(after[0].0 > before.last().unwrap().0, "{after:?}");
    assert!(is_open(&mut again));
    bench.feed.ack(&seat, after[0].0).unwrap();
    assert!(has_arrived(&mut again));
}

#[test]
fn after_a_stop_in_order_numbers_go_on_where_they_were() {
    let bench = Bench::new();
    let seat = bench.known("billing", &[]);
    let mut open = [bench.offer("contact", "1"), bench.offer("contact", "2")];
    assert_eq!(bench.given(&seat).len(), 2);
    bench.feed.ack(&seat, 1).unwrap();
    bench.feed.stop();
    let not_sent = |result| matches!(result, Poll::Ready(Err(SendFailure::BeforeSent { .. })));
    assert!(has_arrived(&mut open[0]) && not_sent(poll(&mut open[1])));
    let mut late: Offered<'_> =
        Box::pin(bench.feed.offer(Bytes::from_static(b"{\"object\":\"x\"}")));
    assert!(not_sent(poll(&mut late)));
    let over = Taken::Over(Over::Stopping);
    assert_eq!(bench.feed.take(&seat, &mut Vec::new()), over);
    drop((open, late));

    let bench = bench.stop();
    assert_eq!(bench.feed.consumers()[0].acked, 1);
    let _again = bench.offer("contact", "2");
    let seat = bench.known("billing", &[]);
    assert_eq!(bench.given(&seat), numbered(&[(3, "2")]));
}

#[test]
fn numbers_set_aside_are_replenished_before_they_run_out() {
    let bench = Bench::new();
    let seat = bench.known("billing", &[]);
    let mut given = 0;
    for round in 0..100 {
        let _offered: Vec<_> = (0..1_000).map(|_| bench.offer("contact", "c")).collect();
        let changes = bench.given(&seat);
        assert_eq!(changes.len(), 1_000, "round {round}");
        given = changes[999].0;
        bench.feed.ack(&seat, given).unwrap();
        bench.write();
    }
    assert_eq!(given, 100_000);
}

#[test]
fn a_disk_that_refuses_gives_nobody_a_number_until_it_heals() {
    let bench = Bench::new();
    let seat = bench.subscribe("billing", &[]);
    let _offered = bench.offer("contact", "c-1");
    // A folder in the place of the file's successor.
    let next = bench.folder.path().join("consumers.next");
    std::fs::create_dir(&next).unwrap();
    assert!(bench.feed.write(Consumer::ahead).is_err());
    assert!(bench.given(&seat).is_empty());
    std::fs::remove_dir(&next).unwrap();
    bench.write();
    assert_eq!(bench.given(&seat), numbered(&[(1, "c-1")]));
}

#[test]
fn a_change_without_an_object_never_leaves() {
    let bench = Bench::new();
    for bad in ["", "[]", "{}", r#"{"object":5}"#] {
        let mut offered: Offered<'_> = Box::pin(bench.feed.offer(bad.into()));
        let unsendable = SendFailure::BeforeSent {
            cause: NotSent::Unsendable,
            detail: "the change names no object".to_owned(),
        };
        assert_eq!(poll(&mut offered), Poll::Ready(Err(unsendable)), "{bad}");
    }
}

#[test]
fn a_name_too_many_is_refused_and_a_known_one_is_not() {
    let bench = Bench::new();
    for n in 0..CONSUMERS_MAX {
        bench.subscribe(&n.to_string(), &[]);
    }
    bench.subscribe("0", &["contact"]);
    let one_more = Subscription {
        consumer: "one more".to_owned(),
        objects: None,
        key: None,
    };
    let refusal = bench.feed.subscribe(&one_more).unwrap_err();
    assert_eq!(refusal.code, Code::Overloaded);
}

#[tokio::test]
async fn the_keeper_writes_when_someone_subscribes() {
    let folder = tempfile::tempdir().unwrap();
    let feed = Arc::new(Feed::open(folder.path(), Duration::ZERO).unwrap());
    let keeper = tokio::spawn(feed.clone().keep());
    let subscription = Subscription {
        consumer: "billing".to_owned(),
        objects: None,
        key: None,
    };
    let seat = feed.subscribe(&subscription).unwrap();
    let offering = feed.clone();
    let change = Bytes::from_static(br#"{"object":"contact"}"#);
    let offered = tokio::spawn(async move { offering.offer(change).await });
    let mut out = Vec::new();
    while feed.take(&seat, &mut out) != Taken::Changes {
        seat.wake.notified().await;
    }
    feed.ack(&seat, 1).unwrap();
    assert_eq!(offered.await.unwrap().unwrap().status, 200);
    assert_eq!(
        Feed::open(folder.path(), Duration::ZERO)
            .unwrap()
            .consumers()
            .len(),
        1
    );
    keeper.abort();
}

#[test]
fn a_consumer_that_stays_away_holds_nobody_back_and_is_given_all_of_it_later() {
    let bench = Bench::new();
    let away = bench.known("away", &[]);
    let here = bench.known("here", &[]);
    let mut first = bench.offer("contact", "c-1");
    assert_eq!(bench.records(&away), ["c-1"], "given and not acknowledged");
    bench.feed.leave(&away);
    let mut second = bench.offer("contact", "c-2");
    bench.given(&here);
    bench.feed.ack(&here, 2).unwrap();
    assert!(is_open(&mut first) && is_open(&mut second));
    bench.feed.spill_absent();
    assert!(has_arrived(&mut first) && has_arrived(&mut second));

    // One that is there is waited for, however long it takes.
    let mut third = bench.offer("contact", "c-3");
    bench.feed.spill_absent();
    assert!(is_open(&mut third), "nobody else has it yet");
    bench.given(&here);
    bench.feed.ack(&here, 3).unwrap();
    assert!(has_arrived(&mut third));
    drop((first, second, third));

    let bench = bench.crash();
    let back = bench.known("away", &[]);
    let mut fourth = bench.offer("contact", "c-4");
    let given = bench.given(&back);
    let ids: Vec<&str> = given.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!(
        ids,
        ["c-1", "c-2", "c-3", "c-4"],
        "in order, ahead of what is new"
    );
    assert_eq!(bench.feed.consumers()[0].unacked, 4);
    let (second, _) = given[1];
    bench.feed.ack(&back, second).unwrap();
    bench.feed.leave(&back);
    let back = bench.known("away", &[]);
    assert_eq!(bench.records(&back), ["c-3", "c-4"]);
    let (last, _) = given[3];
    bench.feed.ack(&back, last).unwrap();
    assert_eq!(bench.feed.consumers()[0].unacked, 0);
    // The other one has it not yet.
    assert!(is_open(&mut fourth));
}

#[test]
fn what_is_on_disk_for_a_consumer_goes_with_it() {
    let bench = Bench::new();
    let away = bench.known("away", &[]);
    bench.feed.leave(&away);
    let mut offered = bench.offer("contact", "c-1");
    bench.feed.spill_absent();
    assert!(has_arrived(&mut offered));
    assert!(bench.feed.remove("away").unwrap());
    let back = bench.known("away", &[]);
    assert_eq!(bench.records(&back), Vec::<String>::new());
}
