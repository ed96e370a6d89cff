//! All that is wrong with a definition file, each with its line.

use toml::de::{DeTable, DeValue};

use super::problems::Problems;
use super::{Definition, DefinitionError};

/// One fault in a definition's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In the file, from 1.
    pub line: usize,
    /// Where in the file, as `operations.create.path`; empty when it is not TOML.
    pub key: String,
    /// What is wrong there.
    pub reason: String,
}

/// Reads any text and says what keeps it from being a definition; nothing, and
/// [`Definition::parse`] takes it. A file that has not the shape of a definition has one finding;
/// one that has, all of them.
pub fn lint(text: &str) -> Vec<Finding> {
    let mut problems = Problems::default();
    match Definition::compile(text, &mut problems) {
        Ok(_) => {}
        Err(DefinitionError::Syntax(error)) => {
            let at = error.span().map_or(0, |span| span.start);
            return vec![Finding {
                line: line(text, at),
                key: String::new(),
                reason: error.message().to_owned(),
            }];
        }
        Err(DefinitionError::Template { key, source }) => problems.add(key, source),
        Err(error @ DefinitionError::Format { .. }) => {
            return vec![Finding {
                line: line_of(text, "provider.format"),
                key: "provider.format".to_owned(),
                reason: error.to_string(),
            }];
        }
    }
    let findings = problems
        .into_found()
        .into_iter()
        .map(|(key, fault)| Finding {
            line: line_of(text, &key),
            key,
            reason: fault.to_string(),
        });
    let mut findings: Vec<Finding> = findings.collect();
    findings.sort_by_key(|finding| finding.line);
    findings
}

/// The line of a key, or of the nearest block around it that is there.
fn line_of(text: &str, key: &str) -> usize {
    let Ok(file) = DeTable::parse(text) else {
        return 1;
    };
    let mut at = 0;
    let mut table = Some(file.get_ref());
    for part in key.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let members = table.into_iter().flat_map(|table| table.iter());
        let Some((name, value)) = members
            .into_iter()
            .find(|(known, _)| known.get_ref() == name)
        else {
            break;
        };
        at = name.span().start;
        let mut value = value;
        if let Some(index) = index {
            let items = value.get_ref().as_array();
            let Some(item) = items.and_then(|items| items.get(index)) else {
                break;
            };
            at = item.span().start;
            value = item;
        }
        table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
    }
    line(text, at)
}

fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    before.filter(|&&byte| byte == b'\n').count() + 1
}
