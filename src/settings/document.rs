//! A parsed settings file that still knows where each value stands.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::ProblemList;
use super::source::{Overlaid, Source};

/// The tree of a settings file with the overlay applied. Sections are taken
/// out one by one, so that an error in one hides none in the others.
pub(super) struct Document<'s> {
    root: DeTable<'s>,
    pub(super) places: Places,
}

/// Where each path (`providers.crm.limits.0.window`) stands.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<String, Range<usize>>);

/// A table that was taken out of the document, to be read by its parts.
pub(super) struct Section<'s> {
    pub(super) path: String,
    table: DeTable<'s>,
    range: Range<usize>,
}

impl<'s> Document<'s> {
    pub(super) fn parse(source: &'s Source, problems: &mut ProblemList<'_>) -> Document<'s> {
        let (root, errors) = DeTable::parse_recoverable(source.file());
        for error in &errors {
            problems.add_parse_error(error, true);
        }
        let mut root = root.into_inner();
        for overlaid in source.overlay() {
            overlay(&mut root, overlaid, problems);
        }
        let mut places = Places::default();
        places.note_table("", &root);
        Document { root, places }
    }

    /// Takes the section `name` as `T`; absent = default, wrong = noted and default.
    pub(super) fn take<T: DeserializeOwned + Default>(
        &mut self,
        name: &str,
        problems: &mut ProblemList<'_>,
    ) -> T {
        let Some(value) = self.root.remove(name) else {
            return T::default();
        };
        deserialize(value, true, problems).unwrap_or_default()
    }

    /// Takes the tables below `name` (`[providers.A]`, `[providers.B]`) in the file's order.
    pub(super) fn take_named(
        &mut self,
        name: &str,
        problems: &mut ProblemList<'_>,
    ) -> Vec<(String, Section<'s>)> {
        match self.root.remove(name) {
            None => Vec::new(),
            Some(value) => named_sections(name, value, problems),
        }
    }

    /// Takes the elements of the array of tables `name`.
    pub(super) fn take_list<T: DeserializeOwned>(
        &mut self,
        name: &str,
        problems: &mut ProblemList<'_>,
    ) -> Vec<T> {
        take_list(&mut self.root, name, problems)
    }

    /// Notes what no section claimed.
    pub(super) fn refuse_rest(self, known: &[&str], problems: &mut ProblemList<'_>) {
        for (key, _) in self.root {
            let message = format!("unknown section `{}`", key.get_ref());
            problems
                .add(key.span(), message)
                .help(format!("known: {}", known.join(", ")));
        }
    }
}

impl<'s> Section<'s> {
    /// Takes the tables below `name` out of this one, in the file's order.
    pub(super) fn take_named(
        &mut self,
        name: &str,
        problems: &mut ProblemList<'_>,
    ) -> Vec<(String, Section<'s>)> {
        match self.table.remove(name) {
            None => Vec::new(),
            Some(value) => named_sections(&format!("{}.{name}", self.path), value, problems),
        }
    }

    /// Takes the elements of the array `name`; each wrong one is noted by itself.
    pub(super) fn take_list<T: DeserializeOwned>(
        &mut self,
        name: &str,
        problems: &mut ProblemList<'_>,
    ) -> Vec<T> {
        take_list(&mut self.table, name, problems)
    }

    /// Takes the value `name` as `T`. Its line is not shown in errors: secrets stand here.
    pub(super) fn take_secretive<T: DeserializeOwned>(
        &mut self,
        name: &str,
        problems: &mut ProblemList<'_>,
    ) -> Option<T> {
        deserialize(self.table.remove(name)?, false, problems)
    }

    /// What is left of the table, as `T`.
    pub(super) fn rest<T: DeserializeOwned>(self, problems: &mut ProblemList<'_>) -> Option<T> {
        deserialize(
            Spanned::new(self.range, DeValue::Table(self.table)),
            true,
            problems,
        )
    }
}

impl Places {
    /// Where `path` stands, else its nearest ancestor.
    pub(super) fn of(&self, path: &str) -> Range<usize> {
        let mut path = path;
        loop {
            if let Some(range) = self.0.get(path) {
                return range.clone();
            }
            match path.rfind('.') {
                Some(dot) => path = &path[..dot],
                None => return 0..0,
            }
        }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Each path that `pattern` fits, a `*` standing for any one part.
    pub(super) fn matching<'p>(
        &'p self,
        pattern: &'p str,
    ) -> impl Iterator<Item = (&'p str, Range<usize>)> {
        self.0
            .iter()
            .filter(move |(path, _)| {
                let mut parts = path.split('.');
                let fits = pattern
                    .split('.')
                    .all(|want| parts.next().is_some_and(|part| want == "*" || want == part));
                fits && parts.next().is_none()
            })
            .map(|(path, range)| (path.as_str(), range.clone()))
    }

