//! Why a record cannot become a request.

use thiserror::Error;

use super::CallKind;

/// Why a record cannot be put into a request: it would fail every time. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenderError {
    /// The provider has no such operation.
    #[error("the provider has no {0} operation")]
    NoOperation(CallKind),
    /// The call needs the remote id of a record that is not linked.
    #[error("the record has no remote id")]
    NoRemoteId,
    /// Empty, `.` or `..`: the path would lead to something other than the record.
    #[error("{placeholder} is empty, `.` or `..` and cannot stand in a path")]
    UnsafePathPart {
        /// The placeholder's name.
        placeholder: &'static str,
    },
    /// Longer than servers read.
    #[error("the path is longer than {limit} bytes")]
    PathTooLong {
        /// In bytes.
        limit: usize,
    },
    /// The object's field for System A's key is known neither to the definition nor to the mapping.
    #[error("no field of `{0}` is named as its external id; set `external_id` in its mapping")]
    NoExternalId(String),
    /// The provider cannot be asked for a record of this object by System A's key.
    #[error("records of `{0}` cannot be looked up by their key")]
    NoLookup(String),
    /// The definition does not say what one record of this object is called.
    #[error("the definition has no [objects] entry with a `type` for `{0}`")]
    NoObjectType(String),
    /// The provider's ids of this object are numbers.
    #[error("{placeholder} is not an integer")]
    NotAnInteger {
        /// The placeholder's name.
        placeholder: &'static str,
    },
    /// This record of a batch; the others may go without it.
    #[error("record {index} of the batch: {source}")]
    Item {
        /// Among the items, from 0.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: Box<RenderError>,
    },
    /// A record before it in the call has this key, which the provider would refuse.
    #[error("another record of the call has the same key")]
    RepeatedKey,
    /// Of another kind or object than the group.
    #[error("the record belongs to another batch group")]
    OtherGroup,
    /// A batch has one to `limit` records.
    #[error("{items} records in a call that takes 1 to {limit}")]
    BatchSize {
        /// As asked for.
        items: usize,
        /// As allowed.
        limit: usize,
    },
    /// Fewer records would fit.
    #[error("a body of {bytes} bytes is over the {limit} of a call")]
    BatchTooLarge {
        /// As rendered.
        bytes: usize,
        /// As allowed.
        limit: usize,
    },
}
