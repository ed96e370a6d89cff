//! `syncline test`: what schemas, rules and mappings make of given events, held against what is
//! expected of them.

mod case;
mod difference;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use syncline::Rehearsal;
use syncline::settings::Settings;

use self::case::read_cases;
use super::exit::Exit;

/// Fixture files of one run: far over what a project has.
const FILES_MAX: usize = 10_000;

/// Runs mapping and rule fixtures: given events, expected outcomes. No network, no disk but to read
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline test fixtures\n\n\
    Reads every .toml and .json file below the folder but the config file itself:\n  \
      [[case]]\n  \
      name = \"inactive contacts are not updated\"\n  \
      given = { operation = \"UPDATE\", record_id = \"c-1\", data = { status = \"inactive\" } }\n  \
      expect.crm = { action = \"skip\", rule = 1 }\n\n\
    Exits with 0 when all hold, with 1 when one does not, with 78 when the settings are wrong.")]
pub(crate) struct Arguments {
    /// The folder with the fixtures
    dir: PathBuf,
    /// The settings to test; by default syncline.toml in the folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prints the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A case that does not hold.
struct Failed {
    file: String,
    name: String,
    differences: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    match test(arguments) {
        Ok(exit) => exit,
        Err((exit, message)) => {
            if writeln!(io::stderr(), "syncline: {message}").is_err() {
                return Exit::Io;
            }
            exit
        }
    }
}

fn test(arguments: &Arguments) -> Result<Exit, (Exit, String)> {
    let default = arguments.dir.join("syncline.toml");
    let config = arguments.config.as_ref().unwrap_or(&default);
    let settings = Settings::load(Some(config))
        .map_err(|problems| (Exit::Config, format!("\n{}", problems.one_liners())))?;
    let rehearsal = Rehearsal::new(&settings).map_err(|error| (Exit::Config, error.to_string()))?;
    let mut files = Vec::new();
    find_files(&arguments.dir, &mut files).map_err(|error| {
        (
            Exit::NoInput,
            format!("{}: {error}", arguments.dir.display()),
        )
    })?;
    files.retain(|file| !is_same(file, config));
    files.sort();
    let mut passed = 0;
    let mut failed = Vec::new();
    for file in &files {
        let cases = read_cases(file)
            .map_err(|error| (Exit::Data, format!("{}: {error}", file.display())))?;
        for case in cases {
            match case.differences(&rehearsal) {
                differences if differences.is_empty() => passed += 1,
                differences => failed.push(Failed {
                    file: file.display().to_string(),
                    name: case.name,
                    differences,
                }),
            }
        }
    }
    if passed + failed.len() == 0 {
        let message = format!("no fixtures below {}", arguments.dir.display());
        return Err((Exit::NoInput, message));
    }
    let written = if arguments.json {
        print_json(passed, &failed)
    } else {
        print(passed, &failed)
    };
    Ok(match written {
        Err(_) => Exit::Io,
        Ok(()) if failed.is_empty() => Exit::Ok,
        Ok(()) => Exit::Failed,
    })
}

/// All `.toml` and `.json` files below a folder; folders of hidden names and of schemas are none.
fn find_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') || name == "schemas" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "toml" || e == "json") {
                files.push(path);
            }
            if files.len() + folders.len() > FILES_MAX {
                return Err(io::Error::other(format!("more than {FILES_MAX} files")));
            }
        }
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn print(passed: usize, failed: &[Failed]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for Failed {
        file,
        name,
        differences,
    } in failed
    {
        writeln!(out, "FAILED {file}: {name}")?;
        for difference in differences {
            writeln!(out, "  {difference}")?;
        }
    }
    writeln!(out, "{passed} passed, {} failed", failed.len())
}

fn print_json(passed: usize, failed: &[Failed]) -> io::Result<()> {
    let failed: Vec<Value> = failed
        .iter()
        .map(|failed| {
            json!({
                "file": failed.file, "name": failed.name, "differences": failed.differences,
            })
        })
        .collect();
    writeln!(
        io::stdout().lock(),
        "{}",
        json!({"passed": passed, "failed": failed})
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(dir: &Path) -> Arguments {
        Arguments {
            dir: dir.to_owned(),
            config: None,
            json: false,
        }
    }

    fn sample(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/samples/fixtures");
        std::fs::read_to_string(path.join(name)).expect("the samples are shipped")
    }

    /// A folder with the sample's settings and this fixture.
    fn folder(fixture: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("the folder is ours");
        };
        write("syncline.toml", &sample("syncline.toml"));
        write("case.toml", fixture);
        let schemas = folder.path().join("schemas");
        std::fs::create_dir(&schemas).expect("the folder is ours");
        std::fs::write(schemas.join("contact.json"), sample("schemas/contact.json"))
            .expect("the folder is ours");
        folder
    }

    #[test]
    fn the_shipped_fixtures_hold() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/samples/fixtures");
        assert_eq!(test(&arguments(&dir)), Ok(Exit::Ok));
    }

    #[test]
    fn a_case_that_does_not_hold_fails() {
        for expectation in [
            "expect.sales = { action = \"skip\" }",
            "expect.sales = { rule = 9 }",
            "expect.sales = { fields = { FirstName = \"Eve\" } }",
            "expect.sales = { fails_at = \"/data/email\" }",
            "expect.nobody = { action = \"sync\" }",
            "refused = { code = \"schema\" }",
        ] {
            let fixture = format!(
                "[[case]]\nname = \"x\"\ngiven = {{ operation = \"UPDATE\", record_id = \"1\", \
                 data = {{ first_name = \"Ada\" }} }}\n{expectation}\n"
            );
            let folder = folder(&fixture);
            let ended = test(&arguments(folder.path()));
            assert_eq!(ended, Ok(Exit::Failed), "{expectation}");
        }
    }

    #[test]
    fn what_is_no_fixture_is_told() {
        let broken = folder("[[case]]\nname = \"x\"\nexpects = 1\n");
        let (exit, message) = test(&arguments(broken.path())).expect_err("an unknown key");
        assert_eq!(exit, Exit::Data, "{message}");
        assert!(message.contains("case.toml"), "{message}");
        let nothing = folder("[[case]]\nname = \"x\"\ngiven = {}\n");
        let (exit, message) = test(&arguments(nothing.path())).expect_err("no expectation");
        assert_eq!(exit, Exit::Data);
        assert!(message.contains("expects nothing"), "{message}");
        let empty = folder("");
        std::fs::remove_file(empty.path().join("case.toml")).expect("it is there");
        let (exit, _) = test(&arguments(empty.path())).expect_err("no fixtures");
        assert_eq!(exit, Exit::NoInput);
        let absent = arguments(&empty.path().join("absent"));
        assert_eq!(test(&absent).expect_err("no settings").0, Exit::Config);
    }
}
