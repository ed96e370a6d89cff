//! Ctrl-C and SIGTERM, so that a demo ends its children and clears its folder away.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Whether the demo was told to stop.
#[derive(Debug)]
pub(super) struct Interrupt {
    told: Arc<AtomicBool>,
}

impl Interrupt {
    /// Watches from a thread of its own, for the rest of the process.
    pub(super) fn watch() -> io::Result<Interrupt> {
        let told = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&told);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut terminate, mut interrupt) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            )
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                });
                theirs.store(true, Ordering::Relaxed);
            })?;
        Ok(Interrupt { told })
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.told.load(Ordering::Relaxed) {
            true => Err(Failure::Interrupted),
            false => Ok(()),
        }
    }
}
