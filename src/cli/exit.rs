//! Exit statuses, as BSD's `sysexits.h` numbers them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// `EX_USAGE`: the command line was wrong.
    Usage = 64,
    /// `EX_IOERR`: reading or writing failed on this side.
    Io = 74,
    /// `EX_CONFIG`: the settings are wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
