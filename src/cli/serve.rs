//! `syncline serve`: runs the engine until it is told to stop.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use syncline::settings::{LogFormat, LogLevel, Settings};
use syncline::{Engine, StartError};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;

/// Runs the engine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  syncline serve --config syncline.toml")]
pub(crate) struct Arguments {
    /// The config file; without it, defaults on loopback and ./syncline-data.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How often a shard that gave up is looked for.
const WATCH_PERIOD: Duration = Duration::from_millis(200);

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> Exit {
    let settings = match Settings::load(arguments.config.as_deref()) {
        Ok(settings) => settings,
        Err(problems) => {
            eprintln!("{problems}");
            return Exit::Config;
        }
    };
    log_to(&settings);
    let engine = match Engine::start(&settings) {
        Ok(engine) => engine,
        Err(error) => return refuse(&error),
    };
    // Before anyone is told: whoever reads the line may stop us at once.
    let signals = match Signals::watch() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be received");
            return Exit::Os;
        }
    };
    let mut stdout = std::io::stdout();
    let webhooks = engine.webhooks();
    let webhooks = webhooks.map_or_else(String::new, |at| format!(" webhooks={at}"));
    let told = writeln!(
        stdout,
        "listening tcp={} http={}{webhooks}",
        engine.tcp(),
        engine.http()
    )
    .and_then(|()| stdout.flush());
    if let Err(error) = told {
        tracing::warn!(%error, "standard output is closed; serving all the same");
    }
    let broken = signals.wait(&engine);
    match engine.shutdown() {
        Ok(()) if broken => Exit::Io,
        Ok(()) => Exit::Ok,
        Err(error) => refuse(&error),
    }
}

/// The signals that concern the engine, and the event loop they arrive in.
struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From here on no signal is lost.
    fn watch() -> io::Result<Signals> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let guard = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hang_up = signal(SignalKind::hangup())?;
        drop(guard);
        Ok(Signals {
            runtime,
            terminate,
            interrupt,
            hang_up,
        })
    }

    /// Waits for a signal to stop; true when a shard gave up first.
    fn wait(mut self, engine: &Engine) -> bool {
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => return false,
                    _ = self.interrupt.recv() => return false,
                    _ = self.hang_up.recv() => {
                        tracing::warn!("SIGHUP: this version reads its config at a start only; nothing changed");
                    }
                    () = tokio::time::sleep(WATCH_PERIOD) => {
                        if engine.is_broken() {
                            tracing::error!("a shard gave up; the process ends so that a restart recovers");
                            return true;
                        }
                    }
                }
            }
        })
    }
}

fn refuse(error: &StartError) -> Exit {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    eprintln!("syncline: {text}");
    match error {
        StartError::InUse { .. } => Exit::Unavailable,
        StartError::Config { .. } => Exit::Config,
        StartError::DataDir { .. } | StartError::Log { .. } => Exit::Data,
        StartError::System { .. } => Exit::Os,
    }
}

fn log_to(settings: &Settings) {
    let level = match settings.log.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr);
    let set = match settings.log.format {
        LogFormat::Json => lines.json().try_init(),
        LogFormat::Text => lines.try_init(),
    };
    if let Err(error) = set {
        eprintln!("syncline: log lines go elsewhere: {error}");
    }
}
