//! One entry of a mapping, in both directions.

use std::borrow::Cow;
use std::ops::Range;

use super::convert::{Conversion, Scalar};
use super::{MapFailure, MapFailureCause, ResolveReference, Write};
use crate::expression::{Expression, Variable};
use crate::json::{RawObject, RawValue, write_string};

/// JSON as it is written, or nothing.
pub(super) type Written<'v> = Option<Cow<'v, [u8]>>;

/// What a field does; the paths are in the plans, under the numbers given here.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Where the value stands in the event, for refusals.
    pub(super) pointer: String,
    pub(super) required: bool,
    /// Written for a CREATE that leaves the field out; JSON as the provider gets it.
    pub(super) default: Option<String>,
    pub(super) on_null: OnNull,
    pub(super) kind: FieldKind,
    /// Its paths in System A's record.
    pub(super) locals: Range<usize>,
    /// Its paths in the provider's.
    pub(super) remotes: Range<usize>,
    /// System A's paths are written on the way back: not those of a field that only goes out, nor
    /// those that come back from another one.
    pub(super) returns: bool,
}

/// How the values of one field come from those of the other side.
#[derive(Debug, Clone)]
pub(super) enum FieldKind {
    /// One to one.
    Converted(Conversion),
    /// Written whatever the event says; JSON as the provider gets it.
    Constant(String),
    /// The record id of this object; the provider gets that record's own id.
    Reference(String),
    /// Several local texts are one remote text.
    Joined(Parts),
    /// One local text is several remote texts.
    Split(Parts),
    /// An expression for each direction that has one.
    Computed {
        out: Option<Expression>,
        back: Option<Expression>,
    },
}

/// Texts that make up one text.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) separator: String,
    pub(super) count: usize,
}

/// What a `null` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnNull {
    /// It clears the field on the other side.
    #[default]
    Clear,
    /// System A's is not sent; the provider's clears.
    Omit,
    /// It clears nothing, whichever side it comes from.
    Keep,
}

/// Names that expressions may use: out, back.
pub(super) const OUT: (&str, crate::expression::Declared) = (
    "data",
    crate::expression::Declared {
        scalars: &[],
        documents: &["data"],
    },
);
pub(super) const BACK: (&str, crate::expression::Declared) = (
    "remote",
    crate::expression::Declared {
        scalars: &[],
        documents: &["remote"],
    },
);

/// What may be missing of the record is told by what is written.
pub(super) struct Outbound<'o> {
    pub(super) write: Write,
    pub(super) resolve: ResolveReference<'o>,
}

impl Field {
    /// System A's (first) field, as a pointer into its record.
    pub(super) fn local(&self) -> &str {
        self.pointer.strip_prefix("/data").unwrap_or(&self.pointer)
    }

    /// Whether System A's value is read back from the provider's.
    pub(super) fn comes_back(&self) -> bool {
        let read = match &self.kind {
            FieldKind::Converted(_) | FieldKind::Joined(_) | FieldKind::Split(_) => true,
            FieldKind::Computed { back, .. } => back.is_some(),
            FieldKind::Constant(_) | FieldKind::Reference(_) => false,
        };
        self.returns && read
    }

