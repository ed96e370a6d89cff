//! Which record of an account a record of System A's is, as operators set it.

use super::UnixMs;
use crate::shard::RecordPicture;

/// What is held under a record id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PictureLookup {
    /// One record.
    Found(Box<RecordPicture>),
    /// Several objects have a record of this id.
    Ambiguous(Vec<String>),
    /// Nothing is known of it.
    NotFound,
}

/// A link that is to be set, or to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRequest {
    /// System A's key.
    pub record_id: String,
    /// What kind of record; without it the only one that has this id.
    pub object: Option<String>,
    /// The account.
    pub provider: String,
    /// The account's key; `None`: the record is not linked there any more.
    pub remote_id: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkAnswer {
    /// It is durable.
    Changed {
        /// What kind of record.
        object: String,
        /// The account's key before.
        former: Option<String>,
    },
    /// It was so already.
    Unchanged {
        /// What kind of record.
        object: String,
    },
    /// Nothing changed: the remote id is this record's.
    Owned(String),
    /// Nothing changed: a call for the record is under way, and will say what the link is.
    InCall,
    /// Nothing changed: several objects have a record of this id.
    Ambiguous(Vec<String>),
    /// Nothing changed: nothing is known of the record.
    NotFound,
}

/// A link that an operator changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkChange {
    /// When.
    pub at: UnixMs,
    /// With which key.
    pub by: String,
    /// Local object.
    pub object: String,
    /// System A's key.
    pub record_id: String,
    /// The account.
    pub provider: String,
    /// The account's key before.
    pub old: Option<String>,
    /// The account's key since.
    pub new: Option<String>,
}
