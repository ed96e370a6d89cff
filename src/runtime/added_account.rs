//! From what the API was asked for an account to the account's settings.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use engine::provider::{Definition, shipped};
use engine::refusal::{Code, Refusal};
use engine::shard::SYSTEM_A;
use net::egress::{AddressPolicy, Origin};
use net::http::{AccountRequest, AuthRequest, ClientRequest};

use super::override_member::admitted;
use super::shard_thread::chain;
use super::{StartError, added_mappings, plans, tokens};
use crate::settings::{
    AuthSettings, Credential, LimitKind, LimitSettings, OAuthClient, ProviderSettings, Secret,
    SecretSource, Settings, is_name,
};

/// Of a new account that does not say (the founding documents): calls a minute.
const RATE_LIMIT: NonZeroU32 = NonZeroU32::new(1000).expect("it is above 0");
/// And at a time.
const BURST_LIMIT: NonZeroU32 = NonZeroU32::new(100).expect("it is above 0");
/// And attempts after the first.
const MAX_RETRIES: u16 = 3;

/// The window that rates count over.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// The name of the limit that is a rate, also where an override sets it.
pub(crate) const RATE_NAME: &str = "rate_limit_per_minute";
/// The name of the bucket beside it.
pub(crate) const BURST_NAME: &str = "burst_limit";

/// The header of an API key where neither request nor definition names one.
const KEY_HEADER: &str = "X-API-Key";

/// The account's settings: the file's, or those of a new one, with what was asked for on top.
pub(crate) fn settings_of(
    request: &AccountRequest,
    file: Option<&ProviderSettings>,
) -> ProviderSettings {
    let mut provider = file.cloned().unwrap_or_default();
    let is_new = file.is_none();
    provider.definition = match request.provider_type.as_deref() {
        Some("custom") => "rest".to_owned(),
        Some(named) => named.to_owned(),
        None if !is_new => provider.definition,
        None if shipped(&request.name).is_some() => request.name.clone(),
        None => "rest".to_owned(),
    };
    let account = &mut provider.account;
    account.definition = Some(provider.definition.clone());
    if let Some(base_url) = &request.base_url {
        account.base_url = Some(base_url.clone());
    }
    if let Some(seconds) = request.timeout_seconds {
        account.timeout = Duration::from_secs(u64::from(seconds.get()));
    }
    if let Some(retries) = request.max_retries.or(is_new.then_some(MAX_RETRIES)) {
        account.retry.max_attempts = NonZeroU32::MIN.saturating_add(u32::from(retries));
    }
    account.max_in_flight = request.max_in_flight.unwrap_or(account.max_in_flight);
    account.batch.max_items = request.batch_size.or(account.batch.max_items);
    account.fold = request.fold.unwrap_or(account.fold);
    if is_new || request.rate_limit.is_some() || request.burst_limit.is_some() {
        limit(&mut provider, request.rate_limit, request.burst_limit);
    }
    if let Some(auth) = &request.auth_config {
        provider.auth = auth_settings(auth, &provider.definition);
    }
    provider
}

/// Whether an account can be worked with, before anything is kept of it.
///
/// # Errors
/// A refusal that names the member at fault, as far as one is.
pub(crate) fn check(
    settings: &Settings,
    request: &AccountRequest,
    provider: &ProviderSettings,
    addresses: &AddressPolicy,
) -> Result<(), Refusal> {
    let name = &request.name;
    let refuse = |pointer: &str, detail: String| Refusal::at(Code::InvalidField, pointer, detail);
    if !is_name(name) {
        let detail = "expected letters, digits, `-` and `_`, at most 64".to_owned();
        return Err(refuse("/name", detail));
    }
    if name == SYSTEM_A {
        return Err(refuse("/name", "System A is set up in the file".to_owned()));
    }
    if settings.pools.iter().any(|(pool, _)| pool == name) {
        return Err(refuse("/name", "a pool has this name".to_owned()));
    }
    if shipped(&provider.definition).is_none() {
        let detail = format!("there is no definition {:?}", provider.definition);
        return Err(refuse("/provider_type", detail));
    }
    if let Some(url) = &request.base_url {
        admitted(url, addresses).map_err(|detail| refuse("/base_url", detail))?;
    }
    if let Some(url) = request
        .auth_config
        .as_ref()
        .and_then(AuthRequest::token_url)
    {
        admitted(url, addresses).map_err(|detail| refuse("/auth_config/token_url", detail))?;
    }
    added_mappings::check(settings, request)?;
    let unfit = |error: StartError| Refusal::new(Code::InvalidField, chain(&error));
    let definition = plans::definition(name, provider).map_err(unfit)?;
    let base_url = provider.account.base_url.as_deref();
    match base_url.or(definition.base_url()) {
        None => return Err(refuse("/base_url", "this type needs one".to_owned())),
        Some(url) => Origin::parse(url)
            .map_err(|error| refuse("/base_url", error.to_string()))
            .map(drop)?,
    }
    plans::plan(settings, name, provider).map_err(unfit)?;
    let limits = plans::limits_of_account(settings, name, provider).map_err(unfit)?;
    limits
        .validate()
        .map_err(|error| Refusal::new(Code::InvalidField, error.to_string()))?;
    let at_auth = |detail: String| refuse("/auth_config", detail);
    if !tokens::check(name, provider, addresses.clone()).map_err(|error| at_auth(chain(&error)))? {
        plans::authorization(name, &provider.auth)
            .map_err(|error| at_auth(chain(&error)))?
            .check()
            .map_err(|error| at_auth(error.to_string()))?;
    }
    Ok(())
}

