//! JSON as CEL sees it, and CEL's values as JSON.

use std::collections::HashMap;

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Sizer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt, MAP_TYPE,
    Type,
};
use cel::common::value::{CowVal, Val};

use super::NoAnswer;
use crate::json::{Kind, RawObject, RawValue, write_string};

/// Values that one field of a record may hold for an expression to look at it.
pub const ITEMS_MAX: usize = 1_000;

/// Bytes of a text that an expression may look at.
pub const TEXT_BYTES_MAX: usize = 32 << 10;

/// A JSON object that is read member by member, where it lies; only what an expression names is
/// built.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'a>(pub(super) RawObject<'a>);

type Built<'v> = Result<Box<dyn Val + 'v>, ExecutionError>;

impl Val for Document<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Container for Document<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        let key = key.downcast_ref::<CelString>();
        Ok(key.is_some_and(|key| self.0.get(key.inner()).is_some()))
    }
}

impl Indexer for Document<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.member(key).map(CowVal::Owned)
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Built<'v>
    where
        Self: 'v,
    {
        self.member(key)
    }
}

impl Sizer for Document<'_> {
    fn size(&self) -> CelInt {
        let members = i64::try_from(self.0.members().count()).unwrap_or(i64::MAX);
        CelInt::from(members)
    }
}

impl<'a> Document<'a> {
    fn member(&self, key: &dyn Val) -> Built<'a> {
        let key = key
            .downcast_ref::<CelString>()
            .map_or("", |key| key.inner());
        match self.0.get(key) {
            Some(value) => build(value, &mut { ITEMS_MAX }),
            None => Err(ExecutionError::no_such_key(key)),
        }
    }
}

/// Builds a value of at most `left` parts.
fn build<'v>(value: RawValue<'v>, left: &mut usize) -> Built<'v> {
    *left = left.checked_sub(1).ok_or_else(too_much)?;
    Ok(match value.kind() {
        Kind::Null => Box::new(CelNull),
        Kind::Bool => Box::new(CelBool::from(value.text() == "true")),
        Kind::Number => number(value.text())?,
        Kind::Text => {
            if value.text().len() > TEXT_BYTES_MAX + 2 {
                return Err(too_much());
            }
            Box::new(CelString::from(value.as_text().unwrap_or_default()))
        }
        Kind::Array => {
            let items = value.as_array().into_iter().flatten();
            let built: Result<Vec<_>, _> = items.map(|item| build(item, left)).collect();
            Box::new(CelList::from(built?))
        }
        Kind::Object => {
            let members = value.as_object().unwrap_or(RawObject::EMPTY).members();
            let mut map = HashMap::new();
            for member in members {
                let name = CelString::from(member.key.name());
                map.insert(CelMapKey::String(name), build(member.value, left)?);
            }
            Box::new(CelMap::from(map))
        }
    })
}

fn number<'v>(digits: &str) -> Built<'v> {
    if let Ok(integer) = digits.parse::<i64>() {
        return Ok(Box::new(CelInt::from(integer)));
    }
    if let Ok(integer) = digits.parse::<u64>() {
        return Ok(Box::new(CelUInt::from(integer)));
    }
    let double = digits.parse::<f64>().map_err(|_| too_much())?;
    Ok(Box::new(CelDouble::from(double)))
}

fn too_much() -> ExecutionError {
    ExecutionError::InternalError(String::from("more than an expression may look at"))
}

/// Appends a value as JSON; members of objects in the order of their names.
pub(super) fn write_json(value: &dyn Val, out: &mut Vec<u8>) -> Result<(), NoAnswer> {
    if let Some(text) = value.downcast_ref::<CelString>() {
        write_string(out, text.inner());
    } else if let Some(truth) = value.downcast_ref::<CelBool>() {
        out.extend_from_slice(if *truth.inner() { b"true" } else { b"false" });
    } else if let Some(integer) = value.downcast_ref::<CelInt>() {
        out.extend_from_slice(integer.inner().to_string().as_bytes());
    } else if let Some(integer) = value.downcast_ref::<CelUInt>() {
        out.extend_from_slice(integer.inner().to_string().as_bytes());
    } else if let Some(double) = value.downcast_ref::<CelDouble>() {
        let number = serde_json::Number::from_f64(*double.inner()).ok_or(NoAnswer)?;
        out.extend_from_slice(number.to_string().as_bytes());
    } else if value.downcast_ref::<CelNull>().is_some() {
        out.extend_from_slice(b"null");
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        write_list(list, out)?;
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        write_map(map, out)?;
    } else {
        return Err(NoAnswer);
    }
    Ok(())
}

fn write_list(list: &CelList<'_>, out: &mut Vec<u8>) -> Result<(), NoAnswer> {
    out.push(b'[');
    for (at, item) in list.inner().iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_json(item.as_ref(), out)?;
    }
    out.push(b']');
    Ok(())
}

fn write_map(map: &CelMap<'_>, out: &mut Vec<u8>) -> Result<(), NoAnswer> {
    let mut members = Vec::with_capacity(map.inner().len());
    for (key, value) in map.inner() {
        let CelMapKey::String(name) = key else {
            return Err(NoAnswer);
        };
        members.push((name.inner(), value));
    }
    members.sort_unstable_by_key(|(name, _)| *name);
    let mut object = crate::json::ObjectWriter::open(out);
    for (name, value) in members {
        write_json(value.as_ref(), object.member(name))?;
    }
    object.close();
    Ok(())
}
