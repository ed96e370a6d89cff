//! Notices on their way from the accounts: lost, doubled, late, forged, sent again until taken.

use engine::provider::{Change, Delivery};

use super::planted::planted_changes;
use super::{Due, MS, US, World};
use crate::sim::marks::Mark;
use crate::sim::mutants::Mutant;
use crate::sim::node::Letter;
use crate::sim::two_way::inbound::{Incoming, Source, Taken};
use crate::sim::two_way::notice::{Notice, SECRET};
use crate::sim::two_way::side::Place;

/// An account that hears nothing sends again after this.
const AGAIN: u64 = 1_500 * MS;

impl World {
    /// A record of an account changed; it says so if that is its way.
    pub(super) fn notify(&mut self, side: usize, place: &Place, deleted: bool) {
        if !self.sides[side].options.notifies() {
            return;
        }
        let options = self.sides[side].options.clone();
        let dice = &mut self.sides[side].dice;
        let lost = dice.chance(options.lost) && !self.healed;
        let doubled = dice.chance(options.doubled);
        let forged = dice.chance(options.forged);
        if lost {
            self.marks.hit(Mark::NoticeLost);
        } else {
            self.send_notice(side, place, deleted, false);
            if doubled {
                // Some accounts tell of one change twice, each time by another name.
                self.send_notice(side, place, deleted, false);
            }
        }
        if forged {
            let places: Vec<Place> = self.sides[side].records.keys().cloned().collect();
            if !places.is_empty() {
                let place = self.sides[side].dice.pick(&places).clone();
                let deleted = self.sides[side].dice.chance(500);
                self.send_notice(side, &place, deleted, true);
            }
        }
    }

    /// Puts a notice on its way.
    pub(super) fn send_notice(&mut self, side: usize, place: &Place, deleted: bool, forged: bool) {
        let number = self.people.next();
        let notice = Notice {
            account: side,
            place: place.clone(),
            deleted,
            into: self.sides[side]
                .merged_into
                .get(place)
                .filter(|_| deleted)
                .cloned(),
            id: format!("n{number}"),
            forged,
            acknowledged: None,
        };
        self.notices.insert(number, notice);
        let side = &mut self.sides[side];
        let late = side.dice.chance(side.options.late);
        let delay = if late {
            side.dice.between(100 * MS, 8_000 * MS)
        } else {
            side.dice.skewed(200 * US, 60 * MS)
        };
        self.after(delay, Due::Notice { number });
    }

    /// A notice arrives at the node.
    pub(super) fn notice_arrives(&mut self, number: u64) {
        let Some(notice) = self.notices.get(&number).cloned() else {
            return;
        };
        let again = AGAIN + self.people.next() % 100 * MS;
        if self.has(Mutant::NoticeAckedBeforeDurable) && !self.is_kept(number, again) {
            return;
        }
        let now_ms = self.clock.now().wall.0;
        let sent_ms = self.provider_wall_ms(notice.account);
        let name = self.options.accounts[notice.account].name.clone();
        let plan = &self.plans[notice.account];
        let definition = plan.definition.webhook().expect("`rest` has notices");
        let body = notice.body();
        let headers = notice.headers(sent_ms, &body);
        let delivery = Delivery {
            method: "POST",
            uri: "https://node.example/v1/webhooks/account",
            headers: &headers,
            body: &body,
        };
        let verified = definition.verify(None, &[SECRET], None, now_ms, &delivery);
        let believed = verified.is_ok() || (notice.forged && self.has(Mutant::ForgedBelieved));
        if !believed {
            if notice.forged {
                self.marks.hit(Mark::NoticeForged);
                self.notices.remove(&number);
            } else {
                // The node's clock is wrong, and will be right again.
                self.after(again, Due::Notice { number });
            }
            return;
        }
        if verified.is_ok() && notice.forged {
            self.oracle.note(Err(format!(
                "I25 a notice that nobody signed is believed: {notice:?}"
            )));
        }
        let changes = match definition.read(&delivery) {
            Ok(received) => received.changes,
            Err(error) => return self.oracle.note(Err(format!("a notice: {error}"))),
        };
        self.after(again, Due::Notice { number });
        if !notice.forged {
            let (object, id) = &notice.place;
            self.oracle.ledger.hear(&name, object, id, notice.deleted);
            if let Some(into) = &notice.into {
                self.oracle.ledger.hear(&name, object, id, false);
                self.oracle.ledger.hear(&name, object, into, false);
            }
        }
        let scope = 2 * notice.account as u64 + 1;
        self.take_changes(&name, scope, &changes, None, Source::Notice(number));
        if self.has(Mutant::NoticeAckedBeforeDurable) {
            self.notices.remove(&number);
        }
    }

    /// Whether a notice that was acknowledged before is logged now: not if it was to lie in memory
    /// for a while first, nor if the process has died since.
    fn is_kept(&mut self, number: u64, later: u64) -> bool {
        let (life, up) = (self.life, self.node.is_some());
        let Some(notice) = self.notices.get_mut(&number).filter(|it| !it.forged) else {
            return true;
        };
        match notice.acknowledged {
            Some(since) if since == life => return true,
            Some(_) => {
                self.notices.remove(&number);
                return false;
            }
            None => notice.acknowledged = up.then_some(life),
        }
        self.after(later, Due::Notice { number });
        false
    }

    /// Hands changes in; word comes back through [`World::changes_taken`].
    pub(super) fn take_changes(
        &mut self,
        account: &str,
        scope: u64,
        changes: &[Change],
        asked_ms: Option<i64>,
        source: Source,
    ) {
        let now_ms = self.clock.now().wall.0;
        let changes = planted_changes(self.options.mutant, changes);
        let Some(node) = &mut self.node else { return };
        let incoming = Incoming {
            account,
            scope,
            changes: &changes,
            asked_ms,
            now_ms,
            source,
        };
        let (place, next_seq) = node.ingest.place();
        let (parcels, taken) = node.inbound.take(&incoming, place, next_seq);
        let life = self.life;
        for parcel in parcels {
            let delay = self.net_dice.between(US, 300 * US);
            let shard = parcel.shard;
            let at = self.in_order((2, shard), delay);
            let letter = Letter::Parcel(parcel);
            self.at(
                at,
                Due::Deliver {
                    life,
                    shard,
                    letter,
                },
            );
        }
        if let Some(taken) = taken {
            self.changes_taken(taken);
        }
    }

    /// Changes are durable, or were not taken.
    pub(super) fn changes_taken(&mut self, taken: Taken) {
        match taken.source {
            Source::Notice(number) => {
                let Some(notice) = self.notices.get(&number).filter(|_| taken.durable) else {
                    return;
                };
                let side = &mut self.sides[notice.account];
                let unheard = side.dice.chance(side.options.unheard) && !self.healed;
                if unheard {
                    self.marks.hit(Mark::NoticeRepeated);
                } else {
                    self.notices.remove(&number);
                }
            }
            Source::Page(list) => self.page_taken(list, taken.durable),
        }
    }
}
