//! `[objects.NAME]`: what a definition knows of a provider's objects.

use serde_json::Value;

use super::TemplateError;
use super::body_template::BodyTemplate;
use super::file::{MappedFieldBlock, ObjectBlock};
use super::problems::Problems;
use crate::mapping::{FieldSettings, Mapping, MappingSettings};

/// The objects of a definition, and the key fields an account's mappings name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    known: Vec<Object>,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// System A's usual name of it; `None` for one that only an account's mapping names.
    pub(crate) local: Option<String>,
    pub(crate) remote: String,
    pub(crate) object_type: Option<String>,
    pub(crate) external_id: Option<String>,
    /// Whether the provider can be asked by the key.
    pub(crate) lookup: bool,
    /// Fields that the provider wants in a shape of their own, by remote name.
    pub(crate) wraps: Vec<(String, BodyTemplate)>,
    pub(crate) default_mapping: Option<MappingSettings>,
}

/// What templates read of an object.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ObjectNames<'a> {
    pub(crate) object_type: Option<&'a str>,
    pub(crate) external_id: Option<&'a str>,
    pub(crate) no_lookup: bool,
    pub(crate) wraps: &'a [(String, BodyTemplate)],
}

impl Objects {
    pub(crate) fn new(known: Vec<Object>) -> Objects {
        Objects { known }
    }

    /// Sets the field that holds System A's key, which an account's mapping may name otherwise.
    pub(crate) fn set_external_id(&mut self, remote: &str, field: &str) {
        let field = Some(field.to_owned());
        match self.known.iter_mut().find(|known| known.remote == remote) {
            Some(known) => known.external_id = field,
            None => self.known.push(Object {
                local: None,
                remote: remote.to_owned(),
                object_type: None,
                external_id: field,
                lookup: true,
                wraps: Vec::new(),
                default_mapping: None,
            }),
        }
    }

    /// The remote name of an object that may be called by System A's usual one, as the objects
    /// of accounts without a mapping are.
    pub(crate) fn remote<'a>(&'a self, object: &'a str) -> &'a str {
        if self.known.iter().any(|known| known.remote == object) {
            return object;
        }
        let mut known = self.known.iter();
        let known = known.find(|known| known.local.as_deref() == Some(object));
        known.map_or(object, |known| &known.remote)
    }

    pub(crate) fn names(&self, remote: &str) -> ObjectNames<'_> {
        self.names_where(|known| known.remote == remote)
    }

    /// As [`Objects::names`], for what is left of an object's name in a batch group.
    pub(crate) fn names_of_hash(&self, hash: u64) -> ObjectNames<'_> {
        self.names_where(|known| remote_hash(&known.remote) == hash)
    }

    fn names_where(&self, wanted: impl Fn(&Object) -> bool) -> ObjectNames<'_> {
        let known = self.known.iter().find(|known| wanted(known));
        known.map_or_else(ObjectNames::default, |known| ObjectNames {
            object_type: known.object_type.as_deref(),
            external_id: known.external_id.as_deref(),
            no_lookup: !known.lookup,
            wraps: &known.wraps,
        })
    }

    pub(crate) fn default_mappings(&self) -> impl Iterator<Item = (&str, &MappingSettings)> {
        let known = self.known.iter();
        known.filter_map(|known| Some((known.local.as_deref()?, known.default_mapping.as_ref()?)))
    }

    pub(crate) fn default_mapping(&self, local: &str) -> Option<&MappingSettings> {
        let known = self.known.iter();
        let mut known = known.filter(|known| known.local.as_deref() == Some(local));
        known.next()?.default_mapping.as_ref()
    }
}

impl Object {
    pub(crate) fn compile(local: &str, block: &ObjectBlock, problems: &mut Problems) -> Object {
        let key = |member: &str| format!("objects.{local}.{member}");
        if block.remote.is_empty() {
            problems.add(key("remote"), TemplateError::Missing("remote"));
        }
        let wraps = block.wrap.iter().filter_map(|(field, template)| {
            let wrap = BodyTemplate::compile_wrap(template);
            let wrap = problems.note(format!("objects.{local}.wrap.{field}"), wrap)?;
            Some((field.clone(), wrap))
        });
        let wraps = wraps.collect();
        let default_mapping = (!block.fields.is_empty()).then(|| MappingSettings {
            remote: block.remote.clone(),
            external_id: block.external_id.clone(),
            fields: block.fields.iter().map(mapped_field).collect(),
            match_keys: Vec::new(),
            deleted: None,
        });
        if let Some(settings) = &default_mapping
            && let Err(error) = Mapping::compile(local, settings)
        {
            let key = format!("objects.{local}.{}", error.place);
            problems.add(key, TemplateError::Mapping(error.detail.into_owned()));
        }
        Object {
            local: Some(local.to_owned()),
            remote: block.remote.clone(),
            object_type: block.object_type.clone(),
            external_id: block.external_id.clone(),
            lookup: block.lookup.unwrap_or(true),
            wraps,
            default_mapping,
        }
    }
}

fn mapped_field(block: &MappedFieldBlock) -> FieldSettings {
    let json = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    FieldSettings {
        local: block.local.clone(),
        remote: block.remote.clone(),
        required: block.required,
        default: json(&block.default),
        constant: json(&block.constant),
        convert: block.convert.clone(),
        values: block.values.clone().into_iter().collect(),
        lossy: block.lossy,
        reference: block.reference.clone(),
        ..FieldSettings::default()
    }
}

/// What a batch group keeps of an object's remote name.
pub(crate) fn remote_hash(remote: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(remote.as_bytes())
}
