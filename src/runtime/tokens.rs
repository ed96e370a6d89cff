//! The tokens of all accounts: where each is shared, kept and renewed.
//!
//! One thread asks for all of them: it may block on a file, which a shard may not.

mod secret_key;
mod token_file;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use engine::provider::{AuthDefinition, Definition};
use engine::shard::AccountPlan;
use net::auth::{
    Client, Grant, Refresher, RenewalRules, Seal, SigningKey, TokenCell, TokenEndpoint,
};
use net::egress::{AddressPolicy, Egress, EgressSettings, Origin};
use tokio::sync::watch;

use self::token_file::TokenFile;
use super::shard_thread::chain;
use super::{StartError, clock};
use crate::settings::{
    AuthSettings, Credential, OAuthClient, ProviderSettings, SecretSource, Settings,
};

/// A token's reply is a few KiB, with an identity token in it maybe ten.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// By account: where its calls take their tokens.
pub(crate) type TokenCells = Arc<HashMap<Arc<str>, TokenCell>>;

/// What calls take tokens from, and what is to renew them.
#[derive(Debug)]
pub(crate) struct Tokens {
    cells: TokenCells,
    refreshers: Vec<Refresher>,
}

/// Asks for tokens as they are needed.
#[derive(Debug)]
pub(crate) struct TokenThread {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Tokens {
    /// Of every account whose credentials are tokens; those that were kept are in their cells.
    pub(crate) fn open(
        settings: &Settings,
        plans: &[Arc<AccountPlan>],
    ) -> Result<Self, StartError> {
        let mut cells = HashMap::new();
        let mut refreshers = Vec::new();
        let mut seal = None;
        for (plan, (name, provider)) in plans.iter().zip(&settings.providers) {
            let auth = plan.definition.auth();
            let Some((grant, endpoint)) = grant(name, provider, &plan.definition)? else {
                continue;
            };
            let folder = &settings.server.data_dir;
            let seal = match &seal {
                Some(seal) => Arc::clone(seal),
                None => Arc::clone(seal.insert(open_seal(settings, folder)?)),
            };
            let cell = TokenCell::new(rules(auth), clock::now);
            let refresher = Refresher::new(
                cell.clone(),
                grant,
                endpoint,
                auth.and_then(|auth| auth.scheme.as_deref())
                    .unwrap_or("Bearer"),
                Box::new(TokenFile::new(folder, name, seal)),
                clock::random,
            )
            .map_err(|error| StartError::data_dir(folder, &*error))?;
            cells.insert(plan.name.clone(), cell);
            refreshers.push(refresher);
        }
        Ok(Self {
            cells: Arc::new(cells),
            refreshers,
        })
    }

    /// Where each account that has one takes its token.
    pub(crate) fn cells(&self) -> &TokenCells {
        &self.cells
    }

    /// Begins to ask; there is no thread when no account has tokens.
    pub(crate) fn spawn(self) -> Result<Option<TokenThread>, StartError> {
        if self.refreshers.is_empty() {
            return Ok(None);
        }
        let failed = |source| StartError::system("start the token thread", source);
        let (stop, stopped) = watch::channel(false);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(renew_all(self.refreshers, stopped)),
                Err(error) => tracing::error!(%error, "the token thread has no event loop"),
            }
        };
        let thread = thread::Builder::new()
            .name("tokens".into())
            .spawn(run)
            .map_err(failed)?;
        Ok(Some(TokenThread { stop, thread }))
    }
}

impl TokenThread {
    /// Lets requests under way end; whether all went well.
    pub(crate) fn stop(self) -> bool {
        self.stop.send_replace(true);
        self.thread.join().is_ok()
    }
}

async fn renew_all(refreshers: Vec<Refresher>, stopped: watch::Receiver<bool>) {
    let egress = std::rc::Rc::new(Egress::new(EgressSettings {
        body_bytes_max: REPLY_BYTES_MAX,
        ..EgressSettings::default()
    }));
    let tasks: Vec<_> = refreshers
        .into_iter()
        .map(|refresher| {
            let (egress, stopped) = (egress.clone(), stopped.clone());
            tokio::task::spawn_local(async move {
                if let Err(error) = refresher.run(&egress, stopped).await {
                    tracing::error!(error = %chain(&error), "no token can be asked for");
                }
            })
        })
        .collect();
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "a token is not renewed any more");
        }
    }
}

