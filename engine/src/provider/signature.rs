//! How a delivery proves that it comes from the provider: compiled from `[[webhook.signatures]]`.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use serde::Deserialize;

use super::inbound_blocks::SignatureBlock;
use super::instant::{TimeUnit, instant_ms};
use super::limit::{duration, header_name};
use super::problems::Problems;
use super::{Delivery, TemplateError};

/// One way of proof. Of an account exactly one is in force: a provider that signs twice could
/// otherwise be impersonated by stripping the stronger signature off an old delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Chosen by it in an account's settings.
    pub(crate) name: String,
    header: String,
    /// What stands before the proof in its header.
    prefix: String,
    proof: Proof,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// A keyed hash over the message.
    Hmac(Message),
    /// A hash over a message that holds the secret.
    Sha256(Message),
    /// The secret itself.
    Token,
    /// The secret, `user:password`, as RFC 7617 has it.
    Basic,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    pieces: Vec<Piece>,
    encoding: Encoding,
    timestamp: Option<Stamp>,
}

/// When the provider says that it signed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    header: String,
    unit: TimeUnit,
    tolerance: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Secret,
    Method,
    Uri,
    Body,
    Header(String),
}

/// The kinds of proof, by their names in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SignatureKind {
    HmacSha256,
    Sha256,
    Token,
    Basic,
}

/// How a hash is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    /// In lower case.
    Hex,
    /// The standard alphabet, padded.
    Base64,
}

/// Why a delivery was not believed. Nothing of it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// A header that the proof needs is missing, or there twice.
    #[error("the delivery carries no signature")]
    Unsigned,
    /// No secret of the account makes this signature.
    #[error("the signature is not that of the account")]
    Forged,
    /// Signed too long ago, or in the future.
    #[error("the delivery was not signed within the time that is allowed")]
    Stale,
    /// Signed, and meant for another account of the same application.
    #[error("the delivery is another account's")]
    OtherAccount,
}

/// Five minutes: what providers that document a window ask of receivers.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

impl Signature {
    pub(crate) fn compile(
        at: usize,
        block: &SignatureBlock,
        problems: &mut Problems,
    ) -> Option<Signature> {
        let key = |member: &str| format!("webhook.signatures[{at}].{member}");
        let header = problems.note(key("header"), header_name(&block.header));
        let proof = match block.kind {
            SignatureKind::HmacSha256 | SignatureKind::Sha256 => {
                let message = Message::compile(at, block, problems)?;
                let keyed = block.kind == SignatureKind::HmacSha256;
                let holds_secret = message.holds(&Piece::Secret);
                if keyed == holds_secret {
                    let fault = if keyed {
                        TemplateError::SecretInMessage
                    } else {
                        TemplateError::MessageWithout("secret")
                    };
                    problems.add(key("message"), fault);
                }
                if keyed {
                    Proof::Hmac(message)
                } else {
                    Proof::Sha256(message)
                }
            }
            SignatureKind::Token | SignatureKind::Basic => {
                let unused = [
                    ("message", block.message.is_some()),
                    ("encoding", block.encoding.is_some()),
                    ("timestamp", block.timestamp.is_some()),
                ];
                for (member, _) in unused.into_iter().filter(|(_, used)| *used) {
                    problems.add(key(member), TemplateError::Meaningless(member));
                }
                match block.kind {
                    SignatureKind::Basic => Proof::Basic,
                    _ => Proof::Token,
                }
            }
        };
        Some(Signature {
            name: block.name.clone(),
            header: header?,
            prefix: block.prefix.clone(),
            proof,
        })
    }

    /// Checks a delivery against each secret. How long it takes tells nothing of where a wrong
    /// signature begins to differ.
    pub(crate) fn check(
        &self,
        secrets: &[impl AsRef<str>],
        now_ms: i64,
        delivery: &Delivery<'_>,
    ) -> Result<(), Unproven> {
        let given = delivery.header(&self.header).ok_or(Unproven::Unsigned)?;
        let given = given.strip_prefix(&*self.prefix).ok_or(Unproven::Forged)?;
        let right = |expected: &str| same(expected.as_bytes(), given.as_bytes());
        let mut proven = false;
        for secret in secrets {
            let secret = secret.as_ref();
            // Every secret is tried, so that the time does not tell which one it was.
            proven |= match &self.proof {
                Proof::Hmac(message) => {
                    let key = hmac::Key::new(hmac::HMAC_SHA256, &key_bytes(secret));
                    let mut context = hmac::Context::with_key(&key);
                    message.write(secret, delivery, |piece| context.update(piece))?;
                    right(&message.encoding.write(context.sign().as_ref()))
                }
                Proof::Sha256(message) => {
                    let mut context = digest::Context::new(&digest::SHA256);
                    message.write(secret, delivery, |piece| context.update(piece))?;
                    right(&message.encoding.write(context.finish().as_ref()))
                }
                Proof::Token => right(secret),
                Proof::Basic => right(&format!("Basic {}", STANDARD.encode(secret))),
            };
        }
        if !proven {
            return Err(Unproven::Forged);
        }
        match self.stamp() {
            Some(stamp) => stamp.check(now_ms, delivery),
            None => Ok(()),
        }
    }

    fn stamp(&self) -> Option<&Stamp> {
        match &self.proof {
            Proof::Hmac(message) | Proof::Sha256(message) => message.timestamp.as_ref(),
            Proof::Token | Proof::Basic => None,
        }
    }
}

