//! House rules that no compiler sees.

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this hides a concept that wants a file of its own.
const RUST_LINES_MAX: usize = 900;

/// A module is named after the thing inside it.
const SHAPELESS: [&str; 4] = ["utils", "helpers", "common", "types"];

/// Providers are data under `providers/`; code that names one would treat it specially.
const PROVIDER_NAMES: [&str; 5] = ["salesforce", "hubspot", "outreach", "pipedrive", "zoho"];

/// Places of one machine.
const MACHINE_PATHS: [&str; 3] = ["/work", "/root", "/home"];

#[test]
fn no_rust_file_is_over_its_length() {
    check_rust(|file| {
        let lines = file.text.lines().count();
        (lines > RUST_LINES_MAX).then(|| format!("{lines} lines, {RUST_LINES_MAX} are allowed"))
    });
}

#[test]
fn modules_are_named_after_what_is_inside() {
    check_rust(|file| {
        let stem = file.path.file_stem().unwrap_or_default();
        let folder = file.path.parent().and_then(Path::file_name);
        let named = [Some(stem), folder].into_iter().flatten();
        named
            .filter_map(|name| name.to_str())
            .find(|name| SHAPELESS.contains(name))
            .map(|name| format!("`{name}` says nothing"))
    });
}

#[test]
fn code_names_no_provider() {
    check_rust(|file| {
        if file.is_test() || file.path.starts_with("mock") {
            return None;
        }
        file.code_lines().find_map(|(line, code)| {
            let code = code.to_ascii_lowercase();
            let name = PROVIDER_NAMES
                .into_iter()
                .find(|name| code.contains(name))?;
            Some(format!("line {line} names {name}"))
        })
    });
}

#[test]
fn the_log_the_core_and_the_tests_never_sleep() {
    // What they test is a connection that was idle for a while; they wait for nothing else.
    const IDLE_IS_THE_SUBJECT: [&str; 2] = ["net/tests/egress.rs", "net/tests/egress_tls.rs"];
    check_rust(|file| {
        if IDLE_IS_THE_SUBJECT
            .iter()
            .any(|path| file.path == Path::new(path))
        {
            return None;
        }
        let all = file.is_test() || file.path.starts_with("engine") || file.path.starts_with("wal");
        let lines = file.text.lines().enumerate();
        let tests_from = if all { 0 } else { file.unit_tests_from() };
        lines
            .skip(tests_from)
            .filter(|(_, line)| !is_comment(line))
            .find(|(_, line)| sleeps(line))
            .map(|(at, _)| format!("line {} sleeps", at + 1))
    });
}

#[test]
fn links_in_documents_lead_to_files() {
    check_documents(|file, root| {
        links(&file.text).find_map(|link| {
            let path = link.split('#').next().unwrap_or_default();
            let elsewhere = link.contains("://") || link.starts_with("mailto:");
            if elsewhere || path.is_empty() {
                return None;
            }
            let from = file.path.parent().unwrap_or(Path::new(""));
            (!root.join(from).join(path).exists()).then(|| format!("dead link {link}"))
        })
    });
}

#[test]
fn documents_name_no_place_of_one_machine() {
    check_documents(|file, _| {
        file.text.lines().enumerate().find_map(|(at, line)| {
            let path = MACHINE_PATHS.into_iter().find(|path| names(line, path))?;
            Some(format!("line {} names {path}", at + 1))
        })
    });
}

#[test]
fn the_map_in_the_architecture_names_what_exists() {
    let root = root();
    let Ok(text) = fs::read_to_string(root.join("docs/ARCHITECTURE.md")) else {
        panic!("docs/ARCHITECTURE.md is missing");
    };
    let folders: Vec<String> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| format!("{}/", entry.file_name().to_string_lossy()))
        .collect();
    let missing: Vec<String> = code_spans(&text)
        .filter(|span| folders.iter().any(|folder| span.starts_with(folder)))
        .filter(|span| !span.contains(|c: char| c.is_whitespace() || "*<>:".contains(c)))
        .flat_map(expand_braces)
        .filter(|path| !root.join(path).exists())
        .collect();
    assert!(missing.is_empty(), "docs/ARCHITECTURE.md names {missing:?}");
}

