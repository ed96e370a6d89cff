//! A source driven for good: events go into a channel, confirmations come back.

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Source, SourceSettings};
use crate::change::Event;
use crate::error::Error;
use crate::lsn::Lsn;

/// Between two attempts to connect; doubled after each that failed.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);

const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// Reports without an answer after which the connection is taken for dead.
const SILENT_REPORTS_MAX: u32 = 4;

/// Follows until one of the channels is closed. A full channel holds the source back and through
/// it the server; a connection that is lost is made again, and nothing is told twice meanwhile.
/// `confirmed` says up to where everything is durable.
///
/// # Errors
/// What time cannot cure: see [`Error::is_transient`].
pub async fn follow(
    settings: SourceSettings,
    events: mpsc::Sender<Event>,
    mut confirmed: watch::Receiver<Lsn>,
) -> Result<(), Error> {
    let mut source: Option<Source> = None;
    let mut delay = RETRY_DELAY_MIN;
    // An event for which the channel has no room. It outlives the connection it came over: the
    // source takes it for told.
    let mut held = None;
    loop {
        let opened = match &mut source {
            Some(source) => source.reopen().await,
            None => Source::open(settings.clone())
                .await
                .map(|opened| source = Some(opened)),
        };
        let ended = match (opened, &mut source) {
            (Ok(()), Some(source)) => {
                drive(source, &events, &mut confirmed, &mut held, &mut delay).await
            }
            (Ok(()), None) => Ok(()),
            (Err(error), _) => Err(error),
        };
        match ended {
            Ok(()) => {
                if let Some(source) = source {
                    source.close().await;
                }
                return Ok(());
            }
            Err(error) if error.is_transient() => {
                let reason = chain(&error);
                let waiting = async {
                    if events.send(Event::Interrupted { reason }).await.is_ok() {
                        events.closed().await;
                    }
                };
                if timeout(delay, waiting).await.is_ok() {
                    return Ok(());
                }
                delay = (delay * 2).min(RETRY_DELAY_MAX);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Until the connection breaks, or nobody wants more.
async fn drive(
    source: &mut Source,
    events: &mpsc::Sender<Event>,
    confirmed: &mut watch::Receiver<Lsn>,
    held: &mut Option<Event>,
    delay: &mut Duration,
) -> Result<(), Error> {
    let mut ticks = interval(source.report_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_reports = 0;
    loop {
        tokio::select! {
            event = source.next(), if held.is_none() => match events.try_send(event?) {
                Ok(()) => *delay = RETRY_DELAY_MIN,
                Err(TrySendError::Full(event)) => *held = Some(event),
                Err(TrySendError::Closed(_)) => return Ok(()),
            },
            permit = events.reserve(), if held.is_some() => match (permit, held.take()) {
                (Ok(permit), Some(event)) => permit.send(event),
                _ => return Ok(()),
            },
            changed = confirmed.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let lsn = *confirmed.borrow_and_update();
                source.confirm(lsn).await?;
            }
            _ = ticks.tick() => {
                let heard = source.report().await?;
                // Who does not read hears nothing.
                silent_reports = if heard || held.is_some() { 0 } else { silent_reports + 1 };
                if silent_reports == SILENT_REPORTS_MAX {
                    let silence = source.report_interval() * SILENT_REPORTS_MAX;
                    return Err(Error::Silent { seconds: silence.as_secs() });
                }
            }
            () = events.closed() => return Ok(()),
        }
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
