//! `batch`: how few calls a backlog of changes takes, and whether each change was told its end.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use net::client::{Client, Notice, Options};
use serde_json::{Value, json};

use crate::http::Asker;
use crate::machine;
use crate::places;
use crate::program::{Program, ProgramSettings};
use crate::scenario::pause;
use crate::simulated::{Calls, SimulatedAccount};

/// Fields of a record; an event writes one or two of them.
const FIELDS: u64 = 8;
/// Without progress for so long, the backlog does not drain.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// The options of `batch`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BatchSettings {
    /// Changes to send
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    events: u64,

    /// Record ids they fall on, by Zipf's law with exponent 1
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    records: u64,

    /// Calls per second that the provider allows
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,

    /// Records a call takes
    #[arg(long, value_name = "N", default_value_t = 200)]
    items: u32,

    /// Send over so many seconds to a running account; 0: all while it is paused
    #[arg(long, value_name = "N", default_value_t = 0)]
    seconds: u64,

    /// `[shards] count`; default: the program's
    #[arg(long, value_name = "N")]
    shards: Option<u32>,

    /// What the choice of records starts from
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The program to measure; default: `syncline` beside this binary
    #[arg(long, value_name = "FILE")]
    bin: Option<PathBuf>,

    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// One run: exit status 0 only when both sides are equal, every change has its end, and no limit was
