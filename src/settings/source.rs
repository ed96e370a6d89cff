//! The text that settings are read from: one file, and the environment's overlay on it.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where in the settings something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file; line and column count from 1, columns in characters.
    File {
        /// The file's name as the user gave it.
        name: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// In an environment variable of this name.
    Variable(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Place::Variable(name) => f.write_str(name),
        }
    }
}

/// A settings file with the environment's variables appended, one a line, so
/// that an offset alone tells where a value came from.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    /// What relative paths in it start from.
    folder: PathBuf,
    text: String,
    file_bytes: usize,
    variables: Vec<Variable>,
}

#[derive(Debug, Clone)]
struct Variable {
    name: String,
    path: Vec<String>,
    value: Range<usize>,
    /// [`ASSIGNMENT`] and the value, after as many spaces as make the
    /// parser's offsets those of the whole text.
    assignment: String,
}

/// Makes a TOML document of a bare value.
const ASSIGNMENT: &str = "v=";

/// What a variable's name starts with to be taken as a setting.
const VARIABLE_PREFIX: &str = "SYNCLINE__";

impl Source {
    /// A source of `text`, which errors will call `name`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Source {
        let text = text.into();
        Source {
            name: name.into(),
            folder: PathBuf::new(),
            file_bytes: text.len(),
            text,
            variables: Vec::new(),
        }
    }

    /// Relative paths of files that it names start from `folder`, not from where the process runs.
    pub fn in_folder(self, folder: &Path) -> Source {
        Source {
            folder: folder.to_owned(),
            ..self
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lays `SYNCLINE__SECTION__KEY` variables over the file; others are left alone.
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Source {
        let mut taken: Vec<(String, String)> = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect();
        // The process's order of variables is arbitrary; the outcome may not be.
        taken.sort();
        for (name, value) in taken {
            let path = name[VARIABLE_PREFIX.len()..]
                .split("__")
                .map(str::to_ascii_lowercase)
                .collect::<Vec<_>>();
            self.text.push('\n');
            self.text.push_str(&name);
            self.text.push('=');
            let start = self.text.len();
            self.text.push_str(&value);
            // The name and its `=` are longer than the assignment, so this cannot wrap.
            let padding = " ".repeat(start - ASSIGNMENT.len());
            let assignment = format!("{padding}{ASSIGNMENT}{value}");
            self.variables.push(Variable {
                name,
                path,
                value: start..self.text.len(),
                assignment,
            });
        }
        self
    }

    /// The file's own text, without the overlay.
    pub(super) fn file(&self) -> &str {
        &self.text[..self.file_bytes]
    }

    /// File and overlay, as offsets count them.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn overlay(&self) -> impl Iterator<Item = Overlaid<'_>> {
        self.variables.iter().map(|variable| Overlaid {
            path: &variable.path,
            range: variable.value.clone(),
            value: variable.parsed(&self.text),
        })
    }

    /// Where `offset` stands.
    pub(super) fn place(&self, offset: usize) -> Place {
        if offset > self.file_bytes
            && let Some(variable) = self.variables.iter().find(|v| offset <= v.value.end)
        {
            return Place::Variable(variable.name.clone());
        }
        let before = &self.text.as_bytes()[..offset.min(self.file_bytes)];
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        // A continuation byte (0b10xx_xxxx) starts no character.
        let is_character_start = |byte: &&u8| (**byte & 0xC0) != 0x80;
        Place::File {
            name: self.name.clone(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + before[line_start..]
                .iter()
                .filter(is_character_start)
                .count(),
        }
    }
}

impl Variable {
    /// TOML when it reads as such, else text.
    fn parsed<'s>(&'s self, text: &'s str) -> Spanned<DeValue<'s>> {
        if let Ok(document) = DeTable::parse(&self.assignment)
            // A value with a line break in it could smuggle in a second key.
            && document.get_ref().len() == 1
            && let Some((_, value)) = document.into_inner().into_iter().next()
        {
            return value;
        }
        let text = &text[self.value.clone()];
        Spanned::new(self.value.clone(), DeValue::String(Cow::Borrowed(text)))
    }
}

/// One variable's word on the settings.
pub(super) struct Overlaid<'s> {
    /// Sections and key, lower case.
    pub(super) path: &'s [String],
    pub(super) range: Range<usize>,
    pub(super) value: Spanned<DeValue<'s>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let source = Source::new("a.toml", "x = 1\ny = \"é\" # here\n");
        let at = source.file().find('#').unwrap();
        assert_eq!(source.place(at).to_string(), "a.toml:2:9");
        assert_eq!(source.place(0).to_string(), "a.toml:1:1");
        assert_eq!(source.place(usize::MAX).to_string(), "a.toml:3:1");
    }

    #[test]
    fn an_offset_in_the_overlay_names_its_variable() {
        let source = Source::new("a.toml", "x = 1\n").with_environment([
            ("SYNCLINE__WAL__DURABILITY".to_owned(), "os".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ]);
        let overlay = source.overlay().collect::<Vec<_>>();
        assert_eq!(overlay.len(), 1);
        assert_eq!(overlay[0].path, ["wal", "durability"]);
        assert_eq!(overlay[0].value.get_ref().as_str(), Some("os"));
        assert_eq!(
            source.place(overlay[0].range.start).to_string(),
            "SYNCLINE__WAL__DURABILITY"
        );
    }

    #[test]
    fn a_value_that_reads_as_toml_is_taken_as_such_at_its_own_offset() {
        let source = Source::new("a.toml", "x = 1\n")
            .with_environment([("SYNCLINE__SHARDS__COUNT".to_owned(), "12".to_owned())]);
        let overlaid = source.overlay().next().unwrap();
        assert!(overlaid.value.get_ref().is_integer());
        assert_eq!(overlaid.value.span(), overlaid.range);
        assert_eq!(&source.text()[overlaid.range], "12");
    }
}
