//! What the server says, in both encodings.

use std::borrow::Cow;
use std::io::Write;

use serde::{Deserialize, Serialize};

use engine::refusal::Refusal;

/// One message from the server. As a line it is this JSON; as a frame its kind is the variant
/// and its payload the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<'a> {
    /// The answer to a hello.
    #[serde(borrow)]
    Welcome(WelcomeBody<'a>),
    /// Everything up to this number is durable or finally refused.
    Ack(AckBody),
    /// One event was not taken.
    Reject(RejectBody<'a>),
    /// The session ends here.
    Error(ErrorBody<'a>),
}

/// Where the producer goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeBody<'a> {
    /// The producer as the server knows it; absent for an anonymous session.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<Cow<'a, str>>,
    /// At least every number ever acknowledged to this producer.
    pub last_seq: u64,
    /// Frames only: bytes of EVENTS frames that the client may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<u64>,
}

/// A cumulative acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckBody {
    /// Highest number covered.
    pub seq: u64,
}

/// Why one event was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectBody<'a> {
    /// The event's number.
    pub seq: u64,
    /// From the one code table.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// For a person.
    #[serde(borrow)]
    pub detail: Cow<'a, str>,
    /// JSON pointer into the event.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<Cow<'a, str>>,
    /// Time can cure it: not acknowledged, to be sent again later.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retry: bool,
}

/// Why the session ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody<'a> {
    /// From the table in `docs/design/ingest-protocol.md`.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// With `seq_gap`: the number that was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// For a person.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'a, str>>,
    /// JSON pointer into the message at fault.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<Cow<'a, str>>,
    /// Time can cure it: come back later.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retry: bool,
}

impl<'a> RejectBody<'a> {
    pub(crate) fn new(seq: u64, refusal: &'a Refusal) -> Self {
        RejectBody {
            seq,
            code: refusal.code.as_str().into(),
            detail: refusal.detail.as_ref().into(),
            pointer: refusal.pointer.as_deref().map(Cow::from),
            retry: refusal.code.retry(),
        }
    }
}

impl<'a> ErrorBody<'a> {
    pub(crate) fn refused(refusal: &'a Refusal) -> Self {
        ErrorBody {
            code: refusal.code.as_str().into(),
            expected: None,
            detail: Some(refusal.detail.as_ref().into()),
            pointer: refusal.pointer.as_deref().map(Cow::from),
            retry: refusal.code.retry(),
        }
    }
}

impl Answer<'_> {
    /// Appends the answer as one line.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Ack(ack) => {
                // Written by hand: it is the one answer sent in numbers.
                write!(out, "{{\"ack\":{{\"seq\":{}}}}}", ack.seq)
                    .expect("a Vec takes every write");
            }
            other => write_json(other, out),
        }
        out.push(b'\n');
    }
}

/// Appends `value` as JSON.
pub(crate) fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("answers hold text and numbers only");
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(answer: &Answer<'_>) -> String {
        let mut out = Vec::new();
        answer.write_line(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(&serde_json::from_str::<Answer<'_>>(&text).unwrap(), answer);
        text
    }

    #[test]
    fn lines_read_as_the_contract_prints_them() {
        let welcome = Answer::Welcome(WelcomeBody {
            producer: Some("billing".into()),
            last_seq: 41,
            credit: None,
        });
        assert_eq!(
            line(&welcome),
            "{\"welcome\":{\"producer\":\"billing\",\"last_seq\":41}}\n"
        );
        assert_eq!(
            line(&Answer::Ack(AckBody { seq: 42 })),
            "{\"ack\":{\"seq\":42}}\n"
        );
        let reject = Answer::Reject(RejectBody {
            seq: 43,
            code: "schema".into(),
            detail: "not an \"email\"".into(),
            pointer: Some("/data/email".into()),
            retry: false,
        });
        assert_eq!(
            line(&reject),
            "{\"reject\":{\"seq\":43,\"code\":\"schema\",\"detail\":\"not an \\\"email\\\"\",\
             \"pointer\":\"/data/email\"}}\n"
        );
        let gap = Answer::Error(ErrorBody {
            code: "seq_gap".into(),
            expected: Some(44),
            ..ErrorBody::default()
        });
        assert_eq!(
            line(&gap),
            "{\"error\":{\"code\":\"seq_gap\",\"expected\":44}}\n"
        );
        let replaced = Answer::Error(ErrorBody {
            code: "replaced".into(),
            ..ErrorBody::default()
        });
        assert_eq!(line(&replaced), "{\"error\":{\"code\":\"replaced\"}}\n");
    }
}
