//! Subscribers on both drivers: from the ingest port to a feed, over loopback.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use syncline_net::ingest::{Code, Driver, Limits, Refusal, TimeLimits};
use syncline_net::subscription::{
    Feed, Handover, NeverSent, Over, Seat, Subscription, Subscriptions, Taken, serve,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::drivers::{Fixture, PATIENCE};
use super::engine::Engine;

/// A feed in memory that remembers what it heard; everyone gets the same lines.
#[derive(Debug, Default)]
struct Changes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    seats: Vec<Sitting>,
    heard: Vec<Subscription>,
    acked: Vec<u64>,
    left: usize,
    full: bool,
}

#[derive(Debug)]
struct Sitting {
    seat: Seat,
    given: usize,
    over: Option<Over>,
}

impl Changes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn say(&self, lines: impl IntoIterator<Item = String>) {
        let mut state = self.state();
        state.lines.extend(lines);
        state.seats.iter().for_each(|at| at.seat.wake.notify_one());
    }

    /// Waits until `done` holds; another thread moves it.
    fn until(&self, done: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.state()) {
            assert!(Instant::now() < deadline, "it never came to be");
            std::thread::yield_now();
        }
    }
}

impl Feed for Changes {
    fn subscribe(&self, subscription: &Subscription) -> Result<Seat, Refusal> {
        let mut state = self.state();
        if state.full {
            return Err(Refusal::new(Code::Overloaded, "too many consumers"));
        }
        state.heard.push(subscription.clone());
        let seat = Seat {
            id: state.seats.len() as u64,
            consumer: subscription.consumer.as_str().into(),
            wake: Arc::default(),
        };
        for old in &mut state.seats {
            if old.seat.consumer == seat.consumer {
                old.over = Some(Over::Replaced);
                old.seat.wake.notify_one();
            }
        }
        state.seats.push(Sitting {
            seat: seat.clone(),
            given: 0,
            over: None,
        });
        Ok(seat)
    }

    fn take(&self, seat: &Seat, out: &mut Vec<u8>) -> Taken {
        let mut state = self.state();
        let State { lines, seats, .. } = &mut *state;
        let sitting = &mut seats[seat.id as usize];
        if let Some(over) = sitting.over {
            return Taken::Over(over);
        }
        let Some(line) = lines.get(sitting.given) else {
            return Taken::Nothing;
        };
        sitting.given += 1;
        out.extend_from_slice(line.as_bytes());
        Taken::Changes
    }

    fn ack(&self, _: &Seat, seq: u64) -> Result<(), NeverSent> {
        self.state().acked.push(seq);
        Ok(())
    }

    fn leave(&self, _: &Seat) {
        self.state().left += 1;
    }
}

/// Takes subscribers over on a thread of its own, as the control thread does.
#[derive(Debug)]
struct Desk {
    handovers: mpsc::Sender<Handover>,
}

impl Subscriptions for Desk {
    fn take_over(&self, handover: Handover) {
        self.handovers.try_send(handover).unwrap();
    }
}

fn desk(changes: &Arc<Changes>, time: TimeLimits) -> Arc<Desk> {
    let (handovers, mut arriving) = mpsc::channel(16);
    let changes = Arc::clone(changes);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let mut served = JoinSet::new();
            while let Some(handover) = arriving.recv().await {
                let changes = Arc::clone(&changes);
                // How a connection ends is what the tests look at from its other side.
                served.spawn(async move { serve(handover, &*changes, time).await.ok() });
            }
            served.join_all().await;
        });
    });
    Arc::new(Desk { handovers })
}

