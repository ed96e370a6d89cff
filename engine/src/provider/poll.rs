//! `[poll.FEED]`: asking a provider which records changed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::utf8_percent_encode;

use super::inbound_blocks::{LongBlock, PollBlock, Tells, TiesBlock};
use super::limit::duration;
use super::path_template::{ENCODED, PATH_BYTES_MAX};
use super::poll_page::PageReader;
use super::poll_template::{PollBody, PollPlace, PollText, PollValues};
use super::problems::Problems;
use super::{CallKind, Definition, Method, Request, TemplateError};

/// One list of changes that a provider can be asked for, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PollDefinition {
    name: String,
    interval: Duration,
    pace: Duration,
    pub(crate) overlap: Duration,
    /// How far back the list goes.
    pub(crate) reach: Option<Duration>,
    /// Least time between the two ends of what is asked for, where there are two.
    pub(crate) span: Option<Duration>,
    method: Method,
    /// What limits count its calls as.
    counts_as: CallKind,
    path: PollText,
    ask: Ask,
    long: Option<Long>,
    pub(crate) ties: Option<Ties>,
    modified: Option<String>,
    fields: Vec<String>,
    objects: BTreeMap<String, PolledObject>,
    pub(crate) size: u32,
    /// Records that all pages of one query hold at most, where there are pages.
    cap: Option<u64>,
    /// The list is read whole each time.
    pub(crate) scan: bool,
    pub(crate) page: PageReader,
}

/// What is asked, besides the path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ask {
    query: Vec<(PollText, PollText)>,
    body: Option<PollBody>,
}

/// How it is asked for where the path would be too long: that path goes into a body, and is
/// POSTed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Long {
    path: PollText,
    body: PollBody,
}

/// How the records of one instant are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ties {
    /// The id before the first.
    pub(crate) first: String,
    ask: Ask,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PolledObject {
    modified: Option<String>,
    fields: Vec<String>,
}

/// A list of changes of one object, for one account's mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    pub(crate) feed: PollDefinition,
    pub(crate) object: String,
    root: String,
    fields: Vec<String>,
    modified: String,
    /// The records that come have all that the mapping reads.
    pub(crate) complete: bool,
}

/// Which part of the list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    /// Only the records of the instant `from_ms`, behind this id.
    pub(crate) after_id: Option<String>,
    pub(crate) page: Option<NextPage>,
    pub(crate) size: u32,
}

/// What a page says of the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NextPage {
    /// Goes into the same request.
    Token(String),
    /// Path and query of its own.
    Path(String),
}

/// How long to wait for more unless the definition says otherwise; a provider's lists follow its
/// writes by seconds, and commits of long transactions by a minute or two.
const OVERLAP: Duration = Duration::from_secs(60);

/// In `modified_at`: the part that is the name of the field that holds it.
pub(crate) const MODIFIED: &str = "{modified}";

/// Records of one page: the most that a provider is known to give (Outreach: 1,000, read 2026-11),
/// and as many as fit into a reply.
const SIZE_MAX: u64 = 1_000;

