//! What an account shows for a token.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::digest::{Context, SHA256};
use serde_json::json;

use super::SigningKey;

/// The grant of an account, secrets resolved. `Debug` does not show them.
pub enum Grant {
    /// RFC 6749, section 4.4.
    ClientCredentials(Client),
    /// RFC 6749, section 6.
    Refresh {
        /// Who asks.
        client: Client,
        /// The one to begin with; replies may bring others.
        refresh_token: String,
    },
    /// RFC 7523, section 2.1, signed with RS256.
    JwtBearer {
        /// `iss`: who asks.
        client_id: String,
        /// `sub`: for whom.
        username: String,
        /// `aud`: who is to believe it.
        audience: String,
        /// Whose public half the provider knows.
        key: Box<SigningKey>,
    },
}

/// A client registered at the provider.
pub struct Client {
    /// Its id.
    pub id: String,
    /// Its secret; a public client has none.
    pub secret: Option<String>,
    /// Asked for when given.
    pub scope: Option<String>,
}

/// How long an assertion is good: providers ask for three to five minutes, and clocks differ.
const ASSERTION_SECONDS: i64 = 180;

impl Grant {
    /// The body of a request for a token.
    pub(crate) fn form(&self, refresh_token: Option<&str>, unix_s: i64) -> String {
        let mut form = Form::default();
        match self {
            Grant::ClientCredentials(client) => {
                form.pair("grant_type", "client_credentials");
                form.client(client);
            }
            Grant::Refresh {
                client,
                refresh_token: first,
            } => {
                form.pair("grant_type", "refresh_token");
                form.client(client);
                form.pair("refresh_token", refresh_token.unwrap_or(first));
            }
            Grant::JwtBearer {
                client_id,
                username,
                audience,
                key,
            } => {
                let claims = json!({
                    "iss": client_id,
                    "sub": username,
                    "aud": audience,
                    "exp": unix_s.saturating_add(ASSERTION_SECONDS),
                });
                form.pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
                form.pair("assertion", &key.sign(&claims));
            }
        }
        form.text
    }

    /// Names what tokens were granted for: what was kept for another grant is not used.
    pub(crate) fn fingerprint(&self, token_url: &str) -> String {
        let parts: [&str; 4] = match self {
            Grant::ClientCredentials(client) => [
                "client_credentials",
                &client.id,
                client.scope.as_deref().unwrap_or_default(),
                "",
            ],
            // The first refresh token too: another one in the settings is a new consent.
            Grant::Refresh {
                client,
                refresh_token,
            } => [
                "refresh_token",
                &client.id,
                client.scope.as_deref().unwrap_or_default(),
                refresh_token,
            ],
            Grant::JwtBearer {
                client_id,
                username,
                audience,
                ..
            } => ["jwt_bearer", client_id, username, audience],
        };
        let mut digest = Context::new(&SHA256);
        for part in parts.into_iter().chain([token_url]) {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        let bytes = digest.finish();
        bytes
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Grant::ClientCredentials(_) => "ClientCredentials",
            Grant::Refresh { .. } => "Refresh",
            Grant::JwtBearer { .. } => "JwtBearer",
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// `application/x-www-form-urlencoded`
#[derive(Default)]
struct Form {
    text: String,
}

impl Form {
    fn pair(&mut self, name: &str, value: &str) {
        if !self.text.is_empty() {
            self.text.push('&');
        }
        self.text.push_str(name);
        self.text.push('=');
        self.text.extend(utf8_percent_encode(value, ESCAPED));
    }

    /// In the body, as all providers with a definition take it; some take nothing else.
    fn client(&mut self, client: &Client) {
        self.pair("client_id", &client.id);
        if let Some(secret) = &client.secret {
            self.pair("client_secret", secret);
        }
        if let Some(scope) = &client.scope {
            self.pair("scope", scope);
        }
    }
}

/// What a form escapes (WHATWG URL, section 5.2); a space may be `%20` as well.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client {
            id: "app&co".to_owned(),
            secret: Some("s e=c".to_owned()),
            scope: None,
        }
    }

    #[test]
    fn a_form_names_the_grant_and_escapes_every_value() {
        let grant = Grant::ClientCredentials(client());
        assert_eq!(
            grant.form(None, 0),
            "grant_type=client_credentials&client_id=app%26co&client_secret=s%20e%3Dc"
        );
        let grant = Grant::Refresh {
            client: client(),
            refresh_token: "first".to_owned(),
        };
        assert!(grant.form(None, 0).ends_with("&refresh_token=first"));
        assert!(grant.form(Some("next"), 0).ends_with("&refresh_token=next"));
    }

    #[test]
    fn another_client_url_or_first_refresh_token_is_another_grant() {
        let refresh = |token: &str| Grant::Refresh {
            client: client(),
            refresh_token: token.to_owned(),
        };
        let of = |grant: &Grant, url| grant.fingerprint(url);
        let first = of(&refresh("a"), "https://x/token");
        assert_eq!(first, of(&refresh("a"), "https://x/token"));
        assert_ne!(first, of(&refresh("b"), "https://x/token"));
        assert_ne!(first, of(&refresh("a"), "https://y/token"));
        assert_ne!(
            first,
            of(&Grant::ClientCredentials(client()), "https://x/token")
        );
    }

    #[test]
    fn nothing_prints_a_secret() {
        let shown = format!("{:?} {:?}", client(), Grant::ClientCredentials(client()));
        assert_eq!(shown, "Client ClientCredentials");
    }
}
