//! Field mappings: one record as System A names it, and the same record as a provider names it.
//!
//! A mapping is data: pairs of paths with converters that can be undone. Each is checked when the
//! settings load, so that what goes out can come back: paths that collide, value tables that are
//! not one to one, and converters that lose something without saying so are refused there.

mod convert;
mod deletion_mark;
mod field;
mod law;
mod plan;
mod settings;
mod value_table;

use std::borrow::Cow;

use smallvec::SmallVec;

use self::convert::Scalar;
pub use self::deletion_mark::{DeletionMark, DeletionMarkSettings};
pub use self::field::OnNull;
use self::field::{Field, Outbound, Written};
use self::plan::{Node, Plan};
pub use self::settings::{Direction, FieldSettings, MappingError, MappingSettings};
use crate::json::{ObjectWriter, Pointer, RawObject, RawValue};

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
    /// The provider's names of the fields of each.
    match_keys: Vec<Vec<String>>,
    deletion_mark: Option<DeletionMark>,
    outbound: Plan,
    inbound: Plan,
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

    /// The keys by which a record is found that does not bear the record id: the provider's names of
    /// the fields of each.
    pub fn match_keys(&self) -> &[Vec<String>] {
        &self.match_keys
    }

    /// How records are marked as deleted there; `None`: they are removed.
    pub fn deletion_mark(&self) -> Option<&DeletionMark> {
        self.deletion_mark.as_ref()
    }

    /// The outermost of the provider's fields that are read; one may come twice.
    pub fn remote_fields(&self) -> impl Iterator<Item = &str> {
        let inputs = self.inbound.inputs();
        let mapped = inputs.filter_map(|input| input.names().next());
        mapped.chain(self.deletion_mark.iter().map(DeletionMark::remote))
    }

    /// The records that `data` refers to, as `(object, record_id)`: parents that go first.
    pub fn references<'m, 'd>(&'m self, data: RawObject<'d>) -> Vec<(&'m str, Cow<'d, str>)> {
        if self.fields.iter().all(|field| field.reference().is_none()) {
            return Vec::new();
        }
        let Ok(slots) = fill(&self.outbound, data) else {
            return Vec::new();
        };
        let references = self.fields.iter().filter_map(|field| {
            let object = field.reference()?;
            let value = slots[field.locals.start]?;
            Some((object, Scalar::of(value)?.into_id()?))
        });
        references.collect()
    }

    /// System A's fields that hold the key of another record, as pointers, with its object.
    pub fn reference_fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let references = self.fields.iter();
        references.filter_map(|field| Some((field.local(), field.reference()?)))
    }

    /// The records that an account's record refers to, as `(object, remote id)`.
    pub fn references_back(&self, remote: RawObject<'_>) -> Vec<(String, String)> {
        if self.reference_fields().next().is_none() {
            return Vec::new();
        }
        let Ok(slots) = fill(&self.inbound, remote) else {
            return Vec::new();
        };
        let references = self.fields.iter().filter_map(|field| {
            let object = field.reference()?;
            let id = referred_id(slots[field.remotes.start]?)?;
            Some((object.to_owned(), id))
        });
        references.collect()
    }

    /// Whether System A's field at `pointer` is read back from the provider, itself or within an
    /// object that is.
    pub fn comes_back(&self, pointer: &str) -> bool {
        let within = |local: &str| {
            let rest = pointer.strip_prefix(local);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut fields = self.fields.iter();
        fields.any(|field| field.comes_back() && within(field.local()))
    }

    /// Whether some field is required.
    pub fn requires_fields(&self) -> bool {
        self.fields.iter().any(|field| field.required)
    }

    /// Whether fields go as they are, since none is named.
    pub fn is_plain(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether `data` has the fields that `write` requires.
    ///
    /// # Errors
    /// [`MapFailure`] naming the first field that is absent or cleared.
    pub fn check_required(&self, data: RawObject<'_>, write: Write) -> Result<(), MapFailure> {
        let mut slots: Slots<'_> = SmallVec::from_elem(None, self.outbound.slots);
        for member in data.members() {
            for input in self.outbound.inputs_under(&member.key.name()) {
                // What lies in no object is absent; the value itself is not judged here.
                slots[input.slot] = input.value_in(member.value).unwrap_or(None);
            }
        }
        let mut fields = self.fields.iter();
        fields.try_for_each(|field| field.check_required(&slots, write))
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
        let slots = fill(&self.outbound, data)?;
        let outbound = Outbound { write, resolve };
        let mut values: Values<'_> = SmallVec::from_elem(None, self.inbound.slots);
        for field in &self.fields {
            field.check_required(&slots, write)?;
            field.write_out(data, &slots, &outbound, &mut values)?;
        }
        write_object(&self.outbound.output, &values, out);
        Ok(values.iter().flatten().count())
    }

    /// Appends a provider's fields as System A's object. References stay the provider's ids.
    /// Answers how many fields it wrote.
    ///
    /// # Errors
    /// [`MapFailure`]; `out` is as it was.
    pub fn unapply(&self, remote: RawObject<'_>, out: &mut Vec<u8>) -> Result<usize, MapFailure> {
        let slots = fill(&self.inbound, remote)?;
        let mut values: Values<'_> = SmallVec::from_elem(None, self.outbound.slots);
        for field in &self.fields {
            let written = field.write_back(remote, &slots, &mut values);
            written.map_err(|detail| self.inbound.failure(field.remotes.start, detail))?;
        }
        write_object(&self.inbound.output, &values, out);
        Ok(values.iter().flatten().count())
    }
}

/// The id in a field that refers to another record; `None`: there is none.
pub(crate) fn referred_id(value: RawValue<'_>) -> Option<String> {
    let id = Scalar::of(value)?.into_id()?;
    (!value.is_null() && !id.is_empty()).then(|| id.into_owned())
}

type Values<'v> = SmallVec<[Written<'v>; SLOTS_INLINE]>;
type Slots<'d> = SmallVec<[Option<RawValue<'d>>; SLOTS_INLINE]>;

/// One pass over the members: each value that the plan reads, `None` where it is absent.
fn fill<'d>(plan: &Plan, data: RawObject<'d>) -> Result<Slots<'d>, MapFailure> {
    let mut slots = SmallVec::from_elem(None, plan.slots);
    for member in data.members() {
        for input in plan.inputs_under(&member.key.name()) {
            slots[input.slot] = input
                .value_in(member.value)
                .map_err(|detail| plan.failure(input.slot, detail))?;
        }
    }
    Ok(slots)
}

impl Plan {
    fn failure(&self, slot: usize, detail: impl Into<Cow<'static, str>>) -> MapFailure {
        let input = self.inputs().find(|input| input.slot == slot);
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
fn write_object(nodes: &[Node], values: &[Written<'_>], out: &mut Vec<u8>) {
    let mut object = ObjectWriter::open(out);
    for node in nodes {
        match node {
            Node::Leaf { name, value } => {
                if let Some(value) = &values[*value] {
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
    fn has_value(&self, values: &[Written<'_>]) -> bool {
        match self {
            Self::Leaf { value, .. } => values[*value].is_some(),
            Self::Branch { children, .. } => children.iter().any(|child| child.has_value(values)),
        }
    }
}

fn is_id(value: RawValue<'_>, record_id: &str) -> bool {
    Scalar::of(value).and_then(Scalar::into_id).as_deref() == Some(record_id)
}
