//! Where the program under test is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program `syncline`, built from the sources as they are now.
///
/// `cargo test` builds libraries but no other package's program, so each test binary asks Cargo
/// once; where it is fresh that takes a moment. Without Cargo the program must lie beside the
/// test binary already.
///
/// # Panics
/// When it does not build, or is not there.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // target/PROFILE/deps/TEST-HASH
        let test = std::env::current_exe().expect("a test knows its own path");
        let folder = test
            .ancestors()
            .nth(2)
            .expect("a test lies in a profile's folder");
        if let Some(cargo) = std::env::var_os("CARGO") {
            build(&cargo, folder);
        }
        let program = folder.join("syncline");
        assert!(
            program.is_file(),
            "{} is not there; build it first",
            program.display()
        );
        program
    })
}

fn build(cargo: &OsStr, folder: &Path) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut command = Command::new(cargo);
    // What Cargo tells this test of its own package is no part of that build; build scripts that
    // read it would run again, and once more for the next test.
    for (name, _) in std::env::vars_os() {
        let own = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        if ABOUT_A_PACKAGE.iter().any(|prefix| own(prefix)) {
            command.env_remove(name);
        }
    }
    // All members at once, so that features of dependencies are those of the tests' own build.
    let output = command
        .args(["build", "--quiet", "--workspace", "--bin", "syncline"])
        .args(["--profile", profile, "--target-dir"])
        .arg(
            folder
                .parent()
                .expect("a profile's folder lies in the target folder"),
        )
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("Cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const ABOUT_A_PACKAGE: [&str; 6] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_CRATE_",
    "CARGO_BIN_",
    "CARGO_PRIMARY_",
    "OUT_DIR",
];
