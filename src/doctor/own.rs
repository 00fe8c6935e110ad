//! Selvedge's own state: a daemon that holds the lock, and its tables.

use selvedge_nft::{Survey, SurveyedTable};

use super::Finding;
use crate::compile::tables;
use crate::enforce::{Lock, LockError};

const CHECK: &str = "selvedge";

/// Selvedge's tables in this namespace.
pub fn own_tables(survey: &Survey) -> Vec<&SurveyedTable> {
    let all = tables();
    let own = all
        .iter()
        .filter_map(|id| survey.table(&id.family.to_string(), id.name.as_str()));
    own.collect()
}

/// Who keeps the rules, as far as it can be told.
///
/// # Errors
/// When the lock can't be asked for.
pub fn holder() -> Result<Option<String>, LockError> {
    Lock::holder()
}

/// Whether a daemon runs and has its tables.
pub fn judge(survey: &Survey, holder: Result<Option<String>, String>) -> Finding {
    let tables = own_tables(survey);
    let chains: usize = tables.iter().map(|table| table.chains.len()).sum();
    let sets: usize = tables.iter().map(|table| table.sets.len()).sum();
    let holds = format!(
        "tables: {}, chains: {chains}, sets and maps: {sets}",
        tables.len()
    );
    let owner = tables.iter().find_map(|table| table.owner);
    let holds = match owner {
        Some(_) => format!("{holds}, which one process alone can change"),
        None => holds,
    };
    match (holder, tables.is_empty()) {
        (Ok(None), false) if owner.is_some() => Finding::fail(
            CHECK,
            "does not run here, and its tables belong to another process, so that it can't work",
            "end that process: `nft list table inet selvedge` names it",
        ),
        (Ok(Some(holder)), false) => Finding::ok(CHECK, format!("runs ({holder}); {holds}")),
        (Ok(Some(holder)), true) => Finding::warn(
            CHECK,
            format!("runs ({holder}) and has made no table yet"),
            "look at its log",
        ),
        (Ok(None), true) => Finding::ok(CHECK, "does not run here, and has left no table"),
        (Ok(None), false) => Finding::warn(
            CHECK,
            format!("does not run here, and its rules stay as they were; {holds}"),
            "start it, or remove its rules with `selvedge cleanup`",
        ),
        (Err(error), _) => Finding::warn(CHECK, format!("{error}; {holds}"), "try again"),
    }
}

#[cfg(test)]
mod tests {
    use selvedge_nft::SurveyedChain;

    use super::super::Status;
    use super::*;

    fn survey(families: &[&str]) -> Survey {
        let table = |family: &&str| SurveyedTable {
            family: (*family).to_owned(),
            name: "selvedge".to_owned(),
            owner: None,
            chains: vec![SurveyedChain::default(); 2],
            sets: vec!["egress4".to_owned()],
        };
        Survey {
            tables: families.iter().map(table).collect(),
        }
    }

    #[test]
    fn a_daemon_and_its_tables_belong_together() {
        let both = survey(&["inet", "bridge"]);
        let running = || Ok(Some("process 7 of user 0".to_owned()));
        let finding = judge(&both, running());
        assert_eq!(finding.status, Status::Ok);
        let found = "runs (process 7 of user 0); tables: 2, chains: 4, sets and maps: 2";
        assert_eq!(finding.found, found);
        assert_eq!(judge(&Survey::default(), running()).status, Status::Warn);
        assert_eq!(judge(&both, Ok(None)).status, Status::Warn);
        let mut owned = both.clone();
        owned.tables[0].owner = Some(7);
        let finding = judge(&owned, running());
        assert_eq!(finding.status, Status::Ok);
        assert!(
            finding
                .found
                .ends_with("which one process alone can change")
        );
        assert_eq!(judge(&owned, Ok(None)).status, Status::Fail);
        // `ip selvedge` is somebody else's.
        assert_eq!(judge(&survey(&["ip"]), Ok(None)).status, Status::Ok);
        assert_eq!(judge(&both, Err("no".to_owned())).status, Status::Warn);
    }
}
