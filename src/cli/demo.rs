//! `syncline demo`: the whole of it in a minute, with faults and kills, and a verdict that it checked.

mod accounts;
mod audit;
mod dice;
mod display;
mod engine_process;
mod folder;
mod interrupt;
mod provider_side;
mod script;
mod sender;
mod system_a;
mod verdict;
mod workload;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use net::client::ClientError;
use serde_json::Value;

use super::client::{Api, ApiError};
use super::exit::Exit;
use accounts::ACCOUNTS;
use audit::audit;
use display::Display;
use engine_process::{EngineError, EngineProcess, free_addresses};
use folder::Folder;
use interrupt::Interrupt;
use provider_side::{CallCounts, ProviderSide};
use script::{Act, NO_FAULTS, STANDING_FAULTS, scenes};
use sender::{Refused, Sender, Sent};
use verdict::Verdict;
use workload::Workload;

/// Shows Syncline at work: simulated accounts, faults, kills, recovery, and a checked verdict
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline demo
  syncline demo --duration 60 --rate 50 --seed 7 --no-tty
  syncline demo --records events.ndjson

It needs nothing but this program: the engine runs as a child process in a folder of its own, which
is removed at the end unless a check failed. Exit status 0 only if every check held, 65 if one did
not, 71 if something could not be run, 75 if it was interrupted.")]
pub(crate) struct Arguments {
    /// Seconds to stream events for; the backlog is drained afterwards
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    duration: u64,
    /// Events a second
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Streams the events of this file, one JSON object a line, instead of generated ones
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// What the records, the faults and the times of the kills are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Plain lines instead of a live one
    #[arg(long)]
    no_tty: bool,
}

