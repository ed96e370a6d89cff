//! What this shard's log holds of the sizes of limits, for the next run.

use std::collections::BTreeMap;

use crate::quota::{Learned, LearnedFrom};

/// Sizes kept: more than the limits of hundreds of accounts, old names among them.
const LEARNED_MAX: usize = 4096;

/// The newest size of each limit by each source, as it was learned.
#[derive(Debug, Default)]
pub struct LearnedBook {
    sizes: BTreeMap<(String, String, LearnedFrom), u32>,
}

impl LearnedBook {
    /// An entry was logged or replayed.
    pub fn apply(&mut self, learned: &Learned) {
        let key = (learned.account.clone(), learned.limit.clone(), learned.from);
        match learned.tokens {
            Some(tokens) if self.sizes.len() < LEARNED_MAX || self.sizes.contains_key(&key) => {
                self.sizes.insert(key, tokens);
            }
            Some(_) => {}
            None => {
                self.sizes.remove(&key);
            }
        }
    }

    /// What is known.
    pub fn iter(&self) -> impl Iterator<Item = Learned> + '_ {
        let learned = self.sizes.iter();
        learned.map(|((account, limit, from), tokens)| Learned {
            account: account.clone(),
            limit: limit.clone(),
            from: *from,
            tokens: Some(*tokens),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(account: &str, from: LearnedFrom, tokens: Option<u32>) -> Learned {
        Learned {
            account: account.into(),
            limit: "burst".into(),
            from,
            tokens,
        }
    }

    #[test]
    fn the_newest_of_each_source_counts_until_it_is_taken_back() {
        let mut book = LearnedBook::default();
        let told = |tokens| learned("crm", LearnedFrom::Provider, tokens);
        book.apply(&told(Some(5)));
        book.apply(&learned("crm", LearnedFrom::Refusals, Some(7)));
        book.apply(&told(Some(6)));
        let refused = learned("crm", LearnedFrom::Refusals, Some(7));
        assert_eq!(
            book.iter().collect::<Vec<_>>(),
            [told(Some(6)), refused.clone()]
        );
        book.apply(&told(None));
        assert_eq!(book.iter().collect::<Vec<_>>(), [refused]);
    }

    #[test]
    fn what_a_log_claims_is_kept_up_to_a_bound() {
        let mut book = LearnedBook::default();
        for account in 0..2 * LEARNED_MAX {
            book.apply(&learned(
                &account.to_string(),
                LearnedFrom::Provider,
                Some(1),
            ));
        }
        assert_eq!(book.iter().count(), LEARNED_MAX);
    }
}
