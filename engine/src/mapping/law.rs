//! The law of a mapping: what goes out and is not declared lossy comes back as it went.
//!
//! It is checked when the mapping loads, with values made for the purpose: those that tend to
//! lose something on the way, and of a value table all.

use super::convert::Conversion;
use crate::json::{RawValue, write_string};

/// Texts with an edge: space, case, digits, separators, markup, days and instants, lengths.
const TEXTS: [&str; 24] = [
    "",
    " ",
    "a",
    "Ada Lovelace",
    " padded ",
    "ÄÖÜ ß ǅ é",
    "0",
    "007",
    "10.50",
    "-0",
    "1e5",
    "12345678901234567890.123456789",
    "true",
    "no",
    "a;b,c|d",
    "<b>bold</b> &amp; more",
    "ada@Example.com",
    "+49 (30) 123-4567",
    "2026-11-20",
    "2024-02-29",
    "2026-11-20T10:00:00Z",
    "2026-11-20T10:00:00.123456+02:00",
    "line one\nline two\t\u{1}",
    "🦀 \u{202e}\u{fffd}",
];

const NUMBERS: [&str; 9] = [
    "0",
    "-0",
    "1",
    "-1",
    "1.50",
    "0.1",
    "1e5",
    "9007199254740993",
    "123456789012345678901234567890.5",
];

const LISTS: [&str; 5] = [
    "[]",
    r#"["a"]"#,
    r#"["a","b"]"#,
    r#"["a;b","c,d"]"#,
    r#"["", " "]"#,
];

/// A value that does not come back as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    /// As System A has it.
    pub(super) local: String,
    /// As it comes back; `None`: not at all.
    pub(super) back: Option<String>,
}

/// Sends values there and back. A value that the conversion refuses breaks nothing.
pub(super) fn check(conversion: &Conversion) -> Result<(), Broken> {
    if conversion.is_empty() {
        return Ok(());
    }
    let long = "x".repeat(300);
    let texts = TEXTS.into_iter().chain([long.as_str()]);
    let texts = texts.chain(conversion.values.locals()).map(quoted);
    let others = NUMBERS.into_iter().chain(LISTS).chain(["true", "false"]);
    for local in texts.chain(others.map(str::to_owned)) {
        let Ok(remote) = conversion.apply(RawValue::new(&local)) else {
            continue;
        };
        let remote = String::from_utf8_lossy(&remote);
        let back = conversion.undo(RawValue::new(&remote));
        let back = back.map(|json| String::from_utf8_lossy(&json).into_owned());
        if back.as_deref().is_ok_and(|back| same(back, &local)) {
            continue;
        }
        return Err(Broken {
            local,
            back: back.ok(),
        });
    }
    Ok(())
}

/// Lists may differ in the space between their items.
fn same(one: &str, other: &str) -> bool {
    let items = |json| {
        let items = RawValue::new(json).as_array();
        items.map(|items| items.map(RawValue::text).collect::<Vec<_>>())
    };
    one == other || (items(one).is_some() && items(one) == items(other))
}

fn quoted(text: &str) -> String {
    let mut json = Vec::with_capacity(text.len() + 2);
    write_string(&mut json, text);
    String::from_utf8(json).expect("a text is written as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::super::convert::Converter;
    use super::*;

    fn check_names(names: &[&str]) -> Result<(), Broken> {
        let steps = names
            .iter()
            .map(|name| Converter::named(name).expect("a known name"));
        check(&Conversion {
            steps: steps.collect(),
            ..Conversion::default()
        })
    }

    #[test]
    fn converters_that_claim_to_lose_nothing_lose_nothing() {
        for names in [
            &["number"][..],
            &["text"],
            &["text", "number"],
            &["yes_no"],
            &["one_zero"],
            &["one_zero", "text"],
            &["datetime"],
            &["datetime:+05:30"],
            &["join:;"],
            &["split:; "],
            &["split:;", "join:|"],
            &["max:10"],
        ] {
            assert_eq!(check_names(names), Ok(()), "{names:?}");
        }
    }

    #[test]
    fn what_loses_something_is_found_by_what_it_loses() {
        for names in [
            &["trim"][..],
            &["lowercase"],
            &["uppercase"],
            &["to_string"],
            &["to_int"],
            &["to_float"],
            &["to_bool"],
            &["date"],
            &["format_date"],
            &["zone:+02:00"],
            &["epoch_ms"],
            &["epoch_s"],
            &["phone"],
            &["email"],
            &["html_to_text"],
            &["remove_special_chars"],
            &["truncate:255"],
            &["ellipsis:10"],
        ] {
            let broken = check_names(names).expect_err(names[0]);
            assert_ne!(Some(broken.local), broken.back);
        }
    }
}
