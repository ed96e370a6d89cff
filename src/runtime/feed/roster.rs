//! The consumers on disk: names, what they take, and the numbers set aside for them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::durable_file;
use super::CONSUMERS_MAX;
use super::consumer::{Consumer, Wish};

const FILE: &str = "consumers.json";
const FORMAT: u32 = 1;
/// 256 consumers with 256 objects of 128 bytes each, escaped.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The file of a data directory.
#[derive(Debug)]
pub(super) struct Roster {
    path: PathBuf,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    format: u32,
    #[serde(borrow)]
    consumers: Vec<Entry<'a>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    name: std::borrow::Cow<'a, str>,
    /// Absent: every object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    objects: Option<Vec<String>>,
    /// Numbers up to it are or may be used.
    reserved: u64,
    /// The highest number acknowledged, about a second ago.
    acked: u64,
}

impl Roster {
    pub(super) fn of(data_dir: &Path) -> Roster {
        Roster {
            path: data_dir.join(FILE),
        }
    }

    pub(super) fn read(&self) -> io::Result<BTreeMap<Arc<str>, Consumer>> {
        match durable_file::read(&self.path, FILE_BYTES_MAX)? {
            None => Ok(BTreeMap::new()),
            Some(bytes) => decode(&bytes)
                .map_err(|error| io::Error::other(format!("{}: {error}", self.path.display()))),
        }
    }

    pub(super) fn replace(&self, text: &[u8]) -> io::Result<()> {
        durable_file::replace(&self.path, text)
    }
}

/// The file's text, with the numbers that are promised.
pub(super) fn encode(consumers: &BTreeMap<Arc<str>, Consumer>) -> Vec<u8> {
    let entries = consumers.iter().map(|(name, consumer)| Entry {
        name: (&**name).into(),
        objects: consumer.wish.names(),
        reserved: consumer.promised,
        acked: consumer.acked(),
    });
    let document = Document {
        format: FORMAT,
        consumers: entries.collect(),
    };
    serde_json::to_vec_pretty(&document).expect("a document holds text and numbers only")
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<Arc<str>, Consumer>, String> {
    let document: Document<'_> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if document.format != FORMAT {
        return Err(format!(
            "expected format {FORMAT}, found {}",
            document.format
        ));
    }
    if document.consumers.len() > CONSUMERS_MAX {
        return Err(format!("more than {CONSUMERS_MAX} consumers"));
    }
    let entries = document.consumers.into_iter().map(|entry| {
        let wish = Wish::of(entry.objects.as_deref());
        let consumer = Consumer::remembered(wish, entry.reserved, entry.acked);
        (Arc::from(&*entry.name), consumer)
    });
    Ok(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_as_it_is_documented() {
        let objects = vec!["contact".to_owned()];
        let consumers = BTreeMap::from([
            (
                Arc::from("billing"),
                Consumer::remembered(Wish::of(Some(&objects)), 65_536, 12),
            ),
            (Arc::from("all"), Consumer::remembered(Wish::All, 3, 3)),
        ]);
        let text = encode(&consumers);
        let found: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let expected = serde_json::json!({"format": 1, "consumers": [
            {"name": "all", "reserved": 3, "acked": 3},
            {"name": "billing", "objects": ["contact"], "reserved": 65_536, "acked": 12},
        ]});
        assert_eq!(found, expected);
        let again = decode(&text).unwrap();
        assert_eq!(encode(&again), text);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "",
            "[]",
            r#"{"format":2,"consumers":[]}"#,
            r#"{"format":1,"consumers":[{"name":"a","reserved":-1,"acked":0}]}"#,
            r#"{"format":1,"consumers":[],"x":1}"#,
        ] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
