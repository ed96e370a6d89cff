//! The engine as a child process that can be killed and comes back on the same data and ports.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Runs `syncline serve`; whatever happens, the child does not outlive this.
#[derive(Debug)]
pub(super) struct EngineProcess {
    config: PathBuf,
    log: PathBuf,
    tcp: SocketAddr,
    child: Option<Child>,
    kills: u32,
    slowest_start: Duration,
}

/// Why the engine does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("cannot start the engine")]
    Spawn(#[source] io::Error),
    #[error("the engine did not start within {}s; {log} says why", START_MAX.as_secs())]
    NotReady { log: String },
    #[error("the engine ended by itself ({status}); {log} says why")]
    Ended { status: ExitStatus, log: String },
    #[error("the engine did not end within {}s of SIGTERM", STOP_MAX.as_secs())]
    NotStopped,
}

/// A recovery of the few thousand events of a demo takes milliseconds; a busy machine may not.
const START_MAX: Duration = Duration::from_secs(20);
/// The engine finishes what is in flight; a call takes 5 s at most.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Between two looks at a child that is about to end.
const WAIT_STEP: Duration = Duration::from_millis(10);
/// Below the range from which the system hands out ports, so that no outgoing connection takes
/// the engine's port while it is down, not even one to that very port.
const PORTS: std::ops::Range<u16> = 17_400..32_000;

impl EngineProcess {
    /// Starts it for the first time.
    pub(super) fn start(config: &Path, log: &Path, tcp: SocketAddr) -> Result<Self, EngineError> {
        let mut engine = Self {
            config: config.to_owned(),
            log: log.to_owned(),
            tcp,
            child: None,
            kills: 0,
            slowest_start: Duration::ZERO,
        };
        engine.start_again()?;
        Ok(engine)
    }

    /// Starts it on what is there; returns how long it took until it listened.
    pub(super) fn start_again(&mut self) -> Result<Duration, EngineError> {
        let begun = Instant::now();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(EngineError::Spawn)?;
        let program = std::env::current_exe().map_err(EngineError::Spawn)?;
        let mut child = Command::new(program)
            .args(["serve", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(EngineError::Spawn)?;
        let stdout = child.stdout.take();
        self.child = Some(child);
        let (told, first_line) = sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
            let listening = read.is_some_and(|read| read.is_ok()) && line.starts_with("listening ");
            // Nobody waits any more when the start was given up.
            told.send(listening).ok();
        });
        if first_line.recv_timeout(START_MAX) != Ok(true) {
            self.check()?;
            return Err(EngineError::NotReady {
                log: self.log.display().to_string(),
            });
        }
        let took = begun.elapsed();
        self.slowest_start = self.slowest_start.max(took);
        Ok(took)
    }

    /// SIGKILL: no time for anything.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.kills += 1;
            reap(&mut child);
        }
    }

    /// SIGTERM, and the status it ends with.
    pub(super) fn stop(&mut self) -> Result<ExitStatus, EngineError> {
        let Some(mut child) = self.child.take() else {
            return Ok(ExitStatus::default());
        };
        let pid = Pid::from_child(&child);
        if let Err(error) = kill_process(pid, Signal::TERM) {
            reap(&mut child);
            return Err(EngineError::Spawn(error.into()));
        }
        let deadline = Instant::now() + STOP_MAX;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(WAIT_STEP),
                Ok(None) | Err(_) => {
                    reap(&mut child);
                    return Err(EngineError::NotStopped);
                }
            }
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When it ended without being asked to.
    pub(super) fn check(&mut self) -> Result<(), EngineError> {
        let ended = self
            .child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten());
        match ended {
            None => Ok(()),
            Some(status) => Err(EngineError::Ended {
                status,
                log: self.log.display().to_string(),
            }),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub(super) fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    pub(super) fn kills(&self) -> u32 {
        self.kills
    }

    pub(super) fn slowest_start(&self) -> Duration {
        self.slowest_start
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            reap(&mut child);
        }
    }
}

fn reap(child: &mut Child) {
    // Both fail only for a child that has ended and was waited for.
    drop(child.kill());
    drop(child.wait());
}

/// Two addresses on loopback that are free now; the search begins at a place of this process, so
/// that two demos at once do not race.
pub(super) fn free_addresses() -> Option<(SocketAddr, SocketAddr)> {
    let width = u32::from(PORTS.end - PORTS.start);
    let first = std::process::id().wrapping_mul(7) % width;
    let mut free = (0..width)
        .map(|step| PORTS.start + ((first + step) % width) as u16)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .filter(|&address| TcpListener::bind(address).is_ok());
    Some((free.next()?, free.next()?))
}
