//! What can be wrong with a definition.

use thiserror::Error;

use super::CallKind;

/// Why a part of a definition was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// Not of the form `METHOD /path`.
    #[error("expected `METHOD /path`")]
    NotMethodAndPath,
    /// Not one of GET, POST, PUT, PATCH, DELETE.
    #[error("unknown method `{0}`; one of GET, POST, PUT, PATCH, DELETE")]
    UnknownMethod(String),
    /// Paths are relative to the account's `base_url`, never a URL of their own.
    #[error("a path begins with a single `/`, relative to base_url")]
    NotAPath,
    /// A character that a path cannot carry as it is.
    #[error("{0:?} cannot stand in a path; write it percent-encoded")]
    PathCharacter(char),
    /// Tags are words, and not those of the kinds of calls.
    #[error("`{0}` is no tag: lower-case letters and `_`, and no kind of call")]
    NotATag(String),
    /// A `{` without its `}`, or the other way round.
    #[error("unbalanced brace")]
    UnbalancedBrace,
    /// A name between braces that templates do not know.
    #[error(
        "unknown placeholder `{{{0}}}`; one of object, object_type, external_id_field, record_id, \
         remote_id, operation, item, field_names, remote_ids, record_ids|quoted, value"
    )]
    UnknownPlaceholder(String),
    /// A name that templates know, at a place where it has no value.
    #[error("`{{{0}}}` has no value here")]
    PlaceholderElsewhere(&'static str),
    /// Only `int` changes how a value is written.
    #[error("unknown filter `{0}`; only `int`, for a string that is one placeholder")]
    UnknownFilter(String),
    /// `?` leaves a member out while its value is unknown.
    #[error("`{{{0}}}` is always known; only `{{remote_id?}}` may be left out")]
    NeverUnknown(String),
    /// A value that is not text has no place between others.
    #[error("`{{value}}` stands alone in its string")]
    ValueInText,
    /// The record is not linked yet when this call is made.
    #[error("`{{remote_id}}` is not known to a {0} call")]
    NoRemoteIdYet(CallKind),
    /// The request would address the whole collection.
    #[error("a {0} request must name its record, by `{{remote_id}}` or `{{record_id}}`")]
    NamesNoRecord(CallKind),
    /// Body templates are JSON objects.
    #[error("a body template is a JSON object")]
    BodyNotAnObject,
    /// `$fields` is a marker: its value is `true`.
    #[error("`$fields` takes the value true")]
    FieldsNotTrue,
    /// A member that begins with `$` but is not a known marker.
    #[error("unknown marker `{0}`; one of $fields, $omit, $members, $each")]
    UnknownMarker(String),
    /// The record's fields stand in a record.
    #[error("`$fields` stands in a single record's body or inside `$each`")]
    FieldsElsewhere,
    /// `$members` names a field.
    #[error("`$members` takes the name of a field that is an object")]
    MembersNotAName,
    /// A write without the record's fields changes nothing of it.
    #[error("a {0} writes the record's fields: its body needs `$fields`")]
    NoFields(CallKind),
    /// `$match` makes an array of the fields of a match key.
    #[error("`$match` stands alone in its object, in the body of a match")]
    MatchElsewhere,
    /// `$omit` lists names.
    #[error("`$omit` takes a list of field names")]
    OmitNotAList,
    /// `$omit` says which of the fields to leave out.
    #[error("`$omit` stands beside `$fields`")]
    OmitWithoutFields,
    /// `$each` makes an array of a batch's records.
    #[error("`$each` stands alone in its object, in a batch's body, once")]
    EachElsewhere,
    /// Servers and proxies drop or refuse the body of a GET.
    #[error("a GET request has no body")]
    BodyOnGet,
    /// A body template nested deeper than events may be.
    #[error("a body template is at most {0} levels deep")]
    TooDeep(usize),
    /// Not a JSON pointer (RFC 6901).
    #[error("`{0}` is not a JSON pointer; it begins with `/`")]
    NotAPointer(String),
    /// A pointer that this kind of call needs.
    #[error("a {0} operation needs `id`: where its reply holds the remote id")]
    NoIdPointer(CallKind),
    /// Only 3-digit error statuses can mean that a record is gone or absent.
    #[error("{0} is not an error status (400 to 499)")]
    NotAnErrorStatus(u16),
    /// A provider that must be asked before it is told again cannot be told again blindly.
    #[error("`on_unknown = \"retry\"` needs `idempotent = true`: a repeat could do it twice")]
    BlindRetry,
    /// An idempotent call needs no look-up.
    #[error("`on_unknown = \"lookup\"` is for operations with `idempotent = false`")]
    NeedlessLookup,
    /// Whether several records match is told by how many are listed.
    #[error("a match needs an `id` in a list of all records that match, as /results/0/id")]
    NoMatches,
    /// Another call than a create has no second record to fear.
    #[error("`on_unknown = \"upsert\"` is for a create with `idempotent = false`")]
    NeedlessUpsert,
    /// Nothing would tell "there is no such record" from an answer that was not understood.
    #[error("a lookup needs `absent` statuses, or an `id` in a list that is empty when absent")]
    NoAbsent,
    /// An operation is sent by a request of its own or by a batch.
    #[error("give either `method` and `path`, or `batch`")]
    RequestOrBatch,
    /// A batch that is not there, or does not take this kind.
    #[error("there is no [batch.{0}] that takes this operation")]
    NoSuchBatch(String),
    /// What a batch takes must be sendable alone too: a refused batch is halved down to one.
    #[error("a batch takes {0} only if there is an [operations.{0}]")]
    NoSingleOperation(CallKind),
    /// Reads have one answer each, and look-ups say nothing of writes beside them.
    #[error("a batch takes some of create, upsert, update and delete, or lookup alone")]
    NotTogether,
    /// One operation and object goes into one batch only.
    #[error("another batch takes {0} already")]
    TakenTwice(CallKind),
    /// A provider refuses a key that comes twice, or merges in an order of its own.
    #[error("a batch of {0} needs `unique_by`: a key that comes twice in a call is refused")]
    NoUniqueKey(CallKind),
    /// The keys of a record.
    #[error("`{0}` is no key of a record; one of record_id, remote_id")]
    NotAKey(String),
    /// At least one, at most what a group can count.
    #[error("{0} is out of range (1 to {1})")]
    OutOfRange(u64, u64),
    /// Objects in one call only where each record says its own.
    #[error("`same` holds `object`, as every batch is about one object")]
    NotSame,
    /// A batch without a place for its records.
    #[error(
        "a batch's request needs `$each` in its body, or `{{remote_ids}}` or \
         `{{record_ids|quoted}}` in its path"
    )]
    NamesNoRecords,
    /// Nothing would tell which records a reply is about.
    #[error("`results` needs `all = true`, or `at` and `by`")]
    NoResults,
    /// `by` entries.
    #[error("`{0}` is not `position`, `trace:/…`, `record_id:/…` or `remote_id:/…`")]
    NotAMatch(String),
    /// Nothing would tell success from failure.
    #[error(
        "`results` needs `status`, `ok` or `errors`: which records were taken; of look-ups \
         `errors` or `missing = \"absent\"`: which are not there"
    )]
    NoItemOutcome,
    /// Trace ids that were never sent cannot come back.
    #[error("`trace:` needs `{{item}}` in the body")]
    NoTrace,
    /// A class that does not exist.
    #[error("unknown class `{0}`")]
    UnknownClass(String),
    /// A rule without a condition hides all that come after it.
    #[error("a rule needs a condition: status, code, message, policy or header")]
    NoCondition,
    /// An HTTP status, or two with a dash.
    #[error("`{0}` is not a status such as 404 or a range such as 500-599")]
    NotAStatus(String),
    /// A name that no block gives.
    #[error("there is no limit named `{0}`")]
    NoSuchLimit(String),
    /// A key that this class or kind does not read.
    #[error("`{0}` has no meaning here")]
    Meaningless(&'static str),
    /// Not one of the kinds of call.
    #[error("`{0}` is no operation; one of create, upsert, update, delete, read, lookup, match")]
    NotAnOperation(String),
    /// A key without which the block says nothing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Not `"10s"`.
    #[error("`{0}` is not a duration such as 500ms, 10s, 15m or 24h")]
    NotADuration(String),
    /// A text pattern that cannot be read in one pass.
    #[error("`{0}` is not a pattern: {1}")]
    NotAPattern(String, &'static str),
    /// A header's name, in lower case.
    #[error("`{0}` is not a header name in lower case")]
    NotAHeader(String),
    /// More than a reply keeps.
    #[error("more than {0} reply headers are named")]
    TooManyHeaders(usize),
    /// Versions go into paths.
    #[error("`{0}` is not an API version")]
    NotAVersion(String),
    /// A root is a path without an end.
    #[error("`{0}` is not a root: a path that begins with `/` and does not end with it")]
    NotARoot(String),
    /// Not a base URL.
    #[error("`{0}` is not an http(s) URL without query or fragment")]
    NotAUrl(String),
    /// The mapping's own words.
    #[error("{0}")]
    Mapping(String),
    /// A signed message lacks what it must cover.
    #[error("the message needs `{{{0}}}`: what is not signed is anybody's")]
    MessageWithout(&'static str),
    /// An HMAC's key is no part of what it is taken over.
    #[error("the secret is the key of an hmac, and no part of its message")]
    SecretInMessage,
    /// A name that messages to sign do not know.
    #[error("unknown part `{{{0}}}`; one of secret, method, uri, body, timestamp, header:NAME")]
    UnknownMessagePart(String),
    /// Providers take a 2xx for taken.
    #[error("{0} does not tell that a delivery was taken (200 to 299)")]
    NotASuccess(u16),
    /// What a table says that its place does not know.
    #[error(
        "`{0}` is neither the remote name of an object nor `{{value}}`, and for a kind none of \
         created, changed, deleted, merged, restored"
    )]
    UnknownMeaning(String),
    /// A name that requests for changes do not know.
    #[error(
        "unknown placeholder `{{{0}}}`; one of object, fields, modified, from, to (|ms, |s), \
         after_id, page?, size"
    )]
    UnknownPollPlace(String),
    /// A request for changes that would always ask for the same ones.
    #[error("the request needs `{{{0}}}`")]
    PollWithout(&'static str),
    /// Names stand for one thing.
    #[error("`{0}` is there twice")]
    Twice(String),
}