    fn note_table(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            self.note(&join(path, key.get_ref()), value);
        }
    }

    fn note(&mut self, path: &str, value: &Spanned<DeValue<'_>>) {
        self.0.insert(path.to_owned(), value.span());
        match value.get_ref() {
            DeValue::Table(table) => self.note_table(path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.note(&join(path, &index.to_string()), item);
                }
            }
            _ => {}
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn deserialize<T: DeserializeOwned>(
    value: Spanned<DeValue<'_>>,
    quoted: bool,
    problems: &mut ProblemList<'_>,
) -> Option<T> {
    let range = value.span();
    match T::deserialize(value.into_deserializer()) {
        Ok(value) => Some(value),
        Err(error) if error.span().is_some() => {
            problems.add_parse_error(&error, quoted);
            None
        }
        Err(error) => {
            problems.add(range, error.message());
            None
        }
    }
}

fn take_list<T: DeserializeOwned>(
    table: &mut DeTable<'_>,
    name: &str,
    problems: &mut ProblemList<'_>,
) -> Vec<T> {
    let Some(value) = table.remove(name) else {
        return Vec::new();
    };
    let range = value.span();
    match value.into_inner() {
        DeValue::Array(items) => items
            .into_iter()
            .filter_map(|item| deserialize(item, true, problems))
            .collect(),
        other => {
            let found = other.type_str();
            problems.add(
                range,
                format!("`{name}`: expected an array of tables, found {found}"),
            );
            Vec::new()
        }
    }
}

fn named_sections<'s>(
    path: &str,
    value: Spanned<DeValue<'s>>,
    problems: &mut ProblemList<'_>,
) -> Vec<(String, Section<'s>)> {
    let range = value.span();
    let DeValue::Table(tables) = value.into_inner() else {
        problems.add(
            range,
            format!("`{path}`: expected tables such as [{path}.NAME]"),
        );
        return Vec::new();
    };
    let mut sections = Vec::new();
    for (key, value) in tables {
        let name = key.get_ref().to_string();
        let range = value.span();
        match value.into_inner() {
            DeValue::Table(table) => {
                let section = Section {
                    path: join(path, &name),
                    table,
                    range,
                };
                sections.push((key.span().start, name, section));
            }
            other => {
                let found = other.type_str();
                problems.add(
                    range,
                    format!("`{path}.{name}`: expected a table, found {found}"),
                );
            }
        }
    }
    // The parser's tables are sorted by name; users think in the order they wrote.
    sections.sort_by_key(|(start, ..)| *start);
    sections
        .into_iter()
        .map(|(_, name, section)| (name, section))
        .collect()
}

fn overlay<'s>(root: &mut DeTable<'s>, overlaid: Overlaid<'s>, problems: &mut ProblemList<'_>) {
    let Overlaid { path, range, value } = overlaid;
    let Some((last, parents)) = path
        .split_last()
        .filter(|_| path.iter().all(|p| !p.is_empty()))
    else {
        problems.add(range, "expected a name such as SYNCLINE__SECTION__KEY");
        return;
    };
    let mut table = root;
    for parent in parents {
        let key = existing_key(table, parent);
        let entry = table
            .entry(Spanned::new(range.clone(), Cow::Owned(key)))
            .or_insert_with(|| Spanned::new(range.clone(), DeValue::Table(DeTable::new())));
        match entry.get_mut() {
            DeValue::Table(inner) => table = inner,
            other => {
                let found = other.type_str();
                problems.add(range, format!("`{parent}` is not a section but {found}"));
                return;
            }
        }
    }
    let key = existing_key(table, last);
    table.remove(key.as_str());
    table.insert(Spanned::new(range, Cow::Owned(key)), value);
}

/// Variables are upper case by custom; a name that stands in the file keeps its own spelling.
fn existing_key(table: &DeTable<'_>, lower_case: &str) -> String {
    table
        .keys()
        .map(|key| key.get_ref())
        .find(|key| key.eq_ignore_ascii_case(lower_case))
        .map_or_else(|| lower_case.to_owned(), |key| key.to_string())
}
