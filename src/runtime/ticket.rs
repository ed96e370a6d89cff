//! One batch from one sender on its way through several shards, until all have it on disk.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::refusal::Code;
use tokio::sync::oneshot;

use super::intake::{Completion, CompletionQueue};

/// The numbers of a batch that were not taken, by the reason.
pub(crate) type Refused = Vec<(Vec<u64>, Code)>;

/// A batch that waits for its shards.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Parts not settled yet.
    open: AtomicU32,
    /// Numbers that a shard could not take, and why.
    refused: Mutex<Refused>,
    waiter: Mutex<Option<Waiter>>,
}

/// Who waits for a batch.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A session of an ingest thread.
    Session {
        /// The batch, as its thread knows it.
        batch: Completion,
        /// Where that thread looks.
        queue: CompletionQueue,
    },
    /// A request of the HTTP API: told which of its events were not taken.
    Request(oneshot::Sender<Refused>),
}

/// One shard's part of a batch. Settled exactly once; one that is dropped unsettled counts as
/// refused, so that nobody waits for a shard that is gone.
#[derive(Debug)]
pub(crate) struct Part {
    ticket: Arc<Ticket>,
    /// The numbers that this shard got.
    seqs: Vec<u64>,
    settled: bool,
}

impl Ticket {
    /// A batch in as many parts as there are lists of numbers.
    pub(crate) fn split(waiter: Waiter, parts: Vec<Vec<u64>>) -> Vec<Part> {
        let ticket = Arc::new(Self {
            open: AtomicU32::new(parts.len() as u32),
            refused: Mutex::new(Vec::new()),
            waiter: Mutex::new(Some(waiter)),
        });
        if parts.is_empty() {
            ticket.finish();
        }
        parts
            .into_iter()
            .map(|seqs| Part {
                ticket: ticket.clone(),
                seqs,
                settled: false,
            })
            .collect()
    }

    fn finish(&self) {
        let refused = std::mem::take(&mut *lock(&self.refused));
        match lock(&self.waiter).take() {
            Some(Waiter::Session { mut batch, queue }) => {
                batch.refused = refused;
                queue.push(batch);
            }
            Some(Waiter::Request(reply)) => {
                // A caller that went away does not hear that its events are safe; they are.
                let _gone = reply.send(refused);
            }
            None => {}
        }
    }
}

impl Part {
    /// The shard has it on disk.
    pub(crate) fn durable(mut self) {
        self.settle(None);
    }

    /// The shard did not take it.
    pub(crate) fn refused(mut self, code: Code) {
        self.settle(Some(code));
    }

    fn settle(&mut self, refused: Option<Code>) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        if let Some(code) = refused {
            lock(&self.ticket.refused).push((std::mem::take(&mut self.seqs), code));
        }
        if self.ticket.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ticket.finish();
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.settle(Some(Code::ShardDown));
    }
}

/// A panic while one of these short sections ran leaves plain data behind.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parts: &[&[u64]]) -> (Vec<Part>, oneshot::Receiver<Refused>) {
        let (reply, answer) = oneshot::channel();
        let parts = parts.iter().map(|part| part.to_vec()).collect();
        (Ticket::split(Waiter::Request(reply), parts), answer)
    }

    #[test]
    fn a_batch_settles_when_its_last_shard_does() {
        let (mut parts, mut answer) = request(&[&[1, 3], &[2]]);
        parts.remove(0).durable();
        assert!(answer.try_recv().is_err());
        parts.remove(0).durable();
        assert_eq!(answer.try_recv(), Ok(vec![]));
    }

    #[test]
    fn what_one_shard_refused_is_told_by_number() {
        let (mut parts, mut answer) = request(&[&[1, 3], &[2]]);
        parts.remove(0).refused(Code::DiskFull);
        parts.remove(0).durable();
        assert_eq!(answer.try_recv(), Ok(vec![(vec![1, 3], Code::DiskFull)]));
    }

    #[test]
    fn a_shard_that_vanishes_settles_its_part_as_refused() {
        let (parts, mut answer) = request(&[&[1]]);
        drop(parts);
        assert_eq!(answer.try_recv(), Ok(vec![(vec![1], Code::ShardDown)]));
    }

    #[test]
    fn a_batch_without_parts_is_settled_at_once() {
        let (parts, mut answer) = request(&[]);
        assert!(parts.is_empty());
        assert_eq!(answer.try_recv(), Ok(vec![]));
    }
}
