//! `syncline send`: streams a file of events to a node, and goes on where a broken run ended.

mod lines;
mod progress;
mod state;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use net::client::{Client, ClientError, Notice, Options, Reject};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::exit::Exit;
use lines::{Line, LineReader};
use progress::Progress;
use state::{State, StateError, StateFile};

/// Streams events, one line of JSON each, over TCP to a node
///
/// Every line gets a number from the node's count for this producer. Where a run broke off, the
/// same command goes on: nothing is lost and nothing is taken twice. After the end of the file the
/// same file again is new work.
///
/// Without --producer the name is made of the host's name and the file's absolute path. An API key
/// is taken from the variable SYNCLINE_KEY.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  syncline send contacts.ndjson
  syncline send --to sync.internal:7400 --producer billing contacts.ndjson
  pg_export | syncline send --state export.state -

Exit status: 0 all lines taken; 65 some were refused, as listed on stderr; 75 gave up, run it again
to go on; 74 the file cannot be read; 77 the key is missing or wrong")]
pub(crate) struct Arguments {
    /// The node's TCP address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400")]
    to: String,
    /// The name under which the lines are numbered
    #[arg(long, value_name = "NAME")]
    producer: Option<String>,
    /// Where the progress of an unfinished run is kept [default: FILE.syncline-send; for - none,
    /// and a broken run cannot be resumed]
    #[arg(long, value_name = "PATH")]
    state: Option<PathBuf>,
    /// Seconds without progress after which to give up
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    give_up: u64,
    /// Prints a summary as JSON
    #[arg(long)]
    json: bool,
    /// The file, or - for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let key = std::env::var("SYNCLINE_KEY").ok();
    let outcome = send(arguments, key, &mut io::stderr());
    let told = tell(arguments, &outcome, &mut io::stdout(), &mut io::stderr());
    match told {
        Ok(()) => outcome.exit(),
        Err(_) => Exit::Io,
    }
}

/// What a run came to.
#[derive(Debug, Default)]
struct Outcome {
    producer: String,
    /// Lines that were durable before this run.
    resumed: u64,
    /// Lines numbered by this run, and those of them that the node has settled.
    sent: u64,
    settled: u64,
    /// Lines refused, in earlier runs over this file too.
    refused: u64,
    took: Duration,
    failure: Option<SendError>,
}

/// Why a run did not reach the end of the file.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "{path} belongs to producer {known:?}; finish that run, or remove the file to start anew"
    )]
    OtherProducer { path: String, known: String },
    #[error(
        "the node is at event {last_seq} of producer {producer:?}, but this run began at {base}: it is another node, or it lost its data. Remove {path} to start anew"
    )]
    OtherNode {
        producer: String,
        last_seq: u64,
        base: u64,
        path: String,
    },
    #[error(
        "the node has {extra} lines more of producer {producer:?} than there are: the file was changed, or someone else sends under this name"
    )]
    TooFar { producer: String, extra: u64 },
    #[error(transparent)]
    Client(#[from] ClientError),
}

fn send(arguments: &Arguments, key: Option<String>, errors: &mut impl Write) -> Outcome {
    let mut outcome = Outcome::default();
    let begun = Instant::now();
    outcome.failure = Run::over(arguments, key, errors, &mut outcome).err();
    outcome.took = begun.elapsed();
    outcome
}

/// A run under way.
struct Run<'a, W> {
    client: Client,
    progress: Progress,
    state: Option<StateFile>,
    saved: Instant,
    /// Lines sent and not settled, oldest first.
    waiting: VecDeque<Waiting>,
    /// Number of the oldest of them.
    first_waiting: u64,
    errors: &'a mut W,
    outcome: &'a mut Outcome,
}

/// Where a line stands in the file.
struct Waiting {
    line: u64,
    end_offset: u64,
}

