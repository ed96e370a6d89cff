//! The program under measurement: `syncline serve` with a config and a data directory of its own.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::process::{Process, Usage};

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    process: Process,
    pub(crate) tcp: SocketAddr,
    pub(crate) http: SocketAddr,
    log: PathBuf,
}

/// What the program is run with.
#[derive(Debug)]
pub(crate) struct ProgramSettings<'a> {
    pub(crate) shards: Option<u32>,
    pub(crate) durability: &'a str,
    /// Where the one account's calls go.
    pub(crate) sink: SocketAddr,
    pub(crate) max_in_flight: u32,
    /// More of the account's table and its own: limits, batches, folding.
    pub(crate) account: &'a str,
}

/// The program does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("running {1}")]
    Run(#[source] io::Error, String),
    #[error("the program said `{0}` and not where it listens; its log: {1}")]
    NotListening(String, String),
    #[error("the program ended with {0}; its log: {1}")]
    Ended(ExitStatus, String),
    #[error("the program did not end {0:?} after SIGTERM")]
    WouldNotEnd(Duration),
}

impl ProgramSettings<'_> {
    fn config(&self, data_dir: &Path) -> String {
        let shards = match self.shards {
            Some(count) => format!("[shards]\ncount = {count}\n"),
            None => String::new(),
        };
        format!(
            "[server]\ndata_dir = {data_dir:?}\n\
             [listen]\ntcp = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
             {shards}\
             [wal]\ndurability = {durability:?}\n\
             [providers.sink]\ntype = \"rest\"\nbase_url = \"http://{sink}\"\n\
             max_in_flight = {max_in_flight}\n{account}",
            account = self.account,
            durability = self.durability,
            sink = self.sink,
            max_in_flight = self.max_in_flight,
        )
    }
}

impl Program {
    /// Starts `bin serve` in `folder` and waits until it listens.
    pub(crate) fn start(
        bin: &Path,
        settings: &ProgramSettings<'_>,
        folder: &Path,
    ) -> Result<Program, ProgramError> {
        let failed = |error| ProgramError::Run(error, bin.display().to_string());
        let config = folder.join("syncline.toml");
        let log = folder.join("syncline.log");
        fs::write(&config, settings.config(&folder.join("data"))).map_err(failed)?;
        let mut child = Command::new(bin)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut process = Process::new(child);
        let first = first_line(stdout);
        let Some((tcp, http)) = addresses(&first) else {
            return Err(match process.ended().map_err(failed)? {
                Some(status) => ProgramError::Ended(status, tail(&log)),
                None => ProgramError::NotListening(first, tail(&log)),
            });
        };
        Ok(Program {
            process,
            tcp,
            http,
            log,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it used so far.
    ///
    /// # Errors
    /// It ended.
    pub(crate) fn usage(&mut self) -> Result<Usage, ProgramError> {
        if let Ok(Some(status)) = self.process.ended() {
            return Err(ProgramError::Ended(status, tail(&self.log)));
        }
        self.process
            .usage()
            .map_err(|error| ProgramError::Run(error, "/proc".to_owned()))
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(self) -> Result<(), ProgramError> {
        let stopped = self.process.stop(STOP_PATIENCE);
        match stopped.map_err(|error| ProgramError::Run(error, "SIGTERM".to_owned()))? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(ProgramError::Ended(status, tail(&self.log))),
            None => Err(ProgramError::WouldNotEnd(STOP_PATIENCE)),
        }
    }
}

/// An empty program listens in milliseconds; a debug build on a busy machine takes longer.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Beyond the deadline that the program sets itself for what is in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const LOG_LINES_SHOWN: usize = 15;

/// The first line, or what came of it in time. The rest is read and dropped, so that the program
/// never waits for us.
fn first_line(stdout: impl Read + Send + 'static) -> String {
    let (told, heard) = sync_channel(1);
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        // An error is an end, and an empty line says so.
        drop(stdout.read_line(&mut line));
        drop(told.send(line));
        drop(io::copy(&mut stdout, &mut io::sink()));
    });
    match heard.recv_timeout(START_PATIENCE) {
        Ok(line) => line.trim_end().to_owned(),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => String::new(),
    }
}

/// What `listening tcp=ADDR http=ADDR` says.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = line.strip_prefix("listening ")?.split_ascii_whitespace();
    let mut named = |name| words.next()?.strip_prefix(name)?.parse().ok();
    Some((named("tcp=")?, named("http=")?))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_where_it_listens() {
        let both = addresses("listening tcp=127.0.0.1:7400 http=127.0.0.1:7401");
        assert_eq!(
            both,
            Some((
                "127.0.0.1:7400".parse().unwrap(),
                "127.0.0.1:7401".parse().unwrap()
            ))
        );
        assert_eq!(addresses("listening http=127.0.0.1:7401"), None);
        assert_eq!(addresses(""), None);
    }

    #[test]
    fn a_program_that_ends_at_once_is_told_apart_from_one_that_listens() {
        let folder = tempfile::tempdir().unwrap();
        let settings = ProgramSettings {
            shards: Some(1),
            durability: "os",
            sink: "127.0.0.1:9".parse().unwrap(),
            max_in_flight: 1,
            account: "",
        };
        let ended = Program::start(Path::new("/bin/false"), &settings, folder.path());
        assert!(
            matches!(
                ended,
                Err(ProgramError::Ended(..) | ProgramError::NotListening(..))
            ),
            "{ended:?}"
        );
        let missing = Program::start(Path::new("/no/such/program"), &settings, folder.path());
        assert!(matches!(missing, Err(ProgramError::Run(..))));
    }
}
