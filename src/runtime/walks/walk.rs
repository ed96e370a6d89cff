//! One walk, from its beginning or from where a restart cut it off.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use engine::json::RawObject;
use engine::provider::{Change, ChangeKind, Cursor};
use engine::refusal::Refusal;
use engine::shard::{
    Command, CommandReply, Comparison, LinkFilter, LinkRow, Listed, SYSTEM_A, provisional_id,
};
use engine::view::PageRequest;
use postgres::TableRow;
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

use super::super::inbound::{InboundSink, LAG_MS, Via};
use super::super::query::Query;
use super::super::shards::down;
use super::kept::{Cause, Kept, KeptCursor, Phase, Purpose, Tally};
use super::listing::{ListedPage, Listing, Unlisted};
use super::report::Finding;
use super::rows::{Names, ROWS_AT_ONCE, RowEvents, by_shard};
use super::spare::Spare;
use super::{Parts, Place};

/// Records seen in a list, at 8 bytes each: beyond, nobody says what is absent from it.
const SEEN_MAX: usize = 16_000_000;
/// Absent records that one walk looks at.
const ABSENT_TOLD_MAX: usize = 100_000;
/// Absent records that are read at once.
const ABSENT_AT_ONCE: usize = 100;
/// As few absent records as these are no sign that the list is wrong.
const ABSENT_FREE: usize = 10;
/// Operations that wait for the account or for System A while a walk hands in no more.
const BACKLOG_MAX: u64 = 1_000;
/// Between two looks at what waits, and after a refusal that time can cure.
const REST: Duration = Duration::from_millis(250);

