//! `selvedge-cni`: a CNI plugin that stands in Flannel's chain, after Flannel's own, and holds a pod up until its policies
//! are in force.
//!
//! ```text
//!  kubelet ─ container runtime ─ flannel (veth, address) ─ selvedge-cni ─ … ─ the pod starts
//!                                                              │ ADD: this pod has these addresses
//!                                             unix socket      ▼ acknowledged by the kernel
//!                                                        selvedge run
//! ```
//!
//! - [`config`]: what the container runtime says: environment and network configuration · [`result`]: what the plugins
//!   before have done
//! - [`plugin`]: the commands, and what is answered · [`client`]: the way to the daemon
//! - [`protocol`]: what the two say to each other; the daemon uses this module, too
//!
//! It follows the [CNI specification](https://github.com/containernetworking/cni/blob/main/SPEC.md), 0.3.0 to 1.1.0: Flannel's
//! own configuration is of 0.3.1, and k3s' of 1.0.0.

#![forbid(unsafe_code)]

pub mod client;
pub mod config;
pub mod plugin;
pub mod protocol;
pub mod result;
