//! A request's target taken apart: path parts and query, percent-decoded.

use percent_encoding::percent_decode_str;

/// The target holds bytes that are not UTF-8 once decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the target is not UTF-8")]
pub(crate) struct NotText;

/// Path and query of a target; the query is empty when there is none.
pub(crate) fn split(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// The parts between the slashes of a path, decoded one by one; a slash at the end has an empty
/// part behind it.
pub(crate) fn path_parts(path: &str) -> Result<Vec<String>, NotText> {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').map(decode).collect()
}

/// The value of a query parameter, decoded.
pub(crate) fn query_value(query: &str, name: &str) -> Result<Option<String>, NotText> {
    Ok(pairs(query)?
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value))
}

/// The pairs of a query or of a form, decoded; `+` is a space, as browsers write it.
pub(crate) fn pairs(query: &str) -> Result<Vec<(String, String)>, NotText> {
    let given = query.split('&').filter(|pair| !pair.is_empty());
    given
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |text: &str| decode(&text.replace('+', " "));
            Ok((plain(key)?, plain(value)?))
        })
        .collect()
}

pub(crate) fn decode(text: &str) -> Result<String, NotText> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_values_are_decoded_one_by_one() {
        assert_eq!(path_parts("/a%2Fb/c%20d/").unwrap(), ["a/b", "c d", ""]);
        let query = "filter%5Bid%5D=1%2C2&empty=&flag&q=a+b%2Bc";
        assert_eq!(
            query_value(query, "filter[id]").unwrap().as_deref(),
            Some("1,2")
        );
        assert_eq!(query_value(query, "q").unwrap().as_deref(), Some("a b+c"));
        assert_eq!(query_value(query, "flag").unwrap().as_deref(), Some(""));
        assert_eq!(query_value(query, "absent").unwrap(), None);
        assert_eq!(path_parts("/%ff"), Err(NotText));
    }
}
