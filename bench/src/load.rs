//! The load generator: one thread, many connections, scheduled send times.
//!
//! In the open loop an event's latency runs from the instant it was due, so that a server that
//! stalls is charged for every event that had to wait meanwhile.

mod connection;
mod pace;
mod tick;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

pub(crate) use self::connection::LoadError;
use self::connection::{Connection, Heard};
pub(crate) use self::pace::Rate;
use self::pace::Schedule;
use self::tick::Tick;
use crate::events::EventPool;
use crate::wire::Encoding;

/// What is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct LoadPlan {
    pub(crate) target: SocketAddr,
    pub(crate) encoding: Encoding,
    pub(crate) connections: usize,
    /// Events per request; HTTP only.
    pub(crate) batch: usize,
    pub(crate) rate: Rate,
    pub(crate) lasts: Duration,
    /// At the maximum rate: events of one connection that may be unanswered.
    pub(crate) window: u64,
    /// At the maximum rate: events that may be sent and not delivered.
    pub(crate) backlog_max: u64,
    /// How long answers are waited for after the last event was sent.
    pub(crate) patience: Duration,
}

/// Where the load stands, for whoever watches from another thread.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) sent: AtomicU64,
    pub(crate) settled: AtomicU64,
    /// Set by who counts at the sink.
    pub(crate) delivered: AtomicU64,
}

/// What became of the events.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// When the first event was due.
    pub(crate) started: Instant,
    /// From there to the last answer.
    pub(crate) took: Duration,
    /// Due in the open loop, sent at the maximum rate.
    pub(crate) attempted: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: BTreeMap<String, u64>,
    /// Connections that ended before their time.
    pub(crate) broken: Vec<String>,
    /// Microseconds from due to settled. What was never settled is in it with the time it was
    /// waited for.
    pub(crate) latency_us: Histogram<u64>,
}

impl LoadPlan {
    /// Sends everything and waits for the answers.
    ///
    /// # Errors
    /// No connection could be made or welcomed. A connection that breaks later is an outcome.
    pub(crate) fn run(&self, pool: &EventPool, progress: &Progress) -> Result<Outcome, LoadError> {
        let mut load = Load::connect(self, pool)?;
        load.wait_for_welcomes()?;
        load.start();
        load.send_all(progress)?;
        Ok(load.conclude())
    }
}

struct Load<'a> {
    plan: &'a LoadPlan,
    pool: &'a EventPool,
    poll: Poll,
    tick: Tick,
    connections: Vec<Connection>,
    schedule: Option<Schedule>,
    started: Instant,
    buffer: Vec<u8>,
    latency_us: Histogram<u64>,
    refused: BTreeMap<String, u64>,
    broken: Vec<String>,
}

