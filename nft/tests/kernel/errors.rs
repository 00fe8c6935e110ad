//! What the kernel refuses, or never gets to see: all or nothing, and the first object at fault is named.

use std::io;
use std::sync::Arc;

use selvedge_nft::{
    BaseChain, Chain, ChainPolicy, Counter, Dataplane, DataplaneError, Datatype, Field, Hook,
    Kernel, LimitUnit, Op, Operand, Operator, Rule, SetHeader, Statement, Table, Transaction,
    Value, Verdict,
};

use crate::lab::*;

fn refusal(error: DataplaneError) -> (String, Option<usize>, io::Error) {
    match error {
        DataplaneError::Refused {
            operation,
            index,
            source,
        } => (operation, index, source),
        other => panic!("not refused but: {other}"),
    }
}

fn small() -> Table {
    Table {
        sets: [(
            name("pods"),
            set(&[Datatype::Ipv4Addr], keys([k4("10.0.0.1")])),
        )]
        .into_iter()
        .collect(),
        chains: [
            (name("pod"), chain([])),
            (
                name("calls"),
                chain([Rule::new([Verdict::Jump(name("pod")).into()])]),
            ),
        ]
        .into_iter()
        .collect(),
        ..Table::default()
    }
}

fn add_chain(text: &str) -> Op {
    Op::AddChain {
        table: inet(),
        name: name(text),
        base: None,
        comment: None,
    }
}

fn add_rule(statement: Statement) -> Op {
    Op::AddRule {
        table: inet(),
        chain: name("pod"),
        rule: Rule::new([statement]),
    }
}

#[test]
fn a_transaction_with_a_bad_end_changes_nothing_and_names_it() {
    in_namespace(|| {
        let before = ruleset([(inet(), small())]);
        let mut kernel = kernel_with(&before);
        let header = SetHeader {
            key: vec![Datatype::Ipv4Addr],
            comment: None,
        };
        let bad: [(Op, &str, i32); 9] = [
            (
                Op::AddTable {
                    table: inet(),
                    comment: None,
                    owned: false,
                },
                "add table inet selvedge",
                nix::libc::EEXIST,
            ),
            (
                add_chain("pod"),
                "add chain inet selvedge pod",
                nix::libc::EEXIST,
            ),
            (
                Op::DeleteChain {
                    table: inet(),
                    name: name("pod"),
                },
                "delete chain inet selvedge pod",
                nix::libc::EBUSY,
            ),
            (
                Op::FlushChain {
                    table: inet(),
                    name: name("nobody"),
                },
                "flush chain inet selvedge nobody",
                nix::libc::ENOENT,
            ),
            (
                add(
                    &inet(),
                    &name("pods"),
                    &header,
                    keys([k4("10.0.0.1"), k4("10.0.0.3")]),
                ),
                "add 2 elements to set inet selvedge pods",
                nix::libc::EEXIST,
            ),
            (
                delete(&inet(), &name("pods"), &header, keys([k4("10.0.0.9")])),
                "delete 1 element from set inet selvedge pods",
                nix::libc::ENOENT,
            ),
            (
                add_rule(Statement::lookup([Field::IpSaddr], name("nobody"))),
                "add a rule to chain inet selvedge pod",
                nix::libc::ENOENT,
            ),
            (
                add_rule(Verdict::Goto(name("nobody")).into()),
                "add a rule to chain inet selvedge pod",
                nix::libc::ENOENT,
            ),
            (
                Op::DeleteCounter {
                    table: inet(),
                    name: name("nobody"),
                },
                "delete counter inet selvedge nobody",
                nix::libc::ENOENT,
            ),
        ];
        for (op, words, errno) in bad {
            let mut ops = vec![
                add_chain("new"),
                add(&inet(), &name("pods"), &header, keys([k4("10.0.0.2")])),
                Op::AddCounter {
                    table: inet(),
                    name: name("count"),
                    counter: Arc::new(Counter::default()),
                },
            ];
            ops.push(op);
            let error = kernel.commit(&Transaction { ops }).unwrap_err();
            let (operation, index, source) = refusal(error);
            assert_eq!((operation.as_str(), index), (words, Some(3)));
            assert_eq!(source.raw_os_error(), Some(errno), "{words}");
            assert_eq!(read(&mut kernel), before, "{words}");
        }
    });
}

