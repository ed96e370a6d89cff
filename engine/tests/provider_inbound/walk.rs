//! A list is read to its end whatever its pages, its ties and the crashes between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use serde_json::json;
use syncline_engine::provider::{ChangeKind, Cursor, Gap, Poll, PollState, Reply, Request, Step};

use super::{definition, reply};

const KEYSET: &str = r#"
[poll.changes]
interval = "60s"
overlap = "1s"
method = "GET"
path = "/{object}"
query = { since = "{from|ms}", limit = "{size}" }
size = 3
unit = "ms"
records = "/records"
id = "/id"
modified_at = "/at"
deleted = { at = "/gone", is = true }
[poll.changes.ties]
first = "0"
query = { at = "{from|ms}", after = "{after_id}", limit = "{size}" }
"#;

/// Pages of three behind a token, seven records a query at most.
fn paged() -> String {
    KEYSET
        .replace(
            "limit = \"{size}\" }",
            "limit = \"{size}\", page = \"{page?}\" }",
        )
        .replace("unit", "cap = 7\npage = { token = \"/next\" }\nunit")
}

fn poll(blocks: &str) -> Poll {
    definition(blocks).poll("changes", "contacts", []).unwrap()
}

/// A provider's records, and what it answers to such requests.
#[derive(Debug, Default)]
struct Provider {
    /// By id: when it last changed, its value, and whether it is gone.
    records: BTreeMap<u64, (i64, u32, bool)>,
    calls: usize,
    cap: Option<usize>,
}

impl Provider {
    fn answer(&mut self, now_ms: i64, request: &Request) -> Reply {
        self.calls += 1;
        let (_, query) = request.path_and_query.split_once('?').unwrap();
        let pairs: BTreeMap<String, String> = query
            .split('&')
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap();
                let value = percent_decode_str(value).decode_utf8().unwrap();
                (name.to_owned(), value.into_owned())
            })
            .collect();
        let number = |name: &str| pairs.get(name).map(|value| value.parse::<i64>().unwrap());
        let limit = number("limit").unwrap() as usize;
        let mut found: Vec<(i64, u64)> = self
            .records
            .iter()
            .filter(|(id, (at, ..))| match number("at") {
                Some(wanted) => *at == wanted && **id as i64 > number("after").unwrap(),
                None => *at >= number("since").unwrap(),
            })
            .map(|(id, (at, ..))| (*at, *id))
            .collect();
        found.sort();
        let skip = number("page").unwrap_or(0) as usize;
        if self.cap.is_some_and(|cap| skip + limit > cap + 2) {
            return reply(400, json!({ "message": "paged beyond the cap" }));
        }
        let page = found.iter().skip(skip).take(limit);
        let records: Vec<_> = page
            .map(|(at, id)| {
                let (_, value, gone) = self.records[id];
                json!({ "id": id, "at": at, "value": value, "gone": gone })
            })
            .collect();
        let mut body = json!({ "records": records });
        if self.cap.is_some() && skip + limit < found.len() {
            body["next"] = json!((skip + limit).to_string());
        }
        let mut answer = reply(200, body);
        let date = jiff::Timestamp::from_millisecond(now_ms).unwrap();
        answer.date = Some(date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        answer
    }
}

/// What came of a list: per record the last value told, and whether it is gone.
type Seen = BTreeMap<String, (u32, bool)>;

/// Runs rounds until the poll rests; `crash` decides after which page all but the cursor is lost.
fn round(
    state: &mut PollState,
    provider: &mut Provider,
    now_ms: i64,
    seen: &mut Seen,
    mut crash: impl FnMut() -> bool,
) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for _ in 0..10_000 {
        let request = match state.next(now_ms) {
            Step::Wait(due_ms) => {
                assert!(due_ms > now_ms);
                return gaps;
            }
            Step::Gap(gap) => {
                gaps.push(gap);
                continue;
            }
            Step::Call(request) => request,
        };
        let answer = provider.answer(now_ms, &request);
        let progress = state.take(now_ms, "http://a", &answer).unwrap();
        gaps.extend(progress.gap);
        for change in progress.changes {
            let fields = change.fields.as_deref().unwrap_or("{\"value\":0}");
            let fields: serde_json::Value = serde_json::from_str(fields).unwrap();
            let value = fields["value"].as_u64().unwrap() as u32;
            let gone = change.kind == ChangeKind::Deleted;
            seen.insert(change.remote_id, (value, gone));
        }
        let before = state.cursor().clone();
        *state = progress.next;
        assert!(state.cursor().from_ms >= before.from_ms, "{before:?}");
        if crash() {
            let poll = state.poll().clone();
            *state = PollState::new(poll.clone(), poll.interval(), state.cursor().clone());
        }
    }
    panic!("the walk does not end");
}

