//! Which packets a policy is about: after DNAT, to and from nodes, replies and errors, addresses that change hands.

use std::net::IpAddr;
use std::time::Duration;

use selvedge_lab::stage::{
    self, Manifests, PodManifest, committed, enforce, namespace, node, policy,
};
use selvedge_lab::{Error, Host, Lab, Outcome, Pod, PodSpec, Probe, Protocol, Service, probe_all};

const PORTED: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
/// On one machine an answer takes no time; what is silent for so long is denied, where that is expected.
const WINDOW: Duration = Duration::from_millis(400);

const API_FROM_WEB: &str = "{podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress, Egress], \
     ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}, {port: 8080, protocol: UDP}, {port: 8080, protocol: SCTP}]}]}";

/// Two nodes with a web and an other each, an api on the first, and an outsider.
fn manifests(policies: &[(&str, &str)]) -> Result<Manifests, Error> {
    let manifests = Manifests::new()?;
    let mut text = node(1) + &node(2) + &namespace("shop", "team: shop");
    for (name, node, host, labels) in [
        ("shop/web-1", 1, 2, "app: web"),
        ("shop/other-1", 1, 3, "app: other"),
        ("shop/api", 1, 4, "app: api"),
        ("shop/web-2", 2, 2, "app: web"),
        ("shop/other-2", 2, 3, "app: other"),
    ] {
        text += &PodManifest::new(name, node, host, labels).to_string();
    }
    manifests.put("cluster.yaml", text)?;
    let policies = policies.iter().map(|(name, spec)| policy(name, spec));
    manifests.put("policies.yaml", policies.collect::<String>())?;
    Ok(manifests)
}

/// The lab of the manifests with their policies in force.
fn enforced(policies: &[(&str, &str)]) -> Result<Lab, Error> {
    let manifests = manifests(policies)?;
    let lab = manifests.lab()?.outsider("outsider", []).build()?;
    enforce(&lab, &manifests.index()?)?;
    Ok(lab)
}

/// Probes to be made at once, with what is expected of each.
#[derive(Default)]
struct Expected {
    probes: Vec<(Host, Probe)>,
    allowed: Vec<(bool, String)>,
}

impl Expected {
    fn probe(&mut self, from: &Host, probe: Probe, allowed: bool) {
        let what = format!("{} {probe:?}", from.name());
        let probe = match allowed {
            true => probe,
            false => probe.window(WINDOW),
        };
        self.probes.push((from.clone(), probe));
        self.allowed.push((allowed, what));
    }

    /// One probe to each address.
    fn each(
        &mut self,
        from: &Host,
        to: impl IntoIterator<Item = IpAddr>,
        protocol: Protocol,
        port: u16,
        allowed: bool,
    ) {
        for address in to {
            self.probe(from, Probe::new(protocol, address, port), allowed);
        }
    }

    fn check(self) -> Result<Vec<Outcome>, Error> {
        let outcomes = probe_all(&self.probes)?;
        for ((allowed, what), outcome) in self.allowed.iter().zip(&outcomes) {
            assert_eq!(outcome.is_allowed(), *allowed, "{what}: {outcome}");
            assert_eq!(outcome.is_denied(), !*allowed, "{what}: {outcome}");
        }
        Ok(outcomes)
    }
}

fn cluster_ips() -> [IpAddr; 2] {
    [
        [10, 96, 0, 10].into(),
        [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10].into(),
    ]
}

/// A Service in front of `backend`: port 80 of both cluster IPs to its port 8080.
fn serve(lab: &Lab, backend: &Pod) -> Result<(), Error> {
    for cluster_ip in cluster_ips() {
        let mut service = Service::new(&format!("shop/service-{cluster_ip}"), cluster_ip)
            .backends(backend.addresses().iter().copied());
        for protocol in PORTED {
            backend.listen(protocol, 8080)?;
            service = service.port(protocol, 80, 8080);
        }
        lab.add_service(service)?;
    }
    Ok(())
}

