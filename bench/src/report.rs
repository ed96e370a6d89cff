//! What is left of a measurement: JSON for machines, HTML for people, a table on stdout.

mod html;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::figures::{Figures, Metric};
use crate::machine::Machine;

/// One scenario, measured one or more times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Of this JSON.
    pub(crate) version: u32,
    pub(crate) scenario: String,
    /// Of the sources, with `-dirty` when they had changes.
    pub(crate) commit: String,
    pub(crate) at_unix_seconds: u64,
    pub(crate) machine: Machine,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) summary: BTreeMap<Metric, Spread>,
    pub(crate) runs: Vec<Figures>,
}

/// A figure over all runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

/// The JSON that is written, and the one that is read.
pub(crate) const VERSION: u32 = 1;

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            (values.get(middle.checked_sub(1)?)? + values[middle]) / 2.0
        };
        Some(Spread {
            min: *values.first()?,
            median,
            max: *values.last()?,
        })
    }
}

/// The spread of each figure.
pub(crate) fn summarize(runs: &[Figures]) -> BTreeMap<Metric, Spread> {
    let mut values = BTreeMap::<Metric, Vec<f64>>::new();
    for (metric, value) in runs.iter().flat_map(Figures::headline) {
        values.entry(metric).or_default().push(value);
    }
    values
        .into_iter()
        .filter_map(|(metric, values)| Some((metric, Spread::of(values)?)))
        .collect()
}

impl Report {
    /// Writes `prefix.json` and `prefix.html`.
    pub(crate) fn write(&self, prefix: &Path) -> io::Result<[PathBuf; 2]> {
        let named = |extension: &str| {
            let mut name = prefix.as_os_str().to_owned();
            name.push(extension);
            PathBuf::from(name)
        };
        let paths = [named(".json"), named(".html")];
        if let Some(folder) = prefix.parent() {
            fs::create_dir_all(folder)?;
        }
        let json = serde_json::to_vec(self).map_err(io::Error::other)?;
        fs::write(&paths[0], json)?;
        fs::write(&paths[1], html::page(self))?;
        Ok(paths)
    }

    pub(crate) fn read(path: &Path) -> io::Result<Report> {
        let wrong = |what: String| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {what}", path.display()),
            )
        };
        let json = fs::read(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        let report: Report =
            serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))?;
        if report.version != VERSION {
            return Err(wrong(format!("its version is {}", report.version)));
        }
        Ok(report)
    }

    /// The summary as lines of text.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<26} {:>12} {:>12} {:>12}   ({} runs)\n",
            self.scenario,
            "min",
            "median",
            "max",
            self.runs.len()
        );
        for (metric, spread) in &self.summary {
            writeln!(
                text,
                "{:<26} {:>12} {:>12} {:>12}",
                metric.label(),
                figure(spread.min),
                figure(spread.median),
                figure(spread.max)
            )
            .expect("a String takes every write");
        }
        text
    }
}

/// A number with the digits that mean something.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => thousands(value.round() as i64),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digit != '-' {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use hdrhistogram::Histogram;

    use super::*;
    use crate::figures::{Delivery, Latency, Sample};

    pub(crate) fn report(events_per_second: &[f64]) -> Report {
        let mut histogram = Histogram::new(3).unwrap();
        for us in [800, 900, 1000, 25_000] {
            histogram.record(us).unwrap();
        }
        let runs: Vec<Figures> = events_per_second
            .iter()
            .map(|&rate| Figures {
                events_attempted: 4,
                events_accepted: 4,
                refused: BTreeMap::new(),
                broken_connections: Vec::new(),
                success_rate: 1.0,
                intake_seconds: 2.0,
                events_per_second: rate,
                ack_latency: Latency::of(&histogram),
                delivery: Some(Delivery {
                    sink: "nginx".to_owned(),
                    delivered: 4,
                    seconds: 2.0,
                    delivered_per_second: rate,
                    drained: true,
                    sink_cpu_seconds: None,
                    yardstick_per_second: Some(100.0),
                    ratio_to_yardstick: Some(rate / 100.0),
                }),
                cpu_user_seconds: 1.0,
                cpu_system_seconds: 0.5,
                cpu_us_per_operation: 12.0,
                peak_rss_bytes: 64 << 20,
                generator_cpu_seconds: 0.1,
                timeline: (0..20)
                    .map(|at| Sample {
                        at_ms: at * 100,
                        acked: at * 10,
                        delivered: at * 9,
                        cpu_ms: at,
                    })
                    .collect(),
            })
            .collect();
        Report {
            version: VERSION,
            scenario: "deliver".to_owned(),
            commit: "abc<def".to_owned(),
            at_unix_seconds: 1_700_000_000,
            machine: Machine::default(),
            settings: BTreeMap::from([("seed".to_owned(), "7".to_owned())]),
            summary: summarize(&runs),
            runs,
        }
    }

    #[test]
    fn the_summary_has_least_middle_and_most_of_each_figure() {
        let spread = report(&[30.0, 10.0, 20.0]).summary[&Metric::EventsPerSecond];
        assert_eq!((spread.min, spread.median, spread.max), (10.0, 20.0, 30.0));
        let even = report(&[10.0, 20.0]).summary[&Metric::EventsPerSecond];
        assert_eq!(even.median, 15.0);
    }

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let written = report(&[10.0]);
        let [json, html] = written.write(&folder.path().join("sub/a.b")).unwrap();
        assert!(json.ends_with("sub/a.b.json") && html.ends_with("sub/a.b.html"));
        let read = Report::read(&json).unwrap();
        assert_eq!(read.summary, written.summary);
        assert_eq!(read.runs[0].ack_latency.histogram.len(), 4);
        fs::write(&json, "{}").unwrap();
        assert!(Report::read(&json).is_err());
    }

    #[test]
    fn figures_keep_the_digits_that_mean_something() {
        for (value, text) in [
            (1_234_567.8, "1,234,568"),
            (999.44, "999.4"),
            (12.345, "12.35"),
            (0.0421, "0.042"),
            (0.0, "0.00"),
            (1000.0, "1,000"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
