//! Access tokens: handed out, expired, refreshed, as OAuth 2 providers do.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::provider::RawCall;
use crate::target;

/// What callers of an account prove themselves with. What is not given is not checked, but has to
/// be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The application's id.
    pub client_id: Option<String>,
    /// Its secret; notifications are signed with it.
    pub client_secret: Option<String>,
    /// The refresh token to begin with; when absent, the first one presented.
    pub refresh_token: Option<String>,
    /// Access tokens that are taken as they are and never expire.
    pub tokens: Vec<String>,
    /// How long a token handed out is taken; the provider's own time when absent.
    pub token_ttl: Option<Duration>,
}

/// How a provider deals in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenRules {
    /// What its access tokens begin with.
    pub(crate) prefix: &'static str,
    pub(crate) ttl: Duration,
    /// How long a refresh token is taken; `None` for good.
    pub(crate) refresh_ttl: Option<Duration>,
    /// Whether a refresh token is replaced when it is used.
    pub(crate) rotates: bool,
    /// The values of `grant_type` that it knows.
    pub(crate) grants: &'static [&'static str],
}

/// A provider's tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    rules: TokenRules,
    credentials: Credentials,
    seed: u64,
    minted: u64,
    /// When each access token ends.
    access: BTreeMap<String, Duration>,
    /// The refresh token that is good now, and when it ends.
    refresh: Option<(String, Option<Duration>)>,
}

/// What a token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    Good,
    Expired,
    Unknown,
}

/// A fresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Minted {
    pub(crate) access: String,
    pub(crate) refresh: Option<String>,
    pub(crate) expires_in: Duration,
}

/// Why there is no fresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    UnsupportedGrant,
    InvalidClient,
    /// With the sentence for the caller.
    InvalidGrant(&'static str),
}

/// Access tokens that live at a time; the one that ends first goes when there are more.
const ACCESS_TOKENS_MAX: usize = 1_000;

/// An assertion may not be good for longer than this: Salesforce asks for three minutes, and
/// clocks differ.
const ASSERTION_MAX: Duration = Duration::from_secs(5 * 60);

pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

