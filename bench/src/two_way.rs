//! `two-way`: rows change in a PostgreSQL that is System A; how soon the account is called.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use hdrhistogram::Histogram;
use postgres::{Address, Connection, Host};
use serde_json::json;

use crate::batch::drain;
use crate::cluster::Cluster;
use crate::http::Asker;
use crate::machine;
use crate::places;
use crate::program::{Program, ProgramSettings};
use crate::simulated::SimulatedAccount;

/// Without the snapshot's rows for so long, they do not come.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
/// The longest latency that is told apart.
const LATENCY_MS_MAX: u64 = 600_000;

/// The options of `two-way`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TwoWaySettings {
    /// Changes a second, at scheduled instants
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    rate: u64,

    /// For so long
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds: u64,

    /// Rows they fall on, one after the other
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    rows: u64,

    /// Connections that change them, a transaction each time
    #[arg(long, value_name = "N", default_value_t = 8)]
    connections: u64,

    /// `[shards] count`; default: the program's
    #[arg(long, value_name = "N")]
    shards: Option<u32>,

    /// The program to measure; default: `syncline` beside this binary
    #[arg(long, value_name = "FILE")]
    bin: Option<PathBuf>,

    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// One run: exit status 0 only when each change became a call.
pub(crate) fn run(settings: &TwoWaySettings) -> Result<ExitCode, Box<dyn Error>> {
    let bin = match &settings.bin {
        Some(bin) => bin.clone(),
        None => places::built_into()?.join("syncline"),
    };
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(unavailable) => {
            unavailable.skip("two-way");
            return Ok(ExitCode::FAILURE);
        }
    };
    let address = cluster.address("postgres");
    let parent = places::target()?.join("bench");
    fs::create_dir_all(&parent)?;
    let folder = tempfile::Builder::new()
        .prefix("two-way-")
        .tempdir_in(&parent)?;
    sql(
        &address,
        &format!(
            "CREATE TABLE contacts (id text PRIMARY KEY, n bigint);
             INSERT INTO contacts SELECT 'r-' || k, 0 FROM generate_series(0, {}) k",
            settings.rows.saturating_sub(1)
        ),
    )?;
    let url = folder.path().join("url");
    fs::write(&url, socket_url(&address)?)?;
    fs::set_permissions(&url, fs::Permissions::from_mode(0o600))?;
    let provider = SimulatedAccount::start(&bin, &[], folder.path())?;
    let account = format!(
        "fold = false\n[system_a.postgres]\nurl = \"file:{}\"\n\
         [objects.contact]\nsource = {{ table = \"public.contacts\", key = \"id\" }}\n",
        url.display()
    );
    let program_settings = ProgramSettings {
        shards: settings.shards,
        durability: "fsync",
        sink: provider.addr,
        max_in_flight: 64,
        account: &account,
    };
    let program = Program::start(&bin, &program_settings, folder.path())?;
    wait_for_snapshot(&provider, settings.rows)?;
    drain(&mut Asker::connect(program.http)?)?;
    let before = calls_by_row(&provider)?;
    let begun = Instant::now();
    let begun_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let late = change(settings, &address, begun)?;
    let changing = begun.elapsed();
    // Anew: the program closes connections that nothing was asked on for a while.
    drain(&mut Asker::connect(program.http)?)?;
    let (latency, missing) = latency(settings, begun_ms, &before, &calls_by_row(&provider)?)?;
    program.stop()?;
    provider.stop()?;

    let at = |quantile: f64| latency.value_at_quantile(quantile);
    let report = json!({
        "scenario": "two-way", "commit": machine::commit(),
        "rate": settings.rate, "seconds": settings.seconds, "rows": settings.rows,
        "connections": settings.connections, "changes": settings.rate * settings.seconds,
        "changing_seconds": changing.as_secs_f64(), "latest_change_ms": late.as_millis() as u64,
        "missing_calls": missing,
        "commit_to_call_ms": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "p99.9": at(0.999),
            "max": latency.max()},
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    if let Some(out) = &settings.out {
        fs::write(out, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(if missing == 0 {
        ExitCode::SUCCESS
    } else {
        eprintln!("syncline-bench: {missing} changes became no call");
        ExitCode::FAILURE
    })
}

/// When the n-th change is due.
fn due(settings: &TwoWaySettings, n: u64) -> Duration {
    Duration::from_secs_f64(n as f64 / settings.rate as f64)
}

/// Changes rows at their instants; how far behind the latest one began.
fn change(
    settings: &TwoWaySettings,
    address: &Address,
    begun: Instant,
) -> Result<Duration, Box<dyn Error>> {
    let total = settings.rate * settings.seconds;
    let changers: Vec<_> = (0..settings.connections)
        .map(|first| {
            let (settings, address) = (settings.clone(), address.clone());
            thread::spawn(move || changer(&settings, &address, begun, first, total))
        })
        .collect();
    let mut latest = Duration::ZERO;
    for changer in changers {
        let late = changer.join().map_err(|_| "a changer panicked")?;
        latest = latest.max(late?);
    }
    Ok(latest)
}

fn changer(
    settings: &TwoWaySettings,
    address: &Address,
    begun: Instant,
    first: u64,
    total: u64,
) -> Result<Duration, String> {
    let runtime = runtime().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut connection = Connection::open(address)
            .await
            .map_err(|error| error.to_string())?;
        let mut latest = Duration::ZERO;
        for n in (first..total).step_by(settings.connections as usize) {
            let due = due(settings, n);
            let at = tokio::time::Instant::from_std(begun + due);
            tokio::time::sleep_until(at).await;
            latest = latest.max(begun.elapsed().saturating_sub(due));
            let row = n % settings.rows;
            let change = format!("UPDATE contacts SET n = {} WHERE id = 'r-{row}'", n + 1);
            let changed = connection.query(&change).await;
            changed.map_err(|error| error.to_string())?;
        }
        connection.close().await;
        Ok(latest)
    })
}

