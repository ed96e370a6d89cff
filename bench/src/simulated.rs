//! A simulated provider account as a process of its own, which counts what callers do wrong.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::http::Asker;
use crate::process::Process;

/// `syncline mock rest`, running.
#[derive(Debug)]
pub(crate) struct SimulatedAccount {
    process: Process,
    pub(crate) addr: SocketAddr,
    journal: PathBuf,
}

/// What its journal says of all calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) calls: u64,
    pub(crate) records: u64,
    /// The largest call.
    pub(crate) records_max: u64,
}

impl SimulatedAccount {
    /// Starts one with these limits and its journal in `folder`.
    pub(crate) fn start(bin: &Path, limits: &[String], folder: &Path) -> io::Result<Self> {
        let journal = folder.join("provider.ndjson");
        let mut command = Command::new(bin);
        command
            .args(["mock", "rest", "--listen", "127.0.0.1:0", "--journal"])
            .arg(&journal);
        for limit in limits {
            command.args(["--limit", limit]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("provider.log"))?)
            .spawn()?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let process = Process::new(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line
            .trim_end()
            .strip_prefix("listening http://")
            .and_then(|addr| addr.parse().ok());
        let addr = addr.ok_or_else(|| io::Error::other(format!("the account said `{line}`")))?;
        Ok(Self {
            process,
            addr,
            journal,
        })
    }

    /// `/__mock/PAGE`.
    pub(crate) fn page(&self, page: &str) -> io::Result<Value> {
        let mut asker = Asker::connect(self.addr)?;
        let (status, body) = asker.ask("GET", &format!("/__mock/{page}"), b"")?;
        if status != 200 {
            return Err(io::Error::other(format!(
                "/__mock/{page} answered {status}"
            )));
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Counts the calls of the whole run, once nothing is open any more.
    pub(crate) fn calls(&self) -> io::Result<Calls> {
        let mut counted = Calls::default();
        for line in BufReader::new(File::open(&self.journal)?).lines() {
            let call: Value = serde_json::from_str(&line?)?;
            let records = call["records"].as_u64().unwrap_or(1);
            counted.calls += 1;
            counted.records += records;
            counted.records_max = counted.records_max.max(records);
        }
        Ok(counted)
    }

    pub(crate) fn stop(self) -> io::Result<()> {
        self.process.stop(std::time::Duration::from_secs(10))?;
        Ok(())
    }
}
