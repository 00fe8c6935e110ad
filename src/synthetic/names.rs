//! What things are called.

use super::text;
use crate::cluster::labels::Labels;
use crate::cluster::object::Namespace;

/// The replicas of DNS, monitoring and the ingress controller, each in a namespace of its own: the first ones.
pub(super) const INFRASTRUCTURE: [usize; 3] = [2, 2, 3];
/// The namespaces of the local pods, which come next.
pub(super) const SHOPS: usize = 5;
/// The namespaces that are always there.
pub(super) const FIXED_NAMESPACES: usize = INFRASTRUCTURE.len() + SHOPS;

pub(super) const TIERS: [&str; 5] = ["frontend", "backend", "cache", "db", "worker"];
pub(super) const ENVS: [&str; 3] = ["prod", "stage", "dev"];

pub(super) fn namespace_name(n: usize) -> String {
    match n {
        0 => "kube-system".to_owned(),
        1 => "monitoring".to_owned(),
        2 => "ingress-nginx".to_owned(),
        n if n < FIXED_NAMESPACES => format!("shop-{}", n - INFRASTRUCTURE.len()),
        n => format!("team-{}", n - FIXED_NAMESPACES),
    }
}

pub(super) fn namespace(n: usize, env: u8, budget: u8) -> Namespace {
    let name = namespace_name(n);
    let budget = budget.to_string();
    let role = if n == 2 { "ingress" } else { "tenant" };
    let env = ENVS[usize::from(env) % ENVS.len()];
    let labels: Labels = [
        ("budget", budget.as_str()),
        ("env", env),
        ("pod-security.kubernetes.io/enforce", "restricted"),
        ("role", role),
        ("team", &name),
    ]
    .into_iter()
    .collect();
    Namespace::new(text(&name), &labels)
}

/// The value of a Deployment's label `app`.
pub(super) fn app(namespace: u32, number: u32) -> String {
    match namespace {
        0 => "coredns".to_owned(),
        1 => "prometheus".to_owned(),
        2 => "ingress-nginx".to_owned(),
        _ => {
            const WORDS: [&str; 8] = [
                "api", "web", "auth", "cart", "mail", "search", "stock", "bill",
            ];
            format!("{}-{number}", WORDS[number as usize % WORDS.len()])
        }
    }
}

/// A pod template's hash.
pub(super) fn hash(deployment: u32, revision: u32) -> String {
    letters(mix(u64::from(deployment) << 32 | u64::from(revision)), 10)
}

/// The end of a pod's name.
pub(super) fn suffix(serial: u32) -> String {
    // Five letters would collide among 100,000 pods; names must not.
    letters(mix(u64::from(serial)), 9)
}

pub(super) fn uid(serial: u32) -> String {
    let bits = u128::from(mix(u64::from(serial))) << 64 | u128::from(serial);
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

fn letters(mut bits: u64, count: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..count)
        .map(|_| {
            let letter = ALPHABET[(bits % 27) as usize];
            bits /= 27;
            char::from(letter)
        })
        .collect()
}

/// Spreads the bits of a number (splitmix64's finaliser, a bijection).
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
