//! A simulated provider account as a process of its own, which counts what callers do wrong.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

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

/// One call of its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) external_id: String,
    /// Unix time of its arrival.
    pub(crate) at_ms: u64,
    pub(crate) status: u64,
}

impl Seen {
    pub(crate) fn is_done(&self) -> bool {
        (200..300).contains(&self.status)
    }
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

    /// Its journal so far, in the order of the calls' ends.
    fn journal(&self) -> io::Result<impl Iterator<Item = io::Result<Value>>> {
        // The file lags behind; a page is shown once it does not.
        self.page("violations")?;
        let lines = BufReader::new(File::open(&self.journal)?).lines();
        Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
    }

    /// Counts the calls of the whole run, once nothing is open any more.
    pub(crate) fn calls(&self) -> io::Result<Calls> {
        let mut counted = Calls::default();
        for call in self.journal()? {
            let call = call?;
            let records = call["records"].as_u64().unwrap_or(1);
            counted.calls += 1;
            counted.records += records;
            counted.records_max = counted.records_max.max(records);
        }
        Ok(counted)
    }

    /// Every call of its journal, in the order of arrival.
    pub(crate) fn seen(&self) -> io::Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for call in self.journal()? {
            let call = call?;
            seen.push(Seen {
                external_id: call["external_id"].as_str().unwrap_or_default().to_owned(),
                at_ms: call["at_ms"].as_u64().unwrap_or(0),
                status: call["status"].as_u64().unwrap_or(0),
            });
        }
        seen.sort_by_key(|call| call.at_ms);
        Ok(seen)
    }

    /// Answers 503 to everything for so long.
    pub(crate) fn fail_for(&self, span: Duration) -> io::Result<()> {
        let fault = serde_json::json!({"fault": "5xx=1", "for_ms": span.as_millis() as u64});
        let mut asker = Asker::connect(self.addr)?;
        let (status, _) = asker.ask("POST", "/__mock/fault", fault.to_string().as_bytes())?;
        if status == 204 {
            Ok(())
        } else {
            Err(io::Error::other(format!("/__mock/fault answered {status}")))
        }
    }

    pub(crate) fn stop(self) -> io::Result<()> {
        self.process.stop(Duration::from_secs(10))?;
        Ok(())
    }
}
