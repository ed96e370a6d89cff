//! An account as a client asks for it, in the founding documents' members or the file's.

use std::fmt;
use std::num::NonZeroU32;

use engine::refusal::{Code, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is to be of an account. What is absent stays as it is, or is the default of a new one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountRequest {
    /// Its name; events and rules use it.
    pub name: String,
    /// The definition's.
    #[serde(default, alias = "type")]
    pub provider_type: Option<String>,
    /// Where it is.
    #[serde(default)]
    pub base_url: Option<String>,
    /// Calls in any 60 s.
    #[serde(default, alias = "rate_limit_per_minute")]
    pub rate_limit: Option<NonZeroU32>,
    /// Calls at a time, refilled at the rate.
    #[serde(default)]
    pub burst_limit: Option<NonZeroU32>,
    /// For one call.
    #[serde(default)]
    pub timeout_seconds: Option<NonZeroU32>,
    /// Attempts after the first.
    #[serde(default)]
    pub max_retries: Option<u16>,
    /// Calls open at once.
    #[serde(default)]
    pub max_in_flight: Option<NonZeroU32>,
    /// Records in one call.
    #[serde(default)]
    pub batch_size: Option<NonZeroU32>,
    /// Whether waiting changes of a record become one call.
    #[serde(default)]
    pub fold: Option<bool>,
    /// How records of each object look there: what `[objects.OBJECT.to.NAME]` of the file says.
    #[serde(default)]
    pub mappings: Option<Map<String, Value>>,
    /// How it proves who it is.
    #[serde(default)]
    pub auth_config: Option<AuthRequest>,
}

/// Credentials in clear, on their way to where they are sealed. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AuthConfig", into = "AuthConfig")]
#[expect(missing_docs, reason = "each is named as in the settings file")]
pub enum AuthRequest {
    None,
    Bearer {
        token: String,
    },
    ApiKey {
        /// `None`: the definition's.
        header: Option<String>,
        value: String,
    },
    Basic {
        username: String,
        password: String,
    },
    ClientCredentials(ClientRequest),
    Refresh {
        client: ClientRequest,
        refresh_token: String,
    },
    JwtBearer {
        client_id: String,
        username: String,
        private_key: String,
        token_url: Option<String>,
    },
}

/// A client registered at the provider.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named as in the settings file")]
pub struct ClientRequest {
    pub client_id: String,
    pub client_secret: Option<String>,
    pub token_url: Option<String>,
    pub scope: Option<String>,
}

/// As it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthConfig {
    #[serde(alias = "kind")]
    auth_type: String,
    #[serde(default)]
    credentials: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

impl AccountRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    /// A refusal that says what is wrong, and repeats nothing of the credentials.
    pub(super) fn read(body: &[u8]) -> Result<AccountRequest, Refusal> {
        let mut members: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
        // Read by itself, so that an error elsewhere cannot quote it, and one here has its place.
        let auth = match members.remove("auth_config") {
            None => None,
            Some(Value::Null) => Some(AuthRequest::None),
            Some(auth) => {
                let auth: AuthConfig = serde_json::from_value(auth).map_err(|_| {
                    let detail = "expected {\"auth_type\",\"credentials\":{…},\"token_url\"?,\
                                  \"refresh_token\"?}";
                    Refusal::at(Code::InvalidField, "/auth_config", detail)
                })?;
                let auth = AuthRequest::try_from(auth).map_err(|error| {
                    Refusal::at(Code::InvalidField, error.pointer(), error.to_string())
                })?;
                Some(auth)
            }
        };
        let request: AccountRequest =
            serde_json::from_value(Value::Object(members)).map_err(|error| {
                let detail = error.to_string();
                let code = match &detail {
                    text if text.starts_with("unknown field") => Code::UnknownField,
                    text if text.starts_with("missing field") => Code::MissingField,
                    _ => Code::InvalidField,
                };
                Refusal::new(code, detail)
            })?;
        Ok(AccountRequest {
            auth_config: auth,
            ..request
        })
    }

    /// This request, with what it leaves out as an earlier one of the account said it.
    #[must_use]
    pub fn over(self, earlier: &AccountRequest) -> AccountRequest {
        let earlier = earlier.clone();
        AccountRequest {
            name: self.name,
            provider_type: self.provider_type.or(earlier.provider_type),
            base_url: self.base_url.or(earlier.base_url),
            rate_limit: self.rate_limit.or(earlier.rate_limit),
            burst_limit: self.burst_limit.or(earlier.burst_limit),
            timeout_seconds: self.timeout_seconds.or(earlier.timeout_seconds),
            max_retries: self.max_retries.or(earlier.max_retries),
            max_in_flight: self.max_in_flight.or(earlier.max_in_flight),
            batch_size: self.batch_size.or(earlier.batch_size),
            fold: self.fold.or(earlier.fold),
            mappings: self.mappings.or(earlier.mappings),
            auth_config: self.auth_config.or(earlier.auth_config),
        }
    }
}