#[test]
fn of_many_errors_the_first_is_named() {
    in_namespace(|| {
        let before = ruleset([(inet(), small())]);
        let mut kernel = kernel_with(&before);
        // More answers than a receive buffer holds.
        let mut ops = vec![add_chain("first"), add_chain("pod")];
        ops.extend((0..20_000).map(|_| add_chain("pod")));
        let error = kernel.commit(&Transaction { ops }).unwrap_err();
        let (operation, index, _) = refusal(error);
        assert_eq!(operation, "add chain inet selvedge pod");
        assert_eq!(index, Some(1));
        assert_eq!(read(&mut kernel), before);
        // What was left over is no answer to the next.
        kernel
            .commit(&Transaction {
                ops: vec![add_chain("next")],
            })
            .unwrap();
    });
}

#[test]
fn what_only_shows_when_all_is_done_is_refused_too() {
    in_namespace(|| {
        let base = BaseChain {
            hook: Hook::Forward,
            priority: 0,
            policy: ChainPolicy::Accept,
        };
        let forward = Chain {
            base: Some(base),
            rules: vec![Rule::new([Verdict::Jump(name("calls")).into()])],
            ..Chain::default()
        };
        let mut table = small();
        table.chains.insert(name("forward"), Arc::new(forward));
        let before = ruleset([(inet(), table)]);
        let mut kernel = kernel_with(&before);
        // forward → calls → pod → calls: a loop.
        let ops = vec![add_rule(Verdict::Jump(name("calls")).into())];
        let error = kernel.commit(&Transaction { ops }).unwrap_err();
        let (operation, index, source) = refusal(error);
        assert_eq!(operation, "add a rule to chain inet selvedge pod");
        assert_eq!(index, Some(0));
        // Kernels differ in what they call it: too many jumps, or a loop.
        let errno = source.raw_os_error().unwrap();
        assert!([nix::libc::EMLINK, nix::libc::ELOOP].contains(&errno));
        assert_eq!(read(&mut kernel), before);
    });
}

#[test]
fn what_netlink_can_not_say_is_refused_before_it_is_sent() {
    in_namespace(|| {
        let before = ruleset([(inet(), small())]);
        let mut kernel = kernel_with(&before);
        let field = |field, op, operand| Statement::Match { field, op, operand };
        let port = Value::Service;
        let eq = Operator::Eq;
        let statements = [
            Statement::Foreign("[ meta load mark => reg 1 ]".to_owned()),
            Statement::CtState(0),
            Statement::Limit {
                rate: 0,
                unit: LimitUnit::Day,
                burst: 5,
            },
            Statement::Limit {
                rate: 1,
                unit: LimitUnit::Day,
                burst: 0,
            },
            Statement::Log {
                group: 0,
                prefix: Some(comment(&"p".repeat(128))),
            },
            Statement::lookup([], name("pods")),
            Statement::lookup([Field::Ip6Saddr, Field::Ip6Daddr], name("pods")),
            Statement::lookup([Field::NdTarget], name("pods")),
            field(Field::NdTarget, eq, Operand::Value(v6("fd00::1"))),
            field(Field::ArpSaddrIp, eq, Operand::Value(v4("10.0.0.1"))),
            Statement::lookup([Field::IpSaddr, Field::Ip6Daddr], name("pods")),
            Statement::lookup([Field::TcpSport, Field::UdpDport], name("pods")),
            Statement::lookup([Field::ThSport, Field::TcpDport], name("pods")),
            field(
                Field::EtherType,
                eq,
                Operand::Value(Value::EtherType(0x8100)),
            ),
            field(Field::IpSaddr, eq, Operand::Value(port(80))),
            field(Field::IpSaddr, eq, Operand::Prefix(v4("10.0.0.1"), 8)),
            field(Field::IpSaddr, eq, Operand::Prefix(v4("0.0.0.0"), 0)),
            field(Field::IpSaddr, eq, Operand::Prefix(v4("10.0.0.1"), 32)),
            field(
                Field::IpSaddr,
                Operator::Lt,
                Operand::Prefix(v4("10.0.0.0"), 8),
            ),
            field(Field::TcpDport, eq, Operand::Prefix(port(0), 8)),
            field(Field::TcpDport, eq, Operand::Range(port(2), port(1))),
            field(
                Field::TcpDport,
                Operator::Lt,
                Operand::Range(port(1), port(2)),
            ),
            field(Field::Iifname, Operator::Lt, Operand::Value(interface("a"))),
        ];
        for statement in statements {
            let ops = vec![add_chain("new"), add_rule(statement.clone())];
            let error = kernel.commit(&Transaction { ops }).unwrap_err();
            let (operation, index, source) = refusal(error);
            assert_eq!(
                operation, "add a rule to chain inet selvedge pod",
                "{statement:?}"
            );
            assert_eq!(index, Some(1), "{statement:?}");
            assert_eq!(source.kind(), io::ErrorKind::InvalidInput, "{statement:?}");
        }
        let long = |key: Vec<Datatype>| SetHeader { key, comment: None };
        let pods = name("pods");
        let v4_only = long(vec![Datatype::Ipv4Addr]);
        let ops = [
            add(&inet(), &pods, &v4_only, keys([80.into()])),
            add(
                &inet(),
                &pods,
                &v4_only,
                ranges([(k4("10.0.0.2"), k4("10.0.0.1"))]),
            ),
            Op::AddSet {
                table: inet(),
                name: name("none"),
                header: long(vec![]),
                kind: keys([]),
                size: None,
            },
            Op::AddSet {
                table: inet(),
                name: name("big"),
                header: long(vec![Datatype::Ipv6Addr; 2]),
                kind: keys([]),
                size: None,
            },
            Op::AddRule {
                table: inet(),
                chain: name("pod"),
                rule: Rule::new(vec![Statement::Counter; 129]),
            },
            Op::AddRule {
                table: inet(),
                chain: name("pod"),
                rule: Rule::new(vec![Statement::NamedCounter(name(&"c".repeat(255))); 100]),
            },
        ];
        for op in ops {
            let ops = vec![op.clone()];
            let error = kernel.commit(&Transaction { ops }).unwrap_err();
            let (_, index, source) = refusal(error);
            assert_eq!(index, Some(0), "{op:?}");
            assert_eq!(source.kind(), io::ErrorKind::InvalidInput, "{op:?}");
        }
        assert_eq!(read(&mut kernel), before);
    });
}

