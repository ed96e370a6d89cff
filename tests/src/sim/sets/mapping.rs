//! Mappings as the simulator generates and reads them.

use std::collections::{BTreeMap, BTreeSet};

use engine::mapping::{DeletionMarkSettings, Direction, FieldSettings, MappingSettings, OnNull};
use serde_json::{Map, Value};

use super::ByAccount;
use crate::sim::two_way::leaves::leaves;

/// The mappings of all accounts.
#[derive(Debug, Clone, Default)]
pub struct MappingSet {
    /// By account.
    pub accounts: ByAccount<AccountMappings>,
    /// What makes it a bad one, which must be refused as a whole.
    pub flaw: Option<MappingFlaw>,
}

/// Why a mapping is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingFlaw {
    /// Two fields go to one place.
    Collision,
    /// A converter that loses something does not say so.
    LossUnsaid,
    /// Two values are written as one.
    TableRepeats,
    /// A converter that there is not.
    UnknownConverter,
}

/// The mappings of one account.
#[derive(Debug, Clone)]
pub struct AccountMappings {
    /// The part of its records.
    pub share: f64,
    /// By System A's object; one without a mapping goes as it is.
    pub objects: BTreeMap<&'static str, ObjectMapping>,
}

/// The mapping of one object.
#[derive(Debug, Clone)]
pub struct ObjectMapping {
    /// The account's name of the object.
    pub remote: String,
    /// False: records are skipped.
    pub enabled: bool,
    /// The part of the records.
    pub share: f64,
    /// The fields.
    pub fields: Vec<FieldMapping>,
    /// Place and value.
    pub constants: Vec<(Vec<String>, Value)>,
    /// Records are marked as deleted, by the member `DELETION_MARK`, in place of being removed.
    pub marks_deletes: bool,
}

/// The account's member that is true in a record that is marked as deleted.
pub(in crate::sim) const DELETION_MARK: &str = "Removed";

/// One field.
#[derive(Debug, Clone)]
pub struct FieldMapping {
    /// The path in System A's record.
    pub local: &'static [&'static str],
    /// The path in the account's.
    pub remote: Vec<String>,
    /// What stands between the values.
    pub convert: Conversion,
    /// What a null does.
    pub on_null: OnNull,
    /// Whether it must be there.
    pub required: bool,
    /// Which way it goes.
    pub direction: Direction,
    /// For a CREATE that leaves it out, as System A would send it.
    pub default: Option<Value>,
}

/// What stands between two values of a field; all of it but capitals can be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conversion {
    /// Nothing.
    Plain,
    /// Number to its digits as text.
    Text,
    /// Digits as text to the number.
    Number,
    /// Truth value to a word.
    YesNo,
    /// Truth value to a digit.
    OneZero,
    /// List of texts to one text.
    Join,
    /// Text in capitals: what it was is lost.
    Capitals,
    /// Text to another text.
    Table(Vec<(&'static str, &'static str)>),
}

/// What is written: a new record, one that may be there, or changes of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Written {
    New,
    Whole,
    Changes,
}

impl MappingSet {
    pub(in crate::sim) fn object(&self, account: &str, object: &str) -> Option<&ObjectMapping> {
        self.accounts.get(account)?.objects.get(object)
    }

    /// System A's fields for an account's.
    pub(in crate::sim) fn led_back(
        &self,
        account: &str,
        object: &str,
        remote: Map<String, Value>,
    ) -> Map<String, Value> {
        match self.object(account, object) {
            Some(mapping) => mapping.unmap(&remote),
            None => remote,
        }
    }

    /// Whether a record of an object takes part at an account.
    pub(in crate::sim) fn admits(&self, account: &str, object: &str, record_id: &str) -> bool {
        let Some(mappings) = self.accounts.get(account) else {
            return true;
        };
        let object = mappings.objects.get(object);
        super::takes_part(mappings.share, record_id)
            && object.is_none_or(|mapping| {
                mapping.enabled && super::takes_part(mapping.share, record_id)
            })
    }
}

