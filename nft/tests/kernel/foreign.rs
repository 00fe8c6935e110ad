//! What others put into our tables is seen: the table reads as equal to none that is desired, and nothing fails.

use selvedge_nft::{Comment, Dataplane, Kernel, Ruleset, Statement, Table, diff};

use crate::lab::*;

/// Reads our table after nft has loaded these lines into it.
fn table_with(lines: &str) -> Table {
    in_namespace(|| {
        load(&format!("table inet selvedge {{\n{lines}\n}}"));
        let found = read(&mut Kernel::open().unwrap());
        Table::clone(&found.tables[&inet()])
    })
}

fn is_foreign(comment: &Option<Comment>) -> bool {
    comment.as_ref().is_some_and(Comment::is_foreign)
}

#[test]
fn a_dormant_table_is_no_healthy_one() {
    let table = table_with("flags dormant");
    assert!(is_foreign(&table.comment), "{table:?}");
    assert!(!is_foreign(&table_with("").comment));
}

#[test]
fn objects_without_a_place_mark_the_table() {
    for lines in [
        "quota q { over 10 mbytes; }",
        "set _odd { type ipv4_addr; }",
        "chain _odd { }",
        "counter _odd { }",
    ] {
        let table = table_with(lines);
        assert!(is_foreign(&table.comment), "{lines}: {table:?}");
    }
}

#[test]
fn sets_of_other_kinds_are_marked() {
    for lines in [
        "set s { type ether_addr; }",
        "set s { type ipv4_addr; timeout 5m; }",
        "set s { type ipv4_addr; flags timeout; }",
        "set s { type ipv4_addr; flags constant; elements = { 10.0.0.1 }; }",
        "set s { type ipv4_addr; flags dynamic; }",
        "set s { type ipv4_addr; flags interval; size 100; }",
        "map s { type ipv4_addr : verdict; size 100; }",
        "set s { type ipv4_addr; counter; elements = { 10.0.0.1 }; }",
        "set s { type ipv4_addr; elements = { 10.0.0.1 comment \"why\" }; }",
        "set s { type ipv4_addr; elements = { * }; }",
        "set s { type ipv6_addr . ipv6_addr; elements = { ::1 . ::2 }; }",
        "set s { typeof ip dscp; elements = { 1 }; }",
        "map s { type ipv4_addr : inet_service; elements = { 10.0.0.1 : 80 }; }",
        "map s { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.0/8 : drop }; }",
    ] {
        let table = table_with(lines);
        let set = &table.sets[&name("s")];
        assert!(is_foreign(&set.header.comment), "{lines}: {set:?}");
        assert!(!is_foreign(&table.comment), "{lines}");
    }
}

#[test]
fn chains_of_other_kinds_are_marked() {
    for lines in [
        "chain c { type nat hook postrouting priority 0; }",
        "chain c { type route hook output priority 0; }",
        "chain c { type filter hook ingress device lo priority 0; }",
    ] {
        let table = table_with(lines);
        let chain = &table.chains[&name("c")];
        assert!(is_foreign(&chain.comment), "{lines}: {chain:?}");
    }
}

#[test]
fn rules_that_this_crate_does_not_write_are_foreign_and_described() {
    for (line, words) in [
        ("meta mark 1", "mark"),
        ("meta mark set 1", "mark"),
        ("ip protocol tcp", "payload"),
        ("ip saddr { 10.0.0.1, 10.0.0.2 }", "lookup"),
        ("ip saddr & 255.0.255.0 == 10.0.0.0", "bitwise"),
        ("ct state != new", "ct"),
        ("ct mark 1", "ct"),
        ("limit rate over 10/second", "limit"),
        ("limit rate 10 mbytes/second", "limit"),
        ("quota 10 mbytes", "quota"),
        ("log", "log"),
        ("log group 1 snaplen 10", "log"),
        ("log group 1 queue-threshold 5", "log"),
        ("reject", "reject"),
        ("notrack", "notrack"),
        ("jump { accept; }", "immediate"),
        ("meta nfproto ipv4", "nfproto"),
        ("tcp sport 80 tcp dport 80", "payload"),
        ("ip saddr vmap { 10.0.0.1 : accept }", "lookup"),
    ] {
        let table = table_with(&format!("chain c {{\ncounter\n{line}\ncounter\n}}"));
        let rules = &table.chains[&name("c")].rules;
        assert_eq!(rules.len(), 3, "{line}");
        let [Statement::Foreign(found)] = &rules[1].statements[..] else {
            panic!("{line} reads as {:?}", rules[1]);
        };
        assert!(found.contains(words), "{line}: {found}");
        assert_eq!(rules[0].statements, [Statement::Counter], "{line}");
        assert_eq!(rules[2].statements, [Statement::Counter], "{line}");
    }
}

#[test]
fn comments_that_ours_can_not_be_are_marked() {
    let table = table_with("comment \"back\\slash\"\nchain c { accept comment \"back\\slash\"; }");
    assert!(is_foreign(&table.comment), "{table:?}");
    let rule = &table.chains[&name("c")].rules[0];
    assert!(is_foreign(&rule.comment), "{rule:?}");
}

/// What could not be read goes all the same, whatever it names.
#[test]
fn maps_that_can_not_be_read_are_removed_with_the_chains_that_they_name() {
    let ours = "map pods { type ipv4_addr : verdict; }\n chain in {\n ip saddr vmap @pods\n }";
    for lines in [
        "chain f { }\n map m { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.0/8 : goto f }; }",
        "chain f { }\n map m { type ipv4_addr : verdict; size 10; elements = { 10.0.0.1 : goto f }; }",
        "chain f { }\n map pods { type ipv4_addr : verdict; elements = { * : goto f }; }",
        "chain f { }\n map m { type ipv4_addr : verdict; size 9; elements = { 10.0.0.1 : goto f }; }\n chain g {\n ip saddr vmap @m\n }",
    ] {
        in_namespace(|| {
            load(&format!("table inet selvedge {{\n{ours}\n}}"));
            let mut kernel = Kernel::open().unwrap();
            let wanted = read(&mut kernel);
            load(&format!("table inet selvedge {{\n{lines}\n}}"));
            let found = read(&mut kernel);
            assert!(found != wanted, "{lines}");
            let repaired = kernel.commit(&diff(&found, &wanted));
            assert!(repaired.is_ok(), "{lines}: {repaired:?}");
            assert!(read(&mut kernel) == wanted, "{lines}");
            kernel.commit(&diff(&wanted, &Ruleset::default())).unwrap();
        });
    }
}
