//! A file's bytes: on the medium, on their way to it, and as shown.

/// What a disk writes as a whole.
pub const SIM_SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Inode {
    medium: Vec<u8>,
    /// Unsynced changes in order.
    pending: Vec<Pending>,
    shown: Vec<u8>,
}

#[derive(Clone)]
enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Inode {
    pub(super) fn at_rest(bytes: Vec<u8>) -> Inode {
        Inode {
            medium: bytes.clone(),
            pending: Vec::new(),
            shown: bytes,
        }
    }

    pub(super) fn shown(&self) -> &[u8] {
        &self.shown
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        place(&mut self.shown, offset, bytes);
        self.pending.push(Pending::Write {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    pub(super) fn set_len(&mut self, bytes: usize) {
        self.shown.resize(bytes, 0);
        self.pending.push(Pending::SetLen(bytes));
    }

    pub(super) fn sync(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            apply(&mut self.medium, &pending);
        }
    }

    /// Makes the last write durable, as a write with `RWF_DSYNC` does; earlier ones stay as
    /// they are.
    pub(super) fn sync_last(&mut self) {
        if let Some(pending) = self.pending.pop() {
            apply(&mut self.medium, &pending);
        }
    }

    /// The kernel reports once, marks the pages clean, and never writes them.
    pub(super) fn fail_sync(&mut self) {
        self.pending.clear();
    }

    pub(super) fn forget_cache(&mut self) {
        self.shown.clone_from(&self.medium);
        for pending in &self.pending {
            apply(&mut self.shown, pending);
        }
    }

    /// How many pieces a power cut decides about.
    pub(super) fn unsynced(&self) -> usize {
        self.pending
            .iter()
            .map(|pending| match pending {
                Pending::Write { offset, bytes } => sectors(*offset, bytes.len()).count(),
                Pending::SetLen(_) => 1,
            })
            .sum()
    }

    pub(super) fn crash(&mut self, mut keeps: impl FnMut() -> bool) {
        for pending in std::mem::take(&mut self.pending) {
            match &pending {
                Pending::Write { offset, bytes } => {
                    for (start, end) in sectors(*offset, bytes.len()) {
                        if keeps() {
                            place(&mut self.medium, offset + start, &bytes[start..end]);
                        }
                    }
                }
                Pending::SetLen(_) => {
                    if keeps() {
                        apply(&mut self.medium, &pending);
                    }
                }
            }
        }
        self.shown.clone_from(&self.medium);
    }
}

fn apply(image: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::Write { offset, bytes } => place(image, *offset, bytes),
        Pending::SetLen(bytes) => image.resize(*bytes, 0),
    }
}

fn place(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

/// The parts of a write that fall into one sector each, as ranges of its bytes.
fn sectors(offset: usize, bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == bytes {
            return None;
        }
        let room = SIM_SECTOR_BYTES - (offset + start) % SIM_SECTOR_BYTES;
        let end = (start + room).min(bytes);
        let part = (start, end);
        start = end;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_keeps_the_chosen_sectors_only() {
        let mut inode = Inode::at_rest(vec![0; 2048]);
        inode.write(512, &[1; 1024]);
        assert_eq!(inode.unsynced(), 2);
        let mut choices = [false, true].into_iter();
        inode.crash(|| choices.next().unwrap());
        assert!(inode.shown()[..1024].iter().all(|byte| *byte == 0));
        assert!(inode.shown()[1024..1536].iter().all(|byte| *byte == 1));
    }

    #[test]
    fn a_failed_sync_leaves_the_cache_showing_what_the_medium_never_got() {
        let mut inode = Inode::at_rest(vec![0; 512]);
        inode.write(0, &[1; 512]);
        inode.fail_sync();
        inode.sync();
        assert_eq!(inode.shown(), [1; 512]);
        inode.forget_cache();
        assert_eq!(inode.shown(), [0; 512]);
    }
}
