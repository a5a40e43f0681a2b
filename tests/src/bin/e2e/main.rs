//! The release on a real cluster, from end to end: what `make e2e` runs.
//!
//! Each step is a sentence that is true when it passes, and says what it saw. Whatever it did to the
//! cluster is undone at the end, also after a failure or Ctrl-C.

mod api_server;
mod authority;
mod brought;
mod containers;
mod guard;
mod install;
mod node;
mod observe;
mod partition;
mod reinstall;
mod rest;
mod restore;
mod roles;
mod rollout;
mod scale;
mod second_release;
mod world;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use udht_tests::cluster::interrupt;

use world::World;

/// The release on a real cluster made by kind, from end to end.
#[derive(Clone, Debug, Parser)]
#[command(name = "e2e")]
struct Arguments {
    /// Run only this step (repeatable); what it needs is installed for it
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Leave out this step (repeatable)
    #[arg(long, value_name = "STEP")]
    skip: Vec<String>,
    /// List the steps
    #[arg(long)]
    list: bool,
    /// Leave the releases as they are at the end, to be looked at
    #[arg(long)]
    keep: bool,
    /// The kind cluster
    #[arg(long, env = "KIND_CLUSTER", default_value = "udht-e2e")]
    cluster: String,
    /// The namespace; it is made, and removed at the end
    #[arg(long, env = "E2E_NAMESPACE", default_value = "udht-e2e")]
    namespace: String,
    /// The Helm that installs the release
    #[arg(long, env = "HELM", default_value = "helm")]
    helm: String,
    /// The Helm, perhaps of another version, that installs those beside it
    #[arg(long, env = "HELM_SECOND", default_value = "helm")]
    helm_second: String,
    /// The tag of the images of manager and sync, which the nodes must have already
    #[arg(long, env = "IMAGE_TAG", default_value = "dev")]
    image_tag: String,
    /// The image of Redis, which the nodes must have or be able to pull
    #[arg(long, env = "REDIS_IMAGE", default_value = "redis:local")]
    redis_image: String,
    /// The image of Prometheus, which the nodes must have or be able to pull
    #[arg(long, env = "PROMETHEUS_IMAGE", default_value = "prometheus:local")]
    prometheus_image: String,
    /// The chart
    #[arg(long, default_value = "charts/udht")]
    chart: PathBuf,
    /// A file of more values for each release (repeatable)
    #[arg(long, value_name = "FILE")]
    values: Vec<PathBuf>,
}

/// A step: its name, what is true when it passes, and what it does.
struct Step {
    name: &'static str,
    sentence: &'static str,
    run: fn(&mut World) -> Result<()>,
    /// It has releases of its own and no part in the one of the others: it runs beside them.
    aside: bool,
}

impl Step {
    const fn new(
        name: &'static str,
        sentence: &'static str,
        run: fn(&mut World) -> Result<()>,
    ) -> Self {
        Self {
            name,
            sentence,
            run,
            aside: false,
        }
    }

    const fn aside(mut self) -> Self {
        self.aside = true;
        self
    }
}

