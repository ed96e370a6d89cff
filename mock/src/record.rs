//! A record as the account shows it, and the id that it has there.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::rest::RestId;
use crate::salesforce::SalesforceId;

/// A record as the provider knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The key the caller gave it.
    pub external_id: Option<String>,
    /// Its fields, by the provider's names; none is null, since null clears.
    pub fields: Map<String, Value>,
    pub(crate) created_at: Duration,
}

/// The provider's own key of a record; its text is what callers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteId(Form);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Rest(RestId),
    Number(u64),
    Salesforce(SalesforceId),
}

impl RemoteId {
    /// An id that is a plain number.
    pub(crate) fn number(serial: u64) -> Self {
        Self(Form::Number(serial))
    }
}

impl From<RestId> for RemoteId {
    fn from(id: RestId) -> Self {
        Self(Form::Rest(id))
    }
}

impl From<SalesforceId> for RemoteId {
    fn from(id: SalesforceId) -> Self {
        Self(Form::Salesforce(id))
    }
}

impl fmt::Display for RemoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Form::Rest(id) => id.fmt(f),
            Form::Number(serial) => serial.fmt(f),
            Form::Salesforce(id) => id.fmt(f),
        }
    }
}