impl AuthRequest {
    /// Where its tokens are had, if it says so.
    pub fn token_url(&self) -> Option<&str> {
        match self {
            AuthRequest::ClientCredentials(client) | AuthRequest::Refresh { client, .. } => {
                client.token_url.as_deref()
            }
            AuthRequest::JwtBearer { token_url, .. } => token_url.as_deref(),
            AuthRequest::None
            | AuthRequest::Bearer { .. }
            | AuthRequest::ApiKey { .. }
            | AuthRequest::Basic { .. } => None,
        }
    }
}

/// What is wrong with `auth_config`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum AuthError {
    #[error(
        "unknown auth type: expected none, bearer, api_key, basic, oauth2, \
         oauth2_client_credentials, oauth2_refresh or jwt_bearer"
    )]
    Type,
    #[error("this auth type needs the text `{0}`")]
    Missing(&'static str),
    #[error("this auth type does not take it")]
    Unknown(String),
}

impl AuthError {
    fn pointer(&self) -> String {
        match self {
            AuthError::Type => "/auth_config/auth_type".to_owned(),
            AuthError::Missing(name) => format!("/auth_config/credentials/{name}"),
            AuthError::Unknown(name) => format!("/auth_config/credentials/{name}"),
        }
    }
}

impl TryFrom<AuthConfig> for AuthRequest {
    type Error = AuthError;

    fn try_from(mut config: AuthConfig) -> Result<AuthRequest, AuthError> {
        let auth = config.take_type()?;
        // What is misspelt must not be taken for absent.
        match config.credentials.keys().next() {
            Some(name) => Err(AuthError::Unknown(name.clone())),
            None => Ok(auth),
        }
    }
}

impl AuthConfig {
    fn take_type(&mut self) -> Result<AuthRequest, AuthError> {
        Ok(match self.auth_type.as_str() {
            "none" => AuthRequest::None,
            "bearer" => AuthRequest::Bearer {
                token: self.need(&["token", "access_token"])?,
            },
            "api_key" => AuthRequest::ApiKey {
                header: self.take(&["header", "header_name"]),
                value: self.need(&["api_key", "key", "value"])?,
            },
            "basic" => AuthRequest::Basic {
                username: self.need(&["username"])?,
                password: self.need(&["password"])?,
            },
            "oauth2_client_credentials" => self.client_credentials()?,
            "oauth2_refresh" => self.refresh()?,
            "jwt_bearer" => self.jwt_bearer()?,
            "oauth2" => {
                let has = |name: &str| self.credentials.contains_key(name);
                if self.refresh_token.is_some() || has("refresh_token") {
                    self.refresh()?
                } else if has("private_key") {
                    self.jwt_bearer()?
                } else if has("access_token") && !has("client_id") {
                    AuthRequest::Bearer {
                        token: self.need(&["access_token"])?,
                    }
                } else {
                    self.client_credentials()?
                }
            }
            _ => return Err(AuthError::Type),
        })
    }

    fn client_credentials(&mut self) -> Result<AuthRequest, AuthError> {
        let client = self.client()?;
        match client.client_secret {
            Some(_) => Ok(AuthRequest::ClientCredentials(client)),
            None => Err(AuthError::Missing("client_secret")),
        }
    }

    fn refresh(&mut self) -> Result<AuthRequest, AuthError> {
        let refresh_token = match self.refresh_token.take().filter(|token| !token.is_empty()) {
            Some(token) => token,
            None => self.need(&["refresh_token"])?,
        };
        let client = self.client()?;
        // One beside it is older than what it brings.
        self.credentials.remove("access_token");
        Ok(AuthRequest::Refresh {
            client,
            refresh_token,
        })
    }

    fn jwt_bearer(&mut self) -> Result<AuthRequest, AuthError> {
        Ok(AuthRequest::JwtBearer {
            client_id: self.need(&["client_id"])?,
            username: self.need(&["username"])?,
            private_key: self.need(&["private_key"])?,
            token_url: self.token_url.take(),
        })
    }

