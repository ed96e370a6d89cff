//! The file beside the file: where an unfinished run began.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a broken run has to know to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    pub(super) producer: String,
    /// The node's last number before the first line: line n has base + n.
    pub(super) base: u64,
    /// Lines refused so far, at least.
    #[serde(default)]
    pub(super) refused: u64,
}

/// The state and its place; exists on disk from the first line to the end of the file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    state: Option<State>,
}

/// Why the progress cannot be kept. Lines are sent only while it can.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path} is no state of syncline send: {fault}")]
    Broken { path: String, fault: String },
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: io::Error },
}

const VERSION: u32 = 1;

impl State {
    pub(super) fn new(producer: String, base: u64) -> Self {
        State {
            version: VERSION,
            producer,
            base,
            refused: 0,
        }
    }
}

impl StateFile {
    /// Reads the state of a broken run, if there is one.
    pub(super) fn open(path: PathBuf) -> Result<Self, StateError> {
        let shown = path.display().to_string();
        let state = match fs::read(&path) {
            Ok(text) => {
                let broken = |fault: String| StateError::Broken {
                    path: shown.clone(),
                    fault,
                };
                let state: State =
                    serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
                if state.version != VERSION {
                    return Err(broken(format!("version {} is unknown", state.version)));
                }
                Some(state)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(StateError::Read {
                    path: shown,
                    source,
                });
            }
        };
        Ok(StateFile { path, state })
    }

    pub(super) fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    pub(super) fn display(&self) -> String {
        self.path.display().to_string()
    }

    /// The broken run's state, or `fresh`, which is on disk when this returns.
    pub(super) fn begin(&mut self, fresh: State) -> Result<&State, StateError> {
        if self.state.is_none() {
            self.write(&fresh)?;
        }
        Ok(self.state.get_or_insert(fresh))
    }

    pub(super) fn set_refused(&mut self, refused: u64) -> Result<(), StateError> {
        let Some(mut state) = self.state.clone() else {
            return Ok(());
        };
        if state.refused != refused {
            state.refused = refused;
            self.write(&state)?;
            self.state = Some(state);
        }
        Ok(())
    }

    /// The run is complete.
    pub(super) fn remove(&mut self) -> Result<(), StateError> {
        self.state = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.unwritable(error)),
            _ => Ok(()),
        }
    }

    /// Replaces the file as a whole; a crash leaves the old one or the new one.
    fn write(&self, state: &State) -> Result<(), StateError> {
        let mut next = self.path.clone().into_os_string();
        next.push(".next");
        let text = serde_json::to_string(state).expect("a state is text and numbers");
        let write = || -> io::Result<()> {
            let mut file = File::create(&next)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&next, &self.path)?;
            let folder = match self.path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            File::open(folder)?.sync_all()
        };
        write().map_err(|source| self.unwritable(source))
    }

    fn unwritable(&self, source: io::Error) -> StateError {
        StateError::Write {
            path: self.display(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_and_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.syncline-send");
        let mut file = StateFile::open(path.clone()).unwrap();
        assert_eq!(file.state(), None);
        file.begin(State::new("p".into(), 7)).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"version\":1,\"producer\":\"p\",\"base\":7,\"refused\":0}\n"
        );
        file.set_refused(2).unwrap();

        let mut again = StateFile::open(path.clone()).unwrap();
        let state = again.begin(State::new("p".into(), 99)).unwrap();
        assert_eq!((state.base, state.refused), (7, 2));
        again.remove().unwrap();
        again.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_state_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for text in [
            "",
            "precious",
            "{\"version\":2,\"producer\":\"p\",\"base\":1}",
        ] {
            fs::write(&path, text).unwrap();
            let error = StateFile::open(path.clone()).unwrap_err();
            assert!(matches!(error, StateError::Broken { .. }), "{error}");
        }
    }
}