/// When each row was called for, in order.
type Calls = HashMap<String, Vec<u64>>;

fn calls_by_row(provider: &SimulatedAccount) -> Result<Calls, Box<dyn Error>> {
    let mut calls = Calls::new();
    for call in provider.seen()?.into_iter().filter(|call| call.is_done()) {
        calls.entry(call.external_id).or_default().push(call.at_ms);
    }
    Ok(calls)
}

/// From the instant that a change was due to its call, and how many have none.
fn latency(
    settings: &TwoWaySettings,
    begun_ms: u64,
    before: &Calls,
    after: &Calls,
) -> Result<(Histogram<u64>, u64), Box<dyn Error>> {
    let mut latency = Histogram::new_with_bounds(1, LATENCY_MS_MAX, 3)?;
    let mut missing = 0;
    for n in 0..settings.rate * settings.seconds {
        let row = format!("r-{}", n % settings.rows);
        let earlier = before.get(&row).map_or(0, Vec::len) + (n / settings.rows) as usize;
        let due_ms = begun_ms + due(settings, n).as_millis() as u64;
        match after.get(&row).and_then(|calls| calls.get(earlier)) {
            Some(at_ms) => latency.saturating_record(at_ms.saturating_sub(due_ms).max(1)),
            None => missing += 1,
        }
    }
    Ok((latency, missing))
}

fn wait_for_snapshot(provider: &SimulatedAccount, rows: u64) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while (calls_by_row(provider)?.len() as u64) < rows {
        if begun.elapsed() > PATIENCE {
            return Err("the rows of the snapshot do not come".into());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

fn socket_url(address: &Address) -> Result<String, Box<dyn Error>> {
    let Host::Socket(folder) = &address.host else {
        return Err("the server is reached by its socket".into());
    };
    Ok(format!(
        "postgres://postgres@localhost:{}/{}?host={}",
        address.port,
        address.database,
        folder.display()
    ))
}

fn sql(address: &Address, statements: &str) -> Result<(), Box<dyn Error>> {
    runtime()?.block_on(async {
        let mut connection = Connection::open(address).await?;
        connection.query(statements).await?;
        connection.close().await;
        Ok(())
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TwoWaySettings {
        TwoWaySettings {
            rate: 2,
            seconds: 2,
            rows: 2,
            connections: 1,
            shards: None,
            bin: None,
            out: None,
        }
    }

    #[test]
    fn a_change_is_matched_with_its_own_call_and_one_without_is_missing() {
        let before = Calls::from([("r-0".to_owned(), vec![1]), ("r-1".to_owned(), vec![1])]);
        let after = Calls::from([
            ("r-0".to_owned(), vec![1, 1_010, 2_020]),
            ("r-1".to_owned(), vec![1, 1_530]),
        ]);
        let (latency, missing) = latency(&settings(), 1_000, &before, &after).unwrap();
        assert_eq!(missing, 1);
        assert_eq!((latency.len(), latency.min(), latency.max()), (3, 10, 30));
    }
}
