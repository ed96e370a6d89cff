//! The control side's way to the shards: questions and commands, one or all of them.

use std::sync::Arc;

use engine::refusal::{Code, Refusal};
use engine::shard::{Barrier, Command, CommandReply, EventBatch};
use tokio::sync::{mpsc, oneshot};

use super::intake::Shared;
use super::mailbox::Parcel;
use super::query::Query;
use super::shard_thread::Word;
use super::ticket::{Refused, Ticket, Waiter};

/// Reaches every shard; a clone reaches the same.
#[derive(Debug, Clone)]
pub(crate) struct Shards {
    pub(crate) shared: Arc<Shared>,
    pub(crate) words: Arc<[mpsc::Sender<Word>]>,
}

impl Shards {
    pub(crate) fn count(&self) -> usize {
        self.words.len()
    }

    pub(crate) fn wake_all(&self) {
        for mailbox in &self.shared.mailboxes {
            mailbox.wake();
        }
    }

    /// The shard that has the records of this id.
    pub(crate) fn owner_of(&self, record_id: &str) -> usize {
        let router = &self.shared.router;
        router.hash_key.vshard(record_id).owner(router.shards)
    }

    /// Puts events into the shards' rings, `numbers` naming those of each shard to the caller;
    /// answers when all are durable, with the numbers of those that were not taken.
    pub(crate) async fn hand_in(
        &self,
        mut batches: Vec<EventBatch>,
        mut numbers: Vec<Vec<u64>>,
    ) -> Refused {
        debug_assert_eq!((batches.len(), numbers.len()), (self.count(), self.count()));
        let (reply, answer) = oneshot::channel();
        let used = (0..self.count()).filter(|&at| !numbers[at].is_empty());
        let used: Vec<usize> = used.collect();
        let parts = used
            .iter()
            .map(|&at| std::mem::take(&mut numbers[at]))
            .collect();
        let parts = Ticket::split(Waiter::Request(reply), parts);
        for (&at, part) in used.iter().zip(parts) {
            let parcel = Parcel {
                batch: std::mem::take(&mut batches[at]),
                part,
                barrier: Barrier::default(),
            };
            let mailbox = &self.shared.mailboxes[at];
            if !mailbox.has_room_for(parcel.batch.len()) {
                parcel.part.refused(Code::Overloaded);
            } else if let Err(parcel) = mailbox.push(parcel) {
                parcel.part.refused(Code::Overloaded);
            }
        }
        answer.await.unwrap_or_default()
    }

    pub(crate) async fn say(&self, shard: usize, word: Word) -> Result<(), Refusal> {
        self.words[shard].send(word).await.map_err(|_| down())?;
        self.shared.mailboxes[shard].wake();
        Ok(())
    }

    /// Asks one shard.
    pub(crate) async fn ask<R>(
        &self,
        shard: usize,
        query: impl FnOnce(oneshot::Sender<R>) -> Query,
    ) -> Result<R, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.say(shard, Word::Query(query(reply))).await?;
        answer.await.map_err(|_| down())
    }

    /// Gives one shard a command.
    pub(crate) async fn command(
        &self,
        shard: usize,
        command: Command,
    ) -> Result<CommandReply, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.say(shard, Word::Command(command, reply)).await?;
        match answer.await {
            Ok(CommandReply::Unavailable) | Err(_) => Err(down()),
            Ok(reply) => Ok(reply),
        }
    }

    /// Gives every shard a command; the sum of what it concerned.
    pub(crate) async fn command_all(&self, command: &Command) -> Result<u64, Refusal> {
        let mut answers = Vec::new();
        for shard in 0..self.count() {
            let (reply, answer) = oneshot::channel();
            self.say(shard, Word::Command(command.clone(), reply))
                .await?;
            answers.push(answer);
        }
        let mut matched = 0;
        for answer in answers {
            match answer.await {
                Ok(CommandReply::Done { matched: some }) => matched += some as u64,
                Ok(CommandReply::Partly { done, .. }) => matched += done as u64,
                Ok(CommandReply::Unavailable) | Err(_) => return Err(down()),
            }
        }
        Ok(matched)
    }
}

pub(crate) fn down() -> Refusal {
    Refusal::new(Code::ShardDown, "a shard does not answer; try again later")
}
