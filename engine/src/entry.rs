//! The small log entries: intents, leases, holds, consumed sequence numbers.

use crate::codec::{Damaged, Decoder, Encoder};
use crate::id::{OperationSeq, RecordHash};
use crate::quota::{Learned, LearnedFrom};
use crate::record::KeyUse;

/// A call that must not be repeated blindly is about to leave. An intent without a later
/// state frame is an unknown outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent<'a> {
    /// The record.
    pub record: RecordHash,
    /// The operation.
    pub seq: OperationSeq,
    /// The account called.
    pub account: &'a str,
    /// The idempotency key the call carries.
    pub key: KeyUse,
    /// When it was decided, ms since the epoch.
    pub at_ms: i64,
}

impl<'a> Intent<'a> {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        e.u8(1)
            .u64(self.record.0)
            .u64(self.seq.0)
            .text(self.account);
        e.u16(self.key.number).u64(self.key.digest).i64(self.at_ms);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Damaged`] when it is not one of this version.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Damaged> {
        let mut d = versioned(payload)?;
        let intent = Self {
            record: RecordHash(d.u64("record")?),
            seq: OperationSeq(d.u64("seq")?),
            account: d.text("account")?,
            key: KeyUse {
                number: d.u16("key number")?,
                digest: d.u64("key digest")?,
            },
            at_ms: d.i64("at")?,
        };
        ended(&d)?;
        Ok(intent)
    }
}

/// Permits a shard took from an account's budget; none in an entry that is only to tell what has
/// become of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease<'a> {
    /// The account.
    pub account: &'a str,
    /// The coordinator's number for it, unique within `boot` and run.
    pub id: u64,
    /// Permits in it.
    pub permits: u32,
    /// Last instant at which one may be spent, ns of the boot-time clock.
    pub usable_until_ns: u64,
    /// The same instant on the wall clock, ms since the epoch.
    pub usable_until_ms: i64,
    /// Which boot of the machine `usable_until_ns` counts from.
    pub boot: u64,
    /// Which calls it pays for, by the tags of one; empty is any call.
    pub label: &'a str,
    /// All calls that leases of the account paid for, numbered from this
    pub settled_from: u64,
    /// to below this, had ended
    pub settled_below: u64,
    /// by this instant, ns of the boot-time clock, and are counted no later.
    pub settled_by_ns: u64,
}

impl<'a> Lease<'a> {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        e.u8(3).text(self.account).u64(self.id).u32(self.permits);
        e.u64(self.usable_until_ns)
            .i64(self.usable_until_ms)
            .u64(self.boot)
            .text(self.label)
            .u64(self.settled_from)
            .u64(self.settled_below)
            .u64(self.settled_by_ns);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Damaged`] when it is not one of this version or those before: the first had no label, the
    /// second told of no other leases.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Damaged> {
        let mut d = Decoder::new(payload);
        let version = d.u8("version")?;
        if !matches!(version, 1..=3) {
            return Err(d.damaged("version"));
        }
        let mut lease = Self {
            account: d.text("account")?,
            id: d.u64("id")?,
            permits: d.u32("permits")?,
            usable_until_ns: d.u64("usable until")?,
            usable_until_ms: d.i64("usable until, wall")?,
            boot: d.u64("boot")?,
            label: if version == 1 { "" } else { d.text("label")? },
            settled_from: 0,
            settled_below: 0,
            settled_by_ns: 0,
        };
        if version == 3 {
            lease.settled_from = d.u64("settled from")?;
            lease.settled_below = d.u64("settled below")?;
            lease.settled_by_ns = d.u64("settled by")?;
        }
        ended(&d)?;
        Ok(lease)
    }
}

/// Permits of a lease that were not spent and never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseReturn {
    /// The lease.
    pub id: u64,
    /// Permits given back.
    pub permits: u32,
}

