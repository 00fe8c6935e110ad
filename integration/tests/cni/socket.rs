//! Whatever comes to the socket, pods start.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use selvedge_lab::{Error, stage};
use serde_json::json;

use super::{PATIENCE, Stage};

#[test]
fn garbage_and_crowds_keep_no_pod_from_starting() -> Result<(), Error> {
    let mut on = Stage::new()?;
    let daemon = on.daemon()?;
    let runtime = on.runtime()?;
    let path = on.socket();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);

    let line = vec![b'{'; 64 << 20];
    for garbage in [
        &b"\n"[..],
        b"{}\n",
        b"\xff\xfe\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &line,
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let _ = stream.write_all(garbage);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        let reply = String::from_utf8_lossy(&reply).into_owned();
        assert!(reply.contains("malformed"), "{reply}");
    }
    // They say half a word, and stay.
    let crowd: Vec<UnixStream> = (0..1000)
        .map(|_| {
            let mut stream = UnixStream::connect(&path).unwrap();
            let _ = stream.write_all(b"{\"version\":1,");
            stream
        })
        .collect();
    let sandbox = on.sandbox("shop/web", None)?;
    let took = runtime.add(&sandbox)?;
    println!(
        "a start among {} who say nothing took {took:?}",
        crowd.len()
    );
    assert!(took < Duration::from_secs(10));
    assert_eq!(daemon.exit(), None);

    // Not even where the socket is open to others does it hear them.
    for (path, mode) in [(path.parent().unwrap(), 0o755), (path.as_path(), 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(on.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let plugin = on.directory.path().join("selvedge-cni");
    // By a program of its own: another test's child has a copy of what is open here until its exec, and what somebody may
    // write to can't be run.
    let mut copy = Command::new("cp");
    let copy = copy.arg("-p").arg(stage::plugin()?).arg(&plugin);
    assert!(copy.status().unwrap().success());
    let config = json!({"cniVersion": "1.1.0", "name": "cbr0", "socket": path});
    let nobody = on.live.node(1).node.netns().command("setpriv");
    let nobody = nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let nobody = nobody.arg(&plugin).env("CNI_COMMAND", "STATUS");
    let refused = nobody.input(config.to_string()).output()?;
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        !refused.status.success() && said.contains("\"code\":50"),
        "{refused:?}"
    );
    daemon.wait_for_output("somebody who is not root", Duration::from_secs(20))?;
    Ok(())
}

#[test]
fn a_place_that_is_open_to_others_is_not_used_until_it_is_not() -> Result<(), Error> {
    let mut on = Stage::new()?;
    let path = on.socket();
    let directory = path.parent().unwrap();
    fs::create_dir(directory).unwrap();
    let open_to_all = |mode| fs::set_permissions(directory, fs::Permissions::from_mode(mode));
    open_to_all(0o777).unwrap();
    // The policies are in force all the same.
    let daemon = on.daemon()?;
    daemon.wait_for_output("others may write there", PATIENCE)?;
    assert!(!path.exists());
    open_to_all(0o755).unwrap();
    daemon.wait_for_output("the CNI plugin is heard", PATIENCE)?;
    let runtime = on.runtime()?;
    let sandbox = on.sandbox("shop/web", None)?;
    runtime.add(&sandbox)?;
    assert!(
        daemon
            .stderr()
            .contains("no longer so: the CNI socket's directory")
    );
    Ok(())
}
