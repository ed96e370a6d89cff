//! `[objects.NAME]`: what is kept in step, and how its fields map.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::mapping::{self, MappingSettings};
use engine::merge::Foreign;
use engine::rules::Share;
use engine::schema::{SCHEMA_BYTES_MAX, Schema};
use serde::Deserialize;
use serde_json::Value;

use super::quantity;

/// One kind of record.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectSettings {
    /// The plain keys of `[objects.NAME]`.
    pub record: RecordSettings,
    /// `[objects.NAME.to.ACCOUNT]`, in the file's order.
    pub to: Vec<(String, TargetSettings)>,
}

/// The keys that stand directly in `[objects.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordSettings {
    /// JSON Schema of System A's record; a relative path starts from the config file's folder.
    pub schema: Option<PathBuf>,
    /// Which way changes flow.
    pub direction: Direction,
    /// Who wins when both sides changed.
    pub conflict: Option<ConflictSettings>,
    /// What a delete at an account does.
    pub deletes: Deletes,
    /// Where a database holds it.
    pub source: Option<SourceSettings>,
}

/// Which way changes flow, seen from System A.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the providers.
    #[default]
    Out,
    /// From the providers.
    In,
    /// Both ways.
    Both,
}

/// Who wins when both sides changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictSettings {
    /// For fields that are not named.
    pub default: ConflictPolicy,
    /// By field of System A's record, dots between the names of inner ones.
    #[serde(default)]
    pub fields: BTreeMap<String, ConflictPolicy>,
    /// Two times nearer than this do not say which change came first.
    #[serde(default = "clock_skew", deserialize_with = "quantity::duration")]
    pub clock_skew: Duration,
}

fn clock_skew() -> Duration {
    engine::merge::ConflictPolicy::default().skew
}

impl ConflictSettings {
    /// As the engine decides by it.
    ///
    /// # Errors
    /// The keys of an expression that cannot be one, below `conflict`, and what is wrong with it.
    pub fn policy(&self) -> Result<engine::merge::ConflictPolicy, (String, String)> {
        let default = self.default.rule("default")?;
        let fields = self.fields.iter().map(|(field, policy)| {
            let names: Vec<&str> = field.split('.').collect();
            let pointer = String::from(engine::json::Pointer::of(&names));
            Ok((pointer, policy.rule(&format!("fields.{field}"))?))
        });
        Ok(engine::merge::ConflictPolicy {
            default,
            fields: fields.collect::<Result<_, (String, String)>>()?,
            skew: self.clock_skew,
        })
    }
}

/// Who wins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictPolicy {
    /// The later change.
    LastWriteWins,
    /// System A.
    SystemA,
    /// The provider.
    Provider,
    /// A person decides.
    Manual,
    /// System A, whose field it is: what accounts change of it is not taken.
    SystemARefuses,
    /// The same, and System A's value is written back.
    SystemAReverts,
    /// An expression says which of the others.
    Cel(String),
}

impl ConflictPolicy {
    fn rule(&self, at: &str) -> Result<engine::merge::Rule, (String, String)> {
        Ok(match self {
            Self::LastWriteWins => engine::merge::Rule::LastWriteWins,
            Self::SystemA => engine::merge::Rule::SystemA,
            Self::Provider => engine::merge::Rule::Provider,
            Self::Manual => engine::merge::Rule::Manual,
            Self::SystemARefuses => engine::merge::Rule::Owned(Foreign::Refuse),
            Self::SystemAReverts => engine::merge::Rule::Owned(Foreign::Revert),
            Self::Cel(source) => engine::merge::Rule::expression(source).map_err(|error| {
                let place = error.at.map(|(line, column)| format!("{line}:{column}: "));
                let detail = format!("{}{}", place.unwrap_or_default(), error.detail);
                (format!("{at}.cel"), detail)
            })?,
        })
    }
}

/// What a delete at an account does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deletes {
    /// Everybody deletes the record.
    #[default]
    Propagate,
    /// Nobody else does.
    Ignore,
    /// Everybody marks it as deleted.
    Soft,
}

/// A table that Debezium or PostgreSQL tells changes of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// With its schema: `public.contacts`.
    pub table: String,
    /// The column that is the record id.
    pub key: String,
    /// A column that marks a row as deleted, where a delete keeps it.
    #[serde(default)]
    pub deleted: Option<String>,
}

