//! `PUT /{object}/external/{record_id}`: method and path of a request, compiled once.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

use super::{CallKind, Method, RenderError, Subject};

/// A path and query with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathTemplate {
    pieces: Vec<Piece>,
    /// Bytes of the literal pieces.
    literal_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Value {
        placeholder: Placeholder,
        in_query: bool,
    },
}

/// The names a template may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placeholder {
    Object,
    RecordId,
    RemoteId,
}

/// Why a template was refused. Nothing was changed.
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
    /// A `{` without its `}`, or the other way round.
    #[error("unbalanced brace")]
    UnbalancedBrace,
    /// A name between braces that templates do not know.
    #[error("unknown placeholder `{{{0}}}`; one of object, record_id, remote_id")]
    UnknownPlaceholder(String),
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
    #[error("unknown marker `{0}`; only `$fields`")]
    UnknownMarker(String),
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
}

impl PathTemplate {
    pub(crate) fn compile(text: &str) -> Result<PathTemplate, TemplateError> {
        // `//host/path` is a reference to another host: it must not lead a request away.
        if !text.starts_with('/') || text.starts_with("//") {
            return Err(TemplateError::NotAPath);
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut in_query = false;
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            match next {
                '{' => {
                    let (name, after) = rest[1..]
                        .split_once('}')
                        .ok_or(TemplateError::UnbalancedBrace)?;
                    let placeholder = Placeholder::parse(name)?;
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Value {
                        placeholder,
                        in_query,
                    });
                    rest = after;
                    continue;
                }
                '}' => return Err(TemplateError::UnbalancedBrace),
                '#' | '"' | '<' | '>' | '\\' | '^' | '`' | '|' => {
                    return Err(TemplateError::PathCharacter(next));
                }
                '?' => in_query = true,
                _ if !next.is_ascii_graphic() => return Err(TemplateError::PathCharacter(next)),
                _ => {}
            }
            literal.push(next);
            rest = &rest[1..];
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        let literal_bytes = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.len(),
                Piece::Value { .. } => 0,
            })
            .sum();
        Ok(PathTemplate {
            pieces,
            literal_bytes,
        })
    }

    pub(crate) fn uses(&self, wanted: Placeholder) -> bool {
        self.pieces.iter().any(
            |piece| matches!(piece, Piece::Value { placeholder, .. } if *placeholder == wanted),
        )
    }

    pub(crate) fn render(&self, subject: &Subject<'_>) -> Result<String, RenderError> {
        let values =
            subject.object.len() + subject.record_id.len() + subject.remote_id.map_or(0, str::len);
        let mut path = String::with_capacity(self.literal_bytes + values);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => path.push_str(text),
                Piece::Value {
                    placeholder,
                    in_query,
                } => {
                    let value = placeholder.value(subject).ok_or(RenderError::NoRemoteId)?;
                    if !in_query {
                        check_path_part(*placeholder, value)?;
                    }
                    path.extend(utf8_percent_encode(value, ENCODED));
                }
            }
            if path.len() > PATH_BYTES_MAX {
                return Err(RenderError::PathTooLong {
                    limit: PATH_BYTES_MAX,
                });
            }
        }
        Ok(path)
    }
}

impl Placeholder {
    pub(crate) fn parse(name: &str) -> Result<Placeholder, TemplateError> {
        match name {
            "object" => Ok(Placeholder::Object),
            "record_id" => Ok(Placeholder::RecordId),
            "remote_id" => Ok(Placeholder::RemoteId),
            _ => Err(TemplateError::UnknownPlaceholder(name.to_owned())),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Placeholder::Object => "object",
            Placeholder::RecordId => "record_id",
            Placeholder::RemoteId => "remote_id",
        }
    }

    pub(crate) fn value<'a>(self, subject: &Subject<'a>) -> Option<&'a str> {
        match self {
            Placeholder::Object => Some(subject.object),
            Placeholder::RecordId => Some(subject.record_id),
            Placeholder::RemoteId => subject.remote_id,
        }
    }
}

/// Splits `METHOD /path`, the form used in settings.
pub(crate) fn split_request(text: &str) -> Result<(Method, &str), TemplateError> {
    let (method, path) = text
        .trim()
        .split_once(' ')
        .ok_or(TemplateError::NotMethodAndPath)?;
    let method =
        Method::parse(method).ok_or_else(|| TemplateError::UnknownMethod(method.to_owned()))?;
    Ok((method, path.trim_start()))
}

