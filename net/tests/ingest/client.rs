//! The client library: nothing is lost and nothing is taken twice, whatever breaks.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use syncline_net::client::{Client, ClientError, Encoding, Notice, Options};
use syncline_net::ingest::{Driver, Limits, SessionLimits};

use super::drivers::Fixture;

fn options(addr: SocketAddr, encoding: Encoding) -> Options {
    Options {
        encoding,
        retry: Box::new(|failure| (failure.count < 100).then_some(Duration::from_millis(1))),
        ..Options::new(addr.to_string(), "billing")
    }
}

fn notices(client: &mut Client) -> Vec<Notice> {
    std::iter::from_fn(|| client.next_notice()).collect()
}

/// Forwards connections to `server`, and cuts each after so many bytes in both directions
/// together; when `cuts` are used up, it cuts no more.
fn flaky_proxy(server: SocketAddr, cuts: Vec<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut cuts = cuts.into_iter();
        while let Ok((client, _)) = listener.accept() {
            let upstream = TcpStream::connect(server).unwrap();
            let budget = cuts.next().unwrap_or(usize::MAX);
            let back = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            let down = std::thread::spawn(move || copy(back.0, back.1, usize::MAX));
            copy(client, upstream, budget);
            down.join().unwrap();
        }
    });
    addr
}

