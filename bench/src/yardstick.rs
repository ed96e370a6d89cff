//! What the sink could take: wrk's rate of POST requests against it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::places::DebianTool;

/// Requests a second that wrk gets through, from one thread, with bodies of about `body_bytes`.
///
/// # Errors
/// Why there is no figure.
pub(crate) fn measure(
    sink: SocketAddr,
    body_bytes: usize,
    seconds: u64,
    folder: &Path,
) -> Result<f64, String> {
    let wrk = DebianTool::find("wrk")?;
    let script = folder.join("post.lua");
    let lua = format!(
        "wrk.method = \"POST\"\nwrk.headers[\"Content-Type\"] = \"application/json\"\n\
         wrk.body = '{{\"note\":\"' .. string.rep(\"x\", {}) .. '\"}}'\n",
        body_bytes.saturating_sub(11)
    );
    fs::write(&script, lua).map_err(|error| error.to_string())?;
    let output = wrk
        .command()
        .args(["-t1", "-c64"])
        .arg(format!("-d{seconds}s"))
        .arg("-s")
        .arg(&script)
        .arg(format!("http://{sink}/contact"))
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    requests_per_second(&text).ok_or_else(|| format!("wrk said: {}", text.trim()))
}

fn requests_per_second(text: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .and_then(|figure| figure.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_wrk_prints() {
        let text = "Running 1s test\n  2 threads\nRequests/sec:  98765.43\nTransfer/sec: 1MB\n";
        assert_eq!(requests_per_second(text), Some(98_765.43));
        assert_eq!(requests_per_second("unable to connect"), None);
    }
}
