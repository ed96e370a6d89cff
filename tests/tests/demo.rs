//! The demo ends with a verdict that holds, and cleans up behind itself.

use std::process::Command;

use syncline_tests::process::program;

#[test]
fn a_short_demo_ends_with_a_verdict_that_holds() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("target")).unwrap();
    let demo = Command::new(program())
        .args([
            "demo",
            "--no-tty",
            "--duration",
            "6",
            "--rate",
            "40",
            "--seed",
            "5",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&demo.stdout);
    assert!(
        demo.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&demo.stderr)
    );
    for part in [
        "SIGKILL at",
        "an outage",
        "before and after mapping",
        "The verdict holds.",
    ] {
        assert!(told.contains(part), "no {part:?} in\n{told}");
    }
    let left = std::fs::read_dir(folder.path().join("target")).unwrap();
    assert_eq!(left.count(), 0, "the demo's folder is removed");
}
