//! Puts changed settings in force while the engine runs: plans and calls of the shards, limits of
//! the coordinator, holds.

use std::sync::Arc;
use std::time::Duration;

use engine::refusal::{Code, Refusal};
use engine::shard::{AccountPlan, Command};
use net::metrics::Metrics;
use tokio::sync::{Mutex, oneshot};

use super::coordinator::{self, SharedCoordinator};
use super::renderings::Renderings;
use super::shard_thread::{Word, chain};
use super::shards::{Shards, down};
use super::tokens::Tokens;
use super::tuning::Tuning;
use super::{StartError, clock, plans};
use crate::settings::{ProviderSettings, Settings};

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
    tokens: Arc<Tokens>,
    metrics: Metrics,
    renderings: Arc<Renderings>,
    told: Mutex<Told>,
}

/// What was told last.
#[derive(Debug)]
struct Told {
    settings: Settings,
    /// The same without overrides: by these, tokens are asked for.
    configured: Settings,
    suspended: Vec<String>,
}

impl InForce {
    /// `settings` are those that the engine started with, and nothing is suspended yet.
    pub(crate) fn new(
        tuning: Arc<Tuning>,
        shards: Shards,
        coordinator: SharedCoordinator,
        (tokens, metrics): (Arc<Tokens>, Metrics),
        (settings, renderings): (Settings, Renderings),
    ) -> InForce {
        let told = Mutex::new(Told {
            configured: tuning.configured(),
            settings,
            suspended: Vec::new(),
        });
        InForce {
            tuning,
            shards,
            coordinator,
            tokens,
            metrics,
            renderings: Arc::new(renderings),
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
        for (name, provider) in &settings.providers {
            let is_suspended = self.tuning.is_suspended(name, provider);
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
        let configured = self.tuning.configured();
        for (name, provider) in &configured.providers {
            let before = told.configured.provider(name);
            if before.is_none_or(|before| asks_otherwise(before, provider)) {
                let addresses = self.tuning.token_addresses(name);
                self.tokens.put(name, provider, addresses).map_err(unfit)?;
            }
        }
        told.configured = configured;
        for (name, provider) in &settings.providers {
            let before = told.settings.provider(name);
            if before == Some(provider) && told.settings.objects == settings.objects {
                continue;
            }
            self.tell_account(&settings, name).await?;
            if before.is_some_and(|before| before.auth != provider.auth) {
                coordinator::lock(&self.coordinator).credentials_changed(clock::now(), name);
            }
        }
        let others = told.settings.providers != settings.providers;
        if others || told.settings.objects != settings.objects {
            self.tell_all(&settings)?;
        }
        for (name, _) in &told.settings.providers {
            if settings.provider(name).is_none() {
                let gone = Command::PlanGone(name.as_str().into());
                self.shards.command_all(&gone).await?;
                self.tokens.remove(name);
            }
        }
        told.settings = settings;
        Ok(())
    }

    /// What concerns all accounts together: the limits of each, and who takes what.
    fn tell_all(&self, settings: &Settings) -> Result<(), Refusal> {
        let limits = plans::account_limits(settings).map_err(unfit)?;
        coordinator::lock(&self.coordinator)
            .reconfigure(clock::now(), limits)
            .map_err(|error| Refusal::new(Code::InvalidField, error.to_string()))?;
        let plans = plans::account_plans(settings).map_err(unfit)?;
        let routes = plans::routes(settings, &plans);
        self.shards.shared.router.replace_routes(routes);
        Ok(())
    }

    async fn tell_account(&self, settings: &Settings, name: &str) -> Result<(), Refusal> {
        let Some(provider) = settings.provider(name) else {
            return Ok(());
        };
        let mut plan = plans::plan(settings, name, provider).map_err(unfit)?;
        self.note_rendering(settings, &plan).await?;
        plan.renewed = self.renderings.renewed(name);
        let plan = Arc::new(plan);
        let addresses = self.tuning.addresses(name);
        let egress = plans::egress_account(name, provider, addresses, self.tokens.cells());
        let egress = Box::new(egress.map_err(unfit)?);
        let label = self.metrics.add_account(name);
        for shard in 0..self.shards.count() {
            let word = Word::Egress(plan.name.clone(), egress.clone(), label);
            self.shards.say(shard, word).await?;
        }
        self.shards.command_all(&Command::Plan(plan)).await?;
        Ok(())
    }

    /// Keeps what calls look like from here on, before the first of them.
    async fn note_rendering(&self, settings: &Settings, plan: &AccountPlan) -> Result<(), Refusal> {
        let digest = plans::rendering(settings, plan).map_err(unfit)?;
        let (renderings, account) = (self.renderings.clone(), plan.name.clone());
        // A disk may take its time, and others live on this thread.
        let written =
            tokio::task::spawn_blocking(move || renderings.change(&account, digest)).await;
        let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(|error| {
            tracing::error!(%error, "what calls are rendered by cannot be written");
            Refusal::new(
                Code::DiskFull,
                "what calls are rendered by cannot be written",
            )
        })
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

/// Whether an account's tokens are to be asked for in another way.
fn asks_otherwise(before: &ProviderSettings, now: &ProviderSettings) -> bool {
    let way = |provider: &ProviderSettings| {
        let account = &provider.account;
        (
            provider.auth.clone(),
            provider.definition.clone(),
            account.base_url.clone(),
            account.ca_file.clone(),
            account.timeout,
        )
    };
    way(before) != way(now)
}

fn unfit(error: StartError) -> Refusal {
    Refusal::new(Code::InvalidField, chain(&error))
}
