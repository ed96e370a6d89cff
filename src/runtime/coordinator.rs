//! The thread side of the quota coordinator: words in, words out, the clock.

use std::collections::VecDeque;

use engine::quota::{Coordinator, FromShard, Learned, ShardId, ToShard};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::sync::mpsc;

use super::clock;
use super::mailbox::Mailbox;
use super::shard_thread::Word;

/// The coordinator, shared with the API for its figures.
pub(crate) type SharedCoordinator = Arc<Mutex<Coordinator>>;

/// How often the coordinator is looked at when nobody speaks.
const LOOK_PERIOD: std::time::Duration = std::time::Duration::from_millis(250);

/// Whose log keeps what is learned of limits.
const LEARNED_KEEPER: ShardId = ShardId(0);

/// Carries words between shards and the coordinator until all shards are gone.
pub(crate) async fn run(
    coordinator: SharedCoordinator,
    mut from_shards: mpsc::Receiver<(ShardId, FromShard)>,
    to_shards: Vec<(mpsc::Sender<Word>, Mailbox)>,
) {
    let mut unsaid: VecDeque<(ShardId, ToShard)> = VecDeque::new();
    loop {
        let deadline = lock(&coordinator).next_deadline();
        // Changed settings wake nobody: what follows from them is said within this time.
        let sleep = deadline.map_or(LOOK_PERIOD, clock::until).min(LOOK_PERIOD);
        let word = if unsaid.is_empty() {
            tokio::time::timeout(sleep, from_shards.recv()).await
        } else {
            // A shard's mailbox was full: it is busy, and hears the rest in a moment.
            tokio::time::timeout(
                sleep.min(std::time::Duration::from_millis(1)),
                from_shards.recv(),
            )
            .await
        };
        let now = clock::now();
        {
            let mut coordinator = lock(&coordinator);
            match word {
                Ok(Some((shard, word))) => {
                    coordinator.handle(now, shard, word);
                    while let Ok((shard, word)) = from_shards.try_recv() {
                        coordinator.handle(now, shard, word);
                    }
                }
                Ok(None) => return,
                Err(_elapsed) => {}
            }
            coordinator.tick(now);
            while let Some(word) = coordinator.poll() {
                unsaid.push_back(word);
            }
            for learned in coordinator.take_learned() {
                report(&learned);
                unsaid.push_back((LEARNED_KEEPER, ToShard::Learned(learned)));
            }
        }
        say(&mut unsaid, &to_shards);
    }
}

/// For people who wonder why an account is slower than its configuration.
fn report(learned: &Learned) {
    let Learned {
        account,
        limit,
        from,
        tokens,
    } = learned;
    match tokens {
        Some(tokens) => tracing::info!(account, limit, ?from, tokens, "a limit is smaller"),
        None => tracing::info!(account, limit, ?from, "a limit is as configured again"),
    }
}

/// Tells shards what is to be told, in order, as far as their mailboxes take it.
fn say(unsaid: &mut VecDeque<(ShardId, ToShard)>, to_shards: &[(mpsc::Sender<Word>, Mailbox)]) {
    while let Some((shard, word)) = unsaid.pop_front() {
        let Some((words, mailbox)) = to_shards.get(usize::from(shard.0)) else {
            continue;
        };
        match words.try_send(Word::Coordinator(word)) {
            Ok(()) => mailbox.wake(),
            Err(mpsc::error::TrySendError::Full(Word::Coordinator(word))) => {
                unsaid.push_front((shard, word));
                return;
            }
            Err(_gone) => {}
        }
    }
}

pub(crate) fn lock(coordinator: &SharedCoordinator) -> std::sync::MutexGuard<'_, Coordinator> {
    coordinator.lock().unwrap_or_else(PoisonError::into_inner)
}
