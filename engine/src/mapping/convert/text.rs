//! Texts made fit for another system.

use std::borrow::Cow;

/// Bytes of a separator.
pub(super) const SEPARATOR_BYTES_MAX: usize = 16;

/// Digits that E.164 allows, country code included.
const PHONE_DIGITS_MAX: usize = 15;
/// Fewer are an extension, not a number that the world can call.
const PHONE_DIGITS_MIN: usize = 3;

pub(super) fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// One text of all. What could not be taken apart again is refused: an item that holds the
/// separator or nothing, and one that makes up a separator with its neighbour.
pub(super) fn join(items: &[Cow<'_, str>], separator: &str) -> Result<String, &'static str> {
    if items.iter().any(|item| item.is_empty()) {
        return Err("has an empty item, which cannot be told from none");
    }
    let joined = items.join(separator);
    if split(Cow::Borrowed(&joined), separator) != items {
        return Err("has an item with the separator in it");
    }
    Ok(joined)
}

/// The parts between separators; nothing of an empty text.
pub(super) fn split<'v>(text: Cow<'v, str>, separator: &str) -> Vec<Cow<'v, str>> {
    if text.is_empty() {
        return Vec::new();
    }
    match text {
        Cow::Borrowed(text) => text.split(separator).map(Cow::Borrowed).collect(),
        Cow::Owned(text) => {
            let parts = text.split(separator);
            parts.map(|part| Cow::Owned(part.to_owned())).collect()
        }
    }
}

/// E.164: `+` and digits. Without a country's code a number that names none keeps its digits.
pub(super) fn phone(text: &str, country: &str) -> Result<String, &'static str> {
    const NO_NUMBER: &str = "must be a phone number";
    let text = text.trim();
    let (mut international, text) = match text.strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut digits = String::with_capacity(PHONE_DIGITS_MAX);
    for character in text.chars() {
        match character {
            '0'..='9' => digits.push(character),
            ' ' | '-' | '.' | '(' | ')' | '/' | '\u{a0}' | '\u{2011}' | '\u{2013}' => {}
            _ => return Err(NO_NUMBER),
        }
    }
    if !international && let Some(rest) = digits.strip_prefix("00") {
        digits = rest.to_owned();
        international = true;
    }
    if !international && !country.is_empty() {
        // One zero stands for the country where a number is dialled within it.
        let national = digits.strip_prefix('0').unwrap_or(&digits);
        digits = format!("{country}{national}");
        international = true;
    }
    if !(PHONE_DIGITS_MIN..=PHONE_DIGITS_MAX).contains(&digits.len()) {
        return Err(NO_NUMBER);
    }
    Ok(if international {
        format!("+{digits}")
    } else {
        digits
    })
}

/// An address in lower case. Whether anybody reads there only a letter can tell.
pub(super) fn email(text: &str) -> Result<String, &'static str> {
    let address = text.trim().to_lowercase();
    let is_address = address.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    });
    if !is_address || address.chars().any(char::is_whitespace) {
        return Err("must be an email address");
    }
    Ok(address)
}

/// Letters, digits, spaces and what names and addresses have between them.
pub(super) fn without_special(text: &str) -> String {
    let stays = |character: &char| {
        character.is_alphanumeric() || character.is_whitespace() || ".,-_@".contains(*character)
    };
    text.chars().filter(stays).collect()
}

/// At most so many characters; `mark` takes the place of the last when something was cut.
pub(super) fn truncated<'v>(text: Cow<'v, str>, characters: usize, mark: &str) -> Cow<'v, str> {
    if text.chars().nth(characters).is_none() {
        return text;
    }
    let kept = characters.saturating_sub(mark.chars().count());
    let cut: String = text.chars().take(kept).chain(mark.chars()).collect();
    Cow::Owned(cut)
}

/// What a browser would show: no tags, no scripts, entities as their characters, blocks as lines.
pub(super) fn html_to_text(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = if rest.starts_with('<') {
            after_tag(rest, &mut out)
        } else {
            after_entity(rest, &mut out)
        };
    }
    out.push_str(rest);
    let lines = out.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.join(" ")
    });
    let mut text: Vec<String> = Vec::new();
    for line in lines {
        // One empty line between paragraphs is enough.
        if !line.is_empty() || text.last().is_some_and(|last| !last.is_empty()) {
            text.push(line);
        }
    }
    text.join("\n").trim_end().to_owned()
}

/// Bytes of one tag, attributes included: a longer one is shown as text, so that no text of many
/// `<` is searched to its end for each of them.
const TAG_BYTES_MAX: usize = 4 << 10;

