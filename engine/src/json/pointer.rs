//! RFC 6901 pointers for refusals.

/// Bytes of one member name that a pointer repeats; a longer name is cut and ends in `…`.
const SEGMENT_BYTES_MAX: usize = 128;

/// A place in a JSON document, grown from the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// The whole document.
    pub fn root() -> Self {
        Self::default()
    }

    /// A pointer of the given member names.
    pub fn of(names: &[&str]) -> Self {
        let mut pointer = Self::root();
        for name in names {
            pointer.push(name);
        }
        pointer
    }

    /// Steps to a member or, written in digits, to an item.
    pub fn push(&mut self, name: &str) {
        self.0.push('/');
        let cut = name.floor_char_boundary(SEGMENT_BYTES_MAX);
        for character in name[..cut].chars() {
            match character {
                '~' => self.0.push_str("~0"),
                '/' => self.0.push_str("~1"),
                other => self.0.push(other),
            }
        }
        if cut < name.len() {
            self.0.push('…');
        }
    }

    /// The pointer's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_long_ones_cut() {
        assert_eq!(
            Pointer::of(&["data", "a/b~c", ""]).as_str(),
            "/data/a~1b~0c/"
        );
        let long = Pointer::of(&["é".repeat(100).as_str()]);
        assert_eq!(long.as_str(), format!("/{}…", "é".repeat(64)));
    }
}
