//! Which calls cost the same: permits are lent by class, so that one pays for one call.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::kept::Caller;
use super::limit::Limit;
use crate::provider::CallKind;

/// Tags besides the kinds of calls that an account's limits may name: every combination of
/// them has a place in a table.
pub(super) const TAGS_MAX: usize = 8;

/// The tag of calls for lists of changes, and of reads of records that accounts told of. A limit of
/// which something is kept for them names it.
pub const POLL_TAG: &str = "poll";

/// Calls that take the same tokens of every limit of their account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CostClass(u32);

/// The classes of an account's calls, compiled from its limits.
///
/// A call's signature is its kind and which of the named tags it has. Signatures with the same
/// vector of costs share a class. Class 0 is any call at all: it costs the most of every limit
/// that any signature does, so that whoever does not tell calls apart is too careful, never
/// over a limit. Limits that name no tag leave one class, and that is class 0. Polls share no class
/// with other calls where limits tell them apart: what is kept for them must not pay for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostClasses {
    /// The number of the class at index 1; index 0 is always number 0. Grows when the classes
    /// change their meaning, so that a word about an old class is not taken for a new one.
    first: u32,
    /// Kinds of calls that are named, of which a call has at most one.
    kinds: Vec<Box<str>>,
    tags: Vec<Box<str>>,
    /// By signature: kind (0 none of those named) times the combinations of tags, plus a bit
    /// for each tag.
    class_of: Vec<u16>,
    /// By class index.
    classes: Vec<Class>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    /// Tokens of each pooled limit, in their order.
    costs: Arc<[u32]>,
    caller: Caller,
    /// The first signature of this class.
    example: usize,
}

impl CostClass {
    /// Any call: costs the most of every limit that a call can.
    pub const ANY: Self = Self(0);
}

impl CostClasses {
    /// The classes of these limits, which name no more tags than are told apart.
    ///
    /// # Panics
    /// When they name more; `AccountLimits::validate` refuses that.
    pub fn compile(limits: &[Limit]) -> Self {
        let named: BTreeSet<&str> = limits.iter().flat_map(Limit::tags).collect();
        let is_kind = |tag: &&str| CallKind::ALL.iter().any(|kind| kind.as_str() == *tag);
        let (kinds, tags): (Vec<&str>, Vec<&str>) = named.into_iter().partition(is_kind);
        assert!(tags.len() <= TAGS_MAX, "more tags than are told apart");
        let mut compiled = Self {
            first: 1,
            kinds: kinds.into_iter().map(Box::from).collect(),
            tags: tags.into_iter().map(Box::from).collect(),
            class_of: Vec::new(),
            classes: Vec::new(),
        };
        let pooled: Vec<&Limit> = limits.iter().filter(|limit| limit.is_pooled()).collect();
        let signatures = (compiled.kinds.len() + 1) << compiled.tags.len();
        let costs: Vec<Arc<[u32]>> = (0..signatures)
            .map(|signature| {
                let has = |tag: &str| compiled.has(signature, tag);
                pooled.iter().map(|limit| limit.weights.cost(has)).collect()
            })
            .collect();
        let dearest = |pool: usize| costs.iter().map(|costs| costs[pool]).max().unwrap_or(1);
        compiled.classes.push(Class {
            costs: (0..pooled.len()).map(dearest).collect(),
            caller: Caller::Record,
            example: 0,
        });
        for (example, costs) in costs.into_iter().enumerate() {
            let caller = match compiled.has(example, POLL_TAG) {
                true => Caller::Poll,
                false => Caller::Record,
            };
            let same = |class: &Class| class.costs == costs && class.caller == caller;
            let known = compiled.classes.iter().position(same);
            let index = known.unwrap_or_else(|| {
                compiled.classes.push(Class {
                    costs,
                    caller,
                    example,
                });
                compiled.classes.len() - 1
            });
            let index = u16::try_from(index).expect("fewer classes than signatures");
            compiled.class_of.push(index);
        }
        compiled
    }

    /// These classes under numbers that no word about `before` can mean by mistake.
    pub(super) fn after(mut self, before: &Self) -> Self {
        let same = (&self.kinds, &self.tags, &self.class_of)
            == (&before.kinds, &before.tags, &before.class_of);
        self.first = if same {
            before.first
        } else {
            let used = u32::try_from(before.classes.len()).expect("a table's worth");
            before.first.saturating_add(used)
        };
        self
    }

    /// The tags besides the kinds of calls that these limits name.
    pub(super) fn tags(limits: &[Limit]) -> BTreeSet<&str> {
        let named = limits.iter().flat_map(Limit::tags);
        named
            .filter(|tag| CallKind::ALL.iter().all(|kind| kind.as_str() != *tag))
            .collect()
    }

