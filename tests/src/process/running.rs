//! A child process that cannot outlive its value.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::patience::PATIENCE;

/// What is kept of a child's standard error: its end.
const ERRORS_BYTES_MAX: usize = 256 * 1024;
/// Lines of standard output kept until someone reads them.
const LINES_MAX: usize = 1024;

/// A child process; killed and waited for when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
    /// Ends with the child's standard error.
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a command with nothing on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Running {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("piped above"));
        let stderr = child.stderr.take().expect("piped above");
        let (told, lines) = sync_channel(LINES_MAX);
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Nobody may want to know.
                drop(told.try_send(line));
            }
        });
        let errors = Arc::default();
        let kept = Arc::clone(&errors);
        let reader = Some(thread::spawn(move || keep(stderr, &kept)));
        Running {
            name,
            child,
            lines,
            errors,
            reader,
        }
    }

    /// The next line on standard output.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn next_line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{} says nothing", self.name),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait();
                panic!(
                    "{} ended with {status} before it said anything:\n{}",
                    self.name,
                    self.errors()
                )
            }
        }
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// SIGTERM; how it ended.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn terminate(&mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).expect("the child runs");
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                Instant::now() < end,
                "{} does not end:\n{}",
                self.name,
                self.errors()
            );
            thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child can be waited for")?;
        // So that its last words are there for whoever asks how it ended.
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it only reads");
        }
        Some(status)
    }

    /// The end of what it wrote on standard error so far.
    #[must_use]
    pub fn errors(&self) -> String {
        self.errors
            .lock()
            .expect("its reader does not panic")
            .clone()
    }

    /// Memory that is resident, in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the child runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("see proc(5)");
        let kibibytes: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number");
        kibibytes * 1024
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let errors = self.errors();
            let tail = errors.len().saturating_sub(4000);
            let tail = (tail..=errors.len())
                .find_map(|at| errors.get(at..))
                .unwrap_or_default();
            eprintln!("--- {}\n{tail}", self.name);
        }
    }
}

fn keep(mut from: impl Read, kept: &Mutex<String>) {
    let mut piece = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let mut kept = kept.lock().expect("its readers do not panic");
        kept.push_str(&String::from_utf8_lossy(&piece[..count]));
        if kept.len() > ERRORS_BYTES_MAX {
            let half = kept.len() / 2;
            let cut = (half..)
                .find(|&at| kept.is_char_boundary(at))
                .expect("the end is one");
            kept.drain(..cut);
        }
    }
}
