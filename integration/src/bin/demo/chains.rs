//! A pod's chain and what it leads to, as nft lists them.

use selvedge_lab::{Node, Pod};

use crate::Failure;
use crate::story::Story;

/// Shows a pod's ingress chain, the chains of the policies that it jumps to, and the peers of the last of them.
pub fn show(story: &Story, pod: &Pod) -> Result<(), Failure> {
    let node = pod.node();
    let own = list(node, "chain", &format!("ingress/{}", pod.name()))?;
    story.say(
        "A map leads from a pod's address to its chain. The pod itself may, then each policy that selects it is asked; \
         what none of them accepts is counted and dropped.",
    );
    tell(story, &own);
    let policies: Vec<&str> = jumps(&own.text).collect();
    let listed = policies.iter().map(|chain| list(node, "chain", chain));
    let listed = listed.collect::<Result<Vec<_>, _>>()?;
    story.say("A policy's chain is shared by all pods that it selects.");
    for chain in &listed {
        match has_rules(&chain.text) {
            true => tell(story, chain),
            false => story.say(&format!("{} has no rules: it allows nothing.", chain.name)),
        }
    }
    let Some(set) = listed.iter().rev().find_map(|chain| peers(&chain.text)) else {
        return Err(Failure::differs(format!(
            "  no policy of {} has peers",
            pod.name()
        )));
    };
    story.say("Peers are sets: a pod that comes or goes is one element, and no rule changes.");
    tell(story, &list(node, "set", set)?);
    Ok(())
}

/// What nft says about one chain or set.
struct Listing {
    name: String,
    command: String,
    text: String,
}

fn tell(story: &Story, listing: &Listing) {
    story.command(&listing.command, &listing.text);
}

fn list(node: &Node, kind: &str, name: &str) -> Result<Listing, Failure> {
    let arguments = ["list", kind, "inet", "selvedge", name];
    let text = node.netns().command("nft").args(arguments).run()?;
    Ok(Listing {
        name: name.to_owned(),
        command: format!("nft {}", arguments.join(" ")),
        text: within_table(&text),
    })
}

/// Without the table's own first and last line, and the indent that they make.
fn within_table(text: &str) -> String {
    let lines = text.lines().filter_map(|line| line.strip_prefix('\t'));
    lines.collect::<Vec<_>>().join("\n")
}

fn jumps(chain: &str) -> impl Iterator<Item = &str> {
    chain
        .lines()
        .filter_map(|line| line.trim().strip_prefix("jump "))
}

fn has_rules(chain: &str) -> bool {
    let lines = chain.lines().map(str::trim);
    lines
        .skip(1)
        .any(|line| line != "}" && !line.starts_with("comment "))
}

/// The first set of pods that a chain looks a source up in.
fn peers(chain: &str) -> Option<&str> {
    let mut words = chain
        .split_whitespace()
        .filter_map(|word| word.strip_prefix('@'));
    words.find(|set| set.starts_with("pods-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_understood() {
        let text = "table inet selvedge {\n\tchain ingress/shop/db-0 {\n\t\tjump policy/shop/db/ingress\n\t\tcounter drop\n\t}\n}\n";
        let inner = within_table(text);
        assert_eq!(
            inner,
            "chain ingress/shop/db-0 {\n\tjump policy/shop/db/ingress\n\tcounter drop\n}"
        );
        assert_eq!(
            jumps(&inner).collect::<Vec<_>>(),
            ["policy/shop/db/ingress"]
        );
        assert!(has_rules(&inner));
        assert!(!has_rules("chain a {\n\tcomment \"all pods\"\n}"));
        assert_eq!(peers(&inner), None);
        assert_eq!(
            peers("ip saddr @pods-1-4 ip daddr @pods-2-4 accept"),
            Some("pods-1-4")
        );
    }
}
