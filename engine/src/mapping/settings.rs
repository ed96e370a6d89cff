//! The settings of a mapping, and what must hold of them before it runs.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::Xxh3;

use super::convert::{Conversion, Converter, Type, ValueTable};
use super::plan::{PATH_LEVELS_MAX, Plan};
use super::{FIELDS_MAX, Field, Mapping};
use crate::json::{Pointer, RawValue, Scratch};

/// Bytes of a `default` or `constant`.
const LITERAL_BYTES_MAX: usize = 64 << 10;

/// `[objects.X.to.Y]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct MappingSettings {
    /// The provider's name of the object.
    pub remote: String,
    /// The provider's field that holds the record id.
    pub external_id: Option<String>,
    /// The pairs of fields.
    pub fields: Vec<FieldSettings>,
}

/// One entry of `fields`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldSettings {
    /// System A's path, dots between levels; empty for a `constant`.
    pub local: String,
    /// The provider's path, dots between levels.
    pub remote: String,
    /// Must be there in a CREATE and UPSERT, and is not cleared by an UPDATE.
    pub required: bool,
    /// JSON, as System A would send it, for a CREATE that leaves the field out.
    pub default: Option<String>,
    /// JSON, as the provider gets it, for every CREATE and UPSERT.
    pub constant: Option<String>,
    /// Names of converters, applied in order on the way out.
    pub convert: Vec<String>,
    /// One-to-one pairs of texts: System A's and the provider's.
    pub values: Vec<(String, String)>,
    /// The author knows that what comes back may differ from what went out.
    pub lossy: bool,
    /// The field holds the record id of this object; the provider gets that record's own id.
    pub reference: Option<String>,
}

/// A mapping that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {detail}")]
pub struct MappingError {
    /// The place inside the mapping's table, as `fields[2].convert[0]`.
    pub place: String,
    /// What is wrong there.
    pub detail: Cow<'static, str>,
}

pub(super) fn compile(object: &str, settings: &MappingSettings) -> Result<Mapping, MappingError> {
    if settings.fields.len() > FIELDS_MAX {
        let detail = format!("more than {FIELDS_MAX} fields");
        return Err(error("fields", detail));
    }
    let mut mapping = Mapping {
        object: object.to_owned(),
        remote: settings.remote.clone(),
        external_id: settings.external_id.clone(),
        version: version(object, settings),
        fields: Vec::with_capacity(settings.fields.len()),
        outbound: Plan::new(&["data"]),
        inbound: Plan::new(&[]),
    };
    for (at, field) in settings.fields.iter().enumerate() {
        let place = |part: &str| format!("fields[{at}].{part}");
        let remote = path(&field.remote).map_err(|detail| error(place("remote"), detail))?;
        if mapping.outbound.write(at, &remote).is_err() {
            let detail = "another field is this one, contains it or lies in it";
            return Err(error(place("remote"), detail));
        }
        if field.constant.is_some() {
            mapping.fields.push(compile_constant(field, place)?);
            continue;
        }
        let local = path(&field.local).map_err(|detail| error(place("local"), detail))?;
        mapping.outbound.read(at, &local);
        // One local field may feed several remote ones; it comes back from the first.
        let fed_before = settings.fields[..at]
            .iter()
            .any(|other| other.local == field.local);
        if !fed_before {
            mapping.inbound.read(at, &remote);
            if mapping.inbound.write(at, &local).is_err() {
                let detail = "another field contains this one or lies in it";
                return Err(error(place("local"), detail));
            }
        }
        mapping.fields.push(compile_field(field, &local, place)?);
    }
    Ok(mapping)
}

fn version(object: &str, settings: &MappingSettings) -> u64 {
    let mut hasher = Xxh3::new();
    (object, settings).hash(&mut hasher);
    hasher.finish()
}

