//! Signatures that callers can check.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// HMAC-SHA-256 over the parts one after another.
pub(crate) struct Signature(hmac::Tag);

impl Signature {
    pub(crate) fn of(secret: &str, parts: &[&[u8]]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut context = hmac::Context::with_key(&key);
        for part in parts {
            context.update(part);
        }
        Self(context.sign())
    }

    pub(crate) fn base64(&self) -> String {
        STANDARD.encode(self.0.as_ref())
    }

    pub(crate) fn hex(&self) -> String {
        let bytes = self.0.as_ref().iter();
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn the_vector_of_rfc_4231_comes_out() {
        let signature = Signature::of("Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(
            signature.hex(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
