//! More pods, and fewer.

use std::time::Instant;

use anyhow::Result;

use crate::install::wait_for_own_records;
use crate::world::{REPLICAS, World, nodes_of, record, wait_for_status};

pub(crate) fn to_six_and_to_two(world: &mut World) -> Result<()> {
    let (_, mut reaches) = world.at_rest()?;
    reaches[0]
        .put("/v1/peers/before-scaling", &record("before-scaling"))?
        .ok()?;
    for replicas in [6, 2] {
        let begun = Instant::now();
        let pods = world.pods(replicas)?;
        let ready = begun.elapsed().as_secs_f64();
        let mut reaches = world.release.reaches(&pods);
        wait_for_own_records(&pods, &mut reaches)?;
        let records = world.release.wait_until_equal(&mut reaches)?;
        wait_for_status(&mut reaches, "before-scaling", 200)?;
        world.saw(&format!(
            "{replicas} pods on {} nodes, ready after {ready:.1} s; equal tables of {records} records after {:.1} s: \
             just the pods' own and what was written",
            nodes_of(&pods).len(),
            begun.elapsed().as_secs_f64()
        ));
    }
    let pods = world.pods(REPLICAS)?;
    let mut reaches = world.release.reaches(&pods);
    wait_for_own_records(&pods, &mut reaches)?;
    reaches[0].delete("/v1/peers/before-scaling")?.ok()?;
    world.saw("and back to three");
    Ok(())
}
