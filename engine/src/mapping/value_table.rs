//! One-to-one tables of texts.

use std::borrow::Cow;

use super::convert::{Converted, Scalar};

/// System A's texts and the provider's, by either.
#[derive(Debug, Clone, Default)]
pub(super) struct ValueTable {
    /// `(local, remote)`, sorted by local.
    by_local: Vec<(String, String)>,
    /// `(remote, local)`, sorted by remote.
    by_remote: Vec<(String, String)>,
}

impl ValueTable {
    /// Takes the pairs, or answers the index of the first that repeats a value.
    pub(super) fn new(pairs: &[(String, String)]) -> Result<Self, usize> {
        for (at, (local, remote)) in pairs.iter().enumerate() {
            let repeats = |pair: &(String, String)| pair.0 == *local || pair.1 == *remote;
            if pairs[..at].iter().any(repeats) {
                return Err(at);
            }
        }
        let mut by_local = pairs.to_vec();
        let mut by_remote: Vec<_> = pairs.iter().map(|(l, r)| (r.clone(), l.clone())).collect();
        by_local.sort_unstable();
        by_remote.sort_unstable();
        Ok(Self {
            by_local,
            by_remote,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_local.is_empty()
    }

    /// System A's texts.
    pub(super) fn locals(&self) -> impl Iterator<Item = &str> {
        self.by_local.iter().map(|(local, _)| local.as_str())
    }

    pub(super) fn apply<'v>(&self, scalar: Scalar<'v>) -> Converted<'v> {
        Self::look_up(&self.by_local, scalar)
    }

    pub(super) fn undo<'v>(&self, scalar: Scalar<'v>) -> Converted<'v> {
        Self::look_up(&self.by_remote, scalar)
    }

    fn look_up<'v>(table: &[(String, String)], scalar: Scalar<'v>) -> Converted<'v> {
        let text = scalar.into_text()?;
        match table.binary_search_by(|pair| pair.0.as_str().cmp(&text)) {
            Ok(at) => Ok(Scalar::Text(Cow::Owned(table[at].1.clone()))),
            Err(_) => Err("is not in the value table"),
        }
    }
}