#[test]
fn behind_a_cluster_ip_the_backend_s_policy_decides() -> Result<(), Error> {
    let lab = enforced(&[("shop/api", API_FROM_WEB)])?;
    let api = lab.pod("shop/api")?;
    serve(&lab, &api)?;
    let mut expected = Expected::default();
    for (name, allowed) in [
        ("shop/web-1", true),
        ("shop/web-2", true),
        ("shop/other-1", false),
        ("shop/other-2", false),
        // Its own packets come back to it.
        ("shop/api", true),
    ] {
        let from = lab.pod(name)?;
        for protocol in PORTED {
            expected.each(&from, cluster_ips(), protocol, 80, allowed);
            // As it is without the Service, whose own port stands in no policy.
            expected.each(&from, api.addresses().to_vec(), protocol, 8080, allowed);
        }
    }
    // The kubelet's node reaches its pods this way too; another node does not.
    let (own, another) = (lab.node("node-1")?, lab.node("node-2")?);
    for protocol in PORTED {
        expected.each(&own, cluster_ips(), protocol, 80, true);
        expected.each(&another, cluster_ips(), protocol, 80, false);
    }
    let outcomes = expected.check()?;
    let by = outcomes.iter().filter(|one| one.is_allowed());
    for outcome in by {
        assert_eq!(outcome.answered_by(), Some("shop/api"));
    }
    Ok(())
}

#[test]
fn egress_to_a_cluster_ip_is_egress_to_the_backend() -> Result<(), Error> {
    let lab = enforced(&[
        (
            "shop/by-pod",
            "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 8080}]}]}",
        ),
        // A Service's address and port mean nothing after DNAT.
        (
            "shop/by-service",
            "{podSelector: {matchLabels: {app: other}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}, {ipBlock: {cidr: 'fd00:10:96::/48'}}]}, {to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 80}]}]}",
        ),
    ])?;
    let api = lab.pod("shop/api")?;
    serve(&lab, &api)?;
    let mut expected = Expected::default();
    for (name, allowed) in [
        ("shop/web-1", true),
        ("shop/web-2", true),
        ("shop/other-1", false),
        ("shop/other-2", false),
    ] {
        let from = lab.pod(name)?;
        expected.each(&from, cluster_ips(), Protocol::Tcp, 80, allowed);
        expected.each(&from, cluster_ips(), Protocol::Udp, 80, false);
    }
    expected.check().map(drop)
}

#[test]
fn a_pod_and_its_own_node_always_reach_each_other() -> Result<(), Error> {
    let lab = enforced(&[(
        "shop/nothing",
        "{podSelector: {}, policyTypes: [Ingress, Egress]}",
    )])?;
    let own = lab.node("node-1")?;
    let another = lab.node("node-2")?;
    let outsider = lab.outsider("outsider")?;
    let api = lab.pod("shop/api")?;
    // The node's own addresses, and those of cni0 and flannel.1 in its pod CIDRs.
    let mut to_own: Vec<IpAddr> = own.addresses().to_vec();
    to_own.extend([IpAddr::from([10, 244, 1, 0]), [10, 244, 1, 1].into()]);
    to_own.push([0xfd00, 0x10, 0x244, 1, 0, 0, 0, 1].into());
    let mut to_another: Vec<IpAddr> = another.addresses().to_vec();
    to_another.extend([IpAddr::from([10, 244, 2, 0]), [10, 244, 2, 1].into()]);
    let mut expected = Expected::default();
    for protocol in PORTED {
        api.listen(protocol, 80)?;
        own.listen(protocol, 10250)?;
        another.listen(protocol, 10250)?;
        expected.each(&own, api.addresses().to_vec(), protocol, 80, true);
        expected.each(&another, api.addresses().to_vec(), protocol, 80, false);
        expected.each(&outsider, api.addresses().to_vec(), protocol, 80, false);
        expected.each(&api, to_own.clone(), protocol, 10250, true);
        expected.each(&api, to_another.clone(), protocol, 10250, false);
    }
    for address in api.addresses() {
        expected.probe(&own, Probe::icmp(*address), true);
        expected.probe(&another, Probe::icmp(*address), false);
    }
    expected.check().map(drop)
}

