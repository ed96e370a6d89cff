//! What a request of the `rest` provider asks for.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::exchange::Reply;
use crate::provider::RawCall;
use crate::target::{self, NotText};

/// One row of the provider's table, with its parts decoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operation {
    Create {
        object: String,
        external_id: Option<String>,
        fields: Map<String, Value>,
    },
    Upsert {
        object: String,
        external_id: String,
        fields: Map<String, Value>,
    },
    Update {
        object: String,
        id: String,
        fields: Map<String, Value>,
    },
    Delete {
        object: String,
        id: String,
    },
    Read {
        object: String,
        id: String,
    },
    LookUp {
        object: String,
        external_id: String,
    },
    Batch {
        object: String,
        records: Vec<BatchRecord>,
    },
}

/// One record of a batch call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct BatchRecord {
    pub(crate) external_id: ExternalId,
    pub(crate) operation: BatchOperation,
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) fields: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BatchOperation {
    Create,
    Upsert,
    Update,
    Delete,
    Read,
}

/// An external id may come as a number; it is kept as its text.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct ExternalId(pub(crate) String);

impl TryFrom<Value> for ExternalId {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err("external_id must be text or a number"),
        }
    }
}

impl Operation {
    /// Reads a request.
    ///
    /// # Errors
    /// The reply to a request that is in no row of the table.
    pub(crate) fn parse(call: &RawCall) -> Result<Self, Reply> {
        let unreadable = |error: NotText| Reply::error(400, &error.to_string());
        let query = call.query();
        let parts = target::path_parts(call.path()).map_err(unreadable)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(Reply::error(404, "a path part is empty"));
        }
        match (call.method.as_str(), parts.as_slice()) {
            ("POST", [object]) => {
                let mut fields = fields(call)?;
                let external_id = fields
                    .shift_remove("external_id")
                    .filter(|id| !id.is_null());
                let external_id = external_id.map(ExternalId::try_from).transpose();
                let external_id = external_id.map_err(|error| Reply::error(400, error))?;
                let external_id = external_id.map(|ExternalId(text)| text);
                Ok(Self::Create {
                    object: (*object).to_owned(),
                    external_id,
                    fields,
                })
            }
            ("POST", [object, "batch"]) => {
                #[derive(Deserialize)]
                struct Body {
                    records: Vec<BatchRecord>,
                }
                let Body { records } = serde_json::from_slice(&call.body)
                    .map_err(|error| Reply::error(400, &error.to_string()))?;
                Ok(Self::Batch {
                    object: (*object).to_owned(),
                    records,
                })
            }
            ("PUT", [object, "external", external_id]) => Ok(Self::Upsert {
                object: (*object).to_owned(),
                external_id: (*external_id).to_owned(),
                fields: fields(call)?,
            }),
            ("PATCH", [object, id]) => Ok(Self::Update {
                object: (*object).to_owned(),
                id: (*id).to_owned(),
                fields: fields(call)?,
            }),
            ("DELETE", [object, id]) => Ok(Self::Delete {
                object: (*object).to_owned(),
                id: (*id).to_owned(),
            }),
            ("GET", [object, id]) => Ok(Self::Read {
                object: (*object).to_owned(),
                id: (*id).to_owned(),
            }),
            ("GET", [object]) => Ok(Self::LookUp {
                object: (*object).to_owned(),
                external_id: target::query_value(query, "external_id")
                    .map_err(unreadable)?
                    .ok_or_else(|| Reply::error(400, "external_id is missing in the query"))?,
            }),
            (_, [_] | [_, _] | [_, "external", _]) => {
                Err(Reply::error(405, "this path does not take this method"))
            }
            _ => Err(Reply::error(404, "no such path")),
        }
    }

    pub(crate) fn object(&self) -> &str {
        match self {
            Self::Create { object, .. }
            | Self::Upsert { object, .. }
            | Self::Update { object, .. }
            | Self::Delete { object, .. }
            | Self::Read { object, .. }
            | Self::LookUp { object, .. }
            | Self::Batch { object, .. } => object,
        }
    }

    /// The fields of each record that it writes.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Map<String, Value>> {
        let (own, records) = match self {
            Self::Create { fields, .. }
            | Self::Upsert { fields, .. }
            | Self::Update { fields, .. } => (Some(fields), &[][..]),
            Self::Batch { records, .. } => (None, records.as_slice()),
            Self::Delete { .. } | Self::Read { .. } | Self::LookUp { .. } => (None, &[][..]),
        };
        own.into_iter()
            .chain(records.iter().map(|record| &record.fields))
    }

    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::LookUp { .. })
    }
}

fn fields(call: &RawCall) -> Result<Map<String, Value>, Reply> {
    serde_json::from_slice(&call.body).map_err(|error| Reply::error(400, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;

    fn call(method: Method, target: &str, body: &'static str) -> RawCall {
        RawCall {
            method,
            target: target.into(),
            headers: HeaderMap::new(),
            idempotency_key: None,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn refused(method: Method, target: &str, body: &'static str) -> u16 {
        Operation::parse(&call(method, target, body))
            .unwrap_err()
            .status
    }

    #[test]
    fn path_parts_are_percent_decoded_one_by_one() {
        let request = call(Method::DELETE, "/my%20contact/a%2Fb%3F%C3%A9", "");
        let expected = Operation::Delete {
            object: "my contact".into(),
            id: "a/b?é".into(),
        };
        assert_eq!(Operation::parse(&request), Ok(expected));
    }

    #[test]
    fn a_number_as_external_id_is_kept_as_its_text() {
        let request = call(Method::POST, "/contact", "{\"external_id\":10,\"a\":1}");
        let Ok(Operation::Create {
            external_id,
            fields,
            ..
        }) = Operation::parse(&request)
        else {
            panic!("not a create");
        };
        assert_eq!(external_id.as_deref(), Some("10"));
        assert_eq!(Value::Object(fields), serde_json::json!({"a": 1}));
    }

    #[test]
    fn what_is_in_no_row_of_the_table_is_refused() {
        assert_eq!(refused(Method::GET, "/", ""), 404);
        assert_eq!(refused(Method::GET, "/contact//", ""), 404);
        assert_eq!(refused(Method::GET, "/a/b/c/d", ""), 404);
        assert_eq!(refused(Method::GET, "/contact", ""), 400);
        assert_eq!(refused(Method::PUT, "/contact/r1", "{}"), 405);
        assert_eq!(refused(Method::PATCH, "/contact/external/c-1", "{}"), 405);
        assert_eq!(refused(Method::POST, "/contact", "[]"), 400);
        assert_eq!(
            refused(Method::POST, "/contact", "{\"external_id\":[]}"),
            400
        );
        assert_eq!(refused(Method::POST, "/contact/batch", "{}"), 400);
        assert_eq!(refused(Method::DELETE, "/contact/%ff", ""), 400);
    }
}
