//! Source and sink against a real PostgreSQL.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set its scene has failed"
)]

mod cluster;
mod connection;
mod follow;
mod pages;
mod sink;
mod source;

use std::future::Future;
use std::time::Duration;

use cluster::Unavailable;

/// Long enough for a busy machine; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test, or says why it cannot run here.
fn run(name: &str, test: impl Future<Output = Result<(), Unavailable>>) {
    if let Err(unavailable) = cluster::find_programs() {
        return unavailable.skip(name);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, test).await });
    if let Err(unavailable) = ended.expect("the test came to its end") {
        unavailable.skip(name);
    }
}
