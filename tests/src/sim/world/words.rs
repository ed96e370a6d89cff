//! What shards tell each other.

use engine::shard::{Handed, LinkWord};

use super::{Due, US, World};
use crate::sim::marks::Mark;
use crate::sim::mutants::Mutant;
use crate::sim::node::Letter;

impl World {
    /// A word from one shard to another.
    pub(super) fn tell_shard(&mut self, from: usize, to: usize, word: LinkWord) {
        if matches!(word, LinkWord::Handoff(_)) {
            self.marks.hit(Mark::HandedOver);
        }
        let (life, shard) = (self.life, to);
        let delay = self.shard_dice.between(US, 300 * US);
        let at = self.in_order((3, from * 16 + to), delay);
        let word = match word {
            LinkWord::Handoff(handoff) if self.has(Mutant::DroppedHandoffs) => {
                let shard = usize::from(handoff.asker.0);
                let word = LinkWord::Handed(Handed {
                    child: handoff.child,
                    account: handoff.account,
                });
                let letter = Letter::Link(word);
                return self.at(
                    at,
                    Due::Deliver {
                        life,
                        shard,
                        letter,
                    },
                );
            }
            LinkWord::KnownAs(_) if self.has(Mutant::TwoLinks) => return,
            word => word,
        };
        let letter = Letter::Link(word);
        self.at(
            at,
            Due::Deliver {
                life,
                shard,
                letter,
            },
        );
    }
}
