//! `make sim`: runs histories, each of a seed of its own, and says which broke a rule.

use std::num::ParseIntError;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use udht_simulator::{Family, History, Random, run, shrink};

const USAGE: &str = "usage: simulator [--seed SEED] [--histories N] [--jobs N] [--first SEED] \
    [--family NAME] [--mutants] [--mutant NAME]";
/// Histories of a run that nobody said otherwise about.
const HISTORIES: u64 = 2_000;

/// What was asked for.
struct Args {
    /// One history, told in full.
    seed: Option<u64>,
    histories: u64,
    jobs: u64,
    /// The seed from which those of a run are drawn.
    first: u64,
    /// Which kind of histories.
    family: Family,
    /// Whether each mistake on purpose is to be found.
    mutants: bool,
    /// The mistake that is made instead, by its name.
    mutant: Option<&'static str>,
}

fn main() -> ExitCode {
    let args = match Args::read(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            println!("{problem}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    match args.seed {
        _ if args.mutants => find_mutants(args.jobs),
        Some(seed) => replay(&args, seed),
        None => run_many(&args),
    }
}

impl Args {
    fn read(mut texts: impl Iterator<Item = String>) -> Result<Self, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let cores = std::thread::available_parallelism();
        let mut args = Self {
            seed: None,
            histories: HISTORIES,
            jobs: cores.map_or(1, |cores| cores.get() as u64),
            first: now.map_or(0, |now| {
                u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20)
            }),
            family: Family::ANY,
            mutants: false,
            mutant: None,
        };
        while let Some(flag) = texts.next() {
            if flag == "--mutants" {
                args.mutants = true;
                continue;
            }
            let text = texts.next().unwrap_or_default();
            if flag == "--family" {
                let mut all = Family::ALL.iter();
                let family = all.find(|family| family.name == text);
                args.family = *family.ok_or_else(|| {
                    let names: Vec<_> = Family::ALL.iter().map(|family| family.name).collect();
                    format!("there is no family {text:?}, but {}", names.join(", "))
                })?;
                continue;
            }
            if flag == "--mutant" {
                args.mutant = Some(mutant(&text)?);
                continue;
            }
            let number = number(&text).map_err(|problem| format!("{flag} {text:?}: {problem}"))?;
            match flag.as_str() {
                "--seed" => args.seed = Some(number),
                "--histories" => args.histories = number,
                "--jobs" => args.jobs = number.max(1),
                "--first" => args.first = number,
                _ => return Err(format!("{flag} is not known")),
            }
        }
        Ok(args)
    }
}

fn number(text: &str) -> Result<u64, ParseIntError> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    }
}

/// Tells one history.
fn replay(args: &Args, seed: u64) -> ExitCode {
    make_mistake(args);
    let history = (args.family.draw)(seed);
    let outcome = run(&history, true);
    println!("{:#?}", history.setting);
    for line in &outcome.story {
        println!("{line}");
    }
    println!("trace {:016x}", outcome.trace);
    let Some(violation) = outcome.violation else {
        println!("no rule was broken");
        return ExitCode::SUCCESS;
    };
    tell_smaller(&history, violation.rule);
    ExitCode::FAILURE
}

/// Tells the smallest history that breaks the same rule.
fn tell_smaller(history: &History, rule: &str) {
    // What a smaller history panics with was said already.
    std::panic::set_hook(Box::new(|_| {}));
    let smallest = shrink(history, rule);
    println!(
        "\nmade smaller, from {} steps to {}:",
        history.steps.len(),
        smallest.steps.len()
    );
    println!("{:#?}", smallest.setting);
    for line in run(&smallest, true).story {
        println!("{line}");
    }
}

fn run_many(args: &Args) -> ExitCode {
    let Args {
        histories,
        jobs,
        first,
        ..
    } = *args;
    println!("{histories} histories from --first {first:#x}");
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        make_mistake(args);
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= histories {
                return;
            }
            let seed = Random::new(first.wrapping_add(index)).next();
            let history = (args.family.draw)(seed);
            if let Some(violation) = run(&history, false).violation
                && !failed.swap(true, Ordering::Relaxed)
            {
                println!("SEED={seed:#x}: {}: {}", violation.rule, violation.detail);
                tell_smaller(&history, violation.rule);
                let family = args.family.name;
                println!("replay it with: make sim FAMILY={family} SEED={seed:#x}");
            }
            let done = index + 1;
            if done.is_multiple_of((histories / 10).max(1_000)) {
                println!("{done} after {} s", started.elapsed().as_secs());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    if failed.load(Ordering::Relaxed) {
        return ExitCode::FAILURE;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{histories} histories in {seconds:.1} s with {jobs} jobs: no rule was broken");
    ExitCode::SUCCESS
}

/// Has this thread make the mistake that was asked for.
fn make_mistake(args: &Args) {
    #[cfg(udht_mutants)]
    if let Some(name) = args.mutant {
        udht_simulator::mutants::choose(name);
    }
    #[cfg(not(udht_mutants))]
    debug_assert_eq!(args.mutant, None, "refused as the flags were read");
}

/// The mistake of this name.
#[cfg(udht_mutants)]
fn mutant(name: &str) -> Result<&'static str, String> {
    let mut all = udht_simulator::mutants::MUTANTS.iter();
    let mutant = all.find(|mutant| mutant.name == name);
    let mutant =
        mutant.ok_or_else(|| format!("there is no mistake {name:?}: --mutants names all"))?;
    Ok(mutant.name)
}

/// None, as this build makes no mistakes.
#[cfg(not(udht_mutants))]
fn mutant(name: &str) -> Result<&'static str, String> {
    Err(format!(
        "this build does not make the mistake {name:?}: use that of make mutants"
    ))
}

/// Says that this build makes no mistakes.
#[cfg(not(udht_mutants))]
fn find_mutants(_: u64) -> ExitCode {
    println!("this build makes no mistakes on purpose: make mutants");
    ExitCode::FAILURE
}

/// Sees that no rule is broken by the histories that follow, and then has every mistake made until one
/// of its histories breaks a rule by it.
#[cfg(udht_mutants)]
fn find_mutants(jobs: u64) -> ExitCode {
    use udht_simulator::mutants::{MUTANTS, SOUND, choose};

    // Some of what a mistake breaks panics.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let all: Vec<_> = SOUND.iter().chain(MUTANTS).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        while let Some(mutant) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            choose(mutant.name);
            let found = (0..mutant.within).find_map(|index| {
                let seed = Random::new(index).next();
                let violation = run(&(mutant.family.draw)(seed), false).violation?;
                Some((index + 1, seed, violation.rule))
            });
            let (name, family, within) = (mutant.name, mutant.family.name, mutant.within);
            let is_sound = name.is_empty();
            match found {
                Some((_, seed, rule)) if is_sound => {
                    println!("no mistake: {family} {seed:#x} broke: {rule}");
                }
                Some((at, _, rule)) => println!("{name}: the {at}th of {within} {family}: {rule}"),
                None if is_sound => println!("no mistake: no rule was broken by {within} {family}"),
                None => println!("{name}: NOT FOUND by {within} {family}"),
            }
            if found.is_some() == is_sound {
                failed.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let seconds = started.elapsed().as_secs();
    println!("{} mistakes in {seconds} s", MUTANTS.len());
    if failed.load(Ordering::Relaxed) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
