//! Signing what is posted, as Standard Webhooks 1.0 has it.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use thiserror::Error;

/// Names a message, the same for every attempt.
const ID: HeaderName = HeaderName::from_static("webhook-id");
/// When this attempt was made, seconds since the epoch.
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// `v1,` and the HMAC-SHA256 of id, timestamp and body with dots between, in base64.
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// What secrets that are base64 begin with.
const SECRET_PREFIX: &str = "whsec_";

/// A secret that signs messages. `Debug` does not show it.
#[derive(Clone)]
pub struct MessageSigner {
    key: hmac::Key,
}

/// The secret begins with `whsec_` and does not go on in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a secret that begins with `{SECRET_PREFIX}` goes on in base64")]
pub struct NotASecret;

impl MessageSigner {
    /// A secret as it is written: `whsec_` and base64, or any text.
    ///
    /// # Errors
    /// [`NotASecret`].
    pub fn new(secret: &str) -> Result<Self, NotASecret> {
        let bytes = match secret.trim().strip_prefix(SECRET_PREFIX) {
            Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| NotASecret)?,
            None => secret.trim().as_bytes().to_vec(),
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Ok(Self { key })
    }

    /// Adds the headers of one attempt. `id` must be fit for a header; one that is not goes unsigned.
    pub(crate) fn sign(&self, id: &str, at_s: u64, body: &[u8], headers: &mut HeaderMap) {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{id}.{at_s}.").as_bytes());
        context.update(body);
        let signature = format!("v1,{}", BASE64_STANDARD.encode(context.sign()));
        let value = HeaderValue::try_from(id).ok();
        let (Some(id), Ok(signature)) = (value, HeaderValue::try_from(signature)) else {
            return;
        };
        headers.insert(ID, id);
        headers.insert(TIMESTAMP, HeaderValue::from(at_s));
        headers.insert(SIGNATURE, signature);
    }
}

impl fmt::Debug for MessageSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageSigner(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_signed_as_the_standard_has_it() {
        // The example of the Standard Webhooks specification.
        let signer = MessageSigner::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mut headers = HeaderMap::new();
        let body = br#"{"test": 2432232314}"#;
        signer.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            body,
            &mut headers,
        );
        assert_eq!(
            headers[SIGNATURE],
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(headers[ID], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers[TIMESTAMP], "1614265330");
    }

    #[test]
    fn a_secret_is_checked_and_not_shown() {
        assert_eq!(MessageSigner::new("whsec_!").err(), Some(NotASecret));
        let signer = MessageSigner::new("s3cret").unwrap();
        assert!(!format!("{signer:?}").contains("s3cret"));
    }
}