/// Why a walk ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// An operator cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// The account's list cannot be read.
    #[error(transparent)]
    List(#[from] Unlisted),
    /// The engine takes nothing.
    #[error(transparent)]
    Down(#[from] Refusal),
    /// System A's rows cannot be read.
    #[error("System A's rows cannot be read")]
    Rows(#[from] postgres::Error),
    /// How far it is cannot be kept.
    #[error("how far the walk is cannot be written")]
    Unkept(#[source] std::io::Error),
    /// Something it was begun with is not configured any more.
    #[error("{0}")]
    Unknown(&'static str),
}

/// A walk under way.
pub(super) struct Walk {
    parts: Arc<Parts>,
    /// As it is kept; written with each step.
    kept: Kept,
    names: Names,
    spare: Spare,
    /// Hashes of the remote ids that were listed.
    seen: HashSet<u64>,
    overflowed: bool,
}

impl Walk {
    pub(super) fn new(parts: Arc<Parts>, kept: Kept) -> Walk {
        Walk {
            names: Names {
                account: kept.account.as_str().into(),
                object: kept.object.as_str().into(),
            },
            spare: Spare::new(parts.clone(), &kept.id, &kept.account, kept.share),
            parts,
            kept,
            seen: HashSet::new(),
            overflowed: false,
        }
    }

    /// Walks to the end; what there is to say of it.
    pub(super) async fn run(mut self) -> Result<Option<String>, Stopped> {
        let mut notes: Vec<String> = Vec::new();
        let place = self.parts.place(&self.names.account, &self.names.object)?;
        // What was seen lives in memory: who needs it begins anew.
        if self.wants_absent() {
            self.kept.phase = Phase::Listing;
            (self.kept.cursor, self.kept.row) = (None, None);
            self.kept.tally = Tally::default();
        }
        if self.kept.phase == Phase::Listing {
            if place.comes_in {
                self.list(&place, &mut notes).await?;
            }
            self.enter(Phase::Absent).await?;
        }
        if self.kept.phase == Phase::Absent {
            if self.wants_absent() && place.comes_in {
                self.look_for_absent(&mut notes).await?;
            }
            self.enter(Phase::Rows).await?;
        }
        if self.kept.purpose != Purpose::Resync {
            self.read_rows(&place, &mut notes).await?;
        }
        self.keep().await?;
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    fn wants_absent(&self) -> bool {
        self.kept.purpose != Purpose::Backfill
    }

    fn repairs(&self) -> bool {
        self.kept.purpose != Purpose::Reconcile || self.kept.repair
    }

    async fn enter(&mut self, phase: Phase) -> Result<(), Stopped> {
        self.kept.phase = phase;
        self.keep().await
    }

    async fn keep(&mut self) -> Result<(), Stopped> {
        match self.parts.ledger.keep(&self.kept).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stopped::Cancelled),
            Err(source) => Err(Stopped::Unkept(source)),
        }
    }

    /// Reads the account's list and takes or compares what it shows.
    async fn list(&mut self, place: &Place, notes: &mut Vec<String>) -> Result<(), Stopped> {
        let cursor = self.kept.cursor.clone().map(|cursor| Cursor {
            from_ms: cursor.from_ms,
            after_id: cursor.after_id,
        });
        let mut listing = Listing::new(
            self.names.account.clone(),
            place.base_url.clone(),
            place.list.clone(),
            self.parts.fetcher.clone(),
            cursor,
        );
        let mut unreadable = 0;
        loop {
            let Some(mut page) = listing.next(&self.spare).await? else {
                break;
            };
            if let Some(mark) = &place.mark {
                page.heed(mark);
            }
            self.see(&page);
            if self.kept.purpose == Purpose::Reconcile {
                self.compare(place, &page).await?;
            } else {
                self.take(page.asked_ms, page.changes.clone()).await?;
            }
            unreadable += page.unreadable;
            if let Some(gap) = page.gap {
                notes.push(format!("some of the list cannot be had: {gap:?}"));
            }
            listing.pass(page).await;
            self.kept.cursor = Some(KeptCursor {
                from_ms: listing.cursor().from_ms,
                after_id: listing.cursor().after_id.clone(),
            });
            self.keep().await?;
        }
        if unreadable > 0 {
            notes.push(format!(
                "{unreadable} entries of the list are not understood"
            ));
        }
        Ok(())
    }

    /// Remembers what is there.
    fn see(&mut self, page: &ListedPage) {
        self.kept.tally.listed += page.changes.len() as u64;
        if !self.wants_absent() {
            return;
        }
        for change in &page.changes {
            let hash = xxh3_64(change.remote_id.as_bytes());
            if exists(change) {
                self.seen.insert(hash);
            } else {
                self.seen.remove(&hash);
            }
        }
        self.overflowed |= self.seen.len() > SEEN_MAX;
    }

    /// Hands changes in, when what waits is little.
    async fn take(&mut self, asked_ms: i64, changes: Vec<Change>) -> Result<(), Stopped> {
        if changes.is_empty() {
            return Ok(());
        }
        self.backlog_is_small().await?;
        let count = changes.len() as u64;
        let via = Via::Walk { asked_ms };
        loop {
            let sink = &self.parts.sink;
            match sink.take(&self.names.account, via, changes.clone()).await {
                Ok(_) => break,
                Err(refusal) if refusal.code.retry() => sleep(REST).await,
                Err(refusal) => return Err(refusal.into()),
            }
        }
        self.kept.tally.taken += count;
        Ok(())
    }

    async fn backlog_is_small(&mut self) -> Result<(), Stopped> {
        loop {
            let mut waits = 0;
            for shard in 0..self.parts.shards.count() {
                let ask = self
                    .parts
                    .shards
                    .ask(shard, |reply| Query::Counts { reply });
                let counts = ask.await?.into_iter();
                let ours =
                    counts.filter(|(name, _)| *name == *self.names.account || name == SYSTEM_A);
                waits += ours.map(|(_, counts)| counts.open).sum::<u64>();
            }
            if waits < BACKLOG_MAX {
                return Ok(());
            }
            if !self.parts.ledger.is_running(&self.kept.id) {
                return Err(Stopped::Cancelled);
            }
            sleep(REST).await;
        }
    }

    /// Compares a page with what is held, and hands in what differs, if it is to be repaired.
    async fn compare(&mut self, place: &Place, page: &ListedPage) -> Result<(), Stopped> {
        let there = page.changes.iter().filter(|change| is_there(change));
        let there: Vec<&Change> = there
            .filter(|change| self.is_sampled(&change.remote_id))
            .collect();
        let owners = self.owners(place, &there).await?;
        let mut listed: Vec<Vec<(usize, Listed)>> = vec![Vec::new(); self.parts.shards.count()];
        let mut found: Vec<Option<Comparison>> = vec![None; there.len()];
        for (at, (change, owner)) in there.iter().zip(&owners).enumerate() {
            let (Some(record_id), Some(fields)) = (owner, &change.fields) else {
                continue;
            };
            let one = Listed {
                record_id: record_id.clone(),
                remote_id: change.remote_id.clone(),
                fields: fields.clone(),
                changed_at_ms: change.occurred_at_ms.unwrap_or(page.asked_ms),
                read_at_ms: page.asked_ms - LAG_MS,
            };
            listed[self.parts.shards.owner_of(record_id)].push((at, one));
        }
        for (shard, some) in listed
            .into_iter()
            .enumerate()
            .filter(|(_, some)| !some.is_empty())
        {
            let (places, listed): (Vec<usize>, Vec<Listed>) = some.into_iter().unzip();
            let Names { account, object } = self.names.clone();
            let ask = self.parts.shards.ask(shard, |reply| Query::Compare {
                account,
                object,
                listed,
                reply,
            });
            for (place, comparison) in places.into_iter().zip(ask.await?) {
                found[place] = Some(comparison);
            }
        }
        let mut repairs = Vec::new();
        for ((change, owner), comparison) in there.iter().zip(&owners).zip(found) {
            let finding = Finding::of(comparison.unwrap_or_default(), Cause::MissingHere);
            let tally = &mut self.kept.tally;
            tally.count(&finding, owner.as_deref(), Some(&change.remote_id));
            if finding.can_be_repaired() && self.may_repair(repairs.len()) {
                repairs.push((*change).clone());
            }
        }
        self.kept.tally.repaired += repairs.len() as u64;
        self.take(page.asked_ms, repairs).await
    }

    fn may_repair(&self, underway: usize) -> bool {
        let repaired = self.kept.tally.repaired + underway as u64;
        self.repairs() && repaired < self.kept.repairs_max
    }

    fn is_sampled(&self, id: &str) -> bool {
        // The upper half: the lower one places records in the set of those seen.
        let hash = xxh3_64(id.as_bytes()) >> 32;
        hash as f64 <= self.kept.sample * f64::from(u32::MAX)
    }

    /// Whose the listed records are: as the log knows, else as their key fields say.
    async fn owners(
        &self,
        place: &Place,
        there: &[&Change],
    ) -> Result<Vec<Option<String>>, Stopped> {
        let shards = &self.parts.shards;
        let mut asked: Vec<Vec<usize>> = vec![Vec::new(); shards.count()];
        for (at, change) in there.iter().enumerate() {
            let provisional = provisional_id(&self.names.account, &change.remote_id);
            asked[shards.owner_of(&provisional)].push(at);
        }
        let mut owners = vec![None; there.len()];
        for (shard, places) in asked
            .into_iter()
            .enumerate()
            .filter(|(_, it)| !it.is_empty())
        {
            let ids = places.iter().map(|&at| there[at].remote_id.clone());
            let remote_ids = ids.collect();
            let Names { account, object } = self.names.clone();
            let ask = shards.ask(shard, |reply| Query::Whose {
                account,
                object,
                remote_ids,
                reply,
            });
            for (at, owner) in places.into_iter().zip(ask.await?) {
                owners[at] = owner.or_else(|| key_of(there[at], place.key.as_deref()?));
            }
        }
        Ok(owners)
    }

    /// Looks at links whose records were not listed. Each is read before anything follows from it.
    async fn look_for_absent(&mut self, notes: &mut Vec<String>) -> Result<(), Stopped> {
        if self.overflowed {
            notes.push("the list is too long to say what is absent from it".to_owned());
            return Ok(());
        }
        let filter = LinkFilter {
            object: Some(self.kept.object.clone()),
            account: Some(self.kept.account.clone()),
        };
        let mut page = PageRequest {
            limit: ROWS_AT_ONCE,
            after: None,
        };
        let mut absent: Vec<String> = Vec::new();
        let mut linked = 0;
        loop {
            let links = self.parts.links.page(&filter, &page).await?;
            for link in links.items {
                if !self.is_sampled(&link.remote_id) {
                    continue;
                }
                linked += 1;
                let listed = self.seen.contains(&xxh3_64(link.remote_id.as_bytes()));
                if listed || link.waits {
                    continue;
                }
                self.count_missing(Cause::MissingThere, &link);
                if absent.len() < ABSENT_TOLD_MAX {
                    absent.push(link.remote_id);
                }
            }
            page.after = links.next;
            if page.after.is_none() {
                break;
            }
        }
        if absent.is_empty() || !self.repairs() {
            return Ok(());
        }
        let bound = self.kept.absent_max * linked as f64;
        if absent.len() > ABSENT_FREE && absent.len() as f64 > bound {
            notes.push(format!(
                "{} of {linked} linked records are absent from the list, more than {:.0} %: none of them is touched",
                self.kept.tally.missing_there,
                self.kept.absent_max * 100.0,
            ));
            return Ok(());
        }
        for some in absent.chunks(ABSENT_AT_ONCE) {
            let left = self
                .kept
                .repairs_max
                .saturating_sub(self.kept.tally.repaired);
            let some = &some[..some.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            if some.is_empty() {
                break;
            }
            self.spare.wait().await;
            let reads = some.iter().map(|remote_id| self.to_be_read(remote_id));
            let reads = reads.collect();
            self.take(0, reads).await?;
            self.kept.tally.repaired += some.len() as u64;
            self.keep().await?;
        }
        Ok(())
    }

    fn count_missing(&mut self, cause: Cause, link: &LinkRow) {
        let finding = Finding {
            cause: Some(cause),
            fields: Vec::new(),
        };
        let tally = &mut self.kept.tally;
        tally.count(&finding, Some(&link.record_id), Some(&link.remote_id));
    }

    /// Tells linked records of which System A has no row. Nothing follows from it: the row may never
    /// have been written, and its record must not go for that.
    async fn look_for_missing_rows(&mut self, keys: &HashSet<u64>) -> Result<(), Stopped> {
        let filter = LinkFilter {
            object: Some(self.kept.object.clone()),
            account: Some(self.kept.account.clone()),
        };
        let mut page = PageRequest {
            limit: ROWS_AT_ONCE,
            after: None,
        };
        loop {
            let links = self.parts.links.page(&filter, &page).await?;
            for link in links.items {
                let has_row = keys.contains(&xxh3_64(link.record_id.as_bytes()));
                if !has_row && !link.waits && self.is_sampled(&link.record_id) {
                    self.count_missing(Cause::MissingRow, &link);
                }
            }
            page.after = links.next;
            if page.after.is_none() {
                return Ok(());
            }
        }
    }

    /// Word that a record is to be read.
    fn to_be_read(&self, remote_id: &str) -> Change {
        let place = self.parts.place(&self.names.account, &self.names.object);
        Change {
            object: place.map(|place| place.remote).unwrap_or_default(),
            remote_id: remote_id.to_owned(),
            kind: ChangeKind::Changed,
            occurred_at_ms: None,
            fields: None,
            version: None,
            complete: false,
            delivery_id: String::new(),
        }
    }

    /// Reads System A's rows, where it is a database.
    async fn read_rows(&mut self, place: &Place, notes: &mut Vec<String>) -> Result<(), Stopped> {
        let Some(rows) = self
            .parts
            .rows
            .clone()
            .filter(|it| it.has(&self.names.object))
        else {
            let note = match self.kept.purpose {
                Purpose::Backfill if place.goes_out => {
                    "System A has no table to read: send its records"
                }
                Purpose::Reconcile => {
                    "System A has no table to read: what both sides agreed on stands for it"
                }
                _ => return Ok(()),
            };
            notes.push(note.to_owned());
            return Ok(());
        };
        if self.kept.purpose == Purpose::Backfill && !place.goes_out {
            return Ok(());
        }
        let mut unreadable = 0;
        let mut refused = 0;
        let mut keys = HashSet::new();
        let mut pages = rows.open(&self.names.object, self.kept.row.clone()).await?;
        while let Some(open) = &mut pages {
            let page = open.next(ROWS_AT_ONCE).await?;
            unreadable += page.unreadable.len();
            let object = &*self.names.object;
            let kept = rows.kept(object, &page.rows);
            self.kept.tally.rows += kept.len() as u64;
            if keys.len() < SEEN_MAX {
                keys.extend(kept.iter().map(|row| xxh3_64(row.key.as_bytes())));
            }
            self.spare.wait().await;
            refused += match self.kept.purpose {
                Purpose::Reconcile => self.compare_rows(&kept).await?,
                _ => self.fill(&kept).await?,
            };
            self.kept.row = open.after().map(str::to_owned);
            self.keep().await?;
            if page.is_last {
                break;
            }
        }
        if let Some(open) = pages {
            open.close().await;
        }
        if self.kept.purpose == Purpose::Reconcile && keys.len() < SEEN_MAX {
            self.look_for_missing_rows(&keys).await?;
        }
        if unreadable > 0 {
            notes.push(format!("{unreadable} rows cannot be told"));
        }
        if refused > 0 {
            notes.push(format!("{refused} rows were refused by a rule or a schema"));
        }
        Ok(())
    }

    /// Tells the account rows that it was never told of; how many were refused.
    async fn fill(&mut self, rows: &[TableRow]) -> Result<u64, Stopped> {
        self.backlog_is_small().await?;
        let parts = self.parts.clone();
        let router = &parts.shards.shared.router;
        let Names { account, object } = self.names.clone();
        let mut refused = 0;
        for (shard, places) in self.rows_by_shard(rows).into_iter().enumerate() {
            let own: Vec<TableRow> = places.iter().map(|&at| rows[at].clone()).collect();
            while !own.is_empty() {
                let mut events = RowEvents::of(router, &account, &object, &own);
                let batch = std::mem::take(&mut events.batches[shard]);
                let count = batch.len();
                let told = self.parts.shards.command(shard, Command::Fill(batch));
                let CommandReply::Partly { through, done } = told.await? else {
                    return Err(down().into());
                };
                self.kept.tally.taken += done as u64;
                if through == count {
                    refused += events.refused;
                    break;
                }
                // The log has no room now. What it took is known from here on, so that all may be
                // given once more.
                self.keep().await?;
                sleep(REST).await;
            }
        }
        Ok(refused)
    }

    async fn compare_rows(&mut self, rows: &[TableRow]) -> Result<u64, Stopped> {
        let mut changed: Vec<TableRow> = Vec::new();
        let mut unlinked: Vec<TableRow> = Vec::new();
        for (shard, places) in self.rows_by_shard(rows).into_iter().enumerate() {
            let sampled = places
                .into_iter()
                .filter(|&at| self.is_sampled(&rows[at].key));
            let places: Vec<usize> = sampled.collect();
            if places.is_empty() {
                continue;
            }
            let texts = places
                .iter()
                .map(|&at| (rows[at].key.clone(), rows[at].data.clone()));
            let texts = texts.collect();
            let Names { account, object } = self.names.clone();
            let ask = self.parts.shards.ask(shard, |reply| Query::CompareRows {
                account,
                object,
                rows: texts,
                reply,
            });
            for (at, comparison) in places.into_iter().zip(ask.await?) {
                let finding = Finding::of(comparison, Cause::Unlinked);
                self.kept.tally.count(&finding, Some(&rows[at].key), None);
                let underway = changed.len() + unlinked.len();
                if !finding.can_be_repaired() || !self.may_repair(underway) {
                    continue;
                }
                match finding.cause {
                    Some(Cause::Unlinked) => unlinked.push(rows[at].clone()),
                    _ => changed.push(rows[at].clone()),
                }
            }
        }
        self.kept.tally.repaired += (changed.len() + unlinked.len()) as u64;
        let refused = self.fill(&unlinked).await?;
        Ok(refused + self.tell(&changed).await?)
    }

    /// Tells the account what rows are that it knows; how many were refused.
    async fn tell(&mut self, rows: &[TableRow]) -> Result<u64, Stopped> {
        let parts = self.parts.clone();
        let router = &parts.shards.shared.router;
        let mut refused = 0;
        for row in rows {
            let one = std::slice::from_ref(row);
            let events = RowEvents::of(router, &self.names.account, &self.names.object, one);
            refused += events.refused;
            if events.refused > 0 {
                continue;
            }
            let numbers = events.batches.iter();
            let numbers = numbers.map(|batch| vec![0; batch.len()]).collect();
            let lost = self.parts.shards.hand_in(events.batches, numbers).await;
            if lost.is_empty() {
                self.kept.tally.taken += 1;
            } else {
                refused += 1;
            }
        }
        Ok(refused)
    }

    fn rows_by_shard(&self, rows: &[TableRow]) -> Vec<Vec<usize>> {
        let shards = &self.parts.shards;
        by_shard(shards.count(), |id| shards.owner_of(id), rows)
    }
}

/// Whether a list shows the record as one that exists.
fn exists(change: &Change) -> bool {
    matches!(
        change.kind,
        ChangeKind::Created | ChangeKind::Changed | ChangeKind::Restored
    )
}

/// The same, and whole.
fn is_there(change: &Change) -> bool {
    exists(change) && change.complete && change.fields.is_some()
}

/// System A's key in the field that holds it.
fn key_of(change: &Change, field: &str) -> Option<String> {
    let fields = RawObject::new(change.fields.as_deref()?)?;
    let key = fields.get(field)?.as_text()?.into_owned();
    (!key.is_empty()).then_some(key)
}