impl ObjectMapping {
    /// The account's fields for System A's; `None`: they cannot be mapped.
    pub(in crate::sim) fn map(
        &self,
        written: Written,
        data: &Map<String, Value>,
    ) -> Option<Map<String, Value>> {
        if !self.has_required(written, data) {
            return None;
        }
        let mut mapped = Map::new();
        let out = self.fields.iter();
        for field in out.filter(|field| field.direction != Direction::In) {
            match at(data, field.local)? {
                None => {
                    let default = field.default.as_ref().filter(|_| written == Written::New);
                    if let Some(value) = default {
                        put(&mut mapped, &field.remote, field.convert.out(value)?);
                    }
                }
                Some(Value::Null) if field.on_null != OnNull::Clear => {}
                Some(value) => put(&mut mapped, &field.remote, field.convert.out(value)?),
            }
        }
        for (place, value) in &self.constants {
            if written != Written::Changes {
                put(&mut mapped, place, value.clone());
            }
        }
        Some(mapped)
    }

    /// System A's fields for the account's. What no field leads back is kept under a name that no
    /// record has.
    pub(in crate::sim) fn unmap(&self, remote: &Map<String, Value>) -> Map<String, Value> {
        let mut local = Map::new();
        let mut known: BTreeSet<String> = BTreeSet::new();
        for field in &self.fields {
            known.insert(format!("/{}", field.remote.join("/")));
            let value = at(remote, &field.remote).flatten();
            if let Some(value) = value.and_then(|value| field.convert.back(value)) {
                put(&mut local, field.local, value);
            }
        }
        if self.marks_deletes {
            known.insert(format!("/{DELETION_MARK}"));
        }
        let constants = self.constants.iter();
        known.extend(constants.map(|(place, _)| format!("/{}", place.join("/"))));
        for (place, value) in leaves(remote) {
            let mut known = known.iter();
            if !known.any(|known| place == *known || place.starts_with(&format!("{known}/"))) {
                local.insert(format!("not mapped: {place}"), value);
            }
        }
        local
    }

    /// Whether a record of the account is marked as deleted.
    pub(in crate::sim) fn is_marked(&self, remote: &Map<String, Value>) -> bool {
        self.marks_deletes && remote.get(DELETION_MARK) == Some(&Value::Bool(true))
    }

    /// Leaves out what people of the account have nothing to say of: what only goes out.
    pub(in crate::sim) fn without_outgoing(&self, fields: &mut Map<String, Value>) {
        let fields_out = self.fields.iter();
        for field in fields_out.filter(|field| field.direction == Direction::Out) {
            take(fields, field.local);
        }
    }

    /// Whether what is required is there, or at least not cleared.
    pub(in crate::sim) fn has_required(&self, written: Written, data: &Map<String, Value>) -> bool {
        let mut required = self.fields.iter().filter(|field| field.required);
        required.all(|field| match at(data, field.local).flatten() {
            Some(Value::Null) => false,
            Some(_) => true,
            None => match written {
                Written::New => field.default.is_some(),
                Written::Whole => false,
                Written::Changes => true,
            },
        })
    }

    /// As the engine's settings have it.
    pub(in crate::sim) fn settings(&self, flaw: Option<MappingFlaw>) -> MappingSettings {
        let constant = |(place, value): &(Vec<String>, Value)| FieldSettings {
            remote: place.join("."),
            constant: Some(value.to_string()),
            ..FieldSettings::default()
        };
        let fields = self.fields.iter().map(FieldMapping::settings);
        let mut fields: Vec<_> = fields.chain(self.constants.iter().map(constant)).collect();
        let mut sent = self.fields.iter();
        let sent = sent.find(|field| field.direction != Direction::In);
        fields.extend(flaw.map(|flaw| flaw.field(sent)));
        MappingSettings {
            remote: self.remote.clone(),
            fields,
            deleted: self.marks_deletes.then(|| DeletionMarkSettings {
                remote: DELETION_MARK.to_owned(),
                value: "true".to_owned(),
                otherwise: "false".to_owned(),
            }),
            ..MappingSettings::default()
        }
    }
}

