//! What becomes of an operation at a provider that has no upsert, no look-up, or neither.

use std::time::Duration;

use syncline_engine::decide::{Outcome, Step, conclude, step};
use syncline_engine::event::Operation;
use syncline_engine::id::OperationSeq;
use syncline_engine::provider::{CallKind, Definition, KeySupport, Verdict, shipped};
use syncline_engine::record::{Link, Progress, RecordState, Resume, TargetState};
use syncline_engine::retry::{Dice, RetryPolicy};
use syncline_engine::state::{Reason, State};

const LOOK_UP: KeySupport = KeySupport {
    upsert: false,
    look_up: true,
    keyed_create: false,
    unique: false,
    match_keys: 0,
    marks_deletes: false,
};
const NOTHING: KeySupport = KeySupport {
    upsert: false,
    look_up: false,
    keyed_create: false,
    unique: false,
    match_keys: 0,
    marks_deletes: false,
};
const KEYED: KeySupport = KeySupport {
    upsert: false,
    look_up: false,
    keyed_create: true,
    unique: false,
    match_keys: 0,
    marks_deletes: false,
};
const UPSERT_ALONE: KeySupport = KeySupport {
    upsert: true,
    look_up: false,
    keyed_create: false,
    unique: false,
    match_keys: 0,
    marks_deletes: false,
};

const UNIQUE: KeySupport = KeySupport {
    unique: true,
    ..KeySupport::FULL
};

/// More calls than any script here needs; the decision goes round in circles.
const CALLS_MAX: usize = 100;

/// A record and its operation, driven by answers.
struct Course {
    keys: KeySupport,
    operation: Operation,
    target: TargetState,
    progress: Progress,
    now_ms: i64,
    calls: Vec<CallKind>,
}

/// How an operation ended.
type End = (State, Option<Reason>);

impl Course {
    fn new(keys: KeySupport, operation: Operation, link: Link) -> Course {
        let mut record = RecordState::new("contact", "c-1");
        let mut target = record.target_mut("crm").clone();
        target.link = link;
        Course {
            keys,
            operation,
            target,
            progress: Progress::new(OperationSeq(1), operation as u8, 8),
            now_ms: 1_000,
            calls: Vec::new(),
        }
    }

    /// Runs to the end; each call is answered as `answer` says of it.
    fn run(&mut self, mut answer: impl FnMut(CallKind) -> Verdict) -> End {
        for _ in 0..CALLS_MAX {
            let resume = self.progress.resume;
            let next = step(self.operation, 500, Some(&self.target), resume, self.keys);
            let kind = match next {
                Step::Call { kind, .. } => kind,
                Step::End(state, reason) => return (state, reason),
            };
            self.calls.push(kind);
            let verdict = answer(kind);
            let outcome = Outcome {
                operation: self.operation,
                changed_at_ms: 500,
                kind,
                verdict: &verdict,
                now_ms: self.now_ms,
                retry: &RetryPolicy::default(),
                settle: Duration::from_secs(5),
                keys: self.keys,
                probe: false,
                from_before: false,
            };
            let mut dice = Dice::seeded(1);
            conclude(
                &outcome,
                &mut self.target.link,
                &mut self.progress,
                &mut dice,
            );
            if self.progress.state.is_final() {
                return (self.progress.state, self.progress.reason);
            }
            self.now_ms = self.progress.due_ms.max(self.now_ms + 1);
        }
        panic!("it does not end: {:?}", self.calls);
    }

    /// As [`Course::run`], with one answer after the other.
    fn follow<const N: usize>(&mut self, answers: [Verdict; N]) -> End {
        let mut answers = answers.into_iter();
        let end = self.run(|kind| {
            answers
                .next()
                .unwrap_or_else(|| panic!("{kind} is one too many"))
        });
        assert_eq!(answers.next(), None, "{:?}", self.calls);
        end
    }
}

fn created() -> Verdict {
    Verdict::Done {
        remote_id: Some("r-1".to_owned()),
        created: true,
    }
}

fn done() -> Verdict {
    Verdict::Done {
        remote_id: None,
        created: false,
    }
}

fn found() -> Verdict {
    Verdict::Found {
        remote_id: "r-7".to_owned(),
    }
}

fn unknown() -> Verdict {
    Verdict::Unknown {
        detail: String::new(),
    }
}

fn gone() -> Verdict {
    Verdict::Gone {
        detail: String::new(),
    }
}

fn taken(remote_id: Option<&str>) -> Verdict {
    Verdict::Duplicate {
        remote_id: remote_id.map(str::to_owned),
        detail: String::new(),
    }
}

fn linked(id: &str) -> Link {
    Link::Linked(id.to_owned())
}

const SYNCED: End = (State::Synced, None);
const NEEDS_DECISION: End = (State::Failed, Some(Reason::NeedsDecision));

use CallKind::{Create, Lookup, Update, Upsert};

#[test]
fn what_is_found_by_its_key_is_linked_and_updated() {
    for operation in [Operation::Upsert, Operation::Update] {
        let mut course = Course::new(LOOK_UP, operation, Link::Unlinked);
        assert_eq!(course.follow([found(), done()]), SYNCED);
        assert_eq!(course.calls, [Lookup, Update]);
        assert_eq!(course.target.link, linked("r-7"));
    }
}

