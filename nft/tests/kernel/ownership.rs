//! Tables that are their owner's alone: whom the kernel lets change them, who takes them over, and what of that is read.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use selvedge_nft::{
    Dataplane, DataplaneError, Datatype, Kernel, Ownership, Rule, Ruleset, Table, Verdict, diff,
};

use crate::lab::*;

/// Our two tables, for everyone to change.
fn small() -> Ruleset {
    let table = Table {
        comment: Some(comment("ours")),
        sets: [(
            name("pods"),
            set(&[Datatype::Ipv4Addr], keys([k4("10.0.0.1")])),
        )]
        .into_iter()
        .collect(),
        chains: [(name("c"), chain([Rule::new([Verdict::Drop.into()])]))]
            .into_iter()
            .collect(),
        ..Table::default()
    };
    ruleset([(inet(), table.clone()), (bridge(), table)])
}

fn owned() -> Ruleset {
    small().with_ownership(Ownership::Own)
}

/// A kernel that owns them.
fn owner() -> Kernel {
    let mut kernel = Kernel::open().unwrap();
    kernel.commit(&diff(&Ruleset::default(), &owned())).unwrap();
    kernel
}

/// Whose the tables are.
fn ownership(ruleset: &Ruleset) -> Vec<Ownership> {
    let tables = ruleset.tables.values();
    tables.map(|table| table.ownership).collect()
}

/// Closes a kernel's socket, and waits until its tables are nobody's: a child that another test has just forked holds a
/// copy of the socket until it has become its own program.
fn abandon(kernel: Kernel) {
    drop(kernel);
    let deadline = Instant::now() + Duration::from_secs(30);
    let owned = |held: &Ownership| matches!(held, Ownership::Own | Ownership::Other(_));
    // The next socket may be given the port of the last one while its tables are still under that port.
    while ownership(&read(&mut Kernel::open().unwrap()))
        .iter()
        .any(owned)
    {
        assert!(Instant::now() < deadline, "the tables keep their owner");
        sleep(Duration::from_millis(1));
    }
}

/// Makes a kernel hold what is desired, by what it reads; gives how many messages that took.
fn follow(kernel: &mut Kernel, desired: &Ruleset) -> Result<usize, DataplaneError> {
    let held = read(kernel);
    Ok(kernel.commit(&diff(&held, desired))?.messages)
}

/// What foreigners try: everything that changes our tables.
const EDITS: [&str; 8] = [
    "delete table inet selvedge",
    "flush table inet selvedge",
    "delete element inet selvedge pods { 10.0.0.1 }",
    "add element inet selvedge pods { 10.0.0.2 }",
    "insert rule inet selvedge c accept",
    "flush chain inet selvedge c",
    "add chain inet selvedge d",
    "add table inet selvedge { flags dormant; }",
];

#[test]
fn asking_whether_a_kernel_can_own_changes_nothing() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        let before = kernel.generation().unwrap();
        assert!(kernel.can_own().unwrap());
        assert_eq!(list(), "");
        assert_eq!(kernel.generation().unwrap(), before);
    });
}

#[test]
fn nobody_but_the_owner_changes_its_tables() {
    in_namespace(|| {
        let mut kernel = owner();
        assert!(read(&mut kernel) == owned());
        kernel.listen(vec![inet(), bridge()]).unwrap();
        let before = kernel.generation().unwrap();
        for edit in EDITS {
            let output = Command::new("nft").arg(edit).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{edit}: {said}");
            assert!(said.contains("not permitted"), "{edit}: {said}");
        }
        assert_eq!(kernel.generation().unwrap(), before);
        load("add table inet other; add table ip other");
        load("flush ruleset");
        let tables = nft(&["list", "tables"], "");
        assert_eq!(tables, "table inet selvedge\ntable bridge selvedge\n");
        assert!(read(&mut kernel) == owned());
        assert!(kernel.interference().is_empty());
        // The owner goes on as ever.
        assert_eq!(follow(&mut kernel, &Ruleset::default()).unwrap(), 2);
    });
}

