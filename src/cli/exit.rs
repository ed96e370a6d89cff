//! Exit statuses, as BSD's `sysexits.h` numbers them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// What was tested does not hold.
    Failed = 1,
    /// `EX_USAGE`: the command line was wrong.
    Usage = 64,
    /// `EX_DATAERR`: what was given is refused.
    Data = 65,
    /// `EX_NOINPUT`: what was named is not there.
    NoInput = 66,
    /// `EX_UNAVAILABLE`: the node cannot be reached, or what was asked for is not there.
    Unavailable = 69,
    /// `EX_OSERR`: the system would not give what was needed.
    Os = 71,
    /// `EX_IOERR`: reading or writing failed on this side.
    Io = 74,
    /// `EX_TEMPFAIL`: may work later.
    TryLater = 75,
    /// `EX_PROTOCOL`: what answered is no Syncline.
    Protocol = 76,
    /// `EX_NOPERM`: the key is missing or may not do this.
    NoPermission = 77,
    /// `EX_CONFIG`: the settings are wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
