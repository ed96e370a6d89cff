//! Runs a [`Writer`] on a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::log::{Block, Committed, WriteFailed};
use crate::storage::Storage;
use crate::writer::Writer;

/// One block is out at a time; the second place is for none to wait for the ring itself.
const BLOCKS_QUEUED_MAX: usize = 2;

/// The answer to a block, and a failure in maintenance.
const ANSWERS_QUEUED_MAX: usize = BLOCKS_QUEUED_MAX + 1;

/// Zeros written for the next segment after a commit, when no spare is ready: small, since the
/// next commit waits behind it.
const BUSY_MAINTENANCE_BYTES: usize = 256 * 1024;

/// Zeros written at a time while nothing else is to be done.
const IDLE_MAINTENANCE_BYTES: usize = 1024 * 1024;

/// How often an idle writer looks whether a full disk has room again.
const IDLE_PERIOD: Duration = Duration::from_millis(100);

/// What a commit is answered with; goes to [`Log::on_committed`](crate::Log::on_committed).
pub type Answer = Result<Committed, WriteFailed>;

/// The shard's end of a writer's thread. Dropping it stops the thread after the block it has.
pub struct WriterHandle {
    blocks: Producer<Block>,
    answers: Consumer<Answer>,
    stopping: Arc<AtomicBool>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
    /// The end of the thread was told.
    end_told: bool,
}

/// Starts the writer on a thread called `name`, which calls `wake` after each answer and
/// whenever refused appends may go on.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn<S: Storage>(
    writer: Writer<S>,
    name: &str,
    wake: impl Fn() + Send + 'static,
) -> io::Result<WriterHandle> {
    let (blocks, blocks_out) = RingBuffer::new(BLOCKS_QUEUED_MAX);
    let (answers_in, answers) = RingBuffer::new(ANSWERS_QUEUED_MAX);
    let stopping = Arc::new(AtomicBool::new(false));
    let mut worker = Worker {
        writer,
        blocks: blocks_out,
        answers: answers_in,
        stopping: Arc::clone(&stopping),
        wake,
    };
    let join = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || worker.run())?;
    let thread = join.thread().clone();
    Ok(WriterHandle {
        blocks,
        answers,
        stopping,
        thread,
        join: Some(join),
        end_told: false,
    })
}

impl WriterHandle {
    /// Hands a block to the writer.
    ///
    /// # Panics
    /// When blocks are handed out without waiting for their answers.
    pub fn submit(&mut self, block: Block) {
        assert!(
            self.blocks.push(block).is_ok(),
            "one block is out at a time"
        );
        self.thread.unpark();
    }

    /// The next answer, when there is one. When the thread died, that is told once.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        if let Ok(answer) = self.answers.pop() {
            return Some(answer);
        }
        // Abandoned first and empty second: an answer pushed just before the end is not lost.
        if self.answers.is_abandoned() && !self.end_told {
            self.end_told = true;
            return Some(self.answers.pop().unwrap_or(Err(WriteFailed::WriterGone)));
        }
        None
    }

    /// Stops the thread once it has done what was submitted, and waits for it.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.thread.unpark();
        if let Some(join) = self.join.take() {
            // A panic of the writer was told as WriterGone; there is nobody else to tell here.
            drop(join.join());
        }
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Worker<S: Storage, W> {
    writer: Writer<S>,
    blocks: Consumer<Block>,
    answers: Producer<Answer>,
    stopping: Arc<AtomicBool>,
    wake: W,
}

impl<S: Storage, W: Fn()> Worker<S, W> {
    fn run(&mut self) {
        loop {
            if let Ok(block) = self.blocks.pop() {
                let answer = self.writer.commit(block);
                self.answer(answer);
                if self.writer.wants_maintenance() {
                    self.maintain(BUSY_MAINTENANCE_BYTES);
                }
                continue;
            }
            if self.stopping.load(Ordering::Acquire) {
                // Submitted before the stop, seen after: the stop orders both.
                if self.blocks.is_empty() {
                    return;
                }
                continue;
            }
            if !self.maintain(IDLE_MAINTENANCE_BYTES) {
                thread::park_timeout(IDLE_PERIOD);
            }
        }
    }

