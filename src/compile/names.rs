//! Names and comments: the cluster's own where they fit, cut with a hash where they don't.

use selvedge_nft::{Comment, Name};
use sha2::{Digest, Sha256};

use super::sets::SetSpec;
use crate::cluster::selector::{LabelSelector, Operator, PodSelector, Scope};
use crate::index::PodKey;
use crate::policy::{Direction, PolicyKey};

/// The chain of a pod in one direction: `ingress/shop/api-0`.
pub fn pod_chain(direction: Direction, (namespace, pod): &PodKey) -> Name {
    fitted(&[direction.name(), namespace, pod], "")
}

/// The chain of a policy in one direction: `policy/shop/allow-web/ingress`.
pub fn policy_chain(key: &PolicyKey, direction: Direction) -> Name {
    let suffix = format!("/{direction}");
    fitted(&["policy", &key.namespace, &key.name], &suffix)
}

/// The chain of a port of the pods' bridge: `port/veth0`.
pub fn port_chain(port: &str) -> Name {
    fitted(&["port", port], "")
}

/// The name of a set: its kind, a hash of what it stands for, and its family.
pub fn set(spec: &SetSpec) -> Name {
    let mut hash = Hash::new();
    let (kind, family) = match spec {
        SetSpec::Pods { selector, family } => {
            hash.selector(selector);
            ("pods", Some(family))
        }
        SetSpec::NamedPort {
            selector,
            local,
            name,
            protocol,
            family,
        } => {
            hash.selector(selector);
            hash.text(name);
            hash.number(u128::from(protocol.number()));
            hash.number(u128::from(*local));
            ("port", Some(family))
        }
        SetSpec::Blocks { ranges, family } => {
            for range in ranges {
                hash.text(&range.to_string());
            }
            ("cidr", Some(family))
        }
        SetSpec::Ports(ranges) => {
            for (first, last) in ranges {
                hash.number(u128::from(*first));
                hash.number(u128::from(*last));
            }
            ("ports", None)
        }
    };
    let hash = hash.hex();
    let text = match family {
        Some(family) => format!("{kind}-{hash}-{}", family.digit()),
        None => format!("{kind}-{hash}"),
    };
    fitted(&[&text], "")
}

/// A name of the parts, joined with `/`, and the suffix. Where that is no valid name, or too long, what is wrong is
/// replaced or cut, and a hash of the whole makes up for it.
fn fitted(parts: &[&str], suffix: &str) -> Name {
    let whole = format!("{}{suffix}", parts.join("/"));
    // Parts with a slash of their own could stand for other parts.
    let faithful = parts.iter().all(|part| !part.contains('/'));
    // What is cut has the greatest length, so nothing else may have it: names could be chosen to pass for what was cut.
    let short = whole.len() < Name::MAX;
    if faithful
        && short
        && let Ok(name) = Name::new(&whole)
    {
        return name;
    }
    let mut hash = Hash::new();
    for part in parts.iter().chain([&suffix]) {
        hash.text(part);
    }
    let tail = format!("-{}{suffix}", hash.hex());
    let allowed = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "/._-".contains(c) => c,
        _ => '_',
    };
    let head: String = parts.join("/").chars().map(allowed).collect();
    let head = &head[..head.len().min(Name::MAX - tail.len())];
    infallible(&format!("{head}{tail}"))
}

