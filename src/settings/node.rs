//! The node's own sections: where it keeps, listens, and how much it may take.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::quantity::{self, ByteSize};
use super::secret::SecretSource;

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// Holds the log and everything else that is kept.
    pub data_dir: PathBuf,
    /// The object of an event that names none.
    pub default_object: Option<String>,
    /// How the outside reaches this node; webhooks are verified against it.
    pub public_url: Option<String>,
    /// Seals what is kept of credentials; absent: a key file in the data directory.
    pub secret_key: Option<SecretSource>,
    /// How long an event id is remembered.
    #[serde(deserialize_with = "quantity::duration")]
    pub dedup_window: Duration,
    /// How many event ids are remembered within the window.
    pub dedup_max: NonZeroU64,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            data_dir: PathBuf::from("syncline-data"),
            default_object: None,
            public_url: None,
            secret_key: None,
            dedup_window: Duration::from_secs(3600),
            dedup_max: NonZeroU64::new(10_000_000).expect("ten million is not zero"),
        }
    }
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSettings {
    /// Where producers stream events; port 0 takes a free one.
    pub tcp: SocketAddr,
    /// Where the API, the probes and the metrics are.
    pub http: SocketAddr,
    /// Where webhooks alone are taken; each delivery on it is signed.
    pub webhooks: Option<SocketAddr>,
    /// Lets `tcp` and `http` listen off loopback without TLS and keys.
    pub insecure: bool,
}

impl Default for ListenSettings {
    fn default() -> ListenSettings {
        ListenSettings {
            tcp: SocketAddr::from(([127, 0, 0, 1], 7400)),
            http: SocketAddr::from(([127, 0, 0, 1], 7401)),
            webhooks: None,
            insecure: false,
        }
    }
}

/// `[shards]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardSettings {
    /// Shard threads; absent: one per core.
    pub count: Option<NonZeroUsize>,
    /// Events a shard's ring holds before intake waits.
    pub ring_capacity: NonZeroUsize,
    /// Ties each shard thread to a core of its own.
    pub pin: bool,
}

impl Default for ShardSettings {
    fn default() -> ShardSettings {
        ShardSettings {
            count: None,
            ring_capacity: NonZeroUsize::new(65_536).expect("not zero"),
            pin: true,
        }
    }
}

/// `[wal]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WalSettings {
    /// Bytes of one segment file.
    pub segment_bytes: ByteSize,
    /// What an acknowledgement promises.
    pub durability: Durability,
}

impl Default for WalSettings {
    fn default() -> WalSettings {
        WalSettings {
            segment_bytes: ByteSize::mebibytes(64),
            durability: Durability::Fsync,
        }
    }
}

/// What has happened to an event's bytes before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written and synced: survives a power loss.
    Fsync,
    /// Written: survives a crash of the process only.
    Os,
}

/// `[memory]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemorySettings {
    /// Above this, intake is held back.
    pub max: ByteSize,
}

impl Default for MemorySettings {
    fn default() -> MemorySettings {
        MemorySettings {
            max: ByteSize::mebibytes(2048),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Least severe level that is written.
    pub level: LogLevel,
    /// Lines of JSON, or lines for people.
    pub format: LogFormat,
    /// Absent: standard error.
    pub file: Option<PathBuf>,
    /// Starts a new file at this size.
    pub rotate_bytes: ByteSize,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            level: LogLevel::Info,
            format: LogFormat::Json,
            file: None,
            rotate_bytes: ByteSize::mebibytes(64),
        }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names of the levels are their meaning")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// How long a finished operation can be read.
    pub operations: Retention,
}

impl Default for RetentionSettings {
    fn default() -> RetentionSettings {
        RetentionSettings {
            operations: Retention::For(Duration::from_secs(7 * 86_400)),
        }
    }
}

/// A bound on what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// By age.
    For(Duration),
    /// By size, the oldest first.
    UpTo(ByteSize),
}

impl<'de> Deserialize<'de> for Retention {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Retention, D::Error> {
        let text = String::deserialize(from)?;
        let duration = quantity::parse_duration(&text).filter(|d| !d.is_zero());
        duration
            .map(Retention::For)
            .or_else(|| quantity::parse_size(&text).map(Retention::UpTo))
            .ok_or_else(|| {
                let expected = "a duration such as \"7d\" or a size such as \"10GiB\"";
                serde::de::Error::invalid_value(serde::de::Unexpected::Str(&text), &expected)
            })
    }
}

/// `[egress]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressSettings {
    /// Private networks (CIDR) that accounts added by the API may lie in.
    pub allow: Vec<String>,
}
