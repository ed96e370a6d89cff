//! `quota`: how much of what its accounts allow is used, and what one account or record in trouble
//! does to the others.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use net::client::{Client, Options};
use serde_json::{Value, json};

use crate::batch::{drain, refuse};
use crate::http::Asker;
use crate::machine;
use crate::places;
use crate::program::{Program, ProgramSettings};
use crate::simulated::{Seen, SimulatedAccount};

/// The account that fails, and whose record is hot.
const FIRST: usize = 0;
/// The one record that may take a share of all events.
const HOT: &str = "hot";

/// The options of `quota`.
#[derive(Clone, Debug, Args)]
pub(crate) struct QuotaSettings {
    /// Provider accounts, each a process of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    accounts: u16,

    /// Calls per second that each allows, or one after the other
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "100")]
    limit: Vec<u32>,

    /// Events offered, as a share of what all accounts allow; above 1 is a backlog
    #[arg(long, value_name = "SHARE", default_value_t = 2.0)]
    load: f64,

    /// Seconds of load
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds: u64,

    /// End with the load, whatever is left of a backlog
    #[arg(long)]
    cut: bool,

    /// The accounts stand behind one name, as a pool
    #[arg(long)]
    pool: bool,

    /// Seconds for which the first account answers 503, after a quarter of the load
    #[arg(long, value_name = "N", default_value_t = 0)]
    outage: u64,

    /// Share of all events that fall on one record of the first account
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    hot: f64,

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

impl QuotaSettings {
    fn limit_of(&self, account: usize) -> u32 {
        let last = self.limit.last().copied().unwrap_or(1);
        self.limit.get(account).copied().unwrap_or(last)
    }
}

