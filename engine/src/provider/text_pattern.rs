//! `api-usage={used}/{max}`: what is read out of a header or a message.

use super::TemplateError;

/// Literal text with places to read, found anywhere in a text; case does not matter. It is read in
/// one pass and has no choice to go back on, so that no text takes long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextPattern {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// In lower case.
    Literal(String),
    Capture {
        name: String,
        class: Class,
    },
}

/// What a place may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Digits,
    /// Letters, digits, `-` and `_`.
    Id,
    /// Up to a comma, semicolon, quote or the end.
    Word,
}

/// Of a longer text only the beginning is searched: messages that are meant for machines are short.
const TEXT_BYTES_MAX: usize = 4096;

impl TextPattern {
    /// `names` are the places that mean something here.
    pub(crate) fn compile(text: &str, names: &[&str]) -> Result<TextPattern, TemplateError> {
        let wrong = |what| TemplateError::NotAPattern(text.to_owned(), what);
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(brace) = rest.strip_prefix('{') {
                let (name, after) = brace.split_once('}').ok_or(wrong("unbalanced brace"))?;
                if !names.contains(&name) {
                    return Err(TemplateError::UnknownPlaceholder(name.to_owned()));
                }
                if matches!(pieces.last(), Some(Piece::Capture { .. })) {
                    return Err(wrong("two places need text between them"));
                }
                pieces.push(Piece::Capture {
                    name: name.to_owned(),
                    class: Class::of(name),
                });
                rest = after;
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                let literal = rest[..end].to_ascii_lowercase();
                let first = literal.as_bytes()[0];
                if let Some(Piece::Capture { class, .. }) = pieces.last()
                    && class.holds(first)
                {
                    return Err(wrong("a place takes the text behind it for its own"));
                }
                pieces.push(Piece::Literal(literal));
                rest = &rest[end..];
            }
        }
        if pieces.is_empty() {
            return Err(wrong("it is empty"));
        }
        Ok(TextPattern { pieces })
    }

    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.find(text).is_some()
    }

    /// What the place of that name holds, where the pattern first occurs.
    pub(crate) fn read<'t>(&self, text: &'t str, name: &str) -> Option<&'t str> {
        let start = self.find(text)?;
        let mut found = None;
        self.walk(text.as_bytes(), start, |captured, from, to| {
            if captured == name {
                // Captures of `Word` may hold any character, but begin and end between two.
                found = text.get(from..to);
            }
        });
        found.map(str::trim).filter(|value| !value.is_empty())
    }

    fn find(&self, text: &str) -> Option<usize> {
        let text = &text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)];
        (0..text.len()).find(|&start| {
            // A run that a place would hold is tried from its beginning only.
            if let Some(Piece::Capture { class, .. }) = self.pieces.first()
                && start > 0
                && class.holds(text[start - 1])
            {
                return false;
            }
            self.walk(text, start, |_, _, _| {})
        })
    }

    fn walk(&self, text: &[u8], start: usize, mut capture: impl FnMut(&str, usize, usize)) -> bool {
        let mut at = start;
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => {
                    let end = at + literal.len();
                    let same = text
                        .get(at..end)
                        .is_some_and(|found| found.eq_ignore_ascii_case(literal.as_bytes()));
                    if !same {
                        return false;
                    }
                    at = end;
                }
                Piece::Capture { name, class } => {
                    let run = text[at..].iter().take_while(|&&byte| class.holds(byte));
                    let end = at + run.count();
                    if end == at {
                        return false;
                    }
                    capture(name, at, end);
                    at = end;
                }
            }
        }
        true
    }
}

impl Class {
    fn of(name: &str) -> Class {
        match name {
            "id" => Class::Id,
            "reset" => Class::Word,
            _ => Class::Digits,
        }
    }

    fn holds(self, byte: u8) -> bool {
        match self {
            Class::Digits => byte.is_ascii_digit(),
            Class::Id => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Class::Word => !matches!(byte, b',' | b';' | b'"'),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: &[&str] = &["id", "used", "max", "remaining", "reset"];

    fn read(pattern: &str, text: &str, name: &str) -> Option<String> {
        let pattern = TextPattern::compile(pattern, NAMES).unwrap();
        pattern.read(text, name).map(str::to_owned)
    }

    #[test]
    fn places_are_read_wherever_the_pattern_occurs() {
        let rows = [
            (
                "api-usage={used}/{max}",
                "api-usage=22/15000",
                "max",
                Some("15000"),
            ),
            (
                "api-usage={used}/{max}",
                "API-Usage=22/15000; api-bursts=1/750",
                "used",
                Some("22"),
            ),
            (
                "api-bursts={used}/{max}",
                "api-usage=22/15000; api-bursts=1/750",
                "max",
                Some("750"),
            ),
            ("api-bursts={used}/{max}", "api-usage=22/15000", "max", None),
            ("{remaining}", " 108", "remaining", Some("108")),
            ("{remaining}", "lots", "remaining", None),
            (
                "Existing ID: {id}",
                "Contact already exists. Existing ID: 3401",
                "id",
                Some("3401"),
            ),
            (
                "{id} already has that value",
                "x: 12345 already has that value.",
                "id",
                Some("12345"),
            ),
            (
                "record with id: {id}",
                "on record with id: 001U000001c83gK",
                "id",
                Some("001U000001c83gK"),
            ),
            (
                "record with id: {id}",
                "on record with id: <unknown>",
                "id",
                None,
            ),
            (
                "{reset}",
                "2026-11-21T10:00:00Z",
                "reset",
                Some("2026-11-21T10:00:00Z"),
            ),
            ("t={reset}", "\"default\";r=5;t=30", "reset", Some("30")),
            (
                "secondly limit",
                "You have reached your Secondly limit.",
                "id",
                None,
            ),
        ];
        for (pattern, text, name, expected) in rows {
            assert_eq!(
                read(pattern, text, name).as_deref(),
                expected,
                "{pattern} in {text}"
            );
        }
        let literal = TextPattern::compile("secondly limit", NAMES).unwrap();
        assert!(literal.is_in("You have reached your Secondly limit."));
        assert!(!literal.is_in("You have reached your daily limit."));
    }

    #[test]
    fn a_pattern_with_a_choice_is_refused() {
        for text in ["", "{id", "{used}{max}", "{used}0", "{id}-x"] {
            let refused = TextPattern::compile(text, NAMES);
            assert!(
                matches!(refused, Err(TemplateError::NotAPattern(..))),
                "{text}"
            );
        }
        assert_eq!(
            TextPattern::compile("{who}", NAMES),
            Err(TemplateError::UnknownPlaceholder("who".to_owned()))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_text_is_searched_without_harm(text in "(\\PC|id: |[0-9/ü]){0,60}") {
            for pattern in ["id: {id}", "{used}/{max}", "{id} ü", "{reset},"] {
                let compiled = TextPattern::compile(pattern, NAMES).unwrap();
                for name in NAMES {
                    if let Some(value) = compiled.read(&text, name) {
                        prop_assert!(text.contains(value) && compiled.is_in(&text));
                    }
                }
            }
        }
    }
}
