//! `syncline keys`: who may use the API. Works on the data directory; a running node notices.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use engine::view::Scope;
use serde_json::{Value, json};
use syncline::settings::Settings;
use syncline::{ApiKey, KeyFile};

use super::exit::Exit;
use super::table::Table;

/// Creates, lists and revokes keys of the API
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline keys create --name billing --scope ingest")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a key and shows it, this once
    #[command(
        after_help = "Example:\n  syncline keys create --name ada --scope admin --rate 20 --config syncline.toml"
    )]
    Create {
        /// Who has it; stands in the audit
        #[arg(long)]
        name: String,
        /// read, ingest or admin; admin is all of them
        #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
        scope: Vec<Scope>,
        /// Requests a second, at most
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
        #[command(flatten)]
        place: Place,
    },
    /// Lists keys, without their secrets
    #[command(after_help = "Example:\n  syncline keys list --config syncline.toml")]
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Ends a key; a running node refuses it within a second
    #[command(after_help = "Example:\n  syncline keys revoke 1f2e3d4c --config syncline.toml")]
    Revoke {
        /// The key's id, as `list` shows it
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The config file that names the data directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory itself
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let place = match &arguments.action {
        Action::Create { place, .. } | Action::List { place } | Action::Revoke { place, .. } => {
            place
        }
    };
    let file = match place.file() {
        Ok(file) => file,
        Err(exit) => return exit,
    };
    match act(&arguments.action, &file, &mut io::stdout().lock()) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("syncline: the keys: {error}");
            Exit::Io
        }
    }
}

impl Place {
    fn file(&self) -> Result<KeyFile, Exit> {
        if let Some(folder) = &self.data_dir {
            return Ok(KeyFile::of(folder));
        }
        match Settings::load(self.config.as_deref()) {
            Ok(settings) => Ok(KeyFile::of(Path::new(&settings.server.data_dir))),
            Err(problems) => {
                eprintln!("{problems}");
                Err(Exit::Config)
            }
        }
    }
}

fn act(action: &Action, file: &KeyFile, out: &mut impl Write) -> io::Result<Exit> {
    match action {
        Action::Create {
            name,
            scope,
            rate,
            place,
        } => {
            let (key, secret) = file.create(name, scope, *rate)?;
            if place.json {
                let mut told = key_json(&key);
                told["key"] = secret.into();
                writeln!(out, "{told}")?;
            } else {
                writeln!(out, "{secret}")?;
                eprintln!("key {} of {name}; it is not shown again", key.id);
            }
        }
        Action::List { place } => {
            let keys = file.list()?;
            if place.json {
                for key in &keys {
                    writeln!(out, "{}", key_json(key))?;
                }
            } else {
                let columns = ["id", "name", "scopes", "rate_per_second", "revoked"];
                let mut table = Table::new(&["ID", "NAME", "SCOPES", "RATE", "REVOKED"]);
                for key in &keys {
                    let told = key_json(key);
                    table.row(&columns.map(|column| &told[column]));
                }
                table.write(out)?;
            }
        }
        Action::Revoke { id, place } => match file.revoke(id)? {
            Some(key) if place.json => writeln!(out, "{}", key_json(&key))?,
            Some(key) => writeln!(out, "revoked {} of {}", key.id, key.name)?,
            None => {
                eprintln!("syncline: there is no key {id:?}");
                return Ok(Exit::Data);
            }
        },
    }
    Ok(Exit::Ok)
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::named(name).ok_or_else(|| "expected read, ingest or admin".to_owned())
}

fn key_json(key: &ApiKey) -> Value {
    let scopes: Vec<&str> = key.scopes().map(Scope::as_str).collect();
    json!({
        "id": key.id,
        "name": key.name,
        "scopes": scopes.join(","),
        "rate_per_second": key.rate_per_second,
        "revoked": key.revoked_at.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn told(folder: &Path, line: &[&str]) -> (Exit, String) {
        let arguments = Line::parse_from([&["keys"], line].concat()).arguments;
        let mut out = Vec::new();
        let exit = act(&arguments.action, &KeyFile::of(folder), &mut out).unwrap();
        (exit, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_key_is_shown_once_listed_and_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let create = [
            "create",
            "--name",
            "ada",
            "--scope",
            "read,ingest",
            "--json",
        ];
        let (_, made) = told(folder.path(), &create);
        let made: Value = serde_json::from_str(&made).unwrap();
        assert_eq!(made["scopes"], "read,ingest");
        let secret = made["key"].as_str().unwrap();
        let (_, listed) = told(folder.path(), &["list"]);
        assert!(
            listed.contains("ada") && !listed.contains(secret),
            "{listed}"
        );
        let id = made["id"].as_str().unwrap();
        let (exit, text) = told(folder.path(), &["revoke", id]);
        assert_eq!((exit, text), (Exit::Ok, format!("revoked {id} of ada\n")));
        assert_eq!(told(folder.path(), &["revoke", "none"]).0, Exit::Data);
        let wrong = ["keys", "create", "--name", "x", "--scope", "all"];
        assert!(Line::try_parse_from(wrong).is_err());
    }
}
