//! Puts changed settings in force while the engine runs: plans and calls of the shards, limits of
//! the coordinator, holds.

use std::sync::Arc;
use std::time::Duration;

use engine::refusal::{Code, Refusal};
use engine::shard::Command;
use tokio::sync::{Mutex, oneshot};

use super::coordinator::{self, SharedCoordinator};
use super::shard_thread::{Word, chain};
use super::shards::{Shards, down};
use super::tokens::TokenCells;
use super::tuning::Tuning;
use super::{clock, plans};
use crate::settings::Settings;

/// Rest before a disk that refused the end of an override is asked again.
const EXPIRE_AGAIN: Duration = Duration::from_secs(5);
/// Longest sleep until an override ends: the wall clock may step meanwhile.
const EXPIRE_LOOK: Duration = Duration::from_secs(1);

/// Carries what [`Tuning`] says to whoever goes by it.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) tuning: Arc<Tuning>,
    shards: Shards,
    coordinator: SharedCoordinator,
    tokens: TokenCells,
    told: Mutex<Told>,
}

/// What was told last.
#[derive(Debug)]
struct Told {
    settings: Settings,
    suspended: Vec<String>,
}

impl InForce {
    /// `settings` are those that the engine started with, and nothing is suspended yet.
    pub(crate) fn new(
        tuning: Arc<Tuning>,
        shards: Shards,
        coordinator: SharedCoordinator,
        tokens: TokenCells,
        settings: Settings,
    ) -> InForce {
        let told = Mutex::new(Told {
            settings,
            suspended: Vec::new(),
        });
        InForce {
            tuning,
            shards,
            coordinator,
            tokens,
            told,
        }
    }

    /// Tells what changed since the last time.
    ///
    /// # Errors
    /// When a shard does not answer; what it was not told it is told the next time.
    pub(crate) async fn tell(&self) -> Result<(), Refusal> {
        let mut told = self.told.lock().await;
        let settings = self.tuning.effective();
        // All of them are said before the first answer is waited for: at a start, before the
        // coordinator's first word.
        let mut answers = Vec::new();
        let mut suspended = Vec::new();
        for (name, _) in &settings.providers {
            let is_suspended = self.tuning.is_suspended(name);
            suspended.extend(is_suspended.then(|| name.clone()));
            if is_suspended == told.suspended.contains(name) {
                continue;
            }
            for shard in 0..self.shards.count() {
                let (reply, answer) = oneshot::channel();
                let command = Command::Suspend {
                    account: name.as_str().into(),
                    suspended: is_suspended,
                };
                self.shards
                    .say(shard, Word::Command(command, reply))
                    .await?;
                answers.push(answer);
            }
        }
        for answer in answers {
            answer.await.map_err(|_| down())?;
        }
        told.suspended = suspended;
        for (name, provider) in &settings.providers {
            if told.settings.provider(name) != Some(provider) {
                self.tell_account(&settings, name).await?;
            }
        }
        if told.settings.providers != settings.providers {
            let unfit = |error: super::StartError| Refusal::new(Code::InvalidField, chain(&error));
            let limits = plans::account_limits(&settings).map_err(unfit)?;
            let mut coordinator = coordinator::lock(&self.coordinator);
            coordinator
                .reconfigure(clock::now(), limits)
                .map_err(|error| Refusal::new(Code::InvalidField, error.to_string()))?;
        }
        told.settings = settings;
        Ok(())
    }

    async fn tell_account(&self, settings: &Settings, name: &str) -> Result<(), Refusal> {
        let unfit = |error: super::StartError| Refusal::new(Code::InvalidField, chain(&error));
        let Some(provider) = settings.provider(name) else {
            return Ok(());
        };
        let plan = Arc::new(plans::plan(settings, name, provider).map_err(unfit)?);
        let addresses = self.tuning.addresses(name);
        let egress = plans::egress_account(name, provider, addresses, &self.tokens);
        let egress = Box::new(egress.map_err(unfit)?);
        for shard in 0..self.shards.count() {
            let word = Word::Egress(plan.name.clone(), egress.clone());
            self.shards.say(shard, word).await?;
        }
        self.shards.command_all(&Command::Plan(plan)).await?;
        Ok(())
    }

    /// Ends overrides whose time is over, until the process ends.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            if let Err(refusal) = self.tell().await {
                tracing::error!(%refusal, "changed settings are not in force everywhere");
            }
            let now = clock::now().wall.0;
            let sleep = match self.tuning.expire(now) {
                Ok(Some(next)) => {
                    let ahead = next.saturating_sub(now).max(0).unsigned_abs();
                    Duration::from_millis(ahead).min(EXPIRE_LOOK)
                }
                Ok(None) => Duration::MAX,
                Err(_) => EXPIRE_AGAIN,
            };
            tokio::select! {
                () = self.tuning.changed() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }
}