    fn client(&mut self) -> Result<ClientRequest, AuthError> {
        let token_url = self.take(&["token_url"]);
        Ok(ClientRequest {
            client_id: self.need(&["client_id"])?,
            client_secret: self.take(&["client_secret"]),
            token_url: self.token_url.take().or(token_url),
            scope: self.take(&["scope"]),
        })
    }

    fn need(&mut self, names: &[&'static str]) -> Result<String, AuthError> {
        self.take(names).ok_or(AuthError::Missing(names[0]))
    }

    fn take(&mut self, names: &[&str]) -> Option<String> {
        let mut texts = names
            .iter()
            .filter_map(|name| match self.credentials.get(*name) {
                Some(Value::String(text)) if !text.is_empty() => Some((*name, text.clone())),
                _ => None,
            });
        let (name, text) = texts.next()?;
        self.credentials.remove(name);
        Some(text)
    }
}

impl From<AuthRequest> for AuthConfig {
    fn from(auth: AuthRequest) -> AuthConfig {
        let texts = |pairs: Vec<(&str, Option<String>)>| {
            let given = pairs
                .into_iter()
                .filter_map(|(name, text)| Some((name.to_owned(), Value::String(text?))));
            given.collect::<Map<_, _>>()
        };
        let of = |auth_type: &str, credentials, token_url| AuthConfig {
            auth_type: auth_type.to_owned(),
            credentials,
            token_url,
            refresh_token: None,
        };
        let client = |client: ClientRequest, refresh_token| {
            let credentials = texts(vec![
                ("client_id", Some(client.client_id)),
                ("client_secret", client.client_secret),
                ("scope", client.scope),
                ("refresh_token", refresh_token),
            ]);
            (credentials, client.token_url)
        };
        match auth {
            AuthRequest::None => of("none", Map::new(), None),
            AuthRequest::Bearer { token } => {
                of("bearer", texts(vec![("token", Some(token))]), None)
            }
            AuthRequest::ApiKey { header, value } => of(
                "api_key",
                texts(vec![("header", header), ("api_key", Some(value))]),
                None,
            ),
            AuthRequest::Basic { username, password } => of(
                "basic",
                texts(vec![
                    ("username", Some(username)),
                    ("password", Some(password)),
                ]),
                None,
            ),
            AuthRequest::ClientCredentials(asks) => {
                let (credentials, token_url) = client(asks, None);
                of("oauth2_client_credentials", credentials, token_url)
            }
            AuthRequest::Refresh {
                client: asks,
                refresh_token,
            } => {
                let (credentials, token_url) = client(asks, Some(refresh_token));
                of("oauth2_refresh", credentials, token_url)
            }
            AuthRequest::JwtBearer {
                client_id,
                username,
                private_key,
                token_url,
            } => of(
                "jwt_bearer",
                texts(vec![
                    ("client_id", Some(client_id)),
                    ("username", Some(username)),
                    ("private_key", Some(private_key)),
                ]),
                token_url,
            ),
        }
    }
}

impl fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuthRequest::None => "None",
            AuthRequest::Bearer { .. } => "Bearer",
            AuthRequest::ApiKey { .. } => "ApiKey",
            AuthRequest::Basic { .. } => "Basic",
            AuthRequest::ClientCredentials(_) => "ClientCredentials",
            AuthRequest::Refresh { .. } => "Refresh",
            AuthRequest::JwtBearer { .. } => "JwtBearer",
        })
    }
}

impl fmt::Debug for ClientRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientRequest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(text: &str) -> Result<AuthRequest, Refusal> {
        let body = format!(r#"{{"name":"crm","auth_config":{text}}}"#);
        let request = AccountRequest::read(body.as_bytes())?;
        Ok(request.auth_config.unwrap())
    }

