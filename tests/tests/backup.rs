//! A table saved and put back with the program's own verbs, by a user at a terminal and by a script.

use std::process::Command;

use serde_json::json;
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions};
use udht_tests::process::program;
use udht_tests::recipe::output;

#[test]
fn a_backup_comes_back_whole_or_not_at_all_and_replacing_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 1, &ClusterOptions::default()).unwrap();
    let (agent, url) = (agent(), cluster.pod(1).manager_url());
    let put = |key: &str| {
        let peer = json!({"name": key, "ip": "10.0.0.7"});
        let written = http::put(&agent, &format!("{url}/v1/peers/{key}"), &peer);
        written.unwrap().ok().unwrap();
    };
    let manager = program("udht-manager").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&manager);
        command.args(["--manager", &url]).args(arguments);
        output(command.current_dir(&folder), "").map_err(|error| error.to_string())
    };
    // `script` gives the program a terminal, to which `reply` is typed.
    let at_a_terminal = |arguments: &str, reply: &str| {
        let line = format!("{} --manager {url} {arguments}", manager.display());
        let mut script = Command::new("script");
        script.args(["-qefc", &line, "/dev/null"]);
        output(script.current_dir(&folder), reply).map_err(|error| error.to_string())
    };
    let records = || cluster.pods[0].digest(&agent).unwrap();

    for key in 0..200 {
        put(&format!("p{key}"));
    }
    let said = at_a_terminal("export peers.ndjson.zst", "").unwrap();
    assert!(said.contains("\rexported 1 records"), "{said:?}");
    assert!(said.contains("exported 201 records to"), "{said:?}");
    put("later");
    let before = records();

    let whole = std::fs::read(folder.path().join("peers.ndjson.zst")).unwrap();
    assert!(whole.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "zstd");
    for cut in [whole.len() / 2, whole.len() - 1] {
        std::fs::write(folder.path().join("cut.zst"), &whole[..cut]).unwrap();
        let refused = run(&["import", "cut.zst", "--mode", "replace", "--yes"]).unwrap_err();
        assert!(refused.contains("Nothing was changed."), "{refused}");
        assert_eq!(records(), before);
    }

    let replace = "import peers.ndjson.zst --mode replace";
    let arguments: Vec<_> = replace.split(' ').collect();
    let refused = run(&arguments).unwrap_err();
    assert!(refused.contains("--yes"), "{refused}");
    let refused = at_a_terminal(replace, "n\n").unwrap_err();
    assert!(refused.contains("Go on? [y/N]"), "{refused}");
    assert_eq!(records(), before);
    let said = at_a_terminal(replace, "y\n").unwrap();
    assert!(said.contains("\rsent 1 records"), "{said:?}");
    assert!(said.contains("wrote 201 records, deleted 1"), "{said:?}");
    let later = http::get(&agent, &format!("{url}/v1/peers/later"));
    assert_eq!(later.unwrap().status, 404);
}
