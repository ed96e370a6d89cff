//! What can be done with provider definitions: no node is needed.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use engine::provider::{CallKind, Definition, SCHEMA, shipped, shipped_ids};
use serde_json::{Value, json};

use super::super::exit::Exit;
use super::super::outcome::{Failure, print_json};
use super::super::table::Table;

/// Lists what comes with this version.
pub(super) fn list(as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let rows: Vec<Value> = shipped_ids().filter_map(row).collect();
    if as_json {
        print_json(out, &json!({ "definitions": rows }))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAME", "BASE URL", "OPERATIONS", "LIMITS"]);
    for row in &rows {
        table.row(&["name", "base_url", "operations", "limits"].map(|column| &row[column]));
    }
    table.write(out)?;
    Ok(Exit::Ok)
}

fn row(id: &str) -> Option<Value> {
    let definition = Definition::parse(shipped(id)?).ok()?;
    let kinds = CallKind::ALL.into_iter();
    let kinds: Vec<&str> = kinds
        .filter(|kind| definition.operation(*kind).is_some())
        .map(CallKind::as_str)
        .collect();
    let limits: Vec<&str> = definition
        .limits()
        .iter()
        .map(|limit| limit.name.as_str())
        .collect();
    Some(json!({
        "name": id,
        "base_url": definition.base_url(),
        "operations": kinds.join(" "),
        "limits": limits.join(" "),
    }))
}

/// Prints the text of a shipped definition.
pub(super) fn show(name: &str, out: &mut impl Write) -> Result<Exit, Failure> {
    let Some(text) = shipped(name) else {
        let known = shipped_ids().collect::<Vec<_>>().join(", ");
        writeln!(
            io::stderr(),
            "syncline: no definition {name:?}; there are {known}"
        )?;
        return Ok(Exit::Unavailable);
    };
    write!(out, "{text}")?;
    Ok(Exit::Ok)
}

/// Prints all faults of a file, one a line, as compilers do.
pub(super) fn lint(file: &Path, as_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let shown = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            writeln!(io::stderr(), "syncline: cannot read {shown}: {error}")?;
            return Ok(Exit::NoInput);
        }
    };
    let findings = engine::provider::lint(&text);
    if as_json {
        let findings = findings
            .iter()
            .map(|found| json!({"line": found.line, "key": found.key, "reason": found.reason}));
        let findings: Vec<Value> = findings.collect();
        print_json(
            out,
            &json!({"file": shown.to_string(), "findings": findings}),
        )?;
    } else {
        for found in &findings {
            match found.key.as_str() {
                "" => writeln!(out, "{shown}:{}: {}", found.line, found.reason)?,
                key => writeln!(out, "{shown}:{}: {key}: {}", found.line, found.reason)?,
            }
        }
    }
    Ok(if findings.is_empty() {
        Exit::Ok
    } else {
        Exit::Data
    })
}

/// Prints the JSON Schema of the format.
pub(super) fn schema(out: &mut impl Write) -> Result<Exit, Failure> {
    write!(out, "{SCHEMA}")?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linted(text: &str, as_json: bool) -> (Exit, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("crm.toml");
        fs::write(&file, text).unwrap();
        let mut out = Vec::new();
        let exit = lint(&file, as_json, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        (exit, out.replace(&file.display().to_string(), "crm.toml"))
    }

    #[test]
    fn a_fault_is_told_with_file_line_and_key() {
        let faulty = "[provider]\nid = \"x\"\nformat = 1\n[operations.read]\nmethod = \"GET\"\npath = \"/{id}\"\nidempotent = true\n";
        let (exit, out) = linted(faulty, false);
        assert_eq!(exit, Exit::Data);
        assert!(
            out.starts_with("crm.toml:6: operations.read.path: unknown placeholder `{id}`"),
            "{out}"
        );
        let (_, out) = linted(faulty, true);
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(out["findings"][0]["line"], 6);
        let (_, out) = linted("[provider", false);
        assert!(out.starts_with("crm.toml:1: "), "{out}");
    }

    #[test]
    fn what_ships_can_be_listed_shown_and_linted() {
        let mut out = Vec::new();
        list(false, &mut out).unwrap();
        let listed = String::from_utf8(out).unwrap();
        for id in shipped_ids() {
            assert!(listed.contains(id), "{listed}");
            let mut text = Vec::new();
            assert_eq!(show(id, &mut text).unwrap(), Exit::Ok);
            let (exit, out) = linted(&String::from_utf8(text).unwrap(), false);
            assert_eq!((exit, out.as_str()), (Exit::Ok, ""), "{id}");
        }
        assert_eq!(
            show("none such", &mut Vec::new()).unwrap(),
            Exit::Unavailable
        );
        let missing = lint(Path::new("no such file"), false, &mut Vec::new()).unwrap();
        assert_eq!(missing, Exit::NoInput);
    }

    #[test]
    fn the_schema_is_json() {
        let mut out = Vec::new();
        schema(&mut out).unwrap();
        assert!(serde_json::from_slice::<Value>(&out).is_ok());
    }
}