    /// The class of a call with these tags, the word of its kind among them.
    pub fn class_of(&self, tags: &[&str]) -> CostClass {
        let kind = self.kinds.iter().position(|kind| tags.contains(&&**kind));
        let mut signature = kind.map_or(0, |kind| kind + 1) << self.tags.len();
        for (bit, tag) in self.tags.iter().enumerate() {
            signature |= usize::from(tags.contains(&&**tag)) << bit;
        }
        self.numbered(usize::from(self.class_of[signature]))
    }

    /// How many classes there are, that of any call among them.
    pub fn count(&self) -> usize {
        self.classes.len()
    }

    /// The class at a place below [`CostClasses::count`].
    pub fn at(&self, place: usize) -> CostClass {
        self.numbered(place)
    }

    /// Whether this is one of these classes.
    pub fn contains(&self, class: CostClass) -> bool {
        self.index(class).is_some()
    }

    /// Whether its calls need no permit.
    pub fn is_free(&self, class: CostClass) -> bool {
        let costs = self.costs(class);
        costs.is_some_and(|costs| costs.iter().all(|cost| *cost == 0))
    }

    /// The tags of one of its calls, with a space between, for the log: what a lease of this
    /// class paid for can be told again when the limits have changed.
    pub fn label(&self, class: CostClass) -> String {
        let Some(index) = self.index(class).filter(|index| *index > 0) else {
            return String::new();
        };
        let example = self.classes[index].example;
        let kinds = self.kinds.iter().map(|kind| &**kind);
        let tags = self.tags.iter().map(|tag| &**tag);
        let had: Vec<&str> = kinds
            .chain(tags)
            .filter(|tag| self.has(example, tag))
            .collect();
        if had.is_empty() {
            NO_TAGS.to_owned()
        } else {
            had.join(" ")
        }
    }

    /// The class by its label; any call for one that names what no limit names now.
    pub fn labelled(&self, label: &str) -> CostClass {
        if label == NO_TAGS {
            return self.class_of(&[]);
        }
        let tags: Vec<&str> = label.split_whitespace().collect();
        let known = |tag: &&str| {
            self.kinds
                .iter()
                .chain(&self.tags)
                .any(|own| **own == **tag)
        };
        if tags.is_empty() || !tags.iter().all(known) {
            return CostClass::ANY;
        }
        self.class_of(&tags)
    }

    /// Tokens that a call of this class takes of each pooled limit; `None` for a class that is
    /// not one of these.
    pub(super) fn costs(&self, class: CostClass) -> Option<&Arc<[u32]>> {
        Some(&self.classes[self.index(class)?].costs)
    }

    /// For whom calls of this class are made.
    pub(super) fn caller(&self, class: CostClass) -> Caller {
        let class = self.index(class).map(|index| &self.classes[index]);
        class.map_or(Caller::Record, |class| class.caller)
    }

    /// The most that a call takes of each pooled limit.
    pub(super) fn dearest(&self) -> &Arc<[u32]> {
        &self.classes[0].costs
    }

    fn has(&self, signature: usize, tag: &str) -> bool {
        let kind = signature >> self.tags.len();
        let is_kind = kind > 0 && *self.kinds[kind - 1] == *tag;
        let bit = self.tags.iter().position(|own| **own == *tag);
        is_kind || bit.is_some_and(|bit| signature >> bit & 1 == 1)
    }

    fn numbered(&self, index: usize) -> CostClass {
        let above = u32::try_from(index).expect("a table's worth");
        CostClass(above.checked_sub(1).map_or(0, |above| self.first + above))
    }

    fn index(&self, class: CostClass) -> Option<usize> {
        if class == CostClass::ANY {
            return Some(0);
        }
        let index = class.0.checked_sub(self.first)? as usize + 1;
        (index < self.classes.len()).then_some(index)
    }
}

