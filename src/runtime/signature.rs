//! What makes two failures the same one: their words, without ids and numbers.

/// Bytes of a signature; longer words tell nothing more apart.
const SIGNATURE_MAX: usize = 160;

/// The words of a failure with `#` for each id, number and address.
pub(crate) fn signature(detail: &str, record_id: &str) -> String {
    let named = if record_id.is_empty() {
        detail.to_owned()
    } else {
        detail.replace(record_id, "#")
    };
    let mut out = String::new();
    let mut word = String::new();
    for c in named.chars() {
        if c.is_alphanumeric() || matches!(c, '-' | '_' | '@' | '.' | '#' | '+') {
            word.push(c);
        } else {
            push_word(&mut out, &word);
            word.clear();
            // Runs of space read as one.
            if c.is_whitespace() {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            } else {
                out.push(c);
            }
        }
    }
    push_word(&mut out, &word);
    if out.len() > SIGNATURE_MAX {
        let end = (0..=SIGNATURE_MAX)
            .rev()
            .find(|&at| out.is_char_boundary(at));
        out.truncate(end.unwrap_or(0));
    }
    out.trim().to_owned()
}

/// A word with a digit or an `@` names a thing, not a kind of failure.
fn push_word(out: &mut String, word: &str) {
    let bare = word.trim_end_matches('.');
    let names = bare.contains(['@', '#']) || bare.chars().any(|c| c.is_ascii_digit());
    if names {
        out.push('#');
        out.push_str(&word[bare.len()..]);
    } else {
        out.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_differ_in_ids_and_numbers_only_are_the_same() {
        for (detail, record_id, expected) in [
            (
                "Record 003xx000004TmiQ is locked",
                "c-1",
                "Record # is locked",
            ),
            (
                "\"ada@example.com\" is taken by 42",
                "c-1",
                "\"#\" is taken by #",
            ),
            ("no such contact: ada", "ada", "no such contact: #"),
            (
                "field 'first_name'  is too long.",
                "c-1",
                "field 'first_name' is too long.",
            ),
            ("at 2026-11-20T10:00:00Z.", "c-1", "at #:#:#."),
            ("", "c-1", ""),
        ] {
            assert_eq!(signature(detail, record_id), expected);
        }
    }

    #[test]
    fn a_signature_ends_within_its_bound_at_a_character() {
        assert_eq!(signature(&"ü".repeat(200), "").len(), SIGNATURE_MAX);
    }
}