/// Why the demo could not be played to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read the records")]
    Records(#[source] io::Error),
    #[error("cannot prepare the demo's folder")]
    Folder(#[source] io::Error),
    #[error("no two ports are free")]
    NoPorts,
    #[error("cannot start a simulated account")]
    Account(#[from] mock::server::StartError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the stream of events broke")]
    Stream(#[from] ClientError),
    #[error("the engine's API failed")]
    Api(#[from] ApiError),
    #[error("the log cannot be read")]
    Log(#[from] wal::inspect::InspectError),
    #[error("the backlog does not shrink: {0}")]
    Stuck(String),
    #[error("interrupted")]
    Interrupted,
}

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(50);
/// Between two questions to the engine about its backlog.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// A backlog that stays as it is for so long will not drain: the longest wait is for the window of
/// 60 s, when its calls are used up.
const STUCK_AFTER: Duration = Duration::from_secs(90);
/// How long a restarted engine with nothing to do is watched for calls.
const IDLE_WATCH: Duration = Duration::from_secs(1);
/// Lines shown of a list; the rest is counted.
const SHOWN_MAX: usize = 8;

/// Plays the demo.
pub(crate) fn run(arguments: &Arguments) -> Exit {
    let live = !arguments.no_tty && io::stdout().is_terminal();
    let mut display = Display::new(live);
    let folder = match Folder::create() {
        Ok(folder) => folder,
        Err(error) => return refuse(&Failure::Folder(error)),
    };
    let played = play(arguments, &folder, &mut display);
    display.finish();
    let exit = match &played {
        Ok(true) => Exit::Ok,
        Ok(false) => Exit::Data,
        Err(failure) => refuse(failure),
    };
    match played {
        Ok(true) | Err(Failure::Interrupted) => folder.remove(),
        Ok(false) | Err(_) => println!("kept for a look: {}", folder.path().display()),
    }
    exit
}

fn refuse(failure: &Failure) -> Exit {
    let mut text = failure.to_string();
    let mut source = std::error::Error::source(failure);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    eprintln!("syncline: {text}");
    match failure {
        Failure::Interrupted => Exit::TryLater,
        Failure::Records(_) => Exit::NoInput,
        Failure::Stream(_) | Failure::Api(_) | Failure::Log(_) | Failure::Stuck(_) => Exit::Data,
        Failure::Folder(_) | Failure::NoPorts | Failure::Account(_) | Failure::Engine(_) => {
            Exit::Os
        }
    }
}

/// Everything that runs while a demo does.
struct Stage<'a> {
    engine: EngineProcess,
    sides: Vec<ProviderSide>,
    api: Api,
    display: &'a mut Display,
    interrupt: Interrupt,
    backlog: Backlog,
    asked_at: Option<Instant>,
}

/// What the engine said last about its accounts.
#[derive(Debug, Default)]
struct Backlog {
    known: bool,
    depth: u64,
    held: String,
}

fn play(arguments: &Arguments, folder: &Folder, display: &mut Display) -> Result<bool, Failure> {
    let workload = match &arguments.records {
        Some(path) => Workload::file(path).map_err(Failure::Records)?,
        None => Workload::generated(arguments.seed),
    };
    let duration = match workload.left() {
        Some(events) => Duration::from_secs_f64(events as f64 / f64::from(arguments.rate))
            .max(Duration::from_secs(5)),
        None => Duration::from_secs(arguments.duration),
    };
    display.say(format!(
        "Syncline demo: {} events/s for {} s, seed {}",
        arguments.rate,
        duration.as_secs(),
        arguments.seed
    ));
    let mut stage = Stage::set(arguments.seed, folder, display)?;
    let sent = stage.stream(arguments, workload, duration)?;
    stage.drain()?;
    let verdict = stage.judge(arguments, folder, &sent)?;
    stage.conclude(&sent, &verdict);
    Ok(verdict.holds())
}

impl<'a> Stage<'a> {
    fn set(seed: u64, folder: &Folder, display: &'a mut Display) -> Result<Stage<'a>, Failure> {
        let interrupt = Interrupt::watch().map_err(Failure::Folder)?;
        let sides = ProviderSide::start_all(seed, STANDING_FAULTS)?;
        let (tcp, http) = free_addresses().ok_or(Failure::NoPorts)?;
        let mut config = format!(
            "[server]\ndata_dir = {:?}\n[listen]\ntcp = \"{tcp}\"\nhttp = \"{http}\"\n\
             [shards]\ncount = 2\n[log]\nformat = \"text\"\n",
            folder.data_dir()
        );
        for side in &sides {
            config += &side.plan.config(&side.base_url());
        }
        let path = folder.path().join("demo.toml");
        std::fs::write(&path, config).map_err(Failure::Folder)?;
        let engine = EngineProcess::start(&path, &folder.path().join("engine.log"), tcp)?;
        let api = Api::parse(&format!("http://{http}"))?;
        display.say(format!(
            "  engine    process {}, events at tcp://{}",
            engine.pid(),
            engine.tcp()
        ));
        // The console answers with a page, which is not the JSON that the API speaks.
        let console = matches!(api.get("/"), Ok(_) | Err(ApiError::Protocol(_)));
        let what = if console { "console and API" } else { "API" };
        display.say(format!(
            "  {what:<9} http://{http} (metrics at /metrics, health at /health)"
        ));
        for side in &sides {
            let limits: Vec<String> = side
                .plan
                .limits
                .iter()
                .map(|(limit, ms)| format!("{limit} calls in {} s", ms / 1_000))
                .collect();
            let objects: Vec<&str> = side
                .plan
                .objects
                .iter()
                .map(|object| object.local)
                .collect();
            display.say(format!(
                "  account   {} at {}, enforces {}, takes {}",
                side.plan.name,
                side.base_url(),
                limits.join(" and "),
                objects.join(", ")
            ));
        }
        display.say(format!("  folder    {}", folder.path().display()));
        let backlog = Backlog::default();
        Ok(Stage {
            engine,
            sides,
            api,
            display,
            interrupt,
            backlog,
            asked_at: None,
        })
    }

    /// Streams the events while faults and kills come as the script says.
    fn stream(
        &mut self,
        arguments: &Arguments,
        workload: Workload,
        duration: Duration,
    ) -> Result<Sent, Failure> {
        let mut scenes: VecDeque<_> = scenes(arguments.seed, duration).into();
        let sender = Sender::start(self.engine.tcp(), workload, arguments.rate, duration);
        let begun = Instant::now();
        while !sender.is_over() {
            self.interrupt.check()?;
            self.engine.check()?;
            while let Some(scene) = scenes.pop_front_if(|scene| scene.at <= begun.elapsed()) {
                self.act(&scene.act, &sender)?;
            }
            if let Some(refused) = sender.take_first_refused() {
                self.show_refused(&refused);
            }
            self.ask();
            let (sent, acked, refused) = (sender.sent(), sender.acked(), sender.refused());
            let line = format!(
                "{sent} sent, {acked} acknowledged, {refused} refused; {}",
                self.account_line()
            );
            self.display.progress(line);
            std::thread::sleep(TICK);
        }
        Ok(sender.join()?)
    }

    fn act(&mut self, act: &Act, sender: &Sender) -> Result<(), Failure> {
        match act {
            Act::Kill => {
                self.engine.kill();
                let acked = sender.acked();
                let took = self.engine.start_again()?;
                self.display.tell(format!(
                    "SIGKILL at {acked} acknowledged; started again on the same data, listening after {} ms",
                    took.as_millis()
                ));
            }
            Act::Faults {
                account,
                length,
                faults,
                told,
            } => {
                let side = &self.sides[*account];
                side.add_faults(*length, faults);
                self.display.tell(format!(
                    "{}: {told}, for {:.1} s",
                    side.plan.name,
                    length.as_secs_f64()
                ));
            }
        }
        Ok(())
    }

    fn show_refused(&self, refused: &Refused) {
        let reject = &refused.reject;
        let pointer = reject.pointer.as_deref().unwrap_or("the whole event");
        self.display.tell(format!(
            "refused, and no neighbour harmed:\n           {}\n           {} at {pointer}: {}",
            refused.event, reject.code, reject.detail
        ));
    }

    /// Asks for the backlog when it is time; an engine that is down does not answer.
    fn ask(&mut self) {
        if self.asked_at.is_some_and(|at| at.elapsed() < ASK_EVERY) {
            return;
        }
        self.asked_at = Some(Instant::now());
        self.backlog = Backlog {
            known: true,
            ..Backlog::default()
        };
        for side in &self.sides {
            let Ok(status) = self
                .api
                .get(&format!("/v1/providers/{}/status", side.plan.name))
            else {
                self.backlog.known = false;
                return;
            };
            self.backlog.depth += status["queue_depth"].as_u64().unwrap_or(u64::MAX / 4);
            let breaker = status["breaker"].as_str().unwrap_or("unknown");
            if breaker != "closed" {
                self.backlog.held += &format!(", breaker of {} {breaker}", side.plan.name);
            }
        }
    }

    fn account_line(&self) -> String {
        let calls: Vec<String> = self
            .sides
            .iter()
            .map(|side| format!("{} {}", side.plan.name, side.counts().calls))
            .collect();
        let backlog = match self.backlog.known {
            true => self.backlog.depth.to_string(),
            false => "?".to_owned(),
        };
        format!(
            "calls {}; backlog {backlog}{}",
            calls.join(", "),
            self.backlog.held
        )
    }

    /// Turns the faults off and waits until nothing is open any more.
    fn drain(&mut self) -> Result<(), Failure> {
        for side in &self.sides {
            side.set_faults(NO_FAULTS);
        }
        self.display.tell("faults off; waiting for the backlog");
        let (mut lowest, mut since) = (u64::MAX, Instant::now());
        loop {
            self.interrupt.check()?;
            self.engine.check()?;
            self.ask();
            if self.backlog.known && self.backlog.depth == 0 {
                self.display
                    .tell(format!("the backlog is empty; {}", self.account_line()));
                return Ok(());
            }
            if self.backlog.known && self.backlog.depth < lowest {
                (lowest, since) = (self.backlog.depth, Instant::now());
            }
            if since.elapsed() > STUCK_AFTER {
                return Err(Failure::Stuck(self.open_operations()));
            }
            let line = self.account_line();
            self.display.progress(line);
            std::thread::sleep(TICK);
        }
    }

    fn open_operations(&self) -> String {
        let mut shown = Vec::new();
        for state in ["queued", "waiting", "in_flight", "retrying", "unknown"] {
            let Ok(list) = self
                .api
                .get(&format!("/v1/operations?state={state}&limit={SHOWN_MAX}"))
            else {
                continue;
            };
            let lists = ["items", "operations"]
                .into_iter()
                .filter_map(|name| list[name].as_array());
            shown.extend(
                lists
                    .flatten()
                    .map(|one| format!("{} {} {state}", one["object"], one["record_id"])),
            );
        }
        format!(
            "{} open, among them {}",
            self.backlog.depth,
            shown.join(", ")
        )
    }

    /// Stops the engine, reads its log, starts it again, and compares all there is to compare.
    fn judge(
        &mut self,
        arguments: &Arguments,
        folder: &Folder,
        sent: &Sent,
    ) -> Result<Verdict, Failure> {
        let mut verdict = Verdict::default();
        let calls = || {
            self.sides
                .iter()
                .map(|side| side.counts().calls)
                .sum::<u64>()
        };
        let calls_before = calls();
        let status = self.engine.stop()?;
        let problems = if status.success() {
            Vec::new()
        } else {
            vec![format!("it ended with {status}")]
        };
        verdict.add("SIGTERM ends the engine with status 0", problems);
        let audit = audit(&folder.data_dir())?;
        verdict.check_log(sent, &audit);
        self.engine.start_again()?;
        self.display
            .tell("checking every operation and every record");
        verdict.check_states(&audit, &self.api)?;
        std::thread::sleep(IDLE_WATCH);
        let more = calls() - calls_before;
        let problems = if more == 0 {
            Vec::new()
        } else {
            vec![format!("{more} calls")]
        };
        verdict.add("a restart with nothing to do makes no call", problems);
        verdict.check_equality(sent, &self.sides);
        verdict.check_conduct(&self.sides);
        if arguments.records.is_none() {
            verdict.check_refusals(sent);
            verdict.check_failures();
        }
        self.interrupt.check()?;
        self.engine.stop()?;
        Ok(verdict)
    }

    fn conclude(&mut self, sent: &Sent, verdict: &Verdict) {
        self.display.finish();
        self.show_mapping(sent);
        if !verdict.excepted.is_empty() {
            println!(
                "\nRecords that did not arrive whole ({}):",
                verdict.excepted.len()
            );
            let lines = verdict.excepted.iter().map(|(key, why)| {
                format!("{} {} at {}: {why}", key.object, key.record_id, key.account)
            });
            print_some(lines.collect());
        }
        println!("\nVerdict");
        for check in &verdict.checks {
            println!(
                "  {}  {}",
                if check.problems.is_empty() {
                    "ok    "
                } else {
                    "FAILED"
                },
                check.what
            );
            print_some(check.problems.clone());
        }
        self.print_figures(sent, verdict);
        println!(
            "\n{}",
            if verdict.holds() {
                "The verdict holds."
            } else {
                "THE VERDICT DOES NOT HOLD."
            }
        );
    }

    /// One record before and after mapping: the first contact that both accounts hold.
    fn show_mapping(&self, sent: &Sent) {
        let Some(first) = self.sides.last() else {
            return;
        };
        for (key, (object, _)) in sent.system_a.expected(first.plan) {
            let Some(remote) = first
                .records()
                .remove(&(object.clone(), key.record_id.clone()))
            else {
                continue;
            };
            let Some(local) = sent.system_a.fields(&key) else {
                continue;
            };
            println!("\nOne record, before and after mapping");
            println!(
                "  System A  {} {}: {}",
                key.object,
                key.record_id,
                Value::Object(local.clone())
            );
            println!(
                "  {:<9} {object}: {}",
                first.plan.name,
                Value::Object(remote.fields)
            );
            for side in &self.sides[..self.sides.len() - 1] {
                let Some(plan) = side.plan.object(&key.object) else {
                    continue;
                };
                if let Some(remote) = side
                    .records()
                    .remove(&(plan.remote.to_owned(), key.record_id.clone()))
                {
                    println!(
                        "  {:<9} {}: {}",
                        side.plan.name,
                        plan.remote,
                        Value::Object(remote.fields)
                    );
                }
            }
            return;
        }
    }

    fn print_figures(&self, sent: &Sent, verdict: &Verdict) {
        let mut all = CallCounts::default();
        for counts in self.sides.iter().map(ProviderSide::counts) {
            all.calls += counts.calls;
            all.throttled += counts.throttled;
            all.errors += counts.errors;
            all.unanswered += counts.unanswered;
        }
        let ended: Vec<String> = verdict
            .ended
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let violations: u64 = self.sides.iter().map(|side| side.violations().total).sum();
        println!("\nFigures");
        println!(
            "  events          {} acknowledged, {} of them refused; {} records at {} accounts",
            sent.acked,
            sent.refused.len(),
            sent.system_a.touched(),
            ACCOUNTS.len()
        );
        println!("  operations      {}", ended.join(", "));
        println!("  calls           {}", all.calls);
        println!(
            "  faults          {} calls answered 5xx, {} answered 429 (no limit was exceeded), {} without an answer",
            all.errors, all.throttled, all.unanswered
        );
        println!(
            "  kills           {}; listening again after {} ms at most; longest wait for an ack {} ms",
            self.engine.kills(),
            self.engine.slowest_start().as_millis(),
            sent.longest_gap.as_millis()
        );
        println!("  violations      {violations}");
    }
}

fn print_some(lines: Vec<String>) {
    for line in lines.iter().take(SHOWN_MAX) {
        println!("          {line}");
    }
    if lines.len() > SHOWN_MAX {
        println!("          and {} more", lines.len() - SHOWN_MAX);
    }
}