#[test]
fn th_where_a_protocol_is_known_is_refused_for_it_would_read_back_as_another_field() {
    in_namespace(|| {
        let mut kernel = kernel_with(&ruleset([(inet(), small())]));
        let th = || Statement::eq(Field::ThDport, Value::Service(80));
        let tcp = Statement::eq(Field::MetaL4proto, Value::Proto(6));
        let port = Statement::eq(Field::TcpSport, Value::Service(80));
        for before in [tcp, port] {
            let rule = Rule::new([before, th()]);
            let chain = name("pod");
            let ops = vec![Op::AddRule {
                table: inet(),
                chain,
                rule,
            }];
            let error = kernel.commit(&Transaction { ops }).unwrap_err();
            let (_, _, source) = refusal(error);
            assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn without_the_capability_the_error_says_so() {
    in_namespace(|| {
        let mut kernel = kernel_with(&ruleset([(inet(), small())]));
        // The kernel asks for it when a message is sent, so a socket from before is refused as well.
        caps::drop(
            None,
            caps::CapSet::Effective,
            caps::Capability::CAP_NET_ADMIN,
        )
        .unwrap();
        let ops = vec![add_chain("new")];
        for error in [
            Kernel::open().unwrap_err(),
            kernel.commit(&Transaction { ops }).unwrap_err(),
            kernel.read(&[inet()]).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("NET_ADMIN"), "{text}");
            let DataplaneError::Unreachable { source, .. } = error else {
                panic!("not unreachable but: {text}");
            };
            assert_eq!(source.raw_os_error(), Some(nix::libc::EPERM));
        }
    });
}

#[test]
fn a_kernel_without_netlink_is_unreachable() {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
    in_namespace(|| {
        let no_sockets = SeccompFilter::new(
            [(nix::libc::SYS_socket, vec![])].into_iter().collect(),
            SeccompAction::Allow,
            SeccompAction::Errno(nix::libc::EPROTONOSUPPORT as u32),
            TargetArch::try_from(std::env::consts::ARCH).unwrap(),
        );
        let program: seccompiler::BpfProgram = no_sockets.unwrap().try_into().unwrap();
        // For this thread only.
        seccompiler::apply_filter(&program).unwrap();
        let error = Kernel::open().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("this kernel has no nfnetlink"), "{text}");
        let DataplaneError::Unreachable { source, .. } = error else {
            panic!("not unreachable but: {text}");
        };
        assert_eq!(source.raw_os_error(), Some(nix::libc::EPROTONOSUPPORT));
    });
}

#[test]
fn chains_with_many_rules_and_long_messages_go_in_one_batch() {
    in_namespace(|| {
        let rule = |port: u16| {
            Rule::new([
                Statement::eq(Field::TcpDport, Value::Service(port)),
                Verdict::Accept.into(),
            ])
        };
        let long = Chain {
            rules: (0..5000).map(rule).collect(),
            ..Chain::default()
        };
        let table = Table {
            chains: [(name("long"), Arc::new(long))].into_iter().collect(),
            ..Table::default()
        };
        let desired = ruleset([(inet(), table)]);
        let mut kernel = kernel_with(&desired);
        assert_eq!(read(&mut kernel), desired);
    });
}