impl FieldMapping {
    fn settings(&self) -> FieldSettings {
        let convert = match &self.convert {
            Conversion::Plain | Conversion::Table(_) => None,
            Conversion::Text => Some("text"),
            Conversion::Number => Some("number"),
            Conversion::YesNo => Some("yes_no"),
            Conversion::OneZero => Some("one_zero"),
            Conversion::Join => Some("join:;"),
            Conversion::Capitals => Some("uppercase"),
        };
        let values = match &self.convert {
            Conversion::Table(pairs) => pairs.as_slice(),
            _ => &[],
        };
        let pair = |&(local, remote): &(&str, &str)| (local.to_owned(), remote.to_owned());
        FieldSettings {
            local: self.local.join("."),
            remote: self.remote.join("."),
            convert: convert.into_iter().map(str::to_owned).collect(),
            values: values.iter().map(pair).collect(),
            required: self.required,
            on_null: self.on_null,
            direction: self.direction,
            default: self.default.as_ref().map(Value::to_string),
            lossy: self.convert == Conversion::Capitals,
            ..FieldSettings::default()
        }
    }
}

impl MappingFlaw {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Collision,
        Self::LossUnsaid,
        Self::TableRepeats,
        Self::UnknownConverter,
    ];

    /// A field that must not be.
    fn field(self, beside: Option<&FieldMapping>) -> FieldSettings {
        let mut field = FieldSettings {
            local: "extra".to_owned(),
            remote: "Extra".to_owned(),
            ..FieldSettings::default()
        };
        let text = |text: &str| text.to_owned();
        match self {
            Self::Collision if beside.is_some() => {
                field.remote = beside.map_or(String::new(), |beside| beside.remote.join("."));
                field.direction = Direction::Out;
            }
            Self::LossUnsaid | Self::Collision => field.convert = vec![text("lowercase")],
            Self::TableRepeats => {
                field.values = vec![(text("a"), text("x")), (text("b"), text("x"))];
            }
            Self::UnknownConverter => field.convert = vec![text("rot13")],
        }
        field
    }
}

impl Conversion {
    fn out(&self, value: &Value) -> Option<Value> {
        if value.is_null() {
            return Some(Value::Null);
        }
        Some(match self {
            Self::Plain => value.clone(),
            Self::Text if value.is_number() => value.to_string().into(),
            Self::Number => {
                let number: Value = serde_json::from_str(value.as_str()?).ok()?;
                number.is_number().then_some(number)?
            }
            Self::YesNo => if value.as_bool()? { "yes" } else { "no" }.into(),
            Self::OneZero => i32::from(value.as_bool()?).into(),
            Self::Join => {
                let items = value.as_array()?.iter().map(Value::as_str);
                let items: Vec<&str> = items.collect::<Option<_>>()?;
                let joins = items.iter().all(|item| !item.contains(';'));
                joins.then(|| items.join(";"))?.into()
            }
            Self::Capitals => value.as_str()?.to_uppercase().into(),
            Self::Table(pairs) => {
                let text = value.as_str()?;
                let pair = pairs.iter().find(|(local, _)| *local == text);
                pair?.1.into()
            }
            Self::Text => return None,
        })
    }
}

impl Conversion {
    fn back(&self, value: &Value) -> Option<Value> {
        if value.is_null() {
            return Some(Value::Null);
        }
        Some(match self {
            Self::Plain => value.clone(),
            Self::Text => return Self::Number.out(value),
            Self::Number => return Self::Text.out(value),
            Self::YesNo => match value.as_str()? {
                "yes" => true.into(),
                "no" => false.into(),
                _ => return None,
            },
            Self::OneZero => match value.as_u64()? {
                1 => true.into(),
                0 => false.into(),
                _ => return None,
            },
            Self::Join => value.as_str()?.split(';').collect::<Vec<_>>().into(),
            Self::Capitals => value.as_str()?.into(),
            Self::Table(pairs) => {
                let text = value.as_str()?;
                let pair = pairs.iter().find(|(_, remote)| *remote == text);
                pair?.0.into()
            }
        })
    }
}

