//! `selvedge matrix`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::question::{Input, Output, full_name};
use super::terminal::Style;
use super::{Done, Failure, print};
use crate::cluster::Text;
use crate::cluster::object::Pod;
use crate::cluster::port::Protocol;
use crate::index::Index;
use crate::verdict::ports::PortSet;
use crate::verdict::reach::{Member, Reach};

const EXAMPLES: &str = "\
Examples:
  selvedge matrix -f ./examples
  selvedge matrix -f ./examples -o json | jq '.[] | select(.to == \"shop/db-0\")'

Pods of one workload that no policy tells apart are shown as one. The JSON form has each pair of pods.";

/// Say who can reach whom, and on which ports.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Matrix {
    #[command(flatten)]
    input: Input,
}

impl Matrix {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        let asked = self.input.load()?;
        let done = match self.input.output {
            Output::Json => {
                let text = serde_json::to_string(&pairs(&asked.index)).map_err(Failure::input)?;
                print(&(text + "\n"))?
            }
            Output::Text => print(&as_text(&asked.index, Style::of_stdout()))?,
        };
        asked.done(done)
    }
}

/// An ordered pair of pods with anything allowed between them.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Pair<'a> {
    from: &'a str,
    to: &'a str,
    allowed: Vec<ProtocolPorts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ProtocolPorts {
    protocol: &'static str,
    ports: String,
}

/// The pods that have an address, by their full names.
fn members<'a>(index: &'a Index, reach: &mut Reach<'a>) -> BTreeMap<String, Member<'a>> {
    let members = index.pods().map(|pod| (full_name(pod), reach.member(pod)));
    members.filter(|(_, member)| member.has_address()).collect()
}

/// Writes the pairs one by one: of a thousand pods there are a million.
struct Pairs<'a>(&'a Index);

impl Serialize for Pairs<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let mut reach = Reach::new(self.0);
        let members = members(self.0, &mut reach);
        let mut sequence = serializer.serialize_seq(None)?;
        for (from, source) in &members {
            for (to, destination) in members.iter().filter(|(to, _)| *to != from) {
                let ports = reach.allowed(source, destination);
                let allowed = protocols(&ports);
                if !allowed.is_empty() {
                    sequence.serialize_element(&Pair { from, to, allowed })?;
                }
            }
        }
        sequence.end()
    }
}

fn pairs(index: &Index) -> Pairs<'_> {
    Pairs(index)
}

fn protocols(ports: &PortSet) -> Vec<ProtocolPorts> {
    let all = Protocol::ALL.into_iter().map(|protocol| ProtocolPorts {
        protocol: protocol.name(),
        ports: ports.text(protocol),
    });
    all.filter(|entry| !entry.ports.is_empty()).collect()
}

/// Pods of one workload that no policy tells apart.
#[derive(Debug)]
struct Group<'a> {
    name: String,
    namespace: &'a Text,
    members: Vec<Member<'a>>,
}

impl Group<'_> {
    /// The name, and how many pods it stands for.
    fn label(&self) -> String {
        match self.members.len() {
            1 => self.name.clone(),
            n => format!("{} ({n} pods)", self.name),
        }
    }
}

/// What of a pod's name is its workload's: without the parts that controllers add.
fn workload_name(pod: &Pod) -> &str {
    let name: &str = &pod.name;
    let label = |key: &str| pod.labels.get(&Text::from(key));
    let without_last = |name| str::rsplit_once(name, '-').map_or(name, |(head, _)| head);
    if let Some(hash) = label("pod-template-hash")
        && let Some(replica_set) = without_last(name).strip_suffix(&**hash)
    {
        return replica_set.strip_suffix('-').unwrap_or(name);
    }
    let controllers = [
        "controller-revision-hash",
        "statefulset.kubernetes.io/pod-name",
        "batch.kubernetes.io/job-name",
        "job-name",
    ];
    let ordinal = |name: &str| {
        let last = name.rsplit_once('-').map(|(_, last)| last);
        last.is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
    };
    if controllers.iter().any(|key| label(key).is_some()) {
        let name = without_last(name);
        // A CronJob's Jobs are numbered in their turn.
        return match label("job-name").is_some() && ordinal(name) {
            true => without_last(name),
            false => name,
        };
    }
    if ordinal(name) {
        return without_last(name);
    }
    name
}

fn groups<'a>(members: BTreeMap<String, Member<'a>>) -> Vec<Group<'a>> {
    let mut by_workload: BTreeMap<String, Vec<Vec<Member<'a>>>> = BTreeMap::new();
    for member in members
        .into_values()
        .filter(|member| member.pod.selectable())
    {
        let name = format!("{}/{}", member.pod.namespace, workload_name(member.pod));
        let alike = by_workload.entry(name).or_default();
        match alike
            .iter_mut()
            .find(|group| group.iter().any(|m| m.is_like(&member)))
        {
            Some(group) => group.push(member),
            None => alike.push(vec![member]),
        }
    }
    let mut groups = Vec::new();
    for (workload, alike) in by_workload {
        let several = alike.len() > 1;
        for members in alike {
            let Some(first) = members.first() else {
                continue;
            };
            let name = match several || members.len() == 1 {
                true => full_name(first.pod),
                false => workload.clone(),
            };
            groups.push(Group {
                name,
                namespace: &first.pod.namespace,
                members,
            });
        }
    }
    groups
}