fn start(driver: Driver, time: TimeLimits) -> (Fixture, Arc<Changes>) {
    let changes = Arc::new(Changes::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Fixture::start_with(
        driver,
        Limits::default(),
        listener,
        Engine::default(),
        Some(desk(&changes, time)),
    );
    (server, changes)
}

const SUBSCRIBE: &str = "{\"subscribe\":{\"consumer\":\"billing\",\"objects\":[\"contact\"]}}\n";

on_both_drivers! {
    fn a_subscriber_gets_changes_and_acks_them(driver: Driver) {
        let (server, changes) = start(driver, TimeLimits::default());
        let mut peer = server.connect();
        peer.send(SUBSCRIBE);
        changes.say(["one\n".into(), "two\n".into()]);
        assert_eq!([peer.line(), peer.line()], ["one", "two"]);
        peer.send("{\"ack\":{\"seq\":2}}\n\n");
        changes.until(|state| state.acked == [2]);
        changes.say(["three\n".into()]);
        assert_eq!(peer.line(), "three");
        peer.half_close();
        assert_eq!(peer.line(), "");
        changes.until(|state| state.left == 1);
        let heard = &changes.state().heard[0];
        assert_eq!(heard.objects.as_deref(), Some(&["contact".to_owned()][..]));
        // The ingest thread has let go of it.
        server.until(|engine| engine.state().closed.len() == 1);
    }

    fn a_hello_and_what_came_behind_it_go_with_the_subscriber(driver: Driver) {
        let (server, changes) = start(driver, TimeLimits::default());
        let mut peer = server.connect();
        peer.send(format!("{{\"hello\":{{\"key\":\"k\"}}}}\n{SUBSCRIBE}{{\"ack\":{{\"seq\":5}}}}\n"));
        assert_eq!(peer.line(), "{\"welcome\":{\"last_seq\":0}}");
        changes.until(|state| state.acked == [5]);
        assert_eq!(changes.state().heard[0].key.as_deref(), Some("k"));
    }

    fn a_newer_subscription_fences_the_older(driver: Driver) {
        let (server, changes) = start(driver, TimeLimits::default());
        let mut old = server.connect();
        old.send(SUBSCRIBE);
        changes.say(["one\n".into()]);
        assert_eq!(old.line(), "one");
        let mut new = server.connect();
        new.send(SUBSCRIBE);
        assert_eq!(new.line(), "one");
        assert_eq!(old.line(), "{\"error\":{\"code\":\"replaced\"}}");
        assert_eq!(old.line(), "");
    }

    fn a_megabyte_arrives_whole_and_acks_pass_it(driver: Driver) {
        let (server, changes) = start(driver, TimeLimits::default());
        let mut peer = server.connect();
        peer.send(SUBSCRIBE);
        let filler = "x".repeat(1 << 20);
        changes.say((0..20).map(|n| format!("{n}{filler}\n")));
        // More than the kernel's buffers hold is under way; acks are read all the same.
        peer.send("{\"ack\":{\"seq\":1}}\n");
        changes.until(|state| state.acked == [1]);
        for n in 0..20 {
            let line = peer.line();
            assert_eq!(line.len(), n.to_string().len() + filler.len());
            assert!(line.starts_with(&format!("{n}x")));
        }
    }

    fn what_is_no_ack_is_told_and_closed(driver: Driver) {
        let (server, changes) = start(driver, TimeLimits::default());
        let mut peer = server.connect();
        peer.send(SUBSCRIBE).send("{\"operation\":\"DELETE\",\"record_id\":\"c-1\"}\n");
        assert!(peer.line().starts_with("{\"error\":{\"code\":\"malformed\""));
        assert_eq!(peer.line(), "");
        changes.until(|state| state.left == 1);
        assert!(server.engine.taken().is_empty());
    }

    fn who_is_not_let_in_is_told_why(driver: Driver) {
        let (server, changes) = start(driver, TimeLimits::default());
        changes.state().full = true;
        let mut peer = server.connect();
        peer.send(SUBSCRIBE);
        assert_eq!(
            peer.line(),
            "{\"error\":{\"code\":\"overloaded\",\"detail\":\"too many consumers\",\"retry\":true}}"
        );
        assert_eq!(peer.line(), "");
    }

    fn silence_and_half_a_line_end_in_time(driver: Driver) {
        let short = Duration::from_millis(50);
        let rows = [
            ("", TimeLimits { idle: short, ..TimeLimits::default() }),
            ("{\"ack\":", TimeLimits { message: short, ..TimeLimits::default() }),
        ];
        for (behind, time) in rows {
            let (server, changes) = start(driver, time);
            let mut peer = server.connect();
            peer.send(format!("{SUBSCRIBE}{behind}"));
            assert!(peer.line().starts_with("{\"error\":{\"code\":\"timeout\""));
            assert_eq!(peer.line(), "");
            changes.until(|state| state.left == 1);
        }
    }

    fn a_subscriber_that_does_not_read_is_cut(driver: Driver) {
        let time = TimeLimits { write: Duration::from_millis(100), ..TimeLimits::default() };
        let (server, changes) = start(driver, time);
        let mut peer = server.connect();
        peer.send(SUBSCRIBE);
        let filler = "x".repeat(1 << 20);
        changes.say((0..64).map(|n| format!("{n}{filler}\n")));
        changes.until(|state| state.left == 1);
    }

    fn an_engine_that_stops_lets_subscribers_go_without_its_ingest_thread(driver: Driver) {
        let (mut server, changes) = start(driver, TimeLimits::default());
        let mut peer = server.connect();
        peer.send(SUBSCRIBE);
        changes.until(|state| state.seats.len() == 1);
        // The ingest thread does not wait for a connection that is not its own any more.
        server.stop();
        changes.say(["one\n".into()]);
        assert_eq!(peer.line(), "one");
        {
            let mut state = changes.state();
            state.seats[0].over = Some(Over::Stopping);
            state.seats[0].seat.wake.notify_one();
        }
        assert_eq!(peer.line(), "");
    }
}

#[test]
fn who_cannot_be_served_is_turned_away_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let client = std::net::TcpStream::connect(addr).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let handover = Handover {
        stream,
        subscription: Subscription {
            consumer: "billing".into(),
            objects: None,
            key: None,
        },
        unread: Vec::new(),
    };
    handover.turn_away(&Refusal::new(Code::Overloaded, "the node is busy"));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut &client, &mut text).unwrap();
    assert_eq!(
        text,
        "{\"error\":{\"code\":\"overloaded\",\"detail\":\"the node is busy\",\"retry\":true}}\n"
    );
}
