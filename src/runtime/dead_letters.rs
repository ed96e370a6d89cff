//! Dead letters over all shards: listed, grouped, edited, redriven.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::event::{Surface, parse};
use engine::id::{OperationId, OperationSeq, VShard};
use engine::json::{ObjectWriter, Scratch};
use engine::merge::{Held, Winner};
use engine::refusal::{Code, Refusal};
use engine::shard::{
    Command, CommandReply, DeadCause, DeadFilter, DeadId, DeadLetter, DeadSlice, Resolution,
};
use engine::state::Reason;
use engine::view::{
    AttemptView, DeadLetterDetail, DeadLetterFilter, DeadLetterGroup, DeadLetterGroups,
    DeadLetterView, HeldView, JobKind, JobView, Page,
};

use super::jobs::{Jobs, Work, ended_within};
use super::query::Query;
use super::shards::{Shards, down};
use super::signature::signature;

/// Dead letters that one redrive takes; a name of each is kept, some 32 bytes.
const REDRIVE_MAX: usize = 1_000_000;
/// Groups told apart; more of them is no overview.
const GROUPS_MAX: usize = 1000;
/// Dead letters a second unless a rate is asked for: within what one shard logs in a few
/// milliseconds, so that live traffic does not feel it.
pub(crate) const REDRIVE_RATE: u32 = 1000;
/// How long a request to redrive waits for the end of it.
pub(crate) const REDRIVE_PATIENCE: Duration = Duration::from_secs(10);
/// Rest before what found no room in a log is tried again.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// A page of the oldest dead letters, shard by shard and slice by slice.
pub(crate) async fn page(
    shards: &Shards,
    filter: &DeadLetterFilter,
    skip: usize,
    limit: usize,
) -> Result<Page<DeadLetterView>, Refusal> {
    let wanted = skip.saturating_add(limit).saturating_add(1);
    let mut found: Vec<DeadLetter> = Vec::new();
    each(shards, filter, |letter| {
        found.push(letter);
        // Sorted now and then, so that a long list is never held whole.
        if found.len() >= wanted.saturating_mul(2).max(1024) {
            oldest_first(&mut found);
            found.truncate(wanted);
        }
    })
    .await?;
    oldest_first(&mut found);
    found.truncate(wanted);
    let more = found.len() == wanted;
    let page = found.into_iter().skip(skip).take(limit);
    Ok(Page {
        items: page.map(view).collect(),
        next: more.then(|| (skip + limit).to_string()),
    })
}

/// One dead letter with all that is kept of it.
pub(crate) async fn detail(shards: &Shards, id: &str) -> Result<Option<DeadLetterDetail>, Refusal> {
    let Some((operation, provider)) = parse_id(id) else {
        return Ok(None);
    };
    let id = DeadId::new(operation, provider);
    let shard = shards.shared.router.shard_of(operation.record);
    let letter = shards
        .ask(shard, |reply| Query::DeadLetter { id, reply })
        .await?;
    Ok(letter.map(told_in_full))
}

/// How many a filter names.
pub(crate) async fn count(shards: &Shards, filter: &DeadLetterFilter) -> Result<u64, Refusal> {
    let mut matched = 0;
    if filter.signature.is_some() {
        each(shards, filter, |_| matched += 1).await?;
    } else {
        each_id(shards, &dead_filter(filter), |_, _| matched += 1).await?;
    }
    Ok(matched)
}

