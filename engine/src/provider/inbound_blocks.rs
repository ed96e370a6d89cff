//! The shape of a definition file's `[webhook]` and `[poll.FEED]`: how changes come in.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::CallKind;
use super::file::{OkBlock, OneOrMore};
use super::instant::TimeUnit;
use super::signature::{Encoding, SignatureKind};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookBlock {
    #[serde(default = "ok")]
    pub(crate) ack: u16,
    pub(crate) account: Option<String>,
    #[serde(default)]
    pub(crate) signatures: Vec<SignatureBlock>,
    #[serde(default)]
    pub(crate) events: String,
    pub(crate) event: EventBlock,
}

fn ok() -> u16 {
    200
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignatureBlock {
    pub(crate) name: String,
    pub(crate) kind: SignatureKind,
    pub(crate) header: String,
    #[serde(default)]
    pub(crate) prefix: String,
    pub(crate) encoding: Option<Encoding>,
    pub(crate) message: Option<String>,
    pub(crate) timestamp: Option<StampBlock>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StampBlock {
    pub(crate) header: String,
    #[serde(default)]
    pub(crate) unit: TimeUnit,
    pub(crate) tolerance: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventBlock {
    pub(crate) object: TableBlock,
    pub(crate) kind: TableBlock,
    pub(crate) id: String,
    pub(crate) merged: Option<MergedBlock>,
    #[serde(default)]
    pub(crate) occurred_at: OneOrMore<String>,
    #[serde(default)]
    pub(crate) unit: TimeUnit,
    #[serde(default)]
    pub(crate) delivery_id: OneOrMore<String>,
    pub(crate) property: Option<PropertyBlock>,
    pub(crate) fields: Option<String>,
    #[serde(default)]
    pub(crate) complete: bool,
    pub(crate) version: Option<String>,
}

/// What a value of the provider's means here: `{ at, table }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableBlock {
    pub(crate) at: OneOrMore<String>,
    pub(crate) table: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MergedBlock {
    pub(crate) into: OneOrMore<String>,
    pub(crate) from: OneOrMore<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PropertyBlock {
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PollBlock {
    pub(crate) interval: String,
    pub(crate) pace: Option<String>,
    pub(crate) counts_as: Option<CallKind>,
    pub(crate) overlap: Option<String>,
    pub(crate) reach: Option<String>,
    pub(crate) span: Option<String>,
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) body: Option<Value>,
    pub(crate) long: Option<LongBlock>,
    pub(crate) ties: Option<TiesBlock>,
    pub(crate) modified: Option<String>,
    #[serde(default)]
    pub(crate) fields: Vec<String>,
    #[serde(default)]
    pub(crate) objects: BTreeMap<String, PolledObjectBlock>,
    pub(crate) size: Option<u32>,
    pub(crate) cap: Option<u64>,
    #[serde(default)]
    pub(crate) scan: bool,
    pub(crate) records: OneOrMore<String>,
    #[serde(default)]
    pub(crate) record: String,
    #[serde(default)]
    pub(crate) drop: Vec<String>,
    pub(crate) id: String,
    pub(crate) modified_at: String,
    #[serde(default)]
    pub(crate) unit: TimeUnit,
    pub(crate) version: Option<String>,
    pub(crate) deleted: Option<OkBlock>,
    pub(crate) merged_into: Option<String>,
    #[serde(default)]
    pub(crate) tells: Tells,
    pub(crate) page: Option<PageBlock>,
    pub(crate) next_from: Option<String>,
    pub(crate) earliest: Option<String>,
}

/// How a list is asked for whose path would be too long.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LongBlock {
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// How records of one instant are read by their ids, where more of them than `cap` may come.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TiesBlock {
    #[serde(default)]
    pub(crate) first: String,
    #[serde(default)]
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) body: Option<Value>,
}

/// What is different for one object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolledObjectBlock {
    pub(crate) modified: Option<String>,
    #[serde(default)]
    pub(crate) fields: Vec<String>,
}

/// What an entry of a feed is.
#[derive(Deserialize, Default, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tells {
    /// A record as it is now.
    #[default]
    Changed,
    /// One that is gone.
    Deleted,
}

/// Where a page says how the next one is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageBlock {
    pub(crate) token: Option<String>,
    pub(crate) url: Option<String>,
}