impl PollDefinition {
    pub(crate) fn compile(
        name: &str,
        block: &PollBlock,
        problems: &mut Problems,
    ) -> Option<PollDefinition> {
        let key = |member: &str| format!("poll.{name}.{member}");
        let mut time = |member: &str, text: &Option<String>| {
            let read = text.as_deref().map(duration).transpose();
            problems.note(key(member), read).flatten()
        };
        let interval = time("interval", &Some(block.interval.clone()));
        let pace = time("pace", &block.pace);
        let overlap = time("overlap", &block.overlap);
        let reach = time("reach", &block.reach);
        let span = time("span", &block.span);
        let method = Method::parse(&block.method);
        let method = method.ok_or_else(|| TemplateError::UnknownMethod(block.method.clone()));
        let method = problems.note(key("method"), method);
        let path = problems.note(key("path"), PollText::compile_path(&block.path));
        let prefix = format!("poll.{name}");
        let ask = Ask::compile(&prefix, &block.query, block.body.as_ref(), problems);
        let long = block.long.as_ref();
        let long = long.and_then(|long| Long::compile(&prefix, long, problems));
        let ties = block.ties.as_ref();
        let ties = ties.and_then(|ties| Ties::compile(&prefix, ties, problems));
        if method == Some(Method::Get) && block.body.is_some() {
            problems.add(key("body"), TemplateError::BodyOnGet);
        }
        let size = u64::from(block.size.unwrap_or(1));
        if !(1..=SIZE_MAX).contains(&size) {
            problems.add(key("size"), TemplateError::OutOfRange(size, SIZE_MAX));
        }
        if let Some(cap) = block.cap.filter(|cap| *cap < size) {
            problems.add(key("size"), TemplateError::OutOfRange(size, cap));
        }
        let page = PageReader::compile(name, block, problems);
        let feed = PollDefinition {
            name: name.to_owned(),
            interval: interval?,
            pace: pace.unwrap_or_default(),
            overlap: overlap.unwrap_or(OVERLAP),
            reach,
            span,
            method: method?,
            counts_as: block.counts_as.unwrap_or(CallKind::Read),
            path: path?,
            ask: ask?,
            long,
            ties,
            modified: block.modified.clone(),
            fields: block.fields.clone(),
            objects: block
                .objects
                .iter()
                .map(|(name, object)| {
                    let object = PolledObject {
                        modified: object.modified.clone(),
                        fields: object.fields.clone(),
                    };
                    (name.clone(), object)
                })
                .collect(),
            size: block.size.unwrap_or(1),
            cap: block.cap,
            scan: block.scan,
            page: page?,
        };
        feed.check(block, problems);
        Some(feed)
    }

    /// What holds between the keys.
    fn check(&self, block: &PollBlock, problems: &mut Problems) {
        let key = |member: &str| format!("poll.{}.{member}", self.name);
        let from = |place| matches!(place, PollPlace::From(_));
        let page = |place| place == PollPlace::Page;
        if !self.scan && !self.uses(from) {
            problems.add(key("query"), TemplateError::PollWithout("from"));
        }
        if self.scan && (self.uses(from) || self.ties.is_some() || self.is_span()) {
            problems.add(key("scan"), TemplateError::Meaningless("scan"));
        }
        let tokens = block.page.as_ref().is_some_and(|page| page.token.is_some());
        if tokens != self.uses(page) {
            problems.add(key("page"), TemplateError::PollWithout("page?"));
        }
        let request = |place| place == PollPlace::Request;
        let in_ties = self.ties.as_ref();
        if self.uses(request) || in_ties.is_some_and(|ties| ties.ask.uses(request)) {
            let place = "request".to_owned();
            problems.add(key("query"), TemplateError::UnknownPollPlace(place));
        }
        if let Some(long) = &self.long
            && (!long.body.uses(&request) || long.path.uses(request))
        {
            problems.add(key("long"), TemplateError::PollWithout("request"));
        }
        if let Some(ties) = &self.ties {
            for (wanted, place) in [
                ("from", &from as &dyn Fn(PollPlace) -> bool),
                ("after_id", &|place| place == PollPlace::AfterId),
            ] {
                if !ties.ask.uses(place) {
                    problems.add(key("ties"), TemplateError::PollWithout(wanted));
                }
            }
        }
        // Without another way, more records of one instant than a query holds would never be seen.
        let bounded = block.page.is_none() || block.cap.is_some();
        if bounded && self.ties.is_none() && !self.is_span() && !self.scan {
            problems.add(key("ties"), TemplateError::Missing("ties"));
        }
        if block.size.is_none() && !self.is_span() {
            problems.add(key("size"), TemplateError::Missing("size"));
        }
        if block.cap.is_some() && block.page.is_none() {
            problems.add(key("cap"), TemplateError::Meaningless("cap"));
        }
        let for_span = [
            ("span", block.span.is_some()),
            ("next_from", block.next_from.is_some()),
            ("earliest", block.earliest.is_some()),
        ];
        for (member, _) in for_span.into_iter().filter(|(_, used)| *used) {
            if !self.is_span() {
                problems.add(key(member), TemplateError::Meaningless(member));
            }
        }
        let modified = |place| place == PollPlace::Modified;
        let modified = self.uses(modified) || block.modified_at.contains(MODIFIED);
        if modified && self.modified.is_none() {
            problems.add(key("modified"), TemplateError::Missing("modified"));
        }
        if block.tells == Tells::Deleted && (block.deleted.is_some() || block.merged_into.is_some())
        {
            problems.add(key("deleted"), TemplateError::Meaningless("deleted"));
        }
    }

