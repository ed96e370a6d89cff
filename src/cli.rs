//! The command line: what it accepts, and which command answers.

mod check;
mod client;
mod demo;
mod dlq;
mod exit;
mod explain;
mod fixtures;
mod hold;
mod keys;
mod mock;
mod outcome;
mod providers;
mod replay;
mod send;
mod serve;
mod status;
mod subscribe;
mod table;
mod wal;
mod walks;

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
    Demo(demo::Arguments),
    Serve(serve::Arguments),
    Send(send::Arguments),
    Subscribe(subscribe::Arguments),
    Check(check::Arguments),
    Test(fixtures::Arguments),
    Status(status::Arguments),
    Explain(explain::Arguments),
    Dlq(dlq::Arguments),
    Replay(replay::Arguments),
    Backfill(walks::BackfillArguments),
    Reconcile(walks::ReconcileArguments),
    Providers(providers::Arguments),
    Pause(hold::PauseArguments),
    Resume(hold::ResumeArguments),
    Keys(keys::Arguments),
    Mock(mock::MockArgs),
    Wal(wal::Arguments),
}

/// Runs the command that the process's arguments name.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse_usage(&error).into(),
    };
    let exit = match arguments.command {
        Command::Mock(arguments) => return mock::run(arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Send(arguments) => send::run(&arguments),
        Command::Subscribe(arguments) => subscribe::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Test(arguments) => fixtures::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Dlq(arguments) => dlq::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Backfill(arguments) => walks::backfill(&arguments),
        Command::Reconcile(arguments) => walks::reconcile(&arguments),
        Command::Providers(arguments) => providers::run(&arguments),
        Command::Pause(arguments) => hold::pause(&arguments),
        Command::Resume(arguments) => hold::resume(&arguments),
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Wal(arguments) => wal::run(&arguments),
    };
    exit.into()
}

/// Help and version are answers, not errors; clap's own exit status is no sysexit.
fn refuse_usage(error: &clap::Error) -> Exit {
    if error.print().is_err() {
        return Exit::Io;
    }
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Ok
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            for inner in command.get_subcommands() {
                let help = inner
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(help.contains("  syncline "), "{}", inner.get_name());
                check(inner);
            }
        }
        check(&Arguments::command());
    }
}