    pub(super) fn check_required(
        &self,
        slots: &[Option<RawValue<'_>>],
        write: Write,
    ) -> Result<(), MapFailure> {
        // Whether an expression has a value only its evaluation tells.
        if !self.required || matches!(self.kind, FieldKind::Computed { .. }) {
            return Ok(());
        }
        let own = &slots[self.locals.clone()];
        let cleared = own.iter().flatten().any(|value| value.is_null());
        let absent = own.iter().any(Option::is_none);
        let missing = cleared
            || match write {
                Write::Create => absent && self.default.is_none(),
                Write::Upsert => absent,
                Write::Update => false,
            };
        if !missing {
            return Ok(());
        }
        let detail = match write {
            Write::Update => "a required field must not be cleared",
            Write::Create | Write::Upsert => "a required field is absent or null",
        };
        Err(self.failure(MapFailureCause::Required, detail))
    }

    /// Puts the provider's values of this field into `values`, which are all of the mapping's.
    pub(super) fn write_out<'v>(
        &'v self,
        data: RawObject<'v>,
        slots: &[Option<RawValue<'v>>],
        outbound: &Outbound<'_>,
        values: &mut [Written<'v>],
    ) -> Result<(), MapFailure> {
        let values = &mut values[self.remotes.clone()];
        let slots = &slots[self.locals.clone()];
        match &self.kind {
            FieldKind::Constant(json) => {
                if outbound.write != Write::Update {
                    values[0] = Some(Cow::Borrowed(json.as_bytes()));
                }
                Ok(())
            }
            FieldKind::Computed { out: Some(out), .. } => {
                values[0] = computed(out, OUT.0, data);
                if values[0].is_none() && self.required && outbound.write != Write::Update {
                    let detail = "a required field has no value for this record";
                    return Err(self.failure(MapFailureCause::Required, detail));
                }
                Ok(())
            }
            FieldKind::Computed { out: None, .. } => Ok(()),
            FieldKind::Joined(parts) => {
                values[0] = parts.joined(slots).map_err(|d| self.value_failure(d))?;
                Ok(())
            }
            FieldKind::Split(parts) => match slots[0].filter(|value| self.sends(*value)) {
                Some(value) => parts
                    .split(value, values)
                    .map_err(|d| self.value_failure(d)),
                None => Ok(()),
            },
            FieldKind::Converted(conversion) => {
                values[0] = match slots[0] {
                    Some(value) if !self.sends(value) => None,
                    Some(value) => {
                        Some(conversion.apply(value).map_err(|d| self.value_failure(d))?)
                    }
                    None => self.default_for(outbound.write),
                };
                Ok(())
            }
            FieldKind::Reference(object) => {
                values[0] = match slots[0].filter(|value| self.sends(*value)) {
                    Some(value) => Some(self.resolved(object, value, outbound.resolve)?),
                    None => None,
                };
                Ok(())
            }
        }
    }

    /// Puts System A's values of this field into `values`; the error is a detail.
    pub(super) fn write_back<'v>(
        &self,
        remote: RawObject<'v>,
        slots: &[Option<RawValue<'v>>],
        values: &mut [Written<'v>],
    ) -> Result<(), &'static str> {
        let values = &mut values[self.locals.clone()];
        let slots = &slots[self.remotes.clone()];
        let keeps = |value: &RawValue<'_>| value.is_null() && self.on_null == OnNull::Keep;
        match &self.kind {
            FieldKind::Constant(_) => {}
            FieldKind::Computed {
                back: Some(back), ..
            } => {
                values[0] = computed(back, BACK.0, remote);
            }
            FieldKind::Computed { back: None, .. } => {}
            FieldKind::Joined(parts) => {
                if let Some(value) = slots[0].filter(|value| !keeps(value)) {
                    parts.split(value, values)?;
                }
            }
            FieldKind::Split(parts) => values[0] = parts.joined(slots)?,
            FieldKind::Converted(conversion) => {
                if let Some(value) = slots[0].filter(|value| !keeps(value)) {
                    values[0] = Some(conversion.undo(value)?);
                }
            }
            FieldKind::Reference(_) => {
                let kept = slots[0].filter(|value| !keeps(value));
                values[0] = kept.map(|value| Cow::Borrowed(value.text().as_bytes()));
            }
        }
        Ok(())
    }

    pub(super) fn reference(&self) -> Option<&str> {
        match &self.kind {
            FieldKind::Reference(object) => Some(object),
            _ => None,
        }
    }

    /// Whether a value of the event goes out.
    fn sends(&self, value: RawValue<'_>) -> bool {
        !value.is_null() || self.on_null == OnNull::Clear
    }

    fn default_for(&self, write: Write) -> Written<'_> {
        let default = self.default.as_deref()?;
        (write == Write::Create).then_some(Cow::Borrowed(default.as_bytes()))
    }

    fn resolved<'v>(
        &self,
        object: &str,
        value: RawValue<'v>,
        resolve: ResolveReference<'_>,
    ) -> Result<Cow<'v, [u8]>, MapFailure> {
        if value.is_null() {
            return Ok(Cow::Borrowed(value.text().as_bytes()));
        }
        let Some(id) = Scalar::of(value).and_then(Scalar::into_id) else {
            return Err(self.value_failure("a reference must be text or an integer"));
        };
        let Some(remote_id) = resolve(object, &id) else {
            let detail = format!("refers to a {object} that is not linked yet");
            return Err(self.failure(MapFailureCause::Unlinked, detail));
        };
        Ok(Cow::Owned(quoted(&remote_id)))
    }

    fn value_failure(&self, detail: &'static str) -> MapFailure {
        self.failure(MapFailureCause::Value, detail)
    }

    fn failure(&self, cause: MapFailureCause, detail: impl Into<Cow<'static, str>>) -> MapFailure {
        MapFailure {
            cause,
            pointer: self.pointer.clone(),
            detail: detail.into(),
        }
    }
}

impl Parts {
    /// One text of the parts that are not empty. A change that names only some of them says too
    /// little: the others are not known here.
    fn joined<'v>(&self, slots: &[Option<RawValue<'v>>]) -> Result<Written<'v>, &'static str> {
        if slots.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut joined = String::new();
        for slot in slots {
            let value = slot.ok_or("its parts can be written together only")?;
            if value.is_null() {
                continue;
            }
            let part = value.as_text().ok_or("a part of it must be text")?;
            if !part.is_empty() && !joined.is_empty() {
                joined.push_str(&self.separator);
            }
            joined.push_str(&part);
        }
        if joined.is_empty() {
            return Ok(Some(Cow::Borrowed(b"null")));
        }
        Ok(Some(Cow::Owned(quoted(&joined))))
    }

    /// The last part takes what follows the last separator, the first what is left over; with too
    /// few separators the first parts are empty: `Ada` alone is a family name.
    fn split<'v>(
        &self,
        value: RawValue<'v>,
        values: &mut [Written<'v>],
    ) -> Result<(), &'static str> {
        let text = match value.is_null() {
            true => Cow::Borrowed(""),
            false => value.as_text().ok_or("must be text to be split")?,
        };
        let found = text.trim().rsplitn(self.count, self.separator.as_str());
        let mut parts = found.map(str::trim).filter(|part| !part.is_empty());
        for value in values.iter_mut().rev() {
            *value = Some(match parts.next() {
                Some(part) => Cow::Owned(quoted(part)),
                None => Cow::Borrowed(b"null"),
            });
        }
        Ok(())
    }
}

fn computed<'v>(expression: &Expression, name: &'static str, record: RawObject<'_>) -> Written<'v> {
    let mut json = Vec::new();
    let written = expression.write_value(&[(name, Variable::Document(record))], &mut json);
    written.is_ok().then_some(Cow::Owned(json))
}

fn quoted(text: &str) -> Vec<u8> {
    let mut json = Vec::with_capacity(text.len() + 2);
    write_string(&mut json, text);
    json
}