fn start(poll: Poll, from_ms: i64) -> PollState {
    let interval = poll.interval();
    let cursor = Cursor {
        from_ms,
        after_id: None,
    };
    PollState::new(poll, interval, cursor)
}

const T0: i64 = 1_795_168_800_000;

#[test]
fn more_records_of_one_instant_than_a_page_holds_are_read_by_their_ids() {
    for (blocks, cap) in [(KEYSET.to_owned(), None), (paged(), Some(7))] {
        let mut provider = Provider {
            cap,
            ..Provider::default()
        };
        for id in 1..=12_000 {
            provider.records.insert(id, (T0 + 5_000, 1, false));
        }
        provider.records.insert(20_000, (T0 + 5_001, 2, false));
        let mut state = start(poll(&blocks), T0);
        let mut seen = Seen::new();
        let gaps = round(&mut state, &mut provider, T0 + 60_000, &mut seen, || false);
        assert_eq!(gaps, []);
        assert_eq!(seen.len(), 12_001);
        assert!(provider.calls < 6_020, "{} calls", provider.calls);
    }
}

#[test]
fn a_long_round_comes_to_its_end_though_every_third_reply_is_lost() {
    let mut provider = Provider::default();
    for id in 1..=60 {
        provider.records.insert(id, (T0 + 5_000, 1, false));
        provider
            .records
            .insert(100 + id, (T0 + 5_001 + id as i64 % 5, 2, false));
    }
    // All of it within the overlap, so that nothing of it would be left out of a new beginning.
    let poll = poll(KEYSET).with_overlap(Duration::from_secs(600));
    let mut state = start(poll, T0);
    let mut now_ms = T0 + 60_000;
    let mut seen = Seen::new();
    let mut calls = 0;
    while calls < 500 {
        match state.next(now_ms) {
            Step::Wait(_) if seen.len() == 120 => break,
            Step::Wait(due_ms) => now_ms = due_ms,
            Step::Gap(gap) => panic!("{gap:?}"),
            Step::Call(request) => {
                calls += 1;
                if calls % 3 == 0 {
                    state.failed(now_ms, None);
                    continue;
                }
                let answer = provider.answer(now_ms, &request);
                let progress = state.take(now_ms, "http://a", &answer).unwrap();
                for change in progress.changes {
                    seen.insert(change.remote_id, (0, false));
                }
                state = progress.next;
            }
        }
    }
    assert_eq!(seen.len(), 120, "after {calls} calls");
}

#[test]
fn a_quiet_list_is_asked_for_once_an_interval_and_tells_nothing_again_after_a_while() {
    let mut provider = Provider::default();
    provider.records.insert(1, (T0 + 5_000, 1, false));
    let mut state = start(poll(KEYSET), T0);
    let mut told = 0;
    for minute in 1..=5 {
        let mut seen = Seen::new();
        let now_ms = T0 + minute * 60_000;
        round(&mut state, &mut provider, now_ms, &mut seen, || false);
        told += seen.len();
        assert_eq!(state.next(now_ms), Step::Wait(now_ms + 60_000));
    }
    assert_eq!(told, 1);
    assert_eq!(provider.calls, 5);
    assert_eq!(state.cursor().from_ms, T0 + 300_000);
}

