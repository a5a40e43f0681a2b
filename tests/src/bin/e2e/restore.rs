//! What is gone is brought back, by the commands of `docs/restore.md`.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use udht_tests::cluster::reach::Reach;

use crate::install::wait_for_own_records;
use crate::rollout::trickle;
use crate::world::{REPLICAS, World, record, wait_for_status};

/// Records that are there before anything is lost.
const RECORDS: usize = 20;
/// What tells the record of a pod in a dump from all others.
const OF_A_POD: &str = "\"udht/pod-uid\"";

/// `udht-manager` with these arguments in a pod, told `input`.
fn manager(world: &World, pod: &str, arguments: &str, input: &str) -> Result<String> {
    let kubectl = &world.release.kubectl;
    let exec = [
        "exec",
        "--stdin",
        pod,
        "--container=manager",
        "--",
        "/udht-manager",
    ];
    let run = kubectl.run(exec).args(arguments.split_whitespace());
    run.input(input)
        .output()
        .with_context(|| format!("udht-manager {arguments}"))
}

/// The lines of a dump that are for any pod to write: without its end, and without the records of the
/// pods, which each writes itself.
fn without_pods(dump: &str) -> String {
    let lines = dump
        .lines()
        .filter(|line| line.contains("\"peer_id\"") && !line.contains(OF_A_POD));
    lines.fold(String::new(), |all, line| all + line + "\n")
}

fn key(number: usize) -> String {
    format!("restore-{number}")
}

fn wait_for_all(reaches: &mut [Reach], status: u16) -> Result<()> {
    (0..RECORDS).try_for_each(|number| wait_for_status(reaches, &key(number), status))
}

pub(crate) fn what_is_gone_is_brought_back(world: &mut World) -> Result<()> {
    let (pods, mut reaches) = world.at_rest()?;
    for number in 0..RECORDS {
        let path = format!("/v1/peers/{}", key(number));
        reaches[number % REPLICAS]
            .put(&path, &record("kept"))?
            .ok()?;
    }
    world.release.wait_until_equal(&mut reaches)?;
    let dump = manager(world, &pods[0].name, "export", "")?;
    ensure!(
        dump.matches(OF_A_POD).count() >= REPLICAS,
        "no record of a pod in the dump"
    );

    one_pod_starts_over(world, &pods[2].name, &mut reaches)?;
    a_deleted_record_comes_back(world, &pods[1].name, &dump, &mut reaches)?;
    the_table_is_replaced(world, &dump)?;
    an_empty_cluster_is_filled(world, &dump)?;

    let mut reaches = world.at_rest()?.1;
    for number in 0..RECORDS {
        reaches[0]
            .delete(&format!("/v1/peers/{}", key(number)))?
            .ok()?;
    }
    wait_for_all(&mut reaches, 404)
}

fn one_pod_starts_over(world: &World, pod: &str, reaches: &mut [Reach]) -> Result<()> {
    let begun = Instant::now();
    manager(world, pod, "replicas start-over --yes", "")?;
    world.release.wait_until_equal(reaches)?;
    wait_for_all(reaches, 200)?;
    world.saw(&format!(
        "{pod} started over with an empty table, and had all again {:.1} s later",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn a_deleted_record_comes_back(
    world: &World,
    pod: &str,
    dump: &str,
    reaches: &mut [Reach],
) -> Result<()> {
    let key = key(7);
    reaches[0].delete(&format!("/v1/peers/{key}"))?.ok()?;
    wait_for_status(reaches, &key, 404)?;
    let wanted = format!("\"{key}\"");
    let line = dump.lines().find(|line| line.contains(&wanted));
    let line = line.with_context(|| format!("no {key} in the dump"))?;
    manager(world, pod, "import - --without-end", &format!("{line}\n"))?;
    wait_for_status(reaches, &key, 200)?;
    world.saw("a deleted record is back in all pods, from its line of a dump");
    Ok(())
}

/// While all pods take writes.
fn the_table_is_replaced(world: &mut World, dump: &str) -> Result<()> {
    let (pods, mut reaches) = world.at_rest()?;
    reaches[1]
        .put("/v1/peers/restore-later", &record("later"))?
        .ok()?;
    wait_for_status(&mut reaches, "restore-later", 200)?;
    let trickle = trickle(world, &pods, "restore")?;
    let import = "import - --mode replace --yes --without-end";
    let said = manager(world, &pods[0].name, import, &without_pods(dump))?;
    trickle.wait_for_more(30)?;
    let answered = trickle.end()?.answered;
    wait_for_status(&mut reaches, "restore-later", 404)?;
    wait_for_all(&mut reaches, 200)?;
    wait_for_own_records(&pods, &mut reaches)?;
    let left = reaches[2].delete("/v1/peers?label=trickle=restore")?.ok()?;
    world.release.wait_until_equal(&mut reaches)?;
    world.saw(&format!(
        "the table was replaced under {answered} writes ({}; {} of theirs came later): what the dump \
         names is in all pods, what it does not is in none, and the pods wrote their own again",
        said.trim(),
        left["deleted"]
    ));
    Ok(())
}

/// All pods go, with their stores.
fn an_empty_cluster_is_filled(world: &mut World, dump: &str) -> Result<()> {
    let begun = Instant::now();
    world.pods(0)?;
    let pods = world.pods(REPLICAS)?;
    let mut reaches = world.release.reaches(&pods);
    let emptied = begun.elapsed().as_secs_f64();
    wait_for_own_records(&pods, &mut reaches)?;
    wait_for_all(&mut reaches, 404)?;
    let begun = Instant::now();
    manager(
        world,
        &pods[1].name,
        "import - --without-end",
        &without_pods(dump),
    )?;
    wait_for_all(&mut reaches, 200)?;
    world.release.wait_until_equal(&mut reaches)?;
    world.saw(&format!(
        "all pods went with their stores, and three new ones were there after {emptied:.1} s; a dump \
         given to one of them is in all {:.1} s later",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}
