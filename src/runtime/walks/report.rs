//! What a walk finds, counted.

use engine::shard::Comparison;

use super::kept::{Cause, Example, Tally};

/// Examples kept of a walk; the counts are exact beyond them.
const EXAMPLES_MAX: usize = 100;
/// Fields counted one by one; what comes beyond them is counted under `…`.
const FIELDS_MAX: usize = 256;

/// How a record stands, with the fields that say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// `None`: as both sides agreed.
    pub(super) cause: Option<Cause>,
    pub(super) fields: Vec<String>,
}

impl Finding {
    pub(super) fn of(comparison: Comparison, unlinked: Cause) -> Finding {
        let Comparison {
            linked,
            waits,
            differs,
            held,
        } = comparison;
        let (cause, fields) = if !linked {
            // One that is on its way is not missing.
            let cause = if waits { Cause::Waits } else { unlinked };
            (Some(cause), Vec::new())
        } else if waits {
            (Some(Cause::Waits), differs)
        } else if !differs.is_empty() {
            (Some(Cause::Differs), differs)
        } else if !held.is_empty() {
            (Some(Cause::Held), held)
        } else {
            (None, Vec::new())
        };
        Finding { cause, fields }
    }

    /// Whether what was listed, taken once more, brings the sides together.
    pub(super) fn can_be_repaired(&self) -> bool {
        matches!(
            self.cause,
            Some(Cause::MissingHere | Cause::Differs | Cause::Unlinked)
        )
    }
}

impl Tally {
    /// Counts a record.
    pub(super) fn count(
        &mut self,
        finding: &Finding,
        record_id: Option<&str>,
        remote_id: Option<&str>,
    ) {
        let Some(cause) = finding.cause else {
            self.equal += 1;
            return;
        };
        match cause {
            Cause::MissingHere => self.missing_here += 1,
            Cause::MissingThere => self.missing_there += 1,
            Cause::Unlinked => self.unlinked += 1,
            Cause::MissingRow => self.missing_row += 1,
            Cause::Differs => self.differs += 1,
            Cause::Waits => self.waits += 1,
            Cause::Held => self.held += 1,
        }
        if cause == Cause::Waits {
            return;
        }
        for field in &finding.fields {
            let known = self.fields.len() < FIELDS_MAX || self.fields.contains_key(field);
            let name = if known { field.as_str() } else { "…" };
            *self.fields.entry(name.to_owned()).or_default() += 1;
        }
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(Example {
                cause,
                record_id: record_id.map(str::to_owned),
                remote_id: remote_id.map(str::to_owned),
                fields: finding.fields.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(linked: bool, waits: bool, differs: &[&str], held: &[&str]) -> Comparison {
        let owned = |fields: &[&str]| fields.iter().map(|&field| field.to_owned()).collect();
        Comparison {
            linked,
            waits,
            differs: owned(differs),
            held: owned(held),
        }
    }

    #[test]
    fn a_record_has_one_cause_and_what_is_on_its_way_is_no_difference() {
        for (found, cause) in [
            (comparison(true, false, &[], &[]), None),
            (comparison(false, false, &[], &[]), Some(Cause::MissingHere)),
            (comparison(false, true, &[], &[]), Some(Cause::Waits)),
            (comparison(true, true, &["/a"], &[]), Some(Cause::Waits)),
            (
                comparison(true, false, &["/a"], &["/b"]),
                Some(Cause::Differs),
            ),
            (comparison(true, false, &[], &["/b"]), Some(Cause::Held)),
        ] {
            assert_eq!(
                Finding::of(found.clone(), Cause::MissingHere).cause,
                cause,
                "{found:?}"
            );
        }
    }

    #[test]
    fn fields_and_examples_are_bounded_and_counts_are_not() {
        let mut tally = Tally::default();
        for at in 0..FIELDS_MAX + 50 {
            let finding = Finding {
                cause: Some(Cause::Differs),
                fields: vec![format!("/{at}")],
            };
            tally.count(&finding, Some("c-1"), None);
        }
        assert_eq!(tally.differs, FIELDS_MAX as u64 + 50);
        assert_eq!(tally.examples.len(), EXAMPLES_MAX);
        assert_eq!(
            (tally.fields.len(), tally.fields["…"]),
            (FIELDS_MAX + 1, 50)
        );
    }
}
