//! The nodes of a kind cluster, which are containers of Docker, and what can befall them.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::command::Run;

/// The chain of iptables in which the tests lay their rules.
const CHAIN: &str = "UDHT-E2E";

/// The nodes of a cluster, and what was done to them and is to be undone.
#[derive(Clone, Debug)]
pub struct Nodes {
    cluster: String,
    all: Vec<String>,
    harmed: RefCell<Vec<Harm>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Harm {
    Paused(String),
    Killed(String),
    Parted(String),
}

impl Nodes {
    /// The nodes of the kind cluster of this name.
    pub fn of_cluster(cluster: &str) -> Result<Self> {
        let said = Run::program("kind")
            .args(["get", "nodes", "--name", cluster])
            .output()?;
        let mut all: Vec<_> = said.lines().map(str::to_owned).collect();
        all.sort();
        ensure!(!all.is_empty(), "no kind cluster is called {cluster}");
        Ok(Self {
            cluster: cluster.to_owned(),
            all,
            harmed: RefCell::default(),
        })
    }

    /// All of them.
    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// The node of the API server.
    pub fn control_plane(&self) -> String {
        format!("{}-control-plane", self.cluster)
    }

    /// Runs a command on a node.
    pub fn exec<A: AsRef<str>>(&self, node: &str, command: impl IntoIterator<Item = A>) -> Run {
        Run::program("docker")
            .args(["exec", node])
            .args(command.into_iter().map(|it| it.as_ref().to_owned()))
    }

    /// Stops all that runs on a node, without its end.
    pub fn pause(&self, node: &str) -> Result<()> {
        self.harm(Harm::Paused(node.to_owned()));
        docker(&["pause", node])
    }

    /// Lets a node that was paused go on.
    pub fn unpause(&self, node: &str) -> Result<()> {
        docker(&["unpause", node])?;
        self.mended(&Harm::Paused(node.to_owned()));
        Ok(())
    }

    /// Takes a node's power away.
    pub fn kill(&self, node: &str) -> Result<()> {
        self.harm(Harm::Killed(node.to_owned()));
        docker(&["kill", node])
    }

    /// Switches a node on that was killed.
    pub fn start(&self, node: &str) -> Result<()> {
        docker(&["start", node])?;
        self.mended(&Harm::Killed(node.to_owned()));
        Ok(())
    }

    /// Ends a container of a pod as the kernel does where memory is short.
    pub fn kill_container(&self, node: &str, container: &str) -> Result<()> {
        let command = [
            "ctr",
            "--namespace",
            "k8s.io",
            "task",
            "kill",
            "-s",
            "SIGKILL",
        ];
        self.exec(node, command).args([container]).output()?;
        Ok(())
    }

    /// Runs a command in a container of a pod, without the API server; what it said, if it ended
    /// well.
    pub fn exec_in_container(
        &self,
        node: &str,
        container: &str,
        command: &[&str],
    ) -> Result<String> {
        let name = format!("e2e-{}", unique());
        let exec = ["ctr", "--namespace", "k8s.io", "task", "exec", "--exec-id"];
        self.exec(node, exec)
            .args([name.as_str(), container])
            .args(command)
            .within(Duration::from_secs(20))
            .output()
    }

    /// The id of the container that runs in a pod under this name, in place of the one of id `old`;
    /// asked of the node itself.
    pub fn container_id(&self, node: &str, pod_uid: &str, name: &str, old: &str) -> Result<String> {
        let filter = format!(
            "labels.\"io.kubernetes.pod.uid\"=={pod_uid},labels.\"io.kubernetes.container.name\"=={name}"
        );
        let list = [
            "ctr",
            "--namespace",
            "k8s.io",
            "containers",
            "ls",
            "--quiet",
        ];
        let ids = self.exec(node, list).args([filter]).output()?;
        let new = ids.lines().find(|id| *id != old && !id.is_empty());
        new.map(str::to_owned)
            .with_context(|| format!("no other {name} yet"))
    }

    /// From now on, nothing passes between these two addresses of pods.
    pub fn part(&self, one: &str, other: &str) -> Result<()> {
        for node in &self.all {
            self.harm(Harm::Parted(node.clone()));
            // The mangle table's PREROUTING sees all that comes from a pod, wherever it goes.
            let chain = format!(
                "iptables -w -t mangle -N {CHAIN} 2>/dev/null && \
                     iptables -w -t mangle -I PREROUTING -j {CHAIN}; \
                 iptables -w -t mangle -A {CHAIN} -s {one} -d {other} -j DROP && \
                 iptables -w -t mangle -A {CHAIN} -s {other} -d {one} -j DROP"
            );
            self.exec(node, ["sh", "-c", &chain]).output()?;
        }
        Ok(())
    }

    /// All addresses that were parted reach one another again.
    pub fn join(&self) -> Result<()> {
        for node in &self.all {
            self.exec(node, ["sh", "-c", &without_chain()]).output()?;
            self.mended(&Harm::Parted(node.clone()));
        }
        Ok(())
    }

    /// Undoes what was done and not undone, by this run or by one before it that was ended.
    pub fn mend(&self) -> Result<()> {
        let harmed = self.harmed.borrow().clone();
        for harm in harmed.into_iter().rev() {
            match &harm {
                Harm::Paused(node) => self.unpause(node)?,
                Harm::Killed(node) => self.start(node)?,
                Harm::Parted(_) => self.join()?,
            }
        }
        for node in &self.all {
            let state = Run::program("docker")
                .args(["inspect", "--format={{.State.Status}}", node])
                .output()?;
            match state.trim() {
                "running" => {}
                "paused" => docker(&["unpause", node])?,
                _ => docker(&["start", node])?,
            }
            self.exec(node, ["sh", "-c", &without_chain()]).output()?;
        }
        Ok(())
    }

    fn harm(&self, harm: Harm) {
        self.harmed.borrow_mut().push(harm);
    }

    fn mended(&self, harm: &Harm) {
        self.harmed.borrow_mut().retain(|it| it != harm);
    }
}

fn without_chain() -> String {
    format!(
        "while iptables -w -t mangle -D PREROUTING -j {CHAIN} 2>/dev/null; do :; done; \
         iptables -w -t mangle -F {CHAIN} 2>/dev/null; iptables -w -t mangle -X {CHAIN} 2>/dev/null; true"
    )
}

fn docker(arguments: &[&str]) -> Result<()> {
    Run::program("docker")
        .args(arguments)
        .output()
        .with_context(|| format!("docker {}", arguments.join(" ")))?;
    Ok(())
}

/// A number that this process has not given before.
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{next}", std::process::id())
}
