//! The recipes of docs/clients.md, each run as it stands.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions};
use udht_tests::process::PATIENCE;
use udht_tests::recipe::{blocks, is_installed, output};

const CLIENTS: &str = include_str!("../../docs/clients.md");

/// What runs a language's recipes.
#[derive(Copy, Clone)]
struct Language {
    /// As the fences of its recipes have it.
    fence: &'static str,
    /// The file that a recipe is written to.
    file: &'static str,
    programs: &'static [&'static str],
}

const SHELL: Language = Language {
    fence: "sh",
    file: "recipe.sh",
    programs: &["bash", "curl", "jq"],
};
const PYTHON: Language = Language {
    fence: "python",
    file: "recipe.py",
    programs: &["python3"],
};
const GO: Language = Language {
    fence: "go",
    file: "recipe.go",
    programs: &["go"],
};

impl Language {
    /// The command that runs the recipe of this name; `None` where a program for it is missing.
    fn recipe(self, name: &str, folder: &Path) -> Option<PathBuf> {
        for program in self.programs {
            if !is_installed(program).unwrap() {
                println!("skipped: {program} is not installed");
                return None;
            }
        }
        let mut blocks = blocks(CLIENTS).into_iter();
        let block = blocks.find(|block| block.language == self.fence && block.name == name);
        let file = folder.join(self.file);
        std::fs::write(&file, block.unwrap().text).unwrap();
        if self.fence != "go" {
            return Some(file);
        }
        let program = folder.join("recipe");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(&file);
        // Whoever runs this may have no home.
        build
            .env("GOCACHE", env!("CARGO_TARGET_TMPDIR"))
            .env("GOFLAGS", "");
        output(&mut build, "").unwrap();
        Some(program)
    }

    fn command(self, recipe: &Path, url: &str) -> Command {
        let mut command = match self.fence {
            "sh" => {
                let mut bash = Command::new("bash");
                bash.args(["-e", "-u", "-o", "pipefail"]).arg(recipe);
                bash
            }
            "python" => {
                let mut python = Command::new("python3");
                python.arg(recipe);
                python
            }
            _ => Command::new(recipe),
        };
        command.env("UDHT", url);
        command
    }
}

fn pod(folder: &Path) -> Cluster {
    Cluster::start(folder, 1, &ClusterOptions::default()).unwrap()
}

fn reads(language: Language) {
    let folder = tempfile::tempdir().unwrap();
    let Some(recipe) = language.recipe("read", folder.path()) else {
        return;
    };
    let mut cluster = pod(folder.path());
    let url = cluster.pod(1).manager_url();
    for (key, zone) in [("p1", "a"), ("p2", "b"), ("p3", "a")] {
        let peer = json!({"name": key, "ip": "10.0.0.7", "ports": {"userSync": 5001},
            "labels": {"zone": zone}});
        let written = http::put(&agent(), &format!("{url}/v1/peers/{key}"), &peer);
        written.unwrap().ok().unwrap();
    }
    let said = output(&mut language.command(&recipe, &url), "").unwrap();
    assert_eq!(said, "p1 10.0.0.7:5001\np3 10.0.0.7:5001\n");
}

/// Four at once, three times each: no visit is lost, whoever is faster.
fn writes(language: Language) {
    let folder = tempfile::tempdir().unwrap();
    let Some(recipe) = language.recipe("write", folder.path()) else {
        return;
    };
    let mut cluster = pod(folder.path());
    let url = cluster.pod(1).manager_url();
    std::thread::scope(|scope| {
        for _ in 1..=4 {
            scope.spawn(|| {
                for _ in 1..=3 {
                    output(&mut language.command(&recipe, &url), "").unwrap();
                }
            });
        }
    });
    let counted = http::get(&agent(), &format!("{url}/v1/peers/counted"));
    assert_eq!(counted.unwrap().body["labels"]["visits"], "12");
}

/// A recipe that runs until this is dropped.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut lines = output.lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    fn wait_for(&self, line: &str) {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != line) {
            let next = self.lines.recv_timeout(PATIENCE);
            seen.push(next.unwrap_or_else(|_| panic!("no {line:?} in {seen:?}")));
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn watches(language: Language) {
    let folder = tempfile::tempdir().unwrap();
    let Some(recipe) = language.recipe("watch", folder.path()) else {
        return;
    };
    let mut cluster = pod(folder.path());
    let (agent, url) = (agent(), cluster.pod(1).manager_url());
    let put = |key: &str| {
        let peer = json!({"name": key, "ip": "10.0.0.7"});
        let written = http::put(&agent, &format!("{url}/v1/peers/{key}"), &peer);
        written.unwrap().ok().unwrap();
    };
    let watching = Watching::start(&mut language.command(&recipe, &url));
    watching.wait_for("listed 1");
    put("p1");
    watching.wait_for("put p1 10.0.0.7");
    http::delete(&agent, &format!("{url}/v1/peers/p1")).unwrap();
    watching.wait_for("delete p1");
    // Another opening of the store does not know the revisions of this one: 410, and a new list.
    cluster.pod(1).kill().unwrap();
    cluster.pod(1).start_manager().unwrap();
    watching.wait_for("listed 1");
    put("p2");
    watching.wait_for("put p2 10.0.0.7");
}

#[test]
fn the_shell_recipe_reads() {
    reads(SHELL);
}

#[test]
fn the_shell_recipe_writes_without_losing_what_others_write() {
    writes(SHELL);
}

#[test]
fn the_shell_recipe_watches_and_lists_again_after_a_410() {
    watches(SHELL);
}

#[test]
fn the_python_recipe_reads() {
    reads(PYTHON);
}

#[test]
fn the_python_recipe_writes_without_losing_what_others_write() {
    writes(PYTHON);
}

#[test]
fn the_python_recipe_watches_and_lists_again_after_a_410() {
    watches(PYTHON);
}

#[test]
fn the_go_recipe_reads() {
    reads(GO);
}

#[test]
fn the_go_recipe_writes_without_losing_what_others_write() {
    writes(GO);
}

#[test]
fn the_go_recipe_watches_and_lists_again_after_a_410() {
    watches(GO);
}
