//! `can`, `why` and `matrix` as a person, a script and a test harness meet them.

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const CLUSTER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.168.50.11}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {nodeName: node-1}
status: {phase: Running, podIPs: [{ip: 10.244.1.2}, {ip: 'fd00:10:244:1::2'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api-0, namespace: shop, labels: {app: api}}
spec:
  nodeName: node-1
  containers: [{name: main, ports: [{name: http, containerPort: 8080}]}]
status: {phase: Running, podIPs: [{ip: 10.244.1.3}, {ip: 'fd00:10:244:1::3'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, labels: {app: db}}
spec: {nodeName: node-1}
status: {phase: Running, podIPs: [{ip: 10.244.1.4}]}
---
apiVersion: v1
kind: Pod
metadata: {name: job-0, namespace: shop}
spec: {nodeName: node-1}
status: {phase: Succeeded, podIPs: [{ip: 10.244.1.5}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: http}, {port: 9000, endPort: 9100}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: api}}}]
    ports: [{port: 5432}]
";

struct Case {
    directory: tempfile::TempDir,
}

impl Case {
    fn new(yaml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("all.yaml"), yaml).unwrap();
        Self { directory }
    }

    /// Runs `selvedge` with these words, `-f` and the directory.
    fn run(&self, words: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_selvedge"))
            .args(words.split_whitespace())
            .arg("-f")
            .arg(self.directory.path())
            .env_remove("COLUMNS")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn answers(&self, words: &str, code: i32) -> String {
        let output = self.run(words);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words}: {stderr}");
        text(&output.stdout)
    }

    fn json(&self, words: &str, code: i32) -> Value {
        serde_json::from_str(&self.answers(&format!("{words} -o json"), code)).unwrap()
    }

    /// Asserts bad input: exit code 2, nothing on stdout, one line on stderr.
    fn refuses(&self, words: &str, line: &str) {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert_eq!(text(&output.stdout), "", "{words}");
        let stderr = text(&output.stderr);
        let stderr = stderr.replace(&self.directory.path().display().to_string(), "DIR");
        assert_eq!(stderr, format!("selvedge: {line}\n"), "{words}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn can_says_yes_or_no_and_so_does_its_exit_code() {
    let case = Case::new(CLUSTER);
    assert_eq!(
        case.answers("can shop/web-0 shop/api-0 --port tcp/8080", 0),
        "allowed\n"
    );
    assert_eq!(
        case.answers("can shop/web-0 shop/api-0 --port tcp/80", 1),
        "denied\n"
    );
    assert_eq!(
        case.answers("can shop/web-0 shop/api-0 --port icmp", 1),
        "denied\n"
    );
    assert_eq!(
        case.answers("can 10.244.1.2 10.244.1.3 --port TCP/9100", 0),
        "allowed\n"
    );
    assert_eq!(
        case.answers("can 192.168.50.200 shop/api-0 --port tcp/8080", 1),
        "denied\n"
    );
    assert_eq!(
        case.answers("can 192.168.50.11 shop/api-0 --port udp/1", 0),
        "allowed\n"
    );
    assert_eq!(
        case.answers("can shop/web-0 192.0.2.1 --port sctp/9", 0),
        "allowed\n"
    );
    assert_eq!(
        case.answers("can shop/db-0 192.0.2.1 --port sctp/9", 1),
        "denied\n"
    );
    let json = case.json("can shop/db-0 shop/api-0 --port tcp/8080", 1);
    assert_eq!(
        json,
        json!({
            "from": "shop/db-0", "to": "shop/api-0", "port": "tcp/8080", "allowed": false,
            "connections": [{"from": "10.244.1.4", "to": "10.244.1.3", "allowed": false}],
        })
    );
}

#[test]
fn why_names_policy_rule_and_what_a_connection_lacks() {
    let case = Case::new(CLUSTER);
    assert_eq!(
        case.answers("why shop/web-0 shop/db-0 --port tcp/5432", 1),
        "DENIED  shop/web-0 (10.244.1.2) → shop/db-0 (10.244.1.4)  tcp/5432\n  \
           egress   allowed  no policy isolates shop/web-0 for egress\n  \
           ingress  DENIED   shop/db-0 is isolated by NetworkPolicy shop/db; no rule matches\n                    \
           nearest: NetworkPolicy shop/db spec.ingress[0]: needs app=api, source has app=web\n"
    );
    assert_eq!(
        case.answers("why shop/web-0 shop/api-0 --port tcp/8081", 1),
        "DENIED  shop/web-0 (10.244.1.2) → shop/api-0 (10.244.1.3)  tcp/8081\n  \
           egress   allowed  no policy isolates shop/web-0 for egress\n  \
           ingress  DENIED   shop/api-0 is isolated by NetworkPolicy shop/api; no rule matches\n                    \
           nearest: NetworkPolicy shop/api spec.ingress[0]: allows TCP http (destination's 8080), \
           TCP 9000-9100, asked 8081\n"
    );
    assert_eq!(
        case.answers("why 10.244.1.2 shop/api-0 --port tcp/8080", 0),
        "ALLOWED  10.244.1.2 (shop/web-0) → shop/api-0 (10.244.1.3)  tcp/8080\n  \
           egress   allowed  no policy isolates shop/web-0 for egress\n  \
           ingress  allowed  by NetworkPolicy shop/api spec.ingress[0] (from app=web in ns shop, TCP http)\n"
    );
    assert_eq!(
        case.answers("why shop/db-0 192.0.2.1 --port tcp/443", 1),
        "DENIED  shop/db-0 (10.244.1.4) → 192.0.2.1  tcp/443\n  \
           egress   DENIED   shop/db-0 is isolated by NetworkPolicy shop/db; no rule matches\n                    \
           it allows no egress: there is no egress rule\n  \
           ingress  allowed  192.0.2.1 is no pod of the cluster: nothing is enforced there\n"
    );
}

#[test]
fn why_answers_programs_too() {
    let case = Case::new(CLUSTER);
    let json = case.json("why shop/web-0 shop/db-0 --port tcp/5432", 1);
    let connection = &json["connections"][0];
    assert_eq!(
        connection["from"],
        json!({"address": "10.244.1.2", "kind": "pod", "namespace": "shop", "name": "web-0", "node": "node-1"})
    );
    assert_eq!(
        connection["egress"],
        json!({"allowed": true, "reason": "not-isolated", "enforcedOn": "node-1"})
    );
    assert_eq!(
        connection["ingress"],
        json!({
            "allowed": false, "reason": "isolated", "enforcedOn": "node-1", "by": ["NetworkPolicy shop/db"],
            "nearest": {
                "policy": "NetworkPolicy shop/db", "rule": "spec.ingress[0]",
                "lacks": ["needs app=api, source has app=web"],
            },
        })
    );
    let json = case.json("why shop/web-0 shop/api-0 --port tcp/9000", 0);
    assert_eq!(json["connections"].as_array().unwrap().len(), 2);
    assert_eq!(
        json["connections"][1]["ingress"]["by"],
        json!({
            "policy": "NetworkPolicy shop/api", "rule": "spec.ingress[0]",
            "peer": "app=web in ns shop", "ports": "TCP 9000-9100",
        })
    );
}

#[test]
fn the_matrix_has_each_ordered_pair_with_anything_allowed() {
    let case = Case::new(CLUSTER);
    let all = json!([
        {"protocol": "TCP", "ports": "1-65535"},
        {"protocol": "UDP", "ports": "1-65535"},
        {"protocol": "SCTP", "ports": "1-65535"},
    ]);
    assert_eq!(
        case.json("matrix", 0),
        json!([
            {"from": "shop/api-0", "to": "shop/db-0", "allowed": [{"protocol": "TCP", "ports": "5432"}]},
            {"from": "shop/api-0", "to": "shop/web-0", "allowed": all},
            {"from": "shop/web-0", "to": "shop/api-0", "allowed": [{"protocol": "TCP", "ports": "8080,9000-9100"}]},
        ])
    );
    assert_eq!(
        case.answers("matrix", 0),
        "shop/api-0\n  TCP 5432            shop/db-0\n  all ports           shop/web-0\n\
         shop/db-0\n  reaches nobody\n\
         shop/web-0\n  TCP 8080,9000-9100  shop/api-0\n"
    );
}

#[test]
fn the_matrix_shows_pods_that_are_alike_as_one() {
    let mut yaml = String::new();
    for (name, label, address) in [
        ("web-5d9c-a", "web", 2),
        ("web-5d9c-b", "web", 3),
        ("web-5d9c-c", "web", 4),
        ("api-5d9c-a", "api", 5),
        ("api-5d9c-b", "api", 6),
        ("lone", "lone", 7),
    ] {
        yaml.push_str(&format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n  \
             labels: {{app: {label}, pod-template-hash: 5d9c}}\nstatus: {{podIPs: [{{ip: 10.244.1.{address}}}]}}\n"
        ));
    }
    let case = Case::new(&yaml);
    assert_eq!(
        case.answers("matrix", 0),
        "everyone\n  all ports  everyone\n"
    );
    // A block tells the third from the others.
    yaml.push_str(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: api, namespace: shop}\n\
         spec:\n  podSelector: {matchLabels: {app: api}}\n  \
         ingress: [{from: [{ipBlock: {cidr: 10.244.1.4/32}}], ports: [{port: 80}]}]\n",
    );
    let case = Case::new(&yaml);
    assert_eq!(
        case.answers("matrix", 0),
        "shop/api (2 pods), shop/web-5d9c-a (2 pods)\n  \
         all ports  shop/lone, shop/web-5d9c-a (2 pods), shop/web-5d9c-c\n\
         shop/lone\n  all ports  shop/web-5d9c-a (2 pods), shop/web-5d9c-c\n\
         shop/web-5d9c-c\n  all ports  shop/lone, shop/web-5d9c-a (2 pods)\n  TCP 80     shop/api (2 pods)\n"
    );
}

