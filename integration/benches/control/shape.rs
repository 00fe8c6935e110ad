//! The clusters that are measured.

use selvedge::synthetic::Shape;

/// The sizes that are compared, with the same node in each.
pub const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// The policies in each.
pub const POLICIES: usize = 5_000;
/// The pods on the node in each.
pub const LOCAL_PODS: usize = 50;

/// The cluster of a size.
pub fn shape(pods: usize) -> Shape {
    Shape {
        pods,
        local_pods: LOCAL_PODS,
        policies: POLICIES,
        namespaces: pods / 200,
        seed: 5,
    }
}
