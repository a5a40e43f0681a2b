//! `kubectl`, for one namespace of one cluster.

use anyhow::{Context, Result};
use serde_json::Value;

use super::command::Run;
use super::forward::Forward;

/// The cluster's command line, with its context and a namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    context: String,
    namespace: String,
}

impl Kubectl {
    /// For this context and namespace of the kubeconfig.
    pub fn new(context: &str, namespace: &str) -> Self {
        Self {
            context: context.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    /// The same cluster's other namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self::new(&self.context, namespace)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The arguments that every call begins with.
    pub(super) fn arguments(&self) -> [&str; 4] {
        ["--context", &self.context, "--namespace", &self.namespace]
    }

    /// `kubectl` with these arguments.
    pub fn run<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        let run = Run::program("kubectl").args(self.arguments());
        run.args(arguments.into_iter().map(|it| it.as_ref().to_owned()))
    }

    /// What `kubectl` says to these words.
    pub fn say(&self, words: &str) -> Result<String> {
        self.run(words.split_whitespace()).output()
    }

    /// What `kubectl get` of these words gives, as JSON.
    pub fn get(&self, words: &str) -> Result<Value> {
        let said = self
            .run(["get", "--output=json"])
            .args(words.split_whitespace())
            .output()?;
        serde_json::from_str(&said).with_context(|| format!("kubectl get {words}"))
    }

    /// Applies these manifests.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.run(["apply", "--filename=-"])
            .input(manifests)
            .output()?;
        Ok(())
    }

    /// Forwards these ports of a pod, or of what stands for one (`deployment/NAME`), to this
    /// machine.
    pub fn forward(&self, target: &str, ports: &[u16]) -> Result<Forward> {
        Forward::start(&self.arguments(), target, ports)
    }

    /// Runs a command in a container of a pod.
    pub fn exec<A: AsRef<str>>(
        &self,
        pod: &str,
        container: &str,
        command: impl IntoIterator<Item = A>,
    ) -> Run {
        self.run(["exec", pod, "--container", container, "--"])
            .args(command.into_iter().map(|it| it.as_ref().to_owned()))
    }
}
