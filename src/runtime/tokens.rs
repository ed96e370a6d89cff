//! The tokens of all accounts: where each is shared, kept and renewed.
//!
//! One thread asks for all of them: it may block on a file, which a shard may not.

mod secret_key;
mod token_file;
mod token_thread;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use engine::provider::{AuthDefinition, Definition};
use net::auth::{Client, Grant, Refresher, RenewalRules, SigningKey, TokenCell, TokenEndpoint};
use net::egress::{AddressPolicy, Origin};

pub(crate) use secret_key::{SealKeeper, SecretKeyError};
pub(crate) use token_thread::TokenThread;

use self::token_file::TokenFile;
use self::token_thread::Order;
use super::{StartError, clock, plans};
use crate::settings::{AuthSettings, Credential, OAuthClient, ProviderSettings, SecretSource};

/// By account: where its calls take their tokens. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenCells {
    cells: Arc<RwLock<HashMap<Arc<str>, TokenCell>>>,
}

/// What asks for tokens, account by account.
#[derive(Debug)]
pub(crate) struct Tokens {
    data_dir: PathBuf,
    seal: Arc<SealKeeper>,
    cells: TokenCells,
    thread: TokenThread,
}

impl TokenCells {
    /// Where this account takes its token; `None`: its credentials are no tokens.
    pub(crate) fn get(&self, account: &str) -> Option<TokenCell> {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        cells.get(account).cloned()
    }

    fn set(&self, account: &str, cell: Option<TokenCell>) {
        let mut cells = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        match cell {
            Some(cell) => cells.insert(account.into(), cell),
            None => cells.remove(account),
        };
    }
}

impl Tokens {
    /// Without accounts.
    pub(crate) fn new(data_dir: PathBuf, seal: Arc<SealKeeper>) -> Result<Self, StartError> {
        let thread = TokenThread::spawn()
            .map_err(|source| StartError::system("start the token thread", source))?;
        Ok(Self {
            data_dir,
            seal,
            cells: TokenCells::default(),
            thread,
        })
    }

    /// Where each account that has one takes its token.
    pub(crate) fn cells(&self) -> &TokenCells {
        &self.cells
    }

    /// Begins to ask for an account's tokens, or ends it where its credentials are none. What was
    /// asked for under former credentials ends first; a kept token of the same grant is used.
    ///
    /// # Errors
    /// The credentials cannot be had or used, or a kept token cannot be read; all is as before.
    pub(crate) fn put(
        &self,
        name: &str,
        provider: &ProviderSettings,
        addresses: AddressPolicy,
    ) -> Result<(), StartError> {
        let definition = plans::definition(name, provider)?;
        let auth = definition.auth();
        let Some((grant, endpoint)) = grant(name, provider, &definition, addresses)? else {
            self.cells.set(name, None);
            self.thread.order(name, Order::End);
            return Ok(());
        };
        let failed = |error: &dyn std::error::Error| StartError::data_dir(&self.data_dir, error);
        let seal = self.seal.seal().map_err(|error| failed(&error))?;
        let store = TokenFile::new(&self.data_dir, name, seal);
        // Read once beforehand, so that what is damaged is told to whoever asks for this.
        store.check().map_err(|error| failed(&error))?;
        let cell = TokenCell::new(rules(auth), clock::now);
        let scheme = auth.and_then(|auth| auth.scheme.clone());
        let begin = {
            let cell = cell.clone();
            move || {
                let scheme = scheme.as_deref().unwrap_or("Bearer");
                let store = Box::new(store);
                Refresher::new(cell, grant, endpoint, scheme, store, clock::random)
            }
        };
        self.cells.set(name, Some(cell));
        self.thread.order(name, Order::Begin(Box::new(begin)));
        Ok(())
    }

    /// Ends an account's tokens, and forgets the one that is kept.
    pub(crate) fn remove(&self, name: &str) {
        self.cells.set(name, None);
        let Ok(seal) = self.seal.seal() else { return };
        let store = TokenFile::new(&self.data_dir, name, seal);
        self.thread.order(name, Order::Forget(store));
    }

    /// Lets requests under way end; whether all went well.
    pub(crate) fn stop(&self) -> bool {
        self.thread.stop()
    }
}

/// Whether an account's credentials are tokens.
///
/// # Errors
/// Why they cannot be used.
pub(crate) fn check(
    name: &str,
    provider: &ProviderSettings,
    addresses: AddressPolicy,
) -> Result<bool, StartError> {
    let definition = plans::definition(name, provider)?;
    grant(name, provider, &definition, addresses).map(|grant| grant.is_some())
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
    addresses: AddressPolicy,
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
    let endpoint = TokenEndpoint::new(&url, addresses, account.ca_file.clone(), account.timeout)
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