/// How an object's records look at one account.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSettings {
    /// The object's name there.
    pub remote: Option<String>,
    /// The remote field that holds System A's key.
    pub external_id: Option<String>,
    /// False: the account takes none of its records.
    pub enabled: bool,
    /// The part of the records that the account takes.
    pub share: Share,
    /// Keys by which a record is found there before one is made, asked in order.
    pub match_keys: Vec<MatchKey>,
    /// How a record is marked as deleted there.
    pub deleted: Option<DeletionMarkSettings>,
    /// In the file's order; empty: fields go as they are.
    pub fields: Vec<FieldSettings>,
}

/// The keys that stand directly in `[objects.NAME.to.ACCOUNT]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TargetKeys {
    pub(super) remote: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) enabled: Option<bool>,
    pub(super) share: Option<Share>,
    #[serde(rename = "match")]
    pub(super) match_keys: Vec<MatchKey>,
    pub(super) deleted: Option<DeletionMarkSettings>,
}

/// A field that says of a record whether it is deleted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeletionMarkSettings {
    /// The provider's field.
    pub remote: String,
    /// What it holds in a record that is deleted.
    #[serde(default = "marked", deserialize_with = "literal_value")]
    pub value: Value,
    /// What it holds in any other.
    #[serde(default = "unmarked", deserialize_with = "literal_value")]
    pub otherwise: Value,
}

fn marked() -> Value {
    Value::Bool(true)
}

fn unmarked() -> Value {
    Value::Bool(false)
}

/// Fields of System A's that together say which record it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum MatchKey {
    /// One field.
    One(String),
    /// All of these.
    Several(Vec<String>),
}

impl MatchKey {
    fn fields(&self) -> Vec<String> {
        match self {
            Self::One(field) => vec![field.clone()],
            Self::Several(fields) => fields.clone(),
        }
    }
}

/// One pair of fields.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldSettings {
    /// System A's field; absent for a `constant`.
    #[serde(default)]
    pub local: Option<String>,
    /// The provider's field.
    #[serde(default)]
    pub remote: Option<String>,
    /// In place of `local`: texts that are one remote text.
    #[serde(default)]
    pub locals: Vec<String>,
    /// In place of `remote`: texts that one local text is split into.
    #[serde(default)]
    pub remotes: Vec<String>,
    /// Between the parts of `locals` or `remotes`; a space unless given.
    #[serde(default)]
    pub separator: Option<String>,
    /// CREATE and UPSERT must carry it, UPDATE may not clear it.
    #[serde(default)]
    pub required: bool,
    /// Sent when the record has no such field.
    #[serde(default, deserialize_with = "literal")]
    pub default: Option<Value>,
    /// Always sent.
    #[serde(default, deserialize_with = "literal")]
    pub constant: Option<Value>,
    /// Converters, applied in order on the way out.
    #[serde(default, deserialize_with = "one_or_many")]
    pub convert: Vec<String>,
    /// Local value to remote value, one to one.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Allows converters that cannot be undone on the way back.
    #[serde(default)]
    pub lossy: bool,
    /// The object whose remote id replaces the local one.
    pub reference: Option<String>,
    /// What a `null` does.
    #[serde(default)]
    pub on_null: OnNull,
    /// Which way the field goes; both unless given.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// CEL over `data`: the remote value, in place of a conversion.
    pub cel: Option<String>,
    /// CEL over `remote`: the local value, in place of a conversion.
    pub cel_in: Option<String>,
}

/// What a `null` does to a field on the other side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNull {
    /// It clears it.
    #[default]
    Clear,
    /// System A's is not sent; the provider's clears.
    Omit,
    /// It clears nothing, whichever side it comes from.
    Keep,
}

/// Reads and compiles the schema of an object; `Err` says what is wrong.
///
/// # Errors
/// What to tell the person who wrote it.
pub fn read_schema(path: &Path) -> Result<Schema, String> {
    let name = path.display();
    let length = std::fs::metadata(path)
        .map_err(|error| format!("cannot read {name}: {error}"))?
        .len();
    if length > SCHEMA_BYTES_MAX as u64 {
        return Err(format!(
            "{name} has {length} bytes, a schema at most {SCHEMA_BYTES_MAX}"
        ));
    }
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    Schema::compile(&text).map_err(|error| match error.pointer.as_str() {
        "" => format!("{name}: {error}"),
        pointer => format!("{name} at {pointer}: {error}"),
    })
}

impl TargetKeys {
    pub(super) fn with(self, fields: Vec<FieldSettings>) -> TargetSettings {
        TargetSettings {
            remote: self.remote,
            external_id: self.external_id,
            enabled: self.enabled.unwrap_or(true),
            share: self.share.unwrap_or_default(),
            match_keys: self.match_keys,
            deleted: self.deleted,
            fields,
        }
    }
}

