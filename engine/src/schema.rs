//! JSON Schema of System A's records, 2020-12: compiled once, asked once per event.
//!
//! A CREATE and an UPSERT carry a whole record and are held to the whole schema. An UPDATE
//! carries changed fields: what is absent is not missing, and `null` clears, so it is held to the
//! partial schema and may clear all but what the schema requires.

mod partial;

use std::borrow::Cow;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::event::{Event, Operation};
use crate::json::{Pointer, RawObject};
use crate::refusal::{Code, Refusal};

/// Bytes of a schema's file.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// Bytes that one `pattern` may take compiled: patterns run in linear time, this bounds memory.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    whole: Validator,
    partial: Validator,
    /// Outermost members that may not be cleared.
    required: Vec<String>,
}

/// A schema that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SchemaError {
    /// RFC 6901 pointer into the schema; empty for the whole of it.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

impl Schema {
    /// Parses and compiles a schema. `$ref` reaches inside the document only: nothing is fetched.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub fn compile(text: &str) -> Result<Self, SchemaError> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(SchemaError {
                pointer: String::new(),
                detail: format!("a schema has at most {SCHEMA_BYTES_MAX} bytes"),
            });
        }
        let schema: Value = serde_json::from_str(text).map_err(|error| SchemaError {
            pointer: String::new(),
            detail: format!("is not JSON: {error}"),
        })?;
        let whole = validator(&schema)?;
        let partial = validator(&partial::partial(&schema))?;
        let required = schema["required"].as_array().into_iter().flatten();
        Ok(Self {
            whole,
            partial,
            required: required
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
        })
    }

    /// Holds an event's `data` to the schema.
    ///
    /// # Errors
    /// A refusal with code `schema` that points at the first place that does not fit. It repeats
    /// no value.
    pub fn check(&self, event: &Event<'_>) -> Result<(), Refusal> {
        let Some(data) = event.data else {
            return Ok(());
        };
        match event.operation {
            Operation::Create | Operation::Upsert => check_with(&self.whole, data, |_| true),
            Operation::Update => {
                self.check_cleared(data)?;
                check_with(&self.partial, data, |error| !error.instance().is_null())
            }
            Operation::Read | Operation::Delete | Operation::Pull => Ok(()),
        }
    }

    fn check_cleared(&self, data: RawObject<'_>) -> Result<(), Refusal> {
        let cleared = data.members().find(|member| {
            member.value.is_null() && self.required.iter().any(|name| member.key.is(name))
        });
        let Some(member) = cleared else {
            return Ok(());
        };
        let mut pointer = Pointer::of(&["data"]);
        pointer.push(&member.key.name());
        let detail = "the schema requires this field: it must not be cleared";
        Err(Refusal::at(Code::Schema, pointer, detail))
    }
}

fn validator(schema: &Value) -> Result<Validator, SchemaError> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
        .build(schema)
        .map_err(|error| SchemaError {
            pointer: error.instance_path().to_string(),
            detail: error.to_string(),
        })
}

fn check_with(
    validator: &Validator,
    data: RawObject<'_>,
    counts: impl Fn(&ValidationError<'_>) -> bool,
) -> Result<(), Refusal> {
    let value: Value = serde_json::from_str(data.text())
        .map_err(|_| Refusal::at(Code::Schema, "/data", "cannot be held to the schema"))?;
    if validator.is_valid(&value) {
        return Ok(());
    }
    let first = validator.iter_errors(&value).find(counts);
    first.map_or(Ok(()), |error| Err(refusal(&error)))
}

fn refusal(error: &ValidationError<'_>) -> Refusal {
    let mut pointer = format!("/data{}", error.instance_path());
    let detail: Cow<'static, str> = match error.kind() {
        // The pointer names what is missing, not the object around it.
        ValidationErrorKind::Required { property } => {
            let mut missing = Pointer::root();
            missing.push(property.as_str().unwrap_or_default());
            pointer.push_str(&String::from(missing));
            Cow::Borrowed("is required and absent")
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let mut unknown = Pointer::root();
            unknown.push(unexpected.first().map_or("", String::as_str));
            pointer.push_str(&String::from(unknown));
            Cow::Borrowed("is no field of the schema")
        }
        _ => Cow::Owned(error.masked_with("the value").to_string()),
    };
    Refusal::at(Code::Schema, pointer, detail)
}
