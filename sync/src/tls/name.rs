//! The name that every certificate of a cluster bears.

use std::fmt;

use peer_table::{AuthorityId, ClusterId};
use rustls_pki_types::ServerName;

/// Behind the label that is made of the cluster's id: of the domain that is kept for private use,
/// so that no public authority can sign such a name.
const SUFFIX: &str = ".udht.internal";
/// The longest label of a DNS name.
const LABEL_CHARS_MAX: usize = 63;
/// The label of an id that has no letter and no digit.
const NAMELESS: &str = "cluster";

/// A DNS name that whoever issues certificates can work out by hand.
///
/// Under `--tls auto`, where nobody has to, it is the UUID of the authority and `.udht.internal`.
///
/// The cluster's id in lower case, each character but `a` to `z` and `0` to `9` as `-`, of this the
/// first 63 characters, without `-` at its ends; and behind it `.udht.internal`. So `prod/files`
/// gives `prod-files.udht.internal`.
///
/// Two ids can give one name. That matters only under one authority, and there the handshake of
/// each message, which compares the ids themselves, keeps the two apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterName {
    text: String,
    name: ServerName<'static>,
}

impl ClusterName {
    /// The name of this cluster.
    pub fn of(cluster: &ClusterId) -> Self {
        let chars = cluster.as_str().chars().map(|char| {
            let char = char.to_ascii_lowercase();
            if char.is_ascii_alphanumeric() {
                char
            } else {
                '-'
            }
        });
        let label: String = chars.take(LABEL_CHARS_MAX).collect();
        let label = match label.trim_matches('-') {
            "" => NAMELESS,
            label => label,
        };
        Self::of_label(label)
    }

    /// The name in the certificates that the authority of this UUID has signed.
    pub fn of_authority(id: AuthorityId) -> Self {
        Self::of_label(&id.to_string())
    }

    fn of_label(label: &str) -> Self {
        let text = format!("{label}{SUFFIX}");
        let name = ServerName::try_from(text.clone());
        let name = name.expect("a label of letters, digits and inner hyphens is one");
        Self { text, name }
    }

    /// The name as it is looked for in certificates.
    pub const fn as_server_name(&self) -> &ServerName<'static> {
        &self.name
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_id_has_a_name_that_can_be_worked_out_by_hand() {
        let long = "x".repeat(253);
        let cut = format!("{}.udht.internal", "x".repeat(63));
        for (id, name) in [
            ("default/udht", "default-udht.udht.internal"),
            ("Prod/Files.2", "prod-files-2.udht.internal"),
            ("/-a-/", "a.udht.internal"),
            ("a_b:c", "a-b-c.udht.internal"),
            ("//", "cluster.udht.internal"),
            (long.as_str(), cut.as_str()),
        ] {
            let cluster: ClusterId = id.parse().unwrap();
            assert_eq!(ClusterName::of(&cluster).to_string(), name, "{id}");
        }
    }
}
