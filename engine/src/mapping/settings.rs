//! The settings of a mapping, and what must hold of them before it runs.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use xxhash_rust::xxh3::Xxh3;

use super::convert::{Conversion, Converter, Type};
use super::deletion_mark::{DeletionMark, DeletionMarkSettings};
use super::field::{BACK, Field, FieldKind, OUT, OnNull, Parts};
use super::plan::{PATH_LEVELS_MAX, Plan};
use super::value_table::ValueTable;
use super::{FIELDS_MAX, Mapping, law};
use crate::expression::{Declared, Expression};
use crate::json::{Pointer, RawValue, Scratch};

/// Bytes of a `default` or `constant`.
const LITERAL_BYTES_MAX: usize = 64 << 10;

/// Match keys of one mapping: each costs a call before a record is made.
const MATCH_KEYS_MAX: usize = 8;

/// Parts of one text: more is a list, not a name or an address.
const PARTS_MAX: usize = 8;

/// `[objects.X.to.Y]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct MappingSettings {
    /// The provider's name of the object.
    pub remote: String,
    /// The provider's field that holds the record id.
    pub external_id: Option<String>,
    /// The pairs of fields.
    pub fields: Vec<FieldSettings>,
    /// Keys by which a record is found there that does not bear the record id, asked in order: each
    /// of System A's fields, by their paths.
    pub match_keys: Vec<Vec<String>>,
    /// How a record is marked as deleted there; `None`: it is removed.
    pub deleted: Option<DeletionMarkSettings>,
}

/// One entry of `fields`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldSettings {
    /// System A's path, dots between levels; empty for a `constant`.
    pub local: String,
    /// The provider's path, dots between levels.
    pub remote: String,
    /// In place of `local`: texts that are one remote text, with `separator` between them.
    pub locals: Vec<String>,
    /// In place of `remote`: texts that one local text is split into, at `separator`.
    pub remotes: Vec<String>,
    /// Between the parts of `locals` or `remotes`; a space unless given.
    pub separator: Option<String>,
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
    /// What a `null` does.
    pub on_null: OnNull,
    /// Which way the field goes.
    pub direction: Direction,
    /// CEL over `data`: the remote value, in place of a conversion.
    pub cel: Option<String>,
    /// CEL over `remote`: the local value, in place of a conversion.
    pub cel_in: Option<String>,
}

/// Which way a field goes, seen from System A.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// To the provider only.
    Out,
    /// From the provider only.
    In,
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
        match_keys: match_keys(settings)?,
        deletion_mark: None,
        outbound: Plan::new(&["data"]),
        inbound: Plan::new(&[]),
    };
    let mut read_back: Vec<&str> = Vec::new();
    for (at, field) in settings.fields.iter().enumerate() {
        let entry = Entry { at, field };
        entry.check_shape()?;
        let paths = entry.lay_out(&mut mapping, &mut read_back)?;
        mapping.fields.push(entry.compile(paths)?);
    }
    if let Some(settings) = &settings.deleted {
        mapping.deletion_mark = Some(DeletionMark::compile(settings, &mapping)?);
    }
    Ok(mapping)
}

/// The provider's names of the fields of each match key.
fn match_keys(settings: &MappingSettings) -> Result<Vec<Vec<String>>, MappingError> {
    if settings.match_keys.len() > MATCH_KEYS_MAX {
        return Err(error("match", format!("more than {MATCH_KEYS_MAX} keys")));
    }
    let keys = settings.match_keys.iter().enumerate().map(|(at, key)| {
        let place = || format!("match[{at}]");
        if key.is_empty() || key.len() > PARTS_MAX {
            let detail = format!("a match key has 1 to {PARTS_MAX} fields");
            return Err(error(place(), detail));
        }
        let names = key.iter().map(|local| remote_of(settings, local));
        names
            .collect::<Result<_, _>>()
            .map_err(|detail| error(place(), detail))
    });
    keys.collect()
}