#[test]
fn manifests_from_git_answer_for_their_workloads() {
    let case = Case::new(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n\
         spec: {template: {metadata: {labels: {app: web}}, spec: {containers: []}}}\n---\n\
         apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: backup, namespace: ops}\n\
         spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: backup}}}}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n\
         spec:\n  podSelector: {matchLabels: {app: web}}\n  \
         ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}]}]\n",
    );
    assert_eq!(
        case.answers("can ops/backup shop/web --port tcp/80", 0),
        "allowed\n"
    );
    assert_eq!(
        case.answers("can 192.0.2.1 shop/web --port tcp/80", 1),
        "denied\n"
    );
}

#[test]
fn what_is_wrong_with_a_question_is_one_line() {
    let case = Case::new(CLUSTER);
    case.refuses(
        "can shop/wbe-0 shop/api-0 --port tcp/80",
        "there is no pod shop/wbe-0; did you mean shop/web-0?",
    );
    case.refuses(
        "why web-0 shop/api-0 --port tcp/80",
        "\"web-0\" is neither NAMESPACE/POD nor an IP address; did you mean shop/web-0?",
    );
    case.refuses(
        "why shop/api shop/web-0 --port tcp/80",
        "there is no pod shop/api; did you mean shop/api-0?",
    );
    case.refuses(
        "can shop/web-0 kube-system/something-else --port tcp/80",
        "there is no pod kube-system/something-else; a pod is named like shop/api-0",
    );
    case.refuses(
        "can shop/job-0 shop/api-0 --port tcp/80",
        "shop/job-0 has finished, and so has no address any more",
    );
    case.refuses(
        "can shop/db-0 fd00::1 --port tcp/80",
        "shop/db-0 and fd00::1 have no address family in common: 10.244.1.4 and fd00::1",
    );
    for port in ["tcp/0", "tcp/65536", "udp/70000"] {
        let number = port.split_once('/').unwrap().1;
        case.refuses(
            &format!("can shop/web-0 shop/api-0 --port {port}"),
            &format!(
                "invalid value '{port}' for '--port <PROTOCOL/N>': port {number} is not within 1-65535 \
                 (selvedge --help says more)"
            ),
        );
    }
    case.refuses(
        "can shop/web-0 shop/api-0 --port 8080",
        "invalid value '8080' for '--port <PROTOCOL/N>': \"8080\" is not tcp/N, udp/N, sctp/N or icmp \
         (selvedge --help says more)",
    );
}

