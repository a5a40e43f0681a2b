//! The fuzz targets on any toolchain: each is fed with its seeds, and with a bounded number of
//! changes of these that are the same in every run.

#![expect(
    clippy::unwrap_used,
    reason = "what fails here is the test, also where a helper of it unwraps"
)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use udht_fuzz_targets::{TARGETS, Target};

/// Changes of seeds that each target is fed with.
const CHANGES: usize = 200;
/// Bytes of a changed seed at the most.
const BYTES_MAX: usize = 4_096;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz")
        .join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = folder("seeds").join(target);
    let names = names(&folder).into_iter();
    names
        .map(|name| fs::read(folder.join(name)).unwrap())
        .collect()
}

/// One of the seeds with a few changes, or a part of one before a part of another.
fn changed(random: &mut fastrand::Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.choice(seeds).unwrap().clone();
    for _ in 0..random.usize(0..6) {
        let place = random.usize(0..=bytes.len());
        match random.u8(0..7) {
            0 if place < bytes.len() => bytes[place] ^= 1 << random.u8(0..8),
            1 if place < bytes.len() => {
                bytes[place] = random.choice([0, 1, 127, 128, 255]).unwrap();
            }
            2 if place < bytes.len() => drop(bytes.remove(place)),
            3 => bytes.truncate(place),
            4 => {
                let other = random.choice(seeds).unwrap();
                let from = random.usize(0..=other.len());
                bytes.splice(place.., other[from..].iter().copied());
            }
            5 => {
                let more: Vec<_> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
                bytes.splice(place..place, more);
            }
            _ => bytes.insert(place, random.u8(..)),
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn feed((name, target): Target, bytes: &[u8]) {
    if catch_unwind(|| target(bytes)).is_err() {
        let shown: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = shown.concat();
        panic!("{name} fails, as said above, with these bytes: {shown}");
    }
}

#[test]
fn every_target_takes_its_seeds_and_what_is_made_of_them() {
    for target in TARGETS {
        let seeds = seeds(target.0);
        assert!(!seeds.is_empty(), "{} has no seeds", target.0);
        feed(target, b"");
        for seed in &seeds {
            feed(target, seed);
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..CHANGES {
            feed(target, &changed(&mut random, &seeds));
        }
    }
}

#[test]
fn every_target_has_its_program_and_its_seeds() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("seeds")), targets);
    let programs = names(&folder("fuzz_targets"));
    let programs: BTreeSet<_> = programs
        .iter()
        .map(|program| program.strip_suffix(".rs").unwrap().to_owned())
        .collect();
    assert_eq!(programs, targets);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for target in targets {
        let program = format!("path = \"fuzz_targets/{target}.rs\"");
        assert!(manifest.contains(&program), "{target}");
    }
}