#[test]
fn the_rules_read_code_and_documents_as_people_do() {
    assert!(names("see /work/main", "/work"));
    assert!(names("`/work`", "/work"));
    assert!(!names("docs/workings of /workers", "/work"));
    // Put together here so that this file does not find itself.
    assert!(sleeps(concat!("    std::thread::sleep", "(a)")));
    assert!(!sleeps("fn they_never_sleep() {"));
    assert_eq!(
        links("see [a](b.md#c) and ![d](e.png), `[x](no)`").collect::<Vec<_>>(),
        ["b.md#c", "e.png"]
    );
    assert_eq!(
        expand_braces("wal/src/{frame,segment}.rs"),
        ["wal/src/frame.rs", "wal/src/segment.rs"]
    );
    let file = File {
        path: PathBuf::from("net/src/a.rs"),
        text: "use b;\n// c\nfn d() {} // e\n#[cfg(test)]\nmod tests {}\n".to_owned(),
    };
    assert_eq!(
        file.code_lines().collect::<Vec<_>>(),
        [(1, "use b;"), (3, "fn d() {} ")]
    );
    assert_eq!(file.unit_tests_from(), 3);
}

struct File {
    /// From the project's root.
    path: PathBuf,
    text: String,
}

impl File {
    /// Whether nothing of it is in the product.
    fn is_test(&self) -> bool {
        let mut parts = self.path.components().map(|part| part.as_os_str());
        parts.any(|part| part == "tests" || part == "examples")
    }

    /// How many lines come before the unit tests, which end the file.
    fn unit_tests_from(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let begins = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ");
        lines.windows(2).position(begins).unwrap_or(lines.len())
    }

    /// Numbered lines before the unit tests, without comments.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .take(self.unit_tests_from())
            .enumerate()
            .filter(|(_, line)| !is_comment(line))
            .map(|(at, line)| (at + 1, line.split("// ").next().unwrap_or(line)))
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether `path` stands in `line` as a path of its own.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let joins = |c: char| c.is_alphanumeric() || "._-".contains(c);
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        !before.is_some_and(joins) && !after.is_some_and(joins)
    })
}

/// Whether a function of the name `sleep` is called, whichever it is.
fn sleeps(code: &str) -> bool {
    code.match_indices("sleep(").any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_\"".contains(c))
    })
}

/// Targets of Markdown links outside code spans.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').step_by(2).flat_map(|prose| {
        prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
    })
}

fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expand_braces(span: &str) -> Vec<String> {
    let Some((before, rest)) = span.split_once('{') else {
        return vec![span.to_owned()];
    };
    let (choices, after) = rest.split_once('}').unwrap_or((rest, ""));
    choices
        .split(',')
        .map(|choice| format!("{before}{}{after}", choice.trim()))
        .collect()
}

fn check_rust(fault: impl Fn(&File) -> Option<String>) {
    report(files("rs").iter().map(|file| (file, fault(file))));
}

fn check_documents(fault: impl Fn(&File, &Path) -> Option<String>) {
    let root = root();
    let files = files("md");
    report(files.iter().map(|file| (file, fault(file, &root))));
}

fn report<'a>(files: impl Iterator<Item = (&'a File, Option<String>)>) {
    let faults: Vec<String> = files
        .filter_map(|(file, fault)| Some(format!("{}: {}", file.path.display(), fault?)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every file of the project with this extension.
fn files(extension: &str) -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("the project can be read") {
            let path = entry.expect("the project can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ext| ext == extension) {
                let text = fs::read_to_string(&path).expect("our files are UTF-8");
                let path = path.strip_prefix(&root).unwrap_or(&path).to_owned();
                found.push(File { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "the project has {extension} files");
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in the project's folder")
        .to_owned()
}