/// The label of the class of calls without any tag; empty is any call, as in logs of before.
const NO_TAGS: &str = "-";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::limit::{Policy, Weights};
    use super::*;

    fn limit(name: &str, weights: Weights) -> Limit {
        let policy = Policy::Sliding {
            limit: 100,
            window: Duration::from_secs(1),
        };
        Limit {
            weights,
            ..Limit::new(name, policy)
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// A burst that searches do not count in, and a window of their own.
    fn with_search() -> [Limit; 2] {
        let burst = Weights {
            except: words(&["search"]),
            ..Weights::default()
        };
        let search = Weights {
            only: words(&["search"]),
            ..Weights::default()
        };
        [limit("burst", burst), limit("search", search)]
    }

    fn costs(classes: &CostClasses, tags: &[&str]) -> Vec<u32> {
        let class = classes.class_of(tags);
        classes.costs(class).expect("one of these").to_vec()
    }

    #[test]
    fn limits_without_tags_have_the_one_class_of_any_call() {
        let limits = [
            limit("a", Weights::default()),
            limit("b", Weights::default()),
        ];
        let classes = CostClasses::compile(&limits);
        assert_eq!(classes.class_of(&[]), CostClass::ANY);
        assert_eq!(classes.class_of(&["lookup", "search"]), CostClass::ANY);
        assert_eq!(classes.dearest()[..], [1, 1]);
        assert!(!classes.is_free(CostClass::ANY));
        assert!(CostClasses::compile(&[]).is_free(CostClass::ANY));
    }

    #[test]
    fn a_search_counts_in_its_own_window_and_any_call_in_both() {
        let classes = CostClasses::compile(&with_search());
        assert_eq!(costs(&classes, &["lookup", "search"]), [0, 1]);
        assert_eq!(costs(&classes, &["update"]), [1, 0]);
        assert_eq!(classes.dearest()[..], [1, 1]);
        assert_eq!(classes.class_of(&["update"]), classes.class_of(&["create"]));
    }

    #[test]
    fn polls_have_a_class_of_their_own_where_something_is_kept_for_them() {
        let mut plain = limit("a", Weights::default());
        let classes = CostClasses::compile(&[plain.clone()]);
        assert_eq!(classes.class_of(&["read", POLL_TAG]), CostClass::ANY);
        plain.reserve.polls_permille = 20;
        let classes = CostClasses::compile(&[plain]);
        let poll = classes.class_of(&["read", POLL_TAG]);
        assert_eq!(costs(&classes, &[POLL_TAG]), [1], "and cost the same");
        assert_eq!(classes.caller(poll), Caller::Poll);
        assert_eq!(classes.class_of(&["read"]), CostClass::ANY);
        assert_eq!(classes.caller(CostClass::ANY), Caller::Record);
        assert_eq!(classes.labelled(&classes.label(poll)), poll);
    }

    #[test]
    fn calls_of_equal_cost_share_a_class() {
        let costly = Weights {
            costs: [("create", 5), ("update", 5), ("delete", 3)]
                .map(|(tag, cost)| (tag.to_owned(), cost))
                .into(),
            ..Weights::default()
        };
        let classes = CostClasses::compile(&[limit("tokens", costly)]);
        assert_eq!(classes.class_of(&["create"]), classes.class_of(&["update"]));
        assert_eq!(classes.class_of(&["create"]), CostClass::ANY, "the dearest");
        assert_ne!(classes.class_of(&["create"]), classes.class_of(&["delete"]));
        assert_eq!(costs(&classes, &["read"]), [1]);
    }

    #[test]
    fn a_class_of_old_limits_is_none_of_the_new_ones() {
        let old = CostClasses::compile(&with_search());
        let search = old.class_of(&["search"]);
        let resized = CostClasses::compile(&with_search()).after(&old);
        assert_eq!(resized.class_of(&["search"]), search, "nothing has changed");
        let plain = CostClasses::compile(&[]).after(&resized);
        assert_eq!(plain.costs(search), None);
        let again = CostClasses::compile(&with_search()).after(&plain);
        assert_eq!(again.costs(search), None);
        assert!(again.costs(CostClass::ANY).is_some());
    }

    #[test]
    fn a_label_finds_its_class_again_and_an_unknown_one_means_any_call() {
        let classes = CostClasses::compile(&with_search());
        for tags in [&["search"][..], &["lookup"]] {
            let class = classes.class_of(tags);
            assert_eq!(classes.labelled(&classes.label(class)), class, "{tags:?}");
        }
        assert_eq!(classes.label(CostClass::ANY), "");
        for label in ["", "bulk", "search bulk"] {
            assert_eq!(classes.labelled(label), CostClass::ANY, "{label:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A class costs what its limits say of the call, and any call costs at least that.
        #[test]
        fn a_class_costs_what_the_limits_say(
            limits in proptest::collection::vec(weights(), 0..4),
            tags in proptest::sample::subsequence(&WORDS[..], 0..WORDS.len()),
        ) {
            let tags: Vec<&str> = tags.into_iter().collect();
            let kinds = ["create", "lookup"];
            prop_assume!(!kinds.iter().all(|kind| tags.contains(kind)));
            let limits: Vec<Limit> = limits.into_iter().map(|w| limit("l", w)).collect();
            let classes = CostClasses::compile(&limits);
            let expected: Vec<u32> = limits
                .iter()
                .map(|limit| limit.weights.cost(|tag| tags.contains(&tag)))
                .collect();
            prop_assert_eq!(costs(&classes, &tags), expected.clone());
            prop_assert!(classes.dearest().iter().zip(&expected).all(|(any, own)| any >= own));
        }
    }

    const WORDS: [&str; 4] = ["create", "lookup", "search", "bulk"];

    fn weights() -> impl Strategy<Value = Weights> {
        let some = || proptest::sample::subsequence(&WORDS[..], 0..3);
        let costs =
            proptest::collection::btree_map(proptest::sample::select(&WORDS[..]), 0..9_u32, 0..3);
        (some(), some(), costs).prop_map(|(only, except, costs)| Weights {
            only: words(&only),
            except: words(&except),
            costs: costs
                .into_iter()
                .map(|(tag, cost)| (tag.to_owned(), cost))
                .collect(),
        })
    }
}