/// The name `x` where even the fitted text is none, which the alphabet and the cut above rule out.
fn infallible(text: &str) -> Name {
    let fallback = || Name::new("x");
    match Name::new(text).or_else(|_| fallback()) {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}

/// A fixed name of the ruleset.
pub fn fixed(text: &'static str) -> Name {
    infallible(text)
}

/// A comment of any text: what nft can't quote is replaced, what is too long is cut with a hash; none for no text.
pub fn comment(text: &str) -> Option<Comment> {
    if text.is_empty() {
        return None;
    }
    if let Ok(comment) = Comment::new(text) {
        return Some(comment);
    }
    let replace = |c: char| match c {
        '"' | '\\' => '\'',
        c if c.is_control() => ' ',
        c => c,
    };
    let clean: String = text.chars().map(replace).collect();
    if let Ok(comment) = Comment::new(&clean) {
        return Some(comment);
    }
    let mut hash = Hash::new();
    hash.text(text);
    let tail = format!("… {}", hash.hex());
    let mut cut = String::new();
    for c in clean.chars() {
        if cut.len() + c.len_utf8() + tail.len() > Comment::MAX {
            break;
        }
        cut.push(c);
    }
    Comment::new(&format!("{cut}{tail}")).ok()
}

/// A SHA-256 of length-prefixed parts, cut to 96 bits: nobody can craft a selector that shares another's set.
struct Hash(Sha256);

impl Hash {
    fn new() -> Self {
        Self(Sha256::new())
    }

    fn number(&mut self, number: u128) {
        self.0.update(number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u128);
        self.0.update(text.as_bytes());
    }

    fn selector(&mut self, selector: &PodSelector) {
        match &selector.scope {
            Scope::Namespace(name) => {
                self.text("namespace");
                self.text(name);
            }
            Scope::Namespaces(namespaces) => {
                self.text("namespaces");
                self.labels(namespaces);
            }
        }
        self.labels(&selector.pods);
    }

    fn labels(&mut self, selector: &LabelSelector) {
        self.number(selector.requirements().count() as u128);
        for requirement in selector.requirements() {
            self.text(&requirement.key);
            let (operator, values) = match &requirement.operator {
                Operator::In(values) => ("In", Some(values)),
                Operator::NotIn(values) => ("NotIn", Some(values)),
                Operator::Exists => ("Exists", None),
                Operator::DoesNotExist => ("DoesNotExist", None),
            };
            self.text(operator);
            self.number(values.map_or(0, |v| v.len()) as u128);
            for value in values.into_iter().flatten() {
                self.text(value);
            }
        }
    }

    fn hex(self) -> String {
        let digest = self.0.finalize();
        digest.iter().take(12).map(|b| format!("{b:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Text;

    fn pod(namespace: &str, name: &str) -> Name {
        let key = (Text::from(namespace), Text::from(name));
        pod_chain(Direction::Ingress, &key)
    }

    #[test]
    fn a_long_name_stays_recognisable_and_unique() {
        let (namespace, long) = ("n".repeat(63), "p".repeat(253));
        let name = pod(&namespace, &long);
        assert_eq!(name.as_str().len(), Name::MAX);
        assert!(
            name.as_str()
                .starts_with(&format!("ingress/{namespace}/ppp"))
        );
        let other = pod(&namespace, &format!("{}q", "p".repeat(252)));
        assert_ne!(name, other);
    }

    #[test]
    fn no_name_can_be_chosen_to_pass_for_one_that_is_cut() {
        let long = pod("shop", &"a".repeat(253));
        let [direction, namespace, cut] = long.as_str().split('/').collect::<Vec<_>>()[..] else {
            panic!("{long}");
        };
        assert_eq!((direction, namespace), ("ingress", "shop"));
        assert_ne!(pod("shop", cut), long);
        // One that is a byte shorter than the longest stays as it is.
        let plain = &cut[1..];
        assert_eq!(pod("shop", plain).as_str(), format!("ingress/shop/{plain}"));
    }

    #[test]
    fn parts_cannot_pass_for_others() {
        assert_ne!(pod("a/b", "c"), pod("a", "b/c"));
        assert_ne!(pod("a b", "c"), pod("a_b", "c"));
    }

    #[test]
    fn comments_are_cut_at_a_character() {
        let text = "ä".repeat(100);
        let comment = comment(&text).unwrap();
        assert!(comment.as_str().len() <= Comment::MAX);
        assert_eq!(super::comment("say \"hi\"").unwrap().as_str(), "say 'hi'");
        assert_eq!(super::comment(""), None);
    }
}
