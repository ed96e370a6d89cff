//! Embeds every definition in `providers/`: adding a provider is adding a file.

use std::{env, fmt::Write as _, fs, path::Path};

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    let out = env::var("OUT_DIR").expect("cargo sets it for build scripts");
    let providers = Path::new(&manifest).join("../providers");
    println!("cargo::rerun-if-changed={}", providers.display());

    let mut files: Vec<_> = fs::read_dir(&providers)
        .expect("the workspace has a providers folder")
        .map(|entry| entry.expect("a readable folder entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();

    let mut table = String::from("&[\n");
    for path in &files {
        println!("cargo::rerun-if-changed={}", path.display());
        let id = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a UTF-8 file name");
        let path = path.canonicalize().expect("the file was just listed");
        let path = path.to_str().expect("a UTF-8 path");
        writeln!(table, "    ({id:?}, include_str!({path:?})),").expect("writing to a String");
    }
    table.push(']');
    fs::write(Path::new(&out).join("shipped_definitions.rs"), table).expect("OUT_DIR is writable");
}
