//! The same behaviour on both drivers, over loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use syncline_net::gate::wake_gate;
use syncline_net::ingest::frame::{EventsBuilder, Kind, write_frame};
use syncline_net::ingest::{
    Code, Driver, Limits, Refusal, Server, SessionId, SessionLimits, StopSignal, TimeLimits,
};
use syncline_net::subscription::Subscriptions;

use super::engine::Engine;
use super::talk::frames;

/// A server on a thread of its own; stopped and joined when dropped.
pub(crate) struct Fixture {
    pub(crate) engine: Engine,
    pub(crate) addr: SocketAddr,
    stop: StopSignal,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Fixture {
    pub(crate) fn start(driver: Driver, limits: Limits) -> Fixture {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Fixture::start_on(driver, limits, listener, Engine::default())
    }

    pub(crate) fn start_on(
        driver: Driver,
        limits: Limits,
        listener: TcpListener,
        engine: Engine,
    ) -> Fixture {
        Fixture::start_with(driver, limits, listener, engine, None)
    }

    pub(crate) fn start_with(
        driver: Driver,
        limits: Limits,
        listener: TcpListener,
        engine: Engine,
        subscriptions: Option<Arc<dyn Subscriptions>>,
    ) -> Fixture {
        let addr = listener.local_addr().unwrap();
        let first_session = SESSIONS.fetch_add(1 << 20, Ordering::Relaxed);
        let (gate, wake) = wake_gate().unwrap();
        engine.wake_by(gate.clone());
        let stop = StopSignal::new(gate);
        let (intake, signal) = (engine.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            driver.run(Server {
                listener,
                intake,
                subscriptions,
                wake,
                stop: signal,
                limits,
                first_session: SessionId(first_session),
            })
        });
        Fixture {
            engine,
            addr,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn stop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the driver does not panic").unwrap();
        }
    }

    pub(crate) fn connect(&self) -> Peer {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer {
            lines: BufReader::new(stream),
        }
    }