#[test]
fn what_is_absent_is_created_at_once() {
    for operation in [Operation::Upsert, Operation::Update] {
        let mut course = Course::new(LOOK_UP, operation, Link::Unlinked);
        assert_eq!(course.follow([Verdict::Absent, created()]), SYNCED);
        assert_eq!(course.calls, [Lookup, Create]);
        assert_eq!(course.target.link, linked("r-1"));
        assert!(course.now_ms < 5_000, "nothing was in doubt");
    }
}

#[test]
fn an_update_that_creates_brings_what_earlier_operations_left_undelivered() {
    for keys in [LOOK_UP, NOTHING] {
        let mut course = Course::new(keys, Operation::Update, Link::Unlinked);
        let mut beneath = None;
        if keys == LOOK_UP {
            course.progress.resume = syncline_engine::record::Resume::Create;
        }
        if let Step::Call {
            kind,
            beneath: told,
        } = step(
            course.operation,
            500,
            Some(&course.target),
            course.progress.resume,
            keys,
        ) {
            beneath = Some((kind, told));
        }
        assert_eq!(beneath, Some((Create, true)), "{keys:?}");
    }
}

#[test]
fn an_upsert_of_a_linked_record_is_its_update() {
    let mut course = Course::new(LOOK_UP, Operation::Upsert, linked("r-1"));
    assert_eq!(course.follow([done()]), SYNCED);
    assert_eq!(course.calls, [Update]);
}

#[test]
fn an_upsert_of_a_record_that_is_gone_creates_it_once_more() {
    let mut course = Course::new(LOOK_UP, Operation::Upsert, linked("r-1"));
    assert_eq!(course.follow([gone(), created()]), SYNCED);
    assert_eq!(course.calls, [Update, Create]);
    let mut course = Course::new(LOOK_UP, Operation::Update, linked("r-1"));
    assert_eq!(course.follow([gone()]), (State::Failed, Some(Reason::Gone)));
}

#[test]
fn an_unknown_create_is_looked_up_until_it_had_time_to_settle_and_then_made_again() {
    for operation in [Operation::Create, Operation::Upsert] {
        let mut course = Course::new(LOOK_UP, operation, Link::Unlinked);
        let mut creates = 0;
        let end = course.run(|kind| match kind {
            Create if creates == 0 => {
                creates += 1;
                unknown()
            }
            Create => created(),
            _ => Verdict::Absent,
        });
        assert_eq!(end, SYNCED, "{operation:?}");
        assert_eq!(course.calls.last(), Some(&Create));
        assert!(course.now_ms >= 6_000, "not before it had time to settle");
    }
}

#[test]
fn an_unknown_create_that_is_found_is_not_made_again() {
    let mut course = Course::new(LOOK_UP, Operation::Create, Link::Unlinked);
    let end = course.follow([unknown(), Verdict::Absent, found(), done()]);
    assert_eq!(end, (State::Synced, Some(Reason::AlreadyLinked)));
    assert_eq!(course.calls, [Create, Lookup, Lookup, Update]);
}

#[test]
fn a_create_that_stays_unknown_ends_for_a_person() {
    let mut course = Course::new(LOOK_UP, Operation::Create, Link::Unlinked);
    let end = course.run(|kind| match kind {
        Create => unknown(),
        _ => Verdict::Absent,
    });
    assert_eq!(end, NEEDS_DECISION);
    let creates = course.calls.iter().filter(|kind| **kind == Create).count();
    assert_eq!(creates, 12, "as many as the account's attempts");
    assert_eq!(course.target.link, Link::Doubtful);
}

#[test]
fn where_nobody_can_be_asked_an_unknown_create_is_for_a_person() {
    let mut course = Course::new(NOTHING, Operation::Upsert, Link::Unlinked);
    assert_eq!(course.follow([unknown()]), NEEDS_DECISION);
    assert_eq!(course.target.link, Link::Doubtful);
    for operation in [Operation::Create, Operation::Update, Operation::Upsert] {
        let mut later = Course::new(NOTHING, operation, Link::Doubtful);
        assert_eq!(later.follow([]), NEEDS_DECISION, "{operation:?}");
    }
}

#[test]
fn where_nobody_can_be_asked_what_was_never_sent_is_created() {
    for operation in [Operation::Create, Operation::Update, Operation::Upsert] {
        let mut course = Course::new(NOTHING, operation, Link::Unlinked);
        assert_eq!(course.follow([created()]), SYNCED, "{operation:?}");
    }
    let mut course = Course::new(NOTHING, Operation::Delete, Link::Unlinked);
    assert_eq!(course.follow([]), (State::Failed, Some(Reason::NotFound)));
    assert_eq!(course.target.link, Link::Unlinked);
}

#[test]
fn a_create_under_an_honoured_key_is_sent_again() {
    let mut course = Course::new(KEYED, Operation::Create, Link::Unlinked);
    assert_eq!(course.follow([unknown(), unknown(), created()]), SYNCED);
    assert_eq!(course.calls, [Create, Create, Create]);
}