/// Copies until the end or the budget's; in the latter case both sides are cut.
fn copy(mut from: TcpStream, mut to: TcpStream, mut budget: usize) {
    let mut buffer = [0; 4096];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => count.min(budget),
        };
        budget -= count;
        if to.write_all(&buffer[..count]).is_err() || budget == 0 {
            from.shutdown(Shutdown::Both).ok();
            to.shutdown(Shutdown::Both).ok();
            return;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

const EVENTS: u64 = 5_000;

fn send_all(client: &mut Client, bad_every: u64) {
    for n in 1..=EVENTS {
        let key = if n % bad_every == 0 { "bad" } else { "a" };
        let event = format!("{{\"{key}\":{n}}}");
        assert_eq!(client.send(event.as_bytes()).unwrap(), n);
    }
    client.flush().unwrap();
}

#[test]
fn events_are_taken_in_order_and_rejects_come_before_their_ack() {
    for encoding in [Encoding::Frames, Encoding::Lines] {
        for driver in Driver::ALL {
            let server = Fixture::start(driver, Limits::default());
            let mut client = Client::connect(options(server.addr, encoding)).unwrap();
            assert_eq!(client.last_seq(), 0);
            send_all(&mut client, 100);
            assert_eq!((client.last_seq(), client.unacked()), (EVENTS, 0));
            let (mut acked, mut rejected) = (0, Vec::new());
            for notice in notices(&mut client) {
                match notice {
                    Notice::Ack(seq) => acked = seq,
                    Notice::Reject(reject) => {
                        assert!(reject.seq > acked);
                        assert_eq!(reject.code, "unknown_field");
                        assert_eq!(reject.pointer.as_deref(), Some("/bad"));
                        rejected.push(reject.seq);
                    }
                }
            }
            assert_eq!(acked, EVENTS);
            let bad: Vec<u64> = (1..=EVENTS).filter(|n| n % 100 == 0).collect();
            assert_eq!(rejected, bad);
            let good: Vec<u64> = (1..=EVENTS).filter(|n| n % 100 != 0).collect();
            assert_eq!(server.engine.taken(), good);
        }
    }
}

#[test]
fn a_connection_cut_at_any_place_loses_and_doubles_nothing() {
    for encoding in [Encoding::Frames, Encoding::Lines] {
        let server = Fixture::start(Driver::Tokio, Limits::default());
        let cuts = (0..40).map(|n| 1 + n * n * 37 % 9_001).collect();
        let proxy = flaky_proxy(server.addr, cuts);
        let mut client = Client::connect(options(proxy, encoding)).unwrap();
        send_all(&mut client, u64::MAX);
        assert_eq!(server.engine.taken(), (1..=EVENTS).collect::<Vec<_>>());
        assert_eq!(notices(&mut client).last(), Some(&Notice::Ack(EVENTS)));
    }
}

#[test]
fn a_server_that_restarts_is_found_again() {
    let mut first = Fixture::start(Driver::Tokio, Limits::default());
    let mut client = Client::connect(options(first.addr, Encoding::Frames)).unwrap();
    client.send(b"{\"a\":1}").unwrap();
    client.flush().unwrap();
    client.send(b"{\"a\":2}").unwrap();
    let (addr, engine) = (first.addr, first.engine.clone());
    first.stop();
    let listener = TcpListener::bind(addr).unwrap();
    let second = Fixture::start_on(Driver::Monoio, Limits::default(), listener, engine);
    client.flush().unwrap();
    assert_eq!(second.engine.taken(), [1, 2]);
}

#[test]
fn a_new_client_of_the_producer_goes_on_where_the_last_one_ended() {
    let server = Fixture::start(Driver::Tokio, Limits::default());
    for round in 0..3 {
        let mut client = Client::connect(options(server.addr, Encoding::Frames)).unwrap();
        assert_eq!(client.last_seq(), round);
        client.send(b"{\"a\":1}").unwrap();
        client.flush().unwrap();
    }
    assert_eq!(server.engine.taken(), [1, 2, 3]);
}

#[test]
fn a_full_disk_is_waited_for() {
    let server = Fixture::start(Driver::Tokio, Limits::default());
    server.engine.state().disk_full_times = Some(3);
    let mut client = Client::connect(options(server.addr, Encoding::Frames)).unwrap();
    for event in ["{\"a\":1}", "{\"full\":1}", "{\"a\":3}"] {
        client.send(event.as_bytes()).unwrap();
    }
    client.flush().unwrap();
    assert_eq!(server.engine.taken(), [1, 2, 3]);
    assert!(
        notices(&mut client)
            .iter()
            .all(|n| matches!(n, Notice::Ack(_)))
    );
}

#[test]
fn small_windows_on_both_sides_do_not_lock_up() {
    let session = SessionLimits {
        unacked_bytes_max: 1,
        unacked_batches_max: 1,
        output_bytes_max: 500,
    };
    for encoding in [Encoding::Frames, Encoding::Lines] {
        let limits = Limits {
            session,
            ..Limits::default()
        };
        let server = Fixture::start(Driver::Monoio, limits);
        let mut client = Client::connect(Options {
            unacked_bytes_max: 100_000,
            ..options(server.addr, encoding)
        })
        .unwrap();
        send_all(&mut client, 2);
        assert_eq!(server.engine.taken().len() as u64, EVENTS / 2);
    }
}

#[test]
fn the_largest_event_passes_and_a_larger_one_is_not_sent() {
    let server = Fixture::start(Driver::Tokio, Limits::default());
    for encoding in [Encoding::Frames, Encoding::Lines] {
        let mut client = Client::connect(options(server.addr, encoding)).unwrap();
        let event = format!("{{\"a\":\"{}\"}}", "x".repeat((1 << 20) - 8));
        client.send(event.as_bytes()).unwrap();
        let larger = format!("{event} ");
        let error = client.send(larger.as_bytes()).unwrap_err();
        assert!(matches!(error, ClientError::BadEvent(_)));
        client.send(b"{}").unwrap();
        client.flush().unwrap();
    }
    assert_eq!(server.engine.taken(), [1, 2, 3, 4]);
}

#[test]
fn lines_that_are_none_are_not_sent() {
    let server = Fixture::start(Driver::Tokio, Limits::default());
    let mut client = Client::connect(options(server.addr, Encoding::Lines)).unwrap();
    for bad in ["", " \r", "{\n}"] {
        let error = client.send(bad.as_bytes()).unwrap_err();
        assert!(matches!(error, ClientError::BadEvent(_)));
    }
    assert_eq!(client.unacked(), 0);
}

#[test]
fn the_older_of_two_clients_of_a_producer_is_told() {
    let server = Fixture::start(Driver::Tokio, Limits::default());
    let mut old = Client::connect(options(server.addr, Encoding::Frames)).unwrap();
    let mut new = Client::connect(options(server.addr, Encoding::Frames)).unwrap();
    new.send(b"{\"a\":1}").unwrap();
    new.flush().unwrap();
    old.send(b"{\"a\":2}").unwrap();
    let error = old.flush().unwrap_err();
    assert!(matches!(error, ClientError::Replaced(name) if name == "billing"));
    assert_eq!(server.engine.taken(), [1]);
}

#[test]
fn a_wrong_key_is_final() {
    let server = Fixture::start(Driver::Tokio, Limits::default());
    server.engine.state().key = Some("right".into());
    for (key, encoding) in [(None, Encoding::Frames), (Some("wrong"), Encoding::Lines)] {
        let error = Client::connect(Options {
            key: key.map(str::to_owned),
            ..options(server.addr, encoding)
        })
        .unwrap_err();
        assert!(matches!(error, ClientError::Refused { code, .. } if code == "unauthorized"));
    }
    let right = Options {
        key: Some("right".into()),
        ..options(server.addr, Encoding::Frames)
    };
    let client = Client::connect(right).unwrap();
    assert!(!format!("{client:?}").contains("right"));
}

#[test]
fn a_server_that_forgot_is_not_served() {
    let server = Fixture::start(Driver::Tokio, Limits::default());
    let proxy = flaky_proxy(server.addr, vec![200]);
    let mut client = Client::connect(options(proxy, Encoding::Lines)).unwrap();
    client.send(b"{\"a\":1}").unwrap();
    client.flush().unwrap();
    server.engine.state().last_seq.clear();
    let event = format!("{{\"a\":\"{}\"}}", "x".repeat(200));
    client.send(event.as_bytes()).unwrap();
    let error = client.flush().unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Forgotten {
                last_seq: 0,
                acked: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_server_that_is_not_there_is_given_up_on() {
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = Client::connect(Options {
        retry: Box::new(|failure| (failure.count < 3).then_some(Duration::ZERO)),
        ..options(addr, Encoding::Frames)
    })
    .unwrap_err();
    assert!(
        matches!(error, ClientError::GaveUp { failures: 3, .. }),
        "{error}"
    );
}

#[test]
fn a_server_of_another_protocol_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).ok();
    });
    let error = Client::connect(options(addr, Encoding::Frames)).unwrap_err();
    assert!(matches!(error, ClientError::Protocol(_)), "{error}");
}

#[test]
fn a_server_with_no_seat_left_is_tried_again() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let server = Fixture::start(Driver::Tokio, limits);
    let seat = TcpStream::connect(server.addr).unwrap();
    let mut held = Some(seat);
    let mut client = Client::connect(Options {
        retry: Box::new(move |failure| {
            // Given free only after a client that speaks frames was turned away with a line.
            if failure.reason.contains("too many connections") {
                drop(held.take());
            }
            (failure.count < 1000).then_some(Duration::from_millis(1))
        }),
        ..options(server.addr, Encoding::Frames)
    })
    .unwrap();
    client.send(b"{\"a\":1}").unwrap();
    client.flush().unwrap();
    assert_eq!(server.engine.taken(), [1]);
}
