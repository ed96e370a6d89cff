//! `syncline wal stat|verify|dump DIR`: looks into a data directory, offline, changing nothing.

mod frame_line;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ::wal::inspect::{self, DirStat, InspectError, LogStat, LogVerdict};
use ::wal::{Disk, LogId, Lsn, OpenError};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::exit::Exit;
use super::table::Table;
use frame_line::frame_line;

/// Looks into a data directory, offline; takes no lock and changes nothing
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline wal stat syncline-data
  syncline wal verify syncline-data --json
  syncline wal dump syncline-data --log 1/0 --from 4160

For use while no engine has the directory: under a running one the newest blocks may look torn.
Exit status 0, 65 when something is damaged, 66 when there is no data directory.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    look: Look,
}

#[derive(Debug, Subcommand)]
enum Look {
    /// Lists logs and segments by their headers alone: fast, and no proof that the rest verifies
    #[command(after_help = "Example:\n  syncline wal stat syncline-data")]
    Stat(DirArguments),
    /// Reads and verifies every byte of the logs in use, and their checkpoints
    #[command(after_help = "Example:\n  syncline wal verify syncline-data --json")]
    Verify(DirArguments),
    /// Shows what the logs hold, one line a frame
    #[command(
        after_help = "Example:\n  syncline wal dump syncline-data --log 1/0 --from 4160 --json"
    )]
    Dump(DumpArguments),
}

