//! The one place that reads the clocks; everything else is told the time.

use std::time::Duration;

use engine::time::{Mono, Now, WallMs};
use rustix::time::{ClockId, clock_gettime};
use xxhash_rust::xxh3::xxh3_64;

/// Both clocks, now.
pub(crate) fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let wall = clock_gettime(ClockId::Realtime);
    Now {
        mono: Mono(boot.tv_sec.unsigned_abs() * 1_000_000_000 + boot.tv_nsec.unsigned_abs()),
        wall: WallMs(wall.tv_sec * 1000 + wall.tv_nsec / 1_000_000),
    }
}

/// How long until `deadline`; nothing when it is past.
pub(crate) fn until(deadline: Mono) -> Duration {
    deadline.saturating_since(now().mono)
}

/// Names this boot of the machine, so that boot-time clock values of another are told apart.
/// Without the kernel's boot id every start counts as another boot, which is only too careful.
pub(crate) fn boot() -> u64 {
    match std::fs::read("/proc/sys/kernel/random/boot_id") {
        Ok(id) => xxh3_64(&id),
        Err(_) => random(),
    }
}

/// 64 bits from the kernel, for seeds and names.
pub(crate) fn random() -> u64 {
    u64::from_le_bytes(random_bytes())
}

/// Bytes from the kernel.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .expect("the kernel's random source does not fail once it is seeded");
    }
    bytes
}