#[test]
fn an_address_that_two_pods_have_is_ambiguous() {
    let twin = CLUSTER.replace("10.244.1.4", "10.244.1.3");
    let case = Case::new(&twin);
    case.refuses(
        "can 10.244.1.3 shop/web-0 --port tcp/80",
        "10.244.1.3 is ambiguous: shop/api-0 and shop/db-0 have it; name the pod that is meant",
    );
}

#[test]
fn a_directory_without_pods_or_none_at_all_is_said() {
    let case = Case::new("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    for words in [
        "matrix",
        "can a/b c/d --port icmp",
        "why a/b c/d --port icmp",
    ] {
        case.refuses(
            words,
            "DIR has no pods: add Pods, or Deployments and the like that stand for theirs",
        );
    }
    let output = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["matrix", "-f", "/no/such/directory"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr).lines().count(), 1);
}

#[test]
fn what_can_t_be_read_is_in_the_answer() {
    let broken = CLUSTER.replace(
        "[{podSelector: {matchLabels: {app: web}}}]",
        "[{ipBlock: {cidr: 10.0.0.0/33}}]",
    );
    let case = Case::new(&broken);
    let answer = case.answers("why shop/web-0 shop/api-0 --port tcp/8080", 1);
    assert!(
        answer.contains("matches nobody: its peers can't be read"),
        "{answer}"
    );
    assert!(
        answer
            .contains("can't be read: NetworkPolicy shop/api spec.ingress[0].from[0].ipBlock.cidr"),
        "{answer}"
    );
}

