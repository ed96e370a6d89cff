//! What a user may set for a scenario.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::events::Mix;
use crate::load::Rate;
use crate::wire::Encoding;

/// The options of every scenario.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Events a second by schedule (open loop), or `max` (bounded window)
    #[arg(long, value_name = "N|max", default_value = "max")]
    pub(crate) rate: Rate,

    /// How long to send
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    seconds: f64,

    /// How events are sent
    #[arg(long, value_enum, default_value = "frames")]
    pub(crate) encoding: Encoding,

    /// Connections to send on; default 4, for http 64
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    connections: Option<u16>,

    /// Events per request, http only
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) batch: usize,

    /// Events of a connection that may be unanswered, with `--rate max`
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) window: u64,

    /// Events that may be sent and not delivered, with `--rate max`; ingest has no such bound
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) backlog: u64,

    /// Record ids to choose from
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) records: u64,

    /// Size of an event
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub(crate) event_bytes: usize,

    /// Operations by weight, such as create=1,upsert=8,update=1
    #[arg(long, default_value = "upsert")]
    pub(crate) mix: Mix,

    /// What the choice of records and operations starts from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Repeat on a fresh data directory, and report least, middle and most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,

    /// `[shards] count`; default: the program's
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u32>,

    /// `[wal] durability`
    #[arg(long, default_value = "fsync", value_parser = ["fsync", "os"])]
    pub(crate) durability: String,

    /// Calls at once at the sink
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_in_flight: u32,

    /// The program to measure; default: `syncline` beside this binary
    #[arg(long, value_name = "FILE")]
    pub(crate) bin: Option<PathBuf>,

    /// Write PREFIX.json and PREFIX.html; default: under target/bench
    #[arg(long, value_name = "PREFIX")]
    pub(crate) out: Option<PathBuf>,

    /// Keep the data directory and the program's log
    #[arg(long)]
    pub(crate) keep: bool,

    /// A second of load on few records, to see that all of it works
    #[arg(long)]
    pub(crate) smoke: bool,
}

impl Settings {
    /// With what `--smoke` and the scenario imply.
    pub(crate) fn settled(mut self, bounded_backlog: bool) -> Settings {
        if self.smoke {
            self.seconds = self.seconds.min(1.0);
            self.records = self.records.min(1000);
            self.backlog = self.backlog.min(2000);
        }
        if !bounded_backlog {
            self.backlog = u64::MAX / 2;
        }
        self
    }

    pub(crate) fn lasts(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::ZERO)
    }

    pub(crate) fn connections(&self) -> usize {
        match (self.connections, self.encoding) {
            (Some(connections), _) => connections.into(),
            (None, Encoding::Http) => 64,
            (None, Encoding::Frames | Encoding::Lines) => 4,
        }
    }

    pub(crate) fn yardstick_seconds(&self) -> u64 {
        if self.smoke { 1 } else { 3 }
    }

    /// How long the sink may see nothing before the rest is given up.
    pub(crate) fn drain_patience(&self) -> Duration {
        Duration::from_secs(if self.smoke { 5 } else { 15 })
    }

    /// For the report.
    pub(crate) fn named(&self) -> BTreeMap<String, String> {
        let rate = match self.rate {
            Rate::PerSecond(rate) => rate.to_string(),
            Rate::Max => "max".to_owned(),
        };
        let shards = self.shards.map_or("default".to_owned(), |n| n.to_string());
        [
            ("rate", rate),
            ("seconds", self.seconds.to_string()),
            ("encoding", format!("{:?}", self.encoding).to_lowercase()),
            ("connections", self.connections().to_string()),
            ("batch", self.batch.to_string()),
            ("window", self.window.to_string()),
            ("backlog", self.backlog.to_string()),
            ("records", self.records.to_string()),
            ("event_bytes", self.event_bytes.to_string()),
            ("mix", self.mix.to_string()),
            ("seed", self.seed.to_string()),
            ("shards", shards),
            ("durability", self.durability.clone()),
            ("max_in_flight", self.max_in_flight.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