/// broken.
pub(crate) fn run(settings: &BatchSettings) -> Result<ExitCode, Box<dyn Error>> {
    let bin = match &settings.bin {
        Some(bin) => bin.clone(),
        None => places::built_into()?.join("syncline"),
    };
    let parent = places::target()?.join("bench");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::Builder::new()
        .prefix("batch-")
        .tempdir_in(&parent)?;
    let limit = format!("{}/1s", settings.limit);
    let provider = SimulatedAccount::start(&bin, &[limit], folder.path())?;
    let account = format!(
        "[[providers.sink.limits]]\nname = \"calls\"\nkind = \"sliding\"\nlimit = {}\nwindow = \"1s\"\n\
         [providers.sink.batch]\nmax_items = {}\n",
        settings.limit, settings.items
    );
    let program_settings = ProgramSettings {
        shards: settings.shards,
        durability: "fsync",
        sink: provider.addr,
        max_in_flight: 32,
        account: &account,
    };
    let program = Program::start(&bin, &program_settings, folder.path())?;
    if settings.seconds == 0 {
        pause(program.http)?;
    }
    let begun = Instant::now();
    let expected = send(settings, &program)?;
    eprintln!(
        "{} changes of {} records are durable after {:.1} s",
        settings.events,
        expected.len(),
        begun.elapsed().as_secs_f64()
    );
    // A connection that idles for as long as sending takes would be closed.
    let mut api = Asker::connect(program.http)?;
    let resumed = Instant::now();
    if settings.seconds == 0 {
        let (status, _) = api.ask("POST", "/v1/resume", br#"{"provider":"sink"}"#)?;
        if status != 200 {
            return Err(format!("POST /v1/resume answered {status}").into());
        }
    }
    drain(&mut api)?;
    let took = resumed.elapsed();
    let ends = ends(&mut api)?;
    let calls = provider.calls()?;
    let violations = provider.page("violations")?;
    let differences = differences(&provider.page("records")?, &expected);
    program.stop()?;
    provider.stop()?;

    let shards = u64::from(settings.shards.unwrap_or_else(cores));
    let least = (expected.len() as u64).div_ceil(u64::from(settings.items));
    let bound = (least as f64 * 1.05) as u64 + shards;
    let told: u64 = ends.iter().map(|(_, count)| count).sum();
    let report = json!({
        "scenario": "batch", "commit": machine::commit(), "seed": settings.seed,
        "events": settings.events, "distinct_records": expected.len(), "shards": shards,
        "limit_per_second": settings.limit, "batch_items": settings.items, "arriving_seconds": settings.seconds,
        "calls": calls.calls, "records_sent": calls.records, "records_per_call": per_call(calls),
        "records_in_largest_call": calls.records_max, "least_calls": least, "bound": bound,
        "seconds_to_drain": took.as_secs_f64(), "ends": ends.iter().cloned().collect::<HashMap<_, _>>(),
        "records_that_differ": differences, "violations": violations,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    if let Some(out) = &settings.out {
        std::fs::write(out, serde_json::to_vec_pretty(&report)?)?;
    }
    let sound = differences == 0 && told == settings.events && violations["total"] == 0;
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        eprintln!("syncline-bench: the run is not sound");
        ExitCode::FAILURE
    })
}

/// What each record must hold in the end.
type Expected = HashMap<u64, [Option<u64>; FIELDS as usize]>;

fn send(settings: &BatchSettings, program: &Program) -> Result<Expected, Box<dyn Error>> {
    let zipf = Zipf::new(settings.records);
    let mut dice = Dice(settings.seed);
    let mut expected = Expected::new();
    let mut client = Client::connect(Options::new(program.tcp.to_string(), "bench"))?;
    let begun = Instant::now();
    for n in 0..settings.events {
        if settings.seconds > 0 {
            let due =
                Duration::from_secs(settings.seconds).mul_f64(n as f64 / settings.events as f64);
            if let Some(early) = due.checked_sub(begun.elapsed()).filter(|_| n % 64 == 0) {
                client.push()?;
                thread::sleep(early);
            }
        }
        let record = zipf.draw(&mut dice);
        let field = dice.roll() % FIELDS;
        let event = format!(
            r#"{{"operation":"UPSERT","object":"contact","record_id":"r-{record}","data":{{"f{field}":{n}}}}}"#
        );
        client.send(event.as_bytes())?;
        expected.entry(record).or_default()[field as usize] = Some(n);
        while let Some(notice) = client.next_notice() {
            refuse(&notice)?;
        }
    }
    client.flush()?;
    while let Some(notice) = client.next_notice() {
        refuse(&notice)?;
    }
    Ok(expected)
}

pub(crate) fn refuse(notice: &Notice) -> Result<(), Box<dyn Error>> {
    match notice {
        Notice::Reject(reject) => Err(format!("an event was refused: {}", reject.code).into()),
        _ => Ok(()),
    }
}

/// Waits until nothing is open.
pub(crate) fn drain(api: &mut Asker) -> Result<(), Box<dyn Error>> {
    let (mut last, mut since) = (u64::MAX, Instant::now());
    loop {
        let (_, body) = api.ask("GET", "/metrics/queue", b"")?;
        let counts: Value = serde_json::from_slice(&body)?;
        let counts = counts
            .as_object()
            .ok_or("the queue's counts are no object")?;
        let open = counts.iter().filter(|(state, _)| *state != "dead_letters");
        let open: u64 = open.filter_map(|(_, count)| count.as_u64()).sum();
        if open == 0 {
            return Ok(());
        }
        if open < last {
            (last, since) = (open, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            return Err(format!("{open} operations stay open").into());
        }
        thread::sleep(POLL);
    }
}

/// Operations by outcome, from the metrics.
fn ends(api: &mut Asker) -> Result<Vec<(String, u64)>, Box<dyn Error>> {
    let (_, body) = api.ask("GET", "/metrics", b"")?;
    let text = String::from_utf8(body)?;
    let mut ends: Vec<(String, u64)> = Vec::new();
    for line in text
        .lines()
        .filter(|line| line.starts_with("syncline_operations_total{"))
    {
        let outcome = line
            .split_once("outcome=\"")
            .and_then(|(_, rest)| rest.split_once('"'));
        let count = line
            .rsplit_once(' ')
            .and_then(|(_, count)| count.parse::<f64>().ok());
        if let (Some((outcome, _)), Some(count)) = (outcome, count.filter(|&count| count > 0.0)) {
            match ends.iter_mut().find(|(known, _)| known == outcome) {
                Some((_, sum)) => *sum += count as u64,
                None => ends.push((outcome.to_owned(), count as u64)),
            }
        }
    }
    Ok(ends)
}

/// Records that are not what the last write of each field makes them.
fn differences(page: &Value, expected: &Expected) -> usize {
    let records = page["records"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut right = 0;
    for record in records {
        let id = record["external_id"]
            .as_str()
            .and_then(|id| id.strip_prefix("r-"));
        let Some(fields) = id.and_then(|id| expected.get(&id.parse().ok()?)) else {
            continue;
        };
        let holds = |field: usize| record["fields"][format!("f{field}")].as_u64();
        right += usize::from((0..fields.len()).all(|field| holds(field) == fields[field]));
    }
    expected.len() - right + records.len().saturating_sub(expected.len())
}

fn per_call(calls: Calls) -> f64 {
    calls.records as f64 / calls.calls.max(1) as f64
}

fn cores() -> u32 {
    thread::available_parallelism().map_or(1, |count| count.get() as u32)
}

/// Numbers from 0 with weight 1 / (n + 1), by a table of sums.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(count: u64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=count)
            .map(|n| {
                sum += 1.0 / n as f64;
                sum
            })
            .collect();
        Self { sums }
    }

    fn draw(&self, dice: &mut Dice) -> u64 {
        let whole = self.sums.last().copied().unwrap_or(1.0);
        let at = (dice.roll() >> 11) as f64 / (1_u64 << 53) as f64 * whole;
        self.sums.partition_point(|&sum| sum <= at) as u64
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_is_drawn_as_often_as_zipf_says() {
        let zipf = Zipf::new(1000);
        let mut dice = Dice(1);
        let draws = 100_000;
        let first = (0..draws).filter(|_| zipf.draw(&mut dice) == 0).count();
        // 1 / H(1000), where H(1000) is about 7.485.
        let share = first as f64 / f64::from(draws);
        assert!((share - 1.0 / 7.485).abs() < 0.005, "{share}");
        assert!((0..draws).all(|_| zipf.draw(&mut dice) < 1000));
    }

    #[test]
    fn a_record_with_one_wrong_or_missing_field_differs() {
        let mut expected = Expected::new();
        expected.entry(1).or_default()[2] = Some(7);
        expected.entry(2).or_default()[0] = Some(9);
        let page = json!({"records": [
            {"external_id": "r-1", "fields": {"f2": 7}},
            {"external_id": "r-2", "fields": {"f0": 8}},
        ]});
        assert_eq!(differences(&page, &expected), 1);
        assert_eq!(differences(&json!({"records": []}), &expected), 2);
    }
}
