//! The scenarios: what runs, what is loaded, what is counted.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::events::{ACCOUNT, EventPool, TooSmall};
use crate::figures::{Delivery, Figures, Latency, per, per_second};
use crate::http::Asker;
use crate::load::{LoadError, LoadPlan, Outcome, Progress};
use crate::process::Usage;
use crate::program::{Program, ProgramError, ProgramSettings};
use crate::settings::Settings;
use crate::sink::Sink;
use crate::watch::{COUNT_EVERY, Watch};
use crate::wire::Encoding;
use crate::{places, yardstick};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Durable intake alone: the account is paused.
    Ingest,
    /// Events in, one call each out at a sink.
    Deliver,
}

/// A run that has no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Events(#[from] TooSmall),
    #[error("files, sockets or /proc")]
    System(#[from] io::Error),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("POST /v1/pause answered {0}: {1}")]
    Pause(u16, String),
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Ingest => "ingest",
            Scenario::Deliver => "deliver",
        }
    }

    /// One run on a fresh data directory.
    pub(crate) fn run(self, settings: &Settings) -> Result<Figures, RunError> {
        let pool = EventPool::render(
            settings.records,
            settings.event_bytes,
            settings.mix,
            settings.seed,
        )?;
        // On the disk that the sources are on, not in memory.
        let parent = places::target()?.join("bench");
        std::fs::create_dir_all(&parent)?;
        let folder = tempfile::Builder::new()
            .prefix("run-")
            .disable_cleanup(settings.keep)
            .tempdir_in(&parent)?;
        match self {
            Scenario::Ingest => ingest(settings, &pool, folder.path()),
            Scenario::Deliver => deliver(settings, &pool, folder.path()),
        }
    }
}

fn ingest(settings: &Settings, pool: &EventPool, folder: &Path) -> Result<Figures, RunError> {
    // Paused, and nobody listens there: no call leaves, whatever happens.
    let mut program = start(settings, NOBODY, folder)?;
    pause(program.http)?;
    let progress = Progress::default();
    let before = program.usage()?;
    let own_before = Usage::of(std::process::id())?;
    let watch = Watch::new(program.id());
    let outcome = thread::scope(|scope| {
        scope.spawn(|| watch.run(&progress, None));
        let outcome = plan(settings, &program).run(pool, &progress);
        watch.end();
        outcome
    })?;
    let used = program.usage()?.since(&before);
    let mut figures = Figures::of_intake(&outcome);
    figures.charge(&used, outcome.accepted);
    figures.generator_cpu_seconds = own_cpu_since(&own_before)?;
    figures.timeline = watch.into_timeline();
    program.stop()?;
    Ok(figures)
}

fn deliver(settings: &Settings, pool: &EventPool, folder: &Path) -> Result<Figures, RunError> {
    let sink = Sink::start(folder)?;
    let yardstick = measure_sink(settings, &sink, pool, folder);
    let mut program = start(settings, sink.addr(), folder)?;
    let progress = Progress::default();
    let before = program.usage()?;
    let own_before = Usage::of(std::process::id())?;
    let sink_before = sink.usage();
    let counter = sink.counter()?;
    let watch = Watch::new(program.id());
    let (outcome, drained) = thread::scope(|scope| {
        scope.spawn(|| watch.run(&progress, Some(counter)));
        let outcome = plan(settings, &program).run(pool, &progress);
        let drained = outcome
            .as_ref()
            .ok()
            .map(|outcome| drain(outcome, &progress, settings.drain_patience()));
        watch.end();
        outcome.map(|outcome| (outcome, drained))
    })?;
    let drained = drained.expect("an outcome was drained");
    let used = program.usage()?.since(&before);
    let sink_cpu = match (sink.usage(), sink_before) {
        (Some(now), Some(before)) => Some(now.since(&before).cpu().as_secs_f64()),
        _ => None,
    };
    let delivered = progress.delivered.load(Ordering::Relaxed);
    let rate = per_second(delivered, drained.took);
    let mut figures = Figures::of_intake(&outcome);
    figures.charge(&used, delivered);
    figures.generator_cpu_seconds = own_cpu_since(&own_before)?;
    figures.timeline = watch.into_timeline();
    figures.delivery = Some(Delivery {
        sink: sink.label().to_owned(),
        delivered,
        seconds: drained.took.as_secs_f64(),
        delivered_per_second: rate,
        drained: drained.all,
        sink_cpu_seconds: sink_cpu,
        yardstick_per_second: yardstick,
        ratio_to_yardstick: yardstick.map(|yardstick| per(rate, yardstick)),
    });
    program.stop()?;
    Ok(figures)
}