impl<'a, W: Write> Run<'a, W> {
    fn over(
        arguments: &Arguments,
        key: Option<String>,
        errors: &'a mut W,
        outcome: &'a mut Outcome,
    ) -> Result<(), SendError> {
        let stdin = arguments.file.as_os_str() == "-";
        let unreadable = |source| SendError::Read {
            path: arguments.file.display().to_string(),
            source,
        };
        let (input, length): (Box<dyn Read>, _) = if stdin {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(&arguments.file).map_err(unreadable)?;
            let length = file.metadata().map_err(unreadable)?.len();
            (Box::new(file), Some(length))
        };
        let mut state = match state_path(arguments, stdin) {
            Some(path) => Some(StateFile::open(path)?),
            None => None,
        };
        let known = state.as_ref().and_then(StateFile::state);
        outcome.producer =
            producer(arguments, stdin, known).map_err(|known| SendError::OtherProducer {
                path: state.as_ref().map(StateFile::display).unwrap_or_default(),
                known,
            })?;
        outcome.refused = known.map_or(0, |known| known.refused);

        let progress = Progress::new(length);
        let give_up = Duration::from_secs(arguments.give_up);
        let client = Client::connect(Options {
            key,
            retry: retry(give_up, progress.clone()),
            ..Options::new(arguments.to.clone(), outcome.producer.clone())
        })?;
        let last_seq = client.last_seq();
        // On disk before the first line leaves: a run that breaks at any later point can be
        // resumed.
        let base = match &mut state {
            Some(state) => {
                state
                    .begin(State::new(outcome.producer.clone(), last_seq))?
                    .base
            }
            None => last_seq,
        };
        outcome.resumed = last_seq
            .checked_sub(base)
            .ok_or_else(|| SendError::OtherNode {
                producer: outcome.producer.clone(),
                last_seq,
                base,
                path: state.as_ref().map(StateFile::display).unwrap_or_default(),
            })?;
        let mut run = Run {
            client,
            progress,
            state,
            saved: Instant::now(),
            waiting: VecDeque::new(),
            first_waiting: last_seq + 1,
            errors,
            outcome,
        };
        let result = run
            .stream(LineReader::new(input), stdin)
            .map_err(|error| match error {
                StreamError::Read(source) => unreadable(source),
                StreamError::Send(error) => error,
            });
        run.end(result)
    }

    fn stream(
        &mut self,
        mut lines: LineReader<Box<dyn Read>>,
        live: bool,
    ) -> Result<(), StreamError> {
        let mut skip = self.outcome.resumed;
        loop {
            if live && !lines.has_buffered() {
                // The next line may be long in coming.
                self.client.push().map_err(SendError::from)?;
                self.take_notices();
            }
            let Some(line) = lines.next().map_err(StreamError::Read)? else {
                break;
            };
            match line {
                // Neither has a number, in any run.
                Line::Blank => {}
                Line::TooLong { line } if skip == 0 => {
                    self.refuse(line, "too_large", "an event may have 1 MiB", None);
                }
                Line::TooLong { .. } => {}
                Line::Text { .. } if skip > 0 => skip -= 1,
                Line::Text {
                    line,
                    end_offset,
                    text,
                } => {
                    self.client.send(text).map_err(SendError::from)?;
                    self.waiting.push_back(Waiting { line, end_offset });
                    self.outcome.sent += 1;
                    self.take_notices();
                }
            }
        }
        if skip > 0 {
            return Err(StreamError::Send(SendError::TooFar {
                producer: self.outcome.producer.clone(),
                extra: skip,
            }));
        }
        while self.client.unacked() > 0 {
            let notice = self
                .client
                .wait_notice(NOTICE_WAIT)
                .map_err(SendError::from)?;
            notice.into_iter().for_each(|notice| self.on_notice(notice));
        }
        self.take_notices();
        Ok(())
    }

