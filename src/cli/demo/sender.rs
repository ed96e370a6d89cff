//! The producer: streams events over TCP at a rate, whatever becomes of the engine meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use net::client::{Client, ClientError, Notice, Options, Reject};
use serde_json::Value;

use super::system_a::SystemA;
use super::workload::Workload;

/// A stream under way on its own thread.
#[derive(Debug)]
pub(super) struct Sender {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Sent, ClientError>>>,
}

/// What came of the stream.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// What was acknowledged and not refused, folded in order.
    pub(super) system_a: SystemA,
    /// Numbers that were acknowledged, refused ones too: 1 up to this.
    pub(super) acked: u64,
    /// The refused events by number.
    pub(super) refused: BTreeMap<u64, Refused>,
    /// The longest time without an acknowledgement while some were due.
    pub(super) longest_gap: Duration,
}

/// An event that was refused for good.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) event: String,
    pub(super) reject: Reject,
}

#[derive(Debug, Default)]
struct Shared {
    sent: AtomicU64,
    acked: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
    first_refused: Mutex<Option<Refused>>,
}

/// The producer's name, under which the engine keeps the numbers.
pub(super) const PRODUCER: &str = "demo";

/// Without an acknowledgement for so long, the stream gives up: several times what a recovery takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest wait for a notice; bounds how late a stop is seen.
const TURN: Duration = Duration::from_millis(20);
/// Between two tries to connect: short, so that the first ack after a kill tells the recovery.
const RECONNECT_AFTER: Duration = Duration::from_millis(20);

impl Sender {
    /// Streams `rate` events a second for `duration`, or all of a file.
    pub(super) fn start(
        to: SocketAddr,
        workload: Workload,
        rate: u32,
        duration: Duration,
    ) -> Sender {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut options = Options::new(to.to_string(), PRODUCER);
            options.connect_timeout = Duration::from_secs(2);
            let stopping = Arc::clone(&theirs);
            options.retry = Box::new(move |failure| {
                let goes_on =
                    failure.without_progress < PATIENCE && !stopping.stop.load(Ordering::Relaxed);
                goes_on.then_some(RECONNECT_AFTER)
            });
            let stream = Stream {
                client: Client::connect(options)?,
                shared: theirs,
                waiting: VecDeque::new(),
                refused: BTreeMap::new(),
                sent: Sent::default(),
                last_heard: Instant::now(),
            };
            stream.run(workload, rate, duration)
        });
        Sender {
            shared,
            thread: Some(thread),
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    pub(super) fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// The first refused event, once.
    pub(super) fn take_first_refused(&self) -> Option<Refused> {
        self.shared
            .first_refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Whether the stream is over, well or not.
    pub(super) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end of the stream.
    pub(super) fn join(mut self) -> Result<Sent, ClientError> {
        let thread = self
            .thread
            .take()
            .expect("taken here only, and by the drop after");
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its result matters to nobody who drops it.
            drop(thread.join());
        }
    }
}

struct Stream {
    client: Client,
    shared: Arc<Shared>,
    /// Sent and neither acknowledged nor refused.
    waiting: VecDeque<(u64, String)>,
    /// Refused, and not yet covered by an ack.
    refused: BTreeMap<u64, Reject>,
    sent: Sent,
    last_heard: Instant,
}

impl Stream {
    fn run(
        mut self,
        mut workload: Workload,
        rate: u32,
        duration: Duration,
    ) -> Result<Sent, ClientError> {
        let begun = Instant::now();
        let gap = Duration::from_secs(1) / rate;
        let end = if workload.left().is_some() {
            Duration::MAX
        } else {
            duration
        };
        // Times are fixed beforehand, so that a stall is caught up and not hidden.
        let mut due = Duration::ZERO;
        while due < end && !self.shared.stop.load(Ordering::Relaxed) {
            let now = begun.elapsed();
            if now < due {
                let notice = self.client.wait_notice((due - now).min(TURN))?;
                self.hear(notice);
                continue;
            }
            let Some(event) = workload.next() else { break };
            if self.waiting.is_empty() {
                self.last_heard = Instant::now();
            }
            let seq = self.client.send(event.as_bytes())?;
            self.waiting.push_back((seq, event));
            self.shared.sent.store(seq, Ordering::Relaxed);
            self.client.push()?;
            self.hear(None);
            due += gap;
        }
        while self.client.unacked() > 0 && !self.shared.stop.load(Ordering::Relaxed) {
            let notice = self.client.wait_notice(TURN)?;
            self.hear(notice);
        }
        self.hear(None);
        Ok(self.sent)
    }

    /// Takes in this notice and all others that are there.
    fn hear(&mut self, first: Option<Notice>) {
        let mut next = first;
        while let Some(notice) = next.take().or_else(|| self.client.next_notice()) {
            match notice {
                Notice::Reject(reject) => {
                    self.refused.insert(reject.seq, reject);
                }
                Notice::Ack(seq) => self.settle(seq),
            }
        }
    }

    fn settle(&mut self, acked: u64) {
        self.sent.longest_gap = self.sent.longest_gap.max(self.last_heard.elapsed());
        self.last_heard = Instant::now();
        self.sent.acked = self.sent.acked.max(acked);
        while let Some((seq, event)) = self.waiting.pop_front_if(|(seq, _)| *seq <= acked) {
            match self.refused.remove(&seq) {
                Some(reject) => self.note_refused(seq, Refused { event, reject }),
                None => {
                    // What was taken is JSON.
                    if let Ok(event) = serde_json::from_str::<Value>(&event) {
                        self.sent.system_a.apply(&event);
                    }
                }
            }
        }
        self.shared.acked.store(acked, Ordering::Relaxed);
    }

    fn note_refused(&mut self, seq: u64, refused: Refused) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let mut first = self
            .shared
            .first_refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.sent.refused.is_empty() {
            *first = Some(refused.clone());
        }
        drop(first);
        self.sent.refused.insert(seq, refused);
    }
}