/// At most the rate in any 60 s, and a bucket of the burst refilled at the rate; in place of what
/// the account says of a minute.
fn limit(provider: &mut ProviderSettings, rate: Option<NonZeroU32>, burst: Option<NonZeroU32>) {
    let rate = NonZeroU64::from(rate.unwrap_or(RATE_LIMIT));
    let burst = NonZeroU64::from(burst.unwrap_or(BURST_LIMIT));
    provider.limits.retain(|limit| !counts_minutes(&limit.kind));
    let bucket = LimitKind::TokenBucket {
        window: MINUTE,
        burst,
    };
    provider.limits.extend([
        LimitSettings::new(RATE_NAME, rate, LimitKind::Sliding(MINUTE)),
        LimitSettings::new(BURST_NAME, rate, bucket),
    ]);
}

/// Whether a limit counts calls over a minute.
pub(crate) fn counts_minutes(kind: &LimitKind) -> bool {
    match kind {
        LimitKind::Sliding(window)
        | LimitKind::Rolling { window, .. }
        | LimitKind::Fixed { window, .. }
        | LimitKind::TokenBucket { window, .. } => *window == MINUTE,
        LimitKind::Concurrency | LimitKind::Cost(_) => false,
    }
}

fn auth_settings(auth: &AuthRequest, definition: &str) -> AuthSettings {
    match auth {
        AuthRequest::None => AuthSettings::None,
        AuthRequest::Bearer { token } => AuthSettings::Bearer {
            token: given(token),
        },
        AuthRequest::ApiKey { header, value } => AuthSettings::ApiKey {
            header: header.clone().unwrap_or_else(|| key_header(definition)),
            value: given(value),
        },
        AuthRequest::Basic { username, password } => AuthSettings::Basic {
            username: Credential::Plain(username.clone()),
            password: given(password),
        },
        AuthRequest::ClientCredentials(asks) => AuthSettings::ClientCredentials(client(asks)),
        AuthRequest::Refresh {
            client: asks,
            refresh_token,
        } => AuthSettings::Refresh {
            client: client(asks),
            refresh_token: given(refresh_token),
        },
        AuthRequest::JwtBearer {
            client_id,
            username,
            private_key,
            token_url,
        } => AuthSettings::JwtBearer {
            client_id: Credential::Plain(client_id.clone()),
            private_key: given(private_key),
            username: Credential::Plain(username.clone()),
            token_url: token_url.clone(),
        },
    }
}

fn client(asks: &ClientRequest) -> OAuthClient {
    OAuthClient {
        client_id: Credential::Plain(asks.client_id.clone()),
        client_secret: asks.client_secret.as_deref().map(given),
        token_url: asks.token_url.clone(),
        scope: asks.scope.clone(),
    }
}

fn given(secret: &str) -> SecretSource {
    SecretSource::Given(Secret::new(secret.to_owned()))
}

fn key_header(definition: &str) -> String {
    let parsed = shipped(definition).and_then(|text| Definition::parse(text).ok());
    let auth = parsed.as_ref().and_then(Definition::auth);
    let header = auth.and_then(|auth| auth.header.clone());
    header.unwrap_or_else(|| KEY_HEADER.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> AccountRequest {
        serde_json::from_str(text).unwrap()
    }

    fn limits(provider: &ProviderSettings) -> Vec<(&str, u64)> {
        let limits = provider.limits.iter();
        limits
            .map(|limit| (limit.name.as_str(), limit.limit.get()))
            .collect()
    }

    #[test]
    fn a_new_account_has_the_founding_documents_defaults() {
        let new = settings_of(&request(r#"{"name":"shop","base_url":"http://x"}"#), None);
        assert_eq!(new.definition, "rest");
        assert_eq!(limits(&new), [(RATE_NAME, 1000), (BURST_NAME, 1000)]);
        assert_eq!(new.account.retry.max_attempts.get(), 4);
        assert_eq!(new.account.timeout, Duration::from_secs(30));
        let named = settings_of(&request(r#"{"name":"hubspot"}"#), None);
        assert_eq!(named.definition, "hubspot");
        let custom = request(r#"{"name":"hubspot","provider_type":"custom"}"#);
        assert_eq!(settings_of(&custom, None).definition, "rest");
    }

    #[test]
    fn an_account_of_the_file_keeps_what_is_not_asked_for() {
        let mut file = ProviderSettings {
            definition: "salesforce".to_owned(),
            ..ProviderSettings::default()
        };
        file.account.fold = false;
        let second = LimitKind::Sliding(Duration::from_secs(1));
        let limit = LimitSettings::new("second", NonZeroU64::MIN, second);
        file.limits.push(limit);
        let changed = settings_of(
            &request(r#"{"name":"crm","timeout_seconds":5}"#),
            Some(&file),
        );
        assert_eq!(changed.definition, "salesforce");
        assert!(!changed.account.fold);
        assert_eq!(changed.account.timeout, Duration::from_secs(5));
        assert_eq!(changed.account.retry, file.account.retry);
        assert_eq!(limits(&changed), [("second", 1)]);
        let slower = settings_of(&request(r#"{"name":"crm","rate_limit":60}"#), Some(&file));
        let expected = [("second", 1), (RATE_NAME, 60), (BURST_NAME, 60)];
        assert_eq!(limits(&slower), expected);
    }

    #[test]
    fn a_key_goes_into_the_definitions_header() {
        let auth = r#""auth_config":{"auth_type":"api_key","credentials":{"api_key":"k"}}"#;
        for (name, header) in [("pipedrive", "x-api-token"), ("shop", KEY_HEADER)] {
            let asked = request(&format!(r#"{{"name":"{name}",{auth}}}"#));
            let AuthSettings::ApiKey { header: told, .. } = settings_of(&asked, None).auth else {
                panic!("{name}");
            };
            assert_eq!(told, header);
        }
    }
}