fn open_seal(settings: &Settings, folder: &Path) -> Result<Arc<Seal>, StartError> {
    let seal = match &settings.server.secret_key {
        Some(source) => {
            let secret = source
                .resolve()
                .map_err(|error| StartError::config("server.secret_key", error.to_string()))?;
            secret_key::from_text(secret.expose())
                .ok_or_else(|| StartError::config("server.secret_key", secret_key::too_short()))?
        }
        None => secret_key::from_folder(folder, clock::random_bytes)
            .map_err(|error| StartError::data_dir(folder, &error))?,
    };
    Ok(Arc::new(seal))
}

fn rules(auth: Option<&AuthDefinition>) -> RenewalRules {
    let default = RenewalRules::default();
    let Some(auth) = auth else { return default };
    RenewalRules {
        ahead_max: auth.refresh_ahead.unwrap_or(default.ahead_max),
        assumed_lifetime: auth.lifetime,
        ask_interval: auth.mint_interval.unwrap_or(default.ask_interval),
    }
}

/// What an account shows for a token, and where; `None` for other kinds of credentials.
fn grant(
    name: &str,
    provider: &ProviderSettings,
    definition: &Definition,
) -> Result<Option<(Grant, TokenEndpoint)>, StartError> {
    let auth = definition.auth();
    let failed = |detail: String| StartError::config(name, detail);
    let text = |credential: &Credential| match credential.resolve() {
        Ok(secret) => Ok(secret.expose().clone()),
        Err(error) => Err(failed(error.to_string())),
    };
    let secret = |source: &SecretSource| match source.resolve() {
        Ok(secret) => Ok(secret.expose().clone()),
        Err(error) => Err(failed(error.to_string())),
    };
    let client = |client: &OAuthClient| {
        Ok::<_, StartError>(Client {
            id: text(&client.client_id)?,
            secret: client.client_secret.as_ref().map(secret).transpose()?,
            scope: client.scope.clone(),
        })
    };
    let url = |own: &Option<String>| {
        token_url(provider, own.as_deref(), definition)
            .ok_or_else(|| failed("auth needs a `token_url`".to_owned()))
    };
    let (grant, url) = match &provider.auth {
        AuthSettings::None
        | AuthSettings::Bearer { .. }
        | AuthSettings::ApiKey { .. }
        | AuthSettings::Basic { .. } => return Ok(None),
        AuthSettings::ClientCredentials(settings) => (
            Grant::ClientCredentials(client(settings)?),
            url(&settings.token_url)?,
        ),
        AuthSettings::Refresh {
            client: settings,
            refresh_token,
        } => {
            let grant = Grant::Refresh {
                client: client(settings)?,
                refresh_token: secret(refresh_token)?,
            };
            (grant, url(&settings.token_url)?)
        }
        AuthSettings::JwtBearer {
            client_id,
            private_key,
            username,
            token_url: own,
        } => {
            let url = url(own)?;
            let key = SigningKey::from_pem(&secret(private_key)?)
                .map_err(|error| failed(format!("auth.private_key: {error}")))?;
            let grant = Grant::JwtBearer {
                client_id: text(client_id)?,
                username: text(username)?,
                audience: auth
                    .and_then(|auth| auth.audience.clone())
                    .unwrap_or_else(|| url.clone()),
                key: Box::new(key),
            };
            (grant, url)
        }
    };
    let account = &provider.account;
    // Addresses in the file are the operator's own choice, as for calls.
    let endpoint = TokenEndpoint::new(
        &url,
        AddressPolicy::Any,
        account.ca_file.clone(),
        account.timeout,
    )
    .map_err(|error| failed(error.to_string()))?;
    Ok(Some((grant, endpoint)))
}

/// The account's own URL, or the definition's: a whole one, or a path on `base_url`.
fn token_url(
    provider: &ProviderSettings,
    own: Option<&str>,
    definition: &Definition,
) -> Option<String> {
    let url = own.or_else(|| definition.auth()?.token_url.as_deref())?;
    if !url.starts_with('/') {
        return Some(url.to_owned());
    }
    let base_url = provider.account.base_url.as_deref();
    let base_url = Origin::parse(base_url.or(definition.base_url())?).ok()?;
    Some(format!("{base_url}{url}"))
}