impl TargetSettings {
    /// What a client gives in place of `[objects.NAME.to.ACCOUNT]`.
    ///
    /// # Errors
    /// The member at fault, as a JSON Pointer, and what to tell the client.
    pub fn given(value: &Value) -> Result<TargetSettings, (String, String)> {
        let Value::Object(members) = value else {
            return Err((String::new(), "expected an object".to_owned()));
        };
        let mut keys = members.clone();
        let fields = match keys.remove("fields") {
            None => Vec::new(),
            Some(Value::Array(fields)) => fields,
            Some(_) => return Err(("/fields".to_owned(), "expected a list".to_owned())),
        };
        let fields = fields.iter().enumerate().map(|(at, field)| {
            FieldSettings::deserialize(field)
                .map_err(|error| (format!("/fields/{at}"), error.to_string()))
        });
        let fields = fields.collect::<Result<_, _>>()?;
        let keys = TargetKeys::deserialize(Value::Object(keys))
            .map_err(|error| (String::new(), error.to_string()))?;
        Ok(keys.with(fields))
    }

    /// As the engine takes it; `object` is the default for the remote name.
    pub fn mapping(&self, object: &str) -> MappingSettings {
        MappingSettings {
            remote: self.remote.clone().unwrap_or_else(|| object.to_owned()),
            external_id: self.external_id.clone(),
            fields: self.fields.iter().map(FieldSettings::mapping).collect(),
            match_keys: self.match_keys.iter().map(MatchKey::fields).collect(),
            deleted: self.deleted.as_ref().map(DeletionMarkSettings::mark),
        }
    }
}

impl DeletionMarkSettings {
    fn mark(&self) -> mapping::DeletionMarkSettings {
        mapping::DeletionMarkSettings {
            remote: self.remote.clone(),
            value: self.value.to_string(),
            otherwise: self.otherwise.to_string(),
        }
    }
}

impl FieldSettings {
    fn mapping(&self) -> mapping::FieldSettings {
        let pairs = self.values.iter();
        mapping::FieldSettings {
            local: self.local.clone().unwrap_or_default(),
            remote: self.remote.clone().unwrap_or_default(),
            locals: self.locals.clone(),
            remotes: self.remotes.clone(),
            separator: self.separator.clone(),
            required: self.required,
            default: self.default.as_ref().map(Value::to_string),
            constant: self.constant.as_ref().map(Value::to_string),
            convert: self.convert.clone(),
            values: pairs
                .map(|(local, remote)| (local.clone(), remote.clone()))
                .collect(),
            lossy: self.lossy,
            reference: self.reference.clone(),
            on_null: match self.on_null {
                OnNull::Clear => mapping::OnNull::Clear,
                OnNull::Omit => mapping::OnNull::Omit,
                OnNull::Keep => mapping::OnNull::Keep,
            },
            direction: match self.direction {
                None | Some(Direction::Both) => mapping::Direction::Both,
                Some(Direction::Out) => mapping::Direction::Out,
                Some(Direction::In) => mapping::Direction::In,
            },
            cel: self.cel.clone(),
            cel_in: self.cel_in.clone(),
        }
    }
}

/// A TOML value that JSON has too.
fn literal<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    literal_value(from).map(Some)
}

fn literal_value<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    let value = toml::Value::deserialize(from)?;
    if has_datetime(&value) {
        return Err(serde::de::Error::custom(
            "expected a value that JSON has: put a date in quotes",
        ));
    }
    serde_json::to_value(value).map_err(serde::de::Error::custom)
}

fn has_datetime(value: &toml::Value) -> bool {
    match value {
        toml::Value::Datetime(_) => true,
        toml::Value::Array(items) => items.iter().any(has_datetime),
        toml::Value::Table(members) => members.values().any(has_datetime),
        _ => false,
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct NamesVisitor;
    impl<'de> serde::de::Visitor<'de> for NamesVisitor {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a converter's name, or an array of them")
        }
        fn visit_str<E>(self, name: &str) -> Result<Vec<String>, E> {
            Ok(vec![name.to_owned()])
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut names: A,
        ) -> Result<Vec<String>, A::Error> {
            let mut list = Vec::new();
            while let Some(name) = names.next_element()? {
                list.push(name);
            }
            Ok(list)
        }
    }
    from.deserialize_any(NamesVisitor)
}
