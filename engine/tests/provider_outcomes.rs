//! What an operation makes of the verdicts that only definitions with error rules give.

use std::time::Duration;

use syncline_engine::decide::{Outcome, class_of, conclude};
use syncline_engine::event::Operation;
use syncline_engine::id::OperationSeq;
use syncline_engine::provider::{CallKind, KeySupport, PauseScope, RetryAfter, Verdict};
use syncline_engine::record::{Link, Progress, Resume};
use syncline_engine::retry::{Dice, RetryPolicy};
use syncline_engine::state::{Reason, State};

const NOW_MS: i64 = 1_700_000_000_000;

fn after(kind: CallKind, verdict: &Verdict) -> (Link, Progress) {
    let mut link = match kind {
        CallKind::Update | CallKind::Delete => Link::Linked("r-1".to_owned()),
        _ => Link::Unlinked,
    };
    let operation = match kind {
        CallKind::Create => Operation::Create,
        CallKind::Delete => Operation::Delete,
        _ => Operation::Update,
    };
    let mut progress = Progress::new(OperationSeq(1), operation as u8, 0);
    let outcome = Outcome {
        operation,
        changed_at_ms: NOW_MS,
        kind,
        verdict,
        now_ms: NOW_MS,
        retry: &RetryPolicy::default(),
        settle: Duration::from_secs(5),
        keys: KeySupport::FULL,
        probe: false,
        from_before: false,
    };
    conclude(&outcome, &mut link, &mut progress, &mut Dice::seeded(7));
    assert_eq!(class_of(verdict).as_str(), verdict.class());
    (link, progress)
}

fn detail() -> String {
    "x".to_owned()
}

#[test]
fn what_says_nothing_of_the_record_burns_no_attempt_and_leaves_it_queued() {
    let hour = RetryAfter::Wait(Duration::from_secs(3600));
    for verdict in [
        Verdict::QuotaExhausted {
            retry_after: hour,
            limit: Some("daily".to_owned()),
            detail: detail(),
        },
        Verdict::Maintenance {
            retry_after: hour,
            detail: detail(),
        },
        Verdict::Permission {
            pause: PauseScope::Account,
            detail: detail(),
        },
    ] {
        let (link, progress) = after(CallKind::Create, &verdict);
        assert_eq!(
            (progress.state, progress.burnt),
            (State::Queued, 0),
            "{verdict:?}"
        );
        assert_eq!(link, Link::Unlinked);
    }
}

#[test]
fn a_locked_record_is_tried_again_when_the_lock_is_over() {
    let locked = |retry_after| Verdict::Contention {
        retry_after,
        detail: detail(),
    };
    let told = locked(RetryAfter::Wait(Duration::from_secs(2)));
    let (link, progress) = after(CallKind::Create, &told);
    assert_eq!((progress.state, progress.burnt), (State::Retrying, 1));
    assert_eq!(progress.due_ms, NOW_MS + 2000);
    // Nothing was written, so nobody need ask whether it was.
    assert_eq!((link, progress.resume), (Link::Unlinked, Resume::Normal));

    let (_, progress) = after(CallKind::Update, &locked(RetryAfter::BackOff));
    assert_eq!(progress.state, State::Retrying);
    assert!((NOW_MS..=NOW_MS + 1000).contains(&progress.due_ms));
}

#[test]
fn a_create_that_meets_a_named_record_becomes_its_update() {
    let named = Verdict::Duplicate {
        remote_id: Some("3401".to_owned()),
        detail: detail(),
    };
    let (link, progress) = after(CallKind::Create, &named);
    assert_eq!(link, Link::Linked("3401".to_owned()));
    assert_eq!(
        (progress.state, progress.resume),
        (State::Queued, Resume::Update)
    );

    // An update that meets another record's key must not be led over to that record.
    let (link, progress) = after(CallKind::Update, &named);
    assert_eq!(link, Link::Linked("r-1".to_owned()));
    assert_eq!(progress.resume, Resume::LookUpDuplicate);

    let nameless = Verdict::Duplicate {
        remote_id: None,
        detail: detail(),
    };
    let (link, progress) = after(CallKind::Create, &nameless);
    assert_eq!(
        (link, progress.resume),
        (Link::Unlinked, Resume::LookUpDuplicate)
    );
}

#[test]
fn a_key_on_several_records_is_for_a_person_to_decide() {
    let ambiguous = Verdict::Ambiguous { detail: detail() };
    let (_, progress) = after(CallKind::Upsert, &ambiguous);
    assert_eq!(
        (progress.state, progress.reason),
        (State::Failed, Some(Reason::NeedsDecision))
    );
}
