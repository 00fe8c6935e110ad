//! Others who drop forwarded packets: what they drop is gone, whatever Selvedge says.

use selvedge_nft::{Survey, SurveyedTable};

use super::Finding;
use super::own::own_tables;

const CHECK: &str = "forward chains";

/// Flannel's chain, which accepts what comes from pods or goes to them.
const FLANNEL: &str = "FLANNEL-FWD";

/// Base chains at hook forward that drop what no rule of theirs accepts.
pub fn judge(survey: &Survey) -> Vec<Finding> {
    let own = own_tables(survey);
    let tables = survey.tables.iter();
    let others = tables.filter(|table| !own.contains(table));
    let mut findings: Vec<Finding> = others.flat_map(strict).collect();
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "none of others' drops by its policy"));
    }
    findings
}

fn strict(table: &SurveyedTable) -> Vec<Finding> {
    let bases = table.chains.iter().filter_map(|chain| {
        let base = chain.base.as_ref().filter(|base| base.hook == "forward")?;
        // firewalld's policy is to accept, its last rule rejects.
        let rejects = table.name == "firewalld" && chain.drops > 0;
        (base.drops || rejects).then_some(chain)
    });
    bases
        .map(|chain| {
            let owner = owner(table);
            let found = format!(
                "chain {} in table {} {}{} drops what it does not accept",
                chain.name,
                table.family,
                table.name,
                owner.map_or(String::new(), |owner| format!(" ({owner})")),
            );
            match chain.jumps.contains(FLANNEL) {
                true => Finding::ok(
                    CHECK,
                    format!("{found}, but Flannel's {FLANNEL} accepts pods' packets there"),
                ),
                false => Finding::warn(CHECK, found, advice(owner)),
            }
        })
        .collect()
}

/// Whose the table is, by the chains in it.
fn owner(table: &SurveyedTable) -> Option<&'static str> {
    let has = |prefix: &str| {
        let mut chains = table.chains.iter();
        chains.any(|chain| chain.name.starts_with(prefix))
    };
    if table.name == "firewalld" {
        Some("firewalld")
    } else if has("ufw-") || has("ufw6-") {
        Some("ufw")
    } else if has("DOCKER") || table.name.starts_with("docker") {
        Some("docker")
    } else {
        None
    }
}

fn advice(owner: Option<&str>) -> &'static str {
    match owner {
        Some("firewalld") => {
            "put the pods' bridge and Flannel's interface into its zone trusted (`firewall-cmd --permanent --zone=trusted --add-interface=cni0`), or do without firewalld"
        }
        Some("ufw") => {
            "`ufw default allow routed`, or `ufw route allow` for the pods' network; or do without ufw"
        }
        Some("docker") => {
            "start flanneld with --iptables-forward-rules (its default), which accepts pods' packets there, or accept them in DOCKER-USER"
        }
        _ => "accept the pods' packets there, or pods reach nobody whatever the policies say",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::fixtures::{base, chain, survey, table};
    use super::*;

    fn only(survey: &Survey) -> Finding {
        let findings = judge(survey);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].clone()
    }

    #[test]
    fn docker_and_ufw_are_named_with_their_chain() {
        let docker = [
            base("FORWARD", "forward", true, &["DOCKER-USER"]),
            chain("DOCKER-USER", 0, &[]),
            base("INPUT", "input", true, &[]),
        ];
        let finding = only(&survey([table("ip filter", docker)]));
        assert_eq!(finding.status, Status::Warn);
        let found = "chain FORWARD in table ip filter (docker) drops what it does not accept";
        assert_eq!(finding.found, found);
        assert!(finding.advice.unwrap().contains("DOCKER-USER"));
        let ufw = [
            base("FORWARD", "forward", true, &["ufw-before-forward"]),
            chain("ufw-before-forward", 0, &[]),
        ];
        let finding = only(&survey([table("ip filter", ufw)]));
        assert!(finding.found.contains("(ufw)"), "{finding:?}");
        let strange = [base("f", "forward", true, &[])];
        let finding = only(&survey([table("inet mine", strange)]));
        assert!(
            finding
                .found
                .starts_with("chain f in table inet mine drops")
        );
    }

    #[test]
    fn flannels_chain_saves_pods() {
        let docker = [
            base("FORWARD", "forward", true, &["DOCKER-USER", FLANNEL]),
            chain(FLANNEL, 0, &[]),
        ];
        assert_eq!(
            only(&survey([table("ip filter", docker)])).status,
            Status::Ok
        );
    }

    #[test]
    fn firewalld_rejects_with_its_last_rule() {
        let mut forward = base("filter_FORWARD", "forward", false, &[]);
        assert_eq!(
            only(&survey([table("inet firewalld", [forward.clone()])])).status,
            Status::Ok
        );
        forward.drops = 1;
        let finding = only(&survey([table("inet firewalld", [forward])]));
        assert_eq!(finding.status, Status::Warn);
        assert!(finding.advice.unwrap().contains("trusted"));
    }

    #[test]
    fn selvedges_own_and_those_that_accept_are_fine() {
        let all = survey([
            table("inet selvedge", [base("ingress", "forward", true, &[])]),
            table("ip filter", [base("FORWARD", "forward", false, &[])]),
        ]);
        assert_eq!(only(&all).status, Status::Ok);
    }
}