/// Those that a filter names, by what they died of.
pub(crate) async fn groups(
    shards: &Shards,
    filter: &DeadLetterFilter,
) -> Result<DeadLetterGroups, Refusal> {
    let mut groups: HashMap<(String, String, String, String), DeadLetterGroup> = HashMap::new();
    let mut others = 0;
    each(shards, filter, |letter| {
        let one = view(letter);
        let signature = signature(&one.detail, &one.record_id);
        let key = (
            one.provider.clone(),
            one.object.clone(),
            one.code.clone(),
            signature.clone(),
        );
        if let Some(group) = groups.get_mut(&key) {
            group.count += 1;
            group.oldest = group.oldest.min(one.dead_at);
            group.newest = group.newest.max(one.dead_at);
        } else if groups.len() < GROUPS_MAX {
            let group = DeadLetterGroup {
                provider: one.provider,
                object: one.object,
                code: one.code,
                signature,
                count: 1,
                example: one.id,
                oldest: one.dead_at,
                newest: one.dead_at,
            };
            groups.insert(key, group);
        } else {
            others += 1;
        }
    })
    .await?;
    let mut groups: Vec<DeadLetterGroup> = groups.into_values().collect();
    groups.sort_by(|a, b| {
        b.count
            .cmp(&a.count)
            .then_with(|| a.example.cmp(&b.example))
    });
    Ok(DeadLetterGroups { groups, others })
}

/// Redrives what a filter names; the job as it stands at its end, or after some seconds.
pub(crate) async fn redrive(
    shards: &Shards,
    jobs: &Jobs,
    filter: &DeadLetterFilter,
    rate: Option<u32>,
) -> Result<JobView, Refusal> {
    let work = jobs.begin(JobKind::Redrive, rate.unwrap_or(REDRIVE_RATE))?;
    let job = work.watch();
    tokio::spawn(redrive_all(
        shards.clone(),
        dead_filter(filter),
        filter.signature.clone(),
        work,
    ));
    Ok(ended_within(job, REDRIVE_PATIENCE).await)
}

/// Redrives what died of a cause that is cleared.
pub(crate) async fn redrive_cause(
    shards: &Shards,
    work: Work,
    account: &str,
    object: Option<&str>,
    cause: DeadCause,
) {
    let filter = DeadFilter {
        provider: Some(account.to_owned()),
        object: object.map(str::to_owned),
        cause: Some(cause),
        ..DeadFilter::default()
    };
    redrive_all(shards.clone(), filter, None, work).await;
}

async fn redrive_all(
    shards: Shards,
    filter: DeadFilter,
    signature: Option<String>,
    mut work: Work,
) {
    let result = redrive_paced(&shards, &filter, signature.as_deref(), &mut work).await;
    work.end(result);
}

async fn redrive_paced(
    shards: &Shards,
    filter: &DeadFilter,
    signature: Option<&str>,
    work: &mut Work,
) -> Result<(), Refusal> {
    let mut ids: Vec<Vec<DeadId>> = vec![Vec::new(); shards.count()];
    let mut matched = 0;
    let mut keep = |shard: usize, id: DeadId| {
        matched += 1;
        if matched <= REDRIVE_MAX {
            ids[shard].push(id);
        }
    };
    match signature {
        None => each_id(shards, filter, &mut keep).await?,
        Some(wanted) => {
            each_letter(shards, filter, |shard, letter| {
                let id = DeadId::new(letter.id, &letter.account);
                if signature_of(&letter) == wanted {
                    keep(shard, id);
                }
            })
            .await?;
        }
    }
    work.matched(matched);
    if matched > REDRIVE_MAX {
        work.say(format!(
            "the first {REDRIVE_MAX} of them; ask again for the rest"
        ));
    }
    for (shard, ids) in ids.into_iter().enumerate() {
        let mut left = ids.as_slice();
        while !left.is_empty() {
            let Some(slice) = work.next_slice().await else {
                return Ok(());
            };
            let part = left[..slice.min(left.len())].to_vec();
            let through = advance(shards, shard, Command::Redrive(part), work).await?;
            left = &left[through..];
        }
    }
    Ok(())
}