/// One run: exit status 0 only when everything arrived and no limit was broken.
pub(crate) fn run(settings: &QuotaSettings) -> Result<ExitCode, Box<dyn Error>> {
    let bin = match &settings.bin {
        Some(bin) => bin.clone(),
        None => places::built_into()?.join("syncline"),
    };
    let parent = places::target()?.join("bench");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::Builder::new()
        .prefix("quota-")
        .tempdir_in(&parent)?;
    let accounts = start_accounts(settings, &bin, folder.path())?;
    let tables = tables(settings, &accounts);
    let program_settings = ProgramSettings {
        shards: settings.shards,
        durability: "fsync",
        sink: accounts[FIRST].addr,
        max_in_flight: 32,
        account: &tables,
    };
    let program = Program::start(&bin, &program_settings, folder.path())?;
    let sent = send(settings, &program, &accounts[FIRST])?;
    if !settings.cut {
        drain(&mut Asker::connect(program.http)?)?;
    }
    let mut rows = Vec::new();
    let (mut over, mut lost) = (0, 0);
    let mut arrived: HashMap<&str, u64> = HashMap::new();
    let seen: Vec<Vec<Seen>> = accounts
        .iter()
        .map(SimulatedAccount::seen)
        .collect::<Result<_, _>>()?;
    for (at, (account, seen)) in accounts.iter().zip(&seen).enumerate() {
        over += account.page("violations")?["total"].as_u64().unwrap_or(0);
        for call in seen.iter().filter(|call| call.is_done()) {
            arrived.entry(&call.external_id).or_insert(call.at_ms);
        }
        rows.push(row(settings, at, seen, &sent));
    }
    for id in sent.keys().filter(|_| !settings.cut) {
        lost += u64::from(!arrived.contains_key(id.as_str()));
    }
    program.stop()?;
    for account in accounts {
        account.stop()?;
    }
    let report = json!({
        "scenario": "quota", "commit": machine::commit(), "accounts": settings.accounts,
        "limits_per_second": settings.limit, "cut": settings.cut, "events": sent.len(), "load": settings.load, "seconds": settings.seconds,
        "pool": settings.pool, "outage_seconds": settings.outage, "hot_share": settings.hot,
        "calls_over_a_limit": over, "records_that_never_arrived": lost, "by_account": rows,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    if let Some(out) = &settings.out {
        std::fs::write(out, serde_json::to_vec_pretty(&report)?)?;
    }
    if over == 0 && lost == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("syncline-bench: the run is not sound");
    Ok(ExitCode::FAILURE)
}

/// When each record was sent first, in ms of Unix time.
type Sent = HashMap<String, u64>;

fn start_accounts(
    settings: &QuotaSettings,
    bin: &Path,
    folder: &Path,
) -> Result<Vec<SimulatedAccount>, Box<dyn Error>> {
    let mut accounts = Vec::new();
    for at in 0..settings.accounts.max(1) {
        let limits = [format!("{}/1s", settings.limit_of(usize::from(at)))];
        let own = folder.join(format!("account-{at}"));
        std::fs::create_dir(&own)?;
        accounts.push(SimulatedAccount::start(bin, &limits, &own)?);
    }
    Ok(accounts)
}

/// The rest of the first account's table, and those of the others.
fn tables(settings: &QuotaSettings, accounts: &[SimulatedAccount]) -> String {
    let limit = |name: &str, at: usize| {
        format!(
            "[[providers.{name}.limits]]\nname = \"calls\"\nkind = \"sliding\"\nlimit = {}\nwindow = \"1s\"\n",
            settings.limit_of(at)
        )
    };
    let mut tables = limit("sink", FIRST);
    for (at, account) in accounts.iter().enumerate().skip(1) {
        let name = name_of(at);
        let table = format!(
            "[providers.{name}]\ntype = \"rest\"\nbase_url = \"http://{}\"\nmax_in_flight = 32\n",
            account.addr
        );
        tables += &table;
        tables += &limit(&name, at);
    }
    if settings.pool {
        let members: Vec<String> = (0..accounts.len()).map(name_of).collect();
        // Writing to a string does not fail.
        let _written = writeln!(tables, "[pools.all]\nmembers = {members:?}");
    }
    tables
}

fn name_of(account: usize) -> String {
    match account {
        FIRST => "sink".to_owned(),
        other => format!("account_{other}"),
    }
}

/// Sends in an open loop: each event when it is due.
fn send(
    settings: &QuotaSettings,
    program: &Program,
    first: &SimulatedAccount,
) -> Result<Sent, Box<dyn Error>> {
    let limits = (0..usize::from(settings.accounts)).map(|at| f64::from(settings.limit_of(at)));
    let per_s = limits.sum::<f64>() * settings.load;
    let events = (per_s * settings.seconds as f64) as u64;
    let mut client = Client::connect(Options::new(program.tcp.to_string(), "bench"))?;
    let begun = Instant::now();
    let mut outage_due = (settings.outage > 0).then_some(settings.seconds / 4);
    let mut sent = Sent::new();
    for n in 0..events {
        let due = Duration::from_secs_f64(n as f64 / per_s);
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            client.push()?;
            thread::sleep(early);
        }
        if outage_due.is_some_and(|at| due.as_secs() >= at) {
            outage_due = None;
            first.fail_for(Duration::from_secs(settings.outage))?;
        }
        let hot = |n: u64| (n as f64 * settings.hot) as u64;
        let is_hot = hot(n + 1) > hot(n);
        let (account, record) = if is_hot {
            (FIRST, HOT.to_owned())
        } else {
            (
                (n % u64::from(settings.accounts)) as usize,
                format!("r-{n}"),
            )
        };
        let provider = if settings.pool {
            "all".to_owned()
        } else {
            name_of(account)
        };
        let event = format!(
            r#"{{"operation":"UPSERT","provider":"{provider}","object":"contact","record_id":"{record}","data":{{"n":{n}}}}}"#
        );
        sent.entry(record).or_insert_with(unix_ms);
        client.send(event.as_bytes())?;
        while let Some(notice) = client.next_notice() {
            refuse(&notice)?;
        }
    }
    client.flush()?;
    while let Some(notice) = client.next_notice() {
        refuse(&notice)?;
    }
    Ok(sent)
}

/// What one account saw, and how long its records took from being sent to arriving there.
fn row(settings: &QuotaSettings, at: usize, seen: &[Seen], sent: &Sent) -> Value {
    let done: Vec<&Seen> = seen.iter().filter(|call| call.is_done()).collect();
    let records: std::collections::HashSet<&str> =
        done.iter().map(|call| call.external_id.as_str()).collect();
    let mut took_ms: Vec<u64> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for call in &done {
        let first = call.external_id != HOT && known.insert(call.external_id.as_str());
        if let Some(at) = sent.get(&call.external_id).filter(|_| first) {
            took_ms.push(call.at_ms.saturating_sub(*at));
        }
    }
    took_ms.sort_unstable();
    let percentile = |percent: usize| took_ms.get(took_ms.len() * percent / 100);
    json!({
        "account": name_of(at), "calls": seen.len(), "records": records.len(),
        "calls_for_the_hot_record": seen.iter().filter(|call| call.external_id == HOT).count(),
        "refused": seen.iter().filter(|call| call.status == 429).count(),
        "failed": seen.len() - done.len(),
        "used": used(&done, settings.limit_of(at)),
        "p50_ms": percentile(50), "p99_ms": percentile(99), "max_ms": took_ms.last(),
    })
}

/// Share of the limit, from the first call to the last one that is as many windows later as there
/// are whole ones: at the same place of a lap, so that neither the burst at the start nor a lap that
/// was cut off counts for or against it.
fn used(done: &[&Seen], limit: u32) -> f64 {
    let laps = done.len().saturating_sub(1) / limit as usize;
    let (Some(first), Some(last)) = (done.first(), done.get(laps * limit as usize)) else {
        return 0.0;
    };
    let seconds = (last.at_ms - first.at_ms) as f64 / 1000.0;
    laps as f64 / seconds.max(0.001)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: &str, at_ms: u64, status: u64) -> Seen {
        Seen {
            external_id: id.into(),
            at_ms,
            status,
        }
    }

    #[test]
    fn a_full_window_each_second_is_all_of_a_limit() {
        let even: Vec<Seen> = (0..1001).map(|n| seen("r", n * 10, 200)).collect();
        let bursts: Vec<Seen> = (0..1050).map(|n| seen("r", n / 100 * 1000, 200)).collect();
        for calls in [even, bursts] {
            let calls: Vec<&Seen> = calls.iter().collect();
            assert_eq!(used(&calls, 100), 1.0);
        }
    }

    #[test]
    fn a_lap_that_takes_longer_than_its_window_is_a_part_of_the_limit() {
        let calls: Vec<Seen> = (0..1050).map(|n| seen("r", n / 100 * 1250, 200)).collect();
        let calls: Vec<&Seen> = calls.iter().collect();
        assert_eq!(used(&calls, 100), 0.8);
        assert_eq!(
            used(&calls[..100], 100),
            0.0,
            "the first window says nothing"
        );
    }

    #[test]
    fn a_record_counts_by_its_first_arrival_and_the_hot_one_not_at_all() {
        let settings = QuotaSettings {
            accounts: 1,
            limit: vec![10],
            load: 1.0,
            seconds: 1,
            cut: false,
            pool: false,
            outage: 0,
            hot: 0.5,
            shards: None,
            bin: None,
            out: None,
        };
        let calls = [
            seen("r-1", 105, 503),
            seen("r-1", 130, 200),
            seen("r-1", 900, 200),
            seen(HOT, 999, 200),
        ];
        let sent = [("r-1".to_owned(), 100), (HOT.to_owned(), 0)].into();
        let row = row(&settings, 0, &calls, &sent);
        assert_eq!(row["max_ms"], 30);
        assert_eq!(
            (&row["calls"], &row["records"], &row["failed"]),
            (&json!(4), &json!(2), &json!(1))
        );
    }
}