/// In the order in which they run: each finds a release at rest, and leaves it so. Those aside begin
/// behind the first, and are awaited before the cluster itself is harmed.
static STEPS: [Step; 20] = [
    Step::new(
        "install",
        "one helm command in a namespace that is restricted and denies all traffic, and three pods on two nodes know each other",
        install::three_pods_know_each_other,
    ),
    Step::new(
        "roles",
        "without any one verb of the Role something breaks, and says so",
        roles::each_verb_is_needed,
    ).aside(),
    Step::new(
        "reinstall",
        "an uninstall leaves nothing but what was promised, and volumes that outlived their authority are adopted by one command",
        reinstall::nothing_is_left_but_what_was_promised,
    ).aside(),
    Step::new(
        "brought",
        "an application's own container, one Redis over TLS for all pods, and certificates of one's own are used as they are",
        brought::what_users_bring_is_used,
    ).aside(),
    Step::new(
        "write",
        "what is written in one pod through port-forward is read in the others, and what is deleted is gone",
        install::a_write_in_one_pod_is_read_in_the_others,
    ),
    Step::new(
        "helm-test",
        "`helm test` passes and leaves nothing behind: no alarm stands, and what is deleted leaves",
        install::helm_test_passes,
    ),
    Step::new(
        "identity",
        "a pod that is deleted takes its record with it, and the one in its place has its own at once",
        install::a_new_pod_has_its_own_record,
    ),
    Step::new(
        "guard",
        "a stranger reaches no port of a pod, and who may scrape reaches the figures alone",
        guard::a_stranger_is_dropped,
    ),
    Step::new(
        "prometheus",
        "a real Prometheus finds the pods and has every figure that dashboards and rules name",
        observe::prometheus_has_every_figure,
    ),
    Step::new(
        "rest",
        "what manager and sync cost with 1,000 records while nothing happens",
        rest::it_costs_little,
    ),
    Step::new(
        "scale",
        "six pods, then two: the table is in all, and the records of those that left are gone",
        scale::to_six_and_to_two,
    ),
    Step::new(
        "partition",
        "two pods that are parted say so, both go on taking writes, and are equal when it heals",
        partition::two_pods_are_parted_and_meet_again,
    ),
    Step::new(
        "rolling-restart",
        "a rolling restart under a trickle of writes loses none that was answered",
        rollout::a_rolling_restart_loses_nothing,
    ),
    Step::new(
        "upgrade",
        "an upgrade of the chart and its rollback under a trickle of writes lose none that was answered, and keep the authority",
        rollout::an_upgrade_and_its_rollback_lose_nothing,
    ),
    Step::new(
        "restore",
        "a pod that starts over, a deleted record, a whole table under a trickle of writes and an empty release are brought back as documented",
        restore::what_is_gone_is_brought_back,
    ),
    Step::new(
        "kill",
        "each container in turn is killed (SIGKILL) under a trickle of writes, and none that was answered is lost",
        containers::each_is_killed_in_turn,
    ),
    Step::new(
        "authority",
        "the authority is rotated by hand under a trickle of writes, and no exchange fails for it",
        authority::it_is_rotated,
    ),
    Step::new(
        "second-release",
        "a second release in the namespace never meets the first",
        second_release::they_never_meet,
    ),
    Step::new(
        "api-server",
        "while the API server hangs the pods go on, say so, and a killed container returns",
        api_server::it_hangs,
    ),
    Step::new(
        "node",
        "a node dies and returns: the others go on, drop the record of a pod that is gone for good, and take the one that returns",
        node::it_dies_and_returns,
    ),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for step in &STEPS {
            let _ = writeln!(io::stdout(), "{:<16} {}", step.name, step.sentence);
        }
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "\ne2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    for name in arguments.only.iter().chain(&arguments.skip) {
        ensure!(
            STEPS.iter().any(|step| step.name == name),
            "there is no step {name}; --list names all"
        );
    }
    interrupt::listen()?;
    let started = Instant::now();
    let mut world = World::prepare(arguments)?;
    let chosen: Vec<_> = STEPS
        .iter()
        .filter(|step| arguments.only.is_empty() || arguments.only.iter().any(|it| it == step.name))
        .filter(|step| !arguments.skip.iter().any(|it| it == step.name))
        .collect();
    let (aside, main): (Vec<_>, Vec<_>) = chosen.iter().copied().partition(|step| step.aside);
    // The first is measured, and so nothing runs beside it.
    let measured = main
        .iter()
        .take_while(|step| step.name == "install")
        .count();
    let harming = main
        .iter()
        .position(|step| ["api-server", "node"].contains(&step.name))
        .unwrap_or(main.len());
    let (mut passed, mut outcome) = run_steps(&mut world, &main[..measured]);
    if outcome.is_ok() {
        let mut beside = world.beside_this();
        let running = std::thread::spawn(move || (run_steps(&mut beside, &aside), beside));
        let (more, begun) = run_steps(&mut world, &main[measured..harming]);
        if begun.is_err() {
            interrupt::now();
        }
        let ((more_aside, ended), beside) =
            running.join().map_err(|_| anyhow!("a step panicked"))?;
        world.line(&beside.told());
        passed += more + more_aside;
        outcome = begun.and(ended);
    }
    if outcome.is_ok() {
        let (more, ended) = run_steps(&mut world, &main[harming..]);
        passed += more;
        outcome = ended;
    }
    interrupt::forget();
    let cleaned = world.clean_up(arguments.keep);
    // As cargo says it of its tests, so that both can be added up.
    let _ = writeln!(
        io::stdout(),
        "\ntest result: {}. {passed} passed; {} failed; {} ignored; finished in {:.1}s",
        if outcome.is_ok() && cleaned.is_ok() {
            "ok"
        } else {
            "FAILED"
        },
        i32::from(outcome.is_err()) + i32::from(cleaned.is_err()),
        chosen.len() - passed - usize::from(outcome.is_err()),
        started.elapsed().as_secs_f64()
    );
    outcome.and(cleaned.context("clean up"))
}

/// Runs these steps until one fails; how many passed.
fn run_steps(world: &mut World, steps: &[&Step]) -> (usize, Result<()>) {
    for (passed, step) in steps.iter().enumerate() {
        let begun = Instant::now();
        world.headline(step.name, step.sentence);
        if let Err(error) = (step.run)(world) {
            world.saw(&format!("FAILED: {error:#}"));
            world.tell_how_it_stands();
            let named = Err(error).with_context(|| format!("{}: {}", step.name, step.sentence));
            return (passed, named);
        }
        world.saw(&format!("ok, {:.1} s", begun.elapsed().as_secs_f64()));
    }
    (steps.len(), Ok(()))
}
