//! The batches of one session that are on their way to the disk, in their order.

use std::collections::VecDeque;

use engine::refusal::Refusal;

use super::intake::BatchId;

/// Dispatched batches, oldest first.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    batches: VecDeque<Batch>,
}

#[derive(Debug)]
struct Batch {
    id: BatchId,
    last_seq: u64,
    bytes: u64,
    settled: bool,
    retry: Option<(u64, Refusal)>,
}

/// A settled batch whose turn has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Everything up to here is settled.
    pub(crate) last_seq: u64,
    /// What the batch held of the session's window.
    pub(crate) bytes: u64,
    /// What was not taken, and is to be tried again.
    pub(crate) retry: Option<(u64, Refusal)>,
}

impl InFlight {
    pub(crate) fn push(&mut self, id: BatchId, last_seq: u64, bytes: u64) {
        self.batches.push_back(Batch {
            id,
            last_seq,
            bytes,
            settled: false,
            retry: None,
        });
    }

    /// Notes that a batch is settled; `false`: it is not one of these.
    pub(crate) fn settle(&mut self, id: BatchId, retry: Option<(u64, Refusal)>) -> bool {
        let Some(batch) = self.batches.iter_mut().find(|b| b.id == id && !b.settled) else {
            return false;
        };
        batch.settled = true;
        batch.retry = retry;
        true
    }

    /// The oldest batch, once it is settled.
    pub(crate) fn poll_done(&mut self) -> Option<Done> {
        let batch = self.batches.pop_front_if(|b| b.settled)?;
        Some(Done {
            last_seq: batch.last_seq,
            bytes: batch.bytes,
            retry: batch.retry,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_settled_out_of_order_are_done_in_order() {
        let mut in_flight = InFlight::default();
        in_flight.push(BatchId(1), 10, 100);
        in_flight.push(BatchId(2), 20, 200);
        assert!(in_flight.settle(BatchId(2), None));
        assert_eq!(in_flight.poll_done(), None);
        assert!(in_flight.settle(BatchId(1), None));
        let seqs: Vec<u64> = std::iter::from_fn(|| in_flight.poll_done())
            .map(|done| done.last_seq)
            .collect();
        assert_eq!(seqs, [10, 20]);
        assert!(in_flight.is_empty());
    }

    #[test]
    fn an_unknown_batch_and_one_settled_twice_are_told() {
        let mut in_flight = InFlight::default();
        in_flight.push(BatchId(1), 10, 100);
        assert!(!in_flight.settle(BatchId(9), None));
        assert!(in_flight.settle(BatchId(1), None));
        assert!(!in_flight.settle(BatchId(1), None));
    }
}
