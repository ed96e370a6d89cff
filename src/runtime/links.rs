//! The links of records: listed, and set by hand.

mod audit;

use engine::id::{VSHARD_COUNT, VShard};
use engine::refusal::{Code, Refusal};
use engine::shard::{
    Command, CommandReply, LinkCursor, LinkFilter, LinkName, LinkRow, LinkStep, RecordPicture,
    provisional_id,
};
use engine::view::{LinkAnswer, LinkChange, LinkRequest, Page, PageRequest};
use tokio::sync::Mutex;

pub(crate) use audit::LinkAudit;

use super::clock;
use super::query::Query;
use super::shards::{Shards, down};

/// Sets links one after the other, and keeps who did.
#[derive(Debug)]
pub(crate) struct Links {
    shards: Shards,
    audit: Mutex<LinkAudit>,
}

impl Links {
    pub(crate) fn new(shards: Shards, audit: LinkAudit) -> Links {
        Links {
            shards,
            audit: Mutex::new(audit),
        }
    }

    /// All that is held of a record.
    pub(crate) async fn picture(
        &self,
        object: &str,
        record_id: &str,
    ) -> Result<Option<RecordPicture>, Refusal> {
        let shard = self.shards.owner_of(record_id);
        let (object, record_id) = (object.to_owned(), record_id.to_owned());
        let ask = self.shards.ask(shard, |reply| Query::Picture {
            object,
            record_id,
            reply,
        });
        ask.await
    }

    /// A page of the links. It ends with a record, of which there may be several, so that it can
    /// be a little longer than was asked for.
    pub(crate) async fn page(
        &self,
        filter: &LinkFilter,
        page: &PageRequest,
    ) -> Result<Page<LinkRow>, Refusal> {
        let mut from = page.after.as_deref().map(cursor).transpose()?;
        let mut items = Vec::new();
        let router = &self.shards.shared.router;
        let first = from.map_or(0, |cursor| cursor.vshard().owner(router.shards));
        for shard in first..self.shards.count() {
            loop {
                let records_max = page.limit - items.len();
                let filter = filter.clone();
                let ask = self.shards.ask(shard, |reply| Query::Links {
                    filter,
                    from,
                    records_max,
                    reply,
                });
                let slice = ask.await?;
                if slice.unreadable > 0 {
                    tracing::error!(records = slice.unreadable, "states cannot be read");
                }
                items.extend(slice.links);
                from = slice.next;
                if let Some(next) = from.filter(|_| items.len() >= page.limit) {
                    let next = Some(format!("{:016x}", next.to_number()));
                    return Ok(Page { items, next });
                }
                if from.is_none() {
                    break;
                }
            }
            let next = first_of(shard + 1, router.shards);
            if let Some(next) = next.filter(|_| items.len() >= page.limit) {
                let next = Some(format!("{:016x}", next.to_number()));
                return Ok(Page { items, next });
            }
        }
        Ok(Page { items, next: None })
    }

    /// Sets a link or takes it away; durable when it answers that it changed.
    pub(crate) async fn set(
        &self,
        by: &str,
        object: &str,
        request: &LinkRequest,
    ) -> Result<LinkAnswer, Refusal> {
        let mut audit = self.audit.lock().await;
        let account = request.provider.as_str();
        let inbound = self.comes_in(account, object)?;
        let picture = self.picture(object, &request.record_id).await?;
        let former = picture.and_then(|picture| linked_as(&picture, account));
        if former.is_none() && request.remote_id.is_none() {
            return Ok(LinkAnswer::NotFound);
        }
        let name = |remote_id: &str| LinkName {
            account: account.into(),
            object: object.to_owned(),
            provisional: provisional_id(account, remote_id),
            record_id: request.record_id.clone(),
        };
        if let Some(remote_id) = &request.remote_id {
            if let Some(owner) = self.owner(object, request, remote_id, inbound).await? {
                return Ok(LinkAnswer::Owned(owner));
            }
            let claim = name(remote_id);
            if inbound && !self.step(LinkStep::Claim(claim.clone())).await? {
                return Ok(LinkAnswer::Owned(claim.provisional));
            }
        }
        if former == request.remote_id {
            let object = object.to_owned();
            return Ok(LinkAnswer::Unchanged { object });
        }
        let claimed = request.remote_id.as_deref().filter(|_| inbound).map(name);
        let set = LinkStep::Set {
            account: account.into(),
            object: object.to_owned(),
            record_id: request.record_id.clone(),
            remote_id: request.remote_id.clone(),
            claimed: claimed
                .as_ref()
                .map(|name| name.provisional.clone())
                .unwrap_or_default(),
        };
        if !self.step(set).await? {
            if let Some(claimed) = claimed {
                self.step(LinkStep::GiveUp(claimed)).await?;
            }
            return Ok(LinkAnswer::InCall);
        }
        if let Some(former) = former.as_deref().filter(|_| inbound) {
            self.step(LinkStep::GiveUp(name(former))).await?;
        }
        audit.note(LinkChange {
            at: clock::now().wall.0,
            by: by.to_owned(),
            object: object.to_owned(),
            record_id: request.record_id.clone(),
            provider: account.to_owned(),
            old: former.clone(),
            new: request.remote_id.clone(),
        })?;
        let object = object.to_owned();
        Ok(LinkAnswer::Changed { object, former })
    }