impl LeaseReturn {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Encoder::new(out).u8(1).u64(self.id).u32(self.permits);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Damaged`] when it is not one of this version.
    pub fn decode(payload: &[u8]) -> Result<Self, Damaged> {
        let mut d = versioned(payload)?;
        let back = Self {
            id: d.u64("id")?,
            permits: d.u32("permits")?,
        };
        ended(&d)?;
        Ok(back)
    }
}

/// What an operator holds back. Absent parts match everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct HoldScope {
    /// Account name.
    pub provider: Option<String>,
    /// Local object.
    pub object: Option<String>,
    /// System A's key.
    pub record_id: Option<String>,
}

impl HoldScope {
    /// Whether an operation falls under it.
    #[must_use]
    pub fn covers(&self, provider: &str, object: &str, record_id: &str) -> bool {
        let matches = |scope: &Option<String>, value: &str| {
            scope.as_deref().is_none_or(|scope| scope == value)
        };
        matches(&self.provider, provider)
            && matches(&self.object, object)
            && matches(&self.record_id, record_id)
    }

    /// The account it holds whole, if it is that wide.
    #[must_use]
    pub fn whole_account(&self) -> Option<&str> {
        if self.object.is_none() && self.record_id.is_none() {
            self.provider.as_deref()
        } else {
            None
        }
    }
}

/// A hold set or lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldChange {
    /// What it concerns.
    pub scope: HoldScope,
    /// Set, or lifted.
    pub set: bool,
}

impl HoldChange {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        e.u8(1).u8(u8::from(self.set));
        e.optional_text(self.scope.provider.as_deref());
        e.optional_text(self.scope.object.as_deref());
        e.optional_text(self.scope.record_id.as_deref());
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Damaged`] when it is not one of this version.
    pub fn decode(payload: &[u8]) -> Result<Self, Damaged> {
        let mut d = versioned(payload)?;
        let set = d.u8("set")? != 0;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let scope = HoldScope {
            provider: owned(d.optional_text("provider")?),
            object: owned(d.optional_text("object")?),
            record_id: owned(d.optional_text("record_id")?),
        };
        ended(&d)?;
        Ok(Self { scope, set })
    }
}

/// Sequence numbers of a producer that left no event behind: refused for good, or duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// Hash of the producer's name.
    pub producer: u64,
    /// Every number up to here is settled.
    pub acked_base: u64,
    /// The numbers.
    pub seqs: Vec<u64>,
}

impl Consumed {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        e.u8(1)
            .u64(self.producer)
            .u64(self.acked_base)
            .u32(self.seqs.len() as u32);
        for &seq in &self.seqs {
            e.u64(seq);
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Damaged`] when it is not one of this version.
    pub fn decode(payload: &[u8]) -> Result<Self, Damaged> {
        let mut d = versioned(payload)?;
        let (producer, acked_base, count) = (d.u64("producer")?, d.u64("base")?, d.u32("count")?);
        let mut seqs = Vec::new();
        for _ in 0..count {
            seqs.push(d.u64("seq")?);
        }
        ended(&d)?;
        Ok(Self {
            producer,
            acked_base,
            seqs,
        })
    }
}

impl Learned {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        e.u8(1).text(&self.account).text(&self.limit);
        e.u8(match self.from {
            LearnedFrom::Provider => 1,
            LearnedFrom::Refusals => 2,
        });
        // No limit is of nothing: 0 says that none is known any more.
        e.u32(self.tokens.unwrap_or(0));
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Damaged`] when it is not one of this version.
    pub fn decode(payload: &[u8]) -> Result<Self, Damaged> {
        let mut d = versioned(payload)?;
        let learned = Self {
            account: d.text("account")?.to_owned(),
            limit: d.text("limit")?.to_owned(),
            from: match d.u8("from")? {
                1 => LearnedFrom::Provider,
                2 => LearnedFrom::Refusals,
                _ => return Err(d.damaged("from")),
            },
            tokens: Some(d.u32("tokens")?).filter(|tokens| *tokens > 0),
        };
        ended(&d)?;
        Ok(learned)
    }
}

fn versioned(payload: &[u8]) -> Result<Decoder<'_>, Damaged> {
    let mut d = Decoder::new(payload);
    match d.u8("version")? {
        1 => Ok(d),
        _ => Err(d.damaged("version")),
    }
}

