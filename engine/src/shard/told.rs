//! A shard's demand as the coordinator knows it.

/// What was told last, less what has been granted since: the coordinator takes each grant off
/// the demand by itself.
#[derive(Debug, Default)]
pub(super) struct Told {
    slots: u32,
    permits: u32,
    /// Leases that came since the shard spoke; the coordinator learns from each `Want` which
    /// have arrived.
    leases_unseen: u32,
}

/// Leases taken without a word: below the 64 at which the coordinator stops lending.
const LEASES_UNSEEN_MAX: u32 = 16;

impl Told {
    /// A lease came.
    pub(super) fn on_grant(&mut self, permits: u32) {
        self.permits = self.permits.saturating_sub(permits);
        self.leases_unseen += 1;
    }

    /// Takes in the present demand; true when the coordinator has to hear it.
    pub(super) fn update(&mut self, slots: u32, permits: u32) -> bool {
        let same = (self.slots, self.permits) == (slots, permits);
        if same && self.leases_unseen < LEASES_UNSEEN_MAX {
            return false;
        }
        *self = Self {
            slots,
            permits,
            leases_unseen: 0,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_that_stays_is_told_once() {
        let mut told = Told::default();
        assert!(told.update(32, 64));
        assert!(!told.update(32, 64));
        assert!(told.update(32, 0));
    }

    /// While an account was probed, each probe's permit was spent in the turn it came in. The
    /// demand was then what it had been, so nothing was said, and the coordinator, which had
    /// taken the permits off and had never heard that the leases arrived, lent nothing any more.
    #[test]
    fn a_permit_that_is_spent_at_once_is_asked_for_again() {
        let mut told = Told::default();
        assert!(told.update(32, 64));
        for _ in 0..100 {
            told.on_grant(1);
            assert!(told.update(32, 64));
        }
    }

    #[test]
    fn leases_that_cover_the_demand_are_told_of_before_the_coordinator_stops_lending() {
        let mut told = Told::default();
        assert!(told.update(32, 0));
        let spoke = (0..64).filter(|_| {
            told.on_grant(1);
            told.update(32, 0)
        });
        assert_eq!(spoke.count(), 4);
    }
}