    /// What was set by hand, the newest first.
    pub(crate) async fn changes(&self) -> Vec<LinkChange> {
        self.audit.lock().await.changes()
    }

    /// Whose the account's id is, unless it is nobody's or the record's own.
    async fn owner(
        &self,
        object: &str,
        request: &LinkRequest,
        remote_id: &str,
        inbound: bool,
    ) -> Result<Option<String>, Refusal> {
        let own = |id: &String| *id != request.record_id;
        if inbound {
            let provisional = provisional_id(&request.provider, remote_id);
            let Some(picture) = self.picture(object, &provisional).await? else {
                return Ok(None);
            };
            let made_there = linked_as(&picture, &request.provider).map(|_| provisional);
            return Ok(picture.alias_of.or(made_there).filter(own));
        }
        // Nothing leads from the id to its record: all links of the object are looked at.
        let filter = LinkFilter {
            object: Some(object.to_owned()),
            account: Some(request.provider.clone()),
        };
        let mut page = PageRequest {
            limit: SEARCH_PAGE,
            after: None,
        };
        loop {
            let found = self.page(&filter, &page).await?;
            let mut links = found.items.into_iter();
            if let Some(link) = links.find(|link| link.remote_id == remote_id) {
                return Ok(Some(link.record_id).filter(own));
            }
            page.after = found.next;
            if page.after.is_none() {
                return Ok(None);
            }
        }
    }

    async fn step(&self, step: LinkStep) -> Result<bool, Refusal> {
        let record_id = match &step {
            LinkStep::Claim(name) | LinkStep::GiveUp(name) => &name.provisional,
            LinkStep::Set { record_id, .. } => record_id,
        };
        let shard = self.shards.owner_of(record_id);
        match self.shards.command(shard, Command::Link(step)).await? {
            CommandReply::Done { matched } => Ok(matched > 0),
            CommandReply::Partly { .. } | CommandReply::Unavailable => Err(down()),
        }
    }

    /// Whether an account's changes of an object are taken.
    fn comes_in(&self, account: &str, object: &str) -> Result<bool, Refusal> {
        let routes = self.shards.shared.router.routes();
        let plan = routes.plans.iter().find(|plan| *plan.name == *account);
        let plan = plan.ok_or_else(|| {
            let detail = "no account of this name is configured";
            Refusal::new(Code::UnknownProvider, detail)
        })?;
        let two_way = plan.two_way.get(object);
        Ok(two_way.is_some_and(|two_way| two_way.inbound))
    }
}

/// Links looked at at once where one has to be found by its remote id.
const SEARCH_PAGE: usize = 512;

fn linked_as(picture: &RecordPicture, account: &str) -> Option<String> {
    let side = picture.sides.iter().find(|side| side.account == account)?;
    side.link.remote_id().map(str::to_owned)
}

/// Where the records of a shard begin.
fn first_of(shard: usize, shards: usize) -> Option<LinkCursor> {
    let mut vshards = (0..VSHARD_COUNT).filter_map(VShard::new);
    let first = vshards.find(|vshard| vshard.owner(shards) == shard);
    first.map(LinkCursor::first_of)
}

fn cursor(after: &str) -> Result<LinkCursor, Refusal> {
    let number = u64::from_str_radix(after, 16).ok();
    number.and_then(LinkCursor::from_number).ok_or_else(|| {
        let detail = "`after` is not a cursor of this list";
        Refusal::new(Code::InvalidField, detail)
    })
}
