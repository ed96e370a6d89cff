//! Fault windows laid out in time: outages, slow spells, throttling.

use std::time::Duration;

use serde::Deserialize;

use crate::fault::{FaultError, FaultSpec, Faults};

/// Windows in which other faults hold than outside; where windows meet, the later one in the list
/// wins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scenario {
    windows: Vec<Window>,
}

#[derive(Debug, Clone, PartialEq)]
struct Window {
    from: Duration,
    until: Duration,
    faults: FaultSpec,
}

/// Windows a scenario may hold, over its file and what was added while running; far more than a
/// test lays out, few enough to look through on each call.
pub const WINDOWS_MAX: usize = 1_000;

/// Why a scenario is refused.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// No TOML, or a key that is not known.
    #[error("the scenario is not valid TOML of [[window]] tables with at_ms, for_ms, fault")]
    Toml(#[from] toml::de::Error),
    /// The faults of one window.
    #[error("window {index} of the scenario")]
    Fault {
        /// Counted from 1.
        index: usize,
        /// What is wrong with them.
        #[source]
        source: FaultError,
    },
    /// More than [`WINDOWS_MAX`].
    #[error("a scenario holds at most {WINDOWS_MAX} windows")]
    TooMany,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    window: Vec<FileWindow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileWindow {
    at_ms: u64,
    for_ms: u64,
    fault: String,
}

impl Scenario {
    /// Reads `[[window]]` tables of `at_ms` (since the account started), `for_ms` and `fault`.
    ///
    /// # Errors
    /// When the text is no scenario.
    pub fn parse(toml: &str) -> Result<Self, ScenarioError> {
        let file: File = toml::from_str(toml)?;
        let mut scenario = Self::default();
        for (at, window) in file.window.into_iter().enumerate() {
            let faults = window
                .fault
                .parse()
                .map_err(|source| ScenarioError::Fault {
                    index: at + 1,
                    source,
                })?;
            let from = Duration::from_millis(window.at_ms);
            scenario.add(from, Duration::from_millis(window.for_ms), faults)?;
        }
        Ok(scenario)
    }

    /// Adds a window on top of the others.
    ///
    /// # Errors
    /// [`ScenarioError::TooMany`], and nothing was added.
    pub fn add(
        &mut self,
        from: Duration,
        length: Duration,
        faults: FaultSpec,
    ) -> Result<(), ScenarioError> {
        if self.windows.len() >= WINDOWS_MAX {
            return Err(ScenarioError::TooMany);
        }
        self.windows.push(Window {
            from,
            until: from + length,
            faults,
        });
        Ok(())
    }

    /// Forgets windows that are over.
    pub(crate) fn forget_before(&mut self, now: Duration) {
        self.windows.retain(|window| window.until > now);
    }

    /// Lays the windows open now over the faults that hold always.
    pub(crate) fn overlay(&self, now: Duration, faults: &mut Faults) {
        for window in &self.windows {
            if window.from <= now && now < window.until {
                faults.apply(&window.faults);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Roll};

    #[test]
    fn a_window_holds_from_its_start_up_to_its_end() {
        let scenario = Scenario::parse(
            "[[window]]\nat_ms = 100\nfor_ms = 50\nfault = \"5xx=1\"\n\
             [[window]]\nat_ms = 120\nfor_ms = 10\nfault = \"5xx=0,429=1\"\n",
        )
        .unwrap();
        let at = |ms| {
            let mut faults = Faults::default();
            scenario.overlay(Duration::from_millis(ms), &mut faults);
            let roll = Roll::of_call(1, 1);
            (
                faults.strikes(Fault::ServerError, roll),
                faults.strikes(Fault::Throttled, roll),
            )
        };
        assert_eq!(at(99), (false, false));
        assert_eq!(at(100), (true, false));
        assert_eq!(at(120), (false, true));
        assert_eq!(at(130), (true, false));
        assert_eq!(at(150), (false, false));
    }

    #[test]
    fn a_file_that_says_something_else_is_refused() {
        for toml in [
            "[[window]]\nat_ms = 1\nfor_ms = 1\nfault = \"6xx=1\"",
            "[[window]]\nat_ms = 1\nfor_ms = 1\nfault = \"5xx=1\"\nmore = 1",
            "[[outage]]\nat_ms = 1",
            "at_ms",
        ] {
            assert!(Scenario::parse(toml).is_err(), "{toml}");
        }
        assert_eq!(Scenario::parse("").unwrap(), Scenario::default());
    }
}
