//! Whether two JSON texts say the same.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{DEPTH_MAX, Kind, RawObject, RawValue};

const SEED_TEXT: u64 = 1;
const SEED_BARE: u64 = 2;
const SEED_ARRAY: u64 = 3;
const SEED_OBJECT: u64 = 4;

/// A hash that is equal for texts that differ only in space, in the order of an object's
/// members, or in how a character is escaped.
///
/// Numbers count as written: `1`, `1.0` and `1e0` differ, because a producer that changes the
/// way it writes a number may have changed the number. The value is kept in logs: never change it.
pub fn canonical_hash(value: RawValue<'_>) -> u64 {
    hash_value(value, 0)
}

fn hash_value(value: RawValue<'_>, depth: usize) -> u64 {
    let text = value.text();
    if depth >= DEPTH_MAX {
        // Unreachable for validated text; keeps the recursion bounded for any other.
        return xxh3_64_with_seed(text.as_bytes(), SEED_BARE);
    }
    match value.kind() {
        Kind::Null | Kind::Bool | Kind::Number => xxh3_64_with_seed(text.as_bytes(), SEED_BARE),
        Kind::Text => {
            let text = value.as_text().unwrap_or_default();
            xxh3_64_with_seed(text.as_bytes(), SEED_TEXT)
        }
        Kind::Array => {
            let items = value.as_array().into_iter().flatten();
            items.fold(SEED_ARRAY, |hash, item| {
                chain(hash, hash_value(item, depth + 1))
            })
        }
        Kind::Object => {
            let members = value.as_object().into_iter().flat_map(RawObject::members);
            let sum = members.fold(0_u64, |sum, member| {
                let name = xxh3_64_with_seed(member.key.name().as_bytes(), SEED_TEXT);
                sum.wrapping_add(chain(name, hash_value(member.value, depth + 1)))
            });
            chain(SEED_OBJECT, sum)
        }
    }
}

/// Mixes `next` into `hash`; the order matters.
fn chain(hash: u64, next: u64) -> u64 {
    xxh3_64_with_seed(&next.to_le_bytes(), hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        canonical_hash(RawValue::new(a)) == canonical_hash(RawValue::new(b))
    }

    #[test]
    fn space_order_and_escapes_do_not_matter() {
        assert!(same(
            r#"{"a":1,"b":[1,2]}"#,
            "{ \"b\" : [1 , 2],\n\"\\u0061\":1 }"
        ));
        assert!(same(r#""A\/""#, r#""\u0041/""#));
        assert!(same("[]", "[ ]"));
    }

    #[test]
    fn everything_else_does() {
        for (a, b) in [
            ("1", "1.0"),
            ("1", "\"1\""),
            ("null", "\"null\""),
            ("[1,2]", "[2,1]"),
            ("[]", "{}"),
            ("[[]]", "[]"),
            (r#"{"a":1}"#, r#"{"a":2}"#),
            (r#"{"a":1,"b":2}"#, r#"{"a":2,"b":1}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"c":1}}"#),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
