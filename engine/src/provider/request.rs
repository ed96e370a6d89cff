//! One request to a provider, ready to be sent.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use xxhash_rust::xxh3::Xxh3;

use super::Field;

/// A rendered call. Its bytes do not change once it was sent: a repeat sends the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What the call is for; of a batch the kind that asks for most care.
    pub kind: CallKind,
    /// HTTP method.
    pub method: Method,
    /// Path and query, relative to the account's base URL; begins with `/`, printable ASCII only.
    /// Empty: the base URL itself.
    pub path_and_query: String,
    /// JSON body; empty = none.
    pub body: Bytes,
    /// `Idempotency-Key`; every write carries one, given by a [`super::KeySequence`].
    pub idempotency_key: Option<String>,
    /// `X-Request-Id`; empty = none.
    pub request_id: String,
    /// `traceparent` of the event, when it had one.
    pub traceparent: Option<String>,
}

impl Request {
    /// Identity of what the provider sees: method, path and body. Headers do not count.
    pub fn digest(&self) -> RequestDigest {
        let mut hash = Xxh3::new();
        hash.update(self.method.as_str().as_bytes());
        hash.update(b" ");
        hash.update(self.path_and_query.as_bytes());
        // A path holds no line break, so the parts cannot run into one another.
        hash.update(b"\n");
        hash.update(&self.body);
        RequestDigest(hash.digest())
    }
}

/// xxh3-64 of a request's method, path and body. Stored in the log: the layout is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestDigest(pub u64);

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallKind {
    /// Make a record; a repeat may make a second one.
    Create,
    /// Create or merge by System A's key.
    Upsert,
    /// Merge into the record with this remote id.
    Update,
    /// Remove the record with this remote id.
    Delete,
    /// Fetch the record with this remote id.
    Read,
    /// Find the remote id that belongs to System A's key.
    Lookup,
    /// Find the record that has the same values in the fields of a match key.
    Match,
}

impl CallKind {
    /// All kinds, in the order of their tables.
    pub const ALL: [CallKind; 7] = [
        CallKind::Create,
        CallKind::Upsert,
        CallKind::Update,
        CallKind::Delete,
        CallKind::Read,
        CallKind::Lookup,
        CallKind::Match,
    ];

    /// The word used in definitions, settings, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CallKind::Create => "create",
            CallKind::Upsert => "upsert",
            CallKind::Update => "update",
            CallKind::Delete => "delete",
            CallKind::Read => "read",
            CallKind::Lookup => "lookup",
            CallKind::Match => "match",
        }
    }

    /// Whether the call may change the provider's state, and so carries an idempotency key.
    pub fn is_write(self) -> bool {
        match self {
            CallKind::Create | CallKind::Upsert | CallKind::Update | CallKind::Delete => true,
            CallKind::Read | CallKind::Lookup | CallKind::Match => false,
        }
    }

    /// Whether the call carries the record's fields.
    pub fn writes_fields(self) -> bool {
        match self {
            CallKind::Create | CallKind::Upsert | CallKind::Update => true,
            CallKind::Delete | CallKind::Read | CallKind::Lookup | CallKind::Match => false,
        }
    }

    /// Whether the call asks which record it is.
    pub fn finds(self) -> bool {
        matches!(self, CallKind::Lookup | CallKind::Match)
    }

    /// Whether the record's link, and with it the remote id, is known when this call is made.
    pub(crate) fn has_remote_id(self) -> bool {
        match self {
            CallKind::Update | CallKind::Delete | CallKind::Read => true,
            CallKind::Create | CallKind::Upsert | CallKind::Lookup | CallKind::Match => false,
        }
    }
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The HTTP methods that definitions may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl Method {
    /// As written on the request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }

    /// The method of that name, upper case as in HTTP.
    pub fn parse(text: &str) -> Option<Method> {
        [
            Method::Get,
            Method::Post,
            Method::Put,
            Method::Patch,
            Method::Delete,
        ]
        .into_iter()
        .find(|method| method.as_str() == text)
    }
}

/// The record that a call is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The object's remote name.
    pub object: &'a str,
    /// System A's key.
    pub record_id: &'a str,
    /// The provider's own id, once linked.
    pub remote_id: Option<&'a str>,
    /// The fields to write, or those of a match key, in their order; unused by calls that only
    /// address the record.
    pub fields: &'a [Field<'a>],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, path: &str, body: &str) -> Request {
        Request {
            kind: CallKind::Update,
            method,
            path_and_query: path.to_owned(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            idempotency_key: None,
            request_id: String::new(),
            traceparent: None,
        }
    }

    #[test]
    fn the_digest_is_the_same_in_every_release() {
        let request = request(Method::Patch, "/contact/7", r#"{"email":"a@b.c"}"#);
        assert_eq!(
            request.digest(),
            RequestDigest(xxhash_rust::xxh3::xxh3_64(
                b"PATCH /contact/7\n{\"email\":\"a@b.c\"}"
            ))
        );
        assert_eq!(request.digest().0, 0xebac_aa51_665b_5e00);
    }

    #[test]
    fn the_digest_tells_method_path_and_body_apart_but_not_headers() {
        let base = request(Method::Patch, "/contact/7", "{}");
        assert_ne!(
            base.digest(),
            request(Method::Put, "/contact/7", "{}").digest()
        );
        assert_ne!(
            base.digest(),
            request(Method::Patch, "/contact/8", "{}").digest()
        );
        assert_ne!(
            base.digest(),
            request(Method::Patch, "/contact/7", "").digest()
        );

        let mut again = base.clone();
        again.request_id = "other".to_owned();
        again.idempotency_key = Some("k".to_owned());
        assert_eq!(base.digest(), again.digest());
    }
}
