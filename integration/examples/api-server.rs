//! The API server stand-in behind its proxy, for trying by hand: `cargo run -p selvedge-lab --example api-server`
//! prints what to set for kubectl, and serves until Ctrl-C. Lines on its standard input make it fail.

use std::io::stdin;

use selvedge_lab::Error;
use selvedge_lab::api::{Cluster, Cut};

fn main() -> Result<(), Error> {
    let cluster = Cluster::stand_in()?;
    let endpoint = cluster.proxy()?.listen_here()?;
    println!("export KUBECONFIG={}", endpoint.kubeconfig().display());
    eprintln!("say: cut, half, stall, flow, down, up, compact");
    for line in stdin().lines() {
        let line = line.map_err(|source| Error::Io {
            what: "read standard input".to_owned(),
            source,
        })?;
        match line.trim() {
            "cut" => endpoint.cut(Cut::Abrupt),
            "half" => endpoint.cut(Cut::MidLine),
            "stall" => endpoint.stall(true),
            "flow" => endpoint.stall(false),
            "down" => endpoint.down()?,
            "up" => endpoint.up()?,
            "compact" => cluster
                .server()
                .into_iter()
                .for_each(|server| server.compact()),
            other => eprintln!("{other}?"),
        }
    }
    Ok(())
}
