//! The README's section on use: what it says is what happens, and it says everything.

use std::process::Command;

use serde_json::{Deserializer, Value};
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions};
use udht_tests::recipe::{self, WRITTEN_ADDRESS, blocks, output, section};

const README: &str = include_str!("../../README.md");

/// What differs from one day, or one machine, to the next.
const OF_THE_DAY: [&str; 4] = ["createdAt", "updatedAt", "lastConnectionOn", "version"];

/// Whether all that is `shown` is in what was `said`.
fn holds(said: &Value, shown: &Value) -> bool {
    match (said, shown) {
        (Value::Object(said), Value::Object(shown)) => shown.iter().all(|(field, shown)| {
            let said = said.get(field);
            said.is_some_and(|said| OF_THE_DAY.contains(&field.as_str()) || holds(said, shown))
        }),
        (said, shown) => said == shown,
    }
}

fn values(text: &str) -> Vec<Value> {
    let values = Deserializer::from_str(text).into_iter();
    let values: Result<_, _> = values.collect();
    values.unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_examples_of_every_call_answer_as_the_readme_says_and_can_be_repeated() {
    if !["bash", "curl", "jq"]
        .iter()
        .all(|program| recipe::is_installed(program).unwrap())
    {
        println!("skipped: bash, curl and jq are needed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 1, &ClusterOptions::default()).unwrap();
    let url = cluster.pod(1).manager_url();
    let blocks = blocks(section(README, "## Use").unwrap());
    for _ in 1..=2 {
        for block in blocks.chunks(2) {
            let [lines, shown] = block else {
                panic!("no output is shown: {block:?}")
            };
            assert_eq!([&lines.language[..], &shown.language], ["sh", "json"]);
            let mut bash = Command::new("bash");
            bash.args(["-e", "-u", "-o", "pipefail"])
                .current_dir(&folder);
            let said = output(&mut bash, &lines.text.replace(WRITTEN_ADDRESS, &url)).unwrap();
            let (said, shown) = (values(&said), values(&shown.text));
            assert_eq!(said.len(), shown.len(), "{said:#?}\n{}", lines.text);
            for (said, shown) in said.iter().zip(&shown) {
                assert!(holds(said, shown), "{said:#}\n{shown:#}\n{}", lines.text);
            }
        }
    }
    let agent = agent();
    let metrics = http::text(&agent, &format!("{url}/metrics")).unwrap();
    let contract = http::get(&agent, &format!("{url}/openapi.json")).unwrap();
    for (path, calls) in contract.body["paths"].as_object().unwrap() {
        for method in calls.as_object().unwrap().keys() {
            let labels = format!("{{method=\"{}\",route=\"{path}\"", method.to_uppercase());
            assert!(metrics.contains(&labels), "no example of {method} {path}");
        }
    }
}
