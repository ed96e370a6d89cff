//! What the engine answers when it is asked about operations that have ended.

use engine::id::OperationId;

use super::World;
use crate::sim::fold::{Broken, Op};
use crate::sim::node::ShardNode;

/// Of the operations that had a call of their own, so many are asked about.
const ONE_IN: usize = 8;

impl World {
    /// Every operation that shared a call, and some of the others, stand as the logs say, while
    /// these are whole.
    pub(super) fn check_standings(&mut self) {
        let Some(node) = &mut self.node else { return };
        let shards = node.shards.len();
        let layout = node.dir.layout().expect("a running node has a layout");
        let mut broken = None;
        for (place, ((id, account), op)) in self.oracle.fold.ops.iter().enumerate() {
            let alone = op.ended_with.is_none_or(|(lead, _)| lead == *id);
            let shard = id.record.vshard().owner(shards);
            let gone = self.released.contains(&layout.log(shard as u16));
            if gone || op.repeated || (alone && place % ONE_IN != 0) {
                continue;
            }
            let checked = check_standing(&mut node.shards[shard], *id, account, op);
            broken = broken.or(checked.err());
        }
        self.oracle.note(broken.map_or(Ok(()), Err));
    }
}

fn check_standing(
    own: &mut ShardNode,
    id: OperationId,
    account: &str,
    op: &Op,
) -> Result<(), Broken> {
    let standings = own.shard.operation(&mut own.journal, id);
    let told = standings
        .iter()
        .find(|standing| standing.account == account);
    let told = told.map(|told| (told.state, told.superseded_by));
    let known = op.ended.map(|(state, _)| (state, op.superseded_by));
    if told == known {
        Ok(())
    } else {
        Err(format!(
            "I2 {id} at {account} is told as {told:?}, it is {known:?}"
        ))
    }
}
