//! `[batch.NAME.results]`: where a batch's reply tells of which record.

use super::batch::RecordKey;
use super::file::{BatchBlock, EmptyMeans, IdMissing, ItemErrorsBlock, MissingMeans, ShapeBlock};
use super::operation::OkCondition;
use super::pointer::Pointer;
use super::problems::Problems;
use super::refusal::ErrorShape;
use super::{CallKind, TemplateError};

/// `[batch.NAME.results]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BatchResults {
    /// A success is one of all records.
    All,
    Listed(Box<ResultList>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResultList {
    pub(crate) done: ItemList,
    pub(crate) status: Option<Pointer>,
    pub(crate) ok: Option<OkCondition>,
    pub(crate) id: Option<Pointer>,
    pub(crate) id_missing: IdMissing,
    pub(crate) created: Option<Pointer>,
    /// What was refused, if it is listed apart.
    pub(crate) refused: Option<ItemList>,
    pub(crate) empty: EmptyMeans,
    pub(crate) missing: MissingMeans,
    /// Keys of records that differ in case alone are the same key.
    pub(crate) ignores_case: bool,
}

/// A list in a reply, whose entries each tell of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemList {
    pub(crate) at: Pointer,
    pub(crate) by: Matching,
    pub(crate) error: ErrorShape,
}

/// How an entry says which record it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Matching {
    /// Entries are in the order of the records.
    Position,
    /// By the first of these that leads somewhere.
    Keys(Vec<(MatchKey, Pointer)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum MatchKey {
    /// `{item}` as it was sent.
    Trace,
    RecordId,
    RemoteId,
}

impl BatchResults {
    pub(crate) fn compile(
        batch: &str,
        of: &BatchBlock,
        problems: &mut Problems,
    ) -> Option<BatchResults> {
        let block = &of.results;
        let looks_up = of.takes.contains(&CallKind::Lookup);
        let reads = of.takes.contains(&CallKind::Read);
        let key = |member: &str| format!("batch.{batch}.results.{member}");
        let Some(at) = &block.at else {
            if block.all {
                return Some(BatchResults::All);
            }
            problems.add(format!("batch.{batch}.results"), TemplateError::NoResults);
            return None;
        };
        let absent = block.missing == MissingMeans::Absent;
        let told = block.status.is_some() || block.ok.is_some();
        let outcome = match (looks_up, reads) {
            (true, _) => absent || block.errors.is_some(),
            (_, true) => absent || block.errors.is_some() || told,
            (false, false) => block.errors.is_some() || told,
        };
        if absent && !looks_up && !reads {
            problems.add(key("missing"), TemplateError::Meaningless("missing"));
        }
        if looks_up && block.id.is_none() {
            problems.add(key("id"), TemplateError::NoIdPointer(CallKind::Lookup));
        }
        if block.all || block.by.is_empty() || !outcome {
            let fault = match block.all || block.by.is_empty() {
                true => TemplateError::NoResults,
                false => TemplateError::NoItemOutcome,
            };
            problems.add(format!("batch.{batch}.results"), fault);
        }
        let pointer = |member: &str, text: &Option<String>, problems: &mut Problems| {
            let pointer = text.as_deref().map(Pointer::parse_any).transpose();
            problems.note(key(member), pointer).flatten()
        };
        let done = ItemList::compile(&key, at, &block.by, &block.error, problems);
        let refused = block.errors.as_ref().map(|block| {
            let ItemErrorsBlock { at, by, error } = block;
            let key = |member: &str| format!("batch.{batch}.results.errors.{member}");
            ItemList::compile(&key, at, by, error, problems)
        });
        let status = pointer("status", &block.status, problems);
        let id = pointer("id", &block.id, problems);
        let created = pointer("created", &block.created, problems);
        let ok = block.ok.as_ref();
        let ok = ok.and_then(|ok| problems.note(key("ok.at"), OkCondition::compile(ok)));
        Some(BatchResults::Listed(Box::new(ResultList {
            done: done?,
            status,
            ok,
            id,
            id_missing: block.id_missing,
            created,
            refused: match refused {
                Some(refused) => Some(refused?),
                None => None,
            },
            empty: block.empty,
            missing: block.missing,
            ignores_case: of.unique_ignores_case,
        })))
    }

    pub(crate) fn uses_trace(&self) -> bool {
        let BatchResults::Listed(list) = self else {
            return false;
        };
        let lists = [Some(&list.done), list.refused.as_ref()];
        lists.into_iter().flatten().any(|list| match &list.by {
            Matching::Position => false,
            Matching::Keys(keys) => keys.iter().any(|(key, _)| *key == MatchKey::Trace),
        })
    }
}

impl ItemList {
    fn compile(
        key: &impl Fn(&str) -> String,
        at: &str,
        by: &[String],
        error: &ShapeBlock,
        problems: &mut Problems,
    ) -> Option<ItemList> {
        let at = problems.note(key("at"), Pointer::parse_any(at));
        let by = problems.note(key("by"), Matching::compile(by));
        let error = ErrorShape::compile(&key("error"), error, problems);
        Some(ItemList {
            at: at?,
            by: by?,
            error,
        })
    }
}

impl Matching {
    fn compile(by: &[String]) -> Result<Matching, TemplateError> {
        if by == ["position"] {
            return Ok(Matching::Position);
        }
        let keys = by.iter().map(|text| {
            let not_a_match = || TemplateError::NotAMatch(text.clone());
            let (key, pointer) = text.split_once(':').ok_or_else(not_a_match)?;
            let key = match key {
                "trace" => MatchKey::Trace,
                key => match RecordKey::parse(key).map_err(|_| not_a_match())? {
                    RecordKey::RecordId => MatchKey::RecordId,
                    RecordKey::RemoteId => MatchKey::RemoteId,
                },
            };
            Ok((key, Pointer::parse(pointer)?))
        });
        Ok(Matching::Keys(keys.collect::<Result<_, _>>()?))
    }
}
