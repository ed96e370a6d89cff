//! A full disk: intake is refused and says so, delivery goes on, and both heal without a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use syncline_tests::process::{Answer, Config, Lines, Model, Node, Provider, Violations, until};

/// The 32 MiB that a node leaves to others, and some segments.
const DISK_MIB: usize = 64;
/// Bytes of an event's only field.
const LARGE: usize = 8 * 1024;
const SMALL: usize = 16;

#[test]
fn a_full_disk_refuses_intake_while_delivery_goes_on_and_heals_by_itself() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: full_disk (a tmpfs cannot be mounted here)");
        return;
    };
    let provider = Provider::start(&[]);
    let config = Config::new()
        .shards(1)
        .data_dir(&disk.path().join("data"))
        .account("crm", &provider.url(), "");
    let mut node = Node::start(config);
    let mut offers = Offers::default();
    assert_eq!(node.post("/v1/pause", r#"{"provider":"crm"}"#).status, 200);
    for _ in 0..40 {
        assert_eq!(offers.offer(&node, LARGE).status, 202);
    }

    // Something else fills the disk; the node goes on with what it had reserved, then refuses:
    // first what is large, in the end everything.
    disk.fill();
    for bytes in [LARGE, SMALL] {
        let refused = until("a refusal", || {
            let answer = offers.offer(&node, bytes);
            (answer.status != 202).then_some(answer)
        });
        assert_eq!(refused.status, 507, "{}", refused.json());
        assert_eq!(refused.json()["type"], "urn:syncline:problem:disk_full");
        assert!(refused.header("retry-after").is_some());
    }
    let mut lines = Lines::connect(node.tcp());
    lines
        .send(event(offers.taken, SMALL).to_string())
        .send("\n");
    let told = lines.half_close().read_to_end();
    let last = told.last().expect("the node says why");
    assert_eq!(
        (&last["reject"]["code"], &last["reject"]["retry"]),
        (&json!("disk_full"), &json!(true)),
        "{told:?}"
    );
    let health = node.get("/health");
    assert_eq!(
        (health.status, &health.json()["status"]),
        (200, &json!("degraded")),
        "{}",
        health.json()
    );

    // Delivery, with its outcomes, has room in the reserve.
    assert_eq!(node.post("/v1/resume", r#"{"provider":"crm"}"#).status, 200);
    let dead = node.drain();
    assert!(dead.is_empty(), "{dead:?}");
    offers.model.assert_equals(&provider.records());

    disk.make_room();
    until("intake again, without a restart", || {
        (offers.offer(&node, LARGE).status == 202).then_some(())
    });
    assert!(node.drain().is_empty());
    offers.model.assert_equals(&provider.records());
    assert!(node.process().ended().is_none());
    // And what was taken around it is there after a crash.
    node.kill();
    node.restart();
    assert!(node.drain().is_empty());
    offers.model.assert_equals(&provider.records());
    assert_eq!(provider.violations(), Violations::default());
    println!("{} events taken on a disk of {DISK_MIB} MiB", offers.taken);
}

/// What was offered and taken.
#[derive(Default)]
struct Offers {
    model: Model,
    taken: usize,
}

impl Offers {
    /// One more event, which counts when it is taken.
    fn offer(&mut self, node: &Node, bytes: usize) -> Answer {
        let event = event(self.taken, bytes);
        let answer = node.post("/v1/sync", event.to_string());
        if answer.status == 202 {
            self.model.apply(&event);
            self.taken += 1;
        }
        answer
    }
}

fn event(number: usize, bytes: usize) -> Value {
    json!({
        "operation": "UPSERT", "object": "contact", "record_id": format!("c-{number}"),
        "data": { "name": "x".repeat(bytes) },
    })
}

/// A tmpfs of its own, unmounted when dropped.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().expect("a place to mount at");
        let size = format!("size={DISK_MIB}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(SmallDisk { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes every byte that is free.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).expect("the folder is ours");
        let piece = vec![1; 4096];
        while std::io::Write::write_all(&mut ballast, &piece).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may still have files open when a test fails.
        drop(
            Command::new("umount")
                .arg("--lazy")
                .arg(self.path())
                .status(),
        );
    }
}
