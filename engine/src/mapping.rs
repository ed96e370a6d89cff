//! Field mappings: one record as System A names it, and the same record as a provider names it.
//!
//! A mapping is data: pairs of paths with converters that can be undone. Each is checked when the
//! settings load, so that what goes out can come back: paths that collide, value tables that are
//! not one to one, and converters that lose something without saying so are refused there.

mod convert;
mod plan;
mod settings;

use std::borrow::Cow;

use smallvec::SmallVec;

use self::convert::{Conversion, Scalar};
use self::plan::{Node, Plan};
pub use self::settings::{FieldSettings, MappingError, MappingSettings};
use crate::json::{ObjectWriter, Pointer, RawObject, RawValue, write_string};

/// Fields of one mapping: far over the widest CRM object.
pub const FIELDS_MAX: usize = 1_000;

/// Slots that applying keeps on the stack.
const SLOTS_INLINE: usize = 32;

/// How one object maps to one account.
#[derive(Debug, Clone)]
pub struct Mapping {
    object: String,
    remote: String,
    external_id: Option<String>,
    version: u64,
    fields: Vec<Field>,
    outbound: Plan,
    inbound: Plan,
}

/// What a field does; the paths are in the plans.
#[derive(Debug, Clone)]
struct Field {
    /// Where the value stands in the event, for refusals.
    pointer: String,
    required: bool,
    /// Written for a CREATE that leaves the field out; JSON as the provider gets it.
    default: Option<String>,
    /// Written whatever the event says; JSON as the provider gets it.
    constant: Option<String>,
    conversion: Conversion,
    reference: Option<String>,
}

/// What the mapped fields are for: it decides what a missing field means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// A whole new record: required fields must be there, defaults and constants are added.
    Create,
    /// A whole record that may be there already: as a create, but a default could overwrite what
    /// is there and stays out.
    Upsert,
    /// Changed fields only: a required one may be absent, but not cleared.
    Update,
}

/// A record that the mapping cannot carry; nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct MapFailure {
    /// What kind of failure it is.
    pub cause: MapFailureCause,
    /// Where in the event (`/data/email`) or, inbound, in the provider's record (`/Email`).
    pub pointer: String,
    /// What is wrong there, without the value.
    pub detail: Cow<'static, str>,
}

/// Why a record cannot be mapped, as far as a caller acts differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapFailureCause {
    /// A required field is absent or cleared.
    Required,
    /// A value is not what its converter or value table takes.
    Value,
    /// A reference leads to a record that is not linked yet; time may cure it.
    Unlinked,
}

/// Finds the provider's id of a record that a field refers to: `(object, record_id)`.
pub type ResolveReference<'r> = &'r dyn Fn(&str, &str) -> Option<String>;

/// A [`ResolveReference`] that leaves ids as they are.
pub fn keep_reference(_object: &str, record_id: &str) -> Option<String> {
    Some(record_id.to_owned())
}

/// Appends the fields of an object that has no mapping: as they are, except an `id` that only
/// repeats the record id. Answers how many fields it wrote.
pub fn write_unmapped(data: RawObject<'_>, record_id: &str, out: &mut Vec<u8>) -> usize {
    let mut object = ObjectWriter::open(out);
    let mut fields = 0;
    for member in data.members() {
        if member.key.is("id") && is_id(member.value, record_id) {
            continue;
        }
        let place = object.member_escaped(member.key.escaped());
        place.extend_from_slice(member.value.text().as_bytes());
        fields += 1;
    }
    object.close();
    fields
}

impl Mapping {
    /// Checks the settings and prepares both directions.
    ///
    /// # Errors
    /// [`MappingError`] with the place inside the mapping's table.
    pub fn compile(object: &str, settings: &MappingSettings) -> Result<Self, MappingError> {
        settings::compile(object, settings)
    }

    /// System A's name of the object.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The provider's name of the object.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// A hash of all that the settings say: equal settings, equal version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The provider's field that holds the record id.
    pub fn external_id(&self) -> Option<&str> {
        self.external_id.as_deref()
    }

    /// The records that `data` refers to, as `(object, record_id)`: parents that go first.
    pub fn references<'m, 'd>(&'m self, data: RawObject<'d>) -> Vec<(&'m str, Cow<'d, str>)> {
        if self.fields.iter().all(|field| field.reference.is_none()) {
            return Vec::new();
        }
        let Ok(slots) = self.fill(&self.outbound, data) else {
            return Vec::new();
        };
        let references = self.fields.iter().zip(slots).filter_map(|(field, slot)| {
            let id = Scalar::of(slot?)?.into_id()?;
            Some((field.reference.as_deref()?, id))
        });
        references.collect()
    }

    /// Whether `data` has the fields that `write` requires.
    ///
    /// # Errors
    /// [`MapFailure`] naming the first field that is absent or cleared.
    pub fn check_required(&self, data: RawObject<'_>, write: Write) -> Result<(), MapFailure> {
        let slots = self.fill(&self.outbound, data)?;
        let mut fields = self.fields.iter().zip(slots);
        fields.try_for_each(|(field, slot)| field.check_required(slot, write))
    }

