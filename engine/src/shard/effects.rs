//! The one place where effects wait for the disk.

use std::collections::VecDeque;

use wal::Lsn;

/// Effects in the order they were decided, each behind the position that has to be durable
/// before it may be seen outside.
///
/// Memory may run ahead of the disk; effects never do. Positions are taken at the log's end
/// when the effect is decided, so they never decrease, and one comparison releases a prefix.
#[derive(Debug)]
pub(super) struct Effects<E> {
    waiting: VecDeque<(Lsn, E)>,
    durable: Lsn,
    ready: VecDeque<E>,
}

impl<E> Effects<E> {
    pub(super) fn new(durable: Lsn) -> Self {
        Self {
            waiting: VecDeque::new(),
            durable,
            ready: VecDeque::new(),
        }
    }

    /// Holds `effect` until all that begins before `needs` is durable.
    pub(super) fn push(&mut self, needs: Lsn, effect: E) {
        if self.waiting.is_empty() && needs <= self.durable {
            self.ready.push_back(effect);
            return;
        }
        let needs = self
            .waiting
            .back()
            .map_or(needs, |(last, _)| needs.max(*last));
        self.waiting.push_back((needs, effect));
    }

    /// An effect that shows nothing of this log's content.
    pub(super) fn push_unconditional(&mut self, effect: E) {
        self.ready.push_back(effect);
    }

    /// The log is durable up to here.
    pub(super) fn on_durable(&mut self, durable: Lsn) {
        assert!(durable >= self.durable, "durability is never taken back");
        self.durable = durable;
        while self
            .waiting
            .front()
            .is_some_and(|(needs, _)| *needs <= durable)
        {
            let (_, effect) = self.waiting.pop_front().expect("a front was just seen");
            self.ready.push_back(effect);
        }
    }

    pub(super) fn poll(&mut self) -> Option<E> {
        self.ready.pop_front()
    }

    /// Takes out everything that waits: the log is poisoned and they never leave.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = E> + '_ {
        self.waiting.drain(..).map(|(_, effect)| effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(effects: &mut Effects<u8>) -> Vec<u8> {
        std::iter::from_fn(|| effects.poll()).collect()
    }

    #[test]
    fn nothing_leaves_before_its_position_is_durable() {
        let mut effects = Effects::new(Lsn::new(64));
        effects.push(Lsn::new(64), 1);
        effects.push(Lsn::new(128), 2);
        effects.push(Lsn::new(128), 3);
        effects.push(Lsn::new(200), 4);
        assert_eq!(drain(&mut effects), [1]);
        effects.on_durable(Lsn::new(120));
        assert!(drain(&mut effects).is_empty());
        effects.on_durable(Lsn::new(128));
        assert_eq!(drain(&mut effects), [2, 3]);
        assert_eq!(effects.abandon().collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn effects_keep_their_order_even_when_a_later_one_needs_less() {
        let mut effects = Effects::new(Lsn::ZERO);
        effects.push(Lsn::new(104), 1);
        effects.push(Lsn::new(48), 2);
        effects.on_durable(Lsn::new(64));
        assert!(drain(&mut effects).is_empty());
        effects.on_durable(Lsn::new(104));
        assert_eq!(drain(&mut effects), [1, 2]);
    }
}