#[test]
fn families_that_differ_are_told_apart() {
    let v4_only = CLUSTER.replace(
        "{podSelector: {matchLabels: {app: web}}}",
        "{ipBlock: {cidr: 0.0.0.0/0}}",
    );
    let case = Case::new(&v4_only);
    let output = case.run("can shop/web-0 shop/api-0 --port tcp/8080");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "allowed\n");
    assert_eq!(
        text(&output.stderr),
        "over IPv4 it is allowed\nover IPv6 it is denied\n"
    );
    let answer = case.answers("why shop/web-0 shop/api-0 --port tcp/8080", 0);
    assert!(
        answer.contains("\n\nDENIED  shop/web-0 (fd00:10:244:1::2)"),
        "{answer}"
    );
}

#[test]
fn a_narrow_terminal_gets_narrow_lines() {
    let case = Case::new(CLUSTER);
    let output = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["why", "shop/web-0", "shop/db-0", "--port", "tcp/5432", "-f"])
        .arg(case.directory.path())
        .env("COLUMNS", "40")
        .output()
        .unwrap();
    let stdout = text(&output.stdout);
    let widest = stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest.unwrap() <= 40, "{stdout}");
    assert!(!stdout.contains('\x1b'), "{stdout}");
}

#[test]
fn an_answer_without_what_can_t_be_read_is_no_answer_for_a_script() {
    let template = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ .Release.Name }}\n";
    let case = Case::new(&(CLUSTER.to_owned() + template));
    for (words, answer) in [
        ("can shop/web-0 shop/api-0 --port tcp/8080", "allowed\n"),
        ("can shop/web-0 shop/db-0 --port tcp/5432", "denied\n"),
    ] {
        let output = case.run(words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert_eq!(text(&output.stdout), answer);
        let stderr = text(&output.stderr);
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
        assert!(
            stderr.ends_with("selvedge: what could not be read is not in the answer (see above)\n"),
            "{stderr}"
        );
    }
    let answer = case.json("can shop/web-0 shop/api-0 --port tcp/8080", 2);
    assert_eq!(answer["unread"], true);
    assert!(
        case.answers("why shop/web-0 shop/api-0 --port tcp/8080", 2)
            .contains("ALLOWED")
    );
    assert!(case.answers("matrix", 2).contains("shop/api-0"));
}

#[test]
fn a_namespace_has_its_own_name_whatever_a_manifest_says() {
    let prod = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: prod}}}";
    let yaml = CLUSTER.replace("{podSelector: {matchLabels: {app: web}}}", prod)
        + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: evil, labels: {kubernetes.io/metadata.name: prod}}\n\
           ---\napiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: evil}\nspec: {nodeName: node-1}\n\
           status: {phase: Running, podIPs: [{ip: 10.244.1.9}]}\n";
    Case::new(&yaml).answers("can evil/a shop/api-0 --port tcp/8080", 1);
}

#[test]
fn pods_of_different_families_are_not_alike() {
    let pod = |name: &str, address: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: x}}, ownerReferences: [{{kind: ReplicaSet, name: x, apiVersion: apps/v1, uid: x}}]}}\n\
             spec: {{nodeName: node-1}}\nstatus: {{phase: Running, podIPs: [{{ip: '{address}'}}]}}\n"
        )
    };
    let yaml = pod("x-0", "10.244.1.2") + &pod("x-1", "fd00::2") + &pod("y-0", "10.244.1.3");
    let case = Case::new(&yaml);
    let matrix = case.answers("matrix", 0);
    assert!(!matrix.contains("2 pods"), "{matrix}");
}

#[test]
fn a_node_s_other_address_is_told_where_it_makes_a_difference() {
    let case = Case::new(&format!(
        "{CLUSTER}---
apiVersion: v1
kind: Node
metadata: {{name: node-2}}
spec: {{podCIDRs: [10.244.2.0/24]}}
status: {{addresses: [{{type: InternalIP, address: 192.168.50.12}}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: webhook, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress: [{{from: [{{ipBlock: {{cidr: 192.168.50.0/24}}}}]}}]
"
    ));
    let note = "where Flannel's backend is vxlan, node-2 sends to other nodes' pods from 10.244.2.0, its flannel.1: from there it is denied\n";
    for command in ["can", "why"] {
        let output = case.run(&format!("{command} 192.168.50.12 shop/web-0 --port tcp/80"));
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stderr), note);
        // Of its own node and of everyone else there is nothing to tell.
        for from in ["192.168.50.11", "192.168.50.99", "10.244.2.0"] {
            let output = case.run(&format!("{command} {from} shop/web-0 --port tcp/80"));
            assert_eq!(text(&output.stderr), "", "{from}");
        }
    }
}

#[test]
fn manifests_may_come_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.yaml");
    std::fs::write(&file, CLUSTER).unwrap();
    for words in [
        "can shop/web-0 shop/api-0 --port tcp/8080 -f -",
        "render - --node node-1",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_selvedge"))
            .args(words.split_whitespace())
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{words}: {stderr}"
        );
    }
}
