//! `helm`, in one of its versions, for one namespace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::command::Run;

/// How long Helm may wait for what it installed.
pub const ROLLOUT: Duration = Duration::from_mins(3);

/// A Helm and where it installs.
#[derive(Clone, Debug)]
pub struct Helm {
    program: String,
    context: String,
    namespace: String,
    chart: PathBuf,
    /// Files of more values, which win.
    more: Vec<PathBuf>,
}

impl Helm {
    /// This program, for a context and namespace of the kubeconfig, installing the chart at `chart`.
    pub fn new(program: &str, context: &str, namespace: &str, chart: &Path) -> Self {
        Self {
            program: program.to_owned(),
            context: context.to_owned(),
            namespace: namespace.to_owned(),
            chart: chart.to_owned(),
            more: Vec::new(),
        }
    }

    /// With these files of values, which win over those that are given at each call.
    #[must_use]
    pub fn with_values(mut self, more: &[PathBuf]) -> Self {
        self.more.extend_from_slice(more);
        self
    }

    /// Its version, in its own words.
    pub fn version(&self) -> Result<String> {
        let version = Run::program(&self.program)
            .args(["version", "--template", "{{.Version}}"])
            .output()?;
        Ok(version.trim().to_owned())
    }

    /// Helm with these arguments.
    pub fn run<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        let own = [
            "--kube-context",
            &self.context,
            "--namespace",
            &self.namespace,
        ];
        Run::program(&self.program)
            .args(own)
            .args(arguments.into_iter().map(|it| it.as_ref().to_owned()))
            .within(ROLLOUT + Duration::from_secs(30))
    }

    /// Installs the chart with these values in YAML, and does not wait for anything.
    pub fn begin_install(&self, release: &str, values: &str) -> Result<()> {
        self.with_chart(&["install", release], values)
    }

    /// Installs the chart with these values in YAML, and returns when all is ready.
    pub fn install(&self, release: &str, values: &str) -> Result<()> {
        self.with_chart(&["install", release, "--wait", &timeout()], values)
    }

    /// Upgrades to the chart with these values in YAML, and returns when all is ready.
    pub fn upgrade(&self, release: &str, values: &str) -> Result<()> {
        self.with_chart(&["upgrade", release, "--wait", &timeout()], values)
    }

    fn with_chart(&self, words: &[&str], values: &str) -> Result<()> {
        let chart = self.chart.display().to_string();
        let more = self
            .more
            .iter()
            .map(|file| format!("--values={}", file.display()));
        self.run(words.iter().copied())
            .args([&chart, "--values=-"])
            .args(more)
            .input(values)
            .output()?;
        Ok(())
    }

    /// Takes the release back to its revision before this, and returns when all is ready.
    pub fn rollback(&self, release: &str) -> Result<()> {
        self.run(["rollback", release, "--wait", &timeout()])
            .output()?;
        Ok(())
    }

    /// Runs the release's own tests; what they said.
    pub fn test(&self, release: &str) -> Result<String> {
        self.run(["test", release, &timeout()]).output()
    }

    /// Removes the release, and returns when it is gone.
    pub fn uninstall(&self, release: &str) -> Result<()> {
        self.run(["uninstall", release, "--wait", "--ignore-not-found"])
            .output()?;
        Ok(())
    }
}

fn timeout() -> String {
    format!("--timeout={}s", ROLLOUT.as_secs())
}
