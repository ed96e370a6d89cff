use engine::view::{
    AccountOutlook, AccountView, AuthState, ConsumerView, LimitStatus, OpenOperations,
};

use super::*;

fn metrics() -> Metrics {
    Metrics::new(vec!["crm".into(), "odd\"name".into()])
}

fn consumer() -> ConsumerView {
    ConsumerView {
        name: "billing".into(),
        objects: None,
        connected: true,
        unacked: 3,
        acked: 9,
        lag_ms: 2_500,
    }
}

fn level() -> AccountStatus {
    AccountStatus {
        account: AccountView {
            name: "crm".into(),
            definition: "rest".into(),
            base_url: None,
            fold: true,
            max_in_flight: 1,
            timeout_ms: 1,
        },
        paused: false,
        breaker: BreakerState::Open,
        auth: AuthState::None,
        open: OpenOperations {
            queued: 3,
            ..OpenOperations::default()
        },
        dead_letters: 2,
        limits: vec![LimitStatus {
            name: "burst".into(),
            limit: 100,
            used: 25,
            window_ms: 1,
            used_up_at: Some(1_500),
            ..LimitStatus::default()
        }],
        outlook: AccountOutlook {
            drained_at: Some(2_000),
            ..AccountOutlook::default()
        },
    }
}

#[track_caller]
fn assert_line(text: &str, line: &str) {
    assert!(
        text.lines().any(|found| found == line),
        "no line {line:?} in:\n{text}"
    );
}

#[test]
fn every_fixed_name_is_rendered_with_its_labels() {
    let metrics = metrics();
    let crm = metrics.account("crm").unwrap();
    let odd = metrics.account("odd\"name").unwrap();
    let mut writer = metrics.writer();
    writer.events_accepted(5);
    writer.events_rejected(Code::MissingField, 2);
    writer.operations(crm, Operation::Update, State::Synced, 1);
    writer.operations(crm, Operation::Update, State::Queued, 1);
    writer.call(crm, CallClass::Done, Duration::from_millis(3), 200);
    writer.call(odd, CallClass::Throttled, Duration::from_secs(400), 1);
    writer.end_to_end(Duration::from_millis(500));
    writer.wal_commit(Duration::from_micros(50));
    let text = metrics.render(&[level()], &[consumer()]);
    for line in [
        "syncline_events_accepted_total 5",
        "syncline_events_rejected_total{code=\"missing_field\"} 2",
        "syncline_operations_total{provider=\"crm\",operation=\"UPDATE\",outcome=\"synced\"} 1",
        "syncline_operations_open{provider=\"crm\",state=\"queued\"} 3",
        "syncline_calls_total{provider=\"crm\",class=\"done\"} 1",
        "syncline_calls_total{provider=\"odd\\\"name\",class=\"throttled\"} 1",
        "syncline_call_seconds_bucket{le=\"0.0025\"} 0",
        "syncline_call_seconds_bucket{le=\"0.005\"} 1",
        "syncline_call_seconds_bucket{le=\"300\"} 1",
        "syncline_call_seconds_bucket{le=\"+Inf\"} 2",
        "syncline_call_seconds_sum 400.003",
        "syncline_call_seconds_count 2",
        "syncline_end_to_end_seconds_bucket{le=\"0.5\"} 1",
        "syncline_wal_commit_seconds_bucket{le=\"0.00005\"} 1",
        "syncline_records_per_call_bucket{le=\"1\"} 1",
        "syncline_records_per_call_bucket{le=\"100\"} 1",
        "syncline_records_per_call_bucket{le=\"200\"} 2",
        "syncline_records_per_call_sum 201",
        "syncline_limit_used_ratio{provider=\"crm\",limit=\"burst\"} 0.25",
        "syncline_dead_letters{provider=\"crm\"} 2",
        "syncline_breaker_state{provider=\"crm\"} 2",
        "# TYPE syncline_wal_commit_seconds histogram",
    ] {
        assert_line(&text, line);
    }
    assert!(
        !text.contains("UPSERT"),
        "what never happened has no series"
    );
}

#[test]
fn a_scrape_adds_up_all_threads_and_loses_none_that_ended() {
    let metrics = metrics();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mut writer = metrics.writer();
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    writer.events_accepted(2);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_line(
        &metrics.render(&[], &[]),
        "syncline_events_accepted_total 8000",
    );
}

#[test]
fn a_thread_that_comes_back_writes_on_where_another_ended() {
    let metrics = metrics();
    for _ in 0..100 {
        metrics.writer().events_accepted(1);
    }
    let (mut one, mut other) = (metrics.writer(), metrics.writer());
    one.events_accepted(1);
    other.events_accepted(1);
    assert_eq!(metrics.all_cells().len(), 2, "as many as wrote at once");
    assert_line(
        &metrics.render(&[], &[]),
        "syncline_events_accepted_total 102",
    );
}

#[test]
fn no_two_counts_share_a_cell() {
    let layout = Layout::new(2);
    let mut cells: Vec<usize> = vec![layout.accepted()];
    cells.extend(Code::ALL.iter().map(|code| layout.rejected(*code)));
    cells.extend(
        HistogramKind::ALL
            .into_iter()
            .flat_map(|kind| layout.histogram(kind)),
    );
    for account in [AccountLabel(0), AccountLabel(1)] {
        for operation in Operation::ALL {
            for outcome in cells::OUTCOMES {
                cells.extend(layout.operation(account, operation, outcome));
            }
        }
        cells.extend(
            CallClass::ALL
                .into_iter()
                .map(|class| layout.call(account, class)),
        );
        let webhooks = WebhookResult::ALL.into_iter();
        cells.extend(webhooks.map(|result| layout.webhook(account, result)));
        let polls = PollResult::ALL.into_iter();
        cells.extend(polls.map(|result| layout.poll(account, result)));
        let winners = cells::WINNERS.into_iter();
        cells.extend(winners.map(|winner| layout.conflict(account, winner)));
    }
    cells.sort_unstable();
    assert_eq!(cells, (0..layout.len()).collect::<Vec<_>>());
}