/// The discard port: connections are refused.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

fn start(settings: &Settings, sink: SocketAddr, folder: &Path) -> Result<Program, RunError> {
    let bin = match &settings.bin {
        Some(bin) => bin.clone(),
        None => places::built_into()?.join("syncline"),
    };
    let program_settings = ProgramSettings {
        shards: settings.shards,
        durability: &settings.durability,
        sink,
        max_in_flight: settings.max_in_flight,
        account: "fold = false\n",
    };
    let program = Program::start(&bin, &program_settings, folder)?;
    eprintln!("syncline runs as process {}", program.id());
    Ok(program)
}

pub(crate) fn pause(api: SocketAddr) -> Result<(), RunError> {
    let body = serde_json::json!({ "provider": ACCOUNT }).to_string();
    let (status, answer) = Asker::connect(api)?.ask("POST", "/v1/pause", body.as_bytes())?;
    if (200..300).contains(&status) {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Err(RunError::Pause(status, answer))
}

fn plan(settings: &Settings, program: &Program) -> LoadPlan {
    LoadPlan {
        target: match settings.encoding {
            Encoding::Http => program.http,
            Encoding::Frames | Encoding::Lines => program.tcp,
        },
        encoding: settings.encoding,
        connections: settings.connections(),
        batch: settings.batch,
        rate: settings.rate,
        lasts: settings.lasts(),
        window: settings.window,
        backlog_max: settings.backlog,
        patience: ACK_PATIENCE,
    }
}

/// Far beyond any commit: what is not acknowledged by then is lost to the client.
const ACK_PATIENCE: Duration = Duration::from_secs(10);

struct Drained {
    /// From the first event to the last delivery.
    took: Duration,
    all: bool,
}

/// Waits until everything accepted is delivered, or nothing more is for a while.
fn drain(outcome: &Outcome, progress: &Progress, patience: Duration) -> Drained {
    let mut seen = 0;
    let mut took = outcome.started.elapsed();
    let mut quiet_since = Instant::now();
    loop {
        let delivered = progress.delivered.load(Ordering::Relaxed);
        if delivered > seen {
            (seen, took) = (delivered, outcome.started.elapsed());
            quiet_since = Instant::now();
        }
        let all = delivered >= outcome.accepted;
        if all || quiet_since.elapsed() > patience {
            return Drained { took, all };
        }
        thread::sleep(COUNT_EVERY);
    }
}

fn measure_sink(settings: &Settings, sink: &Sink, pool: &EventPool, folder: &Path) -> Option<f64> {
    // About what the program sends of an event.
    let body_bytes = pool.event_bytes() - ENVELOPE_BYTES;
    match yardstick::measure(
        sink.addr(),
        body_bytes,
        settings.yardstick_seconds(),
        folder,
    ) {
        Ok(rate) => {
            eprintln!("wrk: {rate:.0} POST/s against {}", sink.label());
            Some(rate)
        }
        Err(reason) => {
            println!("skipped: wrk ({reason})");
            None
        }
    }
}

/// Operation, account, object and record id of an event, which do not go out in its body.
const ENVELOPE_BYTES: usize = 100;

fn own_cpu_since(before: &Usage) -> io::Result<f64> {
    let used = Usage::of(std::process::id())?.since(before);
    Ok(used.cpu().as_secs_f64())
}

impl Figures {
    fn of_intake(outcome: &Outcome) -> Figures {
        Figures {
            events_attempted: outcome.attempted,
            events_accepted: outcome.accepted,
            refused: outcome.refused.clone(),
            broken_connections: outcome.broken.clone(),
            success_rate: per(outcome.accepted as f64, outcome.attempted as f64),
            intake_seconds: outcome.took.as_secs_f64(),
            events_per_second: per_second(outcome.accepted, outcome.took),
            ack_latency: Latency::of(&outcome.latency_us),
            delivery: None,
            cpu_user_seconds: 0.0,
            cpu_system_seconds: 0.0,
            cpu_us_per_operation: 0.0,
            peak_rss_bytes: 0,
            generator_cpu_seconds: 0.0,
            timeline: Vec::new(),
        }
    }
}
