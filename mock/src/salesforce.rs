//! A Salesforce org.

mod id;

pub(crate) use id::SalesforceId;
