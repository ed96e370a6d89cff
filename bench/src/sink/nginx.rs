//! nginx as a sink: one worker, keep-alive, nothing logged.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::http::Asker;
use crate::places::DebianTool;
use crate::process::{Process, Usage};

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Process,
    addr: SocketAddr,
}

impl Nginx {
    pub(super) fn start(tool: &DebianTool, folder: &Path) -> io::Result<Nginx> {
        // nginx cannot say which port it was given; this one was free a moment ago.
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let folder: PathBuf = folder.join("nginx");
        fs::create_dir_all(&folder)?;
        let config = folder.join("nginx.conf");
        fs::write(&config, config_text(addr))?;
        let child = tool
            .command()
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&config)
            .args(["-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut nginx = Nginx {
            process: Process::new(child),
            addr,
        };
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            match nginx.status_page() {
                Ok(_) => return Ok(nginx),
                Err(error) if Instant::now() > deadline || nginx.process.ended()?.is_some() => {
                    let log = fs::read_to_string(folder.join("error.log")).unwrap_or_default();
                    return Err(io::Error::new(
                        error.kind(),
                        format!("nginx does not serve: {log}"),
                    ));
                }
                Err(_) => std::thread::sleep(START_POLL),
            }
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn usage(&self) -> io::Result<Usage> {
        self.process.usage()
    }

    pub(super) fn status_page(&self) -> io::Result<StatusPage> {
        StatusPage::open(self.addr)
    }
}

const START_PATIENCE: Duration = Duration::from_secs(5);
const START_POLL: Duration = Duration::from_millis(5);

/// The process is its own worker, so that one signal ends it.
fn config_text(addr: SocketAddr) -> String {
    let temp_paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 2147483647;\n  keepalive_timeout 1h;\n\
         {temp_paths}  default_type application/json;\n\
         server {{\n    listen {addr} backlog=4096;\n\
         location / {{ return 200 \"{{}}\"; }}\n\
         location = {STATUS_PATH} {{ stub_status; }}\n  }}\n}}\n"
    )
}

const STATUS_PATH: &str = "/__status";

/// nginx's own count of the requests it served.
#[derive(Debug)]
pub(crate) struct StatusPage {
    asker: Asker,
    /// Requests before ours, and the count's own requests since.
    left_out: u64,
}

impl StatusPage {
    fn open(addr: SocketAddr) -> io::Result<StatusPage> {
        let mut page = StatusPage {
            asker: Asker::connect(addr)?,
            left_out: 0,
        };
        page.left_out = page.requests()?;
        Ok(page)
    }

    pub(super) fn count(&mut self) -> io::Result<u64> {
        self.left_out += 1;
        Ok(self.requests()?.saturating_sub(self.left_out))
    }

    fn requests(&mut self) -> io::Result<u64> {
        let (status, body) = self.asker.ask("GET", STATUS_PATH, b"")?;
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "no stub_status page");
        let text = str::from_utf8(&body).map_err(|_| garbled())?;
        match requests(text) {
            Some(requests) if status == 200 => Ok(requests),
            _ => Err(garbled()),
        }
    }
}

/// The third number under `server accepts handled requests`.
fn requests(page: &str) -> Option<u64> {
    let mut lines = page.lines();
    lines.find(|line| line.starts_with("server accepts"))?;
    lines.next()?.split_ascii_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_tells_the_requests() {
        let page = "Active connections: 2 \nserver accepts handled requests\n 11 11 42 \n\
                    Reading: 0 Writing: 1 Waiting: 1 \n";
        assert_eq!(requests(page), Some(42));
        assert_eq!(requests("<html>404</html>"), None);
    }

    #[test]
    fn it_counts_what_it_served_and_not_its_own_counting() {
        let tool = match DebianTool::find("nginx") {
            Ok(tool) => tool,
            Err(reason) => return println!("skipped: nginx ({reason})"),
        };
        let folder = tempfile::tempdir().unwrap();
        let nginx = Nginx::start(&tool, folder.path()).unwrap();
        let mut page = nginx.status_page().unwrap();
        assert_eq!(page.count().unwrap(), 0);
        let mut asker = Asker::connect(nginx.addr()).unwrap();
        for method in ["POST", "PUT", "PATCH"] {
            let answer = asker.ask(method, "/contact/external/1", b"{\"a\":1}");
            assert_eq!(answer.unwrap(), (200, b"{}".to_vec()));
        }
        assert_eq!(page.count().unwrap(), 3);
        assert_eq!(page.count().unwrap(), 3);
    }
}
