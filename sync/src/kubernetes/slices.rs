//! What the `EndpointSlice`s of a service say of its pods. Pure: no request is made here.
//!
//! The endpoints of a service stand in any number of slices: a hundred to each, one set of them for
//! each family of addresses, and an endpoint that is just being moved stands in two.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1 as discovery;
use peer_exchange::Address;
use peer_exchange::book::PEERS_MAX;

use super::pods::{Pod, PodUid};

/// Slices of one service at the most: twenty times what [`PEERS_MAX`] pods of two families fill.
pub const SLICES_MAX: usize = 4_096;
/// What Kubernetes allows in a slice.
const ENDPOINTS_MAX: usize = 1_000;
/// The port that is taken if a slice names several.
const PORT_NAME: &str = "exchange";
/// The longest name or UID that is one.
const ID_BYTES_MAX: usize = 253;

/// There are more slices than any release has.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the service has more than {SLICES_MAX} EndpointSlices")]
pub struct TooManySlices;

/// The slices of a service, by their names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slices(BTreeMap<String, Vec<Endpoint>>);

/// What is taken of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Endpoint {
    uid: PodUid,
    name: String,
    address: SocketAddr,
    is_terminating: bool,
}

/// The pods that all slices name together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listed {
    /// Each of them, terminating ones too, and those that are not ready.
    pub by_uid: BTreeMap<PodUid, Pod>,
    /// How many more than [`PEERS_MAX`] there are.
    pub left_out: usize,
}

impl Slices {
    /// Takes in a slice, in place of what it said before.
    pub fn take(&mut self, slice: &discovery::EndpointSlice) -> Result<(), TooManySlices> {
        let name = slice.metadata.name.clone().unwrap_or_default();
        if self.0.len() == SLICES_MAX && !self.0.contains_key(&name) {
            return Err(TooManySlices);
        }
        self.0.insert(name, endpoints(slice));
        Ok(())
    }

    /// Forgets a slice that was deleted.
    pub fn forget(&mut self, slice: &discovery::EndpointSlice) {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        self.0.remove(name);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each pod once, whichever slices it stands in: the endpoints alone decide, and not how they
    /// are spread.
    pub fn pods(&self) -> Listed {
        let mut found: BTreeMap<&PodUid, Found<'_>> = BTreeMap::new();
        for endpoint in self.0.values().flatten() {
            found.entry(&endpoint.uid).or_default().take(endpoint);
        }
        let left_out = found.len().saturating_sub(PEERS_MAX);
        let kept = found.into_iter().take(PEERS_MAX);
        let by_uid = kept.map(|(uid, found)| (uid.clone(), found.into_pod()));
        Listed {
            by_uid: by_uid.collect(),
            left_out,
        }
    }
}

/// What the endpoints of one pod say together.
#[derive(Default)]
struct Found<'a> {
    name: Option<&'a str>,
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
    is_terminating: bool,
}

impl<'a> Found<'a> {
    /// Where two endpoints of a pod disagree, one of them is old. That a pod was told to end is
    /// never taken back; of the rest any rule will do that does not ask which came first.
    fn take(&mut self, endpoint: &'a Endpoint) {
        let least = |known: Option<SocketAddr>| {
            let known = known.into_iter();
            known.chain([endpoint.address]).min()
        };
        match endpoint.address {
            SocketAddr::V4(_) => self.v4 = least(self.v4),
            SocketAddr::V6(_) => self.v6 = least(self.v6),
        }
        let name = endpoint.name.as_str();
        self.name = Some(self.name.map_or(name, |known| known.min(name)));
        self.is_terminating |= endpoint.is_terminating;
    }

    fn into_pod(self) -> Pod {
        let addresses = self.v4.into_iter().chain(self.v6);
        Pod {
            name: self.name.unwrap_or_default().to_owned(),
            addresses: addresses.filter_map(address).collect(),
            is_terminating: self.is_terminating,
        }
    }
}

/// The address as the book has it.
fn address(socket: SocketAddr) -> Option<Address> {
    socket.to_string().parse().ok()
}

/// The endpoints of a slice that can be talked to. What cannot be read is passed over: there is
/// nobody to refuse it to.
fn endpoints(slice: &discovery::EndpointSlice) -> Vec<Endpoint> {
    let Some(port) = port(slice) else {
        return Vec::new();
    };
    let endpoints = slice.endpoints.iter().take(ENDPOINTS_MAX);
    endpoints
        .filter_map(|endpoint| self::endpoint(endpoint, port))
        .collect()
}

