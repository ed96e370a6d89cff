//! The private key that signs assertions.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use thiserror::Error;

/// An RSA key of 2,048 bits or more.
pub struct SigningKey {
    key: KeyPair,
}

/// Why a key cannot sign; never with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SigningKeyError {
    /// No PEM block of a private key.
    #[error(
        "the private key is not PEM: expected `-----BEGIN PRIVATE KEY-----` or `-----BEGIN RSA PRIVATE KEY-----`"
    )]
    NotPem,
    /// Another algorithm, too short, or not a key at all.
    #[error("the private key is not an unencrypted RSA key of 2048 to 8192 bits")]
    NotRsa,
}

impl SigningKey {
    /// Reads PEM text: PKCS#8 (`PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`).
    ///
    /// # Errors
    /// See [`SigningKeyError`].
    pub fn from_pem(pem: &str) -> Result<SigningKey, SigningKeyError> {
        let der =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| SigningKeyError::NotPem)?;
        let key = match &der {
            PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(SigningKeyError::NotRsa),
        };
        let key = key.map_err(|_| SigningKeyError::NotRsa)?;
        Ok(SigningKey { key })
    }

    /// `claims` as a signed JWT: RS256 (RFC 7518, section 3.3).
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let part = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
        let signed = format!("{}.{}", part(HEADER), part(&claims.to_string()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        // The random bytes blind the computation; the signature does not depend on them.
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .expect("the buffer has the length of the modulus");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

const HEADER: &str = r#"{"alg":"RS256","typ":"JWT"}"#;