    #[test]
    fn the_founding_documents_request_is_read_as_printed() {
        let body = br#"{"name":"salesforce","rate_limit":1000,"burst_limit":100,
            "base_url":"https://api.salesforce.com","auth_config":{"auth_type":"oauth2",
            "credentials":{"client_id":"i","client_secret":"s3cret"},
            "token_url":"https://login.example.com/token","refresh_token":"r3fresh"}}"#;
        let request = AccountRequest::read(body).unwrap();
        assert_eq!(request.rate_limit.map(NonZeroU32::get), Some(1000));
        let Some(AuthRequest::Refresh {
            client,
            refresh_token,
        }) = &request.auth_config
        else {
            panic!("{request:?}");
        };
        assert_eq!(refresh_token, "r3fresh");
        assert_eq!(
            client.token_url.as_deref(),
            Some("https://login.example.com/token")
        );
        let shown = format!("{request:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("r3fresh"),
            "{shown}"
        );
    }

    #[test]
    fn what_oauth2_means_follows_from_what_is_shown() {
        let told = |text| format!("{:?}", auth(text).unwrap());
        for (text, expected) in [
            (
                r#"{"auth_type":"oauth2","credentials":{"client_id":"i","client_secret":"s"}}"#,
                "ClientCredentials",
            ),
            (
                r#"{"auth_type":"oauth2","credentials":{"client_id":"i","refresh_token":"r"}}"#,
                "Refresh",
            ),
            (
                r#"{"auth_type":"oauth2","credentials":{"access_token":"t"}}"#,
                "Bearer",
            ),
            (
                r#"{"auth_type":"oauth2","credentials":{"client_id":"i","username":"u","private_key":"k"}}"#,
                "JwtBearer",
            ),
            (
                r#"{"auth_type":"api_key","credentials":{"api_key":"k"}}"#,
                "ApiKey",
            ),
            (
                r#"{"auth_type":"basic","credentials":{"username":"u","password":"p"}}"#,
                "Basic",
            ),
            ("null", "None"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_missing_unknown_or_no_text_is_told_without_its_value() {
        for (text, pointer) in [
            (r#"{"auth_type":"kerberos"}"#, "/auth_config/auth_type"),
            (
                r#"{"auth_type":"basic","credentials":{"username":"u"}}"#,
                "/auth_config/credentials/password",
            ),
            (
                r#"{"auth_type":"api_key","credentials":{"api_key":7}}"#,
                "/auth_config/credentials/api_key",
            ),
            (
                r#"{"auth_type":"bearer","credentials":{"token":"s3cret","tocken":"s3cret"}}"#,
                "/auth_config/credentials/tocken",
            ),
            (r#"{"credentials":{"token":"s3cret"}}"#, "/auth_config"),
            (r#"{"auth_type":"bearer","token":"s3cret"}"#, "/auth_config"),
        ] {
            let refusal = auth(text).unwrap_err();
            assert_eq!(refusal.pointer.as_deref(), Some(pointer), "{text}");
            assert!(!format!("{refusal:?}").contains("s3cret"), "{text}");
        }
        let unknown = AccountRequest::read(br#"{"name":"crm","colour":1}"#).unwrap_err();
        assert_eq!(unknown.code, Code::UnknownField);
    }

    #[test]
    fn what_is_kept_reads_as_what_was_asked() {
        for text in [
            r#"{"auth_type":"oauth2","credentials":{"client_id":"i","client_secret":"s","scope":"a b"},"token_url":"https://x/t"}"#,
            r#"{"auth_type":"oauth2","credentials":{"client_id":"i"},"refresh_token":"r"}"#,
            r#"{"auth_type":"jwt_bearer","credentials":{"client_id":"i","username":"u","private_key":"k"}}"#,
            r#"{"auth_type":"api_key","credentials":{"api_key":"k","header":"X-Key"}}"#,
        ] {
            let request = AccountRequest {
                name: "crm".to_owned(),
                auth_config: Some(auth(text).unwrap()),
                ..AccountRequest::default()
            };
            let kept = serde_json::to_vec(&request).unwrap();
            assert_eq!(
                serde_json::from_slice::<AccountRequest>(&kept).unwrap(),
                request
            );
        }
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let first = AccountRequest::read(
            br#"{"name":"crm","rate_limit":60,"auth_config":{"auth_type":"bearer","credentials":{"token":"t"}}}"#,
        );
        let first = first.unwrap();
        let next = AccountRequest::read(br#"{"name":"crm","rate_limit_per_minute":90}"#).unwrap();
        let both = next.over(&first);
        assert_eq!(both.rate_limit.map(NonZeroU32::get), Some(90));
        assert_eq!(both.auth_config, first.auth_config);
    }

    #[test]
    fn mappings_stay_until_others_are_given() {
        let read = |text: &str| AccountRequest::read(text.as_bytes()).unwrap();
        let first = read(r#"{"name":"crm","mappings":{"contact":{"remote":"Contact"}}}"#);
        assert_eq!(
            read(r#"{"name":"crm"}"#).over(&first).mappings,
            first.mappings
        );
        let none = read(r#"{"name":"crm","mappings":{}}"#).over(&first);
        assert_eq!(none.mappings, Some(Map::new()));
    }
}