/// Has a shard work on a list, and counts it; how far it came.
pub(crate) async fn advance(
    shards: &Shards,
    shard: usize,
    command: Command,
    work: &Work,
) -> Result<usize, Refusal> {
    match shards.command(shard, command).await? {
        CommandReply::Partly { through, done } => {
            work.advance(through, done);
            if through == 0 {
                tokio::time::sleep(ROOM_PAUSE).await;
            }
            Ok(through)
        }
        CommandReply::Done { .. } | CommandReply::Unavailable => Err(down()),
    }
}

/// Gives a dead letter other data, checked as an event's is at intake.
pub(crate) async fn edit(
    shards: &Shards,
    id: &str,
    data: &str,
) -> Result<Option<DeadLetterDetail>, Refusal> {
    let Some(letter) = detail(shards, id).await? else {
        return Ok(None);
    };
    let event = event_of(&letter, data);
    let router = &shards.shared.router;
    let checked = router.with_defaults(|defaults| {
        let mut scratch = Scratch::new();
        let event = parse(&event, &mut scratch, defaults, Surface::Http)?;
        let data = event.data.ok_or_else(|| {
            Refusal::at(Code::InvalidField, "/data", "this operation takes no data")
        })?;
        if let Some(schema) = router.schemas.get(&*event.object) {
            schema.check(&event)?;
        }
        Ok::<String, Refusal>(data.text().to_owned())
    })?;
    let Some((operation, provider)) = parse_id(id) else {
        return Ok(None);
    };
    let shard = shards.shared.router.shard_of(operation.record);
    let command = Command::Edit(DeadId::new(operation, provider), checked);
    match shards.command(shard, command).await? {
        CommandReply::Done { matched: 0 } => Ok(None),
        _ => {
            tracing::info!(dead_letter = id, "a dead letter was edited");
            detail(shards, id).await
        }
    }
}

/// Redrives one at once; false when it is there no more.
pub(crate) async fn redrive_one(shards: &Shards, id: &str) -> Result<bool, Refusal> {
    let Some((operation, provider)) = parse_id(id) else {
        return Ok(false);
    };
    let shard = shards.shared.router.shard_of(operation.record);
    let ids = vec![DeadId::new(operation, provider)];
    match shards.command(shard, Command::Redrive(ids)).await? {
        CommandReply::Partly { through: 0, .. } => Err(Refusal::new(
            Code::Overloaded,
            "the log has no room; try again later",
        )),
        CommandReply::Partly { done, .. } => Ok(done > 0),
        CommandReply::Done { .. } | CommandReply::Unavailable => Err(down()),
    }
}

/// A dead letter is an operation at one account.
pub(crate) fn parse_id(id: &str) -> Option<(OperationId, &str)> {
    let (operation, provider) = id.split_once('@')?;
    Some((operation.parse().ok()?, provider))
}

pub(crate) fn dead_filter(filter: &DeadLetterFilter) -> DeadFilter {
    DeadFilter {
        provider: filter.provider.clone(),
        object: filter.object.clone(),
        record_id: filter.record_id.clone(),
        code: filter.code.clone(),
        ..DeadFilter::default()
    }
}

async fn each(
    shards: &Shards,
    filter: &DeadLetterFilter,
    mut visit: impl FnMut(DeadLetter),
) -> Result<(), Refusal> {
    let wanted = filter.signature.as_deref();
    each_letter(shards, &dead_filter(filter), |_, letter| {
        if wanted.is_none_or(|wanted| signature_of(&letter) == wanted) {
            visit(letter);
        }
    })
    .await
}

