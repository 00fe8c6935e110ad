//! What goes wrong is said in one clear line with the right exit code, closes no more than it must, and changes nothing
//! else.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use selvedge_lab::stage::{self, Manifests, PodManifest, committed, node, policy};
use selvedge_lab::{Error, Lab, Node, NsCommand, Pod, Probe};

const PATIENCE: Duration = Duration::from_secs(20);

/// A policy for the pods `app: bad` with a mistake, and the words that the line about it must have.
struct Mistake {
    spec: &'static str,
    words: &'static [&'static str],
}

const MISTAKES: [Mistake; 6] = [
    Mistake {
        spec: "{podSelector: {matchLabels: {app: bad}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}",
        words: &["spec.ingress[0].from[0].ipBlock.cidr", "10.0.0.0/33"],
    },
    Mistake {
        spec: "{podSelector: {matchLabels: {app: bad}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [ten]}}]}]}",
        words: &["spec.ingress[0].from[0].ipBlock.except[0]", "ten"],
    },
    Mistake {
        spec: "{podSelector: {matchLabels: {app: bad}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Like, values: [web]}]}}]}]}",
        words: &["spec.ingress[0].from[0].podSelector", "Like", "NotIn"],
    },
    Mistake {
        spec: "{podSelector: {matchLabels: {app: bad}, matchExpressions: [{key: app, operator: Gt, values: [a]}]}, ingress: [{}]}",
        words: &["spec.podSelector.matchExpressions[0]", "Gt"],
    },
    Mistake {
        spec: "{podSelector: {matchLabels: {app: bad}}, ingress: [{ports: [{port: nosuch}]}]}",
        words: &["no pod has", "nosuch"],
    },
    Mistake {
        spec: "{podSelector: {matchLabels: {app: bad}}, ingress: [{from: [{podSelectr: {}}]}]}",
        words: &["spec.ingress[0].from[0].podSelectr"],
    },
];

/// Pods `bad`, `good` and `free` with web to ask them; `good` admits web on port 80.
fn manifests() -> Result<Manifests, Error> {
    let manifests = Manifests::new()?;
    let good = "{podSelector: {matchLabels: {app: good}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}";
    let mut text = node(1) + &policy("shop/good", good);
    for (host, app) in [(2, "web"), (3, "bad"), (4, "good"), (5, "free")] {
        let pod = PodManifest::new(&format!("shop/{app}"), 1, host, &format!("app: {app}"));
        text += &pod.to_string();
    }
    manifests.put("cluster.yaml", text)?;
    Ok(manifests)
}

fn render(node: &Node, manifests: &Path, name: &str) -> Result<Output, Error> {
    stage::selvedge(node)?
        .args(["render", "--node", name])
        .arg(manifests)
        .output()
}

/// Asserts that a program ended with this code, printed no result, and said one line with these words.
fn fails(command: NsCommand, code: i32, words: &[&str]) -> Result<(), Error> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    one_line(&said, words);
    Ok(())
}