/// What the provider calls a field of System A's that a record can be found by: one value, which
/// goes out as one value.
fn remote_of(settings: &MappingSettings, local: &str) -> Result<String, String> {
    if settings.fields.is_empty() {
        return match local.contains('.') || local.is_empty() {
            false => Ok(local.to_owned()),
            true => Err(format!("`{local}` is no field to find a record by")),
        };
    }
    let mut fields = settings.fields.iter();
    let field = fields.find(|field| field.local == local);
    let field = field.ok_or_else(|| format!("`{local}` is the `local` of none of the fields"))?;
    let alone = field.constant.is_none()
        && field.reference.is_none()
        && !field.remote.is_empty()
        && field.direction != Direction::In;
    match alone && !field.remote.contains('.') {
        true => Ok(field.remote.clone()),
        false => Err(format!("`{local}` is no field to find a record by")),
    }
}

/// One entry of `fields`.
struct Entry<'s> {
    at: usize,
    field: &'s FieldSettings,
}

/// The numbers of a field's paths.
struct Numbers {
    pointer: String,
    locals: Range<usize>,
    remotes: Range<usize>,
    /// The local paths are written on the way back.
    returns: bool,
}

impl<'s> Entry<'s> {
    /// What may not stand beside what.
    fn check_shape(&self) -> Result<(), MappingError> {
        let field = self.field;
        let computed = field.cel.is_some() || field.cel_in.is_some();
        let parted = !field.locals.is_empty() || !field.remotes.is_empty();
        let converted = !field.convert.is_empty() || !field.values.is_empty();
        if field.constant.is_some() {
            let alone = self.locals().is_empty()
                && !field.required
                && field.default.is_none()
                && field.reference.is_none()
                && field.direction != Direction::In
                && !(computed || parted || converted);
            let detail = "a constant takes nothing from the record: only `remote` may stand \
                          beside it";
            return alone
                .then_some(())
                .ok_or_else(|| self.error("constant", detail));
        }
        if field.reference.is_some() && converted {
            let detail = "a reference is an id and cannot be converted";
            return Err(self.error("reference", detail));
        }
        if parted && computed {
            let detail = "an expression stands in place of `locals` and `remotes`";
            return Err(self.error("cel", detail));
        }
        if field.reference.is_some() && (parted || computed) {
            let detail = "a reference is one id";
            return Err(self.error("reference", detail));
        }
        if (parted || computed) && converted {
            let part = if field.convert.is_empty() {
                "values"
            } else {
                "convert"
            };
            let detail = "only a field with one `local` and one `remote` is converted";
            return Err(self.error(part, detail));
        }
        for (part, one, many) in [
            ("locals", &field.local, &field.locals),
            ("remotes", &field.remote, &field.remotes),
        ] {
            if !many.is_empty() && !one.is_empty() {
                return Err(self.error(part, "stands in place of the single path, not beside it"));
            }
            if many.len() == 1 || many.len() > PARTS_MAX {
                return Err(self.error(part, format!("takes 2 to {PARTS_MAX} paths")));
            }
        }
        if !field.locals.is_empty() && !field.remotes.is_empty() {
            return Err(self.error("remotes", "one side of a field is a single path"));
        }
        if field.separator.is_some() && !parted {
            return Err(self.error("separator", "stands with `locals` or `remotes`"));
        }
        if field.separator.as_deref() == Some("") {
            return Err(self.error("separator", "must not be empty"));
        }
        if field.default.is_some() && (parted || computed || field.reference.is_some()) {
            let what = if field.reference.is_some() {
                "a reference cannot have a default"
            } else {
                "only a field with one `local` and one `remote` has a default"
            };
            return Err(self.error("default", what));
        }
        if field.direction == Direction::In && (field.required || field.default.is_some()) {
            let part = if field.required {
                "required"
            } else {
                "default"
            };
            return Err(self.error(part, "the field is not sent"));
        }
        self.check_directions()
    }

    fn check_directions(&self) -> Result<(), MappingError> {
        let field = self.field;
        if field.cel.is_none() && field.cel_in.is_some() && field.direction == Direction::Out {
            return Err(self.error("cel_in", "the field is not taken back"));
        }
        if field.cel.is_some() && field.direction == Direction::In {
            return Err(self.error("cel", "the field is not sent"));
        }
        let both_ways = field.direction == Direction::Both && !field.lossy;
        if both_ways && !(field.locals.is_empty() && field.remotes.is_empty()) {
            let part = if field.locals.is_empty() {
                "remotes"
            } else {
                "locals"
            };
            let detail = "parts of a text need not come back as they went: say `lossy = true`";
            return Err(self.error(part, detail));
        }
        if both_ways && field.cel.is_some() && field.cel_in.is_some() {
            let detail = "nobody knows whether expressions undo each other: say `lossy = true`";
            return Err(self.error("cel_in", detail));
        }
        Ok(())
    }

