//! What rulesets need of the kernel, tried in a throwaway network namespace.

use std::sync::Arc;

use selvedge_nft::{
    BaseChain, Chain, ChainPolicy, Comment, Dataplane, DataplaneError, Datatype, Elements, Family,
    Field, Hook, InvalidName, Kernel, Key, KeyError, MapEntry, Name, Rule, Ruleset, Set, SetHeader,
    Statement, Table, TableId, Value, Verdict, ct_state, diff,
};

use super::Finding;
use super::namespace::{Namespace, apart};

const CHECK: &str = "features";

/// A thing that rulesets are made of.
struct Feature {
    name: &'static str,
    /// What the kernel's configuration calls it.
    config: &'static str,
    ruleset: Ruleset,
}

/// A feature's name and its configuration, and the kernel's refusal.
pub type Tried = (&'static str, &'static str, Option<String>);

/// Tries each feature.
///
/// # Errors
/// Why none could be tried.
pub fn attempt() -> Result<Vec<Tried>, String> {
    let all = features().map_err(|error| error.to_string())?;
    let tried = apart(move || {
        let _namespace = Namespace::create().map_err(|error| error.to_string())?;
        let mut kernel = Kernel::open().map_err(|error| error.to_string())?;
        let tried = all.into_iter().map(|feature| {
            let refusal = hold(&mut kernel, &feature.ruleset).err();
            (feature.name, feature.config, refusal)
        });
        Ok(tried.collect())
    });
    tried.unwrap_or_else(|error| Err(error.to_string()))
}

/// Makes the kernel hold the ruleset and give it back, and takes it away again.
fn hold(kernel: &mut Kernel, ruleset: &Ruleset) -> Result<(), String> {
    let say = |error: DataplaneError| error.to_string();
    let tables: Vec<TableId> = ruleset.tables.keys().cloned().collect();
    let nothing = Ruleset::default();
    kernel.commit(&diff(&nothing, ruleset)).map_err(say)?;
    let held = kernel.read(&tables).map_err(say)?;
    kernel.commit(&diff(&held, &nothing)).map_err(say)?;
    match held == *ruleset {
        true => Ok(()),
        false => Err("the kernel takes it and gives something else back".to_owned()),
    }
}

/// What the attempts mean. `in_use` says that this namespace holds Selvedge's tables already.
pub fn judge(tried: Result<&[Tried], &str>, in_use: bool) -> Vec<Finding> {
    let tried = match tried {
        Ok(tried) => tried,
        Err(reason) if in_use => {
            return vec![Finding::ok(
                CHECK,
                format!("not tried ({reason}), but Selvedge's tables are here"),
            )];
        }
        Err(reason) => {
            return vec![Finding::warn(
                CHECK,
                format!("not tried: {reason}"),
                "run it as root to try what rulesets need of the kernel",
            )];
        }
    };
    let mut findings: Vec<Finding> = tried
        .iter()
        .filter_map(|(name, config, refusal)| {
            let refusal = refusal.as_ref()?;
            Some(Finding::fail(
                CHECK,
                format!("{name}: {refusal}"),
                format!("use a kernel with {config}, or load the module"),
            ))
        })
        .collect();
    if findings.is_empty() {
        let names: Vec<&str> = tried.iter().map(|(name, ..)| *name).collect();
        findings.push(Finding::ok(CHECK, format!("{} work", names.join(", "))));
    }
    findings
}