    /// Records that one query tells of at most.
    pub(crate) fn cap(&self, size: u32) -> u64 {
        match self.page.has_pages() {
            true => self.cap.unwrap_or(u64::MAX),
            false => u64::from(size),
        }
    }

    /// Whether both ends of a time are asked for.
    pub(crate) fn is_span(&self) -> bool {
        self.uses(|place| matches!(place, PollPlace::To(_)))
    }

    fn uses(&self, wanted: impl Fn(PollPlace) -> bool) -> bool {
        self.path.uses(&wanted) || self.ask.uses(&wanted)
    }

    /// The fields to name, besides those of the mapping.
    fn own_fields(&self, object: &str) -> impl Iterator<Item = &String> {
        let object = self.objects.get(object);
        let own = object.into_iter().flat_map(|object| &object.fields);
        self.fields.iter().chain(own)
    }

    fn modified(&self, object: &str) -> &str {
        let own = self.objects.get(object);
        let own = own.and_then(|object| object.modified.as_deref());
        own.or(self.modified.as_deref()).unwrap_or_default()
    }
}

impl Definition {
    /// The lists of changes that the provider has.
    pub fn poll_feeds(&self) -> impl Iterator<Item = &str> {
        self.inbound().polls.iter().map(|poll| poll.name.as_str())
    }

    /// The list `feed` of one object's changes, by its remote name, with these fields of it.
    pub fn poll<'f>(
        &self,
        feed: &str,
        object: &str,
        mapped: impl IntoIterator<Item = &'f str>,
    ) -> Option<Poll> {
        let mut polls = self.inbound().polls.iter();
        let mut feed = polls.find(|poll| poll.name == feed)?.clone();
        let modified = feed.modified(object).to_owned();
        feed.page.name_modified(&modified);
        let mut fields: Vec<String> = feed.own_fields(object).cloned().collect();
        if !modified.is_empty() {
            fields.push(modified.clone());
        }
        let named = fields.len();
        for field in mapped {
            if !fields.iter().any(|known| known == field) {
                fields.push(field.to_owned());
            }
        }
        // A provider that is not told which fields to give gives all.
        let all = fields.len() > named || !feed.uses(|place| place == PollPlace::Fields);
        Some(Poll {
            complete: all && feed.page.tells == Tells::Changed,
            modified,
            object: object.to_owned(),
            root: self.root().to_owned(),
            fields,
            feed,
        })
    }
}

impl Poll {
    /// The list's name in the definition.
    pub fn feed(&self) -> &str {
        &self.feed.name
    }

    /// The object's remote name.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// What fails apart from the rest of an account when this list does.
    pub fn endpoint(&self) -> String {
        format!("{} {}", self.object, self.feed.name)
    }

    /// The fields that are asked for.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// How often the list is asked for, unless the account says otherwise.
    pub fn interval(&self) -> Duration {
        self.feed.interval
    }

    /// Whether records are in it as they are now, and not only those that are gone.
    pub fn tells_changes(&self) -> bool {
        self.feed.page.tells == Tells::Changed
    }

    /// How much of the list is read again each time.
    pub fn overlap(&self) -> Duration {
        self.feed.overlap
    }

    /// Whether it shows all records, however long ago they changed, when it is read from its
    /// beginning.
    pub fn lists_all(&self) -> bool {
        self.tells_changes() && self.feed.reach.is_none()
    }

    /// This list with another overlap: how much of it is read again each time.
    #[must_use]
    pub fn with_overlap(mut self, overlap: Duration) -> Poll {
        self.feed.overlap = overlap;
        self
    }

