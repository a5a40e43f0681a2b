//! `kubectl port-forward`, while it is needed.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::command::Ended;

/// How long `kubectl` may take until it forwards.
const BEGINNING: Duration = Duration::from_secs(15);

/// Ports of a pod that are forwarded to free ports of this machine.
#[derive(Debug)]
pub struct Forward {
    _child: Ended,
    /// The port of the pod, and the one here.
    ports: Vec<(u16, u16)>,
}

impl Forward {
    pub(super) fn start(kubectl: &[&str], target: &str, ports: &[u16]) -> Result<Self> {
        let mut child = Ended(
            Command::new("kubectl")
                .args(kubectl)
                .args(["port-forward", "--address=127.0.0.1", target])
                .args(ports.iter().map(|port| format!(":{port}")))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
                .context("start kubectl")?,
        );
        let (said, lines) = channel();
        let complained = said.clone();
        let stdout = child.0.stdout.take().context("no standard output")?;
        let stderr = child.0.stderr.take().context("no standard error")?;
        // Both are read to their end, or kubectl would wait for a reader one day.
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(said.send(Ok(line))));
        });
        std::thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            lines.for_each(|line| drop(complained.send(Err(line))));
        });
        let mut begun = Vec::new();
        while begun.len() < ports.len() {
            match lines.recv_timeout(BEGINNING) {
                Ok(Ok(line)) => begun.extend(forwarded(&line)),
                Ok(Err(complaint)) => bail!("kubectl port-forward {target}: {complaint}"),
                Err(_) => bail!("kubectl port-forward {target}: did not begin"),
            }
        }
        Ok(Self {
            _child: child,
            ports: begun,
        })
    }

    /// Where this path of a forwarded port answers.
    pub fn url(&self, port: u16, path: &str) -> String {
        let here = self.ports.iter().find(|(there, _)| *there == port);
        format!(
            "http://127.0.0.1:{}{path}",
            here.map_or(0, |(_, here)| *here)
        )
    }
}

/// The pod's port and the one here in a line like `Forwarding from 127.0.0.1:40123 -> 3002`.
fn forwarded(line: &str) -> Option<(u16, u16)> {
    let (here, there) = line
        .strip_prefix("Forwarding from 127.0.0.1:")?
        .split_once(" -> ")?;
    Some((there.trim().parse().ok()?, here.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_forward_tells_both_ports() {
        let line = "Forwarding from 127.0.0.1:40123 -> 3002";
        assert_eq!(forwarded(line), Some((3002, 40123)));
        assert_eq!(forwarded("Handling connection for 40123"), None);
    }
}
