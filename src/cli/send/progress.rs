//! The progress bar; nothing at all when nobody watches.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far the node has got with the file.
#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// `length`: the file's bytes, where they are known.
    pub(super) fn new(length: Option<u64>) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(length, target);
        let template = match length {
            Some(_) => "{bar:30} {bytes}/{total_bytes} settled, {bytes_per_sec}, {eta} left {msg}",
            None => "{spinner} {bytes} settled, {bytes_per_sec} {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the templates are valid"));
        Progress { bar }
    }

    /// Everything before `offset` is durable or refused.
    pub(super) fn settled(&self, offset: u64) {
        self.bar.set_message("");
        self.bar.set_position(offset);
    }

    pub(super) fn failing(&self, reason: &str) {
        self.bar.set_message(format!("[{reason}; trying again]"));
    }

    /// Takes the bar away while something else is written.
    pub(super) fn pause(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