    /// Least time between two requests for such lists of one account.
    pub fn pace(&self) -> Duration {
        self.feed.pace
    }

    /// The request for a part of the list.
    pub(crate) fn request(&self, part: &Part) -> Request {
        let token = match &part.page {
            Some(NextPage::Token(token)) => Some(token.as_str()),
            Some(NextPage::Path(path)) => return self.rendered(path.clone(), Bytes::new()),
            None => None,
        };
        let values = PollValues {
            object: &self.object,
            fields: &self.fields,
            modified: &self.modified,
            from_ms: part.from_ms,
            to_ms: part.to_ms,
            after_id: part.after_id.as_deref().unwrap_or_default(),
            page: token,
            size: part.size,
            request: "",
        };
        let ask = match (&part.after_id, &self.feed.ties) {
            (Some(_), Some(ties)) => &ties.ask,
            _ => &self.feed.ask,
        };
        let mut path = self.root.clone();
        self.feed.path.write_path(&values, &mut path);
        let mut separator = '?';
        for (name, value) in &ask.query {
            if value.is_left_out(&values) {
                continue;
            }
            path.push(separator);
            separator = '&';
            path.extend(utf8_percent_encode(&name.write(&values), ENCODED));
            path.push('=');
            path.extend(utf8_percent_encode(&value.write(&values), ENCODED));
        }
        let mut body = Vec::new();
        if let Some(template) = &ask.body {
            template.write(&values, &mut body);
        }
        match &self.feed.long {
            Some(long) if path.len() > PATH_BYTES_MAX => self.long(long, values, &path),
            _ => self.rendered(path, Bytes::from(body)),
        }
    }

    /// The request that carries the one with this path.
    fn long(&self, long: &Long, values: PollValues<'_>, request: &str) -> Request {
        let values = PollValues { request, ..values };
        let (mut path, mut body) = (self.root.clone(), Vec::new());
        long.path.write_path(&values, &mut path);
        long.body.write(&values, &mut body);
        Request {
            method: Method::Post,
            ..self.rendered(path, Bytes::from(body))
        }
    }

    fn rendered(&self, path_and_query: String, body: Bytes) -> Request {
        Request {
            kind: self.feed.counts_as,
            method: self.feed.method,
            path_and_query,
            body,
            idempotency_key: None,
            request_id: String::new(),
            traceparent: None,
        }
    }
}

impl Ask {
    fn compile(
        prefix: &str,
        query: &BTreeMap<String, String>,
        body: Option<&serde_json::Value>,
        problems: &mut Problems,
    ) -> Option<Ask> {
        let mut pairs = Vec::new();
        for (name, value) in query {
            let key = format!("{prefix}.query.{name}");
            let pair =
                PollText::compile(name).and_then(|name| Ok((name, PollText::compile(value)?)));
            pairs.push(problems.note(key, pair)?);
        }
        let body = body.map(PollBody::compile).transpose();
        let body = problems.note(format!("{prefix}.body"), body)?;
        Some(Ask { query: pairs, body })
    }

    fn uses(&self, wanted: impl Fn(PollPlace) -> bool) -> bool {
        let mut query = self.query.iter();
        let in_query = query.any(|(name, value)| name.uses(&wanted) || value.uses(&wanted));
        in_query || self.body.as_ref().is_some_and(|body| body.uses(&wanted))
    }
}

impl Long {
    fn compile(prefix: &str, block: &LongBlock, problems: &mut Problems) -> Option<Long> {
        let path = PollText::compile_path(&block.path);
        let path = problems.note(format!("{prefix}.long.path"), path);
        let body = PollBody::compile(&block.body);
        let body = problems.note(format!("{prefix}.long.body"), body);
        Some(Long {
            path: path?,
            body: body?,
        })
    }
}

impl Ties {
    fn compile(prefix: &str, block: &TiesBlock, problems: &mut Problems) -> Option<Ties> {
        let prefix = format!("{prefix}.ties");
        let ask = Ask::compile(&prefix, &block.query, block.body.as_ref(), problems)?;
        Some(Ties {
            first: block.first.clone(),
            ask,
        })
    }
}