/// A name or key that the types don't take.
#[derive(Debug, thiserror::Error)]
enum Unsayable {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn features() -> Result<Vec<Feature>, Unsayable> {
    let pod = Value::Ipv4([192, 0, 2, 1].into());
    let last = Value::Ipv4([192, 0, 2, 9].into());
    let comment = Comment::new("app=web in ns shop")?;
    let verdict = Verdict::Goto(Name::new("pod")?);
    let entry = |comment| MapEntry {
        verdict: verdict.clone(),
        comment,
    };
    let address = Key::new(&[pod])?;
    let map = |comment| Elements::Verdicts([(address, entry(comment))].into_iter().collect());
    let by_map = Statement::VerdictMap {
        key: vec![Field::IpSaddr],
        map: Name::new("things")?,
    };
    let by_set = Statement::lookup([Field::IpSaddr], Name::new("things")?);
    let by_tuple = Statement::lookup(
        [Field::IpDaddr, Field::MetaL4proto, Field::ThDport],
        Name::new("things")?,
    );
    let ranges = Elements::Ranges(
        [(Key::new(&[pod])?, Key::new(&[last])?)]
            .into_iter()
            .collect(),
    );
    let tuple = Key::new(&[pod, Value::Proto(6), Value::Service(80)])?;
    let tuples = Elements::Keys([tuple].into_iter().collect());
    let tuple_key = [
        Datatype::Ipv4Addr,
        Datatype::InetProto,
        Datatype::InetService,
    ];
    let v4 = [Datatype::Ipv4Addr];
    let none = None::<(&[Datatype], Elements)>;
    let state = Statement::CtState(ct_state::ESTABLISHED | ct_state::RELATED);
    let frame = Statement::eq(Field::EtherType, Value::EtherType(0x8100));
    Ok(vec![
        Feature {
            name: "verdict maps",
            config: "CONFIG_NF_TABLES_INET",
            ruleset: ruleset(
                Family::Inet,
                Some((&v4[..], map(None))),
                by_map.clone(),
                None,
            )?,
        },
        Feature {
            name: "sets of ranges",
            config: "CONFIG_NF_TABLES_INET",
            ruleset: ruleset(Family::Inet, Some((&v4[..], ranges)), by_set, None)?,
        },
        Feature {
            name: "concatenated sets",
            config: "CONFIG_NF_TABLES_INET",
            ruleset: ruleset(Family::Inet, Some((&tuple_key[..], tuples)), by_tuple, None)?,
        },
        Feature {
            name: "connection tracking",
            config: "CONFIG_NFT_CT",
            ruleset: ruleset(Family::Inet, none.clone(), state, None)?,
        },
        Feature {
            name: "comments",
            config: "Linux 5.10 or later",
            ruleset: ruleset(
                Family::Inet,
                Some((&v4[..], map(Some(comment.clone())))),
                by_map,
                Some(comment),
            )?,
        },
        Feature {
            name: "family bridge",
            config: "CONFIG_NF_TABLES_BRIDGE",
            ruleset: ruleset(Family::Bridge, none, frame, None)?,
        },
    ])
}

/// A table with this set, a base chain with this statement, and a chain for a verdict map to name; `comment` is
/// wherever one can be.
fn ruleset(
    family: Family,
    set: Option<(&[Datatype], Elements)>,
    statement: Statement,
    comment: Option<Comment>,
) -> Result<Ruleset, Unsayable> {
    let mut rule = Rule::new(vec![statement, Statement::Counter]);
    if let Some(comment) = &comment {
        rule = rule.with_comment(comment.clone());
    }
    let base = Chain {
        base: Some(BaseChain {
            hook: Hook::Prerouting,
            priority: 0,
            policy: ChainPolicy::Accept,
        }),
        comment: comment.clone(),
        rules: vec![rule],
    };
    let pod = Chain {
        rules: vec![Rule::new(vec![Verdict::Drop.into()])],
        ..Chain::default()
    };
    let mut table = Table::default();
    table.chains.insert(Name::new("base")?, Arc::new(base));
    table.chains.insert(Name::new("pod")?, Arc::new(pod));
    if let Some((key, elements)) = set {
        let header = SetHeader {
            key: key.to_vec(),
            comment,
        };
        let set = Set { header, elements };
        table.sets.insert(Name::new("things")?, Arc::new(set));
    }
    let id = TableId {
        family,
        name: Name::new("selvedge-doctor")?,
    };
    Ok(Ruleset {
        tables: [(id, Arc::new(table))].into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn the_kernel_that_runs_the_tests_has_all() {
        let tried = attempt().unwrap();
        assert_eq!(tried.len(), features().unwrap().len());
        let findings = judge(Ok(&tried), false);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].status, Status::Ok);
    }

    #[test]
    fn what_is_missing_is_named() {
        let refusal = Some("the kernel refused to add table".to_owned());
        let tried = [
            ("verdict maps", "CONFIG_A", None),
            ("family bridge", "CONFIG_NF_TABLES_BRIDGE", refusal),
        ];
        let findings = judge(Ok(&tried), false);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].status, Status::Fail);
        assert!(findings[0].found.starts_with("family bridge: "));
        let advice = findings[0].advice.as_deref().unwrap();
        assert!(advice.contains("CONFIG_NF_TABLES_BRIDGE"), "{advice}");
    }

    #[test]
    fn what_was_not_tried_is_no_failure() {
        let finding = &judge(Err("it needs the capability SYS_ADMIN"), false)[0];
        assert_eq!(finding.status, Status::Warn);
        assert!(finding.found.contains("not tried"), "{finding:?}");
        let finding = &judge(Err("it needs the capability SYS_ADMIN"), true)[0];
        assert_eq!(finding.status, Status::Ok);
    }
}
