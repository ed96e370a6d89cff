//! A node: `syncline serve` over one data directory, through all its restarts.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::Value;
use tempfile::TempDir;

use super::http::{Answer, request};
use super::patience::until;
use super::program::program;
use super::running::Running;

/// What a node's config file says beside its own folder and free ports.
#[derive(Debug, Clone, Default)]
pub struct Config {
    text: String,
    data_dir: Option<PathBuf>,
    shards: Option<u16>,
    public_url: Option<String>,
}

impl Config {
    /// Nothing but the defaults.
    #[must_use]
    pub fn new() -> Config {
        Config::default()
    }

    /// Adds sections as they stand in a file.
    #[must_use]
    pub fn with(mut self, text: &str) -> Config {
        self.text.push_str(text);
        self.text.push('\n');
        self
    }

    /// Adds an account of type `rest`, with more of its keys and tables, that forgives quickly.
    #[must_use]
    pub fn account(self, name: &str, base_url: &str, more: &str) -> Config {
        self.with(&format!(
            "[providers.{name}]\ntype = \"rest\"\nbase_url = \"{base_url}\"\nsettle = \"300ms\"\n\
             retry = {{ max_attempts = 60, base_delay = \"20ms\", max_delay = \"300ms\" }}\n\
             breaker = {{ open_for = \"200ms\" }}\n{more}"
        ))
    }

    /// Keeps its data there instead of beside the config file.
    #[must_use]
    pub fn data_dir(mut self, path: &Path) -> Config {
        self.data_dir = Some(path.to_owned());
        self
    }

    /// Is reached from outside at this URL.
    #[must_use]
    pub fn public_url(mut self, url: &str) -> Config {
        self.public_url = Some(url.to_owned());
        self
    }

    /// Runs this many shards.
    #[must_use]
    pub fn shards(mut self, count: u16) -> Config {
        self.shards = Some(count);
        self
    }
}

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    folder: TempDir,
    config: Config,
    running: Option<Running>,
    tcp: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Node {
    /// Starts a node in a folder of its own.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(config: Config) -> Node {
        let folder = tempfile::tempdir().expect("a folder for the node");
        let mut node = Node {
            folder,
            config,
            running: None,
            tcp: None,
            http: None,
        };
        node.restart();
        node
    }

    /// Starts it again, over the same data; kills it first if it runs.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        let mut running = self.launch();
        let line = running.next_line();
        let address = |name: &str| {
            let found = line.split(' ').find_map(|part| part.strip_prefix(name));
            found
                .and_then(|at| at.parse().ok())
                .unwrap_or_else(|| panic!("no {name} in {line:?}"))
        };
        assert!(line.starts_with("listening "), "{line:?}");
        self.tcp = Some(address("tcp="));
        self.http = Some(address("http="));
        self.running = Some(running);
    }

    /// Starts the process without waiting for it to listen: to be killed while it recovers.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn launch(&mut self) -> Running {
        self.kill();
        fs::write(self.config_file(), self.config_text()).expect("the folder is ours");
        Running::start(
            Command::new(program())
                .arg("serve")
                .arg("--config")
                .arg(self.config_file()),
        )
    }

    /// Another config from the next start on.
    pub fn reconfigure(&mut self, change: impl FnOnce(Config) -> Config) {
        self.config = change(std::mem::take(&mut self.config));
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// SIGTERM; how it ended.
    ///
    /// # Panics
    /// When it does not run, or does not end in time.
    pub fn stop(&mut self) -> ExitStatus {
        self.running.take().expect("the node runs").terminate()
    }

    /// The process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self) -> &mut Running {
        self.running.as_mut().expect("the node runs")
    }

    /// Where producers connect.
    ///
    /// # Panics
    /// When the node was never started.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        self.tcp.expect("the node was started")
    }

    /// Where the API is.
    ///
    /// # Panics
    /// When the node was never started.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http.expect("the node was started")
    }

    /// Where it keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.config
            .data_dir
            .clone()
            .unwrap_or_else(|| self.folder.path().join("data"))
    }

    /// Its config file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("syncline.toml")
    }

    /// `GET`.
    ///
    /// # Panics
    /// When nobody answers.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        request(self.http(), "GET", path, b"").unwrap_or_else(|| panic!("GET {path}: no answer"))
    }

    /// `POST`.
    ///
    /// # Panics
    /// When nobody answers.
    #[must_use]
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask("POST", path, body)
    }

    /// Any other method.
    ///
    /// # Panics
    /// When nobody answers.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        request(self.http(), method, path, body.as_ref())
            .unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// Waits until no operation is open, and tells the dead letters.
    ///
    /// # Panics
    /// When some stay open too long.
    pub fn drain(&self) -> Vec<Value> {
        let mut last = Value::Null;
        let mut same_since = std::time::Instant::now();
        // As long as it gets less, it gets its time.
        until_idle(|| {
            let open = self.get("/metrics/queue").json();
            if open != last {
                same_since = std::time::Instant::now();
                last.clone_from(&open);
            }
            assert!(
                same_since.elapsed() < super::PATIENCE,
                "operations stay open: {}",
                self.get("/health").json()
            );
            let counts = open.as_object().expect("counts by state");
            let mut open = counts.iter().filter(|(state, _)| *state != "dead_letters");
            open.all(|(_, count)| count.as_u64() == Some(0))
        });
        let dead = self.get("/v1/dlq?limit=1000").json();
        dead["items"].as_array().expect("a list").clone()
    }

    fn config_text(&self) -> String {
        let mut text = format!("[server]\ndata_dir = {:?}\n", self.data_dir());
        if let Some(url) = &self.config.public_url {
            writeln!(text, "public_url = {url:?}").expect("a String takes all");
        }
        text.push_str("[listen]\ntcp = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n");
        if let Some(count) = self.config.shards {
            writeln!(text, "[shards]\ncount = {count}").expect("a String takes all");
        }
        text.push_str(&self.config.text);
        text
    }
}

fn until_idle(mut idle: impl FnMut() -> bool) {
    loop {
        let end = std::time::Instant::now() + super::PATIENCE / 2;
        let done = until("a look at the queue", || {
            let idle = idle();
            (idle || std::time::Instant::now() >= end).then_some(idle)
        });
        if done {
            return;
        }
    }
}
