//! Watches the account's gate from outside.

use syncline_engine::quota::Gate;

use crate::simulation::MS;

/// Watches that nothing is sent while the account is held, and one call while it is probed.
#[derive(Default)]
pub(crate) struct Monitor {
    gate: Option<Gate>,
    since: u64,
    probes: u64,
    pub(crate) most_probes: u64,
    pub(crate) sent_while_held: u64,
    pub(crate) holds: u64,
    pub(crate) last_sent: u64,
}

impl Monitor {
    /// Longer than it takes until every shard has read its messages.
    const TOLD: u64 = 20 * MS;

    pub(crate) fn gate(&mut self, now: u64, gate: Gate) {
        let kind = |gate: &Gate| std::mem::discriminant(gate);
        if self.gate.as_ref().map(kind) != Some(kind(&gate)) {
            self.holds += u64::from(matches!(gate, Gate::Held { .. }));
            self.gate = Some(gate);
            self.since = now;
            self.probes = 0;
        }
    }

    pub(crate) fn sent(&mut self, now: u64) {
        self.last_sent = now;
        if now < self.since + Self::TOLD && self.gate != Some(Gate::Probe) {
            return;
        }
        match self.gate {
            Some(Gate::Held { .. }) => self.sent_while_held += 1,
            Some(Gate::Probe) => {
                self.probes += 1;
                self.most_probes = self.most_probes.max(self.probes);
            }
            _ => {}
        }
    }
}