    /// Puts the field's paths into the plans of the directions that it has.
    fn lay_out(
        &self,
        mapping: &mut Mapping,
        read_back: &mut Vec<&'s str>,
    ) -> Result<Numbers, MappingError> {
        let field = self.field;
        let computed = field.cel.is_some() || field.cel_in.is_some();
        let goes_out = field.direction != Direction::In && (!computed || field.cel.is_some());
        let comes_back = field.direction != Direction::Out
            && field.constant.is_none()
            && (!computed || field.cel_in.is_some());
        let locals = self.locals();
        let remotes = self.remotes();
        let first = (mapping.outbound.slots, mapping.inbound.slots);
        let mut pointer = Pointer::of(&["data"]);

        // One local field may feed several remote ones; it comes back from the first.
        let returns = comes_back && !locals.iter().any(|local| read_back.contains(local));
        let needs_local = field.constant.is_none() && (!computed || comes_back);
        if needs_local && locals.is_empty() {
            return Err(self.error("local", "is missing"));
        }
        for (at, local) in locals.iter().enumerate() {
            let names = path(local).map_err(|detail| self.error(self.part("local", at), detail))?;
            let number = first.0 + at;
            if at == 0 {
                names.iter().for_each(|name| pointer.push(name));
            }
            if goes_out && !computed {
                mapping.outbound.read(number, &names);
            }
            if returns && mapping.inbound.write(number, &names).is_err() {
                let detail = "another field contains this one or lies in it";
                return Err(self.error(self.part("local", at), detail));
            }
        }
        let needs_remote = goes_out || !computed;
        if needs_remote && remotes.is_empty() {
            return Err(self.error("remote", "is missing"));
        }
        for (at, remote) in remotes.iter().enumerate() {
            let names =
                path(remote).map_err(|detail| self.error(self.part("remote", at), detail))?;
            let number = first.1 + at;
            if goes_out && mapping.outbound.write(number, &names).is_err() {
                let detail = "another field is this one, contains it or lies in it";
                return Err(self.error(self.part("remote", at), detail));
            }
            if returns && !computed {
                mapping.inbound.read(number, &names);
            }
        }
        if returns {
            read_back.extend(&locals);
        }
        // A side without a path still has a number: its value goes nowhere.
        mapping.outbound.slots += locals.len().max(1);
        mapping.inbound.slots += remotes.len().max(1);
        Ok(Numbers {
            pointer: pointer.into(),
            locals: first.0..mapping.outbound.slots,
            remotes: first.1..mapping.inbound.slots,
            returns,
        })
    }

    fn compile(&self, numbers: Numbers) -> Result<Field, MappingError> {
        let field = self.field;
        let mut default = None;
        let kind = if let Some(constant) = self.literal(field.constant.as_deref(), "constant")? {
            FieldKind::Constant(constant.text().to_owned())
        } else if field.cel.is_some() || field.cel_in.is_some() {
            FieldKind::Computed {
                out: self.expression("cel", field.cel.as_deref(), OUT.1)?,
                back: self.expression("cel_in", field.cel_in.as_deref(), BACK.1)?,
            }
        } else if !field.locals.is_empty() {
            FieldKind::Joined(self.parts(field.locals.len()))
        } else if !field.remotes.is_empty() {
            FieldKind::Split(self.parts(field.remotes.len()))
        } else if let Some(object) = &field.reference {
            FieldKind::Reference(object.clone())
        } else {
            let conversion = self.conversion()?;
            if let Some(value) = self.literal(field.default.as_deref(), "default")? {
                let json = conversion.apply(value);
                let json = json.map_err(|detail| self.error("default", detail))?;
                default = Some(String::from_utf8_lossy(&json).into_owned());
            }
            FieldKind::Converted(conversion)
        };
        Ok(Field {
            pointer: numbers.pointer,
            required: field.required,
            default,
            on_null: field.on_null,
            kind,
            locals: numbers.locals,
            remotes: numbers.remotes,
            returns: numbers.returns,
        })
    }

