//! Where this project's files are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

/// The project's root.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in the project's folder")
}

/// The folder that this binary was built into, such as `target/release`.
pub(crate) fn built_into() -> io::Result<PathBuf> {
    let exe = env::current_exe()?;
    let folder = exe.parent().unwrap_or(Path::new("."));
    // Tests of this crate are built one level below.
    let folder = match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    Ok(folder.to_owned())
}

/// The `target` folder.
pub(crate) fn target() -> io::Result<PathBuf> {
    let built_into = built_into()?;
    Ok(built_into.parent().unwrap_or(Path::new(".")).to_owned())
}

/// A program from Debian: unpacked under `target/debian`, fetched there if that is allowed, or
/// the system's own.
#[derive(Debug)]
pub(crate) struct DebianTool {
    path: PathBuf,
    library_path: String,
}

impl DebianTool {
    /// The program of this name; otherwise why there is none.
    pub(crate) fn find(name: &str) -> Result<DebianTool, String> {
        let fetched = Command::new(project().join("tools/debian.sh"))
            .arg(name)
            .output()
            .map_err(|error| format!("tools/debian.sh: {error}"))?;
        let folder = target()
            .map_err(|error| format!("target: {error}"))?
            .join("debian");
        let unpacked = ["usr/sbin", "usr/bin"]
            .iter()
            .map(|sub| folder.join(sub).join(name));
        let path = env::var_os("PATH").unwrap_or_default();
        let installed = env::split_paths(&path).map(|dir| dir.join(name));
        let Some(path) = unpacked.chain(installed).find(|path| path.is_file()) else {
            let said = String::from_utf8_lossy(&fetched.stdout);
            return Err(match said.trim() {
                "" => "not installed".to_owned(),
                said => format!("not installed; {said}"),
            });
        };
        let libraries = Command::new(project().join("tools/debian.sh"))
            .arg("--library-path")
            .output()
            .map_err(|error| format!("tools/debian.sh: {error}"))?;
        Ok(DebianTool {
            path,
            library_path: String::from_utf8_lossy(&libraries.stdout).trim().to_owned(),
        })
    }

    /// To be run with arguments.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if !self.library_path.is_empty() {
            command.env("LD_LIBRARY_PATH", &self.library_path);
        }
        command
    }
}
