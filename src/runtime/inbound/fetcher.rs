//! Calls for lists of changes, made by a shard out of the account's own budget.

use engine::provider::{Poll, Reply, Request};
use engine::refusal::Refusal;
use engine::shard::ListUse;
use tokio::sync::oneshot;

use super::poller::{FetchFailed, Fetcher};
use crate::runtime::shard_thread::Word;
use crate::runtime::shards::{Shards, down};

/// One shard for each account, so that its calls come out of one budget.
#[derive(Debug)]
pub(crate) struct ShardFetcher {
    shards: Shards,
    list: ListUse,
}

impl ShardFetcher {
    pub(crate) fn new(shards: Shards, list: ListUse) -> ShardFetcher {
        ShardFetcher { shards, list }
    }
}

impl Fetcher for ShardFetcher {
    async fn fetch(
        &self,
        account: &str,
        list: &Poll,
        request: Request,
    ) -> Result<Reply, FetchFailed> {
        let shard = self.shards.owner_of(account);
        let (reply, answer) = oneshot::channel();
        let list = (self.list, list.endpoint().into());
        let word = Word::Fetch(account.into(), list, request, reply);
        self.shards.say(shard, word).await?;
        let gone = |_| -> Refusal { down() };
        let result = answer.await.map_err(gone)?;
        result.map_err(|failure| FetchFailed::NoReply(failure.to_string()))
    }
}
