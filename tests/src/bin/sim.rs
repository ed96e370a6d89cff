//! Runs seeds through the simulator until one breaks a promise.

use syncline_tests::sim::{Options, run};

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut from, mut count, mut print) = (0, 1, false);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        match arg.as_str() {
            "--seed" => from = number(),
            "--from" => from = number(),
            "--seeds" => count = number(),
            "--trace" => print = true,
            _ => {}
        }
    }
    let mut broken = 0;
    for seed in from..from + count {
        let options = Options::of_seed(seed);
        let outcome = std::panic::catch_unwind(|| run(&options, print));
        let (what, secs, ops, calls) = match &outcome {
            Ok(o) => (
                o.broken.clone(),
                o.virtual_time.as_secs(),
                o.operations,
                o.calls,
            ),
            Err(p) => (
                Some(format!("panic {:?}", p.downcast_ref::<String>())),
                0,
                0,
                0,
            ),
        };
        if let Some(what) = what {
            broken += 1;
            println!(
                "{seed}: {secs} s {ops} ops {calls} calls {}",
                what.chars().take(330).collect::<String>()
            );
        }
    }
    println!("{broken} of {count} broken");
}
