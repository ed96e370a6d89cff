//! Where deliveries go and are counted.

mod in_process;
mod nginx;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use self::in_process::InProcess;
use self::nginx::{Nginx, StatusPage};
use crate::places::DebianTool;
use crate::process::Usage;

/// A provider that says `200 {}` to everything.
#[derive(Debug)]
pub(crate) enum Sink {
    Nginx(Nginx),
    InProcess(InProcess),
}

impl Sink {
    /// nginx where there is one; otherwise a thread of this process, with a word.
    pub(crate) fn start(folder: &Path) -> io::Result<Sink> {
        match DebianTool::find("nginx") {
            Ok(nginx) => Ok(Sink::Nginx(Nginx::start(&nginx, folder)?)),
            Err(reason) => {
                println!("skipped: nginx ({reason})");
                Ok(Sink::InProcess(InProcess::start()?))
            }
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Sink::Nginx(nginx) => nginx.addr(),
            Sink::InProcess(thread) => thread.addr(),
        }
    }

    /// What the report calls it.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Sink::Nginx(_) => "nginx, 1 worker",
            Sink::InProcess(_) => "a hyper thread inside the generator (no nginx)",
        }
    }

    pub(crate) fn counter(&self) -> io::Result<Counter<'_>> {
        Ok(match self {
            Sink::Nginx(nginx) => Counter::Status(nginx.status_page()?),
            Sink::InProcess(thread) => Counter::Shared(thread.served()),
        })
    }

    /// What its own process used; `None` where it has none.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self {
            Sink::Nginx(nginx) => nginx.usage().ok(),
            Sink::InProcess(_) => None,
        }
    }
}

/// Counts the requests a sink served, itself left out.
#[derive(Debug)]
pub(crate) enum Counter<'a> {
    Status(StatusPage),
    Shared(&'a AtomicU64),
}

impl Counter<'_> {
    /// Requests since the counter was made.
    pub(crate) fn count(&mut self) -> io::Result<u64> {
        match self {
            Counter::Status(page) => page.count(),
            Counter::Shared(served) => Ok(served.load(Ordering::Relaxed)),
        }
    }
}
