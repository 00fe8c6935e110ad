//! The plugin in Flannel's configuration, where it stays.

use std::fs;
use std::path::Path;

use selvedge_lab::{Error, stage, wait_until};
use serde_json::{Value, json};

use super::{PATIENCE, Stage};

/// As Flannel's own manifest writes it.
const FLANNELS: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
"#;

/// The types of a list's plugins; none where it can't be read at the moment.
fn types(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let list: Value = serde_json::from_slice(&text).unwrap_or_default();
    let plugins = list["plugins"].as_array().cloned().unwrap_or_default();
    let kind = |plugin: &Value| plugin["type"].as_str().unwrap_or_default().to_owned();
    plugins.iter().map(kind).collect()
}

#[test]
fn flannel_s_configuration_keeps_the_plugin() -> Result<(), Error> {
    let mut on = Stage::new()?;
    let (bin, net) = (
        on.directory.path().join("bin"),
        on.directory.path().join("net.d"),
    );
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&net).unwrap();
    let conflist = net.join("10-flannel.conflist");
    let first = net.join("05-selvedge.conflist");
    let node = on.live.node(1).node.clone();
    let cni = |words: &[&str]| {
        let command = stage::selvedge(&node)?.arg("cni").args(words);
        let command = command
            .arg("--bin-dir")
            .arg(&bin)
            .arg("--conf-dir")
            .arg(&net);
        Ok::<_, Error>(command)
    };
    let socket = on.socket();
    let install = |words: &[&str]| {
        let command = cni(&["install"])?.arg("--binary").arg(stage::plugin()?);
        Ok::<_, Error>(command.arg("--socket").arg(&socket).args(words))
    };
    let failed = install(&[])?.output()?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(2), "{said}");
    assert!(
        said.contains("there is no configuration of Flannel in"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);

    // It waits for Flannel, and for whatever Flannel does after.
    let watch = install(&["--watch"])?.daemon()?;
    watch.wait_for_output("there is no configuration of Flannel", PATIENCE)?;
    let expected = ["flannel", "selvedge-cni", "portmap"];
    for round in 0..20 {
        match round % 3 {
            // As `cp` does. What a runtime reads first has the plugin all the while.
            0 => {
                fs::write(&conflist, FLANNELS).unwrap();
                assert!(round == 0 || types(&first) == expected);
            }
            // As k3s does.
            1 => {
                let other = net.join("tmp");
                fs::write(&other, FLANNELS.replace("0.3.1", "1.0.0")).unwrap();
                fs::rename(&other, &conflist).unwrap();
            }
            _ => {
                fs::remove_file(bin.join("selvedge-cni")).unwrap();
                fs::remove_file(&conflist).unwrap();
                fs::write(&conflist, FLANNELS).unwrap();
            }
        }
        wait_until("the plugin is in the list again", PATIENCE, || {
            let lists = [&conflist, &first];
            let there = lists.into_iter().all(|list| types(list) == expected);
            Ok(there && bin.join("selvedge-cni").exists())
        })?;
    }
    assert_eq!(
        watch.terminate(PATIENCE)?.code(),
        Some(0),
        "{}",
        watch.stderr()
    );
    assert_eq!(types(&conflist), expected, "it stays when the watch ends");
    let again = install(&[])?.run()?;
    assert_eq!(again, "nothing to do: the CNI plugin is installed\n");

    // What stands there is what a runtime runs.
    let _daemon = on.daemon()?;
    let list: Value = serde_json::from_slice(&fs::read(&first).unwrap()).unwrap();
    let mut runtime = on.runtime()?;
    runtime.entry = list["plugins"][1].clone();
    let sandbox = on.sandbox("shop/web", None)?;
    runtime.add(&sandbox)?;
    assert_eq!(runtime.entry["socket"], json!(socket));

    let status = || cni(&["status"])?.output();
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let up = status()?;
    assert!(
        up.status.success() && said(&up).starts_with("pods start by"),
        "{up:?}"
    );
    let gone = cni(&["uninstall"])?.run()?;
    assert_eq!(gone.lines().count(), 4, "{gone}");
    assert!(
        [FLANNELS.to_owned(), FLANNELS.replace("0.3.1", "1.0.0")]
            .contains(&fs::read_to_string(&conflist).unwrap())
    );
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&net).unwrap().count(), 1);
    let down = status()?;
    assert_eq!(down.status.code(), Some(1));
    assert!(said(&down).contains("is read first, and selvedge-cni is not in it"));
    let again = cni(&["uninstall"])?.run()?;
    assert!(again.starts_with("nothing to remove"), "{again}");
    Ok(())
}