/// Whom a group reaches, by ports: the most common first.
fn row<'a>(reach: &mut Reach<'a>, groups: &[Group<'a>], from: usize) -> Vec<(String, Vec<usize>)> {
    let mut by_ports: BTreeMap<PortSet, Vec<usize>> = BTreeMap::new();
    let source = groups
        .get(from)
        .map(|group| group.members.as_slice())
        .unwrap_or_default();
    let [first, rest @ ..] = source else {
        return Vec::new();
    };
    for (to, group) in groups.iter().enumerate() {
        // Of its own group a pod reaches the others.
        let destination = if to == from {
            rest.first()
        } else {
            group.members.first()
        };
        if let Some(destination) = destination {
            let ports = reach.allowed(first, destination);
            match by_ports.get_mut(&*ports) {
                Some(reached) => reached.push(to),
                None => drop(by_ports.insert((*ports).clone(), vec![to])),
            }
        }
    }
    by_ports.remove(&PortSet::none());
    let mut row: Vec<(String, Vec<usize>)> = by_ports
        .into_iter()
        .map(|(ports, to)| (ports.to_string(), to))
        .collect();
    row.sort_by(|one, other| (other.1.len(), &one.0).cmp(&(one.1.len(), &other.0)));
    row
}

/// Groups by name; `everyone` for all, `everyone in NAMESPACE` for all of one. A single pod that reaches them need not be
/// among them.
fn summary(groups: &[Group<'_>], from: Option<usize>, of: &[usize]) -> String {
    let single = |n: usize| groups.get(n).is_some_and(|group| group.members.len() == 1);
    let mut namespaces: BTreeMap<&Text, Vec<usize>> = BTreeMap::new();
    for (n, group) in groups.iter().enumerate() {
        if from != Some(n) || !single(n) {
            namespaces.entry(group.namespace).or_default().push(n);
        }
    }
    let chosen: BTreeSet<usize> = of.iter().copied().collect();
    let whole = |all: &Vec<usize>| all.iter().all(|n| chosen.contains(n));
    if namespaces.values().all(whole) && chosen.len() > 1 {
        return "everyone".to_owned();
    }
    let mut texts = Vec::new();
    for (namespace, all) in namespaces {
        if all.len() > 2 && whole(&all) {
            texts.push(format!("everyone in {namespace}"));
            continue;
        }
        let some = all.iter().filter(|n| chosen.contains(n));
        texts.extend(some.filter_map(|n| groups.get(*n)).map(Group::label));
    }
    texts.join(", ")
}

/// Ports, and the names of those that are reached on them.
type Row = Vec<(String, String)>;

fn as_text(index: &Index, style: Style) -> String {
    let mut reach = Reach::new(index);
    let members = members(index, &mut reach);
    let on_host = members
        .values()
        .filter(|member| !member.pod.selectable())
        .count();
    let groups = groups(members);
    // Sources that reach the same are one paragraph.
    let mut paragraphs: Vec<(Row, Vec<usize>)> = Vec::new();
    for from in 0..groups.len() {
        let row: Row = row(&mut reach, &groups, from)
            .into_iter()
            .map(|(ports, to)| (ports, summary(&groups, Some(from), &to)))
            .collect();
        match paragraphs.iter_mut().find(|(other, _)| *other == row) {
            Some((_, sources)) => sources.push(from),
            None => paragraphs.push((row, vec![from])),
        }
    }
    let widest = paragraphs
        .iter()
        .flat_map(|(row, _)| row)
        .map(|(ports, _)| ports.len());
    let column = 4 + widest.filter(|width| *width <= 24).max().unwrap_or(0);
    let mut text = String::new();
    for (row, sources) in paragraphs {
        let sources = summary(&groups, None, &sources);
        text.push_str(&style.labelled("", 0, &style.strong(&sources)));
        if row.is_empty() {
            text.push_str("  reaches nobody\n");
        }
        for (ports, to) in row {
            let label = format!("  {ports:<width$}  ", width = column - 4);
            text.push_str(&style.labelled(&label, label.chars().count(), &to));
        }
    }
    if on_host > 0 {
        let note = format!(
            "{on_host} {} its node's network, and no policy concerns it: not shown.",
            if on_host == 1 {
                "pod uses"
            } else {
                "pods use each"
            }
        );
        text.push_str(&style.labelled("", 0, &note));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, labels: &[(&str, &str)]) -> Pod {
        Pod {
            namespace: Text::from("shop"),
            name: Text::from(name),
            uid: Box::default(),
            created: 0,
            node: None,
            host_network: false,
            finished: false,
            labels: labels.iter().copied().collect(),
            addresses: Default::default(),
            ports: [].into(),
        }
    }

    #[test]
    fn a_workload_s_name_is_what_controllers_add_to() {
        for (name, labels, expected) in [
            (
                "web-5d9c7b-x7k2p",
                &[("pod-template-hash", "5d9c7b")][..],
                "web",
            ),
            (
                "web-a-5d9c7b-x7k2p",
                &[("pod-template-hash", "5d9c7b")],
                "web-a",
            ),
            ("db-0", &[("controller-revision-hash", "db-5d9c")], "db"),
            (
                "agent-x7k2p",
                &[("controller-revision-hash", "5d9c")],
                "agent",
            ),
            (
                "backup-28391-x7k2p",
                &[("job-name", "backup-28391")],
                "backup",
            ),
            ("import-x7k2p", &[("job-name", "import")], "import"),
            ("api-1", &[], "api"),
            ("api", &[], "api"),
            ("api-v", &[], "api-v"),
        ] {
            assert_eq!(workload_name(&pod(name, labels)), expected, "{name}");
        }
    }
}
