//! `selvedge cleanup`.

use clap::Args;
use selvedge_nft::{Dataplane, DataplaneError, Kernel, Ruleset, diff};

use super::signals::Signals;
use super::{Done, Failure, print};
use crate::compile::tables;
use crate::enforce::Lock;

/// Remove Selvedge's tables from this network namespace, and nothing else.
///
/// From then on no policy is enforced here. A daemon that still runs must be stopped first.
#[derive(Debug, Args)]
pub(super) struct Cleanup {
    /// Then wait for SIGTERM, as a DaemonSet's container must, which is started again whenever it ends
    #[arg(long)]
    stay: bool,
}

impl Cleanup {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        // Caught from here on: as a container's first process it would not feel them otherwise.
        let signals = self.stay.then(Signals::catch).transpose()?;
        let lock = Lock::acquire().map_err(Failure::unreachable)?;
        let mut dataplane = Kernel::open().map_err(Failure::unreachable)?;
        let removed = remove(&mut dataplane).map_err(Failure::unreachable)?;
        // Whoever reads that it is done may start a daemon.
        drop(lock);
        print(&removed)?;
        if let Some(signals) = signals {
            signals.wait();
        }
        Ok(Done::Clean)
    }
}

/// Removes the tables; the answer is what to say about it.
fn remove(dataplane: &mut impl Dataplane) -> Result<String, DataplaneError> {
    let current = dataplane.read(&tables())?;
    if current.tables.is_empty() {
        return Ok("nothing to remove: there is no table of Selvedge's\n".to_owned());
    }
    dataplane.commit(&diff(&current, &Ruleset::default()))?;
    let lines = current
        .tables
        .keys()
        .map(|id| format!("removed table {id}\n"));
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use selvedge_nft::{Fake, Name, Table, TableId};

    use super::*;

    #[test]
    fn only_our_tables_go() {
        let mut fake = Fake::new();
        let ours = tables();
        let other = TableId {
            name: Name::new("kube-proxy").unwrap(),
            ..ours[0].clone()
        };
        fake.interfere(|ruleset| {
            for id in ours.iter().chain([&other]) {
                let table = Arc::new(Table::default());
                ruleset.tables.insert(id.clone(), table);
            }
        });
        let said = remove(&mut fake).unwrap();
        assert_eq!(said.lines().count(), ours.len(), "{said}");
        let left = fake.ruleset();
        assert_eq!(left.tables.keys().collect::<Vec<_>>(), [&other]);
        assert!(remove(&mut fake).unwrap().starts_with("nothing to remove"));
        assert_eq!(fake.log().len(), 1);
    }
}