impl Tokens {
    pub(crate) fn new(rules: TokenRules, credentials: Credentials, seed: u64) -> Self {
        let refresh = credentials.refresh_token.clone().map(|token| (token, None));
        Self {
            rules,
            credentials,
            seed,
            minted: 0,
            access: BTreeMap::new(),
            refresh,
        }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What an access token is worth.
    pub(crate) fn worth(&self, now: Duration, token: &str) -> Worth {
        if self.credentials.tokens.iter().any(|known| known == token) {
            return Worth::Good;
        }
        match self.access.get(token) {
            Some(ends) if *ends > now => Worth::Good,
            Some(_) => Worth::Expired,
            None => Worth::Unknown,
        }
    }

    /// Hands out a token for a request as RFC 6749 describes it; `unix` is the wall clock, which
    /// assertions go by.
    pub(crate) fn mint(
        &mut self,
        now: Duration,
        unix: Duration,
        form: &Form,
    ) -> Result<Minted, Denied> {
        let grant = form.value("grant_type").unwrap_or_default();
        if !self.rules.grants.contains(&grant) {
            return Err(Denied::UnsupportedGrant);
        }
        match grant {
            JWT_BEARER => {
                self.check_assertion(unix, form.value("assertion").unwrap_or_default())?
            }
            _ => self.check_client(form)?,
        }
        let refreshes = grant == "refresh_token";
        let consents = grant == "authorization_code";
        if refreshes {
            self.check_refresh(now, form.value("refresh_token").unwrap_or_default())?;
        }
        let access = self.fresh(self.rules.prefix);
        let ttl = self.credentials.token_ttl.unwrap_or(self.rules.ttl);
        self.access.insert(access.clone(), now + ttl);
        if self.access.len() > ACCESS_TOKENS_MAX {
            let first = self.access.iter().min_by_key(|(_, ends)| **ends);
            let first = first.map(|(token, _)| token.clone());
            first.and_then(|token| self.access.remove(&token));
        }
        if consents || refreshes && self.rules.rotates {
            let token = self.fresh("refresh-");
            self.refresh = Some((token, self.rules.refresh_ttl.map(|ttl| now + ttl)));
        }
        let refresh = self.refresh.as_ref().filter(|_| refreshes || consents);
        Ok(Minted {
            access,
            refresh: refresh.map(|(token, _)| token.clone()),
            expires_in: ttl,
        })
    }

    /// Ends every token handed out so far.
    pub(crate) fn expire(&mut self) {
        for ends in self.access.values_mut() {
            *ends = Duration::ZERO;
        }
    }

    fn check_client(&self, form: &Form) -> Result<(), Denied> {
        let right = |name, expected: &Option<String>| {
            let given = form.value(name).unwrap_or_default();
            match expected {
                Some(expected) => given == expected,
                None => !given.is_empty(),
            }
        };
        let known = right("client_id", &self.credentials.client_id)
            && right("client_secret", &self.credentials.client_secret);
        known.then_some(()).ok_or(Denied::InvalidClient)
    }

    fn check_refresh(&mut self, now: Duration, token: &str) -> Result<(), Denied> {
        if token.is_empty() {
            return Err(Denied::InvalidGrant("refresh_token is missing"));
        }
        let ends = self.rules.refresh_ttl.map(|ttl| now + ttl);
        let (good, ends) = self.refresh.get_or_insert_with(|| (token.to_owned(), ends));
        if good != token || ends.is_some_and(|ends| ends <= now) {
            return Err(Denied::InvalidGrant("expired access/refresh token"));
        }
        Ok(())
    }

    /// Claims only: the signature has to be there, and is not verified.
    fn check_assertion(&self, unix: Duration, assertion: &str) -> Result<(), Denied> {
        let malformed = Denied::InvalidGrant("invalid assertion");
        let mut parts = assertion.split('.');
        let (Some(head), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        let decode = |part: &str| -> Option<Value> {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice(&bytes).ok()
        };
        let (head, claims) = decode(head).zip(decode(claims)).ok_or(malformed)?;
        let text = |name: &str| claims[name].as_str().filter(|text| !text.is_empty());
        if head["alg"] != "RS256" || signature.is_empty() || text("aud").is_none() {
            return Err(malformed);
        }
        let issuer = text("iss").ok_or(malformed)?;
        if self
            .credentials
            .client_id
            .as_deref()
            .is_some_and(|id| id != issuer)
        {
            return Err(Denied::InvalidClient);
        }
        if text("sub").is_none() {
            return Err(Denied::InvalidGrant("user hasn't approved this consumer"));
        }
        let expires = claims["exp"]
            .as_u64()
            .map(Duration::from_secs)
            .ok_or(malformed)?;
        if expires <= unix {
            return Err(Denied::InvalidGrant("expired authorization code"));
        }
        if expires > unix + ASSERTION_MAX {
            return Err(Denied::InvalidGrant("the assertion is good for too long"));
        }
        Ok(())
    }

    /// `DefaultHasher::new` has fixed keys, so a seed gives the same tokens twice.
    fn fresh(&mut self, prefix: &str) -> String {
        self.minted += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.minted).hash(&mut hasher);
        format!("{prefix}{}-{:016x}", self.minted, hasher.finish())
    }
}

/// The parameters of a token request, from a form, JSON or basic authentication.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn of(call: &RawCall) -> Self {
        let mut pairs = Vec::new();
        if let Some(basic) = basic(call) {
            pairs.extend(basic);
        }
        match serde_json::from_slice::<Value>(&call.body) {
            Ok(Value::Object(members)) => pairs.extend(
                members
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))),
            ),
            _ => {
                let text = String::from_utf8_lossy(&call.body);
                pairs.extend(target::pairs(text.trim()).unwrap_or_default());
                pairs.extend(target::pairs(call.query()).unwrap_or_default());
            }
        }
        Self(pairs)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn basic(call: &RawCall) -> Option<[(String, String); 2]> {
    let value = call.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some([
        ("client_id".to_owned(), id.to_owned()),
        ("client_secret".to_owned(), secret.to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: TokenRules = TokenRules {
        prefix: "at-",
        ttl: Duration::from_secs(100),
        refresh_ttl: Some(Duration::from_secs(1_000)),
        rotates: true,
        grants: &["client_credentials", "refresh_token", JWT_BEARER],
    };

    fn form(pairs: &[(&str, &str)]) -> Form {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Form(pairs.iter().map(owned).collect())
    }

    fn refresh(tokens: &mut Tokens, now: u64, token: &str) -> Result<Minted, Denied> {
        let form = form(&[
            ("grant_type", "refresh_token"),
            ("client_id", "app"),
            ("client_secret", "secret"),
            ("refresh_token", token),
        ]);
        tokens.mint(Duration::from_secs(now), Duration::ZERO, &form)
    }

    fn assertion(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = serde_json::json!({"alg": "RS256"});
        format!("{}.{}.c2ln", part(&head), part(claims))
    }

    #[test]
    fn a_token_is_good_until_its_time_is_over() {
        let mut tokens = Tokens::new(RULES, Credentials::default(), 1);
        let request = form(&[
            ("grant_type", "client_credentials"),
            ("client_id", "app"),
            ("client_secret", "secret"),
        ]);
        let minted = tokens
            .mint(Duration::ZERO, Duration::ZERO, &request)
            .unwrap();
        assert_eq!(minted.refresh, None);
        let worth = |tokens: &Tokens, at| tokens.worth(Duration::from_secs(at), &minted.access);
        assert_eq!(worth(&tokens, 99), Worth::Good);
        assert_eq!(worth(&tokens, 100), Worth::Expired);
        tokens.expire();
        assert_eq!(worth(&tokens, 1), Worth::Expired);
        assert_eq!(tokens.worth(Duration::ZERO, "at-0"), Worth::Unknown);
    }

    #[test]
    fn a_rotated_refresh_token_is_taken_once() {
        let mut tokens = Tokens::new(RULES, Credentials::default(), 1);
        let second = refresh(&mut tokens, 0, "first").unwrap().refresh.unwrap();
        assert!(matches!(
            refresh(&mut tokens, 1, "first"),
            Err(Denied::InvalidGrant(_))
        ));
        let third = refresh(&mut tokens, 2, &second).unwrap().refresh.unwrap();
        assert_ne!(second, third);
        assert!(
            refresh(&mut tokens, 1_002, &third).is_err(),
            "its time is over"
        );
    }

    #[test]
    fn wrong_credentials_get_no_token() {
        let credentials = Credentials {
            client_secret: Some("other".into()),
            ..Credentials::default()
        };
        let mut tokens = Tokens::new(RULES, credentials, 1);
        assert_eq!(refresh(&mut tokens, 0, "first"), Err(Denied::InvalidClient));
        let password = form(&[("grant_type", "password")]);
        let denied = tokens.mint(Duration::ZERO, Duration::ZERO, &password);
        assert_eq!(denied, Err(Denied::UnsupportedGrant));
    }

    #[test]
    fn an_assertion_names_who_asks_and_is_good_for_minutes() {
        let mut tokens = Tokens::new(RULES, Credentials::default(), 1);
        let unix = Duration::from_secs(1_000);
        let mut ask = |claims: Value| {
            let assertion = assertion(&claims);
            let form = form(&[("grant_type", JWT_BEARER), ("assertion", &assertion)]);
            tokens.mint(Duration::ZERO, unix, &form).map(drop)
        };
        let claims = |exp| serde_json::json!({"iss": "app", "sub": "me", "aud": "x", "exp": exp});
        assert_eq!(ask(claims(1_180)), Ok(()));
        assert!(ask(claims(1_000)).is_err());
        assert!(ask(claims(9_000)).is_err());
        assert!(ask(serde_json::json!({"iss": "app", "aud": "x", "exp": 1_180})).is_err());
        let form = form(&[("grant_type", JWT_BEARER), ("assertion", "a.b")]);
        assert!(tokens.mint(Duration::ZERO, unix, &form).is_err());
    }
}
