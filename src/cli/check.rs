//! `syncline check`: validates the settings offline.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use serde_json::json;
use syncline::settings::{Problems, SecretSource, Settings};

use super::exit::Exit;

/// Validates a config file without starting anything
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline check --config syncline.toml\n\n\
    Exits with 0 when the file is valid, with 78 when it is not.")]
pub(crate) struct Arguments {
    /// The file to check
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Prints the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let read = Settings::load(Some(&arguments.config));
    let exit = if read.is_ok() { Exit::Ok } else { Exit::Config };
    let written = match (&read, arguments.json) {
        (Ok(settings), false) => print_valid(arguments, settings),
        (Ok(settings), true) => print_json(&json!({
            "valid": true, "problems": [], "warnings": secret_warnings(settings),
        })),
        (Err(problems), false) => print_problems(problems),
        (Err(problems), true) => {
            print_json(&json!({"valid": false, "problems": problems.to_json(), "warnings": []}))
        }
    };
    if written.is_err() { Exit::Io } else { exit }
}

fn print_valid(arguments: &Arguments, settings: &Settings) -> std::io::Result<()> {
    for warning in secret_warnings(settings) {
        writeln!(std::io::stderr(), "warning: {warning}")?;
    }
    writeln!(
        std::io::stdout(),
        "{}: valid ({} accounts, {} objects)",
        arguments.config.display(),
        settings.providers.len(),
        settings.objects.len(),
    )
}

fn print_problems(problems: &Problems) -> std::io::Result<()> {
    let mut stderr = std::io::stderr();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    writeln!(
        stderr,
        "{}\n{}",
        problems.one_liners(),
        problems.rendered(colour)
    )
}

fn print_json(value: &serde_json::Value) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{value}")
}

/// Secrets that are not to be had here. They may be on the machine that
/// serves, so the file is not wrong. Programs are not run: a check changes nothing.
fn secret_warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, provider) in &settings.providers {
        for source in provider.secrets() {
            if matches!(source, SecretSource::Exec(_)) {
                continue;
            }
            if let Err(error) = source.resolve() {
                warnings.push(format!("account `{name}`: {error}"));
            }
        }
    }
    warnings
}
