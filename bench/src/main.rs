//! `syncline-bench`: loads the real program and measures it.

#![forbid(unsafe_code)]

extern crate postgres as syncline_postgres;

mod batch;
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the connector's tests use the rest of it, and panic where it cannot be set up"
)]
#[path = "../../postgres/tests/server/cluster.rs"]
mod cluster;
mod compare;
mod events;
mod figures;
mod http;
mod load;
mod machine;
mod places;
mod process;
mod program;
mod quota;
mod report;
mod scenario;
mod settings;
mod simulated;
mod sink;
mod two_way;
mod watch;
mod wire;
mod yardstick;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};

use crate::machine::Machine;
use crate::report::{Report, summarize};
use crate::scenario::{RunError, Scenario};
use crate::settings::Settings;

/// Measures the real `syncline serve` on this machine, and compares measurements.
#[derive(Debug, Parser)]
#[command(
    name = "syncline-bench",
    after_help = "\
Example:
  cargo build --release --workspace
  cargo run --release -p syncline-bench -- ingest --rate 50000 --seconds 10 --runs 3
  cargo run --release -p syncline-bench -- deliver --runs 3 --out target/bench/after
  cargo run --release -p syncline-bench -- compare target/bench/before.json target/bench/after.json"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Durable intake alone, while the account is paused
    Ingest(Settings),
    /// Events in, one HTTP call each out, counted at nginx
    Deliver(Settings),
    /// A backlog of changes on a skewed choice of records: records per call under a limit
    Batch(batch::BatchSettings),
    /// Accounts under their limits: what is used of them, and what one in trouble does to the others
    Quota(quota::QuotaSettings),
    /// Rows of a PostgreSQL that change, and how soon the account is called
    TwoWay(two_way::TwoWaySettings),
    /// Ratios between two reports
    Compare {
        /// The one before
        a: PathBuf,
        /// The one after
        b: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Ingest(settings) => measure(Scenario::Ingest, settings.settled(false)),
        Command::Deliver(settings) => measure(Scenario::Deliver, settings.settled(true)),
        Command::Batch(settings) => batch::run(&settings),
        Command::Quota(settings) => quota::run(&settings),
        Command::TwoWay(settings) => two_way::run(&settings),
        Command::Compare { a, b } => compare_files(&a, &b),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            eprintln!("syncline-bench: {text}");
            ExitCode::FAILURE
        }
    }
}

fn compare_files(a: &Path, b: &Path) -> Result<ExitCode, Box<dyn Error>> {
    print!("{}", compare::table(&Report::read(a)?, &Report::read(b)?));
    Ok(ExitCode::SUCCESS)
}

fn measure(scenario: Scenario, settings: Settings) -> Result<ExitCode, Box<dyn Error>> {
    let mut runs = Vec::new();
    for run in 1..=settings.runs {
        eprintln!("{}: run {run} of {}", scenario.name(), settings.runs);
        runs.push(scenario.run(&settings).map_err(Box::<RunError>::new)?);
    }
    let folder = places::target()?.join("bench");
    let at_unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let report = Report {
        version: report::VERSION,
        scenario: scenario.name().to_owned(),
        commit: machine::commit(),
        at_unix_seconds,
        machine: Machine::here(&folder),
        settings: settings.named(),
        summary: summarize(&runs),
        runs,
    };
    let prefix = settings.out.clone().unwrap_or_else(|| {
        let commit: String = report.commit.chars().take(12).collect();
        folder.join(format!("{}-{commit}-{at_unix_seconds}", scenario.name()))
    });
    let [json, html] = report.write(&prefix)?;
    print!("{}", report.table());
    println!("{}\n{}", json.display(), html.display());
    Ok(verdict(&report))
}

/// A run that lost or refused events is told by the exit status too.
fn verdict(report: &Report) -> ExitCode {
    let mut all_well = true;
    for run in &report.runs {
        for (code, count) in &run.refused {
            eprintln!("syncline-bench: {count} events were refused: {code}");
        }
        for error in &run.broken_connections {
            eprintln!("syncline-bench: a connection broke: {error}");
        }
        if let Some(delivery) = &run.delivery
            && !delivery.drained
        {
            eprintln!(
                "syncline-bench: {} of {} accepted events were delivered",
                delivery.delivered, run.events_accepted
            );
            all_well = false;
        }
        all_well &= run.events_accepted == run.events_attempted && run.events_accepted > 0;
    }
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
