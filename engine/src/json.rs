//! JSON from outside: validated once on the simd-json tape, then read as slices of its own bytes.
//!
//! The bytes of an event go to the log and on to a provider as they came, so that a number keeps
//! every digit and an object its order. The tape decides what is valid; all access afterwards is
//! by [`RawObject`] and [`RawValue`], slices of the original text. Validation promises, at every
//! depth: RFC 8259 grammar, UTF-8, no lone surrogate, at most [`DEPTH_MAX`] levels, no object
//! that names a member twice, no integer outside 64 bits and no number beyond an f64's range.

mod canonical;
mod diagnosis;
mod list;
mod merge;
mod pointer;
mod raw;
mod text;
mod write;

use std::str;

use simd_json::{Buffers, INPUT_PADDING, Node, Tape};
use xxhash_rust::xxh3::xxh3_64;

pub use self::canonical::canonical_hash;
pub use self::list::ListItems;
pub use self::merge::{compose_patches, merge_patch};
pub use self::pointer::Pointer;
pub use self::raw::{Items, Kind, Member, Members, RawKey, RawObject, RawValue};
pub use self::write::{ObjectWriter, write_integer, write_string};
use crate::refusal::{Code, Refusal};

/// Levels of arrays and objects that are taken, the outermost included: far over what a CRM
/// record needs, and small enough that readers may recurse.
pub const DEPTH_MAX: usize = 64;

/// Objects up to this many members are checked for duplicates by comparing fingerprints on the
/// stack (at most 496 compares of 4 bytes); wider ones are sorted.
const NARROW_OBJECT_MEMBERS_MAX: usize = 32;

/// Buffers that validation reuses: one per thread, no allocation once they have grown.
pub struct Scratch {
    /// The input again, padded: the parser unescapes strings in place and may read past the end.
    copy: Vec<u8>,
    buffers: Buffers,
    /// Empty between calls; kept for its allocation.
    tape: Tape<'static>,
    wide_keys: Vec<(u64, u32)>,
    spans: Vec<MemberSpan>,
}

/// Where one member of the outermost object lies in the text, quotes of the key excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MemberSpan {
    key_start: u32,
    key_end: u32,
    value_start: u32,
    value_end: u32,
}

/// A valid JSON object and its outermost members, found without reading the text again.
#[derive(Debug, Clone, Copy)]
pub struct ValidObject<'a, 's> {
    text: &'a str,
    spans: &'s [MemberSpan],
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// Empty buffers; they grow to the largest input seen, which the callers' caps bound.
    pub fn new() -> Self {
        Self {
            copy: Vec::new(),
            buffers: Buffers::with_max_depth(0, DEPTH_MAX),
            tape: Tape(Vec::new()),
            wide_keys: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Validates one JSON document of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// A [`Refusal`] that names the place when the document breaks a promise of this module.
    pub fn validate<'a>(
        &mut self,
        bytes: &'a [u8],
        bytes_max: usize,
    ) -> Result<RawValue<'a>, Refusal> {
        let text = self.validate_text(bytes, bytes_max)?;
        Ok(RawValue::new(text))
    }

    /// Validates one JSON object and finds its members.
    ///
    /// # Errors
    /// As [`Self::validate`]; also when the document is not an object.
    pub fn validate_object<'a>(
        &mut self,
        bytes: &'a [u8],
        bytes_max: usize,
    ) -> Result<ValidObject<'a, '_>, Refusal> {
        let text = self.validate_text(bytes, bytes_max)?;
        if RawValue::new(text).kind() != Kind::Object {
            return Err(Refusal::at(Code::Malformed, "", "not a JSON object"));
        }
        Ok(ValidObject {
            text,
            spans: &self.spans,
        })
    }

    fn validate_text<'a>(&mut self, bytes: &'a [u8], bytes_max: usize) -> Result<&'a str, Refusal> {
        if bytes.len() > bytes_max {
            let detail = format!("{} bytes, at most {bytes_max} are taken", bytes.len());
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        let text = str::from_utf8(bytes).map_err(|error| {
            let detail = format!("not UTF-8 at byte {}", error.valid_up_to());
            Refusal::new(Code::NotUtf8, detail)
        })?;
        if self.tape_accepts(text) {
            return Ok(text);
        }
        Err(diagnosis::diagnose(text).unwrap_or_else(|| {
            // The tape is the judge: what it refuses stays refused when no place is found.
            Refusal::new(Code::Malformed, "not valid JSON")
        }))
    }

    /// Parses, checks for duplicate keys and leaves the outermost members in `spans`.
    fn tape_accepts(&mut self, text: &str) -> bool {
        self.copy.clear();
        self.copy.extend_from_slice(text.as_bytes());
        self.copy.resize(text.len() + INPUT_PADDING, b' ');
        self.spans.clear();
        let base = self.copy.as_ptr().addr();
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let accepted =
            simd_json::fill_tape_padded(&mut self.copy, text.len(), &mut self.buffers, &mut tape)
                .is_ok()
                && !has_duplicate_key(&tape.0, &mut self.wide_keys)
                && find_members(text, base, &tape.0, &mut self.spans);
        self.tape = tape.reset();
        accepted
    }
}

