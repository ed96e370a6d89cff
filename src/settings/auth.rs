//! `[providers.NAME.auth]`: how calls prove who they are.

use serde::Deserialize;

use super::secret::{Credential, SecretSource};

/// How calls prove who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "AuthKeys")]
pub enum AuthSettings {
    /// They do not.
    #[default]
    None,
    /// `Authorization: Bearer`.
    Bearer {
        /// The token.
        token: SecretSource,
    },
    /// A header of the provider's own.
    ApiKey {
        /// The header's name.
        header: String,
        /// The header's value.
        value: SecretSource,
    },
    /// `Authorization: Basic`.
    Basic {
        /// Who.
        username: Credential,
        /// And the proof.
        password: SecretSource,
    },
    /// OAuth 2.0, RFC 6749 section 4.4.
    ClientCredentials(OAuthClient),
    /// OAuth 2.0, RFC 6749 section 6.
    Refresh {
        /// Who asks.
        client: OAuthClient,
        /// What it shows.
        refresh_token: SecretSource,
    },
    /// OAuth 2.0, RFC 7523 section 2.1.
    JwtBearer {
        /// Who asks; no secret is needed.
        client_id: Credential,
        /// Signs the assertion.
        private_key: SecretSource,
        /// For whom.
        username: Credential,
        /// Default: the definition's path on `base_url`.
        token_url: Option<String>,
    },
}

/// A client registered at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthClient {
    /// Its id.
    pub client_id: Credential,
    /// Its secret; a public client has none.
    pub client_secret: Option<SecretSource>,
    /// Default: the definition's path on `base_url`.
    pub token_url: Option<String>,
    /// Asked for when given.
    pub scope: Option<String>,
}

impl AuthSettings {
    /// Every secret it needs.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let (credentials, secrets): ([Option<&Credential>; 2], [Option<&SecretSource>; 2]) =
            match self {
                AuthSettings::None => ([None, None], [None, None]),
                AuthSettings::Bearer { token } => ([None, None], [Some(token), None]),
                AuthSettings::ApiKey { value, .. } => ([None, None], [Some(value), None]),
                AuthSettings::Basic { username, password } => {
                    ([Some(username), None], [Some(password), None])
                }
                AuthSettings::ClientCredentials(client) => (
                    [Some(&client.client_id), None],
                    [client.client_secret.as_ref(), None],
                ),
                AuthSettings::Refresh {
                    client,
                    refresh_token,
                } => (
                    [Some(&client.client_id), None],
                    [client.client_secret.as_ref(), Some(refresh_token)],
                ),
                AuthSettings::JwtBearer {
                    client_id,
                    private_key,
                    username,
                    ..
                } => ([Some(client_id), Some(username)], [Some(private_key), None]),
            };
        let in_credentials =
            credentials
                .into_iter()
                .flatten()
                .filter_map(|credential| match credential {
                    Credential::Secret(source) => Some(source),
                    Credential::Plain(_) => None,
                });
        in_credentials.chain(secrets.into_iter().flatten())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthKeys {
    kind: String,
    token: Option<SecretSource>,
    header: Option<String>,
    value: Option<SecretSource>,
    username: Option<Credential>,
    password: Option<SecretSource>,
    client_id: Option<Credential>,
    client_secret: Option<SecretSource>,
    refresh_token: Option<SecretSource>,
    private_key: Option<SecretSource>,
    token_url: Option<String>,
    scope: Option<String>,
}

impl TryFrom<AuthKeys> for AuthSettings {
    type Error = String;

    fn try_from(mut keys: AuthKeys) -> Result<AuthSettings, String> {
        let kind = std::mem::take(&mut keys.kind);
        let auth = keys.take_kind(&kind)?;
        match keys.unused() {
            Some(key) => Err(format!("auth kind \"{kind}\" takes no `{key}`")),
            None => Ok(auth),
        }
    }
}

impl AuthKeys {
    fn take_kind(&mut self, kind: &str) -> Result<AuthSettings, String> {
        let need = |key: &str| format!("auth kind \"{kind}\" needs `{key}`");
        Ok(match kind {
            "none" => AuthSettings::None,
            "bearer" => AuthSettings::Bearer {
                token: self.token.take().ok_or_else(|| need("token"))?,
            },
            "api_key" => AuthSettings::ApiKey {
                header: self.header.take().ok_or_else(|| need("header"))?,
                value: self.value.take().ok_or_else(|| need("value"))?,
            },
            "basic" => AuthSettings::Basic {
                username: self.username.take().ok_or_else(|| need("username"))?,
                password: self.password.take().ok_or_else(|| need("password"))?,
            },
            "oauth2_client_credentials" => {
                let client = self.take_client(need)?;
                if client.client_secret.is_none() {
                    return Err(need("client_secret"));
                }
                AuthSettings::ClientCredentials(client)
            }
            "oauth2_refresh" => AuthSettings::Refresh {
                client: self.take_client(need)?,
                refresh_token: self
                    .refresh_token
                    .take()
                    .ok_or_else(|| need("refresh_token"))?,
            },
            "jwt_bearer" => AuthSettings::JwtBearer {
                client_id: self.client_id.take().ok_or_else(|| need("client_id"))?,
                private_key: self.private_key.take().ok_or_else(|| need("private_key"))?,
                username: self.username.take().ok_or_else(|| need("username"))?,
                token_url: self.token_url.take(),
            },
            _ => {
                return Err(format!(
                    "unknown auth kind \"{kind}\": expected none, bearer, api_key, basic, \
                     oauth2_client_credentials, oauth2_refresh or jwt_bearer"
                ));
            }
        })
    }

    fn take_client(&mut self, need: impl Fn(&str) -> String) -> Result<OAuthClient, String> {
        Ok(OAuthClient {
            client_id: self.client_id.take().ok_or_else(|| need("client_id"))?,
            client_secret: self.client_secret.take(),
            token_url: self.token_url.take(),
            scope: self.scope.take(),
        })
    }

    /// A key that the kind did not take.
    fn unused(&self) -> Option<&'static str> {
        [
            ("token", self.token.is_some()),
            ("header", self.header.is_some()),
            ("value", self.value.is_some()),
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
            ("client_id", self.client_id.is_some()),
            ("client_secret", self.client_secret.is_some()),
            ("refresh_token", self.refresh_token.is_some()),
            ("private_key", self.private_key.is_some()),
            ("token_url", self.token_url.is_some()),
            ("scope", self.scope.is_some()),
        ]
        .into_iter()
        .find_map(|(key, given)| given.then_some(key))
    }
}
