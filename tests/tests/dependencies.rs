//! Which crate may lean on which, and what none of them may pull in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Our crates, and those of ours that each may use outside its tests.
const OURS: [(&str, &[&str]); 8] = [
    ("syncline-wal", &[]),
    ("syncline-engine", &["syncline-wal"]),
    ("syncline-net", &["syncline-engine"]),
    ("syncline-postgres", &[]),
    ("syncline-mock", &[]),
    (
        "syncline",
        &[
            "syncline-wal",
            "syncline-engine",
            "syncline-net",
            "syncline-postgres",
            "syncline-mock",
        ],
    ),
    (
        "syncline-bench",
        &[
            "syncline",
            "syncline-wal",
            "syncline-engine",
            "syncline-net",
            "syncline-postgres",
            "syncline-mock",
        ],
    ),
    (
        "syncline-tests",
        &[
            "syncline",
            "syncline-wal",
            "syncline-engine",
            "syncline-net",
            "syncline-postgres",
            "syncline-mock",
        ],
    ),
];

/// The log and the core know no runtime, no socket and no TLS.
const BANNED_BELOW_NET: [&str; 5] = ["tokio", "hyper", "axum", "monoio", "rustls"];

const BANNED: [(&str, &str); 4] = [
    (
        "openssl-sys",
        "needs a C library that a fresh clone lacks; TLS is rustls with ring",
    ),
    ("rustls-pemfile", "unmaintained; rustls-pki-types reads PEM"),
    ("core_affinity", "unmaintained; rustix sets thread affinity"),
    ("reqwest", "a second HTTP client beside our own pool"),
];

/// Each package is offered under at least one of these.
const LICENCES: [&str; 13] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn our_crates_lean_on_each_other_in_one_direction_only() {
    let graph = Graph::load();
    let ours: BTreeSet<&str> = OURS.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in OURS {
        for used in graph.uses(name).filter(|used| ours.contains(used)) {
            assert!(allowed.contains(&used), "{name} may not depend on {used}");
        }
    }
}

#[test]
fn every_crate_of_the_workspace_has_its_rule() {
    let members = Graph::load().members;
    let ruled: BTreeSet<String> = OURS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(members, ruled);
}

#[test]
fn the_log_and_the_core_reach_no_runtime_socket_or_tls() {
    let graph = Graph::load();
    for crate_name in ["syncline-wal", "syncline-engine"] {
        let reached = graph.reaches(crate_name);
        for banned in BANNED_BELOW_NET {
            assert!(!reached.contains(banned), "{crate_name} reaches {banned}");
        }
    }
}

#[test]
fn no_banned_package_is_reached_from_anywhere() {
    let graph = Graph::load();
    for (banned, why) in BANNED {
        assert!(!graph.uses.contains_key(banned), "{banned}: {why}");
    }
}

#[test]
fn every_package_comes_under_an_accepted_licence() {
    for (package, licence) in Graph::load().licences {
        assert!(
            is_accepted(&licence),
            "{package} is licensed as {licence:?}"
        );
    }
}

#[test]
fn a_licence_expression_needs_every_part_joined_by_and() {
    for accepted in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-2.0 OR BSD-3-Clause",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_accepted(accepted), "{accepted}");
    }
    for refused in ["", "AGPL-3.0-only", "MIT AND AGPL-3.0-only", "GPL-2.0"] {
        assert!(!is_accepted(refused), "{refused}");
    }
}

/// Exact for the forms in use: choices, in parentheses or alone, joined by `AND`.
fn is_accepted(expression: &str) -> bool {
    expression.split(" AND ").all(|part| {
        part.trim_matches(['(', ')', ' '])
            .split(" OR ")
            .flat_map(|choice| choice.split('/'))
            .any(|licence| LICENCES.contains(&licence.trim()))
    })
}

/// What cargo resolved, by package name.
struct Graph {
    members: BTreeSet<String>,
    /// Every package in use, and what it uses itself outside tests.
    uses: BTreeMap<String, BTreeSet<String>>,
    licences: BTreeMap<String, String>,
}

impl Graph {
    fn load() -> Graph {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--locked"])
            .current_dir(root)
            .output()
            .expect("cargo runs these tests");
        assert!(
            output.status.success(),
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let names: BTreeMap<String, String> = list(&metadata["packages"])
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let licences = list(&metadata["packages"])
            .map(|package| (text(&package["name"]), text(&package["license"])))
            .collect();
        let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let used = list(&node["deps"]).filter(|dep| {
                // A kind of null is a normal dependency; "build" and "dev" are the others.
                list(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null())
            });
            uses.entry(names[&text(&node["id"])].clone())
                .or_default()
                .extend(used.map(|dep| names[&text(&dep["pkg"])].clone()));
        }
        let members = list(&metadata["workspace_members"])
            .map(|id| names[&text(id)].clone())
            .collect();
        Graph {
            members,
            uses,
            licences,
        }
    }

    fn uses(&self, package: &str) -> impl Iterator<Item = &str> {
        self.uses[package].iter().map(String::as_str)
    }

    fn reaches(&self, package: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = self.uses(package).collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(self.uses(next));
            }
        }
        reached
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