fn compile_constant(
    field: &FieldSettings,
    place: impl Fn(&str) -> String,
) -> Result<Field, MappingError> {
    let alone = field.local.is_empty()
        && !field.required
        && field.default.is_none()
        && field.convert.is_empty()
        && field.values.is_empty()
        && field.reference.is_none();
    if !alone {
        let detail = "a constant takes nothing from the record: only `remote` may stand beside it";
        return Err(error(place("constant"), detail));
    }
    let constant = literal(field.constant.as_deref(), || place("constant"))?;
    Ok(Field {
        pointer: String::new(),
        required: false,
        default: None,
        constant: constant.map(|value| value.text().to_owned()),
        conversion: Conversion::default(),
        reference: None,
    })
}

fn compile_field(
    field: &FieldSettings,
    local: &[String],
    place: impl Fn(&str) -> String,
) -> Result<Field, MappingError> {
    let conversion = compile_conversion(field, &place)?;
    if field.reference.is_some() && (!field.convert.is_empty() || !field.values.is_empty()) {
        let detail = "a reference is an id and cannot be converted";
        return Err(error(place("reference"), detail));
    }
    let default = match literal(field.default.as_deref(), || place("default"))? {
        None => None,
        Some(_) if field.reference.is_some() => {
            return Err(error(place("default"), "a reference cannot have a default"));
        }
        Some(value) => {
            let json = conversion
                .apply(value)
                .map_err(|d| error(place("default"), d))?;
            Some(String::from_utf8_lossy(&json).into_owned())
        }
    };
    let mut pointer = Pointer::of(&["data"]);
    for name in local {
        pointer.push(name);
    }
    Ok(Field {
        pointer: pointer.into(),
        required: field.required,
        default,
        constant: None,
        conversion,
        reference: field.reference.clone(),
    })
}

fn compile_conversion(
    field: &FieldSettings,
    place: impl Fn(&str) -> String,
) -> Result<Conversion, MappingError> {
    let mut conversion = Conversion::default();
    for (at, name) in field.convert.iter().enumerate() {
        let place = || place(&format!("convert[{at}]"));
        let Some(step) = Converter::named(name) else {
            let detail = "unknown converter; known are trim, lowercase, uppercase, number, text, \
                          date, datetime, epoch_ms";
            return Err(error(place(), detail));
        };
        if step.is_lossy() && !field.lossy {
            let detail = format!("`{name}` loses something: say `lossy = true`");
            return Err(error(place(), detail));
        }
        let before: Option<&Converter> = conversion.steps.last();
        if before.is_some_and(|before| before.gives() != step.takes()) {
            let detail = format!("`{name}` cannot follow `{}`", field.convert[at - 1]);
            return Err(error(place(), detail));
        }
        conversion.steps.push(step);
    }
    conversion.values = ValueTable::new(&field.values).map_err(|at| {
        let detail = format!("entry {at} repeats a value: the table must be one to one");
        error(place("values"), detail)
    })?;
    let gives_number = conversion.steps.last().map(|step| step.gives()) == Some(Type::Number);
    if gives_number && !conversion.values.is_empty() {
        return Err(error(
            place("values"),
            "a value table takes text, not numbers",
        ));
    }
    Ok(conversion)
}

fn literal<'s>(
    json: Option<&'s str>,
    place: impl FnOnce() -> String,
) -> Result<Option<RawValue<'s>>, MappingError> {
    let Some(json) = json else {
        return Ok(None);
    };
    match Scratch::new().validate(json.as_bytes(), LITERAL_BYTES_MAX) {
        Ok(value) => Ok(Some(value)),
        Err(refusal) => Err(error(place(), refusal.detail)),
    }
}

fn path(dotted: &str) -> Result<Vec<String>, Cow<'static, str>> {
    if dotted.is_empty() {
        return Err(Cow::Borrowed("is missing"));
    }
    let names: Vec<_> = dotted.split('.').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return Err(Cow::Borrowed("has an empty part between dots"));
    }
    if names.len() > PATH_LEVELS_MAX {
        return Err(format!("has more than {PATH_LEVELS_MAX} levels").into());
    }
    Ok(names)
}

fn error(place: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> MappingError {
    MappingError {
        place: place.into(),
        detail: detail.into(),
    }
}
