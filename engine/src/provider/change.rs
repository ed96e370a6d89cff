//! One change that a provider told of, as plain data: whichever way it came in.

/// A record that changed at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The object's remote name.
    pub object: String,
    /// The provider's id of the record.
    pub remote_id: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// When it happened by the provider's clock, ms since the epoch; `None` when it does not tell.
    pub occurred_at_ms: Option<i64>,
    /// Text of a JSON object under remote names, if the provider sent any of the record: all of it
    /// when `complete`, else what changed.
    pub fields: Option<Box<str>>,
    /// The provider's mark of this version of the record.
    pub version: Option<String>,
    /// `fields` are all that an account's mapping reads.
    pub complete: bool,
    /// The same again names the same change again; at most [`DELIVERY_ID_BYTES_MAX`].
    pub delivery_id: String,
}

/// What happened to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// Some of its fields changed; or it is new, where the provider does not tell the two apart.
    Changed,
    /// It is gone.
    Deleted,
    /// It is part of another record now, which stays.
    Merged {
        /// The one that stays, by its remote id.
        into: String,
    },
    /// It was gone and is back.
    Restored,
}

impl ChangeKind {
    /// The word for it in events, logs and definitions.
    pub fn as_str(&self) -> &'static str {
        match self {
            ChangeKind::Created => "created",
            ChangeKind::Changed => "changed",
            ChangeKind::Deleted => "deleted",
            ChangeKind::Merged { .. } => "merged",
            ChangeKind::Restored => "restored",
        }
    }
}

/// Names of deliveries are kept in the log with each change; a longer one is told by its hash.
pub const DELIVERY_ID_BYTES_MAX: usize = 128;
