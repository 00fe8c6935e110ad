//! The API server as `selvedge doctor` finds it: well, refusing, away, and without this node.

use selvedge_lab::Error;
use selvedge_lab::api::{Kind, Reply, Which};
use selvedge_lab::stage::live::Live;

use super::{examine, of};

/// The lines about the API server and the node.
fn about(live: &Live, node: &str) -> Result<Vec<String>, Error> {
    let kubeconfig = live.node(1).endpoint.kubeconfig();
    let kubeconfig = kubeconfig.to_string_lossy();
    let arguments = ["--kubeconfig", &kubeconfig, "--node", node];
    let (_, said) = examine(&live.node(1).node, &arguments)?;
    let ours = |line: &String| line.contains("  API server  ") || line.contains("  node  ");
    // What is longer than a line goes on in the next.
    let from = said.iter().position(ours).unwrap_or(said.len());
    Ok(said.into_iter().skip(from).collect())
}

#[test]
fn the_api_server_is_asked_for_all_kinds_and_this_node() -> Result<(), Error> {
    let live = Live::new(1, &[("shop/web", 1, &[])])?;
    let (name, endpoint) = (live.node(1).name.clone(), live.node(1).endpoint.clone());
    let said = about(&live, &name)?.join("\n");
    assert!(
        said.contains("lets these be listed and watched: pods, namespaces, nodes,"),
        "{said}"
    );
    assert!(
        said.contains(&format!("{name} is in the cluster")),
        "{said}"
    );

    let said = about(&live, "nobody")?;
    let failed = of(&said, "fail");
    assert!(
        failed.iter().any(|line| line.contains("no node nobody")),
        "{said:#?}"
    );

    for (which, words) in [
        (
            Which::verb("list").of(Kind::NetworkPolicy),
            "networkpolicies",
        ),
        (Which::verb("watch").of(Kind::Pod), "pods"),
    ] {
        endpoint.answer_next(1, which, Reply::Status(403, None));
        let said = about(&live, &name)?;
        let failed = of(&said, "fail");
        assert!(
            failed
                .iter()
                .any(|line| line.contains(&format!("asked for {words}"))),
            "{said:#?}"
        );
        assert!(said.join(" ").contains("ClusterRole"), "{said:#?}");
    }

    endpoint.down()?;
    let said = about(&live, &name)?;
    assert!(
        of(&said, "fail")
            .iter()
            .any(|line| line.contains("API server")),
        "{said:#?}"
    );
    Ok(())
}