    /// Waits until `done` holds of the engine, which another thread moves.
    pub(crate) fn until(&self, done: impl Fn(&Engine) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !done(&self.engine) {
            assert!(std::time::Instant::now() < deadline, "it never came to be");
            std::thread::yield_now();
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// A restarted server does not number its sessions like the one before.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Peer {
    lines: BufReader<TcpStream>,
}

impl Peer {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Peer {
        self.lines.get_mut().write_all(bytes.as_ref()).unwrap();
        self
    }

    /// The next line; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.lines.read_to_end(&mut rest).unwrap();
        rest
    }

    pub(crate) fn half_close(&mut self) -> &mut Peer {
        self.lines.get_mut().shutdown(Shutdown::Write).unwrap();
        self
    }
}

fn ack(seq: u64) -> String {
    format!("{{\"ack\":{{\"seq\":{seq}}}}}")
}

/// Declares each test twice, once per driver.
macro_rules! on_both_drivers {
    ($(fn $name:ident($driver:ident: Driver) $body:block)+) => {$(
        mod $name {
            use super::*;

            fn check($driver: Driver) $body

            #[test]
            fn on_tokio() {
                check(Driver::Tokio);
            }

            #[test]
            fn on_monoio() {
                check(Driver::Monoio);
            }
        }
    )+};
}

on_both_drivers! {
    fn lines_are_acked_and_a_half_close_is_answered_by_a_close(driver: Driver) {
        let server = Fixture::start(driver, Limits::default());
        let mut peer = server.connect();
        peer.send("{\"a\":1}\n{\"bad\":1}\n{\"a\":3}\n{\"a\":4").half_close();
        let text = String::from_utf8(peer.rest()).unwrap();
        assert_eq!(
            text,
            "{\"reject\":{\"seq\":2,\"code\":\"unknown_field\",\"detail\":\"no such field\",\"pointer\":\"/bad\"}}\n\
             {\"ack\":{\"seq\":3}}\n"
        );
        assert_eq!(server.engine.taken(), [1, 3]);
        server.until(|engine| engine.state().closed.len() == 1);
    }

    fn frames_are_acked(driver: Driver) {
        let server = Fixture::start(driver, Limits::default());
        let mut peer = server.connect();
        let mut bytes = Vec::new();
        write_frame(&mut bytes, Kind::Hello, 0, 0, |p| p.extend_from_slice(b"{\"producer\":\"p\"}"));
        let mut builder = EventsBuilder::default();
        for _ in 0..1000 {
            assert!(builder.try_push(b"{\"a\":1}"));
        }
        builder.finish(1, &mut bytes);
        peer.send(bytes).half_close();
        let found = frames(&peer.rest());
        assert!(found[0].starts_with("WELCOME 0"), "{found:?}");
        assert_eq!(found.last().unwrap(), "ACK 1000");
        assert_eq!(server.engine.taken().len(), 1000);
    }

    fn an_ack_follows_a_wake_up_from_another_thread(driver: Driver) {
        let server = Fixture::start(driver, Limits::default());
        server.engine.state().hold = true;
        let mut peer = server.connect();
        peer.send("{\"a\":1}\n");
        server.until(|engine| engine.held() == 1);
        server.engine.settle();
        assert_eq!(peer.line(), ack(1));
        peer.send("{\"a\":2}\n");
        server.until(|engine| engine.held() == 1);
        server.engine.settle();
        assert_eq!(peer.line(), ack(2));
    }

    fn a_producer_resumes_and_the_newer_connection_fences_the_older(driver: Driver) {
        let server = Fixture::start(driver, Limits::default());
        let mut old = server.connect();
        old.send("{\"hello\":{\"producer\":\"p\"}}\n{\"seq\":1}\n");
        assert_eq!(old.line(), "{\"welcome\":{\"producer\":\"p\",\"last_seq\":0}}");
        assert_eq!(old.line(), ack(1));
        let mut new = server.connect();
        new.send("{\"hello\":{\"producer\":\"p\"}}\n");
        assert_eq!(new.line(), "{\"welcome\":{\"producer\":\"p\",\"last_seq\":1}}");
        assert_eq!(old.line(), "{\"error\":{\"code\":\"replaced\"}}");
        assert_eq!(old.line(), "");
        new.send("{\"seq\":1}\n{\"seq\":2}\n");
        assert_eq!(new.line(), ack(2));
        assert_eq!(server.engine.taken(), [1, 2]);
    }

    fn a_large_stream_arrives_whole_through_small_windows(driver: Driver) {
        let limits = Limits {
            session: SessionLimits { unacked_bytes_max: 1, output_bytes_max: 2000, unacked_batches_max: 2 },
            ..Limits::default()
        };
        let server = Fixture::start(driver, limits);
        let peer = server.connect();
        const LINES: u64 = 20_000;
        let mut sender = peer.lines.get_ref().try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let filler = "x".repeat(300);
            let mut stream = String::new();
            for n in 1..=LINES {
                let key = if n % 10 == 0 { "bad" } else { "a" };
                stream.push_str(&format!("{{\"{key}\":\"{filler}\"}}\n"));
            }
            sender.write_all(stream.as_bytes()).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let mut peer = peer;
        let text = String::from_utf8(peer.rest()).unwrap();
        sending.join().unwrap();
        assert!(text.ends_with(&format!("{}\n", ack(LINES))));
        assert_eq!(text.matches("reject").count() as u64, LINES / 10);
        let good: Vec<u64> = (1..=LINES).filter(|n| n % 10 != 0).collect();
        assert_eq!(server.engine.taken(), good);
    }

    fn full_rings_hold_back_the_client_and_heal_without_a_wake_up(driver: Driver) {
        let server = Fixture::start(driver, Limits::default());
        server.engine.state().ring_full = true;
        let mut peer = server.connect();
        peer.send("{\"a\":1}\n");
        // Filled until neither side takes more: the kernel's buffers are all that grows.
        let stream = peer.lines.get_ref();
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(100_000));
        let mut lines = 1u64;
        let partial = 'fill: loop {
            let mut rest = line.as_bytes();
            while !rest.is_empty() {
                match peer.lines.get_mut().write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(_) => break 'fill rest.len(),
                }
            }
            lines += 1;
            assert!(lines < 2000, "200 MB were taken while the rings were full");
        };
        assert!(server.engine.taken().is_empty());
        server.engine.state().ring_full = false;
        let stream = peer.lines.get_ref();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        peer.send(&line.as_bytes()[line.len() - partial..]);
        if partial > 0 { lines += 1; }
        peer.half_close();
        let text = String::from_utf8(peer.rest()).unwrap();
        assert!(text.ends_with(&format!("{}\n", ack(lines))), "{text} {lines}");
    }

    fn a_refused_disk_closes_after_the_reject(driver: Driver) {
        let server = Fixture::start(driver, Limits::default());
        server.engine.state().hold = true;
        let mut peer = server.connect();
        peer.send("{\"a\":1}\n{\"a\":2}\n");
        server.until(|engine| engine.held() == 1);
        server.engine.settle_one(false, |settled| {
            settled.retry = Some((2, Refusal::new(Code::DiskFull, "the disk is full")));
        });
        assert_eq!(peer.line(), ack(1));
        assert!(peer.line().contains("\"retry\":true"));
        assert_eq!(peer.line(), "");
    }

    fn last_words_reach_a_client_that_is_still_sending(driver: Driver) {
        let server = Fixture::start(driver, Limits::default());
        let mut peer = server.connect();
        peer.send("{\"seq\":5}\n");
        let filler = "{\"a\":1}\n".repeat(10_000);
        peer.send(&filler);
        assert_eq!(peer.line(), "{\"error\":{\"code\":\"seq_gap\",\"expected\":1}}");
        assert_eq!(peer.line(), "");
    }

    fn too_many_connections_are_turned_away_with_a_reason(driver: Driver) {
        let limits = Limits { connections_max: 2, connections_per_ip_max: 1, ..Limits::default() };
        let server = Fixture::start(driver, limits);
        let mut first = server.connect();
        first.send("{\"a\":1}\n");
        assert_eq!(first.line(), ack(1));
        let mut second = server.connect();
        assert!(second.line().contains("too many connections from this address"));
        assert_eq!(second.line(), "");
        // The seat is free again once the first is gone.
        first.half_close();
        assert_eq!(first.line(), "");
        server.until(|engine| engine.state().closed.len() == 1);
        loop {
            let mut third = server.connect();
            third.send("{\"a\":1}\n");
            if third.line() == ack(1) { break; }
        }
    }

    fn clients_that_keep_the_server_waiting_are_told_and_closed(driver: Driver) {
        let short = Duration::from_millis(50);
        let rows: [(&str, TimeLimits); 3] = [
            ("", TimeLimits { hello: short, ..TimeLimits::default() }),
            ("{\"a\":1}\n{\"a\":", TimeLimits { message: short, ..TimeLimits::default() }),
            ("{\"a\":1}\n", TimeLimits { idle: short, ..TimeLimits::default() }),
        ];
        for (bytes, time) in rows {
            let server = Fixture::start(driver, Limits { time, ..Limits::default() });
            let mut peer = server.connect();
            peer.send(bytes);
            let text = String::from_utf8(peer.rest()).unwrap();
            let last = text.lines().last().unwrap();
            assert!(last.starts_with("{\"error\":{\"code\":\"timeout\""), "{text}");
        }
    }

    fn a_client_that_never_closes_is_cut(driver: Driver) {
        let time = TimeLimits { linger: Duration::from_millis(50), ..TimeLimits::default() };
        let server = Fixture::start(driver, Limits { time, ..Limits::default() });
        let mut peer = server.connect();
        peer.send("\0");
        assert!(peer.line().starts_with("{\"error\":{\"code\":\"malformed\""));
        assert_eq!(peer.line(), "");
        server.until(|engine| engine.state().closed.len() == 1);
    }

    fn a_client_that_does_not_read_is_cut(driver: Driver) {
        let time = TimeLimits { write: Duration::from_millis(100), ..TimeLimits::default() };
        let server = Fixture::start(driver, Limits { time, ..Limits::default() });
        let mut peer = server.connect();
        let flood = "x\n".repeat(50_000);
        let stream = peer.lines.get_mut();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // Every two bytes are answered by seventy that are never read.
        while stream.write_all(flood.as_bytes()).is_ok() {}
        server.until(|engine| engine.state().closed.len() == 1);
    }

    fn a_stop_acks_what_was_taken_and_ends_the_thread(driver: Driver) {
        let mut server = Fixture::start(driver, Limits::default());
        server.engine.state().hold = true;
        let mut peer = server.connect();
        let mut idle = server.connect();
        peer.send("{\"a\":1}\n");
        server.until(|engine| engine.held() == 1);
        server.stop.stop();
        assert_eq!(idle.line(), "");
        server.engine.settle();
        assert_eq!(peer.line(), ack(1));
        assert_eq!(peer.line(), "");
        drop((peer, idle));
        server.stop();
        assert!(TcpStream::connect(server.addr).is_err(), "the port is closed");
    }

    fn a_stop_before_the_start_ends_it(driver: Driver) {
        let mut server = Fixture::start(driver, Limits::default());
        server.stop();
    }

    fn a_hundred_clients_come_and_go(driver: Driver) {
        let server = Fixture::start(driver, Limits::default());
        let addr = server.addr;
        let clients: Vec<_> = (0..4).map(|thread| std::thread::spawn(move || {
            for n in 0..25 {
                let stream = TcpStream::connect(addr).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut peer = Peer { lines: BufReader::new(stream) };
                peer.send(format!("{{\"hello\":{{\"producer\":\"{thread}-{n}\"}}}}\n{{\"a\":1}}\n"));
                if n % 3 == 0 { continue; } // gone without a word
                peer.line();
                assert_eq!(peer.line(), ack(1));
            }
        })).collect();
        for client in clients {
            client.join().unwrap();
        }
        server.until(|engine| engine.state().closed.len() == 100);
    }
}