    /// The last notices and the state, however the stream ended.
    fn end(mut self, result: Result<(), SendError>) -> Result<(), SendError> {
        self.take_notices();
        self.progress.finish();
        let Some(mut state) = self.state.take() else {
            return result;
        };
        match result {
            Ok(()) => state.remove()?,
            Err(error) => {
                state.set_refused(self.outcome.refused)?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn take_notices(&mut self) {
        while let Some(notice) = self.client.next_notice() {
            self.on_notice(notice);
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Ack(seq) => {
                let count = (seq + 1).saturating_sub(self.first_waiting);
                let count = (count as usize).min(self.waiting.len());
                if let Some(last) = self.waiting.drain(..count).next_back() {
                    self.progress.settled(last.end_offset);
                }
                self.first_waiting += count as u64;
                self.outcome.settled += count as u64;
            }
            Notice::Reject(Reject {
                seq,
                code,
                detail,
                pointer,
            }) => {
                let place = seq.checked_sub(self.first_waiting);
                let line = place.and_then(|place| self.waiting.get(place as usize));
                let line = line.map_or(0, |waiting| waiting.line);
                self.refuse(line, &code, &detail, pointer.as_deref());
            }
        }
    }

    fn refuse(&mut self, line: u64, code: &str, detail: &str, pointer: Option<&str>) {
        self.outcome.refused += 1;
        let place = pointer.map(|p| format!(" ({p})")).unwrap_or_default();
        let errors = &mut *self.errors;
        self.progress.pause(|| {
            // A closed stderr takes nothing; the exit status and the summary still tell.
            writeln!(errors, "line {line}: {code}: {detail}{place}").ok();
        });
        if let Some(state) = &mut self.state
            && self.saved.elapsed() >= SAVE_EVERY
        {
            // What a kill would otherwise make the next run forget; the end saves it for sure.
            state.set_refused(self.outcome.refused).ok();
            self.saved = Instant::now();
        }
    }
}

enum StreamError {
    Read(io::Error),
    Send(SendError),
}

impl From<SendError> for StreamError {
    fn from(error: SendError) -> Self {
        StreamError::Send(error)
    }
}

/// How often the count of refused lines is written while lines are refused.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How long one wait for the node's next word lasts at the end.
const NOTICE_WAIT: Duration = Duration::from_secs(1);

/// First and longest wait after a failure.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

fn retry(give_up: Duration, progress: Progress) -> net::client::Retry {
    Box::new(move |failure| {
        if failure.without_progress >= give_up {
            return None;
        }
        progress.failing(&failure.reason);
        let wait = RETRY_MIN
            .saturating_mul(1 << failure.count.min(10))
            .min(RETRY_MAX);
        // Senders that lost the same node come back at different times.
        let dice = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| xxh3_64(&now.as_nanos().to_le_bytes()));
        Some(wait.mul_f64(0.5 + (dice % 1000) as f64 / 2000.0))
    })
}

fn state_path(arguments: &Arguments, stdin: bool) -> Option<PathBuf> {
    if stdin || arguments.state.is_some() {
        return arguments.state.clone();
    }
    let mut path = arguments.file.clone().into_os_string();
    path.push(".syncline-send");
    Some(path.into())
}

/// The producer's name; `Err`: the unfinished run's, which is another.
fn producer(arguments: &Arguments, stdin: bool, known: Option<&State>) -> Result<String, String> {
    if let Some(known) = known {
        return match &arguments.producer {
            Some(name) if *name != known.producer => Err(known.producer.clone()),
            _ => Ok(known.producer.clone()),
        };
    }
    if let Some(name) = &arguments.producer {
        return Ok(name.clone());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(HOST_CHARS_MAX).collect();
    let stable = match &arguments.state {
        Some(state) if stdin => Some(state.as_path()),
        _ if stdin => None,
        _ => Some(arguments.file.as_path()),
    };
    let tail = match stable {
        Some(path) => absolute(path).into_os_string().into_encoded_bytes(),
        // Nothing can be resumed, so nothing has to be found again.
        None => format!("{} {:?}", std::process::id(), SystemTime::now()).into_bytes(),
    };
    Ok(format!("send:{host}:{:016x}", xxh3_64(&tail)))
}

/// Keeps the default name within the 128 bytes of a producer's name.
const HOST_CHARS_MAX: usize = 25;

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize()
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

impl Outcome {
    fn exit(&self) -> Exit {
        match &self.failure {
            None if self.refused > 0 => Exit::Data,
            None => Exit::Ok,
            Some(SendError::Read { .. } | SendError::State(_)) => Exit::Io,
            Some(SendError::OtherProducer { .. }) => Exit::Usage,
            Some(SendError::OtherNode { .. } | SendError::TooFar { .. }) => Exit::Data,
            Some(SendError::Client(error)) => match error {
                ClientError::GaveUp { .. } | ClientError::Replaced(_) => Exit::TryLater,
                ClientError::Refused { code, .. } if code == "unauthorized" => Exit::NoPermission,
                ClientError::Refused { .. } | ClientError::Protocol(_) => Exit::Protocol,
                ClientError::BadEvent(_)
                | ClientError::Forgotten { .. }
                | ClientError::Shared { .. } => Exit::Data,
            },
        }
    }
}

fn tell(
    arguments: &Arguments,
    outcome: &Outcome,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<()> {
    let failure = outcome.failure.as_ref().map(ToString::to_string);
    if let Some(failure) = &failure {
        writeln!(errors, "syncline: {failure}")?;
    }
    if arguments.json {
        let summary = json!({
            "producer": outcome.producer,
            "resumed": outcome.resumed,
            "sent": outcome.sent,
            "settled": outcome.settled,
            "refused": outcome.refused,
            "seconds": outcome.took.as_secs_f64(),
            "error": failure,
        });
        return writeln!(out, "{summary}");
    }
    if outcome.resumed > 0 {
        writeln!(out, "resumed after {} lines", outcome.resumed)?;
    }
    writeln!(
        out,
        "{} lines settled, {} refused, in {:.1} s",
        outcome.settled,
        outcome.refused,
        outcome.took.as_secs_f64()
    )
}

#[cfg(test)]
mod tests;