#[test]
fn another_node_is_an_address_like_any_other() -> Result<(), Error> {
    // What node-2 sends to a pod of another node has the address of its flannel.1.
    let lab = enforced(&[(
        "shop/blocks",
        "{podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress, Egress], \
         ingress: [{from: [{ipBlock: {cidr: 10.244.2.0/32}}, {ipBlock: {cidr: 'fd00:10:244:2::/128'}}]}], \
         egress: [{to: [{ipBlock: {cidr: 192.168.50.12/32}}, {ipBlock: {cidr: 'fd50::12/128'}}], ports: [{port: 6443}]}]}",
    )])?;
    let another = lab.node("node-2")?;
    let api = lab.pod("shop/api")?;
    api.listen(Protocol::Tcp, 80)?;
    another.listen(Protocol::Tcp, 6443)?;
    let mut expected = Expected::default();
    let to = api.addresses().to_vec();
    expected.each(&another, to.clone(), Protocol::Tcp, 80, true);
    expected.each(
        &lab.outsider("outsider")?,
        to.clone(),
        Protocol::Tcp,
        80,
        false,
    );
    expected.each(&*lab.pod("shop/web-2")?, to, Protocol::Tcp, 80, false);
    let node = another.addresses().to_vec();
    expected.each(&api, node.clone(), Protocol::Tcp, 6443, true);
    expected.each(&api, node, Protocol::Tcp, 6444, false);
    expected.check().map(drop)
}

#[test]
fn replies_and_related_errors_pass_where_the_reverse_is_denied() -> Result<(), Error> {
    let lab = enforced(&[("shop/api", API_FROM_WEB)])?;
    let api = lab.pod("shop/api")?;
    let mut expected = Expected::default();
    let mut refused = Vec::new();
    for name in ["shop/web-1", "shop/web-2"] {
        let web = lab.pod(name)?;
        for protocol in PORTED {
            web.listen(protocol, 8080)?;
            // Nobody serves 8080 of api yet: what comes back are resets and ICMP errors.
            for address in api.addresses() {
                expected.probe(&web, Probe::new(protocol, *address, 8080), true);
                refused.push(true);
            }
            for address in web.addresses() {
                expected.probe(&api, Probe::new(protocol, *address, 8080), false);
                refused.push(false);
            }
        }
    }
    for (outcome, refused) in expected.check()?.iter().zip(refused) {
        assert_eq!(*outcome == Outcome::Refused, refused, "{outcome}");
    }
    let mut expected = Expected::default();
    for protocol in PORTED {
        api.listen(protocol, 8080)?;
        for name in ["shop/web-1", "shop/web-2"] {
            let web = lab.pod(name)?;
            expected.each(&web, api.addresses().to_vec(), protocol, 8080, true);
            expected.each(&api, web.addresses().to_vec(), protocol, 8080, false);
        }
    }
    let outcomes = expected.check()?;
    let answers = outcomes.iter().filter_map(Outcome::answered_by);
    assert_eq!(answers.count(), 12);
    Ok(())
}

