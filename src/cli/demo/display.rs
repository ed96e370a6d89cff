//! What a demo shows while it runs: a live line on a terminal, a line a second elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints what happens; the live line stays below it.
#[derive(Debug)]
pub(super) struct Display {
    begun: Instant,
    bar: Option<ProgressBar>,
    plain_due: Duration,
}

/// Without a terminal, a line of progress so often.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

impl Display {
    pub(super) fn new(live: bool) -> Display {
        let bar = live.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
            bar.set_style(style.expect("the template is valid"));
            bar
        });
        Display {
            begun: Instant::now(),
            bar,
            plain_due: Duration::ZERO,
        }
    }

    /// A line that stays, as it is.
    pub(super) fn say(&self, text: impl AsRef<str>) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{}", text.as_ref())),
            None => println!("{}", text.as_ref()),
        }
    }

    /// A line that stays, with the time since the start.
    pub(super) fn tell(&self, text: impl AsRef<str>) {
        self.say(format!(
            "[{:5.1}s] {}",
            self.begun.elapsed().as_secs_f64(),
            text.as_ref()
        ));
    }

    /// How far it is.
    pub(super) fn progress(&mut self, text: impl AsRef<str>) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(text.as_ref().to_owned());
                bar.tick();
            }
            None if self.begun.elapsed() >= self.plain_due => {
                self.tell(text);
                self.plain_due = self.begun.elapsed() + PLAIN_EVERY;
            }
            None => {}
        }
    }

    /// Takes the live line away.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