#[derive(Debug, Args)]
struct DirArguments {
    /// The data directory
    dir: PathBuf,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DumpArguments {
    /// The data directory
    dir: PathBuf,
    /// Only this log, as GENERATION/SHARD; default: every log in use
    #[arg(long, value_name = "G/S")]
    log: Option<LogName>,
    /// From this position on; default: the oldest frame
    #[arg(long, value_name = "LSN", default_value = "0", value_parser = parse_lsn)]
    from: Lsn,
    /// Prints each frame as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
struct LogName(LogId);

/// Why nothing was shown.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0} is no data directory: it has no superblock")]
    NoDirectory(String),
    #[error("log {0} is not in use; \"syncline wal stat\" lists the logs")]
    NoLog(LogId),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let ended = look(arguments, &mut out).and_then(|exit| {
        out.flush()?;
        Ok(exit)
    });
    ended.unwrap_or_else(|failure| refuse(&failure))
}

fn look(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    match &arguments.look {
        Look::Stat(arguments) => stat(&disk(&arguments.dir)?, arguments.json, out),
        Look::Verify(arguments) => verify(&disk(&arguments.dir)?, arguments.json, out),
        Look::Dump(arguments) => dump(&disk(&arguments.dir)?, arguments, out),
    }
}

fn disk(dir: &Path) -> Result<Disk, Failure> {
    if dir.join(::wal::SUPERBLOCK_FILE).is_file() || has_logs(dir) {
        Ok(Disk::probe(dir))
    } else {
        Err(Failure::NoDirectory(dir.display().to_string()))
    }
}

/// A directory that lost its superblock is a damaged one, not a missing one.
fn has_logs(dir: &Path) -> bool {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names = names.map(|entry| entry.file_name());
    names.any(|name| name.to_str().and_then(LogId::parse_dir_name).is_some())
}

fn stat(disk: &Disk, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let found = inspect::stat(disk)?;
    if as_json {
        writeln!(out, "{}", stat_json(&found))?;
    } else {
        write_stat(&found, out)?;
    }
    let heads_damaged = found.logs.iter().filter(|log| log.in_use).any(is_damaged);
    Ok(if found.superblock.is_none() || heads_damaged {
        Exit::Data
    } else {
        Exit::Ok
    })
}

fn is_damaged(log: &LogStat) -> bool {
    let damaged =
        |fault: &::wal::segment::SegmentFault| *fault != ::wal::segment::SegmentFault::Blank;
    log.watermark.is_none()
        || log
            .segments
            .iter()
            .any(|segment| segment.head.as_ref().is_err_and(damaged))
}

fn stat_json(found: &DirStat) -> Value {
    let superblock = found.superblock.as_ref().map(|superblock| {
        json!({
            "instance": superblock.instance.to_string(),
            "run": superblock.run_epoch,
            "clean": superblock.clean,
            "generation": superblock.layout.map(|layout| layout.generation),
            "shards": superblock.layout.map(|layout| layout.shards),
        })
    });
    json!({
        "superblock": superblock,
        "superblock_slot_damaged": found.superblock_slot_damaged,
        "logs": found.logs.iter().map(log_json).collect::<Vec<_>>(),
    })
}

fn log_json(log: &LogStat) -> Value {
    let segments = log.segments.iter().map(|segment| {
        json!({
            "number": segment.number.0,
            "file_bytes": segment.file_bytes,
            "base": segment.head.as_ref().ok().map(|head| head.base.get()),
            "released": segment.released,
            "fault": segment.head.as_ref().err().map(ToString::to_string),
        })
    });
    json!({
        "log": log.log.to_string(),
        "in_use": log.in_use,
        "durable_lsn": log.watermark.as_ref().map(|watermark| watermark.durable_lsn.get()),
        "segments": segments.collect::<Vec<_>>(),
    })
}

fn write_stat(found: &DirStat, out: &mut impl Write) -> io::Result<()> {
    match &found.superblock {
        Some(superblock) => writeln!(
            out,
            "instance {}, run {}, {}",
            superblock.instance,
            superblock.run_epoch,
            if superblock.clean {
                "closed"
            } else {
                "open, or ended by a crash"
            },
        )?,
        None => writeln!(out, "the superblock is damaged")?,
    }
    if found.superblock_slot_damaged {
        writeln!(out, "one slot of the superblock does not verify")?;
    }
    let mut table = Table::new(&["LOG", "USE", "DURABLE", "SEGMENT", "BASE", "BYTES", "STATE"]);
    for log in &found.logs {
        let one = log_json(log);
        let usage = json!(if log.in_use { "in use" } else { "left over" });
        for (segment, shown) in log
            .segments
            .iter()
            .zip(one["segments"].as_array().into_iter().flatten())
        {
            let state = match &segment.head {
                _ if segment.released => json!("released"),
                Ok(_) => json!("live"),
                Err(::wal::segment::SegmentFault::Blank) => json!("spare"),
                Err(fault) => json!(fault.to_string()),
            };
            table.row(&[
                &one["log"],
                &usage,
                &one["durable_lsn"],
                &shown["number"],
                &shown["base"],
                &shown["file_bytes"],
                &state,
            ]);
        }
    }
    table.write(out)
}

fn verify(disk: &Disk, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let verdicts = inspect::verify(disk)?;
    let sound = verdicts.iter().all(LogVerdict::is_sound);
    if as_json {
        let logs: Vec<Value> = verdicts.iter().map(verdict_json).collect();
        writeln!(out, "{}", json!({ "sound": sound, "logs": logs }))?;
    } else {
        for verdict in &verdicts {
            write_verdict(verdict, out)?;
        }
    }
    Ok(if sound { Exit::Ok } else { Exit::Data })
}

fn verdict_json(verdict: &LogVerdict) -> Value {
    let damage = verdict.damage.iter().map(|damage| {
        json!({
            "path": damage.path,
            "offset": damage.offset,
            "from": damage.from.get(),
            "to": damage.to.get(),
            "detail": damage.damage.to_string(),
        })
    });
    let checkpoints = verdict.checkpoints.iter().map(|(path, checkpoint)| {
        json!({
            "path": path,
            "covers": checkpoint.as_ref().ok().map(|head| head.covers.get()),
            "fault": checkpoint.as_ref().err().map(|fault| chain(fault)),
        })
    });
    let torn = verdict.torn.as_ref().map(|torn| {
        json!({ "path": torn.path, "offset": torn.offset, "lsn": torn.lsn.get(), "bytes": torn.bytes })
    });
    json!({
        "log": verdict.log.to_string(),
        "sound": verdict.is_sound(),
        "end": verdict.end.map(Lsn::get),
        "sealed": verdict.sealed,
        "frames": verdict.frames,
        "bytes": verdict.bytes,
        "torn": torn,
        "watermark_slot_damaged": verdict.watermark_slot_damaged,
        "damage": damage.collect::<Vec<_>>(),
        "checkpoints": checkpoints.collect::<Vec<_>>(),
    })
}

fn write_verdict(verdict: &LogVerdict, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "log {}: {}, {} frames, {} bytes, {}",
        verdict.log,
        if verdict.is_sound() {
            "sound"
        } else {
            "DAMAGED"
        },
        verdict.frames,
        verdict.bytes,
        if verdict.sealed {
            "sealed"
        } else {
            "not sealed"
        },
    )?;
    if let Some(torn) = &verdict.torn {
        let path = torn.path.display();
        writeln!(
            out,
            "  torn: {path} at {}, {} bytes; the next start cuts them",
            torn.offset, torn.bytes
        )?;
    }
    if verdict.watermark_slot_damaged {
        writeln!(out, "  one slot of the watermark does not verify")?;
    }
    for damage in &verdict.damage {
        writeln!(out, "  damaged: {damage}: {}", damage.damage)?;
    }
    for (path, checkpoint) in &verdict.checkpoints {
        match checkpoint {
            Ok(head) => writeln!(
                out,
                "  checkpoint {}: covers {}",
                path.display(),
                head.covers
            )?,
            Err(fault) => writeln!(out, "  damaged: {}: {}", path.display(), chain(fault))?,
        }
    }
    Ok(())
}