#[test]
fn host_network_pods_are_neither_selected_nor_peers() -> Result<(), Error> {
    let manifests = manifests(&[(
        "shop/everyone",
        "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}, {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}",
    )])?;
    let agents = PodManifest::new("shop/agent-1", 1, 0, "app: web")
        .host_network()
        .to_string()
        + &PodManifest::new("shop/agent-2", 2, 0, "app: web")
            .host_network()
            .to_string();
    manifests.put("agents.yaml", agents)?;
    let lab = manifests.lab()?.build()?;
    let rulesets = enforce(&lab, &manifests.index()?)?;
    for ruleset in rulesets.values() {
        let text = selvedge_nft::text::list(ruleset);
        assert!(!text.contains("192.168.50.1"), "{text}");
        assert!(!text.contains("shop/agent"), "{text}");
    }
    let (first, second) = (lab.node("node-1")?, lab.node("node-2")?);
    let api = lab.pod("shop/api")?;
    api.listen(Protocol::Tcp, 80)?;
    let mut expected = Expected::default();
    for node in [&first, &second] {
        node.listen(Protocol::Tcp, 9100)?;
        // As a subject it is isolated from nobody.
        for from in ["shop/other-1", "shop/other-2"] {
            let to = node.addresses().to_vec();
            expected.each(&*lab.pod(from)?, to, Protocol::Tcp, 9100, true);
        }
    }
    let to = api.addresses().to_vec();
    expected.each(
        &*lab.pod("shop/web-2")?,
        to.clone(),
        Protocol::Tcp,
        80,
        true,
    );
    // As a peer it is its node: the api's own one, and another.
    expected.each(&first, to.clone(), Protocol::Tcp, 80, true);
    expected.each(&second, to, Protocol::Tcp, 80, false);
    expected.check().map(drop)
}

#[test]
fn an_address_goes_with_the_pod_that_has_it_now() -> Result<(), Error> {
    let manifests = manifests(&[("shop/api", API_FROM_WEB)])?;
    // A job that may ask the api.
    let job = PodManifest::new("shop/job", 2, 9, "app: web");
    manifests.put("job.yaml", &job)?;
    let lab = manifests.lab()?.build()?;
    let first = stage::daemon(&lab.node("node-1")?, manifests.path())?;
    let second = stage::daemon(&lab.node("node-2")?, manifests.path())?;
    let api = lab.pod("shop/api")?;
    api.listen(Protocol::Tcp, 8080)?;
    let asks = |name: &str| -> Result<bool, Error> {
        let from = lab.pod(name)?;
        let probes = api.addresses().iter();
        let probes = probes.map(|to| Probe::tcp(*to, 8080));
        let outcomes = from.probe_all(&probes.collect::<Vec<_>>())?;
        let allowed = outcomes.iter().filter(|one| one.is_allowed()).count();
        let denied = outcomes.iter().filter(|one| one.is_denied()).count();
        assert!(allowed == 2 || denied == 2, "{outcomes:?}");
        Ok(allowed == 2)
    };
    let addresses = lab.pod("shop/job")?.addresses().to_vec();
    assert!(asks("shop/job")?);
    // It completes: its address is nobody's, whoever still sends from it.
    committed(&[&first], || manifests.put("job.yaml", job.succeeded()))?;
    assert!(!asks("shop/job")?);
    // The address is another pod's, while the job's object is still there.
    lab.remove_pod("shop/job")?;
    lab.add_pod(PodSpec::new("shop/heir", "node-2").addresses(addresses.clone()))?;
    manifests.put(
        "heir.yaml",
        PodManifest::new("shop/heir", 2, 9, "app: other"),
    )?;
    assert!(!asks("shop/heir")?);
    let heir = PodManifest::new("shop/heir", 2, 9, "app: web");
    committed(&[&first], || manifests.put("heir.yaml", heir))?;
    assert!(asks("shop/heir")?);
    // As a subject: an isolated pod completes, and who has its address now is not isolated.
    let heir = PodManifest::new("shop/heir", 2, 9, "app: api");
    committed(&[&first, &second], || {
        manifests.put("heir.yaml", heir.clone())
    })?;
    let other = lab.pod("shop/other-2")?;
    assert!(!other.reaches(lab.pod("shop/heir")?, Protocol::Tcp, 8080)?);
    let free = PodManifest::new("shop/free", 2, 9, "app: other");
    committed(&[&second], || {
        manifests.put("heir.yaml", format!("{}{free}", heir.succeeded()))
    })?;
    assert!(other.reaches(lab.pod("shop/heir")?, Protocol::Tcp, 8080)?);
    Ok(())
}