impl<'a> Load<'a> {
    fn connect(plan: &'a LoadPlan, pool: &'a EventPool) -> Result<Load<'a>, LoadError> {
        let poll = Poll::new().map_err(LoadError::Poll)?;
        let tick = Tick::new(poll.registry(), TICK_TOKEN).map_err(LoadError::Poll)?;
        let connections = (0..plan.connections)
            .map(|at| Connection::open(plan, at, poll.registry(), Token(at)))
            .collect::<Result<_, _>>()?;
        let schedule = match plan.rate {
            Rate::PerSecond(rate) => Some(Schedule::new(rate, plan.connections, plan.lasts)),
            Rate::Max => None,
        };
        Ok(Load {
            plan,
            pool,
            poll,
            tick,
            connections,
            schedule,
            started: Instant::now(),
            buffer: vec![0; READ_BYTES],
            latency_us: Histogram::new(3).expect("3 digits are in range"),
            refused: BTreeMap::new(),
            broken: Vec::new(),
        })
    }

    fn wait_for_welcomes(&mut self) -> Result<(), LoadError> {
        let deadline = Instant::now() + WELCOME_PATIENCE;
        for connection in &mut self.connections {
            connection.flush()?;
        }
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        while self.connections.iter().any(|c| !c.is_welcome()) {
            if Instant::now() > deadline {
                return Err(LoadError::NoWelcome);
            }
            wait(&mut self.poll, &mut events, WELCOME_POLL)?;
            for event in &events {
                if let Some(connection) = self.connections.get_mut(event.token().0) {
                    connection.read(&mut self.buffer, |_| ())?;
                    connection.flush()?;
                }
            }
        }
        Ok(())
    }

    fn start(&mut self) {
        self.started = Instant::now();
    }

    fn send_all(&mut self, progress: &Progress) -> Result<(), LoadError> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let mut quiet_since = self.started;
        let mut settled_before = 0;
        loop {
            let elapsed = self.started.elapsed();
            self.fill(elapsed, progress);
            let (sent, settled) = self.totals();
            progress.sent.store(sent, Ordering::Relaxed);
            progress.settled.store(settled, Ordering::Relaxed);
            if settled > settled_before {
                (settled_before, quiet_since) = (settled, Instant::now());
            }
            let out_of_patience =
                elapsed > self.plan.lasts && quiet_since.elapsed() > self.plan.patience;
            if self.is_done(elapsed) || out_of_patience {
                return Ok(());
            }
            let pause = self.arm(elapsed)?;
            wait(&mut self.poll, &mut events, pause)?;
            for event in &events {
                match event.token() {
                    TICK_TOKEN => self.tick.clear(),
                    Token(at) => self.hear(at),
                }
            }
        }
    }

    /// Hands every connection what is due and what it has room for.
    fn fill(&mut self, elapsed: Duration, progress: &Progress) {
        let delivered = progress.delivered.load(Ordering::Relaxed);
        let mut backlog_room = match self.schedule {
            Some(_) => u64::MAX,
            None => (self.plan.backlog_max + delivered).saturating_sub(self.totals().0),
        };
        let over = elapsed >= self.plan.lasts;
        let stride = self.connections.len() as u64;
        for (at, connection) in self.connections.iter_mut().enumerate() {
            if connection.is_broken() {
                continue;
            }
            let wanted = match self.schedule {
                Some(schedule) => schedule.due(at, elapsed) - connection.sent(),
                None if over => 0,
                None => (self.plan.window - connection.unsettled()).min(backlog_room),
            };
            let taken = connection.put(wanted, elapsed, self.pool.event_bytes(), |k, out| {
                self.pool.write(k * stride + at as u64, out);
            });
            backlog_room = backlog_room.saturating_sub(taken);
            if let Err(error) = connection.flush() {
                self.broken.push(error.to_string());
            }
        }
    }

    /// Reads what one connection has to say.
    fn hear(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if connection.is_broken() {
            return;
        }
        let now = self.started.elapsed();
        let (latency_us, refused, schedule) =
            (&mut self.latency_us, &mut self.refused, &self.schedule);
        let read = connection.read(&mut self.buffer, |heard| match heard {
            Heard::Refused { count, code } => *refused.entry(code).or_default() += count,
            Heard::Settled { from, to, sent_at } => match (schedule, sent_at) {
                (Some(schedule), _) => {
                    for k in from..to {
                        record(latency_us, now, schedule.due_at(at, k), 1);
                    }
                }
                (None, Some(sent_at)) => record(latency_us, now, sent_at, to - from),
                (None, None) => {}
            },
        });
        if let Err(error) = read.and_then(|()| connection.flush()) {
            self.broken.push(error.to_string());
        }
    }

    fn totals(&self) -> (u64, u64) {
        self.connections
            .iter()
            .fold((0, 0), |(sent, settled), connection| {
                (sent + connection.sent(), settled + connection.settled())
            })
    }

    fn is_done(&self, elapsed: Duration) -> bool {
        let live = || self.connections.iter().filter(|c| !c.is_broken());
        if live().next().is_none() {
            return true;
        }
        elapsed >= self.plan.lasts
            && live().all(|c| c.unsettled() == 0)
            && self.schedule.is_none_or(|schedule| {
                let mut all = self.connections.iter().enumerate();
                all.all(|(at, c)| c.is_broken() || c.sent() == schedule.due(at, LONGEST_RUN))
            })
    }

    /// Sets the tick to when the next event is due; answers how long to wait at most.
    fn arm(&mut self, elapsed: Duration) -> Result<Duration, LoadError> {
        let Some(schedule) = self.schedule else {
            return Ok(CLOSED_LOOP_POLL);
        };
        let next = (0..self.connections.len())
            .filter(|&at| !self.connections[at].is_broken())
            .map(|at| schedule.due_at(at, schedule.due(at, elapsed)))
            .min();
        if let Some(next) = next {
            let pause = next.saturating_sub(elapsed).max(TICK_MIN);
            self.tick.arm(pause).map_err(LoadError::Poll)?;
        }
        Ok(OPEN_LOOP_POLL)
    }

    fn conclude(mut self) -> Outcome {
        let took = self.started.elapsed();
        let (sent, settled) = self.totals();
        let attempted = self.schedule.map_or(sent, |schedule| schedule.total());
        for (at, connection) in self.connections.iter().enumerate() {
            match self.schedule {
                Some(schedule) => {
                    for k in connection.settled()..schedule.due(at, LONGEST_RUN) {
                        record(&mut self.latency_us, took, schedule.due_at(at, k), 1);
                    }
                }
                None => connection.each_unsettled(|sent_at, count| {
                    record(&mut self.latency_us, took, sent_at, count);
                }),
            }
        }
        let refused: u64 = self.refused.values().sum();
        Outcome {
            started: self.started,
            took,
            attempted,
            accepted: settled.saturating_sub(refused),
            refused: self.refused,
            broken: self.broken,
            latency_us: self.latency_us,
        }
    }
}