    /// Appends System A's fields as the provider's object. Answers how many fields it wrote: none
    /// means that the event says nothing to this account.
    ///
    /// # Errors
    /// [`MapFailure`]; `out` is as it was.
    pub fn apply(
        &self,
        data: RawObject<'_>,
        write: Write,
        resolve: ResolveReference<'_>,
        out: &mut Vec<u8>,
    ) -> Result<usize, MapFailure> {
        let slots = self.fill(&self.outbound, data)?;
        let mut values: SmallVec<[Option<Cow<'_, [u8]>>; SLOTS_INLINE]> = SmallVec::new();
        for (field, slot) in self.fields.iter().zip(slots) {
            field.check_required(slot, write)?;
            values.push(field.outbound(slot, write, resolve)?);
        }
        write_object(&self.outbound.output, &values, out);
        Ok(values.iter().flatten().count())
    }

    /// Appends a provider's fields as System A's object. References stay the provider's ids.
    /// Answers how many fields it wrote.
    ///
    /// # Errors
    /// [`MapFailure`]; `out` is as it was.
    pub fn apply_inbound(
        &self,
        remote: RawObject<'_>,
        out: &mut Vec<u8>,
    ) -> Result<usize, MapFailure> {
        let slots = self.fill(&self.inbound, remote)?;
        let mut values: SmallVec<[Option<Cow<'_, [u8]>>; SLOTS_INLINE]> = SmallVec::new();
        for (at, slot) in slots.into_iter().enumerate() {
            let converted = slot.map(|value| {
                let undone = self.fields[at].conversion.undo(value);
                undone.map_err(|detail| self.inbound.failure(at, detail))
            });
            values.push(converted.transpose()?);
        }
        write_object(&self.inbound.output, &values, out);
        Ok(values.iter().flatten().count())
    }

    /// One pass over the members: the value of each field, `None` where it is absent.
    fn fill<'d>(
        &self,
        plan: &Plan,
        data: RawObject<'d>,
    ) -> Result<SmallVec<[Option<RawValue<'d>>; SLOTS_INLINE]>, MapFailure> {
        let mut slots = SmallVec::from_elem(None, self.fields.len());
        for member in data.members() {
            for input in plan.inputs_under(&member.key.name()) {
                slots[input.field] = input
                    .value_in(member.value)
                    .map_err(|detail| plan.failure(input.field, detail))?;
            }
        }
        Ok(slots)
    }
}

impl Field {
    fn check_required(&self, slot: Option<RawValue<'_>>, write: Write) -> Result<(), MapFailure> {
        let missing = match slot {
            Some(value) => value.is_null(),
            None => match write {
                Write::Create => self.default.is_none(),
                Write::Upsert => true,
                Write::Update => false,
            },
        };
        if !self.required || !missing {
            return Ok(());
        }
        let detail = match write {
            Write::Update => "a required field must not be cleared",
            Write::Create | Write::Upsert => "a required field is absent or null",
        };
        Err(self.failure(MapFailureCause::Required, detail))
    }

    /// The field's JSON as the provider gets it; `None` leaves it out.
    fn outbound<'v>(
        &'v self,
        slot: Option<RawValue<'v>>,
        write: Write,
        resolve: ResolveReference<'_>,
    ) -> Result<Option<Cow<'v, [u8]>>, MapFailure> {
        let stored = |json: &'v Option<String>| json.as_ref().map(|j| Cow::Borrowed(j.as_bytes()));
        if self.constant.is_some() {
            return Ok(match write {
                Write::Create | Write::Upsert => stored(&self.constant),
                Write::Update => None,
            });
        }
        let Some(value) = slot else {
            return Ok(match write {
                Write::Create => stored(&self.default),
                Write::Upsert | Write::Update => None,
            });
        };
        if let Some(object) = &self.reference {
            return self.resolved(object, value, resolve).map(Some);
        }
        let converted = self.conversion.apply(value);
        let converted = converted.map_err(|d| self.failure(MapFailureCause::Value, d))?;
        Ok(Some(converted))
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
            let detail = "a reference must be text or an integer";
            return Err(self.failure(MapFailureCause::Value, detail));
        };
        let Some(remote_id) = resolve(object, &id) else {
            let detail = format!("refers to a {object} that is not linked yet");
            return Err(self.failure(MapFailureCause::Unlinked, detail));
        };
        let mut json = Vec::with_capacity(remote_id.len() + 2);
        write_string(&mut json, &remote_id);
        Ok(Cow::Owned(json))
    }

    fn failure(&self, cause: MapFailureCause, detail: impl Into<Cow<'static, str>>) -> MapFailure {
        MapFailure {
            cause,
            pointer: self.pointer.clone(),
            detail: detail.into(),
        }
    }
}

impl Plan {
    fn failure(&self, field: usize, detail: impl Into<Cow<'static, str>>) -> MapFailure {
        let input = self.inputs().find(|input| input.field == field);
        let mut pointer = Pointer::root();
        for name in self
            .root
            .iter()
            .copied()
            .chain(input.into_iter().flat_map(|i| i.names()))
        {
            pointer.push(name);
        }
        MapFailure {
            cause: MapFailureCause::Value,
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }
}

/// Writes the members that have a value; an object that would be empty is left out with them.
fn write_object(nodes: &[Node], values: &[Option<Cow<'_, [u8]>>], out: &mut Vec<u8>) {
    let mut object = ObjectWriter::open(out);
    for node in nodes {
        match node {
            Node::Leaf { name, field } => {
                if let Some(value) = &values[*field] {
                    object.member(name).extend_from_slice(value);
                }
            }
            Node::Branch { name, children } => {
                if children.iter().any(|child| child.has_value(values)) {
                    write_object(children, values, object.member(name));
                }
            }
        }
    }
    object.close();
}

impl Node {
    fn has_value(&self, values: &[Option<Cow<'_, [u8]>>]) -> bool {
        match self {
            Self::Leaf { field, .. } => values[*field].is_some(),
            Self::Branch { children, .. } => children.iter().any(|child| child.has_value(values)),
        }
    }
}

fn is_id(value: RawValue<'_>, record_id: &str) -> bool {
    Scalar::of(value).and_then(Scalar::into_id).as_deref() == Some(record_id)
}
