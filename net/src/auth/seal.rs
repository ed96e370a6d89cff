//! Encryption of what is kept about credentials.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

/// Seals and opens with one key: ChaCha20-Poly1305 (RFC 8439).
///
/// Nonces are random. At a token a second it takes 136 years to seal 2^32 times, up to which a
/// repetition is out of the question.
pub struct Seal {
    key: LessSafeKey,
}

/// Bytes of a key.
pub const SEAL_KEY_BYTES: usize = 32;

/// Bytes of a nonce, which stands before what it sealed.
pub const NONCE_BYTES: usize = 12;

/// Keys derived here are for nothing else.
const PURPOSE: &[u8] = b"syncline tokens at rest, version 1";

impl Seal {
    /// Derives the key from `secret`, which need not be of any length but of as much entropy.
    pub fn new(secret: &[u8]) -> Seal {
        let derived = Salt::new(HKDF_SHA256, &[]).extract(secret);
        let info = [PURPOSE];
        let key = derived
            .expand(&info, &CHACHA20_POLY1305)
            .map(UnboundKey::from)
            .expect("a key is shorter than 255 hashes");
        Seal {
            key: LessSafeKey::new(key),
        }
    }

    /// `plain`, readable only with this key, and only as `context`. A nonce is used once.
    pub fn seal(&self, context: &[u8], nonce: [u8; NONCE_BYTES], plain: &[u8]) -> Vec<u8> {
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut body,
            )
            .expect("a token is far shorter than the cipher's 256 GiB");
        let mut sealed = nonce.to_vec();
        sealed.append(&mut body);
        sealed
    }

    /// What was sealed as `context`; `None` if it was not, with another key, or changed since.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(context), &mut body)
            .ok()?;
        Some(plain.to_vec())
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_the_same_key_as_the_same_thing_only() {
        let seal = Seal::new(&[7; SEAL_KEY_BYTES]);
        let sealed = seal.seal(b"crm", [1; NONCE_BYTES], b"t0ken");
        assert!(!sealed.windows(5).any(|part| part == b"t0ken"));
        assert_eq!(seal.open(b"crm", &sealed), Some(b"t0ken".to_vec()));
        assert_eq!(seal.open(b"erp", &sealed), None);
        assert_eq!(Seal::new(&[8; SEAL_KEY_BYTES]).open(b"crm", &sealed), None);
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let seal = Seal::new(&[7; SEAL_KEY_BYTES]);
        let sealed = seal.seal(b"crm", [1; NONCE_BYTES], b"t0ken");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(seal.open(b"crm", &changed), None, "byte {at}");
            assert_eq!(seal.open(b"crm", &sealed[..at]), None, "cut at {at}");
        }
    }
}