#[test]
fn an_upsert_settles_an_unknown_create_alone_or_where_no_second_record_can_have_the_key() {
    for keys in [UPSERT_ALONE, UNIQUE] {
        let mut course = Course::new(keys, Operation::Create, Link::Unlinked);
        assert_eq!(course.follow([unknown(), unknown(), created()]), SYNCED);
        assert_eq!(course.calls, [Create, Upsert, Upsert]);
        let mut doubtful = Course::new(keys, Operation::Create, Link::Doubtful);
        assert_eq!(doubtful.follow([created()]), SYNCED);
        assert_eq!(doubtful.calls, [Upsert]);
    }
}

#[test]
fn a_key_that_is_unique_is_looked_up_where_nothing_may_be_made() {
    let mut course = Course::new(UNIQUE, Operation::Delete, Link::Doubtful);
    assert_eq!(course.follow([found(), done()]), SYNCED);
    assert_eq!(course.calls, [Lookup, CallKind::Delete]);
}

const MARKS: KeySupport = KeySupport {
    marks_deletes: true,
    ..KeySupport::FULL
};

#[test]
fn a_delete_that_marks_is_an_update_after_which_the_record_is_gone() {
    for answer in [done(), gone()] {
        let mut course = Course::new(MARKS, Operation::Delete, linked("3401"));
        assert_eq!(course.follow([answer]), SYNCED);
        assert_eq!(course.calls, [Update]);
        assert_eq!(course.target.link, Link::Deleted { changed_at_ms: 500 });
    }
}

#[test]
fn what_is_made_after_a_delete_that_marked_is_made_by_its_key() {
    let gone = Link::Deleted { changed_at_ms: 400 };
    for operation in [Operation::Create, Operation::Upsert] {
        let mut course = Course::new(MARKS, operation, gone.clone());
        assert_eq!(course.follow([created()]), SYNCED, "{operation:?}");
        assert_eq!(course.calls, [Upsert], "{operation:?}");
    }
    let asked = KeySupport {
        marks_deletes: true,
        ..LOOK_UP
    };
    let mut course = Course::new(asked, Operation::Upsert, gone.clone());
    assert_eq!(course.follow([found(), done()]), SYNCED);
    assert_eq!(course.calls, [Lookup, Update]);
    assert_eq!(
        course.progress.resume,
        Resume::Update,
        "what it finds may be marked"
    );
    let mut course = Course::new(asked, Operation::Create, gone);
    assert_eq!(course.follow([Verdict::Absent, created()]), SYNCED);
    assert_eq!(course.calls, [Lookup, Create]);
}

#[test]
fn a_record_named_by_the_refusal_is_linked_and_updated() {
    for (keys, operation, first) in [
        (LOOK_UP, Operation::Create, vec![Create]),
        (NOTHING, Operation::Upsert, vec![Create]),
        (KeySupport::FULL, Operation::Upsert, vec![Upsert]),
    ] {
        let mut course = Course::new(keys, operation, Link::Unlinked);
        let end = course.follow([taken(Some("3401")), done()]);
        assert_eq!(end.0, State::Synced, "{operation:?}");
        assert_eq!(course.calls, [first, vec![Update]].concat());
        assert_eq!(course.target.link, linked("3401"));
    }
}

#[test]
fn a_refusal_that_names_no_record_is_looked_up_once() {
    let mut course = Course::new(LOOK_UP, Operation::Create, Link::Unlinked);
    let end = course.follow([taken(None), found(), done()]);
    assert_eq!(end.0, State::Synced);
    let mut shared = Course::new(KeySupport::FULL, Operation::Update, linked("r-7"));
    let end = shared.follow([taken(Some("3401")), found(), taken(None)]);
    assert_eq!(end, (State::Failed, Some(Reason::Duplicate)));
    assert_eq!(shared.calls, [Update, Lookup, Update]);
    assert_eq!(
        shared.target.link,
        linked("r-7"),
        "not led over to the other"
    );
    let mut unasked = Course::new(NOTHING, Operation::Create, Link::Unlinked);
    assert_eq!(
        unasked.follow([taken(None)]),
        (State::Failed, Some(Reason::Duplicate))
    );
}

#[test]
fn what_a_provider_offers_is_read_from_its_definition() {
    let support = |id: &str, object: &str| {
        let definition = Definition::parse(shipped(id).unwrap()).unwrap();
        definition.key_support(object)
    };
    let full = KeySupport {
        keyed_create: false,
        ..KeySupport::FULL
    };
    assert_eq!(support("rest", "contact"), full);
    let unique = KeySupport {
        unique: true,
        ..full
    };
    assert_eq!(support("salesforce", "Contact"), unique);
    assert_eq!(support("hubspot", "contacts"), unique);
    assert_eq!(support("pipedrive", "persons"), LOOK_UP);
    assert_eq!(support("outreach", "accounts"), LOOK_UP);
    assert_eq!(
        support("outreach", "account"),
        LOOK_UP,
        "by its usual name too"
    );
    assert_eq!(support("outreach", "prospects"), NOTHING);
}
