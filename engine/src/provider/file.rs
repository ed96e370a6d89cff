//! The shape of a definition file. What the keys mean: `docs/providers.md`; what must hold among
//! them is checked where they are compiled.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::error_rule::{ErrorClass, PauseScope};
use super::inbound_blocks::{PollBlock, WebhookBlock};
use super::{AuthKind, CallKind, LimitKind, LimitScope};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DefinitionFile {
    pub(crate) provider: ProviderBlock,
    pub(crate) auth: Option<AuthBlock>,
    #[serde(default)]
    pub(crate) limits: Vec<LimitBlock>,
    #[serde(default)]
    pub(crate) fields: FieldsBlock,
    #[serde(default)]
    pub(crate) objects: BTreeMap<String, ObjectBlock>,
    pub(crate) operations: OperationBlocks,
    #[serde(default)]
    pub(crate) batch: BTreeMap<String, BatchBlock>,
    #[serde(default)]
    pub(crate) error: ShapeBlock,
    #[serde(default)]
    pub(crate) errors: Vec<ErrorBlock>,
    pub(crate) webhook: Option<WebhookBlock>,
    #[serde(default)]
    pub(crate) poll: BTreeMap<String, PollBlock>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderBlock {
    pub(crate) id: String,
    pub(crate) format: u32,
    pub(crate) base_url: Option<String>,
    pub(crate) api_version: Option<String>,
    pub(crate) root: Option<String>,
    #[serde(default)]
    pub(crate) roots: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthBlock {
    pub(crate) kinds: Vec<AuthKind>,
    pub(crate) header: Option<String>,
    pub(crate) scheme: Option<String>,
    pub(crate) token_url: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) lifetime: Option<String>,
    pub(crate) refresh_ahead: Option<String>,
    pub(crate) mint_interval: Option<String>,
    #[serde(default)]
    pub(crate) rotates_refresh_token: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitBlock {
    pub(crate) name: String,
    pub(crate) kind: LimitKind,
    pub(crate) limit: Option<u64>,
    pub(crate) window: Option<String>,
    pub(crate) burst: Option<u64>,
    pub(crate) timezone: Option<String>,
    #[serde(default)]
    pub(crate) scope: LimitScope,
    #[serde(default)]
    pub(crate) operations: Vec<CallKind>,
    #[serde(default)]
    pub(crate) costs: BTreeMap<String, u32>,
    #[serde(default)]
    pub(crate) reserve_percent: u8,
    #[serde(default)]
    pub(crate) observe: Vec<ObserveBlock>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObserveBlock {
    pub(crate) header: String,
    pub(crate) pattern: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct FieldsBlock {
    #[serde(default)]
    pub(crate) null: NullStyle,
    #[serde(default)]
    pub(crate) values: ValueStyle,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NullStyle {
    #[default]
    Null,
    EmptyText,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ValueStyle {
    #[default]
    AsIs,
    Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectBlock {
    pub(crate) remote: String,
    #[serde(rename = "type")]
    pub(crate) object_type: Option<String>,
    pub(crate) external_id: Option<String>,
    /// `false`: the provider cannot be asked by the key.
    pub(crate) lookup: Option<bool>,
    #[serde(default)]
    pub(crate) wrap: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) fields: Vec<MappedFieldBlock>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MappedFieldBlock {
    #[serde(default)]
    pub(crate) local: String,
    pub(crate) remote: String,
    #[serde(default)]
    pub(crate) required: bool,
    pub(crate) default: Option<Value>,
    pub(crate) constant: Option<Value>,
    #[serde(default)]
    pub(crate) convert: Vec<String>,
    #[serde(default)]
    pub(crate) values: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) lossy: bool,
    pub(crate) reference: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationBlocks {
    create: Option<OperationBlock>,
    upsert: Option<OperationBlock>,
    update: Option<OperationBlock>,
    delete: Option<OperationBlock>,
    read: Option<OperationBlock>,
    lookup: Option<OperationBlock>,
    #[serde(rename = "match")]
    matching: Option<OperationBlock>,
}

impl OperationBlocks {
    pub(crate) fn block(&self, kind: CallKind) -> Option<&OperationBlock> {
        match kind {
            CallKind::Create => self.create.as_ref(),
            CallKind::Upsert => self.upsert.as_ref(),
            CallKind::Update => self.update.as_ref(),
            CallKind::Delete => self.delete.as_ref(),
            CallKind::Read => self.read.as_ref(),
            CallKind::Lookup => self.lookup.as_ref(),
            CallKind::Match => self.matching.as_ref(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationBlock {
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) body: Option<Value>,
    pub(crate) batch: Option<String>,
    pub(crate) ok: Option<OkBlock>,
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) id_missing: IdMissing,
    pub(crate) many: Option<String>,
    pub(crate) created: Option<String>,
    #[serde(default)]
    pub(crate) gone: Vec<u16>,
    #[serde(default)]
    pub(crate) absent: Vec<u16>,
    pub(crate) idempotent: bool,
    pub(crate) on_unknown: Option<OnUnknown>,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Calls of this kind fail apart from the object's others, under this word.
    pub(crate) endpoint: Option<String>,
    /// Where a read's reply has the record.
    #[serde(default)]
    pub(crate) record: OneOrMore<String>,
    /// The record's member that holds System A's key, for objects that name no field for it.
    pub(crate) key: Option<String>,
    /// A read's reply has all of the record's fields: one that is not there is empty.
    #[serde(default)]
    pub(crate) whole: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OkBlock {
    pub(crate) at: String,
    pub(crate) is: Value,
}

/// What a success says that does not name the record's remote id.
#[derive(Deserialize, Default, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IdMissing {
    /// It was not understood.
    #[default]
    Unknown,
    /// The record id is the remote id.
    RecordId,
    /// It is done, and the record stays without a link.
    Unlinked,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnUnknown {
    Lookup,
    Retry,
    Upsert,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchBlock {
    pub(crate) takes: Vec<CallKind>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    pub(crate) max_items: u64,
    pub(crate) default_items: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) same: Option<Vec<String>>,
    pub(crate) unique_by: Option<String>,
    #[serde(default)]
    pub(crate) unique_ignores_case: bool,
    pub(crate) results: ResultsBlock,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultsBlock {
    #[serde(default)]
    pub(crate) all: bool,
    pub(crate) at: Option<String>,
    #[serde(default)]
    pub(crate) by: Vec<String>,
    pub(crate) status: Option<String>,
    pub(crate) ok: Option<OkBlock>,
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) id_missing: IdMissing,
    pub(crate) created: Option<String>,
    #[serde(default)]
    pub(crate) error: ShapeBlock,
    pub(crate) errors: Option<ItemErrorsBlock>,
    #[serde(default)]
    pub(crate) empty: EmptyMeans,
    #[serde(default)]
    pub(crate) missing: MissingMeans,
}

/// Where a batch's reply lists what it refused, when that is apart from what it did.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemErrorsBlock {
    pub(crate) at: String,
    pub(crate) by: Vec<String>,
    #[serde(default)]
    pub(crate) error: ShapeBlock,
}

/// What a success says that lists neither results nor errors.
#[derive(Deserialize, Default, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EmptyMeans {
    #[default]
    Unknown,
    /// Nothing was written.
    Transient,
}

/// What a record is of which a batch's reply does not tell.
#[derive(Deserialize, Default, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MissingMeans {
    #[default]
    Unknown,
    /// The provider lists those that there are.
    Absent,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShapeBlock {
    #[serde(default)]
    pub(crate) code: OneOrMore<String>,
    #[serde(default)]
    pub(crate) message: OneOrMore<String>,
    #[serde(default)]
    pub(crate) policy: OneOrMore<String>,
}

/// `"a"` or `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> Default for OneOrMore<T> {
    fn default() -> OneOrMore<T> {
        OneOrMore::More(Vec::new())
    }
}

impl<T> OneOrMore<T> {
    pub(crate) fn as_slice(&self) -> &[T] {
        match self {
            OneOrMore::One(one) => std::slice::from_ref(one),
            OneOrMore::More(more) => more,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ErrorBlock {
    #[serde(default)]
    pub(crate) status: OneOrMore<StatusKey>,
    #[serde(default)]
    pub(crate) code: OneOrMore<String>,
    #[serde(default)]
    pub(crate) message: OneOrMore<String>,
    #[serde(default)]
    pub(crate) policy: OneOrMore<String>,
    pub(crate) header: Option<HeaderBlock>,
    #[serde(default)]
    pub(crate) operations: Vec<CallKind>,
    #[serde(default)]
    pub(crate) of: OneOrMore<OfKey>,
    pub(crate) class: ErrorClass,
    pub(crate) limit: Option<String>,
    pub(crate) delay: Option<String>,
    #[serde(default)]
    pub(crate) delay_header: OneOrMore<String>,
    #[serde(default)]
    pub(crate) remote_id: OneOrMore<String>,
    pub(crate) pause: Option<PauseScope>,
}

/// `404` or `"500-599"`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum StatusKey {
    One(u16),
    Range(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderBlock {
    pub(crate) name: String,
    pub(crate) is: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OfKey {
    Call,
    Batch,
    Item,
}