impl Message {
    fn compile(at: usize, block: &SignatureBlock, problems: &mut Problems) -> Option<Message> {
        let key = |member: &str| format!("webhook.signatures[{at}].{member}");
        let missing = |member: &'static str| TemplateError::Missing(member);
        let encoding = problems.note(key("encoding"), block.encoding.ok_or(missing("encoding")));
        let text = block.message.as_deref().ok_or(missing("message"));
        let text = problems.note(key("message"), text)?;
        let stamp = block.timestamp.as_ref().and_then(|stamp| {
            let key = |member: &str| format!("webhook.signatures[{at}].timestamp.{member}");
            let header = problems.note(key("header"), header_name(&stamp.header));
            let tolerance = stamp.tolerance.as_deref().map(duration).transpose();
            let tolerance = problems.note(key("tolerance"), tolerance)?;
            Some(Stamp {
                header: header?,
                unit: stamp.unit,
                tolerance: tolerance.unwrap_or(TOLERANCE),
            })
        });
        let header = stamp.as_ref().map(|stamp| stamp.header.as_str());
        let pieces = problems.note(key("message"), pieces(text, header))?;
        let message = Message {
            pieces,
            encoding: encoding?,
            timestamp: stamp,
        };
        if !message.holds(&Piece::Body) {
            problems.add(key("message"), TemplateError::MessageWithout("body"));
        }
        // A time that is not signed is anybody's.
        if let Some(stamp) = &message.timestamp
            && !message.holds(&Piece::Header(stamp.header.clone()))
        {
            problems.add(key("message"), TemplateError::MessageWithout("timestamp"));
        }
        Some(message)
    }

    fn holds(&self, wanted: &Piece) -> bool {
        self.pieces.contains(wanted)
    }

    fn write(
        &self,
        secret: &str,
        delivery: &Delivery<'_>,
        mut to: impl FnMut(&[u8]),
    ) -> Result<(), Unproven> {
        for piece in &self.pieces {
            to(match piece {
                Piece::Literal(text) => text.as_bytes(),
                Piece::Secret => secret.as_bytes(),
                Piece::Method => delivery.method.as_bytes(),
                Piece::Uri => delivery.uri.as_bytes(),
                Piece::Body => delivery.body,
                Piece::Header(name) => {
                    let value = delivery.header(name).ok_or(Unproven::Unsigned)?;
                    value.as_bytes()
                }
            });
        }
        Ok(())
    }
}

impl Stamp {
    fn check(&self, now_ms: i64, delivery: &Delivery<'_>) -> Result<(), Unproven> {
        let text = delivery.header(&self.header).ok_or(Unproven::Unsigned)?;
        let at_ms = instant_ms(text, self.unit).ok_or(Unproven::Stale)?;
        if u128::from(at_ms.abs_diff(now_ms)) > self.tolerance.as_millis() {
            return Err(Unproven::Stale);
        }
        Ok(())
    }
}

impl Encoding {
    fn write(self, hash: &[u8]) -> String {
        match self {
            Encoding::Hex => hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            Encoding::Base64 => STANDARD.encode(hash),
        }
    }
}

/// A key as Standard Webhooks writes it (specification, section Signature scheme, read 2026-11),
/// or the secret's own bytes.
fn key_bytes(secret: &str) -> Cow<'_, [u8]> {
    let written = secret.strip_prefix("whsec_");
    match written.and_then(|key| STANDARD.decode(key).ok()) {
        Some(key) => Cow::Owned(key),
        None => Cow::Borrowed(secret.as_bytes()),
    }
}

/// Cuts `{method}{uri}{body}{timestamp}`.
fn pieces(text: &str, timestamp: Option<&str>) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        let (name, after) = brace
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
            .ok_or(TemplateError::UnbalancedBrace)?;
        if !before.is_empty() {
            pieces.push(Piece::Literal(before.to_owned()));
        }
        pieces.push(match (name, timestamp, name.strip_prefix("header:")) {
            ("secret", ..) => Piece::Secret,
            ("method", ..) => Piece::Method,
            ("uri", ..) => Piece::Uri,
            ("body", ..) => Piece::Body,
            ("timestamp", Some(header), _) => Piece::Header(header.to_owned()),
            ("timestamp", None, _) => return Err(TemplateError::Missing("timestamp")),
            (_, _, Some(header)) => Piece::Header(header_name(header)?),
            (name, ..) => return Err(TemplateError::UnknownMessagePart(name.to_owned())),
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    Ok(pieces)
}

/// Compares without telling by its time where two texts differ: their keyed hashes are compared
/// in constant time, and hashes of texts that are alike in part are not alike.
fn same(expected: &[u8], given: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"equal texts have equal hashes");
    hmac::verify(&key, given, hmac::sign(&key, expected).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_into_its_parts() {
        assert_eq!(
            pieces("{method}.{header:x-id}{timestamp}!", Some("x-time")),
            Ok(vec![
                Piece::Method,
                Piece::Literal(".".into()),
                Piece::Header("x-id".into()),
                Piece::Header("x-time".into()),
                Piece::Literal("!".into()),
            ])
        );
        for (text, fault) in [
            ("{body", TemplateError::UnbalancedBrace),
            ("body}", TemplateError::UnbalancedBrace),
            ("{timestamp}", TemplateError::Missing("timestamp")),
            ("{host}", TemplateError::UnknownMessagePart("host".into())),
            ("{header:X-Id}", TemplateError::NotAHeader("X-Id".into())),
        ] {
            assert_eq!(pieces(text, None), Err(fault), "{text}");
        }
    }

    #[test]
    fn texts_are_the_same_only_whole() {
        assert!(same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b"", b"ABC"] {
            assert!(!same(b"abc", other));
        }
    }
}