    /// True when there is more to do at once.
    fn maintain(&mut self, bytes_max: usize) -> bool {
        match self.writer.maintain(bytes_max) {
            Ok(done) => {
                if done.space_added {
                    (self.wake)();
                }
                done.more
            }
            // Told when it happened.
            Err(WriteFailed::Poisoned) => false,
            Err(error) => {
                self.answer(Err(error));
                false
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        // Full only when the shard stopped listening; then nobody misses the answer.
        drop(self.answers.push(answer));
        (self.wake)();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::sim::{SimFaults, SimStorage};
    use crate::{
        Class, Durability, FrameKind, InstanceId, Log, LogId, LogLimits, LogOptions, Lsn, OpenMode,
    };

    fn start(storage: &SimStorage) -> (Log<SimStorage>, WriterHandle, mpsc::Receiver<()>) {
        let options = LogOptions {
            log: LogId {
                generation: 0,
                shard: 0,
            },
            instance: InstanceId([1; 16]),
            mode: OpenMode::Create,
            durability: Durability::Fsync,
            limits: LogLimits {
                segment_bytes: 4 << 20,
                segment_bytes_min: 4 << 20,
                outcome_reserve_bytes: 0,
                ..LogLimits::default()
            },
            salt_seed: 1,
        };
        let (log, writer, _) =
            Log::open(storage.clone(), options, Lsn::ZERO, |_, _, _| Ok(())).unwrap();
        let (woken, wakes) = mpsc::sync_channel(1000);
        let handle = spawn(writer, "writer", move || {
            // The test may have stopped listening.
            woken.try_send(()).ok();
        });
        (log, handle.unwrap(), wakes)
    }

    fn wait(handle: &mut WriterHandle, wakes: &mpsc::Receiver<()>) -> Answer {
        loop {
            if let Some(answer) = handle.poll_answer() {
                return answer;
            }
            wakes.recv().unwrap();
        }
    }

    #[test]
    fn blocks_go_round_and_segments_are_prepared_meanwhile() {
        let storage = SimStorage::new();
        let (mut log, mut handle, wakes) = start(&storage);
        let payload = vec![7; 200_000];
        let mut sent = 0;
        while sent < 100 {
            match log.append(Class::Intake, FrameKind(1), &[&payload]) {
                Ok(_) => sent += 1,
                Err(error) => {
                    assert_eq!(error, crate::AppendError::Full);
                    wakes.recv().unwrap();
                    continue;
                }
            }
            if let Some(block) = log.take_block(1) {
                handle.submit(block);
                log.on_committed(wait(&mut handle, &wakes)).unwrap();
            }
        }
        assert_eq!(log.durable(), log.end());
        assert!(log.segments().count() > 3);
        handle.stop();
    }

    #[test]
    fn a_failed_write_is_answered_and_poisons_the_log() {
        let storage = SimStorage::new();
        let (mut log, mut handle, wakes) = start(&storage);
        log.append(Class::Intake, FrameKind(1), &[b"x"]).unwrap();
        let block = log.take_block(1).unwrap();
        storage.set_faults(SimFaults {
            fail_write_at: Some((1, 5)),
            ..SimFaults::default()
        });
        handle.submit(block);
        let answer = wait(&mut handle, &wakes);
        assert!(answer.is_err());
        assert!(log.on_committed(answer).is_err());
        assert!(log.is_poisoned());
        assert!(log.take_block(1).is_none());
    }

    #[test]
    fn a_panic_of_the_writer_is_told_once() {
        let storage = SimStorage::new();
        let (mut log, mut handle, _wakes) = start(&storage);
        let (mut other, _other_handle, _) = start(&SimStorage::new().sub("other"));
        // A block that skips a segment breaks an assertion in the writer.
        other.append(Class::Intake, FrameKind(1), &[b"x"]).unwrap();
        log.append(Class::Intake, FrameKind(1), &[b"x"]).unwrap();
        let mut block = other.take_block(1).unwrap();
        block.segment = crate::SegmentNumber(99);
        handle.submit(block);
        while handle.join.as_ref().is_some_and(|join| !join.is_finished()) {
            thread::yield_now();
        }
        let answers: Vec<_> = std::iter::from_fn(|| handle.poll_answer()).collect();
        assert!(matches!(answers.last(), Some(Err(WriteFailed::WriterGone))));
        assert!(handle.poll_answer().is_none());
    }
}