#[test]
fn the_cursor_follows_the_providers_clock_and_never_ours() {
    let mut provider = Provider::default();
    let mut state = start(poll(KEYSET), T0);
    // Ours is ten minutes ahead: what the provider writes meanwhile is older than our time.
    let ours_ms = T0 + 660_000;
    let Step::Call(request) = state.next(ours_ms) else {
        panic!("it is due");
    };
    let answer = provider.answer(T0 + 60_000, &request);
    state = state.take(ours_ms, "http://a", &answer).unwrap().next;
    assert_eq!(state.cursor().from_ms, T0 + 60_000);

    // Without a word of its clock, only what was seen counts.
    let mut blind = start(poll(KEYSET), T0);
    assert!(matches!(blind.next(ours_ms), Step::Call(_)));
    let empty = reply(200, json!({ "records": [] }));
    let progress = blind.take(ours_ms, "http://a", &empty).unwrap();
    assert_eq!(progress.next.cursor().from_ms, T0);
}

#[test]
fn a_record_that_appears_late_within_the_overlap_is_still_told() {
    let mut provider = Provider::default();
    let mut state = start(poll(KEYSET).with_overlap(Duration::from_secs(60)), T0);
    round(
        &mut state,
        &mut provider,
        T0 + 60_000,
        &mut Seen::new(),
        || false,
    );
    provider.records.insert(1, (T0 + 5_000, 1, false));
    let mut seen = Seen::new();
    round(&mut state, &mut provider, T0 + 120_000, &mut seen, || false);
    assert_eq!(seen.len(), 1);
}

#[test]
fn what_lies_behind_a_lists_reach_is_a_gap_and_the_poll_goes_on() {
    let blocks = KEYSET.replace("unit", "reach = \"1h\"\nunit");
    let mut provider = Provider::default();
    provider.records.insert(1, (T0 + 7_200_000, 1, false));
    let mut state = start(poll(&blocks), T0);
    let now_ms = T0 + 7_200_000;
    let mut seen = Seen::new();
    let gaps = round(&mut state, &mut provider, now_ms, &mut seen, || false);
    let earliest_ms = T0 + 3_660_000;
    assert_eq!(
        gaps,
        [Gap::OutOfReach {
            from_ms: T0,
            earliest_ms
        }]
    );
    assert_eq!(seen.len(), 1);
}

#[test]
fn an_id_that_could_change_a_query_is_a_gap_and_never_asked_with() {
    let mut state = start(poll(KEYSET), T0);
    let evil = "' OR Id > '0";
    let mut gaps = Vec::new();
    for _ in 0..6 {
        let Step::Call(request) = state.next(T0 + 60_000) else {
            break;
        };
        assert!(!request.path_and_query.contains("OR"), "{request:?}");
        let one = json!({ "id": evil, "at": T0 + 5_000 });
        let page = reply(200, json!({ "records": [one, one, one] }));
        let progress = state.take(T0 + 60_000, "http://a", &page).unwrap();
        gaps.extend(progress.gap);
        state = progress.next;
        if !gaps.is_empty() {
            break;
        }
    }
    assert_eq!(gaps, [Gap::TooMany { at_ms: T0 + 5_000 }]);
    assert_eq!(state.cursor().from_ms, T0 + 5_001);
}

#[test]
fn a_list_of_a_span_goes_on_where_the_provider_says_and_tells_what_was_purged() {
    let blocks = r#"
[poll.changes]
interval = "60s"
overlap = "1s"
span = "60s"
method = "GET"
path = "/{object}"
query = { start = "{from|ms}", end = "{to|ms}" }
unit = "ms"
records = "/gone"
id = "/id"
modified_at = "/at"
tells = "deleted"
next_from = "/covered"
earliest = "/earliest"
"#;
    let mut state = start(poll(blocks), T0);
    assert_eq!(state.next(T0 + 30_000), Step::Wait(T0 + 59_000));
    let now_ms = T0 + 100_000;
    let Step::Call(request) = state.next(now_ms) else {
        panic!("it is due");
    };
    let asked = format!("/contacts?end={now_ms}&start={}", T0 - 1_000);
    assert_eq!(request.path_and_query, asked);
    let page = json!({ "gone": [{ "id": "a", "at": T0 + 3 }], "covered": T0 + 70_000, "earliest": T0 - 5 });
    let progress = state.take(now_ms, "http://a", &reply(200, page)).unwrap();
    assert_eq!(progress.gap, None);
    assert_eq!(progress.changes[0].kind, ChangeKind::Deleted);
    state = progress.next;
    assert_eq!(state.cursor().from_ms, T0 + 70_000);

    let later_ms = now_ms + 60_000;
    assert!(matches!(state.next(later_ms), Step::Call(_)));
    let page = json!({ "gone": [], "covered": T0 + 150_000, "earliest": T0 + 90_000 });
    let progress = state.take(later_ms, "http://a", &reply(200, page)).unwrap();
    let gap = Gap::OutOfReach {
        from_ms: T0 + 70_000,
        earliest_ms: T0 + 90_000,
    };
    assert_eq!(progress.gap, Some(gap));
}

