//! Where the program under test is.

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

fn build(cargo: &std::ffi::OsStr, folder: &Path) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    // All members at once, so that features of dependencies are those of the tests' own build.
    let output = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--workspace",
            "--bin",
            "syncline",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
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
