//! The command line: what it accepts, and which command answers.

mod check;
mod exit;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Exit;

/// Keeps records in step between your system and external APIs.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
}

/// Runs the command that the process's arguments name.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse_usage(&error),
    };
    match arguments.command {
        Command::Check(arguments) => check::run(&arguments).into(),
    }
}

/// Help and version are answers, not errors; clap's own exit status is no sysexit.
fn refuse_usage(error: &clap::Error) -> ExitCode {
    if error.print().is_err() {
        return Exit::Io.into();
    }
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Ok.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn shows_one(command: &clap::Command) {
            for inner in command.get_subcommands() {
                let help = inner
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let has_children = inner.get_subcommands().next().is_some();
                assert!(
                    has_children || help.contains("syncline "),
                    "{}",
                    inner.get_name()
                );
                shows_one(inner);
            }
        }
        shows_one(&Arguments::command());
    }
}