#[test]
fn a_list_that_is_read_whole_tells_only_what_is_new() {
    let blocks = r#"
[poll.changes]
interval = "60s"
overlap = "1s"
method = "GET"
path = "/{object}"
query = { limit = "{size}", page = "{page?}" }
size = 2
scan = true
unit = "ms"
records = "/records"
id = "/id"
modified_at = "/at"
tells = "deleted"
page = { token = "/next" }
"#;
    let mut state = start(poll(blocks), T0);
    let mut told = Vec::new();
    let pages = [
        json!({ "records": [{ "id": 1, "at": T0 - 9_000 }, { "id": 2, "at": T0 + 9_000 }], "next": "b" }),
        json!({ "records": [{ "id": 3, "at": T0 + 1 }] }),
    ];
    for page in pages {
        assert!(matches!(state.next(T0 + 60_000), Step::Call(_)));
        let progress = state
            .take(T0 + 60_000, "http://a", &reply(200, page))
            .unwrap();
        told.extend(progress.changes.into_iter().map(|change| change.remote_id));
        state = progress.next;
    }
    assert_eq!(told, ["2", "3"]);
    assert_eq!(state.cursor().from_ms, T0 + 9_000);
    assert_eq!(state.next(T0 + 60_000), Step::Wait(T0 + 120_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Edits at few instants (so that ties are common), rounds, and crashes after any page: in the
    /// end what was told last of each record is what the provider has.
    #[test]
    fn all_edits_are_told_whatever_the_ties_and_the_crashes(
        edits in proptest::collection::vec((1_u64..60, 0_i64..6, any::<bool>()), 0..160),
        crashes in proptest::collection::vec(any::<bool>(), 1..40),
        paged_list in any::<bool>(),
    ) {
        let blocks = if paged_list { paged() } else { KEYSET.to_owned() };
        let cap = paged_list.then_some(7);
        let mut provider = Provider { cap, ..Provider::default() };
        let mut state = start(poll(&blocks), T0);
        let mut seen = Seen::new();
        let mut crash = crashes.iter().cycle();
        let mut written = BTreeSet::new();
        for (round_at, edits) in edits.chunks(20).enumerate() {
            let start_ms = T0 + round_at as i64 * 60_000;
            for (at, (id, tick, gone)) in edits.iter().enumerate() {
                let at_ms = start_ms + 10_000 + tick;
                let value = (round_at * 100 + at + 1) as u32;
                let value = if *gone { 0 } else { value };
                provider.records.insert(*id, (at_ms, value, *gone));
                written.insert(*id);
            }
            let now_ms = start_ms + 60_000;
            // A crash forgets that it was due: no more than once a page, so that the walk ends.
            let mut left = 12;
            let gaps = round(&mut state, &mut provider, now_ms, &mut seen, || {
                left -= 1;
                left > 0 && *crash.next().unwrap()
            });
            prop_assert_eq!(gaps, []);
        }
        prop_assert_eq!(seen.len(), written.len());
        for (id, (_, value, gone)) in &provider.records {
            let expected = (*value, *gone);
            prop_assert_eq!(seen.get(&id.to_string()), Some(&expected), "record {}", id);
        }
    }
}