fn one_line(said: &str, words: &[&str]) {
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// Whether web gets through to ports 80 and 81 of the pods, in this order.
fn through(web: &Pod, pods: [&Pod; 3]) -> Result<[[bool; 2]; 3], Error> {
    let mut probes = Vec::new();
    for pod in pods {
        for port in [80, 81] {
            probes.push(Probe::tcp(pod.ipv4()?, port));
        }
    }
    let outcomes = web.probe_all(&probes)?;
    let mut all = outcomes.iter();
    Ok([(); 3].map(|()| [(); 2].map(|()| all.next().is_some_and(|one| one.is_allowed()))))
}

#[test]
fn a_mistake_in_a_policy_is_one_finding_of_render() -> Result<(), Error> {
    let lab = Lab::builder().node("node-1").build()?;
    let node = lab.node("node-1")?;
    let manifests = manifests()?;
    let sound = render(&node, manifests.path(), "node-1")?;
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(sound.stderr.is_empty(), "{sound:?}");
    for mistake in MISTAKES {
        manifests.put("bad.yaml", policy("shop/bad", mistake.spec))?;
        let output = render(&node, manifests.path(), "node-1")?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        one_line(&said, mistake.words);
        one_line(&said, &["NetworkPolicy shop/bad"]);
        let rendered = String::from_utf8_lossy(&output.stdout);
        assert!(rendered.contains("ingress/shop/bad"), "{rendered}");
    }
    manifests.put("bad.yaml", "kind: NetworkPolicy\n  spec: {\n")?;
    let output = render(&node, manifests.path(), "node-1")?;
    assert_eq!(output.status.code(), Some(1));
    one_line(
        &String::from_utf8_lossy(&output.stderr),
        &["bad.yaml:", "2"],
    );
    assert_eq!(output.stdout, sound.stdout);
    Ok(())
}

#[test]
fn a_bad_policy_isolates_the_pods_it_selects_and_the_rest_is_enforced() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = manifests.lab()?.build()?;
    let [web, bad, good, free] =
        lab.pods_named(["shop/web", "shop/bad", "shop/good", "shop/free"])?;
    let daemon = stage::daemon(&lab.node("node-1")?, manifests.path())?;
    let pods = [&bad, &good, &free];
    let open = [true; 2];
    let good_as_ever = [true, false];
    assert_eq!(through(&web, pods)?, [open, good_as_ever, open]);
    for mistake in MISTAKES {
        let mark = daemon.said();
        committed(&[&daemon], || {
            manifests.put("bad.yaml", policy("shop/bad", mistake.spec))
        })?;
        let closed = [false; 2];
        assert_eq!(
            through(&web, pods)?,
            [closed, good_as_ever, open],
            "{}",
            mistake.spec
        );
        let said = daemon.stderr();
        let said = said.get(mark..).unwrap_or_default();
        let warnings: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
        one_line(&warnings.join("\n"), mistake.words);
        // Taken back, nothing of it is left.
        let mark = daemon.said();
        committed(&[&daemon], || manifests.remove("bad.yaml"))?;
        daemon.wait_for_output_after(mark, "no longer so", PATIENCE)?;
    }
    assert_eq!(through(&web, pods)?, [open, good_as_ever, open]);
    // A file that makes no sense at all, from the start, stands in nobody's way.
    let mark = daemon.said();
    manifests.put("bad.yaml", "kind: NetworkPolicy\n  spec: {\n")?;
    daemon.wait_for_output_after(mark, "bad.yaml:2", PATIENCE)?;
    let strict = policy("shop/free", "{podSelector: {matchLabels: {app: free}}}");
    committed(&[&daemon], || manifests.put("free.yaml", strict))?;
    assert_eq!(through(&web, pods)?, [open, good_as_ever, [false; 2]]);
    Ok(())
}

#[test]
fn a_node_that_is_not_there_is_named_with_those_that_are() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = Lab::builder().node("node-1").build()?;
    let node = lab.node("node-1")?;
    let render = stage::selvedge(&node)?
        .args(["render", "--node", "node-7"])
        .arg(manifests.path());
    fails(render, 2, &["node-7", "node-1"])?;
    let before = node.nft_ruleset()?;
    let run = stage::selvedge(&node)?
        .args(["run", "--node", "node-7", "--source"])
        .arg(manifests.path());
    fails(run, 2, &["node-7", "node-1"])?;
    let nowhere = stage::selvedge(&node)?.args(["run", "--node", "node-1", "--source", "/nowhere"]);
    fails(nowhere, 2, &["/nowhere"])?;
    assert_eq!(node.nft_ruleset()?, before);
    Ok(())
}

#[test]
fn without_permission_or_netfilter_one_line_says_so_and_nothing_changes() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = Lab::builder().node("node-1").build()?;
    let node = lab.node("node-1")?;
    let netns = node.netns();
    netns.nft("table inet selvedge { chain mine { drop; }; }; table ip other { }")?;
    let before = node.nft_ruleset()?;
    let binary = stage::binary()?;
    let powerless = || {
        let drop = ["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"];
        netns.command("setpriv").args(drop).arg(binary)
    };
    // Root of a user namespace of its own has no power over a network namespace that isn't in it.
    let contained = || {
        let own = ["--user", "--map-root-user", "--"];
        netns.command("unshare").args(own).arg(binary)
    };
    let kernel_without = || {
        netns
            .command(env!("CARGO_BIN_EXE_deny-netlink"))
            .arg(binary)
    };
    let source = || {
        [
            "run".as_ref(),
            "--node=node-1".as_ref(),
            "--source".as_ref(),
            manifests.path().as_os_str(),
        ]
    };
    for (command, words) in [
        (powerless(), &["NET_ADMIN", "not permitted"][..]),
        (contained(), &["NET_ADMIN", "not permitted"]),
        (
            kernel_without(),
            &["kernel has no nfnetlink", "Protocol not supported"],
        ),
    ] {
        fails(command.clone().args(source()), 3, words)?;
        fails(command.arg("cleanup"), 3, words)?;
    }
    assert_eq!(node.nft_ruleset()?, before);
    // What needs no kernel works all the same.
    let render = kernel_without().args(["render", "--node", "node-1"]);
    let output = render.arg(manifests.path()).output()?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    Ok(())
}
