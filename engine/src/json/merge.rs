//! Laying one object over another, as RFC 7396 does, on the text itself.

use std::borrow::Cow;
use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::{DEPTH_MAX, Member, ObjectWriter, RawObject, RawValue};

/// Objects up to this many members are looked up by scanning a list of them.
const SCAN_MEMBERS_MAX: usize = 16;

/// Appends `target` changed by `patch` (RFC 7396): `null` removes a member, objects merge,
/// anything else replaces. Values are copied as written; the target's order is kept and new
/// members follow in the patch's order.
pub fn merge_patch(target: RawObject<'_>, patch: RawObject<'_>, out: &mut Vec<u8>) {
    merge(target, patch, Nulls::Remove, 0, out);
}

/// Appends one patch that does what `first` and then `second` would do: as [`merge_patch`], but
/// a `null` stays, because the record that it clears is not in sight.
///
/// RFC 7396 has no words for "drop the object, then set these members of it": where `first`
/// replaces a member by something other than an object and `second` merges an object into it,
/// the composed patch carries the object, and members of an older object survive beside it.
pub fn compose_patches(first: RawObject<'_>, second: RawObject<'_>, out: &mut Vec<u8>) {
    merge(first, second, Nulls::Keep, 0, out);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nulls {
    Remove,
    Keep,
}

fn merge(
    target: RawObject<'_>,
    patch: RawObject<'_>,
    nulls: Nulls,
    depth: usize,
    out: &mut Vec<u8>,
) {
    if depth >= DEPTH_MAX {
        // Unreachable for validated text; keeps the recursion bounded for any other.
        out.extend_from_slice(patch.text().as_bytes());
        return;
    }
    let in_patch = Lookup::new(patch);
    let in_target = Lookup::new(target);
    let mut object = ObjectWriter::open(out);
    for member in target.members() {
        let Some(change) = in_patch.get(&member.key.name()) else {
            let value = member.value.text().as_bytes();
            object
                .member_escaped(member.key.escaped())
                .extend_from_slice(value);
            continue;
        };
        if change.is_null() && nulls == Nulls::Remove {
            continue;
        }
        let place = object.member_escaped(member.key.escaped());
        merge_value(Some(member.value), change, nulls, depth, place);
    }
    for member in patch.members() {
        let removes = member.value.is_null() && nulls == Nulls::Remove;
        if removes || in_target.get(&member.key.name()).is_some() {
            continue;
        }
        let place = object.member_escaped(member.key.escaped());
        merge_value(None, member.value, nulls, depth, place);
    }
    object.close();
}

fn merge_value(
    target: Option<RawValue<'_>>,
    patch: RawValue<'_>,
    nulls: Nulls,
    depth: usize,
    out: &mut Vec<u8>,
) {
    let Some(patch_object) = patch.as_object() else {
        out.extend_from_slice(patch.text().as_bytes());
        return;
    };
    let target = target.and_then(RawValue::as_object);
    merge(
        target.unwrap_or(RawObject::EMPTY),
        patch_object,
        nulls,
        depth + 1,
        out,
    );
}

/// Finds members by name; each object's text is read once, however often it is asked.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one merge"
)]
enum Lookup<'a> {
    Scan(SmallVec<[Member<'a>; SCAN_MEMBERS_MAX]>),
    Tree(BTreeMap<Cow<'a, str>, RawValue<'a>>),
}

impl<'a> Lookup<'a> {
    fn new(object: RawObject<'a>) -> Self {
        let mut members = object.members();
        let first: SmallVec<_> = members.by_ref().take(SCAN_MEMBERS_MAX).collect();
        let Some(next) = members.next() else {
            return Self::Scan(first);
        };
        let all = first.into_iter().chain([next]).chain(members);
        Self::Tree(all.map(|m| (m.key.name(), m.value)).collect())
    }

    fn get(&self, name: &str) -> Option<RawValue<'a>> {
        match self {
            Self::Scan(members) => members.iter().find(|m| m.key.is(name)).map(|m| m.value),
            Self::Tree(members) => members.get(name).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Merge = fn(RawObject<'_>, RawObject<'_>, &mut Vec<u8>);

    fn check(merge: Merge, target: &str, patch: &str, expected: &str) {
        let mut out = Vec::new();
        let (target, patch) = (
            RawObject::new(target).unwrap(),
            RawObject::new(patch).unwrap(),
        );
        merge(target, patch, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expected,
            "{target:?} {patch:?}"
        );
    }

    #[test]
    fn the_examples_of_rfc_7396_hold() {
        for (target, patch, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            check(merge_patch, target, patch, expected);
        }
    }

    #[test]
    fn values_keep_their_digits_and_members_their_order() {
        check(
            merge_patch,
            r#"{ "z" : 1.50, "a": 12345678901234567890.12 }"#,
            r#"{"n":1e2,"z":0.10}"#,
            r#"{"z":0.10,"a":12345678901234567890.12,"n":1e2}"#,
        );
    }

    #[test]
    fn a_name_matches_however_it_is_escaped() {
        check(
            merge_patch,
            r#"{"\u0061":1}"#,
            r#"{"a":2}"#,
            r#"{"\u0061":2}"#,
        );
    }

    #[test]
    fn composing_keeps_what_clears() {
        check(
            compose_patches,
            r#"{"a":1,"b":{"c":1,"d":2}}"#,
            r#"{"a":null,"b":{"c":null},"e":null}"#,
            r#"{"a":null,"b":{"c":null,"d":2},"e":null}"#,
        );
    }

    #[test]
    fn a_wide_object_merges_as_a_narrow_one() {
        let wide = |value: u32| {
            let members: Vec<_> = (0..100).map(|n| format!(r#""k{n}":{value}"#)).collect();
            format!("{{{}}}", members.join(","))
        };
        check(merge_patch, &wide(1), &wide(2), &wide(2));
    }
}
