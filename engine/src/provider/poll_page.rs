//! Reads what a provider answers when it is asked for changes.

use serde_json::value::RawValue;

use super::classify::readable;
use super::inbound_blocks::{PageBlock, PollBlock, Tells};
use super::instant::{TimeUnit, instant_ms};
use super::operation::OkCondition;
use super::pointer::{Landing, Pointer, is_object, scalar_text};
use super::poll::{MODIFIED, NextPage, Poll};
use super::problems::Problems;
use super::retry_after::http_date;
use super::webhook_event::{hashed, usable_id};
use super::{BodyEnd, Change, ChangeKind, Reply};
use crate::json::{ObjectWriter, RawObject};

/// Where the pages of a list hold what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageReader {
    /// The first that leads somewhere counts.
    records: Vec<Pointer>,
    record: Pointer,
    /// Members of a record that are none of its fields.
    drop: Vec<String>,
    id: Pointer,
    modified_at: Pointer,
    unit: TimeUnit,
    version: Option<Pointer>,
    deleted: Option<OkCondition>,
    merged_into: Option<Pointer>,
    pub(crate) tells: Tells,
    token: Option<Pointer>,
    url: Option<Pointer>,
    next_from: Option<Pointer>,
    earliest: Option<Pointer>,
}

/// One page, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// Entries without an id or a time that can be read.
    pub(crate) unreadable: usize,
    pub(crate) next: Option<NextPage>,
    /// From where on the next list begins.
    pub(crate) next_from_ms: Option<i64>,
    /// How far back this list went.
    pub(crate) earliest_ms: Option<i64>,
    /// The provider's clock when it answered.
    pub(crate) served_at_ms: Option<i64>,
}

/// A record of a page, and its place in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at_ms: i64,
    pub(crate) change: Change,
}

/// An answer that tells of no changes. The position in the list stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PollFault {
    /// The provider refused or failed.
    #[error("HTTP {0}")]
    Status(u16),
    /// More than a reply may hold; fewer records are asked for at a time.
    #[error("a page is larger than a reply may be")]
    TooLarge,
    /// A success that does not hold what the definition says.
    #[error("a page that {0}")]
    Unreadable(&'static str),
    /// The link to the next page leads away from the account; it is not followed.
    #[error("the link to the next page leads elsewhere")]
    ForeignPage,
}

/// Longer than every provider's tokens, short enough for a request line.
const PAGE_BYTES_MAX: usize = 4 * 1024;

impl PageReader {
    pub(crate) fn compile(
        name: &str,
        block: &PollBlock,
        problems: &mut Problems,
    ) -> Option<PageReader> {
        let mut pointer = |member: &str, text: Option<&str>| {
            let read = text.map(Pointer::parse_any).transpose();
            problems.note(format!("poll.{name}.{member}"), read)
        };
        let PageBlock { token, url } = match &block.page {
            Some(page) => page,
            None => &PageBlock {
                token: None,
                url: None,
            },
        };
        let records = block.records.as_slice().iter();
        let records: Vec<Pointer> = records
            .filter_map(|text| pointer("records", Some(text)).flatten())
            .collect();
        let record = pointer("record", Some(&block.record));
        let id = pointer("id", Some(&block.id));
        let modified_at = pointer("modified_at", Some(&block.modified_at));
        let version = pointer("version", block.version.as_deref());
        let merged_into = pointer("merged_into", block.merged_into.as_deref());
        let token = pointer("page.token", token.as_deref());
        let url = pointer("page.url", url.as_deref());
        let next_from = pointer("next_from", block.next_from.as_deref());
        let earliest = pointer("earliest", block.earliest.as_deref());
        let deleted = block.deleted.as_ref().map(OkCondition::compile).transpose();
        let deleted = problems.note(format!("poll.{name}.deleted"), deleted);
        Some(PageReader {
            records,
            record: record??,
            drop: block.drop.clone(),
            id: id??,
            modified_at: modified_at??,
            unit: block.unit,
            version: version?,
            deleted: deleted?,
            merged_into: merged_into?,
            tells: block.tells,
            token: token?,
            url: url?,
            next_from: next_from?,
            earliest: earliest?,
        })
    }
}

impl Poll {
    /// Reads a page; `base_url` is the account's, without a slash at its end.
    pub(crate) fn page(&self, reply: &Reply, base_url: &str) -> Result<Page, PollFault> {
        if !(200..=299).contains(&reply.status) {
            return Err(PollFault::Status(reply.status));
        }
        if reply.body_end == BodyEnd::TooLarge {
            return Err(PollFault::TooLarge);
        }
        let reader = &self.feed.page;
        let text = readable(reply).map_err(PollFault::Unreadable)?;
        let mut places = reader.records.iter();
        let records = places.find_map(|place| match place.find_any(text) {
            Ok(Landing::Value(records)) => Some(records),
            Ok(Landing::PastArrayEnd | Landing::Nowhere) | Err(_) => None,
        });
        let records = records.ok_or(PollFault::Unreadable("holds no records"))?;
        let records: Vec<&RawValue> = serde_json::from_str(records)
            .map_err(|_| PollFault::Unreadable("holds no list of records"))?;
        let mut entries = Vec::with_capacity(records.len());
        let mut unreadable = 0;
        for record in records {
            match self.entry(record.get()) {
                Some(entry) => entries.push(entry),
                None => unreadable += 1,
            }
        }
        let instant = |at: &Option<Pointer>| {
            let text = scalar(at.as_ref()?, text)?;
            instant_ms(&text, reader.unit)
        };
        let date = reply.date.as_deref();
        Ok(Page {
            entries,
            unreadable,
            next: reader.next(text, base_url)?,
            next_from_ms: instant(&reader.next_from),
            earliest_ms: instant(&reader.earliest),
            served_at_ms: date
                .and_then(|date| http_date(date.trim()))
                .map(|date| date.as_millisecond()),
        })
    }

