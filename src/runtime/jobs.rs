//! Long work that operators start: paced, watched, cancelled.
//!
//! Jobs live in memory. One that a restart cut off has done what it did; the rest is as before it
//! and can be asked for again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::refusal::{Code, Refusal};
use engine::view::{JobKind, JobState, JobView};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::clock;

/// Jobs under way at once; each may hold a list of a million names.
const RUNNING_MAX: usize = 8;
/// Jobs told of, those that ended included.
const KEPT_MAX: usize = 64;
/// Slices a job takes of its rate in a second: smooth, and few words to the shards.
const SLICES_PER_SECOND: u32 = 10;

/// All jobs of this run, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    known: Mutex<VecDeque<watch::Sender<JobView>>>,
}

/// A job as its worker sees it.
#[derive(Debug)]
pub(crate) struct Work {
    view: watch::Sender<JobView>,
    slice: usize,
    pace: Interval,
}

impl Jobs {
    /// Begins a job; the caller spawns its worker.
    ///
    /// # Errors
    /// `overloaded` when too many are under way.
    pub(crate) fn begin(&self, kind: JobKind, rate: u32) -> Result<Work, Refusal> {
        let mut known = self.lock();
        let is_running = |job: &&watch::Sender<JobView>| job.borrow().state == JobState::Running;
        if known.iter().filter(is_running).count() >= RUNNING_MAX {
            let detail = format!("{RUNNING_MAX} jobs are under way; cancel one or wait");
            return Err(Refusal::new(Code::Overloaded, detail));
        }
        if known.len() == KEPT_MAX
            && let Some(ended) = known.iter().position(|job| !is_running(&job))
        {
            known.remove(ended);
        }
        let rate = rate.max(1);
        let view = watch::Sender::new(JobView {
            id: format!("{:016x}", clock::random()),
            kind,
            state: JobState::Running,
            matched: 0,
            done: 0,
            left_out: 0,
            rate,
            started_at: clock::now().wall.0,
            ended_at: None,
            detail: None,
        });
        known.push_back(view.clone());
        let slice = (rate / SLICES_PER_SECOND).max(1);
        let mut pace = interval(Duration::from_secs_f64(f64::from(slice) / f64::from(rate)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Work {
            view,
            slice: slice as usize,
            pace,
        })
    }

    /// Those of one kind, the oldest first.
    pub(crate) fn views(&self, kind: JobKind) -> Vec<JobView> {
        let known = self.lock();
        let views = known.iter().map(|job| job.borrow().clone());
        views.filter(|view| view.kind == kind).collect()
    }

    pub(crate) fn view(&self, kind: JobKind, id: &str) -> Option<JobView> {
        self.views(kind).into_iter().find(|view| view.id == id)
    }

    /// Ends a job that is under way; how it stands then.
    pub(crate) fn cancel(&self, kind: JobKind, id: &str) -> Option<JobView> {
        let known = self.lock();
        let job = known.iter().find(|job| {
            let view = job.borrow();
            view.kind == kind && view.id == id
        })?;
        end(job, JobState::Cancelled);
        Some(job.borrow().clone())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<watch::Sender<JobView>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// Follows the job from outside.
    pub(crate) fn watch(&self) -> watch::Receiver<JobView> {
        self.view.subscribe()
    }

    pub(crate) fn matched(&self, matched: usize) {
        self.view.send_modify(|view| view.matched = matched as u64);
    }

    pub(crate) fn say(&self, detail: String) {
        self.view.send_modify(|view| view.detail = Some(detail));
    }

    /// Waits until the next slice is due; how much of the work it may take, or `None` when the job
    /// was cancelled.
    pub(crate) async fn next_slice(&mut self) -> Option<usize> {
        self.pace.tick().await;
        (self.view.borrow().state == JobState::Running).then_some(self.slice)
    }

    /// So much was looked at, and so much of that was carried out.
    pub(crate) fn advance(&self, through: usize, done: usize) {
        self.view.send_modify(|view| {
            view.done += done as u64;
            view.left_out += through.saturating_sub(done) as u64;
        });
    }

    /// Ends it, unless it was cancelled before.
    pub(crate) fn end(self, result: Result<(), Refusal>) {
        if let Err(refusal) = &result {
            self.say(refusal.to_string());
        }
        let state = match result {
            Ok(()) => JobState::Done,
            Err(_) => JobState::Failed,
        };
        end(&self.view, state);
        let view = self.view.borrow();
        tracing::info!(job = %view.id, kind = view.kind.as_str(), state = view.state.as_str(), matched = view.matched, done = view.done, left_out = view.left_out, "a job ended");
    }
}

fn end(job: &watch::Sender<JobView>, state: JobState) {
    job.send_if_modified(|view| {
        let running = view.state == JobState::Running;
        if running {
            view.state = state;
            view.ended_at = Some(clock::now().wall.0);
        }
        running
    });
}

/// The job's view once it has ended, or as it stands after `patience`.
pub(crate) async fn ended_within(mut job: watch::Receiver<JobView>, patience: Duration) -> JobView {
    let ended = job.wait_for(|view| view.state != JobState::Running);
    // Late or gone: its last view is as good as any.
    drop(tokio::time::timeout(patience, ended).await);
    let view = job.borrow();
    view.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_takes_its_rate_and_no_more() {
        let jobs = Jobs::default();
        let mut work = jobs.begin(JobKind::Redrive, 100).unwrap();
        let begun = tokio::time::Instant::now();
        let mut taken = 0;
        while taken < 100 {
            taken += work.next_slice().await.unwrap();
        }
        let took = begun.elapsed().as_millis();
        assert!((800..=1000).contains(&took), "{took} ms for {taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_job_takes_no_further_slice_and_stays_cancelled() {
        let jobs = Jobs::default();
        let mut work = jobs.begin(JobKind::Replay, 1).unwrap();
        let id = work.watch().borrow().id.clone();
        assert!(work.next_slice().await.is_some());
        assert_eq!(jobs.cancel(JobKind::Redrive, &id), None, "another kind's");
        let view = jobs.cancel(JobKind::Replay, &id).unwrap();
        assert_eq!(view.state, JobState::Cancelled);
        assert!(work.next_slice().await.is_none());
        work.end(Ok(()));
        let view = jobs.view(JobKind::Replay, &id).unwrap();
        assert_eq!(view.state, JobState::Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_that_ended_is_forgotten_and_running_ones_are_bounded() {
        let jobs = Jobs::default();
        for _ in 0..KEPT_MAX + 3 {
            jobs.begin(JobKind::Redrive, 1).unwrap().end(Ok(()));
        }
        assert_eq!(jobs.views(JobKind::Redrive).len(), KEPT_MAX);
        let running: Vec<Work> = (0..RUNNING_MAX)
            .map(|_| jobs.begin(JobKind::Replay, 1).unwrap())
            .collect();
        let refused = jobs.begin(JobKind::Replay, 1).unwrap_err();
        assert_eq!(refused.code, Code::Overloaded);
        drop(running);
    }
}