/// The value at a path; the outer `None`: what lies on the way is no object.
pub(in crate::sim) fn at<'d>(
    data: &'d Map<String, Value>,
    path: &[impl AsRef<str>],
) -> Option<Option<&'d Value>> {
    let (first, rest) = path.split_first()?;
    let Some(mut value) = data.get(first.as_ref()) else {
        return Some(None);
    };
    for name in rest {
        match value {
            Value::Null => return Some(Some(value)),
            Value::Object(inner) => match inner.get(name.as_ref()) {
                Some(next) => value = next,
                None => return Some(None),
            },
            _ => return None,
        }
    }
    Some(Some(value))
}

fn take(fields: &mut Map<String, Value>, path: &[&str]) {
    match path {
        [] => {}
        [last] => {
            fields.remove(*last);
        }
        [first, rest @ ..] => {
            if let Some(Value::Object(inner)) = fields.get_mut(*first) {
                take(inner, rest);
                if inner.is_empty() {
                    fields.remove(*first);
                }
            }
        }
    }
}

fn put(out: &mut Map<String, Value>, path: &[impl AsRef<str>], value: Value) {
    match path {
        [] => {}
        [last] => {
            out.insert(last.as_ref().to_owned(), value);
        }
        [first, rest @ ..] => {
            let inner = out
                .entry(first.as_ref().to_owned())
                .or_insert_with(|| Map::new().into());
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mapping(fields: Vec<FieldMapping>) -> ObjectMapping {
        ObjectMapping {
            remote: "Person".to_owned(),
            enabled: true,
            share: 1.0,
            fields,
            constants: vec![(vec!["Source".to_owned()], json!("a"))],
            marks_deletes: false,
        }
    }

    fn field(local: &'static [&'static str], remote: &str, convert: Conversion) -> FieldMapping {
        FieldMapping {
            local,
            remote: remote.split('.').map(str::to_owned).collect(),
            convert,
            on_null: OnNull::Omit,
            required: false,
            direction: Direction::Both,
            default: None,
        }
    }

    fn map(mapping: &ObjectMapping, written: Written, data: Value) -> Option<Value> {
        let Value::Object(data) = data else {
            panic!("{data} is no object")
        };
        mapping.map(written, &data).map(Value::Object)
    }

    #[test]
    fn a_record_is_written_as_its_mapping_says() {
        let person = mapping(vec![
            field(&["name"], "Name.Full", Conversion::Text),
            field(&["address", "zip"], "Zip", Conversion::Plain),
        ]);
        let whole = json!({"name": 5, "address": {"zip": 1, "street": 2}, "other": 1});
        let mapped = map(&person, Written::Whole, whole.clone());
        assert_eq!(
            mapped,
            Some(json!({"Name": {"Full": "5"}, "Zip": 1, "Source": "a"}))
        );
        let changes = map(&person, Written::Changes, json!({"address": null}));
        assert_eq!(changes, Some(json!({})), "nulls are left out");
        assert_eq!(map(&person, Written::Changes, json!({"name": "x"})), None);
        assert_eq!(map(&person, Written::Changes, json!({"address": 3})), None);
        let zip = FieldMapping {
            default: Some(json!(12)),
            ..field(&["address", "zip"], "Zip", Conversion::Text)
        };
        let loud = mapping(vec![field(&["name"], "Name", Conversion::Capitals), zip]);
        for (written, zip) in [(Written::New, Some("12")), (Written::Whole, None)] {
            let mut expected = json!({"Name": "ADA", "Source": "a"});
            if let Some(zip) = zip {
                expected["Zip"] = zip.into();
            }
            let mapped = map(&loud, written, json!({"name": "Ada"}));
            assert_eq!(mapped, Some(expected), "{written:?}");
        }
        let remote = json!({"Name": {"Full": "5"}, "Zip": 1, "Source": "a", "x": 1});
        let local = person.unmap(remote.as_object().expect("an object"));
        let expected = json!({"name": 5, "address": {"zip": 1}, "not mapped: /x": 1});
        assert_eq!(Value::Object(local), expected);
    }
}
