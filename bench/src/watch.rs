//! Counts at the sink and reports progress while the load runs.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::figures::Sample;
use crate::load::Progress;
use crate::process::Usage;
use crate::sink::Counter;

/// What was seen from outside while the load ran.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    timeline: Mutex<Vec<Sample>>,
    over: AtomicBool,
    /// The program under measurement.
    pid: u32,
}

impl Watch {
    pub(crate) fn new(pid: u32) -> Watch {
        Watch {
            pid,
            ..Watch::default()
        }
    }

    /// Runs until [`Watch::end`].
    pub(crate) fn run(&self, progress: &Progress, mut counter: Option<Counter<'_>>) {
        let started = Instant::now();
        let mut said = started;
        let mut sampled = None::<Instant>;
        let mut shown = (0, 0);
        while !self.over.load(Ordering::Acquire) {
            if let Some(counter) = &mut counter {
                // A sink that does not answer shows as one that delivers nothing.
                if let Ok(count) = counter.count() {
                    progress.delivered.store(count, Ordering::Relaxed);
                }
            }
            let acked = progress.settled.load(Ordering::Relaxed);
            let delivered = progress.delivered.load(Ordering::Relaxed);
            if sampled.is_none_or(|at| at.elapsed() >= SAMPLE_EVERY) {
                sampled = Some(Instant::now());
                let cpu = Usage::of(self.pid).map(|usage| usage.cpu());
                self.timeline
                    .lock()
                    .expect("nothing panics while it is held")
                    .push(Sample {
                        at_ms: started.elapsed().as_millis() as u64,
                        acked,
                        delivered,
                        cpu_ms: cpu.unwrap_or_default().as_millis() as u64,
                    });
            }
            if said.elapsed() >= SAY_EVERY {
                let seconds = said.elapsed().as_secs_f64();
                said = Instant::now();
                let per_second =
                    |now: u64, before: u64| (now.saturating_sub(before)) as f64 / seconds;
                say(&format!(
                    "{:>5.1} s  {:>9.0} acked/s  {:>9.0} delivered/s  {:>10} to deliver",
                    started.elapsed().as_secs_f64(),
                    per_second(acked, shown.0),
                    per_second(delivered, shown.1),
                    if counter.is_some() {
                        acked.saturating_sub(delivered)
                    } else {
                        0
                    },
                ));
                shown = (acked, delivered);
            }
            std::thread::sleep(COUNT_EVERY);
        }
        if io::stderr().is_terminal() {
            eprintln!();
        }
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(crate) fn into_timeline(self) -> Vec<Sample> {
        self.timeline
            .into_inner()
            .expect("nothing panics while it is held")
    }
}

/// How late a delivery may be seen.
pub(crate) const COUNT_EVERY: Duration = Duration::from_millis(5);
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const SAY_EVERY: Duration = Duration::from_secs(1);

/// One line that replaces the one before on a terminal.
fn say(line: &str) {
    let mut stderr = io::stderr().lock();
    let written = if stderr.is_terminal() {
        write!(stderr, "\r\x1b[K{line}")
    } else {
        writeln!(stderr, "{line}")
    };
    // Progress that nobody can see is no reason to stop.
    drop(written.and_then(|()| stderr.flush()));
}
