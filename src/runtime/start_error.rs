//! Why the engine does not start.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::open::told;

/// Why the engine does not start. Nothing was accepted and nothing was sent.
#[derive(Debug, Error)]
pub enum StartError {
    /// Another process has the data directory; nothing in it was touched.
    #[error("{path} is in use by another process")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory cannot be used as it is.
    #[error("data directory {path}: {detail}")]
    DataDir {
        /// The data directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A log is damaged, of a newer version, or unreadable; it was not changed.
    #[error("{detail}")]
    Log {
        /// Which file, where, and what.
        detail: String,
    },
    /// A part of the configuration that only shows when it is used.
    #[error("{section}: {detail}")]
    Config {
        /// The section.
        section: String,
        /// What is wrong.
        detail: String,
    },
    /// A socket, a thread or a runtime could not be had.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    pub(crate) fn config(section: &str, detail: String) -> Self {
        Self::Config {
            section: section.to_owned(),
            detail,
        }
    }

    pub(crate) fn data_dir(path: &Path, error: &dyn std::error::Error) -> Self {
        Self::DataDir {
            path: path.to_owned(),
            detail: told(error),
        }
    }

    pub(crate) fn log(error: &dyn std::error::Error) -> Self {
        Self::Log {
            detail: told(error),
        }
    }

    pub(crate) fn system(operation: impl Into<String>, source: io::Error) -> Self {
        Self::System {
            operation: operation.into(),
            source,
        }
    }
}
