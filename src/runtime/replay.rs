//! What was sent in a span of time, sent once more: found first, then at a rate.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::id::{OperationSeq, RecordHash};
use engine::refusal::{Code, Refusal};
use engine::shard::{Command, ReplaySpan};
use engine::view::{JobKind, JobView, ReplayCount, ReplayRequest};

use super::dead_letters::advance;
use super::jobs::{Jobs, Work};
use super::query::Query;
use super::shards::Shards;

/// Records that one replay takes; 8 bytes of each are kept.
const RECORDS_MAX: usize = 4_000_000;
/// Records a second unless a rate is asked for: the queue stays short enough for live changes.
const REPLAY_RATE: u32 = 100;

/// How many records a replay would send.
pub(crate) async fn count(
    shards: &Shards,
    request: &ReplayRequest,
) -> Result<ReplayCount, Refusal> {
    let span = span(shards, request)?;
    let found = find(shards, &span).await?;
    Ok(ReplayCount {
        matched: found.matched as u64,
        not_kept: found.cut,
    })
}

/// Begins a replay.
pub(crate) fn start(
    shards: &Shards,
    jobs: &Jobs,
    request: &ReplayRequest,
) -> Result<JobView, Refusal> {
    let span = span(shards, request)?;
    let work = jobs.begin(JobKind::Replay, request.rate.unwrap_or(REPLAY_RATE))?;
    let view = work.watch().borrow().clone();
    tracing::info!(
        job = view.id,
        provider = request.provider,
        object = request.object,
        from_ms = request.from,
        to_ms = request.to,
        rate = view.rate,
        "a replay begins"
    );
    tokio::spawn(run(shards.clone(), span, work));
    Ok(view)
}

async fn run(shards: Shards, span: ReplaySpan, mut work: Work) {
    let result = send(&shards, &span, &mut work).await;
    work.end(result);
}

async fn send(shards: &Shards, span: &ReplaySpan, work: &mut Work) -> Result<(), Refusal> {
    let found = find(shards, span).await?;
    work.matched(found.matched);
    let mut notes = Vec::new();
    if found.cut > 0 {
        notes.push(format!(
            "of {} records the log does not keep all that was written then",
            found.cut
        ));
    }
    if found.matched > RECORDS_MAX {
        notes.push(format!("only the first {RECORDS_MAX} records are sent"));
    }
    if !notes.is_empty() {
        work.say(notes.join("; "));
    }
    let span = Arc::new(span.clone());
    let next_seq = &shards.shared.router.next_seq;
    for (shard, records) in found.records.into_iter().enumerate() {
        let mut left = records.as_slice();
        while !left.is_empty() {
            let Some(slice) = work.next_slice().await else {
                return Ok(());
            };
            let part = &left[..slice.min(left.len())];
            let numbers = part.len() as u64 * OperationSeq::STEP;
            let first = next_seq.fetch_add(numbers, Ordering::Relaxed);
            let numbered = part
                .iter()
                .zip((first..).step_by(OperationSeq::STEP as usize))
                .map(|(&record, seq)| (record, OperationSeq(seq)));
            let command = Command::Replay {
                span: span.clone(),
                records: numbered.collect(),
            };
            let through = advance(shards, shard, command, work).await?;
            left = &left[through..];
        }
    }
    Ok(())
}

/// Records of a span, by shard.
struct Found {
    records: Vec<Vec<RecordHash>>,
    matched: usize,
    cut: u64,
}

async fn find(shards: &Shards, span: &ReplaySpan) -> Result<Found, Refusal> {
    let mut found = Found {
        records: vec![Vec::new(); shards.count()],
        matched: 0,
        cut: 0,
    };
    for shard in 0..shards.count() {
        let mut from = None;
        loop {
            let span = span.clone();
            let slice = shards
                .ask(shard, |reply| Query::ChangedIn { span, from, reply })
                .await?;
            let room = RECORDS_MAX.saturating_sub(found.matched);
            found.matched += slice.records.len();
            found.cut += slice.cut;
            found.records[shard].extend(slice.records.into_iter().take(room));
            from = slice.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(found)
}

fn span(shards: &Shards, request: &ReplayRequest) -> Result<ReplaySpan, Refusal> {
    let routes = shards.shared.router.routes();
    let account = routes
        .accounts
        .iter()
        .find(|account| ***account == *request.provider);
    let account = account.ok_or_else(|| {
        let detail = "no account of this name is configured";
        Refusal::at(Code::UnknownProvider, "/provider", detail)
    })?;
    if request.from >= request.to {
        let detail = "`to` is not after `from`";
        return Err(Refusal::at(Code::InvalidField, "/to", detail));
    }
    if request.rate == Some(0) {
        let detail = "a rate is at least one a second";
        return Err(Refusal::at(Code::InvalidField, "/rate", detail));
    }
    Ok(ReplaySpan {
        account: account.clone(),
        object: request.object.clone(),
        from_ms: request.from,
        to_ms: request.to,
    })
}
