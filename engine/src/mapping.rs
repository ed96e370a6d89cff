//! stub until merged
#![allow(missing_docs)]
use crate::json::RawObject;
#[derive(Debug)]
pub struct Mapping;
pub struct MapFailure { pub pointer: String, pub detail: String }
impl Mapping {
    pub fn remote(&self) -> &str { "" }
    pub fn apply(&self, _data: RawObject<'_>, _full: bool, _out: &mut Vec<u8>) -> Result<(), MapFailure> { Ok(()) }
}
