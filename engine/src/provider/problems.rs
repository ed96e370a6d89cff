//! All that is wrong with a definition, each under its key.

use super::{DefinitionError, TemplateError};

/// Collects faults, so that a file's author sees all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<(String, TemplateError)>,
}

impl Problems {
    pub(crate) fn add(&mut self, key: impl Into<String>, fault: TemplateError) {
        self.found.push((key.into(), fault));
    }

    /// The value, or `None` and the fault noted under `key`.
    pub(crate) fn note<T>(
        &mut self,
        key: impl Into<String>,
        result: Result<T, TemplateError>,
    ) -> Option<T> {
        result.map_err(|fault| self.add(key, fault)).ok()
    }

    pub(crate) fn into_found(self) -> Vec<(String, TemplateError)> {
        self.found
    }

    /// The first of them, if any.
    pub(crate) fn into_result(self) -> Result<(), DefinitionError> {
        match self.found.into_iter().next() {
            Some((key, source)) => Err(DefinitionError::Template { key, source }),
            None => Ok(()),
        }
    }
}