/// An empty part or a dot segment makes a request about one record one about its collection:
/// `DELETE /contact/{remote_id}` with `..` is `DELETE /` to most servers, percent-encoded or not.
fn check_path_part(placeholder: Placeholder, value: &str) -> Result<(), RenderError> {
    match value {
        "" | "." | ".." => Err(RenderError::UnsafePathPart {
            placeholder: placeholder.as_str(),
        }),
        _ => Ok(()),
    }
}

/// Everything but the unreserved characters of RFC 3986, section 2.3: right in a path part and in
/// a query value alike.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Common servers read at most 8 KiB of request line (nginx large_client_header_buffers, Apache
/// LimitRequestLine); a record id of 512 bytes takes at most 1,536 encoded.
const PATH_BYTES_MAX: usize = 8 * 1024 - 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn render(
        template: &str,
        record_id: &str,
        remote_id: Option<&str>,
    ) -> Result<String, RenderError> {
        let subject = Subject {
            object: "contact",
            record_id,
            remote_id,
            fields: &[],
        };
        PathTemplate::compile(template).unwrap().render(&subject)
    }

    #[test]
    fn values_are_percent_encoded_as_path_parts_and_query_values() {
        let rows = [
            ("c-42", "c-42"),
            ("a/b", "a%2Fb"),
            ("a b+c", "a%20b%2Bc"),
            ("a&b=c?d#e", "a%26b%3Dc%3Fd%23e"),
            ("100%", "100%25"),
            ("%2e", "%252e"),
            ("grün", "gr%C3%BCn"),
            ("~x._-", "~x._-"),
            ("{object}", "%7Bobject%7D"),
            ("...", "..."),
        ];
        for (record_id, encoded) in rows {
            assert_eq!(
                render("/{object}/external/{record_id}", record_id, None).unwrap(),
                format!("/contact/external/{encoded}")
            );
            assert_eq!(
                render("/{object}?external_id={record_id}", record_id, None).unwrap(),
                format!("/contact?external_id={encoded}")
            );
        }
    }

    #[test]
    fn a_part_that_would_address_the_collection_is_refused() {
        for remote_id in ["", ".", ".."] {
            assert_eq!(
                render("/{object}/{remote_id}", "c", Some(remote_id)),
                Err(RenderError::UnsafePathPart {
                    placeholder: "remote_id"
                })
            );
        }
        assert_eq!(
            render("/{object}/{remote_id}", "c", None),
            Err(RenderError::NoRemoteId)
        );
        assert_eq!(
            render("/{object}?external_id={record_id}", "..", None).unwrap(),
            "/contact?external_id=.."
        );
    }

    #[test]
    fn a_path_longer_than_servers_read_is_refused() {
        let long = "x".repeat(PATH_BYTES_MAX);
        assert_eq!(
            render("/{object}/{record_id}", &long, None),
            Err(RenderError::PathTooLong {
                limit: PATH_BYTES_MAX
            })
        );
    }

    #[test]
    fn a_template_that_cannot_be_sent_is_refused() {
        let rows = [
            ("contact", TemplateError::NotAPath),
            ("", TemplateError::NotAPath),
            ("https://elsewhere/", TemplateError::NotAPath),
            ("//elsewhere/x", TemplateError::NotAPath),
            ("/{object", TemplateError::UnbalancedBrace),
            ("/object}", TemplateError::UnbalancedBrace),
            (
                "/{name}",
                TemplateError::UnknownPlaceholder("name".to_owned()),
            ),
            ("/{}", TemplateError::UnknownPlaceholder(String::new())),
            ("/a b", TemplateError::PathCharacter(' ')),
            ("/a#b", TemplateError::PathCharacter('#')),
            ("/a\r\nX-Header: 1", TemplateError::PathCharacter('\r')),
            ("/grün", TemplateError::PathCharacter('ü')),
        ];
        for (text, error) in rows {
            assert_eq!(PathTemplate::compile(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_request_setting_is_a_method_and_a_path() {
        assert_eq!(
            split_request("POST /{object}"),
            Ok((Method::Post, "/{object}"))
        );
        assert_eq!(split_request(" GET  /x "), Ok((Method::Get, "/x")));
        assert_eq!(split_request("/x"), Err(TemplateError::NotMethodAndPath));
        assert_eq!(
            split_request("post /x"),
            Err(TemplateError::UnknownMethod("post".to_owned()))
        );
        assert_eq!(
            split_request("CONNECT /x"),
            Err(TemplateError::UnknownMethod("CONNECT".to_owned()))
        );
    }
}
