use super::*;

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// All conditions met but those named, which have a line of their name.
fn except(unmet: &[Condition]) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.set(Condition::Commit, Vec::new());
    for condition in Condition::ALL {
        let line = unmet.contains(&condition).then(|| condition.to_string());
        conditions.set(condition, line.into_iter().collect());
    }
    conditions
}

#[test]
fn at_first_everything_is_open_and_nothing_is_ready() {
    let report = Conditions::default().report();
    assert!(!report.ready());
    assert!(
        report
            .conditions
            .iter()
            .all(|(_, standing, lines)| *standing != Standing::Met && lines.len() == 1)
    );
    let reasons = report.reasons();
    assert!(
        reasons.contains(&"commit: the first commit has not been made".to_owned()),
        "{reasons:?}"
    );
}

#[test]
fn after_the_first_commit_three_conditions_decide() {
    use Condition::*;
    let ready = |unmet: &[Condition]| except(unmet).report().ready();
    assert!(ready(&[]));
    for (condition, decides) in [
        (Source, false),
        (Node, false),
        (Bridge, false),
        (BridgeNetfilter, true),
        (KubeProxy, true),
        (NewPods, true),
        (Commit, true),
    ] {
        assert_eq!(ready(&[condition]), !decides, "{condition}");
        let report = except(&[condition]).report();
        assert_eq!(report.reasons().is_empty(), !decides, "{condition}");
        assert!(report.to_string().contains(&format!("]{condition}: ")));
    }
    assert!(ready(&[Source, Node, Bridge]));
    assert!(!ready(&Condition::ALL));
}

#[test]
fn before_it_the_source_says_what_it_waits_for() {
    let mut conditions = Conditions::default();
    conditions.set(Condition::BridgeNetfilter, Vec::new());
    conditions.set(Condition::KubeProxy, Vec::new());
    conditions.set(Condition::NewPods, Vec::new());
    let waits = "waiting for the API server to list pods: connection refused";
    conditions.set(Condition::Source, lines(&[waits]));
    assert_eq!(
        conditions.report().reasons(),
        [
            format!("source: {waits}"),
            "commit: the first commit has not been made".to_owned()
        ]
    );
    conditions.set(Condition::Commit, Vec::new());
    let report = conditions.report();
    assert!(report.ready());
    assert_eq!(report.reasons(), [""; 0]);
    assert!(
        report
            .to_string()
            .contains(&format!("[!]source: {waits}\n"))
    );
}

#[test]
fn it_is_ready_again_when_it_is_again() {
    let health = Health::default();
    for condition in Condition::ALL {
        health.set(condition, []);
    }
    assert!(health.report().ready());
    health.set(Condition::Commit, lines(&["not committed: EBUSY"]));
    assert_eq!(health.report().reasons(), ["commit: not committed: EBUSY"]);
    // The source was read long ago.
    health.set(Condition::Source, lines(&["gone"]));
    assert_eq!(health.report().reasons().len(), 1);
    health.set(Condition::Commit, []);
    assert!(health.report().ready());
}

#[test]
fn the_verbose_report_has_a_line_for_each() {
    let report = except(&[Condition::Source, Condition::KubeProxy]).report();
    assert_eq!(
        report.to_string(),
        "[!]source: source\n[+]node ok\n[+]bridge ok\n[+]bridge-netfilter ok\n[-]kube-proxy: kube-proxy\n[+]new-pods ok\n[+]commit ok\nreadyz check failed\n"
    );
    let report = except(&[]).report().to_string();
    assert!(report.ends_with("[+]commit ok\nreadyz check passed\n"));
}

#[test]
fn a_line_is_a_line() {
    let health = Health::default();
    health.set(Condition::Source, lines(&["one\ntwo\r\n[+]commit ok"]));
    let text = health.report().to_string();
    assert!(text.starts_with("[-]source: one two"), "{text}");
    assert!(!text.contains("\n[+]commit ok"), "{text}");
}

#[test]
fn a_loop_that_moves_does_not_stand_still() {
    let health = Health::default();
    let later = Instant::now() + LONGEST_STANDSTILL * 2;
    assert!(health.standstill(later) >= LONGEST_STANDSTILL);
    assert!(health.standstill(Instant::now()) < LONGEST_STANDSTILL);
    std::thread::sleep(Duration::from_millis(5));
    let before = health.standstill(later);
    health.beat();
    assert!(health.standstill(later) < before);
}
