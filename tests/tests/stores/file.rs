//! Files of the embedded store that are damaged.

use udht_tests::pod::{Cluster, ClusterOptions, Part};

use super::*;

const PAGE_BYTES: usize = 4_096;

/// What became of the last page of a file.
#[derive(Copy, Clone, Debug)]
enum Torn {
    /// The file ends in its middle.
    CutOff,
    /// The file ends before it.
    Missing,
    /// Its second half was never written.
    HalfWritten,
    /// It holds something else.
    Overwritten,
}

impl Torn {
    const ALL: [Self; 4] = [
        Self::CutOff,
        Self::Missing,
        Self::HalfWritten,
        Self::Overwritten,
    ];

    /// Does it to the last page in which there is something.
    fn on(self, file: &mut Vec<u8>) {
        let used = file.iter().rposition(|byte| *byte != 0).unwrap();
        let page = used / PAGE_BYTES * PAGE_BYTES;
        match self {
            Self::CutOff => file.truncate(page + PAGE_BYTES / 2),
            Self::Missing => file.truncate(page),
            Self::HalfWritten => file[page + PAGE_BYTES / 2..page + PAGE_BYTES].fill(0),
            Self::Overwritten => file[page..page + PAGE_BYTES].fill(0x5a),
        }
    }
}

#[test]
fn a_torn_last_page_is_repaired_or_said_to_be_damaged_and_the_others_have_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 2, &ClusterOptions::default()).unwrap();
    let agent = agent();
    let mut versions = Vec::new();
    for number in 0..300 {
        let key = format!("p{number}");
        let version = written(put(&agent, &cluster.pods[0], &key, &peer(&key)));
        versions.push((key, version));
    }
    become_equal(&agent, &cluster.pods);
    for torn in Torn::ALL {
        let pod = cluster.pod(1);
        pod.kill().unwrap();
        let mut file = std::fs::read(pod.store()).unwrap();
        torn.on(&mut file);
        std::fs::write(pod.store(), file).unwrap();
        pod.begin(Part::Manager).unwrap();
        if let Err(error) = pod.ready(Part::Manager) {
            let error = error.to_string();
            let said = "is damaged: ";
            assert!(error.contains(said), "{torn:?}: {error}");
            let advice = "move it away, and this replica fills a new one from its peers";
            assert!(error.contains(advice), "{torn:?}: {error}");
            assert!(!error.contains("panicked"), "{torn:?}: {error}");
            std::fs::rename(pod.store(), folder.path().join("away")).unwrap();
            pod.start_manager().unwrap();
        }
        pod.start_sync().unwrap();
        become_equal(&agent, &cluster.pods);
        for (key, version) in &versions {
            let found = http::get(&agent, &url(&cluster.pods[0], key)).unwrap();
            assert_eq!(found.body["version"], **version, "{torn:?}: {key}");
        }
    }
}