    fn entry(&self, entry: &str) -> Option<Entry> {
        let reader = &self.feed.page;
        let remote_id = usable_id(scalar(&reader.id, entry)?).ok()?;
        let modified_at = scalar(&reader.modified_at, entry)?;
        let at_ms = instant_ms(&modified_at, reader.unit)?;
        let version = reader.version.as_ref().and_then(|at| scalar(at, entry));
        let version = version.unwrap_or(modified_at);
        let gone = reader.tells == Tells::Deleted
            || reader
                .deleted
                .as_ref()
                .is_some_and(|deleted| deleted.holds(entry) == Some(true));
        let merged_into = reader.merged_into.as_ref();
        let merged_into = merged_into.and_then(|at| usable_id(scalar(at, entry)?).ok());
        let kind = match (gone, merged_into) {
            (false, _) => ChangeKind::Changed,
            (true, None) => ChangeKind::Deleted,
            (true, Some(into)) => ChangeKind::Merged { into },
        };
        let fields = match kind {
            ChangeKind::Changed => Some(reader.fields(entry)?),
            _ => None,
        };
        let parts = [
            &*self.object,
            &remote_id,
            kind.as_str(),
            &version,
            fields.as_deref().unwrap_or_default(),
        ];
        let delivery_id = hashed(parts.into_iter());
        let change = Change {
            object: self.object.clone(),
            remote_id,
            kind,
            occurred_at_ms: Some(at_ms),
            complete: self.complete && fields.is_some(),
            fields,
            version: Some(version),
            delivery_id,
        };
        Some(Entry { at_ms, change })
    }
}

impl PageReader {
    /// Whether a query has further pages.
    pub(crate) fn has_pages(&self) -> bool {
        self.token.is_some() || self.url.is_some()
    }

    /// Says which field holds when a record last changed.
    pub(crate) fn name_modified(&mut self, modified: &str) {
        if let Some(pointer) = self.modified_at.with(MODIFIED, Some(modified)) {
            self.modified_at = pointer;
        }
    }

    fn fields(&self, entry: &str) -> Option<Box<str>> {
        let Ok(Landing::Value(record)) = self.record.find_any(entry) else {
            return None;
        };
        if !is_object(record) {
            return None;
        }
        if self.drop.is_empty() {
            return Some(record.into());
        }
        let mut fields = Vec::with_capacity(record.len());
        let mut writer = ObjectWriter::open(&mut fields);
        for member in RawObject::new(record)?.members() {
            if !self.drop.iter().any(|name| member.key.is(name)) {
                let place = writer.member_escaped(member.key.escaped());
                place.extend_from_slice(member.value.text().as_bytes());
            }
        }
        writer.close();
        Some(String::from_utf8(fields).ok()?.into())
    }

    fn next(&self, text: &str, base_url: &str) -> Result<Option<NextPage>, PollFault> {
        let found = |at: &Option<Pointer>| at.as_ref().and_then(|at| scalar(at, text));
        let small = |page: &String| !page.is_empty() && page.len() <= PAGE_BYTES_MAX;
        if let Some(token) = found(&self.token) {
            return match Some(token).filter(small) {
                Some(token) => Ok(Some(NextPage::Token(token))),
                None => Err(PollFault::ForeignPage),
            };
        }
        let Some(url) = found(&self.url) else {
            return Ok(None);
        };
        let path = Some(url).filter(small);
        let path = path.and_then(|url| own_path(&url, base_url));
        match path {
            Some(path) => Ok(Some(NextPage::Path(path))),
            None => Err(PollFault::ForeignPage),
        }
    }
}

/// Path and query of a link below the account's base URL, relative to it. Credentials go with
/// every request, so that a link to anywhere else is not followed.
fn own_path(url: &str, base_url: &str) -> Option<String> {
    let base_path = base_url
        .split_once("://")
        .map_or("", |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
    let path = if url.starts_with('/') {
        url.strip_prefix(base_path)?
    } else {
        url.strip_prefix(base_url)?
    };
    let printable = path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains('#');
    let own = path.starts_with('/') && !path.starts_with("//");
    (own && printable).then(|| path.to_owned())
}

fn scalar(at: &Pointer, text: &str) -> Option<String> {
    match at.find_any(text) {
        Ok(Landing::Value(json)) => scalar_text(json),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_only_below_the_accounts_own_url() {
        for (url, base, expected) in [
            ("https://a.b/x?y=1", "https://a.b", Some("/x?y=1")),
            ("/x?y=1", "https://a.b", Some("/x?y=1")),
            ("https://a.b/v2/x", "https://a.b/v2", Some("/x")),
            ("/v2/x", "https://a.b/v2", Some("/x")),
            ("/v3/x", "https://a.b/v2", None),
            ("https://a.b.evil/x", "https://a.b", None),
            ("https://a.b@evil/x", "https://a.b", None),
            ("http://a.b/x", "https://a.b", None),
            ("//evil/x", "https://a.b", None),
            ("https://a.b//evil", "https://a.b", None),
            ("/x y", "https://a.b", None),
            ("/x\r\nHost: evil", "https://a.b", None),
            ("x", "https://a.b", None),
        ] {
            assert_eq!(own_path(url, base).as_deref(), expected, "{url}");
        }
    }
}
