//! What goes wrong, and what is left after the power went.

/// Faults to come. Counters start at 1 and count from [`SimStorage::set_faults`](super::SimStorage::set_faults).
#[derive(Clone, Debug, Default)]
pub struct SimFaults {
    /// The power goes during this changing operation: it counts as unsynced, all later
    /// operations fail until [`SimStorage::crash`](super::SimStorage::crash).
    pub crash_at_op: Option<u64>,
    /// This write fails with the error number; nothing of it reaches the medium, or, when it
    /// was to be durable, its first sector does.
    pub fail_write_at: Option<(u64, i32)>,
    /// This sync (of a file or a folder) fails with the error number.
    pub fail_sync_at: Option<(u64, i32)>,
    /// This read fails with the error number.
    pub fail_read_at: Option<(u64, i32)>,
    /// This write goes to the offset given instead, and is reported as done.
    pub misdirect_write_at: Option<(u64, u64)>,
    /// This write is reported as done and is lost.
    pub lose_write_at: Option<u64>,
    /// The disk's size; writes that need more fail with `ENOSPC`. No bound when absent.
    pub capacity_bytes: Option<u64>,
}

/// Which of the unsynced survives a power cut.
#[derive(Clone, Copy, Debug)]
pub enum SimLoss {
    /// Nothing.
    All,
    /// Everything: as if only the process had died.
    Nothing,
    /// Bit i set: the i-th unsynced sector or directory change survives, in the order in which
    /// they were made; those behind the 64th do not.
    Keep(u64),
    /// Each survives with the given chance in 256.
    Random {
        /// Where the dice come from.
        seed: u64,
        /// The chance in 256.
        keep: u8,
    },
}

/// How often the simulated disk was asked, since the faults were last set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounts {
    /// Operations that change something, syncs among them.
    pub ops: u64,
    /// Writes, durable or not.
    pub writes: u64,
    /// Syncs of files and folders.
    pub syncs: u64,
    /// Reads.
    pub reads: u64,
}

/// Decides about each unsynced piece.
pub(super) struct Coin {
    loss: SimLoss,
    asked: u32,
    state: u64,
}

impl Coin {
    pub(super) fn new(loss: SimLoss) -> Coin {
        let state = if let SimLoss::Random { seed, .. } = loss {
            seed
        } else {
            0
        };
        Coin {
            loss,
            asked: 0,
            state,
        }
    }

    pub(super) fn keeps(&mut self) -> bool {
        let nth = self.asked;
        self.asked += 1;
        match self.loss {
            SimLoss::All => false,
            SimLoss::Nothing => true,
            SimLoss::Keep(mask) => nth < 64 && mask & (1 << nth) != 0,
            SimLoss::Random { keep, .. } => {
                self.state = crate::salt::split_mix(self.state);
                (self.state >> 56) < u64::from(keep)
            }
        }
    }
}