fn dump(disk: &Disk, arguments: &DumpArguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let (_, in_use) = inspect::logs_in_use(disk)?;
    let logs = match arguments.log {
        None => in_use,
        Some(LogName(log)) if in_use.contains(&log) => vec![log],
        Some(LogName(log)) => return Err(Failure::NoLog(log)),
    };
    let mut sound = true;
    for log in logs {
        let verdict = inspect::dump(disk, log, arguments.from, |lsn, kind, payload| {
            let line = frame_line(log, lsn, kind, payload);
            if arguments.json {
                writeln!(out, "{}", line.json())?;
            } else {
                writeln!(out, "{line}")?;
            }
            Ok(())
        });
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(InspectError::Log {
                source: OpenError::Visit { source, .. },
                ..
            }) => {
                let written = source.downcast::<io::Error>();
                return Err(written.map_or_else(io::Error::other, |error| *error).into());
            }
            Err(error) => return Err(error.into()),
        };
        for damage in &verdict.damage {
            eprintln!(
                "syncline: log {log} is damaged: {damage}: {}",
                damage.damage
            );
        }
        sound &= verdict.damage.is_empty();
    }
    Ok(if sound { Exit::Ok } else { Exit::Data })
}

fn refuse(failure: &Failure) -> Exit {
    let exit = match failure {
        Failure::NoDirectory(_) | Failure::NoLog(_) => Exit::NoInput,
        Failure::Inspect(InspectError::NoSuperblock { .. }) => Exit::Data,
        Failure::Inspect(InspectError::Log {
            source: OpenError::NewerFormat { .. },
            ..
        }) => Exit::Data,
        Failure::Inspect(_) => Exit::Io,
        // `syncline wal dump DIR | head` is no error.
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Ok,
        Failure::Output(_) => Exit::Io,
    };
    eprintln!("syncline: {}", chain(failure));
    exit
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn parse_lsn(text: &str) -> Result<Lsn, String> {
    let bytes = text.parse().ok();
    bytes
        .and_then(Lsn::checked)
        .ok_or_else(|| "an LSN is a multiple of 8, below 2^51".to_owned())
}

impl FromStr for LogName {
    type Err = String;

    fn from_str(text: &str) -> Result<LogName, String> {
        let (generation, shard) = text
            .split_once('/')
            .ok_or("expected GENERATION/SHARD, such as 1/0")?;
        let number = |text: &str| {
            text.parse()
                .map_err(|_| format!("{text:?} is no number below 65536"))
        };
        Ok(LogName(LogId {
            generation: number(generation)?,
            shard: number(shard)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use clap::Parser;
    use net::client::{Client, Options};
    use syncline::Engine;
    use syncline::settings::Settings;
    use tempfile::TempDir;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// The data directory of an engine that took two events, the second of them wrong, and stopped.
    fn data() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("syncline.toml");
        let text = format!(
            "[server]\ndata_dir = {:?}\n[listen]\ntcp = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
             [shards]\ncount = 1\n[wal]\nsegment_bytes = \"2MiB\"\n\
             [providers.crm]\ntype = \"rest\"\nbase_url = \"http://127.0.0.1:1\"\n",
            folder.path().join("data")
        );
        fs::write(&config, text).unwrap();
        let engine = Engine::start(&Settings::load(Some(&config)).unwrap()).unwrap();
        let mut client = Client::connect(Options::new(engine.tcp().to_string(), "test")).unwrap();
        client
            .send(br#"{"operation":"UPSERT","provider":"crm","object":"contact","record_id":"c-1","data":{"a":1}}"#)
            .unwrap();
        client.send(br#"{"operation":"NONSENSE"}"#).unwrap();
        client.flush().unwrap();
        engine.shutdown().unwrap();
        folder
    }

    fn looked(command: &[&str], folder: &TempDir) -> (Result<Exit, Failure>, String) {
        let data = folder.path().join("data");
        let (verb, options) = command.split_first().unwrap();
        let line = ["wal", verb, data.to_str().unwrap()]
            .into_iter()
            .chain(options.iter().copied());
        let mut out = Vec::new();
        let exit = look(&Line::parse_from(line).arguments, &mut out);
        (exit, String::from_utf8(out).unwrap())
    }

    fn seen(command: &[&str], folder: &TempDir) -> String {
        let (exit, text) = looked(command, folder);
        assert_eq!(exit.unwrap(), Exit::Ok, "{text}");
        text
    }

    #[test]
    fn a_sound_directory_is_listed_verified_and_shown() {
        let folder = data();
        let stat = seen(&["stat"], &folder);
        assert!(stat.contains("closed") && stat.contains("live"), "{stat}");
        let stat: Value = serde_json::from_str(&seen(&["stat", "--json"], &folder)).unwrap();
        assert_eq!(stat["superblock"]["shards"], 1);
        let verdict = seen(&["verify"], &folder);
        assert!(
            verdict.contains("log 1/0: sound") && verdict.contains(", sealed"),
            "{verdict}"
        );
        let shown = seen(&["dump"], &folder);
        assert!(
            shown.contains("event") && shown.contains(r#"data={"a":1}"#),
            "{shown}"
        );

        let lines = seen(&["dump", "--json", "--log", "1/0"], &folder);
        let frames: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of_kind = |kind: &str| frames.iter().find(|frame| frame["kind"] == kind).unwrap();
        let event = of_kind("event");
        assert_eq!(
            (event["record_id"].as_str(), event["seq"].as_u64()),
            (Some("c-1"), Some(1))
        );
        assert_eq!(of_kind("consumed")["seqs"], json!([2]));
        assert!(
            frames.iter().all(|frame| frame.get("error").is_none()),
            "{lines}"
        );
        let from = of_kind("consumed")["lsn"].to_string();
        let rest = seen(&["dump", "--json", "--from", &from], &folder);
        assert!(lines.ends_with(&rest) && rest.len() < lines.len());
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let folder = data();
        let lines = seen(&["dump", "--json"], &folder);
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        let segment = folder.path().join("data/log-0001-0000/0000000001.seg");
        let file = fs::File::options().write(true).open(&segment).unwrap();
        file.write_all_at(b"?", first["lsn"].as_u64().unwrap() + 5)
            .unwrap();
        let (exit, verdict) = looked(&["verify", "--json"], &folder);
        assert_eq!(exit.unwrap(), Exit::Data);
        let verdict: Value = serde_json::from_str(&verdict).unwrap();
        assert_eq!(verdict["sound"], false);
        assert_eq!(verdict["logs"][0]["damage"][0]["path"], json!(segment));
        assert_eq!(looked(&["dump"], &folder).0.unwrap(), Exit::Data);
    }

    #[test]
    fn what_is_no_data_directory_is_told_apart_from_one_that_lost_its_superblock() {
        let empty = tempfile::tempdir().unwrap();
        let missing = looked(&["verify"], &empty).0.unwrap_err();
        assert_eq!(refuse(&missing), Exit::NoInput);
        let folder = data();
        let other = looked(&["dump", "--log", "1/7"], &folder).0.unwrap_err();
        assert_eq!(refuse(&other), Exit::NoInput);
        fs::remove_file(folder.path().join("data").join(::wal::SUPERBLOCK_FILE)).unwrap();
        let lost = looked(&["verify"], &folder).0.unwrap_err();
        assert_eq!(refuse(&lost), Exit::Data);
    }
}
