//! An engine in memory: takes events, settles them when told, forgets nothing.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};

use syncline_net::gate::WakeGate;
use syncline_net::ingest::{
    BatchId, Busy, Code, Greeting, Intake, Producer, Refusal, SessionId, Settled, Welcome,
};

/// The engine as a test sees it; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Engine {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// Events that are durable, in order of their batches.
    pub(crate) taken: Vec<(Option<String>, u64, String)>,
    /// Numbers that were refused when staged, with their batch's codes.
    pub(crate) refused: Vec<(u64, Code)>,
    /// Highest settled number of each producer.
    pub(crate) last_seq: HashMap<String, u64>,
    /// Durable numbers above it, handed out with the next welcome.
    pub(crate) already: HashMap<String, Vec<u64>>,
    /// Batches wait for [`Engine::settle`] instead of settling at once.
    pub(crate) hold: bool,
    /// Dispatches are refused with `Busy`.
    pub(crate) ring_full: bool,
    /// Hellos are answered `Later`.
    pub(crate) hello_later: bool,
    /// How often an event that asks for it finds the disk full; `None`: always.
    pub(crate) disk_full_times: Option<usize>,
    /// Hellos need this key.
    pub(crate) key: Option<String>,
    pub(crate) closed: Vec<SessionId>,
    pub(crate) dispatches: usize,
    live: HashMap<String, SessionId>,
    names: HashMap<SessionId, Option<String>>,
    staged: HashMap<SessionId, Vec<(u64, String)>>,
    in_flight: VecDeque<Batch>,
    settled: VecDeque<Settled>,
    fenced: VecDeque<SessionId>,
    next_batch: u64,
    gate: Option<WakeGate>,
}

struct Batch {
    settled: Settled,
    last_seq: u64,
    events: Vec<(u64, String)>,
}

impl Engine {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Settles one held batch, the newest if `newest`, after `change` had a look at it.
    pub(crate) fn settle_one(&self, newest: bool, change: impl FnOnce(&mut Settled)) {
        let mut state = self.state();
        let batch = if newest {
            state.in_flight.pop_back()
        } else {
            state.in_flight.pop_front()
        };
        let mut batch = batch.expect("a batch is held");
        change(&mut batch.settled);
        state.settle(batch);
    }

    /// Settles every batch held now.
    pub(crate) fn settle(&self) {
        let mut state = self.state();
        while let Some(batch) = state.in_flight.pop_front() {
            state.settle(batch);
        }
    }

    pub(crate) fn wake_by(&self, gate: WakeGate) {
        self.state().gate = Some(gate);
    }

    pub(crate) fn held(&self) -> usize {
        self.state().in_flight.len()
    }

    pub(crate) fn taken(&self) -> Vec<u64> {
        self.state().taken.iter().map(|(_, seq, _)| *seq).collect()
    }
}

impl State {
    fn settle(&mut self, batch: Batch) {
        let name = self.names.get(&batch.settled.session).cloned().flatten();
        let refused: Vec<u64> = batch.settled.refusals.iter().map(|(seq, _)| *seq).collect();
        let not_taken = batch.settled.retry.as_ref().map_or(u64::MAX, |r| r.0);
        for (seq, event) in batch.events {
            if seq < not_taken && !refused.contains(&seq) {
                self.taken.push((name.clone(), seq, event));
            }
        }
        if let Some(name) = name {
            let last = self.last_seq.entry(name).or_default();
            *last = (*last).max(batch.last_seq.min(not_taken - 1));
        }
        self.settled.push_back(batch.settled);
        if let Some(gate) = &self.gate {
            gate.wake();
        }
    }
}

impl Intake for Engine {
    fn hello(&mut self, session: SessionId, producer: Option<&str>, key: Option<&str>) -> Greeting {
        let mut state = self.state();
        if producer.is_some() && state.hello_later {
            return Greeting::Later;
        }
        if state.key.is_some() && state.key.as_deref() != key {
            return Greeting::Refused(Refusal::new(Code::Unauthorized, "no valid key"));
        }
        state.names.insert(session, producer.map(str::to_owned));
        let Some(name) = producer else {
            return Greeting::Welcome(Welcome::default());
        };
        if let Some(old) = state.live.insert(name.to_owned(), session) {
            state.fenced.push_back(old);
        }
        Greeting::Welcome(Welcome {
            last_seq: state.last_seq.get(name).copied().unwrap_or(0),
            already: state.already.remove(name).unwrap_or_default(),
        })
    }

    fn stage(
        &mut self,
        session: SessionId,
        producer: &Producer,
        seq: u64,
        event: &[u8],
    ) -> Result<(), Refusal> {
        let mut state = self.state();
        let text = String::from_utf8(event.to_vec())
            .map_err(|_| Refusal::new(Code::Malformed, "not UTF-8"))?;
        let known = state
            .names
            .get(&session)
            .cloned()
            .expect("hello came first");
        assert_eq!(
            known.as_deref(),
            match producer {
                Producer::Named(name) => Some(&**name),
                Producer::Anonymous => None,
            }
        );
        assert!(!state.closed.contains(&session), "staged after closed");
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|_| Refusal::new(Code::Malformed, "not JSON"))?;
        if value.get("bad").is_some() {
            return Err(Refusal::at(Code::UnknownField, "/bad", "no such field"));
        }
        let full = match &mut state.disk_full_times {
            _ if value.get("full").is_none() => false,
            Some(0) => false,
            Some(times) => {
                *times -= 1;
                true
            }
            None => true,
        };
        if full {
            return Err(Refusal::new(Code::DiskFull, "the disk is full"));
        }
        state.staged.entry(session).or_default().push((seq, text));
        Ok(())
    }

    fn dispatch(
        &mut self,
        session: SessionId,
        last_seq: u64,
        refused: &[(u64, Code)],
    ) -> Result<BatchId, Busy> {
        let mut state = self.state();
        if state.ring_full {
            return Err(Busy);
        }
        state.dispatches += 1;
        state.refused.extend_from_slice(refused);
        let events = mem::take(state.staged.entry(session).or_default());
        state.next_batch += 1;
        let id = BatchId(state.next_batch);
        let batch = Batch {
            settled: Settled {
                session,
                batch: id,
                refusals: Vec::new(),
                retry: None,
            },
            last_seq,
            events,
        };
        if state.hold {
            state.in_flight.push_back(batch);
        } else {
            state.settle(batch);
        }
        Ok(id)
    }

    fn poll_settled(&mut self) -> Option<Settled> {
        self.state().settled.pop_front()
    }

    fn poll_fenced(&mut self) -> Option<SessionId> {
        self.state().fenced.pop_front()
    }

    fn closed(&mut self, session: SessionId) {
        let mut state = self.state();
        state.staged.remove(&session);
        assert!(!state.closed.contains(&session), "closed once");
        state.closed.push(session);
    }
}