#[test]
fn other_sockets_of_one_process_are_foreigners() {
    in_namespace(|| {
        let first = owner();
        let mut second = Kernel::open().unwrap();
        let held = read(&mut second);
        let other = Ownership::Other(first.port_id());
        assert_eq!(ownership(&held), [other; 2]);
        for desired in [small(), owned(), Ruleset::default()] {
            let error = second.commit(&diff(&held, &desired)).unwrap_err();
            let said = error.to_string();
            let words = "refused to delete table inet selvedge, which belongs to another process";
            assert!(said.contains(words), "{said}");
            assert!(said.contains("not permitted"), "{said}");
        }
    });
}

#[test]
fn tables_outlive_their_owner_and_the_next_one_adopts_them() {
    in_namespace(|| {
        abandon(owner());
        let mut kernel = Kernel::open().unwrap();
        let orphans = read(&mut kernel);
        assert!(orphans == small().with_ownership(Ownership::Orphan));
        let before = nft(&["-a", "list", "ruleset"], "");
        assert_eq!(follow(&mut kernel, &owned()).unwrap(), 2);
        assert!(read(&mut kernel) == owned());
        // Handles show that nothing was made anew. The tables' own lines name the owner.
        let inside = |listing: &str| -> Vec<String> {
            let lines = listing.lines();
            let lines = lines.filter(|line| !line.starts_with("table ") && !line.contains("flags"));
            lines.map(str::to_owned).collect()
        };
        let after = nft(&["-a", "list", "ruleset"], "");
        assert_eq!(inside(&after), inside(&before));
        assert_eq!(follow(&mut kernel, &owned()).unwrap(), 0);
    });
}

#[test]
fn an_orphan_is_anyone_s_to_change_and_to_remove() {
    for edit in EDITS.iter().take(7).chain(&["flush ruleset"]) {
        in_namespace(|| {
            abandon(owner());
            load(edit);
            let mut kernel = Kernel::open().unwrap();
            assert!(follow(&mut kernel, &owned()).unwrap() >= 2, "{edit}");
            assert!(read(&mut kernel) == owned(), "{edit}");
        });
    }
    in_namespace(|| {
        abandon(owner());
        let mut kernel = Kernel::open().unwrap();
        follow(&mut kernel, &Ruleset::default()).unwrap();
        assert_eq!(list(), "");
    });
}

#[test]
fn tables_change_hands_in_one_transaction() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        follow(&mut kernel, &small()).unwrap();
        for desired in [owned(), small(), owned()] {
            let before = kernel.generation().unwrap();
            follow(&mut kernel, &desired).unwrap();
            assert!(read(&mut kernel) == desired);
            assert_eq!(kernel.generation().unwrap(), before + 1);
        }
        abandon(kernel);
        let mut kernel = Kernel::open().unwrap();
        follow(&mut kernel, &small()).unwrap();
        assert!(read(&mut kernel) == small());
    });
}

#[test]
fn a_survey_names_the_owner() {
    in_namespace(|| {
        load("add table inet other");
        let mut kernel = owner();
        let survey = kernel.survey().unwrap();
        let owner = |name| survey.table("inet", name).unwrap().owner;
        assert_eq!(owner("selvedge"), Some(kernel.port_id()));
        assert_eq!(owner("other"), None);
    });
}

/// What people see on Debian 12, whose nft is older than `persist`: README.md tells of it.
#[test]
fn nft_lists_such_tables() {
    in_namespace(|| {
        let kernel = owner();
        let listed = nft(&["list", "table", "inet", "selvedge"], "");
        let mut lines = listed.lines();
        let first = lines.next().unwrap();
        assert!(
            first.starts_with("table inet selvedge { # progname "),
            "{listed}"
        );
        assert!(
            lines.next().unwrap().starts_with("\tflags owner"),
            "{listed}"
        );
        abandon(kernel);
        let listed = nft(&["list", "table", "inet", "selvedge"], "");
        assert!(
            listed.starts_with("table inet selvedge {\n\tflags "),
            "{listed}"
        );
    });
}