fn record(latency_us: &mut Histogram<u64>, now: Duration, since: Duration, count: u64) {
    let micros = now.saturating_sub(since).as_micros() as u64;
    latency_us
        .record_n(micros.max(1), count)
        .expect("the histogram grows");
}

fn wait(poll: &mut Poll, events: &mut Events, at_most: Duration) -> Result<(), LoadError> {
    match poll.poll(events, Some(at_most)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        other => other.map_err(LoadError::Poll),
    }
}

const TICK_TOKEN: Token = Token(usize::MAX);
const EVENTS_PER_POLL: usize = 1024;
const READ_BYTES: usize = 256 << 10;
/// The program answers a hello in milliseconds; it may be recovering.
const WELCOME_PATIENCE: Duration = Duration::from_secs(10);
const WELCOME_POLL: Duration = Duration::from_millis(100);
/// At most 4,000 wake-ups a second; adds 0.13 ms to the mean of a rate above that.
const TICK_MIN: Duration = Duration::from_micros(250);
/// Answers wake the closed loop; this bounds how late it sees what was delivered.
const CLOSED_LOOP_POLL: Duration = Duration::from_millis(5);
const OPEN_LOOP_POLL: Duration = Duration::from_millis(100);
/// By then all events of a schedule are due.
const LONGEST_RUN: Duration = Duration::from_secs(1 << 32);

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that acknowledges nothing until it has `held` events, and then each line; it
    /// answers nothing at all after `lines` of them.
    fn run(rate: Rate, lasts_ms: u64, held: u64, lines: u64) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = LoadPlan {
            target: listener.local_addr().unwrap(),
            encoding: Encoding::Lines,
            connections: 1,
            batch: 1,
            rate,
            lasts: Duration::from_millis(lasts_ms),
            window: 64,
            backlog_max: 1 << 40,
            patience: Duration::from_millis(300),
        };
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut answers = stream.try_clone().unwrap();
            answers
                .write_all(b"{\"welcome\":{\"last_seq\":0}}\n")
                .unwrap();
            // The first line is the hello.
            let numbered = BufReader::new(stream).lines().zip(0u64..);
            for (line, seq) in numbered {
                if line.is_err() {
                    break;
                }
                if (held..=lines).contains(&seq) && seq > 0 {
                    let ack = format!("{{\"ack\":{{\"seq\":{seq}}}}}\n");
                    if answers.write_all(ack.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        let pool = EventPool::render(10, 400, "upsert".parse().unwrap(), 1).unwrap();
        let outcome = plan.run(&pool, &Progress::default()).unwrap();
        server.join().unwrap();
        outcome
    }

    fn per_second(rate: u64) -> Rate {
        Rate::PerSecond(rate.try_into().unwrap())
    }

    #[test]
    fn a_stall_is_charged_to_every_event_that_was_due_meanwhile() {
        let outcome = run(per_second(1000), 400, 200, u64::MAX);
        assert_eq!((outcome.attempted, outcome.accepted), (400, 400));
        // The 200th is due at 199 ms, and the first has waited since 0.
        assert!(outcome.latency_us.max() >= 199_000);
        let slow = outcome.latency_us.count_between(100_000, u64::MAX);
        assert!(slow >= 99, "{slow} of the 100 due in the first 100 ms");
    }

    #[test]
    fn what_is_never_answered_is_no_success_and_counts_in_the_latency() {
        let outcome = run(per_second(1000), 100, 0, 50);
        assert_eq!((outcome.attempted, outcome.accepted), (100, 50));
        assert_eq!(outcome.latency_us.len(), 100);
        // Not told for 300 ms, which begin about when the first of them was due.
        assert!(outcome.latency_us.max() >= 250_000);
    }

    #[test]
    fn the_maximum_rate_keeps_to_its_window() {
        let outcome = run(Rate::Max, 50, 0, u64::MAX);
        assert!(outcome.attempted > 64 && outcome.accepted == outcome.attempted);
        let starved = run(Rate::Max, 50, u64::MAX, u64::MAX);
        assert_eq!((starved.attempted, starved.accepted), (64, 0));
        assert_eq!(starved.latency_us.len(), 64);
    }
}