    fn conversion(&self) -> Result<Conversion, MappingError> {
        let field = self.field;
        let mut conversion = Conversion::default();
        let may_lose = field.lossy || field.direction != Direction::Both;
        for (at, name) in field.convert.iter().enumerate() {
            let refuse = |detail: String| self.error(format!("convert[{at}]"), detail);
            let step = Converter::named(name).map_err(|unknown| refuse(unknown.0))?;
            if step.is_lossy() && !may_lose {
                return Err(refuse(format!(
                    "`{name}` loses something: say `lossy = true`"
                )));
            }
            let before = conversion.steps.last().map(Converter::gives);
            if before.is_some_and(|before| !step.takes().includes(before)) {
                let detail = format!("`{name}` cannot follow `{}`", field.convert[at - 1]);
                return Err(refuse(detail));
            }
            conversion.steps.push(step);
        }
        conversion.values = ValueTable::new(&field.values).map_err(|at| {
            let detail = format!("entry {at} repeats a value: the table must be one to one");
            self.error("values", detail)
        })?;
        let gives = conversion.steps.last().map_or(Type::Text, Converter::gives);
        if !conversion.values.is_empty() && gives != Type::Text {
            let detail = "a value table takes text, not numbers, truth values or lists";
            return Err(self.error("values", detail));
        }
        if !may_lose && let Err(broken) = law::check(&conversion) {
            let back = broken.back.as_deref().unwrap_or("nothing");
            let detail = format!(
                "{} would come back as {back}: say `lossy = true`",
                broken.local
            );
            return Err(self.error("convert", detail));
        }
        Ok(conversion)
    }

    fn expression(
        &self,
        part: &str,
        source: Option<&str>,
        declared: Declared,
    ) -> Result<Option<Expression>, MappingError> {
        let Some(source) = source else {
            return Ok(None);
        };
        match Expression::compile(source, declared) {
            Ok(expression) => Ok(Some(expression)),
            Err(error) => {
                let at = error.at.map(|(line, column)| format!("{line}:{column}: "));
                let detail = format!("{}{}", at.unwrap_or_default(), error.detail);
                Err(self.error(part, detail))
            }
        }
    }

    fn parts(&self, count: usize) -> Parts {
        Parts {
            separator: self.field.separator.as_deref().unwrap_or(" ").to_owned(),
            count,
        }
    }

    fn literal<'j>(
        &self,
        json: Option<&'j str>,
        part: &str,
    ) -> Result<Option<RawValue<'j>>, MappingError> {
        let Some(json) = json else {
            return Ok(None);
        };
        match Scratch::new().validate(json.as_bytes(), LITERAL_BYTES_MAX) {
            Ok(value) => Ok(Some(value)),
            Err(refusal) => Err(self.error(part, refusal.detail)),
        }
    }

    fn locals(&self) -> Vec<&'s str> {
        paths(&self.field.local, &self.field.locals)
    }

    fn remotes(&self) -> Vec<&'s str> {
        paths(&self.field.remote, &self.field.remotes)
    }

    /// `local`, or `locals[1]`.
    fn part(&self, one: &str, at: usize) -> String {
        let many = match one {
            "local" => &self.field.locals,
            _ => &self.field.remotes,
        };
        if many.is_empty() {
            one.to_owned()
        } else {
            format!("{one}s[{at}]")
        }
    }

    fn error(&self, part: impl AsRef<str>, detail: impl Into<Cow<'static, str>>) -> MappingError {
        error(format!("fields[{}].{}", self.at, part.as_ref()), detail)
    }
}

fn paths<'s>(one: &'s str, many: &'s [String]) -> Vec<&'s str> {
    let one = Some(one).filter(|one| !one.is_empty());
    one.into_iter()
        .chain(many.iter().map(String::as_str))
        .collect()
}

fn version(object: &str, settings: &MappingSettings) -> u64 {
    let mut hasher = Xxh3::new();
    (object, settings).hash(&mut hasher);
    hasher.finish()
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

pub(super) fn error(
    place: impl Into<String>,
    detail: impl Into<Cow<'static, str>>,
) -> MappingError {
    MappingError {
        place: place.into(),
        detail: detail.into(),
    }
}