/// What follows a tag; a `<` that begins none stays.
fn after_tag<'h>(html: &'h str, out: &mut String) -> &'h str {
    if let Some(comment) = html.strip_prefix("<!--") {
        return comment.find("-->").map_or("", |at| &comment[at + 3..]);
    }
    let inner = &html[1..];
    let begins_tag = inner.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!');
    let reach = &inner.as_bytes()[..inner.len().min(TAG_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'>', reach).filter(|_| begins_tag) else {
        out.push('<');
        return inner;
    };
    let name = inner[..end].trim_start_matches('/');
    let name: String = name
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_lowercase())
        .collect();
    let after = &inner[end + 1..];
    match name.as_str() {
        "script" | "style" if !inner.starts_with('/') => {
            let mut ends = after.match_indices("</").map(|(at, _)| &after[at + 2..]);
            let end = ends.find(|end| {
                let named = end.get(..name.len());
                named.is_some_and(|named| named.eq_ignore_ascii_case(&name))
            });
            let end = end.unwrap_or_default();
            end.find('>').map_or("", |at| &end[at + 1..])
        }
        "br" | "p" | "div" | "li" | "tr" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
            out.push('\n');
            after
        }
        _ => after,
    }
}

/// What follows an entity; a `&` that begins none stays.
fn after_entity<'h>(html: &'h str, out: &mut String) -> &'h str {
    /// The longest there is here: `&#x10FFFF;` and some.
    const ENTITY_BYTES_MAX: usize = 12;
    let inner = &html[1..];
    let end = inner.bytes().take(ENTITY_BYTES_MAX).position(|b| b == b';');
    let character = end.and_then(|end| entity(&inner[..end]));
    match (character, end) {
        (Some(character), Some(end)) => {
            out.push(character);
            &inner[end + 1..]
        }
        _ => {
            out.push('&');
            inner
        }
    }
}

fn entity(name: &str) -> Option<char> {
    let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok();
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        _ => {
            let digits = name.strip_prefix('#')?;
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(hex) => number(hex, 16),
                None => number(digits, 10),
            };
            code.and_then(char::from_u32).filter(|c| !c.is_control())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_numbers_become_e_164() {
        for (text, country, expected) in [
            ("+1 (415) 555-0100", "", Some("+14155550100")),
            ("0049 30 1234567", "", Some("+49301234567")),
            ("030/1234567", "49", Some("+49301234567")),
            ("415.555.0100", "1", Some("+14155550100")),
            ("415-555-0100", "", Some("4155550100")),
            ("12", "", None),
            ("+1234567890123456", "", None),
            ("call me", "", None),
            ("555-0100 x12", "", None),
            ("", "", None),
        ] {
            assert_eq!(phone(text, country).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn html_reads_as_a_browser_shows_it() {
        for (html, expected) in [
            ("<p>Hello <b>Ada</b>&nbsp;&amp; all</p>", "Hello Ada & all"),
            ("a<br/>b<BR>c", "a\nb\nc"),
            ("<p>one</p><p>two</p>", "one\n\ntwo"),
            ("<script>alert('x<y')</script>x", "x"),
            ("<style>p{}</style ><!-- <p> -->y", "y"),
            ("1 < 2 && 3 > 2", "1 < 2 && 3 > 2"),
            ("&#65;&#x42;&unknown;&#0;", "AB&unknown;&#0;"),
            ("<p>unclosed", "unclosed"),
            ("<a href=\"x\">link</a>é", "linké"),
            ("< p", "< p"),
            ("<", "<"),
            ("&", "&"),
            ("<script>never closed", ""),
        ] {
            assert_eq!(html_to_text(html).trim(), expected, "{html}");
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let cut = |text, count, mark| truncated(Cow::Borrowed(text), count, mark).into_owned();
        assert_eq!(cut("héllo", 2, ""), "hé");
        assert_eq!(cut("héllo", 5, ""), "héllo");
        assert_eq!(cut("héllo", 3, "…"), "hé…");
        assert_eq!(cut("héllo", 1, "…"), "…");
    }

    #[test]
    fn a_list_is_joined_only_if_it_can_be_taken_apart_again() {
        let items = |items: &[&'static str]| -> Vec<Cow<'static, str>> {
            items.iter().map(|&item| Cow::Borrowed(item)).collect()
        };
        assert_eq!(join(&items(&["a", "b"]), ";").as_deref(), Ok("a;b"));
        assert_eq!(join(&[], ";").as_deref(), Ok(""));
        for bad in [&["a;b"][..], &[""], &["a", ""]] {
            assert!(join(&items(bad), ";").is_err(), "{bad:?}");
        }
        assert!(join(&items(&["a;", "b"]), ";;").is_err(), "a;;;b");
    }

    #[test]
    fn only_addresses_are_addresses() {
        assert_eq!(email(" Ada@Example.COM ").as_deref(), Ok("ada@example.com"));
        for text in ["ada", "@x", "a@", "a b@x", "a@b@c", ""] {
            assert!(email(text).is_err(), "{text}");
        }
    }
}
