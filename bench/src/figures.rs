//! What one run measured.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::process::Usage;

/// The figures of one run. Rates are per second of wall time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) events_attempted: u64,
    pub(crate) events_accepted: u64,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) broken_connections: Vec<String>,
    /// Accepted of attempted.
    pub(crate) success_rate: f64,
    pub(crate) intake_seconds: f64,
    pub(crate) events_per_second: f64,
    pub(crate) ack_latency: Latency,
    pub(crate) delivery: Option<Delivery>,
    /// Of the program, from the first event to the last ack or delivery.
    pub(crate) cpu_user_seconds: f64,
    pub(crate) cpu_system_seconds: f64,
    /// Per accepted event, or per delivery where there are deliveries.
    pub(crate) cpu_us_per_operation: f64,
    pub(crate) peak_rss_bytes: u64,
    /// Of this process.
    pub(crate) generator_cpu_seconds: f64,
    pub(crate) timeline: Vec<Sample>,
}

/// Calls counted at the sink.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) sink: String,
    pub(crate) delivered: u64,
    /// From the first event to the last delivery.
    pub(crate) seconds: f64,
    pub(crate) delivered_per_second: f64,
    /// Whether every accepted event was delivered, at least once.
    pub(crate) drained: bool,
    pub(crate) sink_cpu_seconds: Option<f64>,
    /// wrk's POST requests a second against the same sink, just before.
    pub(crate) yardstick_per_second: Option<f64>,
    pub(crate) ratio_to_yardstick: Option<f64>,
}

/// The totals at one instant.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) at_ms: u64,
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    pub(crate) cpu_ms: u64,
}

/// Latency in microseconds, and the histogram it was read from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) mean_us: f64,
    pub(crate) p50_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p99_9_us: u64,
    pub(crate) max_us: u64,
    /// Recorded values, 3 digits kept, and how often each occurred.
    pub(crate) histogram: Vec<(u64, u64)>,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Latency {
        Latency {
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            p99_9_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
            histogram: histogram
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        }
    }
}

impl Figures {
    /// The figures that runs are compared by. Of each, how it is called, and whether more is
    /// better.
    pub(crate) fn headline(&self) -> Vec<(Metric, f64)> {
        let ms = |us: u64| us as f64 / 1000.0;
        let latency = &self.ack_latency;
        let mut list = vec![(Metric::EventsPerSecond, self.events_per_second)];
        if let Some(delivery) = &self.delivery {
            list.push((Metric::DeliveredPerSecond, delivery.delivered_per_second));
            let ratio = delivery.ratio_to_yardstick;
            list.extend(ratio.map(|ratio| (Metric::RatioToYardstick, ratio)));
        }
        list.extend([
            (Metric::AckMeanMs, latency.mean_us / 1000.0),
            (Metric::AckP50Ms, ms(latency.p50_us)),
            (Metric::AckP95Ms, ms(latency.p95_us)),
            (Metric::AckP99Ms, ms(latency.p99_us)),
            (Metric::AckP99_9Ms, ms(latency.p99_9_us)),
            (Metric::AckMaxMs, ms(latency.max_us)),
            (Metric::SuccessPercent, self.success_rate * 100.0),
            (
                Metric::CpuSeconds,
                self.cpu_user_seconds + self.cpu_system_seconds,
            ),
            (Metric::CpuUsPerOperation, self.cpu_us_per_operation),
            (
                Metric::PeakRssMib,
                self.peak_rss_bytes as f64 / f64::from(1 << 20),
            ),
        ]);
        list
    }

    /// Fills in what the program used for `operations`.
    pub(crate) fn charge(&mut self, used: &Usage, operations: u64) {
        self.cpu_user_seconds = used.user.as_secs_f64();
        self.cpu_system_seconds = used.system.as_secs_f64();
        self.cpu_us_per_operation = per(used.cpu().as_secs_f64() * 1e6, operations as f64);
        self.peak_rss_bytes = used.peak_rss_bytes;
    }
}

/// `amount / of`, 0 where there is nothing to divide by.
pub(crate) fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

/// `count` over `took`.
pub(crate) fn per_second(count: u64, took: Duration) -> f64 {
    per(count as f64, took.as_secs_f64())
}

/// A figure that runs are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    EventsPerSecond,
    DeliveredPerSecond,
    RatioToYardstick,
    AckMeanMs,
    AckP50Ms,
    AckP95Ms,
    AckP99Ms,
    #[serde(rename = "ack_p99_9_ms")]
    AckP99_9Ms,
    AckMaxMs,
    SuccessPercent,
    CpuSeconds,
    CpuUsPerOperation,
    PeakRssMib,
}

impl Metric {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Metric::EventsPerSecond => "events accepted/s",
            Metric::DeliveredPerSecond => "delivered/s",
            Metric::RatioToYardstick => "delivered / wrk",
            Metric::AckMeanMs => "ack mean ms",
            Metric::AckP50Ms => "ack p50 ms",
            Metric::AckP95Ms => "ack p95 ms",
            Metric::AckP99Ms => "ack p99 ms",
            Metric::AckP99_9Ms => "ack p99.9 ms",
            Metric::AckMaxMs => "ack max ms",
            Metric::SuccessPercent => "success %",
            Metric::CpuSeconds => "engine CPU s",
            Metric::CpuUsPerOperation => "engine CPU µs/operation",
            Metric::PeakRssMib => "engine peak RSS MiB",
        }
    }

    pub(crate) fn more_is_better(self) -> bool {
        matches!(
            self,
            Metric::EventsPerSecond
                | Metric::DeliveredPerSecond
                | Metric::RatioToYardstick
                | Metric::SuccessPercent
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_read_from_the_histogram_and_keeps_it() {
        let mut histogram = Histogram::new(3).unwrap();
        for us in 1..=1000 {
            histogram.record(us).unwrap();
        }
        let latency = Latency::of(&histogram);
        assert_eq!(
            (latency.p50_us, latency.p95_us, latency.max_us),
            (500, 950, 1000)
        );
        assert!((latency.mean_us - 500.5).abs() < 0.01);
        let kept: u64 = latency.histogram.iter().map(|(_, count)| count).sum();
        assert_eq!(kept, 1000);
    }
}