fn ended(d: &Decoder<'_>) -> Result<(), Damaged> {
    if d.is_empty() {
        Ok(())
    } else {
        Err(d.damaged("end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every entry decodes from exactly its own bytes and from no prefix of them.
    fn check<T: PartialEq + std::fmt::Debug>(
        bytes: &[u8],
        expected: &T,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) {
        assert_eq!(decode(bytes).as_ref(), Some(expected));
        for cut in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..cut]),
                None,
                "{cut} of {} bytes",
                bytes.len()
            );
        }
        let longer = [bytes, &[0]].concat();
        assert_eq!(decode(&longer), None, "a byte too many");
    }

    #[test]
    fn entries_survive_their_bytes() {
        let mut out = Vec::new();
        let key = KeyUse {
            number: 3,
            digest: 99,
        };
        let intent = Intent {
            record: RecordHash(7),
            seq: OperationSeq(8),
            account: "crm",
            key,
            at_ms: -1,
        };
        intent.encode(&mut out);
        assert_eq!(Intent::decode(&out), Ok(intent));

        out.clear();
        let lease = Lease {
            account: "crm",
            id: 1,
            permits: 20,
            usable_until_ns: 5,
            usable_until_ms: 6,
            boot: u64::MAX,
            label: "lookup search",
            settled_from: 1,
            settled_below: 1,
            settled_by_ns: 4,
        };
        lease.encode(&mut out);
        assert_eq!(Lease::decode(&out), Ok(lease));

        out.clear();
        let back = LeaseReturn { id: 1, permits: 20 };
        back.encode(&mut out);
        check(&out, &back, |bytes| LeaseReturn::decode(bytes).ok());

        out.clear();
        let scope = HoldScope {
            provider: Some("crm".into()),
            object: None,
            record_id: Some("ü".into()),
        };
        let hold = HoldChange { scope, set: true };
        hold.encode(&mut out);
        check(&out, &hold, |bytes| HoldChange::decode(bytes).ok());

        for (from, tokens) in [
            (LearnedFrom::Provider, Some(9)),
            (LearnedFrom::Refusals, None),
        ] {
            out.clear();
            let learned = Learned {
                account: "crm".into(),
                limit: "burst".into(),
                from,
                tokens,
            };
            learned.encode(&mut out);
            check(&out, &learned, |bytes| Learned::decode(bytes).ok());
        }

        out.clear();
        let consumed = Consumed {
            producer: 3,
            acked_base: 4,
            seqs: vec![5, 9],
        };
        consumed.encode(&mut out);
        check(&out, &consumed, |bytes| Consumed::decode(bytes).ok());
    }

    #[test]
    fn a_lease_of_an_older_version_tells_less() {
        let mut out = Vec::new();
        let lease = Lease {
            account: "crm",
            id: 1,
            permits: 20,
            usable_until_ns: 5,
            usable_until_ms: 6,
            boot: 7,
            label: "",
            settled_from: 0,
            settled_below: 0,
            settled_by_ns: 0,
        };
        let mut e = Encoder::new(&mut out);
        e.u8(1).text("crm").u64(1).u32(20).u64(5).i64(6).u64(7);
        assert_eq!(Lease::decode(&out), Ok(lease.clone()));
        out.clear();
        let mut e = Encoder::new(&mut out);
        e.u8(2).text("crm").u64(1).u32(20).u64(5).i64(6).u64(7);
        e.text("lookup");
        let label = "lookup";
        assert_eq!(Lease::decode(&out), Ok(Lease { label, ..lease }));
    }

    #[test]
    fn a_hold_covers_what_its_parts_name() {
        let account = HoldScope {
            provider: Some("crm".into()),
            ..HoldScope::default()
        };
        assert!(account.covers("crm", "contact", "1") && !account.covers("other", "contact", "1"));
        assert_eq!(account.whole_account(), Some("crm"));
        let record = HoldScope {
            record_id: Some("1".into()),
            ..HoldScope::default()
        };
        assert!(record.covers("any", "contact", "1") && !record.covers("any", "contact", "2"));
        assert_eq!(record.whole_account(), None);
    }
}
