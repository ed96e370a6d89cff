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
    for seed in from..from + count {
        let options = Options::of_seed(seed);
        let outcome = run(&options, print);
        println!("{seed}: {:?} {} ops {} calls {:?}", outcome.virtual_time, outcome.operations, outcome.calls, outcome.broken);
    }
}