fn port(slice: &discovery::EndpointSlice) -> Option<u16> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let named = ports
        .iter()
        .find(|port| port.name.as_deref() == Some(PORT_NAME));
    let port = named.or(ports.first())?.port?;
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn endpoint(endpoint: &discovery::Endpoint, port: u16) -> Option<Endpoint> {
    // What further addresses would mean is not defined, and Kubernetes itself looks at none.
    let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    let address = SocketAddr::new(ip, port);
    let pod = endpoint.target_ref.as_ref().filter(|target| {
        // An older API server leaves the kind out where there is but one.
        target.kind.as_deref().is_none_or(|kind| kind == "Pod")
    });
    let id = |text: Option<&String>| text.filter(|text| is_id(text)).cloned();
    let uid = id(pod.and_then(|pod| pod.uid.as_ref()));
    let name = id(pod.and_then(|pod| pod.name.as_ref()));
    Some(Endpoint {
        // Who wrote the endpoint by hand names no pod; it is a peer all the same, under a UID that
        // no pod has.
        uid: PodUid(uid.unwrap_or_else(|| format!("address:{address}"))),
        name: name.unwrap_or_else(|| ip.to_string()),
        address,
        is_terminating: endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.terminating)
            .unwrap_or(false),
    })
}

/// Whether a text may be what Kubernetes calls something: it is shown, and compared.
fn is_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, ports: &Value, endpoints: &[Value]) -> discovery::EndpointSlice {
        let slice = json!({
            "metadata": {"name": name},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        });
        serde_json::from_value(slice).unwrap()
    }

    fn exchange_port() -> Value {
        json!([{"name": "exchange", "port": 3003, "protocol": "TCP"}])
    }

    fn pod(uid: &str, address: &str, conditions: &Value) -> Value {
        json!({
            "addresses": [address],
            "conditions": conditions,
            "targetRef": {"kind": "Pod", "name": format!("pod-{uid}"), "uid": uid},
        })
    }

    fn ready(uid: &str, address: &str) -> Value {
        let conditions = json!({"ready": true, "serving": true, "terminating": false});
        pod(uid, address, &conditions)
    }

    fn listed(slices: &[discovery::EndpointSlice]) -> Listed {
        let mut taken = Slices::default();
        for slice in slices {
            taken.take(slice).unwrap();
        }
        taken.pods()
    }

    fn of(endpoints: &[Value]) -> Listed {
        listed(&[slice("s", &exchange_port(), endpoints)])
    }

    fn addresses(listed: &Listed, uid: &str) -> Vec<String> {
        let pod = &listed.by_uid[&PodUid(uid.to_owned())];
        pod.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn slices_are_one_set_and_a_pod_in_several_of_them_is_one_pod() {
        let first = slice("v4-a", &exchange_port(), &[ready("a", "10.0.0.1")]);
        let second = slice("v4-b", &exchange_port(), &[ready("b", "10.0.0.2")]);
        let other = slice(
            "v6-a",
            &exchange_port(),
            &[ready("a", "fd00::1"), ready("b", "fd00::2")],
        );
        // Its endpoint is being moved from one slice to another.
        let moved = slice("v4-c", &exchange_port(), &[ready("b", "10.0.0.2")]);
        let listed = listed(&[other, first, second, moved]);
        assert_eq!(listed.by_uid.len(), 2);
        assert_eq!(
            addresses(&listed, "a"),
            ["10.0.0.1:3003", "[fd00::1]:3003"],
            "IPv4 first"
        );
        assert_eq!(listed.by_uid[&PodUid("b".to_owned())].name, "pod-b");
    }

    #[test]
    fn a_pod_that_is_not_ready_is_one_and_one_that_ends_is_marked() {
        let unready = json!({"ready": false, "serving": false, "terminating": false});
        let ending = json!({"ready": false, "serving": true, "terminating": true});
        let listed = of(&[
            pod("a", "10.0.0.1", &unready),
            pod("b", "10.0.0.2", &ending),
            pod("c", "10.0.0.3", &json!({})),
        ]);
        let terminating = listed.by_uid.values().map(|pod| pod.is_terminating);
        assert!(terminating.eq([false, true, false]));
    }

    #[test]
    fn a_pod_that_ends_in_one_slice_ends() {
        let ending = json!({"terminating": true});
        let old = slice("old", &exchange_port(), &[ready("a", "10.0.0.1")]);
        let new = slice("new", &exchange_port(), &[pod("a", "10.0.0.1", &ending)]);
        for slices in [[old.clone(), new.clone()], [new, old]] {
            let listed = listed(&slices);
            assert!(listed.by_uid[&PodUid("a".to_owned())].is_terminating);
        }
    }

    #[test]
    fn the_port_is_that_of_the_exchange_or_else_the_first() {
        let port = |ports: &Value| {
            let listed = listed(&[slice("s", ports, &[ready("a", "10.0.0.1")])]);
            let pod = listed.by_uid.into_values().next();
            pod.map(|pod| pod.addresses[0].to_string())
        };
        let address = |port: u16| Some(format!("10.0.0.1:{port}"));
        let two = json!([{"name": "ops", "port": 3004}, {"name": "exchange", "port": 3003}]);
        assert_eq!(port(&two), address(3003));
        let other = json!([{"name": "a", "port": 7}, {"name": "b", "port": 8}]);
        assert_eq!(port(&other), address(7));
        for none in [
            json!([]),
            json!(null),
            json!([{"name": "exchange"}]),
            json!([{"name": "exchange", "port": 0}]),
            json!([{"name": "exchange", "port": 65_536}]),
            json!([{"name": "exchange", "port": -1}]),
        ] {
            assert_eq!(port(&none), None, "{none}");
        }
    }

    #[test]
    fn an_endpoint_that_names_no_pod_is_a_peer_under_a_uid_that_no_pod_has() {
        let bare = json!({"addresses": ["10.0.0.1"]});
        let node = json!({"addresses": ["10.0.0.2"],
            "targetRef": {"kind": "Node", "name": "n", "uid": "n"}});
        let odd = json!({"addresses": ["10.0.0.3"],
            "targetRef": {"kind": "Pod", "name": "a\u{1b}[2J", "uid": "u".repeat(300)}});
        let listed = of(&[bare, node, odd]);
        let uids: Vec<_> = listed.by_uid.keys().map(|uid| uid.0.as_str()).collect();
        assert_eq!(
            uids,
            [
                "address:10.0.0.1:3003",
                "address:10.0.0.2:3003",
                "address:10.0.0.3:3003"
            ]
        );
        let names: Vec<_> = listed.by_uid.values().map(|pod| &pod.name).collect();
        assert_eq!(names, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }

    #[test]
    fn what_is_no_address_to_talk_to_is_passed_over() {
        let odd = [
            "udht-0.example",
            "",
            "10.0.0.1:80",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
        ];
        let mut endpoints: Vec<_> = odd.iter().map(|odd| ready("odd", odd)).collect();
        endpoints.push(json!({"addresses": []}));
        endpoints.push(json!({"addresses": ["10.0.0.9", "10.0.0.8"], "targetRef": {"uid": "a"}}));
        endpoints.push(ready("mapped", "::ffff:10.0.0.7"));
        let listed = of(&endpoints);
        assert_eq!(listed.by_uid.len(), 2);
        assert_eq!(addresses(&listed, "a"), ["10.0.0.9:3003"]);
        assert_eq!(addresses(&listed, "mapped"), ["10.0.0.7:3003"]);
    }

    #[test]
    fn there_are_bounds_to_how_many_pods_and_slices_are_kept() {
        let mut slices = Slices::default();
        for batch in 0..=PEERS_MAX / ENDPOINTS_MAX {
            let endpoints: Vec<_> = (0..ENDPOINTS_MAX + 7)
                .map(|n| {
                    ready(
                        &format!("{batch}-{n}"),
                        &format!("10.{batch}.{}.{}", n / 250, n % 250),
                    )
                })
                .collect();
            let slice = slice(&format!("s{batch}"), &exchange_port(), &endpoints);
            slices.take(&slice).unwrap();
        }
        let listed = slices.pods();
        assert_eq!((listed.by_uid.len(), listed.left_out), (PEERS_MAX, 1_000));

        let empty = |n: usize| slice(&format!("e{n}"), &exchange_port(), &[]);
        let mut slices = Slices::default();
        for n in 0..SLICES_MAX {
            slices.take(&empty(n)).unwrap();
        }
        assert_eq!(slices.take(&empty(SLICES_MAX)), Err(TooManySlices));
        slices.take(&empty(0)).unwrap();
        slices.forget(&empty(1));
        slices.take(&empty(SLICES_MAX)).unwrap();
    }

    fn any_endpoint() -> impl Strategy<Value = Value> {
        let address = prop_oneof![
            (0..3_u8, 0..6_u8).prop_map(|(a, b)| format!("10.0.{a}.{b}")),
            (0..6_u8).prop_map(|n| format!("fd00::{n}")),
            Just("no address".to_owned()),
        ];
        let uid = proptest::option::of(0..6_u8);
        let terminating = proptest::option::of(any::<bool>());
        (address, uid, terminating).prop_map(|(address, uid, terminating)| {
            let conditions = json!({"terminating": terminating});
            match uid {
                Some(uid) => pod(&uid.to_string(), &address, &conditions),
                None => json!({"addresses": [address], "conditions": conditions}),
            }
        })
    }

    proptest! {
        #[test]
        fn however_endpoints_are_spread_over_slices_the_pods_are_the_same(
            endpoints in proptest::collection::vec((any_endpoint(), 0..5_usize, any::<u32>()), 0..24),
        ) {
            let together: Vec<_> = endpoints.iter().map(|(endpoint, ..)| endpoint.clone()).collect();
            let mut shuffled = endpoints;
            shuffled.sort_by_key(|(.., place)| *place);
            let spread: Vec<_> = (0..5)
                .map(|n| {
                    let within = shuffled.iter().filter(|(_, slice, _)| *slice == n);
                    let within: Vec<_> = within.map(|(endpoint, ..)| endpoint.clone()).collect();
                    slice(&format!("s{n}"), &exchange_port(), &within)
                })
                .collect();
            prop_assert_eq!(of(&together), listed(&spread));
        }
    }
}