async fn each_letter(
    shards: &Shards,
    filter: &DeadFilter,
    mut visit: impl FnMut(usize, DeadLetter),
) -> Result<(), Refusal> {
    for shard in 0..shards.count() {
        let mut from: Option<VShard> = None;
        loop {
            let filter = filter.clone();
            let slice: DeadSlice<DeadLetter> = shards
                .ask(shard, |reply| Query::DeadLetters {
                    filter,
                    from,
                    reply,
                })
                .await?;
            slice
                .items
                .into_iter()
                .for_each(|letter| visit(shard, letter));
            from = slice.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(())
}

async fn each_id(
    shards: &Shards,
    filter: &DeadFilter,
    mut visit: impl FnMut(usize, DeadId),
) -> Result<(), Refusal> {
    for shard in 0..shards.count() {
        let mut from: Option<VShard> = None;
        loop {
            let filter = filter.clone();
            let slice: DeadSlice<DeadId> = shards
                .ask(shard, |reply| Query::DeadIds {
                    filter,
                    from,
                    reply,
                })
                .await?;
            slice.items.into_iter().for_each(|id| visit(shard, id));
            from = slice.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(())
}

fn oldest_first(letters: &mut [DeadLetter]) {
    letters.sort_by(|a, b| {
        a.dead_at_ms
            .cmp(&b.dead_at_ms)
            .then_with(|| a.id.seq.cmp(&b.id.seq))
            .then_with(|| a.account.cmp(&b.account))
    });
}

fn last_words(letter: &DeadLetter) -> &str {
    letter
        .attempts
        .last()
        .map_or("", |attempt| attempt.detail.as_str())
}

fn signature_of(letter: &DeadLetter) -> String {
    signature(last_words(letter), &letter.record_id)
}

fn view(letter: DeadLetter) -> DeadLetterView {
    DeadLetterView {
        id: format!("{}@{}", letter.id, letter.account),
        detail: last_words(&letter).to_owned(),
        record_id: letter.record_id,
        object: letter.object,
        provider: letter.account,
        operation_id: letter.id.to_string(),
        code: letter.code.map_or("unknown", Reason::as_str).to_owned(),
        attempts: letter.attempts.len() as u32,
        dead_at: letter.dead_at_ms,
        held: letter.held.into_iter().map(held).collect(),
    }
}

fn held((field, held): (String, Held)) -> HeldView {
    HeldView {
        field,
        system_a: held.ours,
        provider: held.theirs,
        since: held.since_ms,
    }
}

/// Says whose values stand in a conflict; how many fields that was.
pub(crate) async fn resolve(
    shards: &Shards,
    id: &str,
    fields: Option<Vec<String>>,
    winner: Winner,
) -> Result<u64, Refusal> {
    let Some((operation, provider)) = parse_id(id) else {
        return Ok(0);
    };
    let router = &shards.shared.router;
    let seq = router
        .next_seq
        .fetch_add(OperationSeq::STEP, Ordering::Relaxed);
    let resolution = Resolution {
        id: operation,
        account: provider.into(),
        fields,
        winner,
        seq: OperationSeq(seq),
    };
    let shard = router.shard_of(operation.record);
    match shards.command(shard, Command::Resolve(resolution)).await? {
        CommandReply::Done { matched } => Ok(matched as u64),
        CommandReply::Partly { .. } | CommandReply::Unavailable => Err(down()),
    }
}

fn told_in_full(letter: DeadLetter) -> DeadLetterDetail {
    let signature = signature_of(&letter);
    let attempts = letter.attempts.iter().map(|attempt| AttemptView {
        at: attempt.at_ms,
        status: (attempt.status > 0).then_some(attempt.status),
        class: attempt.class,
        detail: attempt.detail.clone(),
    });
    DeadLetterDetail {
        operation: letter.operation,
        accepted_at: letter.accepted_at_ms,
        data: String::from_utf8(letter.data.clone())
            .ok()
            .filter(|data| !data.is_empty()),
        attempts: attempts.collect(),
        signature,
        rules_version: letter.rules_version,
        mapping_version: letter.mapping_version,
        letter: view(letter),
    }
}

/// The event that a dead letter would be with other data.
fn event_of(letter: &DeadLetterDetail, data: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut event = ObjectWriter::open(&mut out);
    event.text("operation", letter.operation);
    event.text("object", &letter.letter.object);
    event.text("record_id", &letter.letter.record_id);
    event.raw("data", data);
    event.close();
    out
}
