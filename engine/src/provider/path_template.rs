//! `PUT /{object}/external/{record_id}`: method and path of a request, compiled once.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::placeholder::{Place, Placeholder, Values};
use super::{Method, RenderError, TemplateError};

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

impl PathTemplate {
    pub(crate) fn compile(text: &str, place: Place) -> Result<PathTemplate, TemplateError> {
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
                    let placeholder = Placeholder::parse(name, place)?;
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

    /// The path behind `root`, which begins every path of the definition.
    pub(crate) fn render(&self, root: &str, values: &Values<'_>) -> Result<String, RenderError> {
        let subject = &values.subject;
        let ids =
            subject.object.len() + subject.record_id.len() + subject.remote_id.map_or(0, str::len);
        let mut path = String::with_capacity(root.len() + self.literal_bytes + ids);
        path.push_str(root);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => path.push_str(text),
                Piece::Value {
                    placeholder,
                    in_query,
                } => {
                    let value = placeholder.value(values)?;
                    if !in_query {
                        check_path_part(*placeholder, &value)?;
                    }
                    if *placeholder == Placeholder::MatchQuery {
                        // Its parts are encoded, what stands between them is not.
                        path.push_str(&value);
                    } else {
                        path.extend(utf8_percent_encode(&value, ENCODED));
                    }
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
pub(crate) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Common servers read at most 8 KiB of request line (nginx large_client_header_buffers, Apache
/// LimitRequestLine); a record id of 512 bytes takes at most 1,536 encoded.
pub(crate) const PATH_BYTES_MAX: usize = 8 * 1024 - 64;

#[cfg(test)]
mod tests {
    use super::super::object::ObjectNames;
    use super::super::{CallKind, Subject};
    use super::*;

    fn render(
        template: &str,
        record_id: &str,
        remote_id: Option<&str>,
    ) -> Result<String, RenderError> {
        let values = Values {
            kind: CallKind::Update,
            subject: Subject {
                object: "contact",
                record_id,
                remote_id,
                fields: &[],
            },
            names: ObjectNames::default(),
            item: 0,
            items: &[],
        };
        PathTemplate::compile(template, Place::Call)
            .unwrap()
            .render("", &values)
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
            ("/{item}", TemplateError::PlaceholderElsewhere("item")),
            ("/a b", TemplateError::PathCharacter(' ')),
            ("/a#b", TemplateError::PathCharacter('#')),
            ("/a\r\nX-Header: 1", TemplateError::PathCharacter('\r')),
            ("/grün", TemplateError::PathCharacter('ü')),
        ];
        for (text, error) in rows {
            assert_eq!(
                PathTemplate::compile(text, Place::Call),
                Err(error),
                "{text}"
            );
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
