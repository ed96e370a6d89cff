//! How a command that talks to a node ends.

use std::io::{self, Write};

use serde_json::Value;

use super::client::ApiError;
use super::exit::Exit;

/// Why a command could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The node, or the way to it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// This side's terminal or pipe.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The command line asks for something unsafe.
    #[error("{0}")]
    Usage(&'static str),
}

/// Runs a command and tells its failure on standard error.
pub(crate) fn finish(command: impl FnOnce() -> Result<Exit, Failure>) -> Exit {
    match command() {
        Ok(exit) => exit,
        // `syncline dlq list | head` is no error.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(failure) => {
            if writeln!(io::stderr(), "syncline: {failure}").is_err() {
                return Exit::Io;
            }
            match failure {
                Failure::Api(error) => error.exit(),
                Failure::Output(_) => Exit::Io,
                Failure::Usage(_) => Exit::Usage,
            }
        }
    }
}

pub(crate) fn print_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value}")
}
