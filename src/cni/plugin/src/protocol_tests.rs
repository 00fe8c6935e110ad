use super::*;

fn attachment() -> Attachment {
    Attachment {
        id: Id {
            network: "cbr0".to_owned(),
            container: "c0ffee".to_owned(),
            ifname: "eth0".to_owned(),
        },
        pod: PodId {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: "u-1".to_owned(),
        },
        interfaces: vec!["cni0".to_owned(), "veth1".to_owned()],
        addresses: vec![[10, 244, 1, 7].into()],
    }
}

fn sent(command: &Command) -> Vec<u8> {
    let command = command.clone();
    line(&Request {
        version: VERSION,
        command,
    })
    .unwrap()
}

#[test]
fn every_command_arrives_as_it_was_sent() {
    let attachment = attachment();
    let id = attachment.id.clone();
    let valid = vec![Valid {
        container: "c".to_owned(),
        ifname: "eth0".to_owned(),
    }];
    for command in [
        Command::Add {
            attachment: attachment.clone(),
            patience: 9_000,
        },
        Command::Check { attachment },
        Command::Del { id },
        Command::Gc {
            network: "cbr0".to_owned(),
            valid,
        },
        Command::Status,
    ] {
        let line = sent(&command);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(request(&line), Ok(command));
    }
}

#[test]
fn replies_arrive_too() {
    let refusal = Refusal::new(Reason::NotReady, "not yet");
    for result in [Ok(()), Err(refusal)] {
        let sent = line(&Reply::from(result.clone())).unwrap();
        assert_eq!(reply(&sent).unwrap(), result);
    }
    assert!(reply(b"{}").is_err());
    assert!(reply(b"").is_err());
}

#[test]
fn another_version_is_said_to_be_one() {
    // What comes with it may have any form.
    let refusal = request(br#"{"version": 2, "command": {"add": []}}"#).unwrap_err();
    assert_eq!(refusal.reason, Reason::Malformed);
    assert!(refusal.message.contains("version 2"), "{refusal}");
}

#[test]
fn what_is_no_request_is_refused_in_one_line() {
    let good = String::from_utf8(sent(&Command::Add {
        attachment: attachment(),
        patience: 1,
    }))
    .unwrap();
    let long = "x".repeat(LONGEST_TEXT + 1);
    let many: Vec<String> = (0..=MOST).map(|n| format!("\"10.0.0.{n}\"")).collect();
    for bad in [
        String::new(),
        "\u{0}\u{1}".to_owned(),
        "{}".to_owned(),
        "[1]".to_owned(),
        r#"{"version": 1}"#.to_owned(),
        r#"{"version": 1, "command": "format"}"#.to_owned(),
        r#"{"version": 1, "command": "add"}"#.to_owned(),
        r#"{"version": -1, "command": "status"}"#.to_owned(),
        good.replace("web-0", ""),
        good.replace("web-0", &long),
        good.replace("web-0", "a\\nb"),
        good.replace("c0ffee", ""),
        good.replace("10.244.1.7", "10.244.1.700"),
        good.replace("\"10.244.1.7\"", &many.join(",")),
        format!("{good}{good}"),
        "[".repeat(100_000),
    ] {
        let refusal = request(bad.as_bytes()).unwrap_err();
        assert_eq!(refusal.reason, Reason::Malformed, "{bad:.80}");
        assert!(!refusal.message.contains('\n'), "{refusal}");
    }
    // A runtime that says no UID is an older one.
    assert!(request(good.replace("u-1", "").as_bytes()).is_ok());
}