impl<'a, 's> ValidObject<'a, 's> {
    /// The whole object.
    pub fn object(self) -> RawObject<'a> {
        RawObject::new(self.text).expect("validation found an object")
    }

    /// Its members, in order.
    pub fn members(self) -> impl Iterator<Item = Member<'a>> + use<'a, 's> {
        let text = self.text;
        self.spans.iter().map(move |span| Member {
            key: RawKey::new(&text[span.key_start as usize..span.key_end as usize]),
            value: RawValue::new(&text[span.value_start as usize..span.value_end as usize]),
        })
    }
}

/// Whether any object on the tape names a member twice, compared unescaped.
fn has_duplicate_key(nodes: &[Node<'_>], wide_keys: &mut Vec<(u64, u32)>) -> bool {
    nodes.iter().enumerate().any(|(at, node)| match *node {
        Node::Object { len, .. } if len > NARROW_OBJECT_MEMBERS_MAX => {
            wide_object_has_duplicate(nodes, at, len, wide_keys)
        }
        Node::Object { len, .. } if len > 1 => {
            may_repeat_a_key(nodes, at, len) && wide_object_has_duplicate(nodes, at, len, wide_keys)
        }
        _ => false,
    })
}

fn may_repeat_a_key(nodes: &[Node<'_>], object: usize, len: usize) -> bool {
    let mut seen = [0_u32; NARROW_OBJECT_MEMBERS_MAX];
    for (count, (_, key)) in keys(nodes, object, len).enumerate() {
        let print = fingerprint(key.as_bytes());
        if seen[..count].contains(&print) {
            return true;
        }
        seen[count] = print;
    }
    false
}

/// Sorting bounds the work for keys crafted to collide: equal hashes fall back to the text.
fn wide_object_has_duplicate(
    nodes: &[Node<'_>],
    object: usize,
    len: usize,
    wide_keys: &mut Vec<(u64, u32)>,
) -> bool {
    let key_at = |at: u32| match nodes[at as usize] {
        Node::String(key) => key,
        _ => "",
    };
    wide_keys.clear();
    wide_keys
        .extend(keys(nodes, object, len).map(|(at, key)| (xxh3_64(key.as_bytes()), as_u32(at))));
    wide_keys.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key_at(a.1).cmp(key_at(b.1))));
    wide_keys
        .windows(2)
        .any(|pair| pair[0].0 == pair[1].0 && key_at(pair[0].1) == key_at(pair[1].1))
}

/// Node index and text of each key of the object at `object`.
fn keys<'t>(
    nodes: &'t [Node<'t>],
    object: usize,
    len: usize,
) -> impl Iterator<Item = (usize, &'t str)> {
    let mut at = object + 1;
    (0..len).map_while(move |_| {
        let Some(Node::String(key)) = nodes.get(at) else {
            return None;
        };
        let key_at = at;
        at += 1 + nodes.get(at + 1).map_or(0, nodes_of);
        Some((key_at, *key))
    })
}

/// Nodes of one value, itself included.
fn nodes_of(node: &Node<'_>) -> usize {
    match *node {
        Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
        _ => 1,
    }
}

/// Differs for most different keys; equal for equal ones. A clash only costs an exact check.
fn fingerprint(key: &[u8]) -> u32 {
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio
    let word = |bytes: &[u8]| {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(padded)
    };
    let (first, last) = match key.len() {
        0..=8 => (word(key), 0),
        long => (word(&key[..8]), word(&key[long - 8..])),
    };
    let mixed = (first ^ last.rotate_left(23) ^ ((key.len() as u64) << 56)).wrapping_mul(SPREAD);
    (mixed >> 32) as u32
}

/// Finds the members of the outermost object by the addresses of its keys on the tape.
///
/// The tape keeps every string at the offset where its text began, so a key's address is its
/// place; a value is what lies between the colon and the comma before the next key. No byte of
/// the values is read.
fn find_members(text: &str, base: usize, nodes: &[Node<'_>], spans: &mut Vec<MemberSpan>) -> bool {
    let Some(&Node::Object { len, .. }) = nodes.first() else {
        return true;
    };
    let bytes = text.as_bytes();
    for (_, key) in keys(nodes, 0, len) {
        let key_start = key.as_ptr().addr() - base;
        if let Some(before) = spans.last_mut() {
            before.value_end = as_u32(end_before(bytes, key_start - 1, b','));
        }
        let key_end = raw::string_end(bytes, key_start) - 1;
        let colon = raw::skip_space(bytes, key_end + 1);
        spans.push(MemberSpan {
            key_start: as_u32(key_start),
            key_end: as_u32(key_end),
            value_start: as_u32(raw::skip_space(bytes, colon + 1)),
            value_end: 0,
        });
    }
    if let Some(last) = spans.last_mut() {
        last.value_end = as_u32(end_before(bytes, bytes.len(), b'}'));
    }
    let well_formed = |span: &MemberSpan| {
        text.is_char_boundary(span.value_start as usize) && span.value_start < span.value_end
    };
    spans.len() == len && spans.iter().all(well_formed)
}

/// End of the value before `delimiter`, which is the last byte before `at` but for space.
fn end_before(bytes: &[u8], at: usize, delimiter: u8) -> usize {
    let trimmed = bytes[..at].trim_ascii_end();
    let value = trimmed.strip_suffix(&[delimiter]).unwrap_or(trimmed);
    value.trim_ascii_end().len()
}

fn as_u32(at: usize) -> u32 {
    u32::try_from(at).expect("the parser refuses inputs of 4 GiB")
}
