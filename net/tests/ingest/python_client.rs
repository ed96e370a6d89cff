//! The Python client against the real server.

use std::path::Path;
use std::process::Command;

use syncline_net::ingest::{Driver, Limits};

use super::drivers::Fixture;

const SCRIPT: &str = r#"
import sys
sys.path.insert(0, sys.argv[1])
from syncline_client import Client
rejects = []
with Client("127.0.0.1", int(sys.argv[2]), producer="py", on_reject=rejects.append) as client:
    for n in range(1, 10001):
        client.send({"bad": n} if n % 1000 == 0 else {"a": "é" * 50})
print(client.last_seq, [r.seq for r in rejects], rejects[0].pointer)
"#;

#[test]
fn it_is_understood_by_both_drivers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python");
    for driver in Driver::ALL {
        let server = Fixture::start(driver, Limits::default());
        let mut python = Command::new("python3");
        python.args(["-B", "-c", SCRIPT]).arg(&folder);
        let output = match python.arg(server.addr.port().to_string()).output() {
            Ok(output) => output,
            Err(error) => {
                println!("skipped: python_client (python3: {error})");
                return;
            }
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let rejects: Vec<u64> = (1..=10).map(|n| n * 1000).collect();
        assert_eq!(
            said.trim(),
            format!("10000 {rejects:?} /bad"),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(server.engine.taken().len(), 10_000 - 10);
    }
}
