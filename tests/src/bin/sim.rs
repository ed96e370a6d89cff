//! Runs seeds through the simulator until one breaks a promise.
//!
//! ```text
//! cargo run --release -p syncline-tests --bin sim -- --seeds 10000
//! cargo run --release -p syncline-tests --bin sim -- --seed 42 --trace
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use syncline_tests::sim::marks::{Mark, Marks};
use syncline_tests::sim::mutants::Mutant;
use syncline_tests::sim::{Options, Outcome, run};

/// Seconds between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// Seeds after which a mark that was never hit is a failure of the simulator itself.
const MARKS_AFTER_SEEDS: u64 = 2000;

const HELP: &str = "\
sim [--seeds N] [--from N] [--minutes M] [--keep-going]   run many seeds (default 1000 from 0)
sim --seed N [--trace]                                    run one seed, print what it derives
sim --pairs [--seeds N]                                   each seed with an ill account and without
sim --mutant NAME|all [--seeds N]                         seeds until a planted bug is caught
";

struct Args {
    from: u64,
    seeds: u64,
    minutes: Option<u64>,
    one: Option<u64>,
    trace: bool,
    keep_going: bool,
    pairs: bool,
    mutants: Vec<Mutant>,
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(problem) => {
            eprint!("{problem}\n{HELP}");
            return ExitCode::from(64);
        }
    };
    // A panic of the engine is an outcome, told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    if !args.mutants.is_empty() {
        return catch_mutants(&args);
    }
    match args.one {
        Some(seed) => run_one(seed, args.trace),
        None => run_many(&args),
    }
}

fn parse() -> Result<Args, String> {
    let mut args = Args {
        from: 0,
        seeds: 1000,
        minutes: None,
        one: None,
        trace: false,
        keep_going: false,
        pairs: false,
        mutants: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            "--from" => args.from = number(&value()?)?,
            "--seeds" => args.seeds = number(&value()?)?,
            "--minutes" => args.minutes = Some(number(&value()?)?),
            "--seed" => args.one = Some(number(&value()?)?),
            "--trace" => args.trace = true,
            "--pairs" => args.pairs = true,
            "--keep-going" => args.keep_going = true,
            "--mutant" => {
                let name = value()?;
                args.mutants = if name == "all" {
                    Mutant::ALL.to_vec()
                } else {
                    vec![name.parse()?]
                };
            }
            _ => return Err(format!("{word} is not known")),
        }
    }
    Ok(args)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn run_one(seed: u64, trace: bool) -> ExitCode {
    let options = Options::of_seed(seed);
    println!("{options:#?}");
    let outcome = attempt(&options, trace);
    println!(
        "seed {seed}: {} operations, {} calls, {:?} of virtual time, trace {:016x}",
        outcome.operations, outcome.calls, outcome.virtual_time, outcome.trace_hash
    );
    for mark in Mark::ALL
        .into_iter()
        .filter(|&mark| outcome.marks.count(mark) > 0)
    {
        println!("  {mark:?} {}", outcome.marks.count(mark));
    }
    tell(&outcome)
}

fn run_many(args: &Args) -> ExitCode {
    let started = Instant::now();
    let deadline = args
        .minutes
        .map(|minutes| started + Duration::from_secs(60 * minutes));
    let last = if deadline.is_some() {
        u64::MAX
    } else {
        args.from + args.seeds
    };
    let mut marks = Marks::default();
    let (mut done, mut broken, mut operations, mut virtual_time) =
        (0_u64, 0_u64, 0_usize, Duration::ZERO);
    let mut told = started;
    for seed in args.from..last {
        let options = if args.pairs {
            Options::pair_of_seed(seed)
        } else {
            Options::of_seed(seed)
        };
        let outcome = attempt(&options, false);
        done += 1;
        operations += outcome.operations;
        virtual_time += outcome.virtual_time;
        marks.join(&outcome.marks);
        if outcome.broken.is_some() {
            broken += 1;
            tell(&outcome);
            if !args.keep_going {
                return ExitCode::FAILURE;
            }
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let rate = done as f64 / started.elapsed().as_secs_f64();
            let missed = marks.missed().count();
            println!(
                "{done} seeds, {rate:.1}/s, {operations} operations, {missed} marks missing, {broken} broken"
            );
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
    }
    let took = started.elapsed();
    println!(
        "{done} seeds in {took:.1?} ({:.1}/s), {operations} operations, {:.0} h of virtual time ({:.0}x), {broken} broken",
        done as f64 / took.as_secs_f64(),
        virtual_time.as_secs_f64() / 3600.0,
        virtual_time.as_secs_f64() / took.as_secs_f64(),
    );
    for mark in Mark::ALL {
        println!("  {:<20} {}", format!("{mark:?}"), marks.count(mark));
    }
    let missed: Vec<Mark> = marks.missed().collect();
    if done >= MARKS_AFTER_SEEDS && !args.pairs && !missed.is_empty() {
        println!("never seen: {missed:?}");
        return ExitCode::FAILURE;
    }
    if broken > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn catch_mutants(args: &Args) -> ExitCode {
    let mut escaped = 0;
    println!("| mutant | caught at seed number | by |\n| --- | --- | --- |");
    for &mutant in &args.mutants {
        let caught = (args.from..args.from + args.seeds).find_map(|seed| {
            let options = Options::with_mutant(seed, mutant);
            let broken = attempt(&options, false).broken?;
            // What breaks without it says nothing of it.
            let sound = Options {
                mutant: None,
                ..options
            };
            let holds = attempt(&sound, false).broken.is_none();
            holds.then_some((seed - args.from + 1, broken))
        });
        match caught {
            Some((seeds, broken)) => {
                let short: String = broken.chars().take(100).collect();
                println!("| {mutant} | {seeds} | {short} |");
            }
            None => {
                escaped += 1;
                println!("| {mutant} | not in {} | |", args.seeds);
            }
        }
    }
    if escaped > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn attempt(options: &Options, trace: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(options, trace))).unwrap_or_else(|panic| Outcome {
        seed: options.seed,
        broken: Some(format!("panic: {}", message(&*panic))),
        marks: Marks::default(),
        trace_hash: 0,
        virtual_time: Duration::ZERO,
        operations: 0,
        calls: 0,
        ended: BTreeMap::new(),
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

fn tell(outcome: &Outcome) -> ExitCode {
    match &outcome.broken {
        None => ExitCode::SUCCESS,
        Some(broken) => {
            println!("SEED {} BROKE A PROMISE: {broken}", outcome.seed);
            ExitCode::FAILURE
        }
    }
}
