//! `[auth]`: how a provider's accounts prove who they are; secrets are the account's.

use std::time::Duration;

use serde::Deserialize;

use super::TemplateError;
use super::file::AuthBlock;
use super::limit::{duration, header_name};
use super::problems::Problems;

/// What a definition says of credentials, for an account that leaves it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthDefinition {
    /// The kinds that the provider takes; the usual one first.
    pub kinds: Vec<AuthKind>,
    /// The header of an API key.
    pub header: Option<String>,
    /// What stands before a token in `Authorization`, where it is not `Bearer`.
    pub scheme: Option<String>,
    /// Where tokens are had: a path on the account's base URL, or a URL.
    pub token_url: Option<String>,
    /// `aud` of a JWT bearer's assertion.
    pub audience: Option<String>,
    /// Of a token whose reply does not say.
    pub lifetime: Option<Duration>,
    /// How long before its end a token is renewed.
    pub refresh_ahead: Option<Duration>,
    /// Between two requests for a token, at least.
    pub mint_interval: Option<Duration>,
    /// Each refresh token can be used once, and brings the next.
    pub rotates_refresh_token: bool,
}

/// A kind of credentials, by the name that an account's settings use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// A fixed token.
    Bearer,
    /// A fixed key in a header.
    ApiKey,
    /// User name and password.
    Basic,
    /// A token for client id and secret.
    Oauth2ClientCredentials,
    /// A token for a refresh token.
    Oauth2Refresh,
    /// A token for a signed assertion.
    JwtBearer,
}

impl AuthDefinition {
    pub(crate) fn compile(block: &AuthBlock, problems: &mut Problems) -> AuthDefinition {
        if block.kinds.is_empty() {
            problems.add("auth.kinds", TemplateError::Missing("kinds"));
        }
        if let Some(header) = &block.header {
            problems.note("auth.header", header_name(header));
        }
        let token = |kind: &AuthKind| match kind {
            AuthKind::Oauth2ClientCredentials | AuthKind::Oauth2Refresh | AuthKind::JwtBearer => {
                true
            }
            AuthKind::Bearer | AuthKind::ApiKey | AuthKind::Basic => false,
        };
        if block.kinds.iter().any(token) && block.token_url.is_none() {
            problems.add("auth.token_url", TemplateError::Missing("token_url"));
        }
        let mut span = |member: &str, text: &Option<String>| {
            let span = text.as_deref().map(duration).transpose();
            problems.note(format!("auth.{member}"), span).flatten()
        };
        AuthDefinition {
            kinds: block.kinds.clone(),
            header: block.header.clone(),
            scheme: block.scheme.clone(),
            token_url: block.token_url.clone(),
            audience: block.audience.clone(),
            lifetime: span("lifetime", &block.lifetime),
            refresh_ahead: span("refresh_ahead", &block.refresh_ahead),
            mint_interval: span("mint_interval", &block.mint_interval),
            rotates_refresh_token: block.rotates_refresh_token,
        }
    }
}
